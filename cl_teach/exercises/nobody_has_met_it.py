"""Exercises of chapter 8.3, What do you know of what nobody has met? (cold_start, clhe)"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def complete(stacks: Tensor, present: Tensor, given: Tensor) -> Tensor:
    """Score all items by likeness to those given; what is missing has no say.

    Args:
        stacks: ``(n, M, d)`` descriptions.
        present: ``(n, M)`` boolean.
        given: ids.

    Returns:
        ``(n,)`` cosines, minus infinity for those given.
    """
    items = []
    for rows, there in zip(stacks, present, strict=True):
        kept = [row / row.norm() if row.norm() > 0 else row for row in rows[there]]
        item = torch.stack(kept).mean(0) if kept else torch.zeros_like(rows[0])
        items.append(item / item.norm() if item.norm() > 0 else item)
    table = torch.stack(items)
    query = table[given].mean(0)
    scores = table @ (query / query.norm() if query.norm() > 0 else query)
    scores[given] = -torch.inf
    return scores


def fuse(scores: Tensor, fields: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Weigh the fields that are present by a softmax of their scores.

    Args:
        scores: ``(n, F)``.
        fields: ``(n, F, d)``.
        present: ``(n, F)`` boolean, at least one a row.
        temperature: greater than 0.

    Returns:
        ``(n, d)``.
    """
    weights = (scores / temperature).masked_fill(~present, -torch.inf).softmax(1)
    return torch.einsum("nf,nfd->nd", weights, fields)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _some(seed: int, n: int, m: int) -> Tensor:
    table = torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) < 0.6
    table[:, 0] = True
    return table


def _without_first(n: int, m: int) -> Tensor:
    table = torch.ones(n, m, dtype=torch.bool)
    table[0] = False
    return table


EXERCISES = {
    1: Exercise(
        prompt="Complete a bundle by likeness, with descriptions missing.",
        reference=complete,
        cases=[
            Case(
                "nothing missing",
                lambda seed: (_draw(seed, 6, 3, 4), torch.ones(6, 3, dtype=torch.bool), torch.tensor([1, 4])),
                "Scale each description, take the mean, scale again; the query is the mean of the given items.",
            ),
            Case(
                "some missing, one of them huge",
                lambda seed: (
                    (_draw(seed, 7, 3, 4) * torch.tensor([1.0, 1.0, 1e6]).view(1, 3, 1), _some(seed, 7, 3))
                    + (torch.tensor([2]),)
                ),
                "A missing description must not count, however long its vector is.",
            ),
            Case(
                "an item of which nothing is known",
                lambda seed: (_draw(seed, 5, 2, 3), _without_first(5, 2), torch.tensor([3])),
                "Divide by at least one; a zero vector stays zero.",
            ),
            Case(
                "all items given",
                lambda seed: (_draw(seed, 3, 2, 3), torch.ones(3, 2, dtype=torch.bool), torch.arange(3)),
                "What is given scores minus infinity, even if that is all.",
            ),
        ],
    ),
    2: Exercise(
        prompt="A gate over the fields that are present.",
        reference=fuse,
        cases=[
            Case(
                "all present",
                lambda seed: (_draw(seed, 4, 3), _draw(seed + 1, 4, 3, 2), torch.ones(4, 3, dtype=torch.bool), 1.0),
                "A softmax over fields, then a weighted sum.",
            ),
            Case(
                "some missing",
                lambda seed: (_draw(seed, 5, 4), _draw(seed + 1, 5, 4, 2), _some(seed, 5, 4), 0.5),
                "The weights of those present sum to one; mask before the softmax.",
            ),
            Case(
                "large scores, small temperature",
                lambda seed: (1e3 * _draw(seed, 3, 4), _draw(seed + 1, 3, 4, 2), _some(seed, 3, 4), 0.01),
                "Let softmax take the largest score off; never exp yourself.",
            ),
            Case(
                "one field",
                lambda seed: (_draw(seed, 3, 1), _draw(seed + 1, 3, 1, 2), torch.ones(3, 1, dtype=torch.bool), 2.0),
                "One present field has weight one.",
            ),
        ],
    ),
}
