"""Random views of a batch of images, each image with its own draw, on whatever device the batch lies.

A contrastive method says "these two are the same thing" of two random views of one image. So the
augmentations are half of the method, and they run at every step: they have to be cheap. Here every transform
takes a batch ``(n, c, h, w)`` of floating images in [0, 1], draws one set of parameters *per image*, and
applies them in a few tensor operations without a loop over the images.

Where torchvision serves, and where it does not: its transforms (``torchvision.transforms.v2``) also take
batches of tensors on any device, but they draw **one** set of parameters a call, so all images of a batch
would get the same crop and the same brightness. Per-image draws then need a loop, or worker processes that
augment image by image before batching. And they draw from the global random state, not from a
``torch.Generator`` that one could hand over. For folders of large photographs (decoding, workers, hue in HSV
space, RandAugment) use torchvision.

Two rules hold for all functions of this file:

- ``generator`` decides the draws: the same generator state gives the same views. The numbers are drawn on the
  generator's device and then moved to the images, so one CPU generator gives the same views on CPU and GPU.
  Without a generator the global random state of the images' device is used.
- The result has the dtype and device of the input, has no gradient, and shares no memory with the input.
  A transform at zero strength returns the same values.

Source: the family of transforms is that of SimCLR (Chen, Kornblith, Norouzi and Hinton 2020, arXiv
2002.05709, section 3 and appendix A); cutout is that of DeVries and Taylor 2017 (arXiv 1708.04552).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .core.checks import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_generator,
    check_in_range,
    check_positive,
    check_shapes,
)

__all__ = [
    "Compose",
    "color_jitter",
    "cutout",
    "gaussian_blur",
    "gaussian_noise",
    "horizontal_flip",
    "random_grayscale",
    "random_resized_crop",
    "simclr_augment",
    "simclr_color",
]

# How bright red, green and blue look (ITU-R BT.601), as in torchvision's grayscale.
LUMA = (0.299, 0.587, 0.114)


class Transform(Protocol):
    """Anything that maps a batch of images to a batch of images and takes a generator."""

    def __call__(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Transform ``(n, c, h, w)`` into ``(n, c, h', w')``."""
        ...


# ------------------------------------------------------------------------------------------- where things are


