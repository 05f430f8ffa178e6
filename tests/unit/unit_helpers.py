"""What the unit tests share: reproducible numbers. ``from unit_helpers import draw``."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw"]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers of this shape: the same for the same seed, rounded to ``dtype``."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
