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
(`cacr_momentum`) detaches its weights. (5) With a queue (`cacr_moco`) the large-scale code puts queue and batch into
one softmax, and lets the gradient flow through the batch's part of the weights only; followed here. (6) The code's
debiased option has the wrong sign and scale and is left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_batch,
    check_flag,
    check_in_range,
    check_positive,
    check_same_width,
    check_shapes,
    finite_result,
)
from ..core.contrast import check_temperature, info_nce
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask

__all__ = [
    "AttractionRepulsion",
    "MomentumAttraction",
    "cacr",
    "cacr_moco",
    "cacr_momentum",
    "cacr_terms",
    "squared_distance",
]


class AttractionRepulsion(NamedTuple):
    """The loss, its two terms and their conditional weights.

    Attributes:
        loss: scalar, the sum of the two terms.
        attraction: scalar in [0, 4 alpha].
        repulsion: scalar in [-4 beta, 0].
        positive_weights: ``(V, N, V)``, weight of view m for query view x; 0 where m = x.
        negative_weights: ``(V, V, N, N)``, weight of image j in view y for image i in view x; 0 where j = i.
    """

    loss: Tensor
    attraction: Tensor
    repulsion: Tensor
    positive_weights: Tensor
    negative_weights: Tensor


class MomentumAttraction(NamedTuple):
    """The loss of the ImageNet variant and the weights of its queries.

    Attributes:
        loss: scalar.
        weights: ``(N, V)``, how much each query view counts for its key.
    """

    loss: Tensor
    weights: Tensor


@full_precision
def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of unit vectors, ``(..., n, d)`` and ``(..., m, d)`` to ``(..., n, m)`` in [0, 4].

    From the inner product, because the root inside a norm has no gradient at 0.
    """
    check_shapes(a=(a, "... n d"), b=(b, "... m d"))
    check_same_width(a=a, b=b)
    try:
        torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except RuntimeError as error:
        came = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"a, b: expected leading dimensions that can be broadcast, got {came}") from error
    return (2 - 2 * finite_result(a @ b.mT, a=a, b=b)).clamp_min(0)


@full_precision
def cacr_terms(
    views: Tensor,
    *,
    positive_sharpness: float = 1.0,
    negative_sharpness: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> AttractionRepulsion:
    """Attraction and repulsion with their weights; arguments as in `cacr`."""
    v, n, _ = check_shapes(views=(views, "V N d")).values()
    check_in_range(0, math.inf, positive_sharpness=positive_sharpness, negative_sharpness=negative_sharpness)
    check_positive(alpha=alpha, beta=beta)
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
    return AttractionRepulsion(attraction + repulsion, attraction, repulsion, positive_weights, negative_weights)


@full_precision
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

    Source: Zheng et al. (2023), CACR; small-scale form of the released code.

    Example:
        >>> cacr(torch.eye(3).repeat(2, 1, 1)).item()  # two equal views of three orthogonal images
        -2.0
    """
    settings = {"positive_sharpness": positive_sharpness, "negative_sharpness": negative_sharpness}
    return cacr_terms(views, **settings, alpha=alpha, beta=beta).loss


@full_precision
def cacr_moco(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    positive_sharpness: float = 1.0,
    negative_sharpness: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    in_batch: bool = True,
) -> Tensor:
    r"""CACR with momentum keys and a queue: attracted by the keys of the other views, repelled by the queue and by the
    other images of the own view, all in one softmax.

    Args:
        queries: ``(V, N, d)`` embeddings of V >= 2 views, any scale (normalized here).
        keys: ``(V, N, d)`` momentum embeddings of the same views; detached here.
        queue: ``(K, d)`` earlier keys; detached here.
        positive_sharpness: t+, as in `cacr`; these weights are constants for the gradient.
        negative_sharpness: t-, as in `cacr`.
        alpha: scale of the attraction.
        beta: scale of the repulsion.
        in_batch: whether the other images of the own view are negatives too.

    Returns:
        Scalar.

    Source: Zheng et al. (2023), released large-scale code.
    """
    v, n, _, _ = check_shapes(queries=(queries, "V N d"), keys=(keys, "V N d"), queue=(queue, "K d")).values()
    check_in_range(0, math.inf, positive_sharpness=positive_sharpness, negative_sharpness=negative_sharpness)
    check_positive(alpha=alpha, beta=beta)
    check_flag(in_batch=in_batch)
    check_batch(v, 2, name="queries, keys", why="(views of each image) to have a positive")
    q, k, memory = normalize(queries), normalize(keys.detach()), normalize(queue.detach())

    among_views = squared_distance(q.transpose(0, 1), k.transpose(0, 1)).transpose(0, 1)  # (V, N, V)
    itself = self_mask(v, q.device)[:, None, :]
    weights = (positive_sharpness * among_views.detach()).masked_fill(itself, -math.inf).softmax(-1)
    attraction = alpha * (weights * among_views).sum(-1).mean()

    cost = squared_distance(q, memory)  # (V, N, K)
    seen = cost.detach()
    if in_batch and n > 1:
        others = squared_distance(q, q)[:, ~self_mask(n, q.device)].view(v, n, n - 1)
        cost, seen = torch.cat([cost, others], -1), torch.cat([seen, others], -1)
    repulsion = -beta * ((-negative_sharpness * seen).softmax(-1) * cost).sum(-1).mean()
    return attraction + repulsion


@full_precision
def cacr_momentum(queries: Tensor, key: Tensor, temperature: float = 1.0) -> MomentumAttraction:
    r"""The ImageNet variant: several query views share one momentum key, the farthest view weighs most.

    .. math::
        p_{v,i} = \mathrm{softmax}_v\big(\lVert q_i^{(v)}-k_i\rVert^2/T\big), \qquad
        L = 2T \sum_v \frac1N \sum_i p_{v,i}\,\ell_{\mathrm{InfoNCE}}\big(q_i^{(v)}, k; T\big)

    With one query view it is 2T times InfoNCE.

    Args:
        queries: ``(V, N, d)`` query views, any scale (normalized here).
        key: ``(N, d)`` momentum embeddings of another view; detached here, as are the weights.
        temperature: T > 0.

    Source: Zheng et al. (2023), released ImageNet code, cost ``rbf``.
    """
    sizes = check_shapes(queries=(queries, "V N d"), key=(key, "N d"))
    check_temperature(temperature)
    check_batch(sizes["N"], 2, name="queries, key", why="to have a negative")
    key = key.detach()
    cost = (normalize(queries.detach()) - normalize(key)).square().sum(-1)  # (V, N)
    weights = (cost / temperature).softmax(0)
    losses = torch.stack([info_nce(q, key, temperature=temperature, reduction="none") for q in queries])  # (V, N)
    return MomentumAttraction(2 * temperature * (weights * losses).sum(0).mean(), weights.mT)