@torch.no_grad()
def random_resized_crop(
    images: Tensor,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    size: int | tuple[int, int] | None = None,
    flip: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Cut a random rectangle out of every image and stretch it to ``size`` (bilinear).

    A crop and a mirror image are both maps "output column -> input column" and "output row -> input row", so
    both cost one ``grid_sample`` together: ``flip`` mirrors with that probability at no extra price.

    Args:
        images: ``(n, c, h, w)``, floating.
        scale: the share of the image's area that the rectangle covers, drawn uniformly from this interval
            within (0, 1].
        ratio: the rectangle's width over its height, relative to the image's own, drawn log-uniformly. A
            rectangle that sticks out on one side is cut there (torchvision draws again, up to ten times).
        size: height and width of the result, one number for both; the images' own if None.
        flip: probability of a mirror image, in [0, 1].
        generator: source of the draws.

    Returns:
        ``(n, c, size, size)``, same dtype and device. With ``scale=(1, 1)``, ``ratio=(1, 1)``, ``flip=0`` and
        the images' own size the values are those of the images, up to rounding.
    """
    n, _, height, width = _check_images(images, generator)
    _check_interval(0.0, 1.0, scale=scale)
    _check_interval(0.0, math.inf, ratio=ratio)
    check_positive(**{"scale[0]": scale[0], "ratio[0]": ratio[0]})
    check_in_range(0, 1, flip=flip)
    out_height, out_width = (height, width) if size is None else _pair(size, "size")

    area = _uniform(n, scale, images, generator)  # (n,)
    stretch = _uniform(n, (math.log(ratio[0]), math.log(ratio[1])), images, generator).exp()
    crop_width = (area * stretch).sqrt().clamp(max=1.0)  # (n,), as a share of the image's width
    crop_height = (area / stretch).sqrt().clamp(max=1.0)
    # grid_sample's coordinates run from -1 to 1 over the image: the center may move by what the crop leaves
    # free.
    center_x = (1 - crop_width) * _uniform(n, (-1.0, 1.0), images, generator)
    center_y = (1 - crop_height) * _uniform(n, (-1.0, 1.0), images, generator)
    mirrored = _coin(n, flip, images, generator)
    step_x = torch.where(mirrored, -crop_width, crop_width)

    x = center_x[:, None] + step_x[:, None] * _pixel_centers(out_width, images)  # (n, out_width)
    y = center_y[:, None] + crop_height[:, None] * _pixel_centers(out_height, images)  # (n, out_height)
    return _sample(images, x, y)


@torch.no_grad()
def horizontal_flip(images: Tensor, probability: float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Mirror each image left to right with the given probability.

    Args:
        images: ``(n, c, h, w)``, floating.
        probability: in [0, 1].
        generator: source of the draws.

    Returns:
        ``(n, c, h, w)``; every value is one of the input's, exactly.
    """
    n = _check_images(images, generator)[0]
    check_in_range(0, 1, probability=probability)
    mirrored = _coin(n, probability, images, generator)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@torch.no_grad()
def cutout(
    images: Tensor,
    size: float = 0.5,
    *,
    fill: float = 0.0,
    probability: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Blank a rectangle of each image, centered on a random pixel (so it may stick out at the border).

    Args:
        images: ``(n, c, h, w)``, floating.
        size: side of the hole as a share of the image's sides, in [0, 1].
        fill: the value inside the hole.
        probability: of having a hole at all.
        generator: source of the draws.

    Returns:
        ``(n, c, h, w)``.
    """
    n, _, height, width = _check_images(images, generator)
    check_in_range(0, 1, size=size, probability=probability)
    check_in_range(-math.inf, math.inf, fill=fill)
    hit = _coin(n, probability, images, generator)

    def inside(length: int) -> Tensor:
        side = round(size * length)
        center = _uniform(n, (0.0, float(length)), images, generator).floor()
        distance = torch.arange(length, device=images.device) - (center - side // 2)[:, None]
        return (distance >= 0) & (distance < side)  # (n, length), ``side`` long where nothing sticks out

    rows, columns = inside(height), inside(width)
    hole = hit[:, None, None] & rows[:, :, None] & columns[:, None, :]  # (n, h, w)
    return images.masked_fill(hole[:, None], fill)


# ---------------------------------------------------------------------------------------- what they look like


@torch.no_grad()
def color_jitter(
    images: Tensor,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    *,
    probability: float = 1.0,
    grayscale: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    r"""Change brightness, contrast and, for three channels, saturation and hue of each image, or take its color away.

    With factors b, c, s drawn from [1 - strength, 1 + strength] (not below 0) and an angle from
    [-hue, hue] turns, all four are linear in the colors of a pixel, so they are applied as one 3x3 matrix an
    image:

    .. math:: x' = c\,b\,R\,S\,x + (1 - c)\,b\,m, \qquad S = s I + (1 - s) \mathbf 1 w^\top,

    where w are the luma weights, m is the image's mean luma and R turns the colors about the gray axis. Without color
    (``grayscale``) the matrix is :math:`\mathbf 1 w^\top` times that, which costs nothing more.
    Values are clipped to [0, 1] once, at the end; torchvision shuffles the four, clips after each and turns
    the hue in HSV space.

    Args:
        images: ``(n, c, h, w)``, floating, in [0, 1].
        brightness: strength, >= 0.
        contrast: strength, >= 0.
        saturation: strength, >= 0; needs 3 channels.
        hue: largest turn as a share of the full circle, in [0, 0.5]; needs 3 channels.
        probability: of changing an image at all.
        grayscale: probability of taking an image's color away, changed or not; needs 3 channels.
        generator: source of the draws.

    Returns:
        ``(n, c, h, w)`` in [0, 1].
    """
    n, channels, _, _ = _check_images(images, generator)
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        check_in_range(0, math.inf, **{name: value})
    check_in_range(0, 0.5, hue=hue)
    check_in_range(0, 1, probability=probability, grayscale=grayscale)
    in_color = saturation > 0 or hue > 0 or grayscale > 0
    if in_color and channels != 3:
        raise ValueError(f"images: saturation, hue and grayscale need 3 channels, got {channels}; set all to 0")

    hit = _coin(n, probability, images, generator)  # (n,)

    def factor(strength: float) -> Tensor:
        drawn = _uniform(n, (max(0.0, 1 - strength), 1 + strength), images, generator)
        return torch.where(hit, drawn, torch.ones_like(drawn))

    b, c = factor(brightness), factor(contrast)  # (n,)
    mean = images.mean((2, 3))  # (n, channels)
    luma = torch.tensor(LUMA, device=images.device, dtype=images.dtype)  # (3,)
    mean = mean @ luma if channels == 3 else mean.mean(1)  # (n,)
    shift = (1 - c) * b * mean
    gain = c * b
    if not in_color:
        return torch.addcmul(shift[:, None, None, None], images, gain[:, None, None, None]).clamp_(0, 1)

    s = factor(saturation)[:, None, None]
    turn = _uniform(n, (-hue, hue), images, generator) * hit
    matrix = _rotate_hue(turn) @ (s * torch.eye(3).to(s) + (1 - s) * luma)  # (n, 3, 3)
    if grayscale > 0:
        gray = _coin(n, grayscale, images, generator)[:, None, None]
        matrix = torch.where(gray, (luma @ matrix)[:, None].expand(n, 3, 3), matrix)
    return _mix_channels(images, gain[:, None, None] * matrix, shift).clamp_(0, 1)


@torch.no_grad()
def random_grayscale(images: Tensor, probability: float = 0.2, *, generator: Generator | None = None) -> Tensor:
    """Replace the three colors by their luma with the given probability.

    Args:
        images: ``(n, 3, h, w)``, floating.
        probability: in [0, 1].
        generator: source of the draws.

    Returns:
        ``(n, 3, h, w)``.
    """
    n, channels, _, _ = _check_images(images, generator)
    if channels != 3:
        raise ValueError(f"images: expected 3 channels, got shape {tuple(images.shape)}")
    check_in_range(0, 1, probability=probability)
    gray = _coin(n, probability, images, generator)
    luma = images[:, 0] * LUMA[0] + images[:, 1] * LUMA[1] + images[:, 2] * LUMA[2]  # (n, h, w)
    return torch.where(gray[:, None, None, None], luma[:, None], images)


@torch.no_grad()
def gaussian_blur(
    images: Tensor,
    sigma: tuple[float, float] = (0.1, 2.0),
    *,
    probability: float = 1.0,
    generator: Generator | None = None,
) -> Tensor:
    """Blur each image with a Gaussian of its own width.

    The blur is a matrix product along the rows and one along the columns. The weights of a pixel near the
    border are those inside the image, scaled to sum to one, so a constant image stays constant.

    Args:
        images: ``(n, c, h, w)``, floating.
        sigma: interval of the standard deviation in pixels, >= 0, drawn uniformly.
        probability: of blurring an image at all.
        generator: source of the draws.

    Returns:
        ``(n, c, h, w)``, within the range of the input.
    """
    n, channels, height, width = _check_images(images, generator)
    _check_interval(0.0, math.inf, sigma=sigma)
    check_in_range(0, 1, probability=probability)
    drawn = _uniform(n, sigma, images, generator)
    spread = torch.where(_coin(n, probability, images, generator), drawn, torch.zeros_like(drawn))

    def weights(length: int) -> Tensor:
        at = torch.arange(length, device=images.device, dtype=torch.float32)
        square = (at[:, None] - at).square()  # (length, length)
        # A tiny sigma stands in for zero: all weights but the middle one vanish and the result is the input,
        # exactly.
        rate = (0.5 / spread.float().square().clamp(min=1e-12))[:, None, None]
        # Weights that no rounding would notice become zero: denormal numbers slow the products down fourfold.
        kernel = F.threshold(torch.exp(-rate * square), 1e-8, 0.0)
        return (kernel / kernel.sum(-1, keepdim=True)).to(images.dtype)  # (n, length, length), rows sum to 1

    along_width = weights(width)
    along_height = along_width if height == width else weights(height)
    # (n, c h, w) @ (n, w, w), then the same with rows and columns exchanged.
    blurred = torch.bmm(images.reshape(n, channels * height, width), along_width.mT)
    blurred = blurred.reshape(n, channels, height, width).mT.reshape(n, channels * width, height)
    blurred = torch.bmm(blurred, along_height.mT)
    return blurred.reshape(n, channels, width, height).mT.contiguous()


@torch.no_grad()
def gaussian_noise(
    images: Tensor,
    std: float | tuple[float, float] = 0.05,
    *,
    clip: bool = True,
    generator: Generator | None = None,
) -> Tensor:
    """Add independent Gaussian noise to every value.

    Args:
        images: ``(n, c, h, w)``, floating.
        std: standard deviation, or an interval from which each image draws its own; >= 0.
        clip: clip the result to [0, 1].
        generator: source of the draws.

    Returns:
        ``(n, c, h, w)``.
    """
    n = _check_images(images, generator)[0]
    check_flag(clip=clip)
    interval = std if isinstance(std, tuple | list) else (std, std)
    _check_interval(0.0, math.inf, std=interval)
    level = _uniform(n, interval, images, generator)[:, None, None, None]
    where = images.device if generator is None else generator.device
    noise = torch.randn(images.shape, generator=generator, device=where).to(images.device, images.dtype)
    noisy = noise.mul_(level).add_(images)
    return noisy.clamp_(0, 1) if clip else noisy


# ----------------------------------------------------------------------------------------------- put together


class Compose:
    """Apply several transforms, one after the other.

    Args:
        transforms: callables ``(images, *, generator) -> images``.

    Example:
        >>> from functools import partial
        >>> augment = Compose([partial(random_resized_crop, flip=0.5), partial(gaussian_noise, std=0.1)])
        >>> augment(torch.rand(8, 1, 28, 28), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 1, 28, 28])
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        if not isinstance(transforms, Sequence) or isinstance(transforms, str):
            raise TypeError(f"transforms: expected a list of callables, got {type(transforms).__name__}")
        for position, transform in enumerate(transforms):
            check_callable(**{f"transforms[{position}]": transform})
        self.transforms = tuple(transforms)

    def __call__(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Transform ``(n, c, h, w)``, each image with its own draws."""
        _check_images(images, generator)
        with _values_were_checked():
            for transform in self.transforms:
                images = transform(images, generator=generator)
        return images

    def __repr__(self) -> str:
        """One line a transform, with its parameters."""
        return "\n".join(["Compose(", *(f"    {_describe(transform)}," for transform in self.transforms), ")"])


def simclr_color(
    images: Tensor, strength: float = 1.0, grayscale: float = 0.2, *, generator: Generator | None = None
) -> Tensor:
    """SimCLR's change of colors, for color and for gray images.

    80 % of the images are changed: brightness, contrast and saturation of color images by up to ``0.8 * strength``,
    their hue by up to ``0.2 * strength`` turns; brightness and contrast of gray images by up to ``0.4 * strength``.
    Then a fifth of the color images lose their color.

    Args:
        images: ``(n, 1, h, w)`` or ``(n, 3, h, w)``.
        strength: of the change, in [0, 2]; SimCLR reports 1 for ImageNet and 0.5 for CIFAR-10.
        grayscale: share of the color images that become gray.
        generator: source of the draws.

    Returns:
        Of the same shape, in [0, 1].
    """
    channels = _check_images(images, generator)[1]
    check_in_range(0, 2, strength=strength)
    check_in_range(0, 1, grayscale=grayscale)
    if channels not in (1, 3):
        raise ValueError(f"images: expected 1 channel (gray) or 3 (color), got shape {tuple(images.shape)}")
    if channels == 1:
        change = 0.4 * strength
        return color_jitter(images, brightness=change, contrast=change, probability=0.8, generator=generator)
    change, hue = 0.8 * strength, min(0.5, 0.2 * strength)
    jitter = partial(color_jitter, brightness=change, contrast=change, saturation=change, hue=hue)
    return jitter(images, probability=0.8, grayscale=grayscale, generator=generator)


# What is published, and our own choice for small images ("small"): crops that keep at least a fifth.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"strength": 1.0, "scale": (0.2, 1.0), "blur": 0.0, "sigma": (0.1, 1.0)},
    "cifar10": {"strength": 0.5, "scale": (0.08, 1.0), "blur": 0.0, "sigma": (0.1, 2.0)},
    "imagenet": {"strength": 1.0, "scale": (0.08, 1.0), "blur": 0.5, "sigma": (0.1, 2.0)},
}


def simclr_augment(
    strength: float | None = None,
    channels: int | None = None,
    *,
    preset: str = "small",
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    grayscale: float = 0.2,
    blur: float | None = None,
    sigma: tuple[float, float] | None = None,
    noise: float = 0.0,
) -> Compose:
    """Build SimCLR's family of views: crop and flip, color; optionally blur and noise.

    Whether images are gray or in color is seen when they come. Crop and color have a setting each: ``scale`` and
    ``strength``.

    Args:
        strength: of the change of colors, in [0, 2], see `simclr_color`; 0 for none. The preset's if None.
        channels: 1 for gray, 3 for color images, others are then refused; None takes both.
        preset: ``"cifar10"`` and ``"imagenet"`` as SimCLR publishes them (crops of 8 to 100 % of the area; colors at
            strength 0.5 without blur, or at strength 1 with a blur in half of the images); ``"small"``, for this book's
            small gray images: crops of 20 to 100 %, strength 1, no blur.
        scale: interval of the crop's area; the preset's if None.
        ratio: interval of the crop's width over its height.
        flip: probability of a mirror image.
        grayscale: share of the color images that lose their color.
        blur: probability of a blur; the preset's if None.
        sigma: interval of its width in pixels; the preset's if None.
        noise: standard deviation of added noise.

    Returns:
        A callable ``(images, generator=None) -> images``.

    Example:
        >>> augment = simclr_augment(preset="cifar10")
        >>> augment(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])

    Source:
        Chen, Kornblith, Norouzi and Hinton 2020, appendix A and, for CIFAR-10, B.9. Two things differ: our crop is cut
        at the border instead of drawn again, and hue turns about the gray axis instead of in HSV.
    """
    check_choice(tuple(PRESETS), preset=preset)
    given = {"strength": strength, "scale": scale, "blur": blur, "sigma": sigma}
    chosen = PRESETS[preset] | {name: value for name, value in given.items() if value is not None}
    check_in_range(0, 2, strength=chosen["strength"])
    check_in_range(0, 1, blur=chosen["blur"], noise=noise, flip=flip, grayscale=grayscale)
    if channels is not None:
        check_count(channels=channels)
        if channels not in (1, 3):
            raise ValueError(f"channels: expected 1 (gray) or 3 (color), got {channels}")
    _check_interval(0.0, 1.0, scale=chosen["scale"])
    _check_interval(0.0, math.inf, ratio=ratio, sigma=chosen["sigma"])
    check_positive(**{"scale[0]": chosen["scale"][0], "ratio[0]": ratio[0]})

    transforms: list[Transform] = [partial(random_resized_crop, scale=chosen["scale"], ratio=ratio, flip=flip)]
    if channels is not None:
        transforms.insert(0, partial(_only, channels=channels))
    if chosen["strength"] > 0 or grayscale > 0:
        transforms.append(partial(simclr_color, strength=chosen["strength"], grayscale=grayscale))
    if chosen["blur"] > 0:
        transforms.append(partial(gaussian_blur, sigma=chosen["sigma"], probability=chosen["blur"]))
    if noise > 0:
        transforms.append(partial(gaussian_noise, std=noise))
    return Compose(transforms)


# ---------------------------------------------------------------------------------------------------- helpers


def _uniform(n: int, interval: tuple[float, float], images: Tensor, generator: Generator | None) -> Tensor:
    """Draw ``(n,)`` numbers uniformly; always in float32, so that the draws do not depend on the dtype."""
    where = images.device if generator is None else generator.device
    drawn = torch.rand(n, generator=generator, device=where).mul_(interval[1] - interval[0]).add_(interval[0])
    return drawn.to(images.device, images.dtype)


def _coin(n: int, probability: float, images: Tensor, generator: Generator | None) -> Tensor:
    """Draw ``(n,)`` truth values; probability 0 is never and 1 is always."""
    where = images.device if generator is None else generator.device
    return (torch.rand(n, generator=generator, device=where) < probability).to(images.device)


def _pixel_centers(length: int, images: Tensor) -> Tensor:
    """Centers of ``length`` pixels on the interval from -1 to 1, as ``grid_sample`` counts them."""
    return ((2 * torch.arange(length, device=images.device) + 1) / length - 1).to(images.dtype)


def _sample(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read the images bilinearly at columns ``x (n, w')`` and rows ``y (n, h')``; outside, the border."""
    n, height, width = len(images), y.shape[1], x.shape[1]
    grid = torch.empty(n, height, width, 2, device=images.device, dtype=images.dtype)
    grid[..., 0] = x[:, None, :]
    grid[..., 1] = y[:, :, None]
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _rotate_hue(turn: Tensor) -> Tensor:
    """Rotations ``(n, 3, 3)`` of the colors about the gray axis (1, 1, 1) by ``turn (n,)`` full circles."""
    cos, sin = torch.cos(2 * math.pi * turn)[:, None, None], torch.sin(2 * math.pi * turn)[:, None, None]
    # Rodrigues' formula; the cross product with the unit vector of the gray axis as a matrix.
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]).to(turn) / math.sqrt(3)
    return cos * torch.eye(3).to(turn) + sin * cross + (1 - cos) / 3


