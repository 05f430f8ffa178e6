"""Exercises of chapter 9.2, Can a contrast be a model?"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.bonus import exploration_bonus
from . import Case, Exercise


def transition_from_scores(u: Tensor, negatives: Tensor) -> Tensor:
    """Next-state probabilities from the scores of a contrast with known negatives.

    Args:
        u: ``(S, A, S)`` positive scores.
        negatives: ``(S,)`` probabilities.

    Returns:
        ``(S, A, S)``; rows sum to one.
    """
    return (u * negatives).log().softmax(-1)


def bonus_after(feature: Tensor, n: int, ridge: float, scale: float) -> Tensor:
    """Bonus of features that were visited n times, when nothing else was.

    Args:
        feature: ``(d,)``.
        n: visits, may be 0.
        ridge: greater than 0.
        scale: size of the bonus.

    Returns:
        Scalar.
    """
    visits = torch.zeros(n, 2, dtype=torch.int64)
    return exploration_bonus(feature.view(1, 1, 1, -1), [visits], ridge, scale)[0, 0, 0]


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _shares(seed: int, *shape: int) -> Tensor:
    return _draw(seed, *shape).softmax(-1)


EXERCISES = {
    1: Exercise(
        prompt="The transition from the scores of a contrast.",
        reference=transition_from_scores,
        cases=[
            Case(
                "exact ratios, uniform negatives",
                lambda seed: (_shares(seed, 3, 2, 3) * 3, torch.full((3,), 1 / 3, dtype=torch.float64)),
                "At the optimum the score is the transition over the probability of the negative.",
            ),
            Case(
                "exact ratios, uneven negatives",
                lambda seed: (_shares(seed, 4, 2, 4) / _shares(9, 4), _shares(9, 4)),
                "Multiply by the probability of *that* next state.",
            ),
            Case(
                "scores too large by a factor",
                lambda seed: (7 * _draw(seed, 3, 2, 3).exp(), _shares(1, 3)),
                "Each row must sum to one; a common factor of a row means nothing.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The bonus of features visited n times, without a matrix.",
        reference=bonus_after,
        cases=[
            Case("never visited", lambda seed: (_draw(seed, 3), 0, 0.5, 1.0), "Only the ridge is left."),
            Case("visited five times", lambda seed: (_draw(seed, 3), 5, 0.5, 2.0), "Ridge plus n times the square."),
            Case("one dimension", lambda seed: (_draw(seed, 1), 100, 0.1, 0.3), "The square of the length, not of n."),
        ],
    ),
}
