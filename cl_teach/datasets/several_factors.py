"""Vectors in which several things are mixed: factors of unequal strength, and crossed classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_in_range, check_numbers, check_same_length

__all__ = ["CrossedClasses", "GradedFactors", "crossed_classes", "graded_factors"]

BLOCK = 20  # coordinates of a graded factor
GRAIN = 0.05  # deviation of the noise on graded factors
WIDTH = 24  # of crossed classes
MIX = 1.5  # gain of the mixing layer of crossed classes
LARGEST = 1e6


class GradedFactors(NamedTuple):
    """``points (n, 20 F)`` and ``factors (n, F)``, integers."""

    points: Tensor
    factors: Tensor


class CrossedClasses(NamedTuple):
    """``points (n, 24)``, the ``labels (n,)`` of the classes, and the ``shapes`` and ``colors`` ``(n,)`` they cross."""

    points: Tensor
    labels: Tensor
    shapes: Tensor
    colors: Tensor


def graded_factors(
    n: int,
    sizes: tuple[int, ...] = (5, 4, 4),
    amplitudes: tuple[float, ...] = (1.5, 0.75, 0.4),
    *,
    world: int = 0,
    seed: int = 0,
) -> GradedFactors:
    """Each factor speaks in twenty coordinates of its own, one louder than the other.

    Args:
        n: how many points.
        sizes: values of each factor.
        amplitudes: root mean square of a factor's coordinates.
        world: seed of the prototypes, one for each value.
        seed: of the points.

    Example:
        >>> graded_factors(6).points.shape, graded_factors(6).factors.shape
        (torch.Size([6, 60]), torch.Size([6, 3]))
    """
    check_count(n=n)
    counts, heights = check_numbers("sizes", sizes), check_numbers("amplitudes", amplitudes)
    check_count(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
    check_in_range(0, LARGEST, **{f"amplitudes[{i}]": height for i, height in enumerate(amplitudes)})
    check_same_length(sizes=counts, amplitudes=heights)
    check_count(0, world=world, seed=seed)
    fixed, generator = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    factors, blocks = [], []
    for size, height in zip(sizes, heights.tolist(), strict=True):
        prototypes = torch.randn(size, BLOCK, generator=fixed)
        prototypes = prototypes / prototypes.square().mean(1, keepdim=True).sqrt()
        factors.append(torch.randint(size, (n,), generator=generator))
        blocks.append(height * prototypes[factors[-1]])
    points = torch.cat(blocks, 1)
    return GradedFactors(points + GRAIN * torch.randn(points.shape, generator=generator), torch.stack(factors, 1))


def crossed_classes(
    n: int, shapes: int = 8, colors: int = 5, *, noise: float = 0.5, world: int = 0, seed: int = 0
) -> CrossedClasses:
    """Every pair of a shape and a color is a class: some classes share their shape, some their color, most neither.

    Args:
        n: how many points.
        shapes: values of the first attribute.
        colors: values of the second.
        noise: deviation on each of 24 coordinates, all between -1 and 1 without it.
        world: seed of the attributes and of the layer that mixes them.
        seed: of the points.

    Example:
        >>> found = crossed_classes(5)
        >>> bool((found.labels == 5 * found.shapes + found.colors).all())
        True
    """
    check_count(n=n, shapes=shapes, colors=colors)
    check_in_range(0, LARGEST, noise=noise)
    check_count(0, world=world, seed=seed)
    fixed, generator = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    first, second = (torch.randn(size, WIDTH, generator=fixed) for size in (shapes, colors))
    mixing = MIX * torch.randn(WIDTH, WIDTH, generator=fixed) / WIDTH**0.5
    labels = torch.randint(shapes * colors, (n,), generator=generator)
    shape, color = labels // colors, labels % colors
    points = torch.tanh(torch.tanh(first[shape] + second[color]) @ mixing)
    points = points + noise * torch.randn(points.shape, generator=generator)
    return CrossedClasses(points, labels, shape, color)
