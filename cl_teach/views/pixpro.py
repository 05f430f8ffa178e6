r"""Propagate Yourself: Exploring Pixel-Level Consistency for Unsupervised Visual Representation Learning. Zhenda Xie,
Yutong Lin, Zheng Zhang, Yue Cao, Stephen Lin, Han Hu; CVPR 2021; https://arxiv.org/abs/2011.10043.

Two crops of an image overlap. A cell i of the first feature map and a cell j of the second are a positive pair,
:math:`A_{ij} = 1`, if their centers lie close in the *original* image. PixContrast is a softmax over cells, PixPro
predicts without negatives:

.. math::
    \ell(i) = -\log\frac{\sum_{j:A_{ij}=1} e^{\cos(x_i,k_j)/\tau}}{\sum_j e^{\cos(x_i,k_j)/\tau}}, \qquad
    L = -\frac2N\sum_n \frac{\sum_{ij} A_{ij}\cos(y_i,k_j)}{\sum_{ij}A_{ij}} + (1\leftrightarrow2),

where k comes from a momentum encoder and y is the propagated map: each cell becomes a mean of the transformed cells of
its own view, weighted by similarity, :math:`y_i \propto \sum_j \max(\cos(x_i,x_j),0)^\gamma\,\hat g(x_j)`.

What changes and why: a loss on pooled embeddings does not care where something is, but detection and segmentation do.
Contrasting cells makes features sensitive to place; propagation adds smoothness, because a cell is compared as a
mixture of the cells that look like it.

Paper versus code. (1) The released loss carries the factor 2 and sums the directions; the factor only scales. (2) g is
normalized before mixing in the code, and so here. (3) The test is strict, distance < T, in units of the larger cell
diagonal of both views. (4) Boxes have width and height 1 for the whole image, so in an image that is not square the
distance is anisotropic. (5) PixContrast is not in the release; its temperature of 0.3 comes from a third-party
implementation. (6) Images without overlap count as 0 and stay in the mean, in both losses. (7) For
:math:`\gamma < 1` a 1e-6 is added under the power, as released: the slope at 0 would be infinite. (8) The release moves
the teacher before each step; here it moves after each, which is the same. (9) The release has an optional loss on
pooled maps, off by default; it is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_callable,
    check_choice,
    check_count,
    check_in_range,
    check_module,
    check_positive,
    check_shapes,
)
from ..core.contrast import check_temperature
from ..core.crop_geometry import crop, draw_boxes, positive_cells
from ..core.precision import full_precision
from ..core.similarity import normalize
from ..core.teacher import MomentumTeacher
from ..models.apply import apply_network

__all__ = [
    "PixPro",
    "PixelPropagation",
    "momentum_at",
    "pix_contrast",
    "pixpro",
    "propagate_cells",
]

EPS = 1e-6  # the release adds it to the number of positives, and under a power below 1


@full_precision
def propagate_cells(x: Tensor, transformed: Tensor, *, gamma: float = 2.0, clamp: float = 0.0) -> Tensor:
    r"""Replace each cell by a mixture of the cells of its own map: :math:`y_i \propto \sum_j s_{ij}\hat g_j`.

    The weight is :math:`s_{ij} = \max(\cos(x_i, x_j), c)^\gamma`. A large exponent leaves each cell by itself, 0 gives
    all cells one value. The weights are not divided by their sum: y is normalized.

    Args:
        x: ``(N, C, H, W)`` projections, any scale.
        transformed: ``(N, D, H, W)``, g(x).
        gamma: sharpness, at least 0.
        clamp: c in [0, 1], the smallest similarity.

    Returns:
        ``(N, D, H, W)`` with unit cells.

    Source: Xie et al. (2021), section 3.3; released ``PixPro.py``.
    """
    check_shapes(x=(x, "n c h w"), transformed=(transformed, "n d h w"))
    check_in_range(0, math.inf, gamma=gamma)
    check_in_range(0, 1, clamp=clamp)
    cells = normalize(_cells(x))  # (N, P, C)
    similarity = (cells @ cells.mT).clamp(clamp, 1)  # (N, P, P); rounding can lift a cosine above 1
    if gamma < 1:
        similarity = similarity + EPS
    y = normalize(similarity**gamma @ normalize(_cells(transformed)))  # (N, P, D)
    return y.mT.unflatten(2, x.shape[2:])


@full_precision
def pixpro(y1: Tensor, y2: Tensor, k1: Tensor, k2: Tensor, positives: Tensor) -> Tensor:
    """PixPro: cells of the propagated map predict the momentum encoder's cells at the same place.

    Args:
        y1: ``(N, C, H, W)`` propagated map of the first view, see `propagate_cells`.
        y2: the same of the second view.
        k1: momentum projections of the first view, any scale; detached here.
        k2: the same of the second view.
        positives: ``(N, P, P)`` boolean, from `positive_cells`.

    Returns:
        Scalar in [-4, 4].

    Source: Xie et al. (2021), equation 4; released loss.
    """
    check_shapes(y1=(y1, "n c h w"), y2=(y2, "n c h w"), k1=(k1, "n c h w"), k2=(k2, "n c h w"))
    _check_positives(positives, y1)
    return -2 * (_mean_cosine(y1, k2, positives) + _mean_cosine(y2, k1, positives.mT)).mean()


@full_precision
def pix_contrast(x1: Tensor, x2: Tensor, k1: Tensor, k2: Tensor, positives: Tensor, temperature: float = 0.3) -> Tensor:
    """PixContrast: each cell looks for the cells at its place among all cells of the other view.

    ``x1`` and ``x2`` are the projections ``(N, C, H, W)`` at any scale, without propagation; the other tensors and the
    result (a scalar, at least 0) are as in `pixpro`, and ``temperature`` must be positive.

    Source: Xie et al. (2021), equation 2.
    """
    check_shapes(x1=(x1, "n c h w"), x2=(x2, "n c h w"), k1=(k1, "n c h w"), k2=(k2, "n c h w"))
    _check_positives(positives, x1)
    check_temperature(temperature)
    both = _cell_contrast(x1, k2, positives, temperature) + _cell_contrast(x2, k1, positives.mT, temperature)
    return both.mean() / 2


def momentum_at(step: int, total: int, start: float = 0.99) -> float:
    """Momentum of the teacher at a step of ``total``, rising along a cosine from ``start`` to 1."""
    check_count(total=total)
    check_count(0, total, step=step)
    check_in_range(0, 1, start=start)
    return 1 - (1 - start) * (math.cos(math.pi * step / total) + 1) / 2


class PixelPropagation(nn.Module):
    """`propagate_cells` with its learned transform: a 1x1 convolution, or the identity with ``layers=0``."""

    def __init__(self, channels: int, *, layers: int = 1, gamma: float = 2.0, clamp: float = 0.0) -> None:
        """Make the transform of ``channels`` channels; `gamma` and `clamp` as in `propagate_cells`."""
        super().__init__()
        check_count(channels=channels)
        check_count(0, 1, layers=layers)
        check_in_range(0, math.inf, gamma=gamma)
        check_in_range(0, 1, clamp=clamp)
        self.channels, self.gamma, self.clamp = channels, gamma, clamp
        self.transform: nn.Module = nn.Conv2d(channels, channels, 1) if layers else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Smooth ``(N, C, H, W)``; the cells of the result have length one."""
        check_shapes(x=(x, f"n {self.channels} h w"))
        return propagate_cells(x, apply_network(self.transform, "n c h w", x=x), gamma=self.gamma, clamp=self.clamp)


