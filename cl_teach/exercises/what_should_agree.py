"""Exercises of chapter 9.1, Which two things should agree?"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def identity_level(similarity: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """COMET's coarse level from a table of cosines.

    Args:
        similarity: ``(B, B)``, view one against view two.
        ids: ``(B,)``.
        temperature: greater than 0.

    Returns:
        Scalar; 0 if no id occurs twice.
    """
    logits, total, count = similarity / temperature, similarity.new_zeros(()), 0
    for i in range(len(ids)):
        for j in range(i + 1, len(ids)):
            if ids[i] == ids[j]:
                total = total + logits[i].logsumexp(0) + logits[:, i].logsumexp(0) - logits[i, j] - logits[j, i]
                count += 1
    return total / (2 * max(count, 1))


def nothing_hidden_twice(groups: int, hidden: int) -> float:
    """Probability that two random masks of equal size have no token in common.

    Args:
        groups: tokens.
        hidden: tokens that each mask hides.
    """
    chance = 1.0
    for i in range(hidden):
        chance *= max(groups - hidden - i, 0) / (groups - i)
    return chance


def _table(seed: int, n: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    a, b = torch.nn.functional.normalize(torch.randn(2, n, 3, generator=draws, dtype=torch.float64), dim=2)
    return a @ b.mT


EXERCISES = {
    1: Exercise(
        prompt="The loss of different windows with one identity.",
        reference=identity_level,
        cases=[
            Case(
                "two windows of one patient",
                lambda seed: (_table(seed, 2), torch.tensor([4, 4]), 0.5),
                "One pair, i = 0 and j = 1: one softmax over row i, one over column i.",
            ),
            Case(
                "three patients, unequal numbers",
                lambda seed: (_table(seed, 7), torch.tensor([2, 0, 2, 1, 2, 0, 1]), 0.1),
                "The mean is over pairs with i < j, not over windows; a window itself is no positive.",
            ),
            Case(
                "nobody occurs twice",
                lambda seed: (_table(seed, 4), torch.arange(4), 0.1),
                "No pair, no loss: return zero, not a mean of nothing.",
            ),
            Case(
                "a small temperature",
                lambda seed: (_table(seed, 5), torch.zeros(5, dtype=torch.int64), 0.005),
                "log_softmax or logsumexp, never exp and then log.",
            ),
        ],
    ),
    2: Exercise(
        prompt="How likely do two masks have nothing in common?",
        reference=nothing_hidden_twice,
        cases=[
            Case("one token each", lambda seed: (8, 1), "The second mask must miss one token of eight."),
            Case("some of sixteen", lambda seed: (16, 4 + seed), "Ways to avoid the first mask, over all ways."),
            Case("more than half", lambda seed: (10, 6), "They must meet: the probability is 0."),
        ],
    ),
}
