r"""Mixup Your Own Pairs (SupReMix). Yilei Wu, Zijian Dong, Chongyao Chen, Wangchunshu Zhou, Juan Helen Zhou; 2023;
https://arxiv.org/abs/2309.16633 (as "SupReMix: Supervised Contrastive Learning for Medical Imaging Regression with
Mixup" in Medical Image Analysis, 2025, https://doi.org/10.1016/j.media.2025.103909).

Labels are numbers. Beside the real pairs, each anchor i gets virtual ones, mixed in embedding space from constants
:math:`\bar z`:

.. math::
    m_{ik} &= \lambda_{ik}\bar z_i + (1-\lambda_{ik})\bar z_k \quad (y_k\ne y_i)
        && \text{hard negative, label between the two,} \\
    p_{ijk} &= \alpha\bar z_j + (1-\alpha)\bar z_k,\ \alpha = \tfrac{y_k-y_i}{y_k-y_j} \quad (y_j<y_i<y_k)
        && \text{hard positive, label exactly } y_i .

With weights :math:`1+|\Delta y|` on negatives, the denominator :math:`D_i` sums real rows, mixed negatives and mixed
positives, and

.. math::
    L = \frac1M\sum_i\frac{-1}{|P_i|+|W_i|}\Big[\sum_{j\in P_i}\log\frac{e^{z_i\cdot z_j/\tau}}{D_i}
        + \sum_{(j,k)\in W_i}\log\frac{e^{z_i\cdot p_{ijk}/\tau}}{D_i}\Big].

What changes and why: contrast with equal labels breaks the space into clumps in any order. A hard positive pulls the
anchor onto the segment between its label neighbors, a hard negative keeps it away from too far: the space becomes
ordered.

Paper versus code. The paper's body was not accessible to us; the source was the authors' repository,
Dingyijiang1/Mixup-Your-Own-Pairs, all of it by the first author. (1) It shifts real and mixed logits by different
maxima before adding them, which changes the loss; here there is one log-sum-exp. (2) It attaches weights to the wrong
mixtures when padding is removed; not here. (3) A mixture type that is switched off leaves zero vectors behind as fake
pairs; here it is gone. (4) Mixtures are not normalized again. (5) Only similarities are mixed, :math:`z_i\cdot m_{ik} =
\lambda z_i\cdot\bar z_i + (1-\lambda) z_i\cdot\bar z_k`, so no mixed vector is ever built.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_entries, check_positive, check_shapes, finite_result
from ..core.contrast import check_temperature, reduce
from ..core.draws import draw_beta
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask

__all__ = ["MixedPositives", "draw_shares", "mixed_positives", "supremix"]


class MixedPositives(NamedTuple):
    """The pairs that are mixed into positives, one entry a triple.

    Attributes:
        anchor: ``(t,)`` row i.
        below: ``(t,)`` row j with a smaller label.
        above: ``(t,)`` row k with a larger label.
        share: ``(t,)`` weight of ``below``.
    """

    anchor: Tensor
    below: Tensor
    above: Tensor
    share: Tensor


def draw_shares(n: int, *, a: float = 2.0, b: float = 8.0, generator: torch.Generator | None = None) -> Tensor:
    """Draw the anchor's share in every mixed negative from Beta(a, b).

    Args:
        n: number of rows M.
        a: first shape parameter.
        b: second shape parameter; with the defaults the anchor's mean share is 0.2.
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(n, n)`` in [0, 1], float64, CPU.
    """
    check_count(n=n)
    return draw_beta(a, b, n, n, generator=generator)


@full_precision
def mixed_positives(labels: Tensor, window: float) -> MixedPositives:
    """All pairs of rows around each anchor whose mixture has the anchor's label.

    Args:
        labels: ``(M,)`` numbers.
        window: both partners' labels are nearer than this (strictly).
    """
    check_shapes(labels=(labels, "m"))
    check_positive(window=window)
    gap = labels[None, :] - labels[:, None]  # (M, M), y_j - y_i
    below, above = (gap < 0) & (gap > -window), (gap > 0) & (gap < window)
    i, j = below.nonzero(as_tuple=True)
    partners = above.sum(1)  # (M,), those above each anchor
    # Every pair (i, j) once for each partner above i: their list starts behind those of the anchors before i.
    pair = torch.arange(len(i), device=i.device).repeat_interleave(partners[i])  # (t,)
    place = torch.arange(len(pair), device=i.device) - (partners[i].cumsum(0) - partners[i])[pair]
    i, j = i[pair], j[pair]
    k = above.nonzero()[(partners.cumsum(0) - partners)[i] + place, 1]
    return MixedPositives(i, j, k, gap[i, k] / (gap[i, k] - gap[i, j]))


@full_precision
def supremix(
    z: Tensor,
    labels: Tensor,
    shares: Tensor | None = None,
    temperature: float = 0.3,
    *,
    window: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Distance-weighted supervised contrast with mixed negatives and mixed positives.

    Args:
        z: ``(M, d)`` embeddings, both views stacked, any scale (normalized here).
        labels: ``(M,)`` numbers; exactly equal labels are positives, so every label occurs twice or is mixed.
        shares: ``(M, M)`` the anchor's share in each mixed negative, from `draw_shares`; None for no mixed negatives.
        temperature: greater than 0.
        window: for `mixed_positives`; None for no mixed positives.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the M anchors.

    Returns:
        Scalar, or ``(M,)`` with ``reduction="none"``.

    Source: Wu et al. (2023), the authors' repository.

    Example:
        >>> z, ages = torch.eye(3).repeat(2, 1), torch.tensor([20.0, 30.0, 40.0]).repeat(2)
        >>> triples = mixed_positives(ages, window=15)  # only age 30 lies between two others: 2 anchors, 2 x 2 pairs
        >>> len(triples.anchor), triples.share.unique().tolist()
        (8, [0.5])
        >>> bool(supremix(z, ages, draw_shares(6), window=15) > supremix(z, ages))
        True
    """
    check_shapes(z=(z, "m d"), labels=(labels, "m"), shares=(shares, "m m?"))
    check_temperature(temperature)
    z = normalize(z)
    frozen, itself = z.detach(), self_mask(len(z), z.device)
    distance = (labels[:, None] - labels[None, :]).abs()
    positives = (distance == 0) & ~itself
    logits = z @ z.mT / temperature  # real pairs, gradient on both sides
    parts = [(logits + distance.log1p()).masked_fill(itself, -math.inf)]  # log of (1 + distance) e^s
    gained, count = (logits * positives).sum(1), positives.sum(1).to(z)

    to_frozen = z @ frozen.mT / temperature  # gradient through the anchor only
    if shares is not None:
        check_entries(0, 1, shares=shares)
        mixed = shares * to_frozen.diagonal()[:, None] + (1 - shares) * to_frozen
        weight = ((1 - shares) * distance).log1p()
        parts.append((mixed + weight).masked_fill(distance == 0, -math.inf))
    if window is not None:
        i, j, k, share = mixed_positives(labels, window)
        score = share * to_frozen[i, j] + (1 - share) * to_frozen[i, k]  # (t,)
        gained = gained.index_add(0, i, score)
        count = count + torch.bincount(i, minlength=len(z)).to(z)
        parts.append(_row_logsumexp(score, i, len(z))[:, None])
    if not torch.compiler.is_compiling() and (count == 0).any():
        raise ValueError("labels: every anchor needs a positive; pass two views of each sample")
    loss = torch.cat(parts, 1).logsumexp(1) - gained / count
    return reduce(finite_result(loss, labels=labels, temperature=temperature), reduction)


def _row_logsumexp(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Log-sum-exp of scattered values row by row; minus infinity for a row without any."""
    top = torch.full((rows,), -math.inf, dtype=values.dtype, device=values.device)
    top = top.scatter_reduce(0, row, values.detach(), "amax")
    safe = torch.where(top.isinf(), 0.0, top)
    total = torch.zeros_like(top).index_add(0, row, (values - safe[row]).exp())
    empty = total == 0
    return torch.where(empty, -math.inf, torch.where(empty, 1.0, total).log() + safe)
