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
:math:`\gamma < 1` a 1e-6 is added under the power, as released: the slope at 0 would be infinite. (8) The release has
an optional loss on pooled maps, off by default; it is left out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_embeddings,
    check_in_range,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.similarity import normalize
from ..core.teacher import MomentumTeacher

__all__ = ["PixPro", "PixelPropagation", "cell_centers", "crop", "draw_boxes", "momentum_at", "pix_contrast", "pixpro"]
__all__ += ["positive_cells", "propagate", "training_step"]


def cell_centers(boxes: Tensor, height: int, width: int) -> Tensor:
    """Where the centers of the cells of a map lie in the original image.

    Args:
        boxes: ``(N, 4)`` crops as (x0, y0, x1, y1); x0 > x1 for a mirrored crop.
        height: rows of the map.
        width: columns of the map.

    Returns:
        ``(N, height * width, 2)`` as (x, y), row by row.

    Raises:
        TypeError: boxes not floating.
        ValueError: shape not (N, 4), a box without area, a size below 1.
    """
    _check_boxes(boxes=boxes)
    check_positive(height=height, width=width)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)  # (N, 1) each
    x = x0 + (torch.arange(width).to(boxes) + 0.5) * (x1 - x0) / width  # (N, W)
    y = y0 + (torch.arange(height).to(boxes) + 0.5) * (y1 - y0) / height  # (N, H)
    return torch.stack([x.repeat(1, height), y.repeat_interleave(width, 1)], 2)


def positive_cells(boxes1: Tensor, boxes2: Tensor, height: int, width: int, threshold: float = 0.7) -> Tensor:
    """Which cells of two crops lie closer than ``threshold``, measured in the larger cell diagonal of both.

    Args:
        boxes1: ``(N, 4)`` crops of the first views, see `cell_centers`.
        boxes2: ``(N, 4)`` crops of the second views.
        height: rows of the maps.
        width: columns of the maps.
        threshold: T > 0, strict.

    Returns:
        ``(N, P, P)`` boolean, P = height * width; row a cell of view 1, column a cell of view 2.

    Raises:
        TypeError: boxes not floating.
        ValueError: shapes do not fit, a box without area, a value not positive.
    """
    _check_boxes(boxes1=boxes1, boxes2=boxes2)
    check_positive(threshold=threshold)
    a, b = cell_centers(boxes1, height, width), cell_centers(boxes2, height, width)  # (N, P, 2)
    distance = torch.linalg.vector_norm(a[:, :, None] - b[:, None], dim=3)  # (N, P, P)
    size = torch.tensor([width, height]).to(boxes1)
    diagonals = [torch.linalg.vector_norm((x[:, 2:] - x[:, :2]) / size, dim=1) for x in (boxes1, boxes2)]
    return distance / torch.maximum(*diagonals)[:, None, None] < threshold


