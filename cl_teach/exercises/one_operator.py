"""Exercises of chapter 2.5, One operator behind many losses."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise

__all__ = ["EXERCISES", "pair_correlations", "residual_bound"]


def pair_correlations(joint: Tensor) -> Tensor:
    """How well the best functions predict themselves in the other view, in falling order.

    Args:
        joint: ``(n, n)`` probabilities of pairs, symmetric, every view with a positive probability.

    Returns:
        ``(n,)``.
    """
    root = joint.sum(1).sqrt()
    return torch.linalg.eigvalsh(joint / (root[:, None] * root)).flip(0)


def residual_bound(correlations: Tensor, r: int, disagreement: float) -> float:
    """What r functions may leave unexplained of a target of mean square 1.

    Args:
        correlations: ``(n,)`` in falling order.
        r: width of the embedding, at most n.
        disagreement: half the mean squared difference of the target between two views.

    Returns:
        At most 1, since nothing explains less than nothing; 0 if no function is left out.
    """
    if r >= len(correlations):
        return 0.0
    gap = 1 - float(correlations[r])
    return min(1.0, disagreement / gap) if gap > 0 else 1.0


def _joint(seed: int, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    views = torch.rand(n, n, generator=generator, dtype=torch.float64) ** 3
    views = views / views.sum(1, keepdim=True)
    return views.mT @ views / n


EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        prompt="Correlations of the eigenfunctions of a table of pairs.",
        reference=pair_correlations,
        cases=[
            Case(
                "two views, equally frequent",
                lambda seed: (torch.tensor([[0.5 - q, q], [q, 0.5 - q]]).double(),) if (q := 0.05 * (1 + seed)) else (),
                "The largest one is always 1: a constant is the same in both views.",
            ),
            Case(
                "six views of unequal frequency",
                lambda seed: (_joint(seed, 6),),
                "Divide by the square root of both marginals, not by one of them: a matrix that is not symmetric "
                "should not go into eigvalsh.",
            ),
            Case(
                "pairs that never mix",
                lambda seed: (torch.diag(torch.tensor([0.1, 0.2, 0.3, 0.4])).double(),),
                "Every function is the same in both views, so all correlations are 1.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Bound on what a linear probe leaves unexplained.",
        reference=residual_bound,
        cases=[
            Case(
                "a generic case",
                lambda seed: (torch.tensor([1.0, 0.9, 0.6 - 0.1 * seed, 0.1]), 2, 0.05),
                "The first function that was left out counts, number r + 1. Python counts from 0.",
            ),
            Case(
                "a wild target",
                lambda seed: (torch.tensor([1.0, 0.9, 0.8, 0.1]), 2, 0.7 + 0.1 * seed),
                "A share cannot exceed 1.",
            ),
            Case(
                "pairs that never mix",
                lambda seed: (torch.ones(5), 2, 0.0),
                "0/0: if the function left out never disagrees, the target may be that function.",
            ),
            Case(
                "nothing left out",
                lambda seed: (torch.tensor([1.0, 0.9, 0.8]), 3, 0.3),
                "With r = n the embedding spans all functions.",
            ),
        ],
    ),
}
