"""Encoders small enough for a laptop: a convolutional one for images, a perceptron for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["MLP", "ConvEncoder"]


class ConvEncoder(nn.Module):
    """Three strided convolutions: images to features, small and fast enough for a laptop's processor.

    Each convolution halves the image's sides, so most of the work is done on few pixels. The last map is flattened
    rather than averaged: in small pictures that are centered, as garments and digits are, *where* something is says a
    lot, and an average over places would forget it. There is no linear layer on top; it would act as a first layer of
    the projection head, and features below the head transfer better.

    Args:
        in_channels: 1 for gray, 3 for color.
        image_size: height and width of the images, at least 8.
        width: channels after the first convolution; the other two have twice as many.

    Attributes:
        feature_dim: width of the features, 2 * width * (image_size / 8 rounded up) ** 2.

    Shape:
        ``(n, in_channels, image_size, image_size)`` to ``(n, feature_dim)``.

    Raises:
        ValueError: a size out of range; at a call, images of another shape.
        TypeError: at a call, images not floating.
    """

    def __init__(self, in_channels: int = 1, image_size: int = 28, width: int = 16) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("image_size", image_size, 8),
            ("width", width, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self.in_channels, self.image_size = in_channels, image_size
        side = -(-image_size // 8)  # three times half, rounded up: 28 -> 14 -> 7 -> 4 and 32 -> 16 -> 8 -> 4
        self.feature_dim = 2 * width * side * side
        self.convolutions = nn.Sequential(
            _halve(in_channels, width),
            _halve(width, 2 * width),
            _halve(2 * width, 2 * width),
        )
        # Channels beside one another in memory: the same numbers, a fifth faster on a processor.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``(n, in_channels, image_size, image_size)`` as ``(n, feature_dim)``."""
        wanted = (self.in_channels, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            raise ValueError(
                f"images: expected shape (n, {', '.join(map(str, wanted))}), got {tuple(images.shape)}; "
                f"this encoder was made with in_channels={self.in_channels} and image_size={self.image_size}"
            )
        if not images.is_floating_point():
            raise TypeError(f"images: expected a floating dtype, got {images.dtype}; use images.float() / 255")
        maps = self.convolutions(images)  # (n, 2 width, side, side)
        return maps.flatten(1)  # (n, feature_dim)


class MLP(nn.Module):
    """Linear layers with batch normalization and ReLU between them; nothing after the last.

    Args:
        sizes: widths from the input to the output, at least two; ``[d, k]`` is one linear layer.
        batch_norm: normalize the hidden layers.

    Shape:
        ``(..., sizes[0])`` to ``(..., sizes[-1])``; with batch normalization ``(n, sizes[0])``.

    Raises:
        ValueError: fewer than two sizes, or one below 1; at a call, an input of another width.
    """

    def __init__(self, sizes: Sequence[int], batch_norm: bool = True) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: expected at least two positive widths, got {self.sizes}")
        layers: list[nn.Module] = []
        for i, (in_dim, out_dim) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            last = i == len(self.sizes) - 2
            # Batch normalization subtracts the mean, so a bias before it would have no effect.
            layers.append(nn.Linear(in_dim, out_dim, bias=last or not batch_norm))
            if not last:
                layers += [nn.BatchNorm1d(out_dim), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, sizes[0])`` to ``(n, sizes[-1])``."""
        check_width(x, self.sizes[0], "x")
        return self.layers(x)


def check_width(x: Tensor, width: int, name: str) -> None:
    """Check the last dimension of a network's input.

    Raises:
        ValueError: it is not ``width``.
    """
    if x.ndim < 2 or x.shape[-1] != width:
        raise ValueError(f"{name}: expected shape (n, {width}), got {tuple(x.shape)}")


def _halve(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve the sides of the map (rounded up) and change the number of channels."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
