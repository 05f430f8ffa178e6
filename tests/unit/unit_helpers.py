"""What the unit tests share: reproducible numbers, and how exactly two sums of them agree."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw", "rounding"]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers of this shape: the same for the same seed, rounded to ``dtype``."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rounding(terms: int, dtype: torch.dtype = torch.float32, size: float = 1.0) -> dict[str, float]:
    """Tolerances for one sum of so many terms, taken in two orders: ``assert_close(a, b, **rounding(256))``.

    A sum of n terms is off by at most n units of rounding of the sum of their sizes, whatever the order and the
    processor; two sums differ by twice that.

    Args:
        terms: how many terms are added up, or operations follow one another.
        dtype: in which they are added up.
        size: largest absolute value among terms and results.
    """
    relative = 2 * terms * torch.finfo(dtype).eps
    return {"rtol": relative, "atol": relative * size}
