"""Attention without values: the descriptions of an item as one vector, and the items of a bundle as one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count, check_entries, check_positive, check_shapes
from ..core.similarity import normalize

__all__ = ["BundleEncoder", "StackEncoder"]

# Squares of such numbers, summed, stay in the range of float32.
LARGEST = 1e12


class _Attention(nn.Module):
    """One head of attention whose values are the rows themselves."""

    def __init__(self, dim: int) -> None:
        """Make the query and the key map."""
        super().__init__()
        check_count(dim=dim)
        self.query, self.key = (nn.Linear(dim, dim, bias=False) for _ in range(2))

    def _attend(self, rows: Tensor, present: Tensor | None = None) -> Tensor:
        """``(n, L, d)`` to the same; what is not ``present (n, L)`` is not seen."""
        rows = rows.to(self.query.weight)
        logits = self.query(rows) @ self.key(rows).mT / math.sqrt(rows.shape[2])  # (n, L, L)
        if present is not None:
            logits = logits.masked_fill(~present[:, None, :], -math.inf)
        return logits.softmax(2).to(rows) @ rows


class StackEncoder(_Attention):
    """Fuses the M descriptions of an item, ``(n, M, d)`` to ``(n, d)``; only their directions count, not the order."""

    def forward(self, stacks: Tensor) -> Tensor:
        """Fuse; a zero row stays zero."""
        check_shapes(stacks=(stacks, f"n M {self.query.in_features}"))
        return self._attend(normalize(stacks)).mean(1)


class BundleEncoder(_Attention):
    """Fuses the items of a bundle, ``(B, L, d)`` and a mask ``(B, L)`` to ``(B, d)``, whatever their order."""

    def __init__(self, dim: int, *, epsilon: float = 1e-9) -> None:
        """Make the maps; ``epsilon`` is that of the normalization."""
        super().__init__(dim)
        check_positive(epsilon=epsilon)
        self.epsilon = epsilon

    def forward(self, items: Tensor, present: Tensor) -> Tensor:
        """Fuse; what stands in the padding does not matter."""
        check_shapes(items=(items, f"B L {self.query.in_features}"), present=(present, "B L", bool))
        check_entries(-LARGEST, LARGEST, items=items)
        if not present.any(1).all():
            raise ValueError(f"present: bundle {int(present.any(1).int().argmin())} has no item")
        # In half precision epsilon would be 0.
        wide = items.to(torch.promote_types(items.dtype, torch.float32))
        rows = F.layer_norm(wide, wide.shape[2:], eps=self.epsilon)
        fused = self._attend(rows, present).masked_fill(~present[:, :, None], 0.0)
        return fused.sum(1) / present.sum(1, keepdim=True)
