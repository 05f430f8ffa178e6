r"""Improving Contrastive Learning by Visualizing Feature Transformation. Rui Zhu, Bingchen Zhao, Jingen Liu, Zhenglong
Sun, Chang Wen Chen; ICCV 2021; https://arxiv.org/abs/2108.02982.

On top of MoCo, with query q, key k, queue entries n and draws :math:`\lambda_{ex}\in(1,2)`,
:math:`\lambda_{in}\in(0,1)` and a permutation :math:`\pi` of the queue:

.. math::
    \hat q = \lambda_{ex} q + (1-\lambda_{ex}) k, \quad \hat k = \lambda_{ex} k + (1-\lambda_{ex}) q, \quad
    \hat n_m = \lambda_{in} n_m + (1-\lambda_{in}) n_{\pi(m)},

and the loss is InfoNCE of :math:`(\hat q, \hat k, \hat n)`. What changes and why: the two positives are pushed apart
along their line, to the score :math:`\hat S = S - 2\lambda(\lambda-1)(1-S) \le S`, so they stay hard although S is
close to 1; the negatives are new mixtures at every step. Nothing is normalized again, so scores may leave [-1, 1].

Paper versus code. (1) The option of normalizing after mixing is broken in the code and off by default; it is left
out. (2) The queue must receive the plain keys, not the mixed ones. (3) Negatives are scored with the transformed
query, as the code does. (4) :math:`\lambda` is one number a step, or one a row and dimension ("dimension level"); the
code honors the first only in one of its modes, here both serve everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_embeddings, check_in_range, check_positive, check_same_shape, check_same_width
from ..core.contrast import one_positive_contrast
from ..core.draws import draw_beta
from ..core.similarity import normalize

__all__ = [
    "Scores",
    "draw_transformation",
    "extrapolate",
    "feature_transformation",
    "interpolate",
    "transformed_scores",
]


class Scores(NamedTuple):
    """Scores of a batch, not divided by the temperature.

    Attributes:
        before: ``(B,)`` of query and key as they came.
        positive: ``(B,)`` after the transformation.
        negatives: ``(B, K)`` after the transformation.
    """

    before: Tensor
    positive: Tensor
    negatives: Tensor


def extrapolate(query: Tensor, key: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""Move two vectors apart along their line; sum and direction of the difference stay.

    Args:
        query: ``(B, d)``.
        key: ``(B, d)``.
        weight: :math:`\lambda_{ex}` in [1, 2], a number or ``(B, d)``; 1 changes nothing.

    Returns:
        The moved query and the moved key.

    Raises:
        ValueError: shapes differ or the weight is out of range.
    """
    check_same_shape(query=query, key=key)
    check_in_range(1, 2, weight=weight)
    return weight * query + (1 - weight) * key, weight * key + (1 - weight) * query


def interpolate(queue: Tensor, weight: float | Tensor, permutation: Tensor) -> Tensor:
    r"""Mix every queue entry with another one.

    Args:
        queue: ``(K, d)``.
        weight: :math:`\lambda_{in}` in [0, 1] of the entry itself, a number or ``(K, d)``.
        permutation: ``(K,)`` row number of the partner.

    Returns:
        ``(K, d)``, shorter than the entries where the two differ.

    Raises:
        ValueError: the weight is out of range, or the permutation has another length.
    """
    check_in_range(0, 1, weight=weight)
    if permutation.shape != (len(queue),):
        raise ValueError(f"permutation: expected shape ({len(queue)},), got {tuple(permutation.shape)}")
    return weight * queue + (1 - weight) * queue[permutation]


def draw_transformation(
    queue_size: int, *, alpha_positive: float = 2.0, alpha_negative: float = 1.6, seed: int | None = None
) -> tuple[float, float, Tensor]:
    r"""Draw one step's :math:`\lambda_{ex} = 1 + \mathrm{Beta}(\alpha_{ex},\alpha_{ex})`, :math:`\lambda_{in}` and
    :math:`\pi`.

    Args:
        queue_size: K.
        alpha_positive: shape of the Beta distribution for the positives.
        alpha_negative: shape for the negatives.
        seed: of this draw; the global state of torch if None.

    Returns:
        The two numbers and the ``(K,)`` permutation (CPU).

    Raises:
        ValueError: a value not positive.
    """
    check_positive(queue_size=queue_size, alpha_positive=alpha_positive, alpha_negative=alpha_negative)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    outward = draw_beta(alpha_positive, alpha_positive, generator=generator).item()
    inward = draw_beta(alpha_negative, alpha_negative, generator=generator).item()
    return 1 + outward, inward, torch.randperm(queue_size, generator=generator)


def transformed_scores(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    extrapolation: float | Tensor = 1.0,
    interpolation: float | Tensor = 1.0,
    permutation: Tensor | None = None,
) -> Scores:
    """Scores before and after the transformation; what the paper's visualization records.

    Args:
        query: ``(B, d)``, any scale (normalized here, once).
        key: ``(B, d)``; detached here.
        queue: ``(K, d)``; detached here.
        extrapolation: weight of `extrapolate`; 1 leaves the positives alone.
        interpolation: weight of `interpolate`; 1 leaves the negatives alone.
        permutation: ``(K,)`` partners in the queue; needed unless ``interpolation`` is 1.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, weights out of range.
    """
    check_embeddings(query=query, key=key, queue=queue)
    check_same_shape(query=query, key=key)
    check_same_width(query=query, queue=queue)
    q, k, n = normalize(query), normalize(key.detach()), normalize(queue.detach())
    moved_query, moved_key = extrapolate(q, k, extrapolation)
    if permutation is None:
        permutation = torch.arange(len(n), device=n.device)  # each entry mixed with itself: unchanged
    mixed = interpolate(n, interpolation, permutation)
    return Scores((q * k).sum(1), (moved_query * moved_key).sum(1), moved_query @ mixed.mT)


def feature_transformation(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    temperature: float = 0.2,
    *,
    extrapolation: float | Tensor = 1.0,
    interpolation: float | Tensor = 1.0,
    permutation: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """MoCo's loss on transformed features; with both weights at 1 it is MoCo's loss.

    The gradient reaches the query through both transformed positives; key and queue are constants.

    Args:
        query: ``(B, d)``, any scale (normalized here, once).
        key: ``(B, d)`` momentum embeddings.
        queue: ``(K, d)`` earlier keys; push the plain keys into it.
        temperature: greater than 0.
        extrapolation: see `transformed_scores`.
        interpolation: see `transformed_scores`.
        permutation: see `transformed_scores`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the queries.

    Returns:
        Scalar, or ``(B,)`` with ``reduction="none"``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, weights out of range, temperature not positive.

    Source: Zhu et al. (2021), positive extrapolation and negative interpolation.
    """
    check_positive(temperature=temperature)
    scores = transformed_scores(
        query, key, queue, extrapolation=extrapolation, interpolation=interpolation, permutation=permutation
    )
    return one_positive_contrast(scores.positive / temperature, scores.negatives / temperature, reduction=reduction)