def _mix_channels(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Apply a matrix ``(n, c, c)`` to the colors of every pixel and add ``shift (n,)``."""
    n, channels = images.shape[:2]
    pixels = images.reshape(n, channels, -1)  # (n, c, h w)
    return torch.bmm(matrix, pixels).add_(shift[:, None, None]).reshape(images.shape)


_CHECKED: ContextVar[bool] = ContextVar("images_were_checked", default=False)


@contextmanager
def _values_were_checked() -> Iterator[None]:
    """Inside, values are not looked at again: views of finite images are finite, and reading makes a GPU wait."""
    token = _CHECKED.set(True)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def _check_images(images: Tensor, generator: Generator | None) -> tuple[int, int, int, int]:
    check_generator(generator)
    if isinstance(images, Tensor) and not images.is_floating_point():
        raise TypeError(f"images: expected a floating dtype, got {images.dtype}; use images.float() / 255")
    if isinstance(images, Tensor) and (images.ndim != 4 or images.numel() == 0):
        raise ValueError(f"images: expected a batch of shape (n, c, h, w), got {tuple(images.shape)}")
    if not _CHECKED.get():
        check_shapes(images=(images, "n c h w"))
    n, channels, height, width = images.shape
    return n, channels, height, width


def _only(images: Tensor, channels: int, *, generator: Generator | None = None) -> Tensor:
    if images.shape[1] != channels:
        raise ValueError(f"images: expected {channels} channels, as channels= says, got shape {tuple(images.shape)}")
    return images


def _check_interval(low: float, high: float, **intervals: tuple[float, float]) -> None:
    for name, interval in intervals.items():
        try:
            start, end = interval
        except (TypeError, ValueError):
            raise TypeError(f"{name}: expected a pair (smallest, largest), got {interval!r}") from None
        check_in_range(low, high, **{f"{name}[0]": start, f"{name}[1]": end})
        start, end = float(start), float(end)
        if start > end:
            raise ValueError(f"{name}: expected a pair (smallest, largest), got {interval!r}")


def _pair(size: int | tuple[int, int], name: str) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"{name}: expected one number or (height, width), got {size!r}")
    check_count(0, **{name: pair[0]})
    check_count(0, **{name: pair[1]})
    if min(pair) < 1:
        raise ValueError(f"{name}: expected at least 1 pixel, got {size!r}")
    return pair[0], pair[1]


def _describe(transform: Transform) -> str:
    if isinstance(transform, partial):
        arguments = ", ".join(f"{name}={value!r}" for name, value in transform.keywords.items())
        return f"{transform.func.__name__}({arguments})"
    return getattr(transform, "__name__", repr(transform))