def propagate(x: Tensor, transformed: Tensor, *, gamma: float = 2.0, clamp: float = 0.0) -> Tensor:
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

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, a value out of range.

    Source: Xie et al. (2021), section 3.3; released ``PixPro.py``.
    """
    check_embeddings(ndim=4, x=x, transformed=transformed)
    check_same_shape(**{"x[:, 0]": x[:, 0], "transformed[:, 0]": transformed[:, 0]})
    check_in_range(0, math.inf, gamma=gamma)
    check_in_range(0, 1, clamp=clamp)
    cells = normalize(_cells(x))  # (N, P, C)
    similarity = (cells @ cells.mT).clamp_min(clamp)  # (N, P, P)
    if gamma < 1:
        similarity = similarity + 1e-6
    y = normalize(similarity**gamma @ normalize(_cells(transformed)))  # (N, P, D)
    return y.mT.unflatten(2, x.shape[2:])


def pixpro(y1: Tensor, y2: Tensor, k1: Tensor, k2: Tensor, positives: Tensor) -> Tensor:
    """PixPro: cells of the propagated map predict the momentum encoder's cells at the same place.

    Args:
        y1: ``(N, C, H, W)`` propagated map of the first view, see `propagate`.
        y2: the same of the second view.
        k1: momentum projections of the first view, any scale; detached here.
        k2: the same of the second view.
        positives: ``(N, P, P)`` boolean, from `positive_cells`.

    Returns:
        Scalar in [-4, 4].

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes differ, NaN.

    Source: Xie et al. (2021), equation 4; released loss.
    """
    _check_maps(positives, y1=y1, y2=y2, k1=k1, k2=k2)
    return -2 * (_mean_cosine(y1, k2, positives) + _mean_cosine(y2, k1, positives.mT)).mean()


def pix_contrast(x1: Tensor, x2: Tensor, k1: Tensor, k2: Tensor, positives: Tensor, temperature: float = 0.3) -> Tensor:
    """PixContrast: each cell looks for the cells at its place among all cells of the other view.

    ``x1`` and ``x2`` are the projections ``(N, C, H, W)`` at any scale, without propagation; the other tensors, the
    result (a scalar, at least 0) and the errors are as in `pixpro`, and ``temperature`` must be positive.

    Source: Xie et al. (2021), equation 2.
    """
    _check_maps(positives, x1=x1, x2=x2, k1=k1, k2=k2)
    check_positive(temperature=temperature)
    both = _cell_contrast(x1, k2, positives, temperature) + _cell_contrast(x2, k1, positives.mT, temperature)
    return both.mean() / 2


def draw_boxes(
    n: int, scale: tuple[float, float] = (0.3, 1.0), *, flip: float = 0.5, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``(n, 4)`` crops of random area and place, with the image's proportions; the image is the unit square.

    Args:
        n: how many.
        scale: range of the area.
        flip: probability that a box is mirrored (x0 > x1).
        generator: on the CPU; the global state of torch if None.

    Raises:
        ValueError: a range out of order or out of bounds.
    """
    check_positive(n=n, **{"scale[0]": scale[0]})
    check_in_range(scale[0], 1, **{"scale[1]": scale[1]})
    check_in_range(0, 1, flip=flip)
    u = torch.rand(4, n, generator=generator)
    side = (scale[0] + (scale[1] - scale[0]) * u[0]).sqrt()
    x0, y0 = u[1] * (1 - side), u[2] * (1 - side)
    boxes = torch.stack([x0, y0, x0 + side, y0 + side], 1)
    return torch.where((u[3] < flip)[:, None], boxes[:, [2, 1, 0, 3]], boxes)