class PixPro(nn.Module):
    """An encoder of maps with its projector, its momentum copy and, for PixPro, the propagation.

    The propagation stands on the online branch only and is thrown away after training, as the projector is.

    Example:
        >>> model = PixPro(nn.Conv2d(3, 8, 3, 4, 1), 8, dim=4, hidden=6)  # train with `after_step` after each step
        >>> images = torch.rand(5, 3, 32, 32)
        >>> bool(-4 <= model.loss(images) <= 4), model(images).shape
        (True, torch.Size([5, 8, 8, 8]))
    """

    steps: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        *,
        dim: int = 32,
        hidden: int = 64,
        objective: str = "pixpro",
        threshold: float = 0.7,
        gamma: float = 2.0,
        temperature: float = 0.3,
        scale: tuple[float, float] = (0.3, 1.0),
        momentum: float = 0.99,
        total_steps: int | None = None,
        augment: Callable[..., Tensor] | None = None,
    ) -> None:
        """Put projector, propagation and teacher around an encoder.

        Args:
            encoder: images ``(N, c, h, w)`` to maps ``(N, channels, H, W)``.
            channels: of the encoder's map.
            dim: of the projections.
            hidden: width of the projector.
            objective: ``"pixpro"``, ``"plain"`` (PixPro without propagation) or ``"contrast"``.
            threshold: see `positive_cells`.
            gamma: see `propagate_cells`.
            temperature: of ``"contrast"``.
            scale: range of the area of a crop, see `draw_boxes`; the paper starts at 0.08 of large pictures.
            momentum: of the teacher at the start.
            total_steps: after which the momentum has risen to 1, see `momentum_at`; None keeps it as it is.
            augment: changes color or noise of the crops and must not move pixels; called as
                ``augment(crops, generator=generator)``.
        """
        super().__init__()
        check_module(encoder=encoder)
        check_count(channels=channels, dim=dim, hidden=hidden)
        check_choice(("pixpro", "plain", "contrast"), objective=objective)
        check_positive(threshold=threshold)
        check_temperature(temperature)
        draw_boxes(1, scale, generator=torch.Generator())  # checks the scale
        if total_steps is not None:
            check_count(total_steps=total_steps)
        if augment is not None:
            check_callable(augment=augment)
        projector = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, dim, 1)
        )
        self.online = nn.Sequential(encoder, projector)
        self.propagation = PixelPropagation(dim, gamma=gamma) if objective == "pixpro" else nn.Identity()
        self.teacher = MomentumTeacher(self.online, momentum)
        self.objective, self.threshold, self.temperature, self.scale = objective, threshold, temperature, scale
        self.start, self.total_steps, self.augment = momentum, total_steps, augment
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        """The encoder's maps of ``(N, c, h, w)`` images, which are kept after training."""
        check_shapes(images=(images, "n c h w"))
        return apply_network(self.online[0], "n c h w", images=images)

    def loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Two crops of each of ``(N, c, h, w)`` images are drawn and compared; scalar."""
        check_shapes(images=(images, "n c h w"))
        boxes = [draw_boxes(len(images), self.scale, generator=generator).to(images.device) for _ in range(2)]
        views = [crop(images, b, images.shape[2], images.shape[3]) for b in boxes]
        if self.augment is not None:
            views = [self.augment(v, generator=generator) for v in views]
        return self.compare(*views, *boxes)

    def compare(self, view1: Tensor, view2: Tensor, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """Loss of two crops ``(N, c, h, w)`` of the same images, cut at ``boxes1`` and ``boxes2``, ``(N, 4)``; scalar.

        The teacher follows the mode of the model, as in the release: its normalization sees batches, too.
        """
        check_shapes(view1=(view1, "n c h w"), view2=(view2, "n c h w"), boxes1=(boxes1, "n 4"), boxes2=(boxes2, "n 4"))
        x1, x2 = (apply_network(self.online, "n c h w", **x) for x in ({"view1": view1}, {"view2": view2}))
        with torch.no_grad():
            k1, k2 = (apply_network(self.teacher.network, "n c h w", **x) for x in ({"view1": view1}, {"view2": view2}))
        positives = positive_cells(boxes1, boxes2, x1.shape[2], x1.shape[3], self.threshold)
        if self.objective == "contrast":
            return pix_contrast(x1, x2, k1, k2, positives, self.temperature)
        return pixpro(self.propagation(x1), self.propagation(x2), k1, k2, positives)

    def after_step(self) -> None:
        """Move the teacher toward the student, the less the later."""
        if self.total_steps is not None:
            step = min(int(self.steps) + 1, self.total_steps)  # the next one: it sees the teacher that moves now
            self.teacher.momentum = momentum_at(step, self.total_steps, self.start)
        self.teacher.update(self.online)
        self.steps += 1


def _cells(maps: Tensor) -> Tensor:
    return maps.flatten(2).mT  # (N, P, C)


def _cosines(x: Tensor, k: Tensor) -> Tensor:
    return normalize(_cells(x)) @ normalize(_cells(k.detach())).mT  # (N, P, P)


def _mean_cosine(y: Tensor, k: Tensor, positives: Tensor) -> Tensor:
    mask = positives.to(y.dtype)
    return (mask * _cosines(y, k)).sum((1, 2)) / (mask.sum((1, 2)) + EPS)  # (N,)


def _cell_contrast(x: Tensor, k: Tensor, positives: Tensor, temperature: float) -> Tensor:
    logits = _cosines(x, k) / temperature
    matched = positives.any(2)  # (N, P)
    # Where nothing matches, let everything match: the loss of that cell is then exactly 0, and so is its gradient.
    kept = logits.masked_fill(~(positives | ~matched[:, :, None]), -math.inf)
    loss = logits.logsumexp(2) - kept.logsumexp(2)  # (N, P)
    return loss.sum(1) / matched.sum(1).clamp_min(1)  # (N,)


def _check_positives(positives: Tensor, maps: Tensor) -> None:
    n, _, height, width = maps.shape
    p = height * width
    check_shapes(maps=(maps[:, 0, 0, 0], "n"), positives=(positives, f"{n} {p} {p}", bool))
