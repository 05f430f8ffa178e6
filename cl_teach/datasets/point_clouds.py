"""Clouds of points: on one of four surfaces, or on objects that are put together from two of them.

`point_clouds`: a sphere, a cube, a torus and a cone, each turned at random. Points lie uniformly on the surface, and
every shape fits into the unit ball, so that neither density nor size tells the shapes apart, only form.

`assembled_clouds`: eight objects, from a table to a mug, of two parts each. Their proportions vary, points are noisy,
and some of the parts occur in several objects, so that a part alone does not say what the whole is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_flag, check_in_range

__all__ = ["OBJECTS", "PARTS", "SHAPES", "AssembledClouds", "PointClouds", "assembled_clouds", "point_clouds"]

SHAPES = ("sphere", "cube", "torus", "cone")

PARTS = ("ball", "box", "ring", "cone", "tube")
# Two parts of each object: what, its stretch along x, y and z, its place, its share of the points.
_OBJECTS = {
    "lollipop": (("ball", (0.4, 0.4, 0.4), (0, 0, 0.7), 0.6), ("tube", (0.08, 0.08, 0.7), (0, 0, -0.4), 0.4)),
    "mushroom": (("cone", (0.8, 0.8, 0.5), (0, 0, 0.4), 0.6), ("tube", (0.2, 0.2, 0.5), (0, 0, -0.3), 0.4)),
    "table": (("box", (1.4, 1.4, 0.15), (0, 0, 0.5), 0.6), ("tube", (0.15, 0.15, 0.5), (0, 0, -0.1), 0.4)),
    "hammer": (("box", (1.1, 0.5, 0.5), (0, 0, 0.7), 0.6), ("tube", (0.1, 0.1, 0.7), (0, 0, -0.2), 0.4)),
    "loupe": (("ring", (0.6, 0.6, 0.6), (0.9, 0, 0), 0.6), ("tube", (0.08, 0.08, 0.6), (-0.2, 0, 0), 0.4)),
    "mug": (("tube", (0.5, 0.5, 0.6), (0, 0, 0), 0.65), ("ring", (0.4, 0.4, 0.4), (0.7, 0, 0), 0.35)),
    "house": (("box", (1.2, 1.2, 0.9), (0, 0, -0.3), 0.55), ("cone", (0.8, 0.8, 0.6), (0, 0, 0.45), 0.45)),
    "snowman": (("ball", (0.6, 0.6, 0.6), (0, 0, -0.4), 0.6), ("ball", (0.4, 0.4, 0.4), (0, 0, 0.5), 0.4)),
}
OBJECTS = tuple(_OBJECTS)

_RING, _TUBE = 0.7, 0.3  # radii of the torus
_BASE, _HEIGHT = 0.8, 1.2  # of the cone, whose base lies at -0.6


class PointClouds(NamedTuple):
    """Clouds and what they are.

    Attributes:
        points: ``(n, points, 3)`` float32.
        labels: ``(n,)`` int64, index into ``classes``.
        classes: names of the shapes.
    """

    points: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def point_clouds(
    n: int = 256,
    points: int = 256,
    *,
    noise: float = 0.0,
    rotate: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> PointClouds:
    """Draw clouds; the shapes take turns.

    Args:
        n: number of clouds.
        points: points of each.
        noise: standard deviation added to every coordinate.
        rotate: turn every cloud by a random rotation.
        seed: of all draws.
        device: where the tensors go; they are drawn on the CPU.
    """
    check_count(n=n, points=points)
    check_in_range(0, math.inf, noise=noise)
    check_flag(rotate=rotate)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    surfaces = (_sphere, _cube, _torus, _cone)
    clouds = torch.stack([surfaces[i % len(surfaces)](points, generator) for i in range(n)])
    if rotate:
        clouds = clouds @ _rotations(n, generator).mT
    clouds = clouds + noise * torch.randn(clouds.shape, generator=generator)
    return PointClouds(clouds.to(device), (torch.arange(n) % len(SHAPES)).to(device), SHAPES)


class AssembledClouds(NamedTuple):
    """Objects of two parts.

    Attributes:
        points: ``(n, points, 3)`` float32, in random order.
        labels: ``(n,)`` int64, index into ``classes``.
        parts: ``(n, points)`` int64, index into `PARTS`: which part of the object a point lies on.
        classes: names of the objects.
    """

    points: Tensor
    labels: Tensor
    parts: Tensor
    classes: tuple[str, ...]


def assembled_clouds(
    n: int = 256,
    points: int = 256,
    *,
    noise: float = 0.02,
    spread: float = 0.25,
    rotate: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> AssembledClouds:
    """Draw objects; the kinds take turns. Every cloud is centered and its farthest point lies at distance 1.

    Args:
        n: number of clouds.
        points: points of each, at least 2.
        noise: standard deviation added to every coordinate at last.
        spread: how much the proportions vary: every stretch of every part is multiplied by a number drawn from
            ``1 - spread`` to ``1 + spread``; below 1.
        rotate: turn every cloud by a random rotation.
        seed: of all draws.
        device: where the tensors go; they are drawn on the CPU.

    Example:
        >>> clouds = assembled_clouds(3, 40)
        >>> [clouds.classes[i] for i in clouds.labels], clouds.parts.shape
        (['lollipop', 'mushroom', 'table'], torch.Size([3, 40]))
    """
    check_count(n=n)
    check_count(2, points=points)
    check_in_range(0, math.inf, noise=noise)
    check_in_range(0, 1, spread=spread)
    check_flag(rotate=rotate)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    clouds, parts = zip(
        *(_assemble(OBJECTS[i % len(OBJECTS)], points, spread, generator) for i in range(n)), strict=True
    )
    cloud, part = torch.stack(clouds), torch.stack(parts)
    cloud = cloud - cloud.mean(1, keepdim=True)
    cloud = cloud / cloud.norm(dim=-1).amax(1)[:, None, None]
    if rotate:
        cloud = cloud @ _rotations(n, generator).mT
    cloud = cloud + noise * torch.randn(cloud.shape, generator=generator)
    labels = torch.arange(n) % len(OBJECTS)
    return AssembledClouds(cloud.to(device), labels.to(device), part.to(device), OBJECTS)


def _assemble(name: str, n: int, spread: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points ``(n, 3)`` and their parts ``(n,)``, in random order."""
    surfaces = {"ball": _sphere, "box": _cube, "ring": _torus, "cone": _cone, "tube": _cylinder}
    first, second = _OBJECTS[name]
    sizes = (int(first[3] * n), n - int(first[3] * n))
    clouds = []
    for (kind, stretch, place, _), size in zip((first, second), sizes, strict=True):
        factor = 1 + spread * (2 * torch.rand(3, generator=generator) - 1)
        clouds.append(surfaces[kind](size, generator) * torch.tensor(stretch) * factor + torch.tensor(place))
    part = torch.tensor([PARTS.index(first[0])] * sizes[0] + [PARTS.index(second[0])] * sizes[1])
    order = torch.randperm(n, generator=generator)
    return torch.cat(clouds)[order], part[order]


