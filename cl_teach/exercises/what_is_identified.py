"""Exercises of chapter 2.6, What is identified."""

from __future__ import annotations

import math

from . import Case, Exercise

__all__ = ["EXERCISES", "collision_floor", "coverage"]


def collision_floor(negatives: int, classes: int) -> float:
    """Least InfoNCE loss when positive and negatives of the anchor's class cannot be told apart.

    Args:
        negatives: M, drawn from equally frequent classes.
        classes: their number.

    Returns:
        The mean of log(1 + number of negatives of the anchor's class).
    """
    q = 1 / classes
    return sum(
        math.comb(negatives, c) * q**c * (1 - q) ** (negatives - c) * math.log1p(c) for c in range(negatives + 1)
    )


def coverage(negatives: int, classes: int) -> float:
    """Probability that every class other than the anchor's is among the negatives.

    Args:
        negatives: M.
        classes: their number, at least 2, equally frequent.

    Returns:
        A probability.
    """
    others = classes - 1
    return sum((-1) ** j * math.comb(others, j) * (1 - j / classes) ** negatives for j in range(others + 1))


EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        prompt="Least loss under collisions.",
        reference=collision_floor,
        cases=[
            Case(
                "a few negatives",
                lambda seed: (5 + seed, 4),
                "How many of M negatives have the anchor's class? That number is binomial; take the mean of the "
                "logarithm, not the logarithm of the mean.",
            ),
            Case("one class", lambda seed: (3 + seed, 1), "Then all candidates are alike: log(1 + M)."),
            Case("no negatives", lambda seed: (0, 3 + seed), "Nothing to choose from: no loss."),
        ],
    ),
    3: Exercise(
        prompt="Probability that all other classes are among the negatives.",
        reference=coverage,
        cases=[
            Case("two classes", lambda seed: (1 + seed, 2), "Only one class has to appear: 1 - 2 to the power -M."),
            Case(
                "more classes",
                lambda seed: (6 + 3 * seed, 4),
                "Add and subtract: all, minus those that miss one class, plus those that miss two, ...",
            ),
            Case("too few negatives", lambda seed: (2, 5 + seed), "Two negatives cannot show four classes: exactly 0."),
        ],
        atol=1e-9,
    ),
}
