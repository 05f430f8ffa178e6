"""Exercises of chapter 6.1, Meaning or wording?"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def positive_probabilities(surface: Tensor, semantic: Tensor, sharpness: float, power: float) -> Tensor:
    """DebCSE's probabilities of the positives of one anchor.

    Args:
        surface: ``(n,)`` similarities of the other sentences with the anchor by looks, in [0, 1].
        semantic: ``(n,)`` cosines of the scorer.
        sharpness: lambda.
        power: nu.

    Returns:
        ``(n,)``.
    """
    weights = ((semantic + 1) / 2) ** power / torch.exp(sharpness * (surface - 1))
    return weights / weights.sum()


def effective_size(weights: Tensor) -> float:
    """To how many equal weights do weights ``(n,)``, not all 0, of any scale amount?"""
    return float(weights.sum().square() / weights.square().sum())


def at_test_time(mean: Tensor, log_variance: Tensor) -> Tensor:
    """What CVIB multiplies each channel with at test time, ``(d,)``: the mean, or 0 where noise is at least as big."""
    return torch.where(log_variance < mean.square().log(), mean, torch.zeros_like(mean))


def _row(seed: int, sharpness: float = 2.0, power: float = 8.0) -> tuple[Tensor, Tensor, float, float]:
    draws = torch.Generator().manual_seed(seed)
    surface = torch.rand(7, generator=draws, dtype=torch.float64)
    return surface, 2 * torch.rand(7, generator=draws, dtype=torch.float64) - 1, sharpness, power


def _weights(seed: int) -> tuple[Tensor]:
    return (torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64),)


def _mask(seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(8, generator=draws, dtype=torch.float64), 2 * torch.randn(
        8, generator=draws, dtype=torch.float64
    )


EXERCISES = {
    2: Exercise(
        prompt="Which positives does DebCSE draw?",
        reference=positive_probabilities,
        cases=[
            Case(
                "random similarities",
                _row,
                "((semantic + 1) / 2) ** nu, divided by exp(lambda (surface - 1)), divided by the sum.",
            ),
            Case("lambda 0", lambda seed: _row(seed, 0.0), "Without a propensity only the meaning counts."),
            Case("nu 0", lambda seed: _row(seed, 2.0, 0.0), "Any number to the power 0 is 1: only the looks count."),
            Case(
                "all look alike",
                lambda seed: (torch.full((4,), 0.3, dtype=torch.float64), _row(seed)[1][:4], 5.0, 1.0),
                "Equal propensities cancel in the sum.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Effective sample size.",
        reference=effective_size,
        cases=[
            Case("random weights", _weights, "The square of the sum, divided by the sum of the squares."),
            Case(
                "equal weights, not adding up to 1",
                lambda seed: (torch.full((5,), 3.0, dtype=torch.float64),),
                "Five equal weights count five, whatever their size: divide by the sum first.",
            ),
            Case(
                "one takes all",
                lambda seed: (torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64),),
                "One weight alone counts one.",
            ),
        ],
    ),
    4: Exercise(
        prompt="What is left of a mask at test time?",
        reference=at_test_time,
        cases=[
            Case("random masks", _mask, "Keep the mean where exp(log_variance) is smaller than the mean squared."),
            Case(
                "a mean of 0",
                lambda seed: (torch.zeros(2, dtype=torch.float64), torch.tensor([-9.0, 1.0], dtype=torch.float64)),
                "No signal is below any noise; the product is 0 either way, not NaN.",
            ),
            Case(
                "negative means",
                lambda seed: (torch.tensor([-1.0, -0.1], dtype=torch.float64), torch.zeros(2, dtype=torch.float64) - 1),
                "The sign stays: compare with the square of the mean, and return the mean.",
            ),
        ],
    ),
}
