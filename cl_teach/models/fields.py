"""Categorical fields as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_labels, check_shapes, check_type

__all__ = ["FieldEncoder"]


class FieldEncoder(nn.Module):
    """One table a categorical field: ``(n, F)`` categories to fields ``(n, F, d)`` and presence ``(n, F)``.

    Args:
        sizes: number of categories of each field.
        dim: d.
    """

    def __init__(self, sizes: Sequence[int], dim: int = 16) -> None:
        super().__init__()
        check_type((list, tuple), sizes=sizes)
        if not sizes:
            raise ValueError("sizes: expected at least one field, got none")
        check_count(dim=dim, **{f"sizes[{f}]": size for f, size in enumerate(sizes)})
        self.sizes = tuple(sizes)
        self.tables = nn.ModuleList(
            nn.Embedding.from_pretrained(torch.randn(size, dim) / dim**0.5, freeze=False) for size in sizes
        )

    def forward(self, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Look every field up; a negative category is a missing one, whose vector (of row 0) nobody may use."""
        check_shapes(categories=(categories, f"n {len(self.sizes)}", int))
        rows = categories.clamp_min(0)
        found = []
        for f, (size, table) in enumerate(zip(self.sizes, self.tables, strict=True)):
            found.append(table(check_labels(rows[:, f], name=f"categories (column {f})", num_classes=size)))
        return torch.stack(found, 1), categories >= 0
