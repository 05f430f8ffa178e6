"""Exercises of chapter 1.3, Is it learning?"""

from __future__ import annotations

import math

import torch
from scipy.special import hyp0f1
from torch import Tensor

from ..core import normalize
from ..evaluation import effective_rank
from . import Case, Exercise


def queue_landmarks(negatives: int, dim: int, temperature: float) -> tuple[float, float]:
    """Chance level and floor of InfoNCE with one positive and a queue of negatives.

    Args:
        negatives: their number, at least 1.
        dim: width of the embeddings.
        temperature: greater than 0.

    Returns:
        The loss when all similarities are equal, and the loss when the positive is perfect and the negatives are
        spread evenly over the sphere in ``dim`` dimensions.
    """
    k = 1 / temperature
    return math.log(1 + negatives), math.log1p(negatives * float(hyp0f1(dim / 2, k * k / 4)) * math.exp(-k))


def collapse_report(z: Tensor) -> tuple[Tensor, Tensor]:
    """Spread and effective rank of the directions of embeddings.

    Args:
        z: ``(n, d)`` embeddings, any scale.

    Returns:
        Two 0-d tensors: one minus the squared length of the mean direction, and the effective rank of the directions.
    """
    unit = normalize(z)
    return 1 - unit.mean(0).square().sum(), effective_rank(unit)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        prompt="Chance level and floor with a queue of negatives.",
        reference=queue_landmarks,
        cases=[
            Case(
                "4096 negatives in 128 dimensions, temperature 0.2",
                lambda seed: (4096 * (1 + seed), 128, 0.2),
                "How many candidates does a query have? The floor has one term for the positive, e^0 = 1, and one "
                "for each negative.",
            ),
            Case(
                "a single negative",
                lambda seed: (1, 2 + seed, 0.5),
                "Chance is then log 2. Did you take 2N - 2 from the two-view formula?",
            ),
            Case(
                "3 dimensions, temperature 0.1",
                lambda seed: (256 + seed, 3, 0.1),
                "In few dimensions the Gaussian shortcut exp(1 / (2 d tau^2)) is far off; use the exact mean, "
                "hyp0f1(d / 2, 1 / (4 tau^2)).",
            ),
            Case(
                "temperature 0.005",
                lambda seed: (65536, 64 + seed, 0.005),
                "The floor is tiny but not zero. Keep its digits: log1p(x) instead of log(1 + x).",
            ),
        ],
    ),
    2: Exercise(
        prompt="Two numbers that tell complete from dimensional collapse.",
        reference=collapse_report,
        cases=[
            Case(
                "random embeddings",
                lambda seed: (_draw(seed, 40, 8),),
                "Normalize the rows first. Spread is 1 - ||mean||^2; the rank wants the centered directions, their "
                "singular values divided by their sum, and exp of the entropy.",
            ),
            Case(
                "rows of very different length",
                lambda seed: (_draw(seed, 40, 8) * _draw(seed + 9, 40, 1).exp() ** 4,),
                "Only directions count: divide every row by its own length, not by one number for all.",
            ),
            Case(
                "all rows equal",
                lambda seed: (torch.eye(8, dtype=torch.float64)[seed].repeat(16, 1),),
                "No spread, and no direction at all: the rank of nothing is 0 here, not NaN.",
            ),
            Case(
                "two opposite points",
                lambda seed: (torch.cat([x := _draw(seed, 1, 8), -x]).repeat(6, 1),),
                "Full spread on a single line: 1 and 1. Is 0 log 0 counted as 0?",
            ),
            Case(
                "five directions, equally often",
                lambda seed: (torch.eye(8, dtype=torch.float64)[:5].repeat(4 + seed, 1),),
                "Center before the singular values: five points in general position span four directions.",
            ),
        ],
    ),
}

__all__ = ["EXERCISES", "collapse_report", "queue_landmarks"]
