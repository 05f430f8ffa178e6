"""A small network that makes a second positive in feature space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_in_range, check_shapes, finite_result

__all__ = ["Hallucinator"]


class Hallucinator(nn.Module):
    """Makes a second positive from a query and its key; a three-layer perceptron after a small push."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        """Make the network.

        Args:
            dim: width of the embeddings.
            hidden: width of both hidden layers; 2 dim if None, as in the released code.
        """
        super().__init__()
        check_count(dim=dim)
        hidden = 2 * dim if hidden is None else hidden
        check_count(hidden=hidden)
        self.network = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dim)
        )

    def forward(self, query: Tensor, key: Tensor, ratio: float) -> Tensor:
        """Hallucinate.

        Args:
            query: ``(N, d)``.
            key: ``(N, d)``.
            ratio: r >= 0.

        Returns:
            ``(N, d)``, not normalized.
        """
        d = self.network[-1].out_features
        check_shapes(query=(query, f"N {d}"), key=(key, f"N {d}"))
        check_in_range(0, math.inf, ratio=ratio)
        pushed = finite_result((1 + ratio) * query - ratio * key, query=query, key=key, ratio=ratio)
        # keys may come from a memory in another precision
        made = self.network(torch.cat([query, pushed.to(query.dtype)], dim=1).to(next(self.parameters()).dtype))
        return finite_result(made, query=query, key=key, ratio=ratio)
