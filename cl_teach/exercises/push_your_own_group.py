"""Exercises of chapter 8.1, Push your own group harder, or not at all? (csgcl, meow)"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def strength_of(edges: Tensor, communities: Tensor) -> Tensor:
    """What each community adds to the modularity.

    Args:
        edges: ``(2, 2m)`` both directions of every edge.
        communities: ``(n,)``, 0 to C - 1.

    Returns:
        ``(C,)`` float64.
    """
    both = edges.shape[1]
    strengths = []
    for c in range(int(communities.max()) + 1):
        tail, head = communities[edges] == c
        strengths.append(float((tail & head).sum()) / both - (float(tail.sum()) / both) ** 2)
    return torch.tensor(strengths, dtype=torch.float64)


def misplaced_push(logits: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    """Mean share of the push that falls on the anchor's own class, the positive on the diagonal left out.

    Args:
        logits: ``(N, N)``.
        weights: ``(N, N)``, at least 0.
        labels: ``(N,)``.

    Returns:
        Scalar; an anchor that pushes nobody counts 0.
    """
    shares = []
    for i in range(len(labels)):
        others = (weights[i] > 0) & (torch.arange(len(labels)) != i)
        if not others.any():
            shares.append(logits.new_zeros(()))
            continue
        push = (logits[i, others] + weights[i, others].log()).softmax(0)
        shares.append(push[labels[others] == labels[i]].sum())
    return torch.stack(shares).mean()


def _edges(pairs: list[tuple[int, int]]) -> Tensor:
    half = torch.tensor(pairs).T
    return torch.cat([half, half.flip(0)], 1)


def _graph(seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    low, high = torch.triu_indices(12, 12, offset=1)
    kept = torch.rand(len(low), generator=draws) < 0.4
    kept[0] = True
    half = torch.stack([low[kept], high[kept]])
    return torch.cat([half, half.flip(0)], 1), torch.cat([torch.arange(3), torch.randint(3, (9,), generator=draws)])


def _scores(seed: int, n: int, scale: float) -> Tensor:
    return scale * torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _weights(seed: int, n: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(3, (n, n), generator=draws).double()


EXERCISES = {
    1: Exercise(
        prompt="The strength of communities.",
        reference=strength_of,
        cases=[
            Case(
                "a pair and a triangle",
                lambda seed: (_edges([(0, 1), (2, 3), (3, 4), (2, 4)]), torch.tensor([0, 0, 1, 1, 1])),
                "Both have 3/16: inner edges over m, minus the square of degrees over 2m.",
            ),
            Case("a random graph", _graph, "Each inner edge is in the list twice, and 2m is the length of the list."),
            Case(
                "a node alone",
                lambda seed: (_edges([(0, 1), (1, 2), (0, 2), (2, 3)]), torch.tensor([0, 0, 0, 1])),
                "Without an inner edge the strength is negative.",
            ),
            Case(
                "one community",
                lambda seed: (_edges([(0, 1), (1, 2)]), torch.tensor([0, 0, 0])),
                "All edges inside, all degrees inside: 1 - 1.",
            ),
        ],
    ),
    2: Exercise(
        prompt="Which share of the push is misplaced?",
        reference=misplaced_push,
        cases=[
            Case(
                "equal logits, weights one",
                lambda seed: (
                    torch.zeros(4, 4, dtype=torch.float64),
                    torch.ones(4, 4, dtype=torch.float64),
                    torch.tensor([0, 0, 1, 1]),
                ),
                "One of three negatives is of the own class; the positive on the diagonal is not pushed.",
            ),
            Case(
                "random logits and weights",
                lambda seed: (_scores(seed, 7, 1.0), _weights(seed, 7), torch.arange(7) % 3),
                "The push is weight times exp(logit), divided by its sum over the row.",
            ),
            Case(
                "large logits",
                lambda seed: (_scores(seed, 6, 2e3), _weights(seed + 1, 6), torch.arange(6) % 2),
                "exp overflows: take the largest logit among those with a weight off first.",
            ),
            Case(
                "somebody pushes nobody",
                lambda seed: (
                    _scores(seed, 3, 1.0),
                    torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 1]], dtype=torch.float64),
                    torch.tensor([0, 0, 1]),
                ),
                "No push, no share: count 0, do not divide by it.",
            ),
        ],
    ),
}
