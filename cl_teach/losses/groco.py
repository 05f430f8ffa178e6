r"""Learning by Sorting: Self-supervised Learning with Group Ordering Constraints. Nina Shvetsova, Felix Petersen, Anna
Kukleva, Bernt Schiele, Hilde Kuehne; ICCV 2023; https://arxiv.org/abs/2301.02009.

An anchor's m positives should rank above its k hardest negatives. The similarities x, negatives first and each group in
ascending order, pass through an odd-even sorting network whose comparators are soft: neighbors :math:`a, a+1` become

.. math::
    x_a' = \alpha x_a + (1-\alpha) x_{a+1}, \quad x_{a+1}' = (1-\alpha) x_a + \alpha x_{a+1}, \qquad
    \alpha = \tfrac1\pi\arctan\big(\beta(x_{a+1}-x_a)\big) + \tfrac12 .

The same mixing of columns turns the identity into a doubly stochastic P, where :math:`P_{rc}` is the probability that
input r ends at rank c. Only the group of a rank matters:

.. math::
    \pi_r = \sum_{c\ge k} P_{rc}, \qquad
    L_i = -\frac1n\sum_r \big[y_r\log\pi_r + (1-y_r)\log(1-\pi_r)\big], \quad y_r = [r\ge k],\ n = k+m .

What changes and why: no softmax over pairs. The network compares neighbors, so the force gathers at the border between
the groups, on weak positives and strong negatives.

Paper versus code. (1) Negatives come from the anchor's own view only and are constants, as are the positives
(``stop_gradient``). (2) The order is found on values, so the gradient flows through what was selected, not through
the selection. (3) The code averages two equal cross-entropies; this is their common value. (4) With steepness 1 and
cosines :math:`\alpha\le0.85`, so the loss has a floor well above 0: 0.147 for k = 10, one positive at 1 and negatives
at -1. (5) In multi-crop only the first views serve as positives, all views are anchors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import check_batch, check_count, check_flag, check_positive, check_shapes
from ..core.precision import full_precision
from ..core.similarity import normalize

__all__ = ["GroupOrder", "group_order", "groco", "soft_sort"]

# That look for their nearest negatives at a time: no table of all pairs is kept.
ANCHORS = 256


class GroupOrder(NamedTuple):
    """One view's anchors with what the sorting network sees and says.

    Attributes:
        loss: ``(N,)`` loss of each anchor.
        scores: ``(N, n)`` similarities in the order of the network: k negatives, then m positives, each ascending.
        positive_rank: ``(N, n)`` probability that each of them ends among the top m ranks.
    """

    loss: Tensor
    scores: Tensor
    positive_rank: Tensor


@full_precision
def soft_sort(x: Tensor, steepness: float = 1.0) -> tuple[Tensor, Tensor]:
    """Differentiable odd-even transposition sort in n layers, ascending.

    Args:
        x: ``(..., n)``.
        steepness: of the comparators; the larger, the closer to a hard sort.

    Returns:
        ``(..., n)`` relaxed sorted values and the ``(..., n, n)`` doubly stochastic matrix P with ``sorted = x @ P``.

    Source: Petersen et al., Differentiable Sorting Networks (2021), with the Cauchy relaxation (2022).

    Example:
        >>> values, P = soft_sort(torch.tensor([3.0, 1.0, 2.0]), steepness=1e6)
        >>> [round(v, 3) for v in values.tolist()]
        [1.0, 2.0, 3.0]
    """
    check_shapes(x=(x, "... n"))
    check_positive(steepness=steepness)
    n = x.shape[-1]
    eye = torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape, n)
    wires = torch.cat([x[..., None], eye], -1).movedim(-2, 0)  # (n, ..., 1 + n): each carries a value and a column of P
    for first in _first_wires(n):
        wires = _exchange(wires, first, _keep(wires[..., :1], first, steepness))
    return wires[..., 0].movedim(0, -1), wires[..., 1:].movedim(0, -1)


def _first_wires(n: int) -> list[int]:
    """Of the layers: they begin with wire 0 and 1 in turn."""
    return [layer % 2 for layer in range(n)]


def _keep(x: Tensor, first: int, steepness: float) -> Tensor:
    """The share of itself that each pair of neighbors keeps, 1/2 + arctan(steepness * (right - left)) / pi."""
    left, right = _neighbors(x, first)
    return torch.arctan(steepness * (right - left)) / math.pi + 0.5


def _neighbors(x: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Left and right wires ``(pairs, ...)`` from the first wire on; an unpaired wire at either end is in none."""
    stop = first + (len(x) - first) // 2 * 2
    return x[first:stop:2], x[first + 1 : stop : 2]


