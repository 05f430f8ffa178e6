"""Clouds of points on four surfaces, a sphere, a cube, a torus and a cone, each turned at random.

Points lie uniformly on the surface, and every shape fits into the unit ball, so that neither density nor size tells
the shapes apart, only form.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_flag, check_in_range

__all__ = ["SHAPES", "PointClouds", "point_clouds"]

SHAPES = ("sphere", "cube", "torus", "cone")

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
