"""Exercises of chapter 2.1, Temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..theory.contrastive_loss_behaviour import penalty_entropy, relative_penalty
from . import Case, Exercise


def penalty(similarity: Tensor, temperature: float) -> Tensor:
    """Share of the push that each negative gets; positives on the diagonal of a square matrix.

    Args:
        similarity: ``(n, n)`` cosines.
        temperature: greater than 0.

    Returns:
        ``(n, n)``, rows sum to 1, 0 on the diagonal.
    """
    return relative_penalty(similarity, temperature)


def effective_negatives(similarity: Tensor, temperature: float) -> Tensor:
    """How many negatives an anchor effectively has: the exponential of the entropy of its penalties.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.

    Returns:
        ``(n,)`` between 1 and n - 1.
    """
    return penalty_entropy(relative_penalty(similarity, temperature)).exp()


def needed_lead(temperature: float, n: int) -> float:
    """The lead over n - 1 equal negatives at which a positive takes half of the softmax.

    Args:
        temperature: greater than 0.
        n: number of keys, at least 2.

    Returns:
        A difference of cosines.
    """
    return temperature * math.log(n - 1)


def _square(seed: int, n: int = 6) -> Tensor:
    z = torch.nn.functional.normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)), dim=1)
    w = torch.nn.functional.normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed + 99)), dim=1)
    return z @ w.T


EXERCISES = {
    1: Exercise(
        prompt="The relative penalty of every negative, stable at any temperature.",
        reference=penalty,
        cases=[
            Case(
                "random similarities",
                lambda seed: (_square(seed), 0.3),
                "Each row is a softmax over its negatives only: take the diagonal out before the softmax, not after.",
            ),
            Case(
                "a temperature of 0.002",
                lambda seed: (_square(seed), 0.002),
                "exp(s / temperature) overflows here. Use softmax, after masked_fill(..., -inf) on the positive.",
            ),
            Case(
                "a positive much closer than every negative",
                lambda seed: (_square(seed) * 0.1 + 0.9 * torch.eye(6), 0.01),
                "A quotient of two gradients is 0/0 here. A softmax over the negatives does not see the positive.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The effective number of negatives.",
        reference=effective_negatives,
        cases=[
            Case(
                "random similarities",
                lambda seed: (_square(seed), 0.2),
                "exp of the entropy of the relative penalties, in nats, row by row.",
            ),
            Case(
                "all negatives alike",
                lambda seed: (torch.full((5, 5), 0.3), 0.1),
                "With equal negatives the answer is n - 1 at every temperature.",
            ),
            Case(
                "one negative takes everything",
                lambda seed: (_square(seed), 0.001),
                "0 log 0 counts as 0: torch.special.entr does that; -(r * r.log()) gives NaN.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The lead that satisfies half of the softmax.",
        reference=needed_lead,
        cases=[
            Case(
                "a batch of 256",
                lambda seed: (0.05 * (seed + 1), 256),
                "Set 1 / (1 + (n - 1) exp(-lead / temperature)) to 1/2 and solve for the lead.",
            ),
            Case(
                "two keys", lambda seed: (0.3, 2), "With one negative, half of the softmax means a tie: the lead is 0."
            ),
            Case("a queue", lambda seed: (0.07, 65537), "n counts the positive too: there are n - 1 negatives."),
        ],
    ),
}
