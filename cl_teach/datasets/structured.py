"""Labels with structure: numbers behind curves and turned pictures, and classes made of clusters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_count,
    check_generator,
    check_in_range,
    check_numbers,
    check_positive,
    check_shapes,
)
from .digits import digits

__all__ = ["NestedBlobs", "TurnedDigits", "curve_points", "nested_blobs", "turn", "turned_digits"]

UPRIGHT = (2, 3, 4, 5, 7)  # digits that show how they are turned
CENTERS = 2.0  # deviation of the centers of blobs
FREQUENCIES = 6  # of the sinusoids of a curve
LARGEST = 1e6


class NestedBlobs(NamedTuple):
    """``points (n, d)``, their ``classes (n,)``, and the ``blobs (n,)`` of which the classes are made."""

    points: Tensor
    classes: Tensor
    blobs: Tensor


def nested_blobs(
    blobs: tuple[int, ...] = (6, 3, 1, 1), each: int = 30, dim: int = 10, *, spread: float = 0.6, seed: int = 0
) -> NestedBlobs:
    """Classes made of several Gaussian clusters: a frequent class is frequent because it has many kinds of things.

    Args:
        blobs: clusters of each class.
        each: points of a cluster.
        dim: d.
        spread: deviation inside a cluster; the centers have deviation 2.
        seed: of centers and points.

    Example:
        >>> nested_blobs().classes.bincount().tolist()
        [180, 90, 30, 30]
    """
    sizes = check_numbers("blobs", blobs)
    check_count(**{f"blobs[{i}]": size for i, size in enumerate(blobs)})
    check_count(each=each, dim=dim)
    check_in_range(0, LARGEST, spread=spread)
    check_count(0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(int(sizes.sum())).repeat_interleave(each)
    centers = CENTERS * torch.randn(int(sizes.sum()), dim, generator=generator)
    points = centers[kind] + spread * torch.randn(len(kind), dim, generator=generator)
    classes = torch.arange(len(sizes)).repeat_interleave(sizes.long() * each)
    return NestedBlobs(points, classes, kind)


def curve_points(
    labels: Tensor, dim: int = 24, *, nuisance: int = 4, seed: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Points along a bent curve, with directions that say nothing: the tanh of a random map of sinusoids and noise.

    Args:
        labels: ``(n,)`` numbers y, at most a million in size; one unit is a small step on the curve.
        dim: of the points.
        nuisance: number of standard normal directions beside the curve.
        seed: of the curve; equal seeds give the same curve.
        generator: of the nuisance.

    Returns:
        ``(n, dim)``.
    """
    check_shapes(labels=(labels, "n"))
    check_in_range(
        -LARGEST, LARGEST, **{"labels (their smallest)": labels.min(), "labels (their largest)": labels.max()}
    )
    check_count(dim=dim)
    check_count(0, nuisance=nuisance, seed=seed)
    check_generator(generator)
    world = torch.Generator().manual_seed(seed)
    rate = 0.2 + 0.8 * torch.rand(FREQUENCIES, generator=world)
    shift = 2 * math.pi * torch.rand(FREQUENCIES, generator=world)
    matrix = torch.randn(FREQUENCIES + nuisance, dim, generator=world) / math.sqrt(FREQUENCIES)
    waves = (labels[:, None].cpu().float() * rate + shift).sin()
    noise = torch.randn(len(labels), nuisance, generator=generator)
    return (torch.cat([waves, noise], 1) @ matrix).tanh().to(labels.device)


class TurnedDigits(NamedTuple):
    """``images (n, 1, 8, 8)``, the ``angles (n,)`` by which they were turned, in whole degrees, ``digits (n,)``."""

    images: Tensor
    angles: Tensor
    digits: Tensor


def turned_digits(
    split: str = "train",
    count: int = 1000,
    *,
    decay: float = 12.0,
    largest: int = 60,
    part: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> TurnedDigits:
    r"""Digits 2, 3, 4, 5 and 7, turned by a number of degrees that is to be found. Large angles are rare.

    Args:
        split: of `digits`: ``"train"`` or ``"test"``.
        count: how many; one digit may come several times, at other angles.
        decay: an angle y has a probability proportional to :math:`e^{-|y|/decay}`; infinite for all alike.
        largest: angle, in degrees to either side, at most 180.
        part: from where to where in the split digits are taken, as shares of it; disjoint parts share no digit.
        seed: which digits and angles.

    Example:
        >>> found = turned_digits(count=5, decay=math.inf)
        >>> found.images.shape, bool(found.angles.abs().max() <= 60)
        (torch.Size([5, 1, 8, 8]), True)
    """
    check_choice(("train", "test"), split=split)
    check_count(count=count)
    if not (isinstance(decay, float) and decay == math.inf):
        check_positive(decay=decay)
    check_count(1, 180, largest=largest)
    check_count(0, seed=seed)
    shares = check_numbers("part", part)
    if len(shares) != 2 or not 0 <= shares[0] < shares[1] <= 1:
        raise ValueError(f"part: expected two shares in [0, 1], the smaller one first, got {part}")
    data, generator = digits(split), torch.Generator().manual_seed(seed)
    rows = torch.isin(data.labels, torch.tensor(UPRIGHT)).nonzero()[:, 0]
    first, last = (round(float(share) * len(rows)) for share in shares)
    if first == last:
        raise ValueError(f"part: {part} of {len(rows)} digits is none of them")
    rows = rows[first:last]
    rows = rows[torch.randint(len(rows), (count,), generator=generator)]
    values = torch.arange(-largest, largest + 1)
    weights = (-values.abs().double() / decay).exp()
    angles = values[weights.multinomial(count, replacement=True, generator=generator)].float()
    return TurnedDigits(turn(data.images[rows], angles), angles, data.labels[rows])


def turn(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each of ``(n, c, h, w)`` images counterclockwise by its entry of ``degrees (n,)``; corners become black."""
    check_shapes(images=(images, "n c h w"), degrees=(degrees, "n"))
    angle = torch.deg2rad(degrees % 360).to(images.dtype)
    zero = torch.zeros_like(angle)
    rows = [torch.stack(row, 1) for row in ((angle.cos(), -angle.sin(), zero), (angle.sin(), angle.cos(), zero))]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