def _exchange(x: Tensor, first: int, keep: Tensor) -> Tensor:
    """Mix neighboring wires of ``(n, ...)``: each keeps its share ``keep`` and takes the rest from the other."""
    left, right = _neighbors(x, first)
    moved = keep * (left - right)
    mixed = torch.stack([right + moved, left - moved], 1).flatten(0, 1)
    return torch.cat([x[:first], mixed, x[first + len(mixed) :]])


@full_precision
def group_order(
    anchors: Tensor, positives: Tensor, negatives: Tensor, *, top_negatives: int = 10, steepness: float = 1.0
) -> GroupOrder:
    """Order one view's anchors; see `GroupOrder`.

    Args:
        anchors: ``(N, d)``, any scale (normalized here).
        positives: ``(m, N, d)``, the positive views; row i belongs to anchor i.
        negatives: ``(N, d)``, one embedding an image; an anchor's own row is left out.
        top_negatives: k, between 1 and N - 1.
        steepness: of the comparators.
    """
    check_shapes(anchors=(anchors, "N d"), positives=(positives, "m N d"), negatives=(negatives, "N d"))
    check_count(top_negatives=top_negatives)
    check_positive(steepness=steepness)
    check_batch(len(anchors), top_negatives + 1, name="anchors", why=f"for top_negatives={top_negatives}")
    z = normalize(anchors)
    near = (z * normalize(positives)).sum(-1).mT.sort(-1).values  # (N, m)
    others = normalize(negatives)
    hardest = _nearest(z.detach(), others.detach(), top_negatives)  # (N, k), ascending
    far = (others[hardest] @ z[..., None]).squeeze(-1)
    scores = torch.cat([far, near], dim=1)  # (N, n)

    target = torch.zeros_like(scores)
    target[:, top_negatives:] = 1
    positive_rank = _permute(target.mT, scores.mT, steepness).mT.clamp(0, 1)  # P times the target, (N, n)
    # PyTorch's binary cross-entropy holds each logarithm above -100
    loss = F.binary_cross_entropy(positive_rank, target, reduction="none").mean(1)
    return GroupOrder(loss, scores, positive_rank)


def _permute(y: Tensor, x: Tensor, steepness: float) -> Tensor:
    """The product of the P of `soft_sort` of x with y, ``(n, N)`` both.

    The layers are symmetric: the last one comes first, and P itself is not needed.
    """
    layers = []
    for first in _first_wires(len(x)):
        keep = _keep(x, first, steepness)
        x = _exchange(x, first, keep)
        layers.append((first, keep))
    for first, keep in reversed(layers):
        y = _exchange(y, first, keep)
    return y


def _nearest(anchors: Tensor, others: Tensor, count: int) -> Tensor:
    """Which rows of other samples are most similar to each anchor, ``(N, count)``; some anchors at a time."""
    found = []
    for rows in torch.arange(len(anchors), device=anchors.device).split(ANCHORS):
        similarity = anchors[rows] @ others.mT
        similarity[rows - rows[0], rows] = -math.inf
        found.append(similarity.topk(count, dim=1).indices.flip(1))
    return torch.cat(found)


@full_precision
def groco(
    views: Tensor,
    *,
    top_negatives: int = 10,
    steepness: float = 1.0,
    positive_views: int | None = None,
    stop_gradient: bool = True,
) -> Tensor:
    """Group ordering constraints over several views, one loss an anchor view.

    Args:
        views: ``(V, N, d)``, any scale (normalized here).
        top_negatives: k hardest negatives of each anchor, from its own view.
        steepness: of the comparators.
        positive_views: only the first so many views, at least two, serve as positives; None means all V.
        stop_gradient: whether positives and negatives are constants.

    Returns:
        ``(V,)`` mean loss of the anchors of each view; the loss to minimize is their mean.

    Source: Shvetsova et al. (2023), released loss.
    """
    v, n, _ = check_shapes(views=(views, "V N d")).values()
    check_count(top_negatives=top_negatives)
    check_flag(stop_gradient=stop_gradient)
    check_batch(v, 2, name="views", why="to have a positive")
    check_batch(n, top_negatives + 1, name="views[0]", why=f"for top_negatives={top_negatives}")
    count = v if positive_views is None else positive_views
    check_count(2, v, positive_views=count)
    targets = views.detach() if stop_gradient else views
    losses = []
    for a in range(v):  # a handful of views, each with its own set of positives
        others = targets[[b for b in range(count) if b != a]]
        order = group_order(views[a], others, targets[a], top_negatives=top_negatives, steepness=steepness)
        losses.append(order.loss.mean())
    return torch.stack(losses)
