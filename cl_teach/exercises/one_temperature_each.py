"""Exercises of chapter 3.2, One temperature each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise


def temperature_gradient(cosines: Tensor, temperature: float, rho: float) -> Tensor:
    """Slope of the robust objective of an anchor in its temperature, the positive left out: rho minus the divergence.

    Args:
        cosines: ``(n, m)``, of every anchor to its m negatives.
        temperature: greater than 0.
        rho: radius of the ball.

    Returns:
        ``(n,)``.
    """
    scaled = cosines / temperature
    share = scaled.softmax(1)
    log_mean = scaled.logsumexp(1) - math.log(cosines.shape[1])
    return rho + log_mean - (share * scaled).sum(1)


def effective_batches(gamma: float, visits: int) -> float:
    """How many independent batches a moving average is worth after so many visits, the first of which starts it.

    Args:
        gamma: weight of the newest batch, in (0, 1].
        visits: at least 1.

    Returns:
        Variance of one batch over variance of the average.
    """
    variance = 1.0
    for _ in range(visits - 1):
        variance = (1 - gamma) ** 2 * variance + gamma**2
    return 1 / variance


def _cosines(seed: int, n: int = 4, m: int = 20) -> Tensor:
    return 2 * torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


EXERCISES = {
    1: Exercise(
        prompt="The slope by which an anchor's temperature is trained.",
        reference=temperature_gradient,
        cases=[
            Case(
                "random cosines",
                lambda seed: (_cosines(seed), 0.3, 0.2),
                "rho minus the divergence of the softmax from uniform, which is log m minus the entropy.",
            ),
            Case(
                "all negatives alike",
                lambda seed: (torch.full((3, 7), 0.4, dtype=torch.float64), 0.1, 0.4),
                "A uniform softmax has divergence 0: the slope is rho and the temperature only ever falls.",
            ),
            Case(
                "a temperature of 0.001",
                lambda seed: (_cosines(seed), 0.001, 6.0),
                "exp(cosine / temperature) overflows and 0 log 0 is NaN. Use softmax, logsumexp or log_softmax.",
            ),
            Case(
                "one negative",
                lambda seed: (_cosines(seed, 5, 1), 0.2, 0.3),
                "With one negative there is nothing to reweight: divergence 0.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The number of batches that a moving average is worth.",
        reference=effective_batches,
        cases=[
            Case(
                "a long memory",
                lambda seed: (0.05 * (seed + 1), 30),
                "Independent parts: the new variance is (1 - gamma)^2 times the old one plus gamma^2.",
            ),
            Case("no memory", lambda seed: (1.0, 12), "gamma = 1 keeps the newest batch only: worth one batch."),
            Case("the first visit", lambda seed: (0.3, 1), "The first batch starts the average: worth one batch."),
            Case("the second visit", lambda seed: (0.3, 2), "1 / ((1 - gamma)^2 + gamma^2), not (2 - gamma) / gamma."),
        ],
    ),
}
