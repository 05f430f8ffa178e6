"""A weight for every pair of rows, learned from their sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count, check_entries, check_flag, check_shapes

__all__ = ["PairWeights"]

# Sums of two such numbers, mapped by a linear layer, stay in the range of float32.
LARGEST = 1e15


class PairWeights(nn.Module):
    """AdaMEOW's soft weights: the logarithm of a sigmoid of a two-layer network on the sum of two embeddings."""

    def __init__(self, dim: int, hidden: int = 16, *, centered: bool = False) -> None:
        """Make the layers; ``centered`` divides each row of weights by its mean (an extension)."""
        super().__init__()
        check_count(dim=dim, hidden=hidden)
        check_flag(centered=centered)
        self.first, self.second, self.centered = nn.Linear(dim, hidden), nn.Linear(hidden, 1), centered

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Log-weights ``(N, N)`` of ``(N, d)`` anchors and ``(N, d)`` candidates."""
        dim = self.first.in_features
        check_shapes(anchors=(anchors, f"N {dim}"), candidates=(candidates, f"N {dim}"))
        check_entries(-LARGEST, LARGEST, anchors=anchors, candidates=candidates)
        # The layer is linear: mapped before they are added, the pairs have the width of the hidden layer, not d.
        weight = self.first.weight
        left, right = self.first(anchors.to(weight)), F.linear(candidates.to(weight), weight)  # (N, hidden)
        pairs = left[:, None] + right[None, :]  # (N, N, hidden)
        scores = F.logsigmoid(self.second(torch.tanh(pairs)).squeeze(2))
        return scores - scores.logsumexp(1, keepdim=True) + math.log(len(scores)) if self.centered else scores
