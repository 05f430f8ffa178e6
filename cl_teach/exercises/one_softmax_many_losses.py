"""Exercises of chapter 1.2, One softmax, many losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core import (
    normalize,
    nt_xent,
    same_label_mask,
    self_mask,
    softmax_contrast,
)
from . import Case, Exercise


def two_view_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positives and candidates of supervised contrast on two stacked views.

    Args:
        labels: ``(n,)`` integer labels of the inputs; rows i and n + i of the batch are input i.

    Returns:
        Two ``(2n, 2n)`` boolean masks: same label but not the row itself, and everything but the row itself.
    """
    both = torch.cat([labels, labels])
    candidates = ~self_mask(len(both), labels.device)
    return same_label_mask(both) & candidates, candidates


def queue_contrast(
    query: Tensor, key: Tensor, labels: Tensor, queue: Tensor, queue_labels: Tensor, temperature: float
) -> Tensor:
    """InfoNCE with a queue in which every stored key of the query's class is a positive too.

    Args:
        query: ``(n, d)``, any scale.
        key: ``(n, d)``, row i belongs to query i.
        labels: ``(n,)`` labels of the queries.
        queue: ``(m, d)`` stored keys.
        queue_labels: ``(m,)`` their labels.
        temperature: greater than 0.

    Returns:
        Scalar, the mean over queries.
    """
    q, k = normalize(query), normalize(key)
    own = (q * k).sum(1, keepdim=True)  # (n, 1)
    logits = torch.cat([own, q @ normalize(queue).mT], 1) / temperature  # (n, 1 + m)
    always = torch.ones(len(q), 1, dtype=torch.bool, device=q.device)
    return softmax_contrast(logits, torch.cat([always, same_label_mask(labels, queue_labels)], 1))


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _labels(seed: int, n: int, classes: int) -> Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(100 + seed))


def _queue_case(
    seed: int, labels: Tensor, queue_labels: Tensor, temperature: float = 0.1, scale: float = 1.0
) -> tuple[Any, ...]:
    n, m = len(labels), len(queue_labels)
    query = (scale * _draw(seed, n, 8)).requires_grad_()
    return query, _draw(seed + 10, n, 8), labels, _draw(seed + 20, m, 8), queue_labels, temperature


def _opposite(seed: int) -> tuple[Tensor, Tensor, float]:
    a = _draw(seed, 16, 32)
    return a, -a, 0.005


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        prompt="Masks of supervised contrast across two views.",
        reference=two_view_masks,
        cases=[
            Case(
                "six garments of three classes",
                lambda seed: (_labels(seed, 6, 3),),
                "The batch has 2n rows: stack the labels twice before you compare them.",
            ),
            Case(
                "all labels distinct",
                lambda seed: (torch.randperm(5, generator=torch.Generator().manual_seed(seed)),),
                "Each row then has exactly one positive, its other view, and is no positive of itself.",
            ),
            Case(
                "all labels equal",
                lambda seed: (torch.full((4,), seed),),
                "Everything but the row itself is a positive. Is the diagonal out of both masks?",
            ),
            Case(
                "a single garment",
                lambda seed: (torch.tensor([seed]),),
                "Two rows, each the only candidate and the only positive of the other.",
            ),
        ],
    ),
    2: Exercise(
        prompt="InfoNCE with a queue and labels.",
        reference=queue_contrast,
        cases=[
            Case(
                "eight queries, twenty stored keys, three classes",
                lambda seed: _queue_case(seed, _labels(seed, 8, 3), _labels(seed + 1, 20, 3)),
                "Columns: the own key first, then the queue. Positives: the own key always, and stored "
                "keys of the same class; average the log-probabilities over all of them.",
            ),
            Case(
                "no stored key shares a label",
                lambda seed: _queue_case(seed, _labels(seed, 5, 2), 2 + _labels(seed, 9, 3)),
                "The own key is still a positive: this is InfoNCE with a queue. Do you divide by zero?",
            ),
            Case(
                "every stored key shares the label",
                lambda seed: _queue_case(seed, torch.zeros(4, dtype=torch.int64), torch.zeros(6, dtype=torch.int64)),
                "All seven columns are positives; the own key must stay one of them.",
            ),
            Case(
                "one query, one stored key",
                lambda seed: _queue_case(seed, _labels(seed, 1, 2), _labels(seed + 1, 1, 2)),
                "Look for a squeeze() that removes one dimension too many.",
            ),
            Case(
                "queries a thousand times as long, temperature 0.005",
                lambda seed: _queue_case(seed, _labels(seed, 8, 3), _labels(seed + 1, 20, 3), 0.005, 1e3),
                "Normalize the queries and the queue, and never exponentiate before taking the logarithm.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Find the bug in an NT-Xent.",
        reference=nt_xent,
        cases=[
            Case(
                "random embeddings at temperature 0.5",
                lambda seed: (_draw(seed, 8, 16), _draw(seed + 10, 8, 16), 0.5),
                "Write down the terms of one row's denominator. How many should there be? What does a "
                "logit of 0 contribute?",
            ),
            Case(
                "a collapsed batch at temperature 0.1",
                lambda seed: (torch.ones(8, 16), torch.ones(8, 16), 0.1),
                "All similarities are 1, so the value is the logarithm of the number of candidates, log 15.",
            ),
            Case(
                "a collapsed batch at temperature 10",
                lambda seed: (torch.ones(8, 16), torch.ones(8, 16), 10.0),
                "Still log 15: the temperature cancels when all candidates are equal.",
            ),
            Case(
                "second views opposite to the first, temperature 0.005",
                _opposite,
                "The logits reach 200. Remove entries with masked_fill(..., -math.inf), and let "
                "cross_entropy or log_softmax take the logarithm.",
            ),
            Case(
                "two samples",
                lambda seed: (_draw(seed, 2, 4), _draw(seed + 10, 2, 4), 0.2),
                "Row i of the first half belongs to row n + i, and the other way round.",
            ),
        ],
    ),
}

__all__ = ["EXERCISES", "queue_contrast", "two_view_masks"]
