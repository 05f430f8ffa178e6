"""Exercises of chapter 11.1, Fifty-two claims."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise

__all__ = ["EXERCISES", "agreement", "wilson"]


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share.

    Args:
        k: how many hold.
        n: of how many.
        z: quantile of the normal distribution; 1.96 for 95 %.

    Returns:
        Lower and upper end; 0 and 1 where n is 0.
    """
    if n == 0:
        return 0.0, 1.0
    middle = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(k * (n - k) / n + z**2 / 4)
    return middle - half, middle + half


def agreement(first: Tensor, second: Tensor) -> float:
    """Cohen's kappa: agreement of two readers beyond chance.

    Args:
        first: ``(n,)`` kinds as whole numbers.
        second: ``(n,)`` of the other reader.

    Returns:
        1 for full agreement, 0 for what chance would give, 0 also where nobody could disagree.
    """
    seen = float((first == second).double().mean())
    kinds = torch.cat([first, second]).unique()
    chance = sum(float((first == kind).double().mean() * (second == kind).double().mean()) for kind in kinds)
    return 0.0 if chance > 1 - 1e-12 else (seen - chance) / (1 - chance)


def _count(seed: int) -> tuple[int, int]:
    n = 5 + 9 * seed
    return (3 * n) // 5, n


def _kinds(seed: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 4, (40,), generator=draws)
    other = torch.randint(0, 4, (40,), generator=draws)
    return first, torch.where(torch.rand(40, generator=draws) < noise, other, first)


EXERCISES = {
    2: Exercise(
        prompt="Wilson's interval of k out of n.",
        reference=wilson,
        cases=[
            Case("some hold", _count, "Middle (k + z²/2) / (n + z²); look at the root once more."),
            Case("all hold", lambda seed: (3 + seed, 3 + seed), "The upper end is 1, the lower n / (n + z²)."),
            Case("none hold", lambda seed: (0, 4 + seed), "The mirror image of all: the lower end is 0."),
            Case("another level", lambda seed: (7, 11, 2.576), "z is an argument: use it everywhere."),
            Case("no methods at all", lambda seed: (0, 0), "Nothing seen, nothing known: from 0 to 1."),
        ],
        atol=1e-9,
    ),
    3: Exercise(
        prompt="Cohen's kappa of two readers.",
        reference=agreement,
        cases=[
            Case("mostly agreeing", _kinds, "Observed minus expected agreement, over one minus expected."),
            Case(
                "two readers who do not look",
                lambda seed: _kinds(seed, 1.0),
                "Expected agreement: for every kind the product of both readers' shares, added up.",
            ),
            Case("full agreement", lambda seed: (_kinds(seed)[0],) * 2, "Then kappa is 1."),
            Case(
                "a kind that only one reader uses",
                lambda seed: (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 5, 1, 1])),
                "Its product of shares is 0, but it still counts as disagreement.",
            ),
            Case(
                "one kind alone",
                lambda seed: (torch.zeros(6, dtype=torch.int64),) * 2,
                "Chance agrees always: 0/0. Nothing was shown, so return 0.",
            ),
        ],
    ),
}
