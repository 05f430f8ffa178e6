"""Weights of tokens from the hidden states that predict them: a linear score a layer, ReLUs, a learned mixture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_in_range, check_shapes

__all__ = ["TokenMask"]

# The square of a larger number, summed over units, leaves the range of float32.
LARGEST = 1e15


class TokenMask(nn.Module):
    """SPO: weights from a small network on the hidden states of the reference model.

    Shape:
        ``(L, n, T, d)`` states after each of L layers to ``(n, T)`` weights of at least 0.

    Args:
        layers: L.
        width: d.
        dropout: on every layer's activation and on the result, in training only; it rescales upward what it keeps.

    Source: Christopoulou et al. (2025), learned masks, as released; the start is pinned here.
    """

    def __init__(self, layers: int, width: int, *, dropout: float = 0.01) -> None:
        super().__init__()
        check_count(layers=layers, width=width)
        check_in_range(0, 1, dropout=dropout)
        self.norm = nn.LayerNorm(width)  # one for all layers
        self.weight = nn.Parameter(0.1 * torch.randn(layers, width) / width**0.5)  # all scores start near the bias
        self.bias = nn.Parameter(torch.ones(layers))
        self.mixer = nn.Parameter(torch.full((layers,), 1.0 / layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Weights ``(n, T)`` of the tokens that the states predict."""
        layers, width = self.weight.shape
        check_shapes(states=(states, f"{layers} n T {width}"))
        check_entries(-LARGEST, LARGEST, states=states)
        score = torch.einsum("lntd,ld->lnt", self.norm(states.to(self.weight)), self.weight)
        active = self.dropout((score + self.bias[:, None, None]).relu())  # (L, n, T)
        return self.dropout(torch.einsum("lnt,l->nt", active, self.mixer).relu())
