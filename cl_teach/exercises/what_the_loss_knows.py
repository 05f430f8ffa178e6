"""Exercises of chapter 1.5, What the loss knows: mutual information."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import self_mask, softmax_contrast
from . import Case, Exercise

__all__ = ["EXERCISES", "information_bound", "table_information"]


def information_bound(scores: Tensor) -> Tensor:
    """The lower bound log N - loss on the mutual information, in nats.

    Args:
        scores: ``(n, n)`` values of the critic, the pairs that belong together on the diagonal.

    Returns:
        Scalar, at most log n.
    """
    return math.log(len(scores)) - softmax_contrast(scores, self_mask(len(scores), scores.device))


def table_information(joint: Tensor) -> Tensor:
    """Mutual information of a table of joint probabilities, in nats.

    Args:
        joint: ``(a, b)`` probabilities that add up to one; zeros are allowed.

    Returns:
        Scalar, at least 0.
    """
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.special.xlogy(joint, joint / independent.where(independent > 0, 1.0)).sum()


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _table(seed: int, a: int, b: int) -> Tensor:
    """A random table of probabilities."""
    return _draw(seed, a, b).double().flatten().softmax(0).view(a, b)


EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        prompt="The lower bound on the mutual information.",
        reference=information_bound,
        cases=[
            Case(
                "random scores of sixteen pairs",
                lambda seed: (_draw(seed, 16, 16).requires_grad_(),),
                "log N minus the cross-entropy of the diagonal, in nats. The pair itself is one of the N candidates.",
            ),
            Case(
                "a critic that knows nothing",
                lambda seed: (torch.full((9, 9), 0.5 + seed),),
                "The loss is log 9, so the bound is 0.",
            ),
            Case(
                "a critic that is sure and right",
                lambda seed: (1e4 * (1 + seed) * torch.eye(8),),
                "The bound is log 8 and can never be more. Do not exponentiate the scores before the logarithm.",
            ),
            Case(
                "a critic that is sure and wrong",
                lambda seed: (-100.0 * (1 + seed) * torch.eye(8),),
                "A bad critic makes the bound negative. That is allowed: it is a lower bound of something that is at "
                "least 0, so do not clamp it.",
            ),
            Case(
                "a single pair",
                lambda seed: (_draw(seed, 1, 1),),
                "With one candidate there is nothing to learn: 0.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The mutual information of a table.",
        reference=table_information,
        cases=[
            Case(
                "a random table of five by seven",
                lambda seed: (_table(seed, 5, 7),),
                "Each cell contributes its probability times the logarithm of how much more likely it is than under "
                "independence.",
            ),
            Case(
                "independent rows and columns",
                lambda seed: (_table(seed, 4, 1) * _table(seed + 1, 1, 3),),
                "The table is the product of its margins, so there is nothing to learn: 0.",
            ),
            Case(
                "one value tells the other",
                lambda seed: (torch.eye(4, dtype=torch.float64) / 4,),
                "All uncertainty goes: log 4. Cells of probability 0 contribute 0, not NaN.",
            ),
            Case(
                "an impossible row",
                lambda seed: (torch.cat([_table(seed, 3, 4), torch.zeros(1, 4, dtype=torch.float64)]),),
                "A row that never occurs has a margin of 0: do not divide 0 by 0.",
            ),
        ],
    ),
}
