"""Exercises of chapter 8.2, Where do a recommender's two views come from? (lightgcl, mclrec)"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def decomposition_scores(bought: Tensor, rank: int) -> Tensor:
    """Scores by the truncated decomposition of the normalized matrix.

    Args:
        bought: ``(I, J)`` boolean.
        rank: at most the smaller side.

    Returns:
        ``(I, J)``, minus infinity for what was bought.
    """
    table = bought.double()
    degrees = table.sum(1, keepdim=True) @ table.sum(0, keepdim=True)  # (I, J)
    normalized = torch.where(bought, degrees.clamp_min(1).rsqrt(), 0.0)
    u, s, vh = torch.linalg.svd(normalized, full_matrices=False)
    s = torch.where(torch.arange(len(s)) < rank, s, 0.0)
    return (u @ torch.diag(s) @ vh).masked_fill(bought, -torch.inf)


def inner_nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views with inner products.

    Args:
        x: ``(B, d)``.
        y: ``(B, d)``.
        temperature: greater than 0.

    Returns:
        Scalar, a mean over 2B rows.
    """
    rows, total = torch.cat([x, y]), x.new_zeros(())
    for r in range(len(rows)):
        others = torch.arange(len(rows)) != r
        logits = rows @ rows[r] / temperature
        total = total + logits[others].logsumexp(0) - logits[(r + len(x)) % len(rows)]
    return total / len(rows)


def _bought(seed: int, users: int, items: int) -> Tensor:
    return torch.rand(users, items, generator=torch.Generator().manual_seed(seed)) < 0.4


def _with_strangers(seed: int) -> Tensor:
    table = _bought(seed, 6, 5)
    table[2] = False
    table[:, 3] = False
    return table


def _views(seed: int, n: int, scale: float) -> tuple[Tensor, Tensor]:
    x, y = scale * torch.randn(2, n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, y


EXERCISES = {
    1: Exercise(
        prompt="Recommend by a truncated decomposition.",
        reference=decomposition_scores,
        cases=[
            Case(
                "random purchases",
                lambda seed: (_bought(seed, 7, 5), 2),
                "Divide each entry by the roots of both degrees, keep the largest singular values.",
            ),
            Case(
                "somebody bought nothing, something was never bought",
                lambda seed: (_with_strangers(seed), 2),
                "A degree of 0 must not divide: that row or column is zero.",
            ),
            Case(
                "full rank",
                lambda seed: (_bought(seed, 4, 6), 4),
                "At full rank the reconstruction is the matrix: 0 on everything that was not bought.",
            ),
        ],
    ),
    2: Exercise(
        prompt="NT-Xent without normalization.",
        reference=inner_nt_xent,
        cases=[
            Case(
                "two views of five", lambda seed: (*_views(seed, 5, 1.0), 0.7), "2B rows, each with 2B - 1 candidates."
            ),
            Case("one pair", lambda seed: (*_views(seed, 1, 1.0), 1.0), "The partner is the only candidate: 0."),
            Case("long rows", lambda seed: (*_views(seed, 4, 60.0), 0.5), "logsumexp, never exp and then log."),
            Case(
                "all alike",
                lambda seed: (torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64), 1.0),
                "log(2B - 1): a row is no candidate of its own.",
            ),
        ],
    ),
}