def crop(images: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Cut the boxes ``(N, 4)`` of `draw_boxes` out of images and resize them, bilinearly; mirrored where x0 > x1.

    ``(N, C, h, w)`` becomes ``(N, C, height, width)``. Shapes that do not fit, NaN and boxes without area are refused.
    """
    check_embeddings(ndim=4, images=images)
    check_same_length(images=images, boxes=boxes)
    grid = 2 * cell_centers(boxes.to(images), height, width) - 1  # pixels are cells; grid_sample counts from -1 to 1
    return F.grid_sample(images, grid.unflatten(1, (height, width)), padding_mode="border", align_corners=False)


def momentum_at(step: int, total: int, start: float = 0.99) -> float:
    """Momentum of the teacher at a step of ``total``, rising along a cosine from ``start`` to 1; checks its ranges."""
    check_positive(total=total)
    check_in_range(0, total, step=step)
    check_in_range(0, 1, start=start)
    return 1 - (1 - start) * (math.cos(math.pi * step / total) + 1) / 2


class PixelPropagation(nn.Module):
    """`propagate` with its learned transform: a 1x1 convolution, or the identity with ``layers=0``."""

    def __init__(self, channels: int, *, layers: int = 1, gamma: float = 2.0, clamp: float = 0.0) -> None:
        """Make the transform of ``channels`` channels; `gamma` and `clamp` as in `propagate`."""
        super().__init__()
        check_choice(("0", "1"), layers=str(layers))
        self.gamma, self.clamp = gamma, clamp
        self.transform: nn.Module = nn.Conv2d(channels, channels, 1) if layers else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Smooth ``(N, C, H, W)``; the cells of the result have length one."""
        return propagate(x, self.transform(x), gamma=self.gamma, clamp=self.clamp)


class PixPro(nn.Module):
    """An encoder of maps with its projector, its momentum copy and, for PixPro, the propagation.

    The propagation stands on the online branch only and is thrown away after training, as the projector is.
    """

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
        momentum: float = 0.99,
    ) -> None:
        """Put projector, propagation and teacher around an encoder.

        Args:
            encoder: images ``(N, c, h, w)`` to maps ``(N, channels, H, W)``.
            channels: of the encoder's map.
            dim: of the projections.
            hidden: width of the projector.
            objective: ``"pixpro"``, ``"plain"`` (PixPro without propagation) or ``"contrast"``.
            threshold: see `positive_cells`.
            gamma: see `propagate`.
            temperature: of ``"contrast"``.
            momentum: of the teacher at the start.
        """
        super().__init__()
        check_choice(("pixpro", "plain", "contrast"), objective=objective)
        check_positive(threshold=threshold, temperature=temperature)
        projector = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, dim, 1)
        )
        self.encoder = encoder
        self.online = nn.Sequential(encoder, projector)
        self.propagation = PixelPropagation(dim, gamma=gamma) if objective == "pixpro" else nn.Identity()
        self.teacher = MomentumTeacher(self.online, momentum)
        self.objective, self.threshold, self.temperature, self.start = objective, threshold, temperature, momentum

    def forward(self, views1: Tensor, views2: Tensor, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """Loss of two crops ``(N, c, h, w)`` of the same images, cut at ``boxes1`` and ``boxes2``, ``(N, 4)``."""
        x1, x2 = self.online(views1), self.online(views2)
        k1, k2 = self.teacher(views1), self.teacher(views2)
        positives = positive_cells(boxes1, boxes2, x1.shape[2], x1.shape[3], self.threshold)
        if self.objective == "contrast":
            return pix_contrast(x1, x2, k1, k2, positives, self.temperature)
        return pixpro(self.propagation(x1), self.propagation(x2), k1, k2, positives)


def training_step(
    model: PixPro,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    step: int,
    total: int,
    *,
    augment: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """One step: draw two crops of each image, move the teacher *before* it is asked, then the student.

    ``images`` are ``(N, c, h, w)``, ``step`` of ``total`` sets the momentum, ``augment`` changes color or noise of the
    crops and must not move pixels, ``generator`` draws the crops. Returns the loss.
    """
    boxes = [draw_boxes(len(images), generator=generator).to(images) for _ in range(2)]
    views = [crop(images, b, images.shape[2], images.shape[3]) for b in boxes]
    if augment is not None:
        views = [augment(v) for v in views]
    model.teacher.momentum = momentum_at(step, total, model.start)
    model.teacher.update(model.online)
    loss = model(*views, *boxes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _cells(maps: Tensor) -> Tensor:
    return maps.flatten(2).mT  # (N, P, C)


def _cosines(x: Tensor, k: Tensor) -> Tensor:
    return normalize(_cells(x)) @ normalize(_cells(k.detach())).mT  # (N, P, P)


def _mean_cosine(y: Tensor, k: Tensor, positives: Tensor) -> Tensor:
    mask = positives.to(y.dtype)
    return (mask * _cosines(y, k)).sum((1, 2)) / (mask.sum((1, 2)) + 1e-6)  # (N,)


def _cell_contrast(x: Tensor, k: Tensor, positives: Tensor, temperature: float) -> Tensor:
    logits = _cosines(x, k) / temperature
    matched = positives.any(2)  # (N, P)
    # Where nothing matches, let everything match: the loss of that cell is then exactly 0, and so is its gradient.
    kept = logits.masked_fill(~(positives | ~matched[:, :, None]), -math.inf)
    loss = logits.logsumexp(2) - kept.logsumexp(2)  # (N, P)
    return loss.sum(1) / matched.sum(1).clamp_min(1)  # (N,)


def _check_maps(positives: Tensor, **maps: Tensor) -> None:
    check_embeddings(ndim=4, **maps)
    check_same_shape(**maps)
    n, _, height, width = maps["k1"].shape
    check_mask(positives, (n, height * width, height * width), name="positives")


def _check_boxes(**boxes: Tensor) -> None:
    check_embeddings(ndim=2, **boxes)
    check_same_shape(**boxes)
    for name, x in boxes.items():
        if x.shape[1] != 4:
            raise ValueError(f"{name}: expected shape (N, 4), one (x0, y0, x1, y1) a row, got {tuple(x.shape)}")
        if not torch.compiler.is_compiling() and (x[:, :2] == x[:, 2:]).any():
            raise ValueError(f"{name}: expected boxes with an area, got one with x0 = x1 or y0 = y1")
