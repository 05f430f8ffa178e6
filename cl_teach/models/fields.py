"""Categorical fields as vectors, and many fields as one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_labels, check_positive, check_shapes, check_type

__all__ = ["FieldEncoder", "Fused", "FusionGate"]

LARGEST = 1e15


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


class Fused(NamedTuple):
    """One vector an example, ``z (n, d)``, not normalized, and how much each field counted, ``gate (n, F)``, sum 1."""

    z: Tensor
    gate: Tensor

    def entropy(self) -> Tensor:
        """Of each gate, ``(n,)``; watch its mean: a gate near 0 has picked one field and hardly learns any more."""
        return torch.special.entr(self.gate).sum(1)


class FusionGate(nn.Module):
    """Weights fields by what they hold and sums them: ``(n, F, d)`` to ``(n, d)``; the order of fields is no matter.

    Example:
        >>> gate, fields = FusionGate(2), torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
        >>> fused = gate(fields, torch.tensor([[True, True, False]]))
        >>> round(fused.gate.sum().item(), 5), fused.gate[0, 2].item()  # what is missing has no weight
        (1.0, 0.0)
    """

    def __init__(self, dim: int, hidden: int = 16, *, temperature: float = 1.0) -> None:
        """Make the scorer; a small ``temperature`` picks one field, a large one averages."""
        super().__init__()
        check_count(dim=dim, hidden=hidden)
        check_positive(temperature=temperature)
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, 1, bias=False)
        self.temperature = temperature

    def forward(self, fields: Tensor, present: Tensor) -> Fused:
        """Fuse the fields ``(n, F, d)`` where ``present (n, F)``; the others get weight and gradient exactly 0."""
        check_shapes(fields=(fields, f"n F {self.first.in_features}"), present=(present, "n F", bool))
        check_entries(-LARGEST, LARGEST, fields=fields)
        if not present.any(1).all():
            raise ValueError(f"present: every example needs a field, row {int(present.any(1).int().argmin())} has none")
        fields = fields.to(self.first.weight)
        scores = self.second(torch.tanh(self.first(fields))).squeeze(2).to(fields) / self.temperature  # (n, F)
        gate = scores.masked_fill(~present, -math.inf).softmax(1)
        return Fused((gate[:, :, None] * fields).sum(1), gate)
