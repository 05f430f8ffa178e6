"""Exercises of chapter 7.1, Many partners, some, or none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise


def rank_variance(scores: Tensor) -> float:
    """How much the rank of the right picture varies between languages, on average over the pictures.

    Args:
        scores: ``(N, K, N)``, entry (n, k, m): the name of picture n in language k against picture m.

    Returns:
        Mean over n of the variance over k (divided by K) of the number of pictures that score strictly higher.
    """
    own = scores.diagonal(dim1=0, dim2=2).mT
    ranks = (scores > own[..., None]).sum(-1).double()
    return float(ranks.var(1, correction=0).mean())


def soft_target(cosines: Tensor) -> Tensor:
    """CWCL's target: from cosines within the frozen modality to rows that sum to 1.

    Args:
        cosines: ``(N, N)`` in [-1, 1], 1 on the diagonal.

    Returns:
        ``(N, N)``.
    """
    weights = (cosines + 1) / 2
    return weights / weights.sum(1, keepdim=True)


def null_floor(visual: Tensor) -> float:
    """The lowest value of the loss with a NULL image, M / N log M with M texts that have no picture.

    Args:
        visual: ``(N,)`` boolean.
    """
    none = int((~visual).sum())
    return none / len(visual) * math.log(none) if none else 0.0


def _scores(seed: int, n: int = 6, k: int = 3) -> tuple[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return (torch.randn(n, k, n, generator=draws, dtype=torch.float64),)


def _cosines(seed: int, n: int = 5) -> tuple[Tensor]:
    draws = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(n, 4, generator=draws, dtype=torch.float64), dim=1)
    return ((z @ z.mT).clamp(-1, 1),)


def _marks(seed: int) -> tuple[Tensor]:
    return (torch.rand(12, generator=torch.Generator().manual_seed(seed)) < 0.4,)


EXERCISES = {
    2: Exercise(
        prompt="How inconsistent are the ranks?",
        reference=rank_variance,
        cases=[
            Case(
                "random scores",
                _scores,
                "For each name count the pictures that score strictly higher than its own; then the variance over K.",
            ),
            Case(
                "all languages alike",
                lambda seed: (_scores(seed, 6, 1)[0].expand(6, 4, 6).contiguous(),),
                "Equal ranks have no variance, however bad they are.",
            ),
            Case(
                "all scores tied",
                lambda seed: (torch.zeros(4, 3, 4, dtype=torch.float64),),
                "Nothing scores strictly higher: all ranks are 0.",
            ),
            Case(
                "one language", lambda seed: _scores(seed, 5, 1), "The variance is divided by K, so one language has 0."
            ),
        ],
    ),
    3: Exercise(
        prompt="CWCL's target rows.",
        reference=soft_target,
        cases=[
            Case("random cosines", _cosines, "Cosine / 2 + 1/2, then every row divided by its sum."),
            Case(
                "unrelated samples",
                lambda seed: (torch.eye(5, dtype=torch.float64),),
                "Cosine 0 is weight one half, not 0.",
            ),
            Case(
                "two opposite samples",
                lambda seed: (torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64),),
                "Only opposite samples have weight 0; then the target is that of CLIP.",
            ),
            Case("a single sample", lambda seed: (torch.ones(1, 1, dtype=torch.float64),), "Its row is 1."),
        ],
    ),
    4: Exercise(
        prompt="The floor of the loss with a NULL image.",
        reference=null_floor,
        cases=[
            Case("some of each", _marks, "M texts share one picture: M / N log M."),
            Case(
                "all visual", lambda seed: (torch.ones(4, dtype=torch.bool),), "Without a text for NULL the floor is 0."
            ),
            Case(
                "one without a picture",
                lambda seed: (torch.tensor([True, False, True]),),
                "One text alone with NULL pays nothing: log 1 = 0.",
            ),
            Case(
                "none visual",
                lambda seed: (torch.zeros(5, dtype=torch.bool),),
                "All five share NULL: the floor is log 5.",
            ),
        ],
    ),
}
