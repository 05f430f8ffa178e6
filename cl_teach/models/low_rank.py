"""Free positive tables as features of states and actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count

__all__ = ["LowRankFeatures"]

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
