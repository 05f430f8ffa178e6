"""Exercises of chapter 1.1, Learning by comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core import info_nce
from . import Case, Exercise

__all__ = ["EXERCISES", "in_batch_info_nce", "share_of_games_won"]


def in_batch_info_nce(query: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """InfoNCE in which the positives of the other rows are the negatives.

    Args:
        query: ``(n, d)``, any scale.
        positive: ``(n, d)``, row i belongs to query i.
        temperature: greater than 0.

    Returns:
        Scalar, the mean over queries.
    """
    return info_nce(query, positive, temperature=temperature)


def share_of_games_won(scores: Tensor) -> Tensor:
    """Expected share of games won when ties are broken by lot.

    Args:
        scores: ``(n, k)``, row i holds the scores of query i with its k candidates; its own stands first.

    Returns:
        0-d tensor of the same dtype.
    """
    best = scores == scores.amax(dim=1, keepdim=True)  # (n, k)
    return (best[:, 0] / best.sum(dim=1)).to(scores.dtype).mean()


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pair(seed: int, n: int, d: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """A query with gradient and positives that resemble it."""
    query = _draw(seed, n, d)
    return (scale * query).requires_grad_(), query + 0.5 * _draw(seed + 10, n, d)


def _collapsed(seed: int, temperature: float) -> tuple[Any, ...]:
    one = _draw(seed, 1, 8).expand(6, 8).contiguous()
    return one.clone().requires_grad_(), one.clone(), temperature


def _tied(seed: int) -> tuple[Tensor]:
    """Row 0 is tied with one other, row 1 is won, row 2 is lost, row 3 is tied with all."""
    scores = torch.zeros(4, 4)
    scores[0, 0] = scores[0, 1 + seed % 3] = 1
    scores[1, 0] = 1
    scores[2, 3] = 1
    return (scores,)


EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        prompt="InfoNCE from scratch, with the rest of the batch as negatives.",
        reference=in_batch_info_nce,
        cases=[
            Case(
                "eight queries, temperature 0.5",
                lambda seed: (*_pair(seed, 8, 16), 0.5),
                "Row i of the table of cosines is one game with eight candidates, and its right answer is column i. "
                "Did you divide both vectors by their lengths, and the cosines by the temperature?",
            ),
            Case(
                "one hundred queries, temperature 0.1",
                lambda seed: (*_pair(seed, 100, 32), 0.1),
                "Average over the queries; do not sum.",
            ),
            Case(
                "queries a thousand times as long, temperature 0.2",
                lambda seed: (*_pair(seed, 8, 16, 1e3), 0.2),
                "The length of an embedding should not matter: normalize queries and positives.",
            ),
            Case(
                "all embeddings equal",
                lambda seed: _collapsed(seed, 0.5),
                "Six equal candidates: a fair guess, log 6, at every temperature.",
            ),
            Case(
                "temperature 0.005",
                lambda seed: (*_pair(seed, 8, 16), 0.005),
                "The logits reach 200, and exp(200) is more than float32 holds. log_softmax and cross_entropy "
                "subtract the largest logit first.",
            ),
            Case(
                "two queries",
                lambda seed: (*_pair(seed, 2, 4), 0.1),
                "Every query has exactly one negative: the other query's positive.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The share of games won, with ties broken by lot.",
        reference=share_of_games_won,
        cases=[
            Case(
                "random scores of twelve games",
                lambda seed: (_draw(seed, 12, 8),),
                "A game is won where the largest score of a row stands in the first column.",
            ),
            Case(
                "a perfect player",
                lambda seed: (_draw(seed, 7, 5).clamp(-1, 1) + torch.tensor([10.0, 0, 0, 0, 0]),),
                "Every row is won: the share is 1.",
            ),
            Case(
                "all scores equal",
                lambda seed: (torch.full((6, 5), float(seed)),),
                "Nothing is known here, so the share must be 1/5. argmax returns one of several equal places, often "
                "the first, and the first is the right answer: a collapsed encoder would win every game.",
            ),
            Case(
                "some rows tied",
                _tied,
                "A row whose best score is shared by two candidates counts one half, and only if its own candidate is "
                "among them.",
            ),
            Case(
                "a single candidate",
                lambda seed: (_draw(seed, 1, 1),),
                "With one candidate one cannot lose.",
            ),
        ],
    ),
}
