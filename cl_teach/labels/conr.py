r"""ConR: Contrastive Regularizer for Deep Imbalanced Regression. Mahsa Keramati, Lili Meng, R. David Evans; ICLR 2024;
https://arxiv.org/abs/2309.06651.

Labels :math:`y` are numbers, :math:`\hat y` the network's predictions, :math:`\omega` a window. Near labels are
positives; far labels with *near predictions* are negatives; a row with such a disagreement is an anchor:

.. math::
    P_j &= \{i\ne j: |y_i-y_j|\le\omega\}, \qquad
    N_j = \{i: |y_i-y_j|>\omega,\ |\hat y_i-\hat y_j|\le\omega\}, \\
    \ell_j &= \frac{-1}{|P_j|}\sum_{i\in P_j}\log\frac{e^{q_j\cdot q_i/\tau}}
        {\sum_{p\in P_j}e^{q_j\cdot q_p/\tau} + \sum_{n\in N_j}\eta_j\,e^{e|y_j-y_n|}\,e^{q_j\cdot q_n/\tau}}, \qquad
    L = \frac1M\sum_{j\,\mathrm{anchor}}\eta_j\,\ell_j .

What changes and why: in imbalanced regression the features of rare labels collapse onto those of frequent neighbors.
The loss finds just these disagreements and pushes them apart, harder where labels are farther apart and where the
anchor is rare (weight :math:`\eta`). It is added to any regression loss.

Labels may be vectors, such as the two angles of a direction: then :math:`|y_i-y_j|` is the Euclidean distance.

Paper versus code. (1) In the released age losses every non-positive entry of a row, the diagonal too, adds 1 to the
denominator; the equation is the default here, ``released=True`` gives their form. (2) The weight of an anchor enters
twice, in the push and as a factor, as in the code. (3) Division is by all M rows, not by the number of anchors. (4)
The released AgeDB loss ignores its temperature argument and uses 0.07. (5) Pushes are added to the logits as
logarithms, so that small temperatures do not overflow. (6) For depth images the release compares the mean depth of two
images and pushes linearly; here vectors of labels are compared as such.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_count,
    check_entries,
    check_flag,
    check_in_range,
    check_same_shape,
    check_shapes,
    finite_result,
)
from ..core.contrast import check_temperature, reduce
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask

__all__ = ["Disagreements", "conr", "disagreements", "rarity_weights"]


class Disagreements(NamedTuple):
    """Who is whose positive and negative.

    Attributes:
        positives: ``(M, M)`` boolean, near labels, not oneself.
        negatives: ``(M, M)`` boolean, far labels but near predictions.
        anchors: ``(M,)`` boolean, rows with a negative.
    """

    positives: Tensor
    negatives: Tensor
    anchors: Tensor


@full_precision
def disagreements(labels: Tensor, predictions: Tensor, window: float = 1.0) -> Disagreements:
    """Compare distances of labels with distances of predictions.

    Args:
        labels: ``(M,)`` numbers, or ``(M, k)`` vectors.
        predictions: of the same shape; detached here, they only select.
        window: largest distance that counts as near, at least 0.
    """
    check_same_shape(labels=labels, predictions=predictions)
    shape = "m k" if _are_vectors(labels) else "m"
    check_shapes(labels=(labels, shape), predictions=(predictions, shape))
    check_in_range(0, math.inf, window=window)
    near = _distances(labels) <= window
    positives = near & ~self_mask(len(labels), labels.device)
    negatives = ~near & (_distances(predictions.detach()) <= window)
    return Disagreements(positives, negatives, negatives.any(1))


@full_precision
def conr(
    features: Tensor,
    labels: Tensor,
    predictions: Tensor,
    weights: Tensor | None = None,
    temperature: float = 0.2,
    *,
    window: float = 1.0,
    push_scale: float = 0.01,
    released: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """The contrastive regularizer; add it to a regression loss.

    Args:
        features: ``(M, d)`` features that feed the regressor, both views stacked, any scale (normalized here).
        labels: ``(M,)`` numbers, or ``(M, k)`` vectors.
        predictions: of the same shape; constants here.
        weights: ``(M,)`` rarity of each row's label, greater than 0; None means 1.
        temperature: greater than 0.
        window: see `disagreements`.
        push_scale: e >= 0, how fast the push grows with the distance of labels.
        released: use the released code's denominator.
        reduction: ``"mean"`` (over all M rows), ``"sum"`` or ``"none"``; rows that are no anchors count 0.

    Returns:
        Scalar, or ``(M,)`` with ``reduction="none"``; exactly 0 when predictions agree with the labels.

    Source: Keramati et al. (2024) and the released loss for age estimation.

    Example:
        >>> features, ages = torch.eye(3).repeat(2, 1), torch.tensor([20.0, 40.0, 60.0]).repeat(2)
        >>> conr(features, ages, ages).item()  # every prediction is right
        0.0
        >>> guess = torch.tensor([20.0, 20.0, 60.0]).repeat(2)  # 40 taken for 20: the loss pushes these two apart
        >>> (conr(features, ages, guess, reduction="none") > 0).tolist()
        [True, True, False, True, True, False]
    """
    shape = "m k" if _are_vectors(labels) else "m"
    check_shapes(features=(features, "m d"), labels=(labels, shape), weights=(weights, "m?"))
    check_temperature(temperature)
    check_in_range(0, math.inf, push_scale=push_scale)
    check_flag(released=released)
    weights = torch.ones_like(features[:, 0]) if weights is None else weights
    check_entries(0, math.inf, open_low=True, weights=weights)
    positives, negatives, anchors = disagreements(labels, predictions, window)
    if not torch.compiler.is_compiling() and (anchors & ~positives.any(1)).any():
        raise ValueError("labels: every anchor needs another row with a near label; pass two views of each sample")

    q = normalize(features)
    logits = q @ q.mT / temperature  # (M, M)
    push = weights.log()[:, None] + push_scale * _distances(labels)  # log S
    terms = (logits + push * negatives).masked_fill(~(positives | negatives), -math.inf)
    if released:
        extra = (~positives).sum(1, keepdim=True).to(logits).log()  # a count of ones, as one more term
        terms = torch.cat([terms, extra], 1)
    # rows without any term are no anchors; a zero keeps them, and their gradient, finite
    terms = terms.masked_fill(~anchors[:, None], 0.0)
    denominator = terms.logsumexp(1, keepdim=True)
    count = positives.sum(1).clamp_min(1)
    loss = torch.where(anchors, weights * ((denominator - logits) * positives).sum(1) / count, 0.0)
    named = {"labels": labels, "weights": weights, "push_scale": push_scale, "temperature": temperature}
    return reduce(finite_result(loss, **named), reduction)


@full_precision
def rarity_weights(labels: Tensor, bins: int = 50, *, power: float = 0.5) -> Tensor:
    r"""Weights :math:`\eta` from the empirical density of the training labels: inverse frequency to a power, with
    mean 1.

    Args:
        labels: ``(n,)`` training labels, or ``(n, k)`` vectors, which are counted in a grid.
        bins: number of equal bins over the range of each dimension.
        power: 1 for inverse frequency, 0.5 for its square root, 0 for none.

    Returns:
        ``(n,)``, greater than 0.
    """
    check_shapes(labels=(labels, "n k" if _are_vectors(labels) else "n"))
    check_count(bins=bins)
    check_in_range(0, math.inf, power=power)
    columns = labels[:, None] if labels.ndim == 1 else labels
    low, high = columns.amin(0), columns.amax(0)
    place = (columns - low) / (high - low).clamp_min(torch.finfo(labels.dtype).tiny)
    cells = (place * bins).long().clamp(0, bins - 1)  # (n, k)
    _, cell, sizes = cells.unique(dim=0, return_inverse=True, return_counts=True)
    weights = sizes[cell].to(labels).pow(-power)
    return finite_result(weights / weights.mean(), labels=labels, power=power)


def _are_vectors(labels: Tensor) -> bool:
    return isinstance(labels, Tensor) and labels.ndim == 2


def _distances(values: Tensor) -> Tensor:
    gap = values[:, None] - values[None, :]
    return gap.abs() if values.ndim == 1 else torch.linalg.vector_norm(gap, dim=-1)
