r"""Decoupled Contrastive Learning. Chun-Hsiao Yeh, Cheng-Yao Hong, Yen-Chi Hsu, Tyng-Luh Liu, Yubei Chen, Yann LeCun;
ECCV 2022; https://arxiv.org/abs/2110.06848.

For anchor :math:`i` of view :math:`k`, with :math:`p_i = \hat z_i^{(1)\top}\hat z_i^{(2)}` and the negatives' sum
:math:`U_i^{(k)} = \sum_{l}\sum_{j\ne i} e^{\hat z_i^{(k)\top}\hat z_j^{(l)}/\tau}`,

.. math::
    L_{\mathrm{InfoNCE},i} = -\frac{p_i}{\tau} + \log\big(e^{p_i/\tau} + U_i\big), \qquad
    L_{\mathrm{DCL},i} = -\frac{p_i}{\tau} + \log U_i .

What changes and why: every gradient of InfoNCE is the gradient of DCL times the negative-positive-coupling multiplier
:math:`q_i = U_i/(e^{p_i/\tau}+U_i) < 1`, which is small when the positive is already close or the negatives are few.
DCL leaves the positive out of the denominator, so that :math:`q_i = 1` and a small batch keeps a full-size gradient.
DCLW also weights the attraction by :math:`w_i = 2 - e^{p_i/\sigma} / \mathrm{mean}_j\, e^{p_j/\sigma}`.

Paper versus code. No repository could be verified as the authors'. (1) Re-implementations differ in reduction by
factors of two; here it is the mean over all 2N anchors. (2) One lets the gradient flow through :math:`w`, the other
does not; here the weight is a constant unless ``attach_weight`` says otherwise. (3) One masks by adding log(1e-45)
after the division by the temperature, which leaks the self-similarity back at temperatures near 0.004; here masked
entries leave the sum exactly. (4) N = 1 has no negatives and is an error, not minus infinity. (5) With a queue
(`dcl_moco`) the queue's entries are the only negatives, so the positive just leaves MoCo's softmax; this reading was
not checked against code of the authors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_batch, check_choice, check_flag, check_shapes, check_sizes
from ..core.contrast import REDUCTIONS, check_temperature, reduce
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask
from ..core.tiles import tiled_contrast, use_tiles

__all__ = ["DecoupledTerms", "dcl", "dcl_moco", "dclw", "decoupled_terms", "positive_weight"]


class DecoupledTerms(NamedTuple):
    """The two halves of every anchor's loss; first views first.

    Attributes:
        positive: ``(2N,)`` similarity to the positive over temperature.
        negatives: ``(2N,)`` log of the negatives' sum, log U.
    """

    positive: Tensor
    negatives: Tensor

    @property
    def coupling(self) -> Tensor:
        """``(2N,)`` negative-positive-coupling multiplier q in (0, 1): InfoNCE's gradient over DCL's."""
        return torch.sigmoid(self.negatives - self.positive)


@full_precision
def decoupled_terms(z1: Tensor, z2: Tensor, temperature: float | Tensor = 0.1) -> DecoupledTerms:
    """Positive logit and log-sum of the negatives for each of the 2N anchors.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here).
        z2: ``(N, d)`` second views.
        temperature: greater than 0.
    """
    check_shapes(z1=(z1, "N d"), z2=(z2, "N d"))
    check_temperature(temperature)
    check_batch(len(z1), 2, name="z1, z2", why="to have a negative")
    n = len(z1)
    if use_tiles(temperature):  # the same numbers without the table
        positive = ((normalize(z1) * normalize(z2)).sum(1) / temperature).repeat(2)
        return DecoupledTerms(positive, tiled_contrast(z1, z2, 1 / temperature, stacked=True, skip=(0, n, -n)))
    z = normalize(torch.cat([z1, z2]))  # (2N, d)
    logits = z @ z.mT / temperature  # (2N, 2N)
    same_sample = self_mask(n, z.device).repeat(2, 2)  # the anchor itself and its positive
    positive = logits.diagonal(n).repeat(2)  # (2N,), the same number for both directions
    return DecoupledTerms(positive, logits.masked_fill(same_sample, -math.inf).logsumexp(1))


def dcl(z1: Tensor, z2: Tensor, temperature: float | Tensor = 0.1, *, reduction: str = "mean") -> Tensor:
    """The decoupled loss: attraction at full strength, repulsion by a softmax over negatives only.

    It can be negative: its lower bound is log(2N - 2) - 2 / temperature. Its level says nothing beside InfoNCE's.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here).
        z2: ``(N, d)`` second views.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors, first views first.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Source: Yeh et al. (2022), the DCL loss.

    Example:
        >>> collapsed = torch.ones(4, 3)  # six negatives as close as the positive
        >>> round(dcl(collapsed, collapsed).exp().item(), 3)
        6.0
    """
    check_choice(REDUCTIONS, reduction=reduction)
    check_sizes(z1=(z1, "N d"), z2=(z2, "N d"))
    check_temperature(temperature)
    check_batch(len(z1), 2, name="z1, z2", why="to have a negative")
    if use_tiles(temperature):  # as NT-Xent, with the positives' diagonals left out too
        n = len(z1)
        return tiled_contrast(
            z1, z2, 1 / temperature, ("z1", "z2"), stacked=True, positive=n, skip=(0, n, -n), reduction=reduction
        )
    terms = decoupled_terms(z1, z2, temperature)
    return reduce(terms.negatives - terms.positive, reduction)


@full_precision
def dcl_moco(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor = 0.2, *, reduction: str = "mean"
) -> Tensor:
    """The decoupled loss with a queue: the queue holds all negatives, the own key is only attracted.

    Args:
        query: ``(n, d)``, any scale (normalized here); the only one that gets a gradient.
        key: ``(n, d)`` momentum embeddings of the other views; detached here.
        queue: ``(K, d)`` earlier keys; detached here.
        temperature: greater than 0; MoCo v2's by default.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the n queries.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.
    """
    check_shapes(query=(query, "n d"), key=(key, "n d"), queue=(queue, "K d"))
    check_temperature(temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    q = normalize(query)
    positive = (q * normalize(key.detach())).sum(1) / temperature  # (n,)
    negatives = q @ normalize(queue.detach()).mT / temperature  # (n, K)
    return reduce(negatives.logsumexp(1) - positive, reduction)


@full_precision
def positive_weight(z1: Tensor, z2: Tensor, sigma: float = 0.5) -> Tensor:
    r"""Weights of the attraction: badly aligned pairs pull more.

    .. math:: w_i = 2 - \frac{e^{p_i/\sigma}}{\frac1N\sum_j e^{p_j/\sigma}}

    Args:
        z1: ``(N, d)`` first views.
        z2: ``(N, d)`` second views.
        sigma: how sharply; for large values all weights become 1.

    Returns:
        ``(N,)`` with mean exactly 1, between 2 - N and 2; may be negative.
    """
    check_shapes(z1=(z1, "N d"), z2=(z2, "N d"))
    check_temperature(sigma, name="sigma")
    p = (normalize(z1) * normalize(z2)).sum(1)  # (N,)
    return 2 - len(p) * (p / sigma).softmax(0)


@full_precision
def dclw(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    sigma: float = 0.5,
    attach_weight: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """DCL whose attraction is weighted by `positive_weight`.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here).
        z2: ``(N, d)`` second views.
        temperature: greater than 0.
        sigma: see `positive_weight`.
        attach_weight: let the gradient flow through the weight.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors, first views first.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Source: Yeh et al. (2022), the DCLW loss.
    """
    check_flag(attach_weight=attach_weight)
    check_choice(REDUCTIONS, reduction=reduction)
    terms = decoupled_terms(z1, z2, temperature)
    weight = positive_weight(z1, z2, sigma).repeat(2)
    return reduce(terms.negatives - (weight if attach_weight else weight.detach()) * terms.positive, reduction)
