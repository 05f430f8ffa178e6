r"""Sprites: drawn objects whose factors are independent, to ask which factor a representation keeps.

Each image shows one object on a dark background. What it is comes from six factors, each drawn on its own:
shape, color, texture, column, row and size. All images are computed at once, from signed distances: for every
pixel, how far is it from the edge of each shape? That gives smooth edges for free and needs no loop over
images.

.. math::
    \text{image} = \text{cover}(d_{\text{shape}}(p)) \cdot \text{texture}(p) \cdot \text{color} + \text{noise},

where p are the pixel's coordinates relative to the object's center, in units of the object's radius.

``correlate`` ties one factor to another, for experiments on shortcuts: with ``correlate={"color": ("shape",
0.95)}``, 95 % of the circles are red, 95 % of the squares are yellow, and so on, while the other 5 % draw
their color freely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_choice, check_count, check_device, check_in_range, check_labels, check_type

__all__ = ["SPRITE_FACTORS", "Sprites", "sprites"]

SPRITE_FACTORS: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "cross", "ring", "star"),
    "color": ("red", "yellow", "green", "cyan", "blue", "magenta"),
    "texture": ("plain", "rows", "columns", "checker", "dots"),
    "column": ("left", "center", "right"),
    "row": ("top", "middle", "bottom"),
    "size": ("small", "medium", "large"),
}

# Clear hues of similar brightness, one row a color.
COLORS = (
    (0.94, 0.27, 0.27),
    (0.95, 0.82, 0.25),
    (0.33, 0.80, 0.34),
    (0.25, 0.82, 0.88),
    (0.38, 0.48, 0.98),
    (0.93, 0.40, 0.86),
)
RADII = (0.34, 0.44, 0.56)  # in half-widths of the image
SMALLEST = 16  # pixels that a texture needs
CELL = 0.34  # distance between the centers of the cells, in half-widths of the image
BACKGROUND = 0.10
SHADE = 0.42  # brightness of a texture's dark parts, relative to its bright ones


class Sprites(NamedTuple):
    """Images and what is in them.

    Attributes:
        images: ``(n, 3, size, size)``, float32 in [0, 1].
        factors: for each name in `SPRITE_FACTORS` an int64 tensor ``(n,)``.
        latents: continuous values: "x" and "y" of the center (-1 to 1, right and down), "radius" (same unit)
            and "brightness", float32 ``(n,)`` each.
        names: for each factor the names of its values.
    """

    images: Tensor
    factors: dict[str, Tensor]
    latents: dict[str, Tensor]
    names: dict[str, tuple[str, ...]]


def sprites(
    n: int,
    *,
    seed: int = 0,
    size: int = 32,
    fix: Mapping[str, int | str | Tensor] | None = None,
    correlate: Mapping[str, tuple[str, float]] | None = None,
    jitter: float = 1.0,
    noise: float = 0.02,
    device: torch.device | str | None = None,
) -> Sprites:
    """Draw n sprites.

    Args:
        n: number of images.
        seed: of all draws. The factors and latents are the same on every device.
        size: height and width in pixels, at least 16.
        fix: factors that are not drawn: a value's number or name for all images, or an int64 tensor ``(n,)``.
            To see the same objects with one thing changed, use the same seed and
            ``fix={**first.factors, "color": "red"}``.
        correlate: ``{factor: (other, share)}``: with probability ``share`` the factor takes the value with
            the number of the other factor (modulo its count), else it is drawn freely, so it may agree by
            chance too. The other factor must not be correlated itself.
        jitter: how far center, radius and brightness may move within their cell, 0 (not at all) to 1.
        noise: standard deviation of the pixel noise.
        device: where the images are made; the factors are drawn on the CPU.

    Returns:
        Images, factors, continuous latents, and the names of the factors' values.

    """
    check_count(n=n)
    check_count(0, seed=seed)
    check_count(SMALLEST, size=size)
    check_in_range(0, 1, jitter=jitter, noise=noise)
    check_type((Mapping, type(None)), fix=fix, correlate=correlate)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    factors = _draw_factors(n, dict(fix or {}), dict(correlate or {}), generator)

    # Continuous latents: the middle of the cell plus a uniform shift. All are drawn even if not used, so that
    # fixing one factor leaves everything else in the images as it was.
    shift = jitter * (2 * torch.rand(4, n, generator=generator) - 1)  # (4, n), in [-1, 1]
    latents = {
        "x": CELL * (factors["column"] - 1) + 0.07 * shift[0],
        "y": CELL * (factors["row"] - 1) + 0.07 * shift[1],
        "radius": torch.tensor(RADII)[factors["size"]] * (1 + 0.06 * shift[2]),
        "brightness": 0.95 + 0.05 * shift[3],
    }
    noise_seed = int(torch.randint(2**62, (), generator=generator))

    factors = {name: values.to(device) for name, values in factors.items()}
    latents = {name: values.to(device) for name, values in latents.items()}
    images = _render(factors, latents, size)
    if noise > 0:
        on_device = torch.Generator(images.device).manual_seed(noise_seed)
        images += noise * torch.randn(images.shape, generator=on_device, device=images.device)
    return Sprites(images.clamp_(0, 1), factors, latents, dict(SPRITE_FACTORS))


# ---------------------------------------------------------------------------------------------------- factors


def _draw_factors(
    n: int,
    fix: dict[str, int | str | Tensor],
    correlate: dict[str, tuple[str, float]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    check_choice(SPRITE_FACTORS, **{f"fix[{name!r}]": name for name in fix})
    factors = {}
    for name, values in SPRITE_FACTORS.items():
        drawn = torch.randint(len(values), (n,), generator=generator)  # drawn even if fixed, see above
        factors[name] = _fixed(name, fix[name], n) if name in fix else drawn
    chances = {name: torch.rand(n, generator=generator) for name in SPRITE_FACTORS}
    for name, pair in correlate.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"correlate[{name!r}]: expected a pair (other factor, share), got {pair!r}")
        other, share = pair
        check_choice(SPRITE_FACTORS, **{f"correlate[{name!r}]": name, f"correlate[{name!r}][0]": other})
        check_in_range(0, 1, **{f"correlate[{name!r}][1]": share})
        if name in fix:
            raise ValueError(f"correlate[{name!r}]: the factor is fixed already")
        if other == name or other in correlate:
            raise ValueError(f"correlate[{name!r}]: {other!r} must be a factor that is not correlated itself")
        factors[name] = torch.where(chances[name] < share, factors[other] % len(SPRITE_FACTORS[name]), factors[name])
    return factors


def _fixed(name: str, value: int | str | Tensor, n: int) -> Tensor:
    names = SPRITE_FACTORS[name]
    if isinstance(value, str):
        check_choice(names, **{f"fix[{name!r}]": value})
        value = names.index(value)
    if isinstance(value, Tensor):
        return check_labels(value, n, name=f"fix[{name!r}]", num_classes=len(names)).cpu().clone()
    check_count(0, len(names) - 1, **{f"fix[{name!r}]": value})
    return torch.full((n,), int(value))


# ---------------------------------------------------------------------------------------------------- drawing


def _render(factors: dict[str, Tensor], latents: dict[str, Tensor], size: int) -> Tensor:
    """Images ``(n, 3, size, size)`` without noise."""
    device = latents["x"].device
    pixel = (2 * torch.arange(size, device=device) + 1) / size - 1  # pixel centers from -1 to 1
    radius = latents["radius"][:, None, None]
    x = (pixel[None, None, :] - latents["x"][:, None, None]) / radius  # (n, 1, size), 1 = the object's radius
    y = (pixel[None, :, None] - latents["y"][:, None, None]) / radius  # (n, size, 1)

    distance = _choose(SHAPES, factors["shape"], x, y)  # (n, size, size), negative inside
    sharpness = radius * size / 2  # pixels per unit of distance
    cover = (0.5 - distance * sharpness).clamp_(0, 1)  # the edge is one pixel wide

    # Textures live on the pixel grid of the object: their period is a share of the radius, at least 4 pixels.
    period = (0.5 * radius).clamp(min=8.0 / size) / radius
    texture = SHADE + (1 - SHADE) * _choose(TEXTURES, factors["texture"], x / period, y / period)

    color = torch.tensor(COLORS, device=device)[factors["color"]] * latents["brightness"][:, None]  # (n, 3)
    foreground = color[:, :, None, None] * texture[:, None]  # (n, 3, size, size)
    return BACKGROUND + cover[:, None] * (foreground - BACKGROUND)


Drawing = Callable[[Tensor, Tensor], Tensor]


def _choose(drawings: tuple[Drawing, ...], which: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Draw each image with its own function: one call a function, for the images that want it."""
    result = x.new_empty(len(x), y.shape[1], x.shape[2])
    for number, draw in enumerate(drawings):
        rows = (which == number).nonzero().squeeze(1)
        result[rows] = draw(x[rows], y[rows])
    return result


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    """Distance to a rectangle, exact inside and up to the corners outside."""
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _half_planes(x: Tensor, y: Tensor, corners: int, inner: float) -> Tensor:
    """Distance to a regular polygon that stands on a side: the largest of the distances to its sides."""
    sides = []
    for k in range(corners):
        angle = math.pi / 2 + 2 * math.pi * k / corners  # the first normal points down
        sides.append(math.cos(angle) * x + math.sin(angle) * y - inner)
    return torch.stack(sides).amax(0)


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Distance (nearly) to a star of five points: fold the plane until one line is left."""
    sector = math.pi / 5
    angle = torch.atan2(x, -y)  # 0 upwards
    folded = (torch.remainder(angle + sector, 2 * sector) - sector).abs()  # 0 at a tip, sector in a notch
    length = (x.square() + y.square()).sqrt()
    along, across = length * folded.cos(), length * folded.sin()
    # The edge is the line from the tip, on the axis, to the notch, at the end of the sector.
    tip, notch = 1.22, 0.56
    edge_x, edge_y = notch * math.cos(sector) - tip, notch * math.sin(sector)
    return ((along - tip) * -edge_y + across * edge_x) * (-1 / math.hypot(edge_x, edge_y))


# All of about the same area, so that none can be told by its brightness alone.
SHAPES: tuple[Drawing, ...] = (
    lambda x, y: (x.square() + y.square()).sqrt() - 0.87,
    lambda x, y: _box(x, y, 0.80, 0.80),
    lambda x, y: _half_planes(x, y - 0.20, 3, 0.66),
    lambda x, y: torch.minimum(_box(x, y, 0.36, 1.0), _box(x, y, 1.0, 0.36)),
    lambda x, y: ((x.square() + y.square()).sqrt() - 0.74).abs() - 0.28,
    _star,
)


def _bright(wave: Tensor) -> Tensor:
    """Half of every period bright, with an edge that is not quite hard."""
    return (0.5 + 2.5 * wave).clamp(0, 1)


TEXTURES: tuple[Drawing, ...] = (  # x and y in periods; 1 = bright, 0 = dark
    lambda x, y: torch.ones_like(x + y),
    lambda x, y: _bright(torch.cos(2 * math.pi * y)) + 0 * x,
    lambda x, y: _bright(torch.cos(2 * math.pi * x)) + 0 * y,
    lambda x, y: _bright(torch.sin(math.pi * x) * torch.sin(math.pi * y)),
    lambda x, y: _bright(0.45 - torch.cos(2 * math.pi * x) * 0.5 - torch.cos(2 * math.pi * y) * 0.5),
)
