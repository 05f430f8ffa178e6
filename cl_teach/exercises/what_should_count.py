"""Exercises of chapter 10.2, What should count?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import Case, Exercise


def linupper(losses: Tensor, temperature: float) -> Tensor:
    """LinUpper's weights of the samples of a batch.

    Args:
        losses: ``(M,)``.
        temperature: r.

    Returns:
        ``(M,)``, sum 1.
    """
    low, high = losses.min(), losses.max()
    place = 2 * (losses - low) / (high - low).clamp(min=1e-6) - 1
    return ((place + 1).clamp(max=1) / temperature).softmax(0)


def mask_of(theta: Tensor, forget: Tensor, retain: Tensor, gamma: float, ratio: float) -> Tensor:
    """Which weights may move.

    Args:
        theta: ``(P,)`` weights.
        forget: ``(P,)`` gradient of the forget loss.
        retain: ``(P,)`` gradient of the retain loss.
        gamma: curvature.
        ratio: share of the weights.

    Returns:
        ``(P,)`` boolean.
    """
    score = (theta - retain / gamma) * forget
    kept = torch.zeros(len(theta), dtype=torch.bool)
    kept[score.abs().argsort(descending=True)[: int(ratio * len(theta))]] = True
    return kept


def _losses(seed: int, n: int = 9) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(seed: int, gamma: float, ratio: float) -> tuple[Any, ...]:
    draws = torch.Generator().manual_seed(seed)
    return (*torch.randn(3, 10, generator=draws, dtype=torch.float64), gamma, ratio)


EXERCISES = {
    2: Exercise(
        prompt="LinUpper's weights of a batch.",
        reference=linupper,
        cases=[
            Case(
                "random losses",
                lambda seed: (_losses(seed), 0.4),
                "A softmax of min(h + 1, 1) / r, with h between -1 at the smallest and 1 at the largest loss.",
            ),
            Case(
                "one outlier",
                lambda seed: (torch.cat([_losses(seed), torch.tensor([50.0])]), 0.4),
                "Place by the extremes, not by mean and deviation: one outlier moves all others.",
            ),
            Case(
                "a low temperature",
                lambda seed: (_losses(seed), 1e-3),
                "Use a softmax, which subtracts the largest score; exp(1 / 0.001) overflows.",
            ),
            Case(
                "all losses equal",
                lambda seed: (torch.full((5,), 0.1 + seed), 0.4),
                "The range is 0: guard the division. Equal losses have equal weights.",
            ),
            Case("a batch of one", lambda seed: (_losses(seed, 1), 0.4), "One sample has the weight 1."),
        ],
    ),
    3: Exercise(
        prompt="The mask of the weights with the largest scores.",
        reference=mask_of,
        cases=[
            Case(
                "half of the weights",
                lambda seed: _weights(seed, 1.0, 0.5),
                "Score (theta - retain / gamma) * forget; the largest absolute values, not the largest values.",
            ),
            Case(
                "a small curvature",
                lambda seed: _weights(seed, 1e-3, 0.3),
                "The retain gradient is divided by gamma: here it decides nearly alone.",
            ),
            Case(
                "not a whole number of weights",
                lambda seed: _weights(seed, 1.0, 0.37),
                "Of 10 weights 37 % are 3: round down.",
            ),
            Case("none", lambda seed: _weights(seed, 1.0, 0.0), "With a ratio of 0 no weight may move."),
            Case("all", lambda seed: _weights(seed, 1.0, 1.0), "With a ratio of 1 all may."),
        ],
    ),
}