def _cylinder(n: int, generator: torch.Generator) -> Tensor:
    """Open, of radius 1, from -1 to 1."""
    around, height = torch.rand(2, n, generator=generator)
    around = 2 * math.pi * around
    return torch.stack([around.cos(), around.sin(), 2 * height - 1], 1)


def _sphere(n: int, generator: torch.Generator) -> Tensor:
    x = torch.randn(n, 3, generator=generator)
    return x / x.norm(dim=1, keepdim=True)


def _cube(n: int, generator: torch.Generator) -> Tensor:
    x = 2 * torch.rand(n, 3, generator=generator) - 1
    axis = torch.randint(3, (n, 1), generator=generator)
    side = 2.0 * torch.randint(2, (n, 1), generator=generator) - 1
    return x.scatter(1, axis, side) / math.sqrt(3)


def _torus(n: int, generator: torch.Generator) -> Tensor:
    around, height = torch.rand(2, n, generator=generator)
    # The outer side of the tube has more area: invert the distribution function of the angle on a fine grid.
    angle = torch.linspace(0, 2 * math.pi, 4097)
    share = (_RING * angle + _TUBE * angle.sin()) / (2 * math.pi * _RING)
    tube = angle[torch.searchsorted(share, height).clamp(max=4096)]
    radius, around = _RING + _TUBE * tube.cos(), 2 * math.pi * around
    return torch.stack([radius * around.cos(), radius * around.sin(), _TUBE * tube.sin()], 1)


def _cone(n: int, generator: torch.Generator) -> Tensor:
    around, out, which = torch.rand(3, n, generator=generator)
    slant, out, around = math.hypot(_BASE, _HEIGHT), out.sqrt(), 2 * math.pi * around  # area grows with the square
    on_base = which < _BASE / (_BASE + slant)
    z = torch.where(on_base, 0.0, 1 - out) * _HEIGHT - _HEIGHT / 2
    return torch.stack([_BASE * out * around.cos(), _BASE * out * around.sin(), z], 1)


def _rotations(n: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # without this the signs would not be uniform
    return q * torch.linalg.det(q)[:, None, None]
