r"""Contrastive Attraction and Contrastive Repulsion for Representation Learning. Huangjie Zheng, Xu Chen, Jiangchao
Yao, Hongxia Yang, Chunyuan Li, Ya Zhang, Hao Zhang, Ivor Tsang, Jingren Zhou, Mingyuan Zhou; TMLR 2023;
https://arxiv.org/abs/2105.03746.

With the cost :math:`c(a,b) = \lVert a-b\rVert^2` between unit vectors, V views of N images, and sharpness
:math:`t^+, t^- \ge 0`,

.. math::
    L_{CA} &= \frac{\alpha}{V}\sum_x \frac1N \sum_i \sum_{m\ne x}
              \pi^+_{x,i}(m)\, c(z_i^{(x)}, z_i^{(m)}), &
    \pi^+_{x,i} &= \mathrm{softmax}_{m\ne x}\big(t^+ c\big), \\
    L_{CR} &= -\frac{\beta}{\binom V2}\sum_{x<y} \frac1N \sum_i \sum_{j\ne i}
              \pi^-_{xy,i}(j)\, c(z_i^{(x)}, z_j^{(y)}), &
    \pi^-_{xy,i} &= \mathrm{softmax}_{j\ne i}\big(-t^- c\big).

What changes and why: positives are compared with positives (the farthest pulls most) and negatives with negatives (the
closest pushes most), each group with its own weights; there is no softmax across the groups.

Paper versus code. (1) The code's ``tau_pos`` and ``tau_neg`` are multipliers, so they are called sharpness here.
(2) Repulsion uses only pairs x < y, as the code does. (3) The gradient flows through the weights in the small-scale
code; a very near positive is then pushed away and a very far negative pulled. (4) The ImageNet variant
(`cacr_momentum`) detaches its weights. (5) The code's debiased option has the wrong sign and scale and is left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_batch, check_embeddings, check_in_range, check_positive, check_same_shape
from ..core.contrast import info_nce
from ..core.similarity import normalize, self_mask

__all__ = ["AttractionRepulsion", "cacr", "cacr_momentum", "cacr_terms", "squared_distance"]


class AttractionRepulsion(NamedTuple):
    """The two terms of the loss with their conditional weights.

    Attributes:
        attraction: scalar in [0, 4 alpha].
        repulsion: scalar in [-4 beta, 0].
        positive_weights: ``(V, N, V)``, weight of view m for query view x; 0 where m = x.
        negative_weights: ``(V, V, N, N)``, weight of image j in view y for image i in view x; 0 where j = i.
    """

    attraction: Tensor
    repulsion: Tensor
    positive_weights: Tensor
    negative_weights: Tensor


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of unit vectors, ``(..., n, d)`` and ``(..., m, d)`` to ``(..., n, m)`` in [0, 4].

    From the inner product, because the root inside a norm has no gradient at 0.
    """
    return (2 - 2 * a @ b.mT).clamp_min(0)


def cacr_terms(
    views: Tensor,
    *,
    positive_sharpness: float = 1.0,
    negative_sharpness: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> AttractionRepulsion:
    """Attraction and repulsion with their weights; arguments and errors as in `cacr`."""
    check_embeddings(ndim=3, views=views)
    check_in_range(0, math.inf, positive_sharpness=positive_sharpness, negative_sharpness=negative_sharpness)
    check_positive(alpha=alpha, beta=beta)
    v, n, _ = views.shape
    check_batch(v, 2, name="views", why="(views of each image) to have a positive")
    check_batch(n, 2, name="views[0]", why="to have a negative")
    z = normalize(views)  # (V, N, d)

    among_views = squared_distance(z.transpose(0, 1), z.transpose(0, 1)).transpose(0, 1)  # (V, N, V), cost of x, i, m
    itself = self_mask(v, z.device)[:, None, :]  # m = x
    positive_weights = (positive_sharpness * among_views).masked_fill(itself, -math.inf).softmax(-1)
    attraction = alpha * (positive_weights * among_views).sum(-1).mean()

    among_images = squared_distance(z[:, None], z[None])  # (V, V, N, N), cost of x, y, i, j
    same_image = self_mask(n, z.device)
    negative_weights = (-negative_sharpness * among_images).masked_fill(same_image, -math.inf).softmax(-1)
    per_pair = (negative_weights * among_images).sum(-1).mean(-1)  # (V, V)
    first, second = torch.triu_indices(v, v, offset=1, device=z.device)  # x < y
    repulsion = -beta * per_pair[first, second].mean()
    return AttractionRepulsion(attraction, repulsion, positive_weights, negative_weights)


def cacr(
    views: Tensor,
    *,
    positive_sharpness: float = 1.0,
    negative_sharpness: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """Contrastive attraction plus contrastive repulsion of several views of a batch.

    Args:
        views: ``(V, N, d)`` embeddings of V >= 2 views of N >= 2 images, any scale (normalized here).
        positive_sharpness: t+ >= 0; 0 averages the positives, large values look at the farthest only.
        negative_sharpness: t- >= 0; 0 averages the negatives, large values look at the closest only. The weights are
            InfoNCE's at temperature 1 / (2 t-).
        alpha: scale of the attraction.
        beta: scale of the repulsion.

    Returns:
        Scalar; 0 for a collapsed batch.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not three-dimensional, a single view or image, NaN, negative sharpness, scale not positive.

    Source: Zheng et al. (2023), CACR; small-scale form of the released code.
    """
    terms = cacr_terms(
        views,
        positive_sharpness=positive_sharpness,
        negative_sharpness=negative_sharpness,
        alpha=alpha,
        beta=beta,
    )
    return terms.attraction + terms.repulsion


def cacr_momentum(queries: Tensor, key: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    r"""The ImageNet variant: several query views share one momentum key, the farthest view weighs most.

    .. math::
        p_{v,i} = \mathrm{softmax}_v\big(\lVert q_i^{(v)}-k_i\rVert^2/T\big), \qquad
        L = 2T \sum_v \frac1N \sum_i p_{v,i}\,\ell_{\mathrm{InfoNCE}}\big(q_i^{(v)}, k; T\big)

    With one query view it is 2T times InfoNCE.

    Args:
        queries: ``(V, N, d)`` query views, any scale (normalized here).
        key: ``(N, d)`` momentum embeddings of another view; detached here, as are the weights.
        temperature: T > 0.

    Returns:
        The scalar loss and the ``(N, V)`` weights p.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, fewer than two images, NaN, temperature not positive.

    Source: Zheng et al. (2023), released ImageNet code, cost ``rbf``.
    """
    check_embeddings(ndim=3, queries=queries)
    check_embeddings(key=key)
    check_same_shape(**{"queries[0]": queries[0]}, key=key)
    check_positive(temperature=temperature)
    key = key.detach()
    cost = (normalize(queries.detach()) - normalize(key)).square().sum(-1)  # (V, N)
    weights = (cost / temperature).softmax(0)
    losses = torch.stack([info_nce(q, key, temperature=temperature, reduction="none") for q in queries])  # (V, N)
    return 2 * temperature * (weights * losses).sum(0).mean(), weights.mT
