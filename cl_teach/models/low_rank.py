"""Positive features of states and actions: free tables, and tables of what one sees of a state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count, check_labels, check_shapes

__all__ = ["FactoredFeatures", "LowRankFeatures"]

# Keeps every logarithm of an inner product finite.
_SMALLEST = 1e-6


class LowRankFeatures(nn.Module):
    """Tables through a softplus: ``phi (H, S, N, d)`` and ``psi (H, S, d)``; N counts joint actions."""

    def __init__(self, horizon: int, states: int, actions: int, dim: int) -> None:
        """Draw the tables from the global state of torch, in float64."""
        super().__init__()
        check_count(horizon=horizon, states=states, actions=actions, dim=dim)
        self.raw_phi = nn.Parameter(torch.randn(horizon, states, actions, dim, dtype=torch.float64))
        self.raw_psi = nn.Parameter(torch.randn(horizon, states, dim, dtype=torch.float64))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Both tables."""
        return F.softplus(self.raw_phi) + _SMALLEST, F.softplus(self.raw_psi) + _SMALLEST


class FactoredFeatures(nn.Module):
    r"""Features of states that one sees in parts: every part adds its share inside the softplus.

    Two states with a part in common share its numbers, so what was learned in one holds in the other, visited or not:
    :math:`\phi_k(s, a) = \mathrm{softplus}\big(\sum_f T_{f, x_f(s), a, k}\big)`, and the next state likewise.
    """

    seen: Tensor

    def __init__(self, horizon: int, factors: Tensor, actions: int, dim: int) -> None:
        """Draw the tables from the global state of torch, in float64.

        Args:
            horizon: H.
            factors: ``(S, F)`` integers from 0, the F parts of every state.
            actions: N, joint ones.
            dim: d.
        """
        super().__init__()
        check_count(horizon=horizon, actions=actions, dim=dim)
        check_shapes(factors=(factors, "s f", int))
        columns = [check_labels(column, name="factors") for column in factors.unbind(1)]
        parts = [F.one_hot(column.unique(return_inverse=True)[1]) for column in columns]
        scale = len(parts) ** -0.5  # the sum over the parts starts out as wide as a free table
        self.register_buffer("seen", torch.cat(parts, 1).double(), persistent=False)  # (S, L)
        levels = self.seen.shape[1]
        self.raw_phi = nn.Parameter(scale * torch.randn(horizon, levels, actions, dim, dtype=torch.float64))
        self.raw_psi = nn.Parameter(scale * torch.randn(horizon, levels, dim, dtype=torch.float64))

    def forward(self) -> tuple[Tensor, Tensor]:
        """``phi (H, S, N, d)`` and ``psi (H, S, d)``."""
        phi, psi = (torch.einsum("sl,hl...->hs...", self.seen, raw) for raw in (self.raw_phi, self.raw_psi))
        return F.softplus(phi) + _SMALLEST, F.softplus(psi) + _SMALLEST
