"""A regression in which most rows say next to nothing, and some say something wrong."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_in_range, check_positive

__all__ = ["Redundant", "redundant_regression"]

# A corrupted target has this many times the deviation of a clean one.
WRONG = 3.0


class Redundant(NamedTuple):
    """``inputs (n, d)``, ``targets (n,)``, which rows are ``informative`` or ``corrupted``, and ``truth (d,)``."""

    inputs: Tensor
    targets: Tensor
    informative: Tensor
    corrupted: Tensor
    truth: Tensor


def redundant_regression(
    n: int = 2000,
    width: int = 50,
    *,
    informative: float = 0.2,
    scale: float = 0.1,
    corrupted: float = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Redundant:
    """Linear regression without noise, in which most rows are short.

    Args:
        n: number of rows.
        width: d.
        informative: share of rows of norm about 1.
        scale: norm of the others.
        corrupted: share of rows with a target drawn anew, three times as large as usual.
        seed: of all draws, on the CPU.
        device: where the tensors go.
    """
    check_count(2, n=n)
    check_count(width=width)
    check_positive(scale=scale)
    check_in_range(0, 1, informative=informative, corrupted=corrupted)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(width, generator=generator) / width**0.5
    long = torch.rand(n, generator=generator) < informative
    directions = torch.randn(n, width, generator=generator) / width**0.5  # norms of about 1
    inputs = directions * torch.where(long, 1.0, scale)[:, None]
    targets, wrong = inputs @ truth, torch.rand(n, generator=generator) < corrupted
    noise = WRONG * torch.randn(n, generator=generator) * truth.norm() / width**0.5
    found = (inputs, torch.where(wrong, noise, targets), long, wrong, truth)
    return Redundant(*(x.to(device) for x in found))
