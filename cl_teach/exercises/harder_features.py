"""Exercises of chapter 3.3, Harder features."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def mixed_score(first: Tensor, second: Tensor, between: Tensor, alpha: Tensor) -> Tensor:
    """Cosine of a query with the normalized mixture of two unit negatives, from cosines alone.

    Args:
        first: of the query with the first negative.
        second: of the query with the second.
        between: of the two negatives.
        alpha: weight of the first, in [0, 1].

    Returns:
        The mixture's cosine with the query, of the common shape.
    """
    squared = alpha**2 + (1 - alpha) ** 2 + 2 * alpha * (1 - alpha) * between
    return (alpha * first + (1 - alpha) * second) / squared.sqrt()


def extrapolated_scores(
    positive: Tensor, negatives: Tensor, key_negatives: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Scores after both positives were pushed apart, from the scores before.

    Args:
        positive: ``(B,)`` of query and key.
        negatives: ``(B, M)`` of query and queue.
        key_negatives: ``(B, M)`` of key and queue.
        weight: of the extrapolation, in [1, 2].

    Returns:
        The positives' and the negatives' new scores.
    """
    steep = 1 + 2 * weight * (weight - 1)
    return steep * positive - (steep - 1), weight * negatives + (1 - weight) * key_negatives


def _cosines(seed: int, n: int = 20) -> tuple[Tensor, ...]:
    draws = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(3, n, 5, generator=draws, dtype=torch.float64), dim=-1)
    q, a, b = unit
    return (q * a).sum(1), (q * b).sum(1), (a * b).sum(1), torch.rand(n, generator=draws, dtype=torch.float64)


def _scores(seed: int, weight: float, b: int = 4, m: int = 7) -> tuple[Tensor, Tensor, Tensor, float]:
    draws = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(2 * b + m, 6, generator=draws, dtype=torch.float64), dim=1)
    q, k, n = rows[:b], rows[b : 2 * b], rows[2 * b :]
    return (q * k).sum(1), q @ n.T, k @ n.T, weight


EXERCISES = {
    1: Exercise(
        prompt="The score of a mixture of two negatives.",
        reference=mixed_score,
        cases=[
            Case(
                "random cosines",
                _cosines,
                "The weighted mean of the scores, divided by the length of the mixture before it is normalized.",
            ),
            Case(
                "a mixture with itself",
                lambda seed: (*[torch.full((3,), 0.1 * seed + 0.3, dtype=torch.float64)] * 2, *torch.ones(2, 3) * 1.0),
                "Two equal negatives have cosine 1, and their mixture is where they are.",
            ),
            Case(
                "all the weight on one",
                lambda seed: (*_cosines(seed)[:3], torch.ones(20, dtype=torch.float64)),
                "With alpha = 1 the mixture is the first negative.",
            ),
            Case(
                "halfway between two orthogonal ones",
                lambda seed: tuple(torch.tensor([x], dtype=torch.float64) for x in (0.6, 0.6, 0.0, 0.5)),
                "The mixture has length sqrt(1/2), so 0.6 becomes 0.849.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The scores of pushed-apart positives, without moving a feature.",
        reference=extrapolated_scores,
        cases=[
            Case(
                "a weight of 1.5",
                lambda seed: _scores(seed, 1.5),
                "The positive is a S - (a - 1) with a = 1 + 2 w (w - 1); negatives are scored with the moved query.",
            ),
            Case("a weight of 1", lambda seed: _scores(seed, 1.0), "Nothing moves: all scores stay."),
            Case(
                "a weight of 2",
                lambda seed: _scores(seed, 2.0),
                "The positive becomes 5 S - 4 and may leave [-1, 1]; do not clamp it.",
            ),
            Case(
                "one query, one negative",
                lambda seed: _scores(seed, 1.3, 1, 1),
                "Shapes stay (1,) and (1, 1).",
            ),
        ],
    ),
}
