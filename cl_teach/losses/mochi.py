r"""Hard Negative Mixing for Contrastive Learning. Yannis Kalantidis, Mert Bulent Sariyildiz, Noe Pion, Philippe
Weinzaepfel, Diane Larlus; NeurIPS 2020; https://arxiv.org/abs/2010.01028.

A query :math:`q` takes its N hardest negatives :math:`\tilde Q^N` from the queue and mixes new ones in feature space,

.. math::
    h = \frac{\alpha n_i + (1-\alpha) n_j}{\lVert\cdot\rVert}, \qquad
    h' = \frac{\beta q + (1-\beta) n_j}{\lVert\cdot\rVert}, \qquad n_i, n_j \in \tilde Q^N,\
    \alpha\sim U(0,1),\ \beta\sim U(0,\tfrac12),

which join the queue in the denominator of InfoNCE. What changes and why: late in training only a handful of the queue's
entries still get gradient; the mixed points are as hard as those, and :math:`h'` is harder than anything in the queue,
at the price of a few dot products.

Paper versus code. The authors released no code. (1) Synthetic points are detached, including the query inside
:math:`h'`, as both known re-implementations do. (2) The two partners of a mixture are drawn independently, so a point
may be mixed with itself. (3) One re-implementation mixes every query with the hard negatives of the first; here each
query has its own set. (4) The draws are separate from the computation (`draw_mixture`), so given draws give given
results.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_batch, check_embeddings, check_positive, check_same_shape, check_same_width
from ..core.contrast import one_positive_contrast
from ..core.similarity import normalize

__all__ = ["Mixture", "draw_mixture", "hardest_rows", "mix", "mochi"]


class Mixture(NamedTuple):
    """What is mixed with what, for each of B queries; row numbers refer to the queue.

    Attributes:
        first: ``(B, s)`` rows n_i.
        second: ``(B, s)`` rows n_j.
        alpha: ``(B, s)`` weight of ``first``, in [0, 1].
        partner: ``(B, s')`` rows mixed with the query.
        beta: ``(B, s')`` weight of the query, in [0, 1/2].
    """

    first: Tensor
    second: Tensor
    alpha: Tensor
    partner: Tensor
    beta: Tensor


def hardest_rows(query: Tensor, queue: Tensor, count: int) -> Tensor:
    """Row numbers of the queue entries most similar to each query, in ascending order of the number.

    Args:
        query: ``(B, d)`` floating.
        queue: ``(K, d)`` floating.
        count: N, between 1 and K.

    Returns:
        ``(B, N)`` integers.

    Raises:
        TypeError: not floating tensors.
        ValueError: widths differ, NaN, ``count`` out of range.
    """
    check_embeddings(query=query, queue=queue)
    check_same_width(query=query, queue=queue)
    if not 1 <= count <= len(queue):
        raise ValueError(f"count: expected between 1 and the queue's {len(queue)} rows, got {count}")
    similarity = normalize(query.detach()) @ normalize(queue.detach()).mT  # (B, K)
    return similarity.topk(count, dim=1).indices.sort(dim=1).values


def draw_mixture(
    hard: Tensor, mixed: int, mixed_with_query: int, *, generator: torch.Generator | None = None
) -> Mixture:
    """Draw partners and coefficients for every query.

    Args:
        hard: ``(B, N)`` row numbers of the hard negatives, from `hardest_rows`.
        mixed: s >= 0, how many pairs of hard negatives to mix.
        mixed_with_query: s' >= 0, how many to mix with the query.
        generator: on the device of ``hard``.

    Raises:
        ValueError: a negative count.
    """
    if mixed < 0 or mixed_with_query < 0:
        raise ValueError(f"mixed, mixed_with_query: expected at least 0, got {mixed} and {mixed_with_query}")
    b, n = hard.shape

    def rows(size: int) -> Tensor:
        return hard.gather(1, torch.randint(n, (b, size), generator=generator, device=hard.device))

    def uniform(size: int) -> Tensor:
        return torch.rand(b, size, generator=generator, device=hard.device)

    return Mixture(rows(mixed), rows(mixed), uniform(mixed), rows(mixed_with_query), uniform(mixed_with_query) / 2)


def mix(query: Tensor, queue: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Make the synthetic negatives; unit length, without gradient.

    Args:
        query: ``(B, d)``, any scale.
        queue: ``(K, d)``, any scale.
        mixture: the draws.

    Returns:
        ``(B, s, d)`` pairs mixed, ``(B, s', d)`` mixed with the query.
    """
    unit_query, unit_queue = normalize(query.detach()), normalize(queue.detach())
    alpha, beta = mixture.alpha[..., None].to(query), mixture.beta[..., None].to(query)
    pairs = alpha * unit_queue[mixture.first] + (1 - alpha) * unit_queue[mixture.second]
    with_query = beta * unit_query[:, None] + (1 - beta) * unit_queue[mixture.partner]
    return normalize(pairs), normalize(with_query)


def mochi(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    mixture: Mixture,
    temperature: float = 0.2,
    *,
    reduction: str = "mean",
) -> Tensor:
    """InfoNCE against the whole queue and the query's own synthetic negatives.

    Args:
        query: ``(B, d)``, any scale (normalized here); the only one that gets a gradient.
        key: ``(B, d)`` momentum embeddings of the other views; detached here.
        queue: ``(K, d)`` earlier keys; detached here.
        mixture: from `draw_mixture`; without draws (s = s' = 0) this is MoCo's loss.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the queries.

    Returns:
        Scalar, or ``(B,)`` with ``reduction="none"``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: Kalantidis et al. (2020), section 4.
    """
    check_embeddings(query=query, key=key, queue=queue)
    check_same_shape(query=query, key=key)
    check_same_width(query=query, queue=queue)
    check_positive(temperature=temperature)
    check_batch(len(queue), 1, name="queue", why="to have a negative")
    q = normalize(query)
    pairs, with_query = mix(query, queue, mixture)
    own = (q * normalize(key.detach())).sum(1)  # (B,)
    shared = q @ normalize(queue.detach()).mT  # (B, K)
    synthetic = (torch.cat([pairs, with_query], dim=1) @ q[..., None]).squeeze(-1)  # (B, s + s')
    negatives = torch.cat([shared, synthetic], dim=1)
    return one_positive_contrast(own / temperature, negatives / temperature, reduction=reduction)
