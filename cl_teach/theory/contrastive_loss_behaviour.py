r"""Understanding the Behaviour of Contrastive Loss. Feng Wang, Huaping Liu; CVPR 2021; https://arxiv.org/abs/2012.09740.

For anchors :math:`f_i` and keys :math:`g_j` with similarities :math:`s_{ij} = \hat f_i^\top \hat g_j` the softmax loss

.. math::
    L_i = -\log P_{ii}, \qquad P_{ij} = \frac{e^{s_{ij}/\tau}}{\sum_k e^{s_{ik}/\tau}}

pushes negative :math:`j` with the force :math:`\partial L_i/\partial s_{ij} = P_{ij}/\tau` and pulls the positive with
the sum of all pushes. What each negative gets of that sum is the *relative penalty*

.. math::
    r_{ij} = \frac{e^{s_{ij}/\tau}}{\sum_{k\ne i} e^{s_{ik}/\tau}},

a Boltzmann distribution over the negatives with temperature :math:`\tau`. What changes and why: nothing is added to
the loss; it is taken apart. Small :math:`\tau` spends the push on the nearest neighbors, large :math:`\tau` spreads
it evenly, and two variants make the point by replacing the softmax's choice of negatives with an explicit one
(`hard_contrastive_loss`) or none at all (`simple_loss`).

Paper versus code. No official code was found. (1) The upper-:math:`\alpha` quantile is read as "keep the
:math:`K=\lceil\alpha(N-1)\rceil` hardest negatives, ties at the threshold included", and the threshold is a constant
for the gradient. (2) The penalty is computed as a softmax over negatives, never as a quotient of two gradients, which
is 0/0 for well separated anchors at small :math:`\tau`. (3) The weight of the simple losses is not known from the
paper; here it is an argument without a default.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_batch,
    check_entries,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_square,
    finite_result,
)
from ..core.contrast import check_temperature, reduce, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, same_label_mask, self_mask

__all__ = [
    "ContrastTerms",
    "contrast_terms",
    "entropy_slope",
    "hard_contrastive_loss",
    "hardest_negatives",
    "high_temperature_limit",
    "literal_tolerance",
    "low_temperature_limit",
    "penalty_entropy",
    "relative_penalty",
    "simple_loss",
    "simple_terms",
]


class ContrastTerms(NamedTuple):
    """The softmax loss taken apart; ``n`` anchors against ``n`` keys, positives on the diagonal.

    Attributes:
        loss: ``(n,)`` loss of each anchor.
        probability: ``(n, n)`` softmax over the kept keys, :math:`P_{ij}`; 0 at discarded negatives.
        penalty: ``(n, n)`` relative penalty :math:`r_{ij}`; 0 on the diagonal and at discarded negatives.
        threshold: ``(n,)`` smallest cosine among the kept negatives of each anchor, detached.
    """

    loss: Tensor
    probability: Tensor
    penalty: Tensor
    threshold: Tensor


@full_precision
def hardest_negatives(similarity: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    r"""Which negatives an anchor keeps: the upper :math:`\alpha` part by similarity.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        alpha: share of the negatives to keep, in (0, 1]; at least one is kept.

    Returns:
        ``(n, n)`` boolean mask, false on the diagonal, and the ``(n,)`` thresholds (detached cosines).
    """
    check_square(2, similarity=similarity)  # a negative at least
    n = len(similarity)
    check_positive(alpha=alpha)
    check_in_range(0, 1, alpha=alpha)
    # the tiny number keeps 0.1 * 30 = 3.0000000000000004 at three
    kept = max(1, math.ceil(alpha * (n - 1) - 1e-9))
    itself = self_mask(n, similarity.device)
    negatives = similarity.detach().masked_fill(itself, -math.inf)
    threshold = negatives.topk(kept, dim=1, sorted=False).values.amin(1)  # (n,); sorting them would cost most
    return (negatives >= threshold[:, None]) & ~itself, threshold


@full_precision
def contrast_terms(similarity: Tensor, temperature: float | Tensor, *, alpha: float = 1.0) -> ContrastTerms:
    """The (hard) softmax loss of a similarity matrix, with everything a figure needs. See `ContrastTerms`.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.
        alpha: share of the hardest negatives that is kept; 1 is the ordinary loss.

    Example:
        >>> terms = contrast_terms(torch.zeros(4, 4), 0.1)  # nothing is known: four keys, three negatives
        >>> [round(terms.loss.exp()[0].item(), 3), round(terms.penalty[0, 1].item(), 3)]
        [4.0, 0.333]
    """
    kept, threshold = hardest_negatives(similarity, alpha)
    logits = _scaled(similarity, temperature)
    positive = self_mask(len(similarity), similarity.device)
    loss = softmax_contrast(logits, positive, candidates=kept | positive, reduction="none")
    probability = logits.masked_fill(~(kept | positive), -math.inf).softmax(1)
    return ContrastTerms(loss, probability, relative_penalty(similarity, temperature, kept), threshold)


def _scaled(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    check_temperature(temperature)
    return finite_result(similarity / temperature, similarity=similarity, temperature=temperature)


@full_precision
def hard_contrastive_loss(
    anchors: Tensor, keys: Tensor, temperature: float | Tensor = 0.3, *, alpha: float, reduction: str = "mean"
) -> Tensor:
    r"""The softmax loss with only the hardest negatives in the denominator; ``alpha=1`` is InfoNCE.

    .. math::
        L_i = -\log\frac{e^{s_{ii}/\tau}}{e^{s_{ii}/\tau} + \sum_{k\ne i,\ s_{ik}\ge s_\alpha^{(i)}} e^{s_{ik}/\tau}}

    Args:
        anchors: ``(n, d)`` floating, any scale.
        keys: ``(n, d)``; row i is the positive of anchor i, the other rows its negatives.
        temperature: greater than 0.
        alpha: share of the negatives kept, in (0, 1].
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the anchors.

    Source: Wang and Liu (2021), hard contrastive loss.
    """
    _check_pairs(anchors, keys)
    similarity = cosine_similarity(anchors, keys)
    positive = self_mask(len(similarity), similarity.device)
    kept, _ = hardest_negatives(similarity, alpha)
    return softmax_contrast(_scaled(similarity, temperature), positive, kept | positive, reduction=reduction)


@full_precision
def simple_terms(similarity: Tensor, *, negative_weight: float, alpha: float = 1.0) -> ContrastTerms:
    r"""The linear loss of a similarity matrix; its penalty is the same number for every kept negative.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        negative_weight: :math:`\lambda > 0`; 1/(n - 1) is the direction of the softmax loss at large temperature.
        alpha: share of the hardest negatives that is kept.

    Returns:
        `ContrastTerms`; there is no softmax, so ``probability`` holds the plain weights: 1 on the diagonal, lambda at
        kept negatives.
    """
    kept, threshold = hardest_negatives(similarity, alpha)
    check_positive(negative_weight=negative_weight)
    penalty = negative_weight * kept.to(similarity.dtype)
    loss = -similarity.diagonal() + (penalty * similarity).sum(1)
    finite_result(loss, similarity=similarity, negative_weight=negative_weight)
    weights = penalty + self_mask(len(similarity), similarity.device)
    return ContrastTerms(loss, weights, penalty, threshold)


@full_precision
def simple_loss(
    anchors: Tensor, keys: Tensor, *, negative_weight: float, alpha: float = 1.0, reduction: str = "mean"
) -> Tensor:
    r"""The contrastive loss without hardness: :math:`L_i = -s_{ii} + \lambda \sum_{j\ne i} s_{ij}`.

    With ``alpha < 1`` only the hardest K negatives are summed (the "hard simple" loss). Written with distances
    :math:`D = 1 - s` the loss is a constant plus :math:`D^+ - \lambda K \bar D^-`, so collapse lowers it whenever the
    positive is farther than :math:`\lambda K` times the mean kept negative; watch the uniformity.

    Args:
        anchors: ``(n, d)`` floating, any scale.
        keys: ``(n, d)``; row i is the positive of anchor i.
        negative_weight: :math:`\lambda > 0`.
        alpha: share of the negatives kept, in (0, 1].
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the anchors.

    Source: Wang and Liu (2021), simple and hard simple contrastive loss.
    """
    _check_pairs(anchors, keys)
    terms = simple_terms(cosine_similarity(anchors, keys), negative_weight=negative_weight, alpha=alpha)
    return reduce(terms.loss, reduction)


def _check_pairs(anchors: Tensor, keys: Tensor) -> None:
    check_shapes(anchors=(anchors, "n d"), keys=(keys, "n d"))
    check_batch(len(anchors), 2, name="anchors, keys", why="to have a negative")


@full_precision
def relative_penalty(similarity: Tensor, temperature: float | Tensor, kept: Tensor | None = None) -> Tensor:
    """The share of the repulsion that each negative receives, a softmax over the negatives of each row.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.
        kept: ``(n, n)`` boolean, the negatives that take part, at least one a row; None means all.

    Returns:
        ``(n, n)``; rows sum to 1, the diagonal is 0.
    """
    check_square(2, similarity=similarity)  # a negative at least
    check_shapes(similarity=(similarity, "n n"), kept=(kept, "n n?", bool))
    itself = self_mask(len(similarity), similarity.device)
    negatives = ~itself if kept is None else kept
    if kept is not None and not torch.compiler.is_compiling():
        if (kept & itself).any() or not kept.any(1).all():
            raise ValueError("kept: expected at least one negative in every row, and no positive (the diagonal)")
    return _scaled(similarity, temperature).masked_fill(~negatives, -math.inf).softmax(1)


@full_precision
def penalty_entropy(penalty: Tensor) -> Tensor:
    """Entropy in nats of each row of relative penalties, with 0 log 0 = 0 and no gradient there.

    Args:
        penalty: ``(n, m)``, rows summing to 1.

    Returns:
        ``(n,)`` between 0 (one negative takes all) and log of the number of negatives (all alike).
    """
    check_shapes(penalty=(penalty, "n m"))
    check_entries(0, math.inf, penalty=penalty)
    # torch.special.entr has the slope infinity at 0: times the softmax's slope 0 that would be NaN
    return -(penalty * torch.where(penalty > 0, penalty, 1.0).log()).sum(1)


@full_precision
def entropy_slope(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    r"""How fast the entropy of the penalty grows with temperature: :math:`dH/d\tau = \mathrm{Var}_r(s)/\tau^3`.

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.

    Returns:
        ``(n,)``, never negative.
    """
    r = relative_penalty(similarity, temperature)
    mean = (r * similarity).sum(1, keepdim=True)
    slope = (r * (similarity - mean).square()).sum(1) / temperature / temperature / temperature
    return finite_result(slope, similarity=similarity, temperature=temperature)


@full_precision
def low_temperature_limit(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    r"""The loss for :math:`\tau\to 0`: a triplet loss against the hardest negative, divided by the temperature.

    .. math:: L_i \simeq \tfrac1\tau \max[\max_{k\ne i} s_{ik} - s_{ii},\ 0], \qquad \text{off by at most } \log n

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.

    Returns:
        ``(n,)``.
    """
    check_square(2, similarity=similarity)  # a negative at least
    check_temperature(temperature)
    n = len(similarity)
    hardest = similarity.masked_fill(self_mask(n, similarity.device), -math.inf).amax(1)
    limit = (hardest - similarity.diagonal()).clamp_min(0) / temperature
    return finite_result(limit, similarity=similarity, temperature=temperature)


@full_precision
def high_temperature_limit(similarity: Tensor, temperature: float | Tensor) -> Tensor:
    r"""The loss for :math:`\tau\to\infty`: a constant plus the simple loss, up to :math:`O(\tau^{-2})`.

    .. math:: L_i = \log n + \tfrac{n-1}{n\tau}\big[-s_{ii} + \tfrac1{n-1}\sum_{k\ne i} s_{ik}\big]

    Args:
        similarity: ``(n, n)`` cosines, positives on the diagonal.
        temperature: greater than 0.

    Returns:
        ``(n,)``.
    """
    check_square(2, similarity=similarity)  # a negative at least
    check_temperature(temperature)
    n = len(similarity)
    simple = simple_terms(similarity, negative_weight=1 / (n - 1)).loss
    limit = math.log(n) + (n - 1) / n * simple / temperature
    return finite_result(limit, similarity=similarity, temperature=temperature)


@full_precision
def literal_tolerance(z: Tensor, labels: Tensor) -> Tensor:
    r"""Tolerance as the formula is printed: the indicator of equal labels inside the mean over all distinct pairs.

    Smaller than `cl_teach.evaluation.tolerance`, the mean *given* equal labels, by the share of such pairs. The book
    reports the conditional form, which does not depend on the number of classes.

    Args:
        z: ``(n, d)`` floating, any scale.
        labels: ``(n,)`` integers.

    Returns:
        Scalar.
    """
    check_shapes(z=(z, "n d"), labels=(labels, "n", int))
    check_batch(len(z), 2, name="z, labels", why="to have a pair")
    labels = check_labels(labels, len(z))
    same = same_label_mask(labels) & ~self_mask(len(z), z.device)
    return (cosine_similarity(z, z) * same).sum() / (len(z) * (len(z) - 1))
