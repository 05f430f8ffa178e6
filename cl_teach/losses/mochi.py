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

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_choice, check_count, check_entries, check_generator, check_shapes, check_type
from ..core.contrast import REDUCTIONS, check_temperature, one_positive_contrast
from ..core.precision import full_precision
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


@full_precision
def hardest_rows(query: Tensor, queue: Tensor, count: int) -> Tensor:
    """Row numbers of the queue entries most similar to each query, in ascending order of the number.

    Args:
        query: ``(B, d)`` floating.
        queue: ``(K, d)`` floating.
        count: N, between 1 and K.

    Returns:
        ``(B, N)`` integers.
    """
    check_shapes(query=(query, "B d"), queue=(queue, "K d"))
    check_count(count=count)
    if count > len(queue):
        raise ValueError(f"count, queue: expected at most the queue's {len(queue)} rows, got {count}")
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
    """
    b, n = check_shapes(hard=(hard, "B N", int)).values()
    check_entries(0, math.inf, hard=hard)
    check_count(0, mixed=mixed, mixed_with_query=mixed_with_query)
    check_generator(generator)
    hard = hard.long()

    def rows(size: int) -> Tensor:
        return hard.gather(1, torch.randint(n, (b, size), generator=generator, device=hard.device))

    def uniform(size: int) -> Tensor:
        return torch.rand(b, size, generator=generator, device=hard.device)

    return Mixture(rows(mixed), rows(mixed), uniform(mixed), rows(mixed_with_query), uniform(mixed_with_query) / 2)


@full_precision
def mix(query: Tensor, queue: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Make the synthetic negatives; unit length, without gradient.

    Args:
        query: ``(B, d)``, any scale.
        queue: ``(K, d)``, any scale.
        mixture: the draws.

    Returns:
        ``(B, s, d)`` pairs mixed, ``(B, s', d)`` mixed with the query.
    """
    check_shapes(query=(query, "B d"), queue=(queue, "K d"))
    first, second, alpha, partner, beta = _check_mixture(mixture, len(query), len(queue), query.device)
    unit_query, unit_queue = normalize(query.detach()), normalize(queue.detach())
    alpha, beta = alpha[..., None].to(query), beta[..., None].to(query)
    pairs = alpha * unit_queue[first] + (1 - alpha) * unit_queue[second]
    with_query = beta * unit_query[:, None] + (1 - beta) * unit_queue[partner]
    return _unit(pairs), _unit(with_query)


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows) if rows.numel() else rows  # none may have been asked for


def _check_mixture(mixture: Mixture, b: int, k: int, device: torch.device) -> Mixture:
    """The mixture with int64 row numbers."""
    check_type(Mixture, mixture=mixture)
    fields = dict(mixture._asdict())
    for names, highest in ((("first", "second", "alpha"), 1.0), (("partner", "beta"), 0.5)):
        for name in names:
            check_type(Tensor, **{f"mixture.{name}": fields[name]})
        if all(fields[name].numel() == 0 and fields[name].shape == (b, 0) for name in names):
            continue  # nothing of this kind is mixed
        kinds = {name: float if name in ("alpha", "beta") else int for name in names}
        check_shapes(**{f"mixture.{name}": (fields[name], "B s", kinds[name]) for name in names})
        for name in names:
            check_entries(0, highest if kinds[name] is float else math.inf, **{f"mixture.{name}": fields[name]})
            if len(fields[name]) != b or fields[name].device != device:
                came = f"{len(fields[name])} rows on {fields[name].device} for {b} on {device}"
                raise ValueError(f"query, mixture.{name}: expected one row of draws for each query, got {came}")
            if kinds[name] is int:
                fields[name] = fields[name].long()
                if not torch.compiler.is_compiling() and fields[name].max() >= k:
                    came = f"row {int(fields[name].max())} of {k}"
                    raise ValueError(f"queue, mixture.{name}: expected row numbers of the queue, got {came}")
    return Mixture(**fields)


@full_precision
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

    Source: Kalantidis et al. (2020), section 4.

    Example:
        >>> q, k, queue = torch.randn(4, 8), torch.randn(4, 8), torch.randn(32, 8)
        >>> hard = hardest_rows(q, queue, 6)
        >>> plain, harder = (mochi(q, k, queue, draw_mixture(hard, 3 * n, 2 * n)) for n in (0, 1))
        >>> bool(harder > plain)  # synthetic negatives only add to the denominator
        True
    """
    check_shapes(query=(query, "B d"), key=(key, "B d"), queue=(queue, "K d"))
    check_temperature(temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    q = normalize(query)
    pairs, with_query = mix(query, queue, mixture)
    own = (q * normalize(key.detach())).sum(1)  # (B,)
    shared = q @ normalize(queue.detach()).mT  # (B, K)
    synthetic = (torch.cat([pairs, with_query], dim=1) @ q[..., None]).squeeze(-1)  # (B, s + s')
    negatives = torch.cat([shared, synthetic], dim=1)
    return one_positive_contrast(own / temperature, negatives / temperature, reduction=reduction)
