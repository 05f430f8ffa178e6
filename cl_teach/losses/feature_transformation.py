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

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
)
from ..core.contrast import REDUCTIONS, check_temperature, one_positive_contrast
from ..core.draws import draw_beta
from ..core.precision import full_precision
from ..core.similarity import normalize

__all__ = [
    "Scores",
    "Transformation",
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


class Transformation(NamedTuple):
    """One step's draws.

    Attributes:
        extrapolation: weight of `extrapolate`, in [1, 2].
        interpolation: weight of `interpolate`, in [0, 1].
        permutation: ``(K,)`` partners in the queue (CPU).
    """

    extrapolation: float
    interpolation: float
    permutation: Tensor


@full_precision
def extrapolate(query: Tensor, key: Tensor, weight: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""Move two vectors apart along their line; sum and direction of the difference stay.

    Args:
        query: ``(B, d)``.
        key: ``(B, d)``.
        weight: :math:`\lambda_{ex}` in [1, 2], a number or ``(B, d)``; 1 changes nothing.

    Returns:
        The moved query and the moved key.
    """
    check_shapes(query=(query, "B d"), key=(key, "B d"))
    _check_weight(1, 2, "query", query, weight=weight)
    return weight * query + (1 - weight) * key, weight * key + (1 - weight) * query


@full_precision
def interpolate(queue: Tensor, weight: float | Tensor, permutation: Tensor) -> Tensor:
    r"""Mix every queue entry with another one.

    Args:
        queue: ``(K, d)``.
        weight: :math:`\lambda_{in}` in [0, 1] of the entry itself, a number or ``(K, d)``.
        permutation: ``(K,)`` row number of the partner, every row once.

    Returns:
        ``(K, d)``, shorter than the entries where the two differ.
    """
    check_shapes(queue=(queue, "K d"), permutation=(permutation, "K", int))
    _check_weight(0, 1, "queue", queue, weight=weight)
    k = len(queue)
    permutation = check_labels(permutation, k, name="permutation", num_classes=k)
    if not torch.compiler.is_compiling() and len(permutation.unique()) < k:
        raise ValueError("permutation: expected every row of the queue once, got some twice")
    return weight * queue + (1 - weight) * queue[permutation]


def _check_weight(low: float, high: float, of: str, rows: Tensor, **weight: float | Tensor) -> None:
    """A number, or a number for every entry of ``rows``."""
    ((name, value),) = weight.items()
    named: dict[str, Any] = weight
    if isinstance(value, Tensor) and value.ndim > 0:
        check_entries(low, high, **named)
        if value.shape != rows.shape or value.device != rows.device:
            came = f"{tuple(value.shape)} on {value.device} for {tuple(rows.shape)} on {rows.device}"
            raise ValueError(f"{name}, {of}: expected a number or equal shapes on one device, got {came}")
    else:
        check_in_range(low, high, **named)


def draw_transformation(
    queue_size: int,
    *,
    alpha_positive: float = 2.0,
    alpha_negative: float = 1.6,
    generator: torch.Generator | None = None,
) -> Transformation:
    r"""Draw one step's :math:`\lambda_{ex} = 1 + \mathrm{Beta}(\alpha_{ex},\alpha_{ex})`, :math:`\lambda_{in}` and
    :math:`\pi`.

    Args:
        queue_size: K.
        alpha_positive: shape of the Beta distribution for the positives, between 1e-3 and 1e6.
        alpha_negative: shape for the negatives.
        generator: on the CPU; the global state of torch if None.
    """
    check_count(queue_size=queue_size)
    check_positive(alpha_positive=alpha_positive, alpha_negative=alpha_negative)
    check_in_range(1e-3, 1e6, alpha_positive=alpha_positive, alpha_negative=alpha_negative)
    check_generator(generator)
    outward = draw_beta(alpha_positive, alpha_positive, generator=generator).item()
    inward = draw_beta(alpha_negative, alpha_negative, generator=generator).item()
    return Transformation(1 + outward, inward, torch.randperm(queue_size, generator=generator))


@full_precision
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
    """
    check_shapes(query=(query, "B d"), key=(key, "B d"), queue=(queue, "K d"))
    _check_weight(1, 2, "query", query, extrapolation=extrapolation)
    _check_weight(0, 1, "queue", queue, interpolation=interpolation)
    q, k, n = normalize(query), normalize(key.detach()), normalize(queue.detach())
    moved_query, moved_key = extrapolate(q, k, extrapolation)
    if permutation is not None:
        n = interpolate(n, interpolation, permutation)
    elif isinstance(interpolation, Tensor) or interpolation != 1:
        raise ValueError("permutation: expected the partners in the queue, as interpolation is not 1, got None")
    return Scores((q * k).sum(1), (moved_query * moved_key).sum(1), moved_query @ n.mT)


@full_precision
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

    Source: Zhu et al. (2021), positive extrapolation and negative interpolation.

    Example:
        >>> q, k, queue = torch.randn(4, 8), torch.randn(4, 8), torch.randn(32, 8)
        >>> draws = draw_transformation(len(queue))
        >>> feature_transformation(q, k, queue, **draws._asdict()).shape
        torch.Size([])
    """
    check_temperature(temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    scores = transformed_scores(
        query, key, queue, extrapolation=extrapolation, interpolation=interpolation, permutation=permutation
    )
    return one_positive_contrast(scores.positive / temperature, scores.negatives / temperature, reduction=reduction)
