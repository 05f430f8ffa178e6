"""Encoders: a convolutional one small enough for a laptop, a perceptron for the rest, and the ResNet-18 of the papers.

All of them, and the heads, take ``norm=``. Batch normalization is what the papers use; it makes every row of a batch
depend on the others, so a batch cannot be embedded in parts (`cl_teach.training.in_chunks`), and several processes do
not do quite what one does. Group normalization treats every row by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..core.checks import FLOATING, check_choice, check_count, check_shapes

__all__ = ["MLP", "ConvEncoder", "cifar_resnet18"]

NORMS = ("batch", "group", "layer", "none")
GROUPS, LEAST = 32, 4  # as many groups as Wu and He (2018) use, where each has at least so many channels


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
        norm: ``"batch"``, ``"group"``, ``"layer"`` (one group) or ``"none"``.

    Attributes:
        feature_dim: width of the features, 2 * width * (image_size / 8 rounded up) ** 2.

    Shape:
        ``(n, in_channels, image_size, image_size)`` to ``(n, feature_dim)``.

    """

    def __init__(self, in_channels: int = 1, image_size: int = 28, width: int = 16, *, norm: str = "batch") -> None:
        super().__init__()
        check_count(in_channels=in_channels, width=width)
        check_count(8, image_size=image_size)
        check_choice(NORMS, norm=norm)
        self.in_channels, self.image_size = in_channels, image_size
        side = -(-image_size // 8)  # three times half, rounded up: 28 -> 14 -> 7 -> 4 and 32 -> 16 -> 8 -> 4
        self.feature_dim = 2 * width * side * side
        self.convolutions = nn.Sequential(
            _halve(in_channels, width, norm),
            _halve(width, 2 * width, norm),
            _halve(2 * width, 2 * width, norm),
        )
        # Channels beside one another in memory: the same numbers, a fifth faster on a processor.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Encode ``(n, in_channels, image_size, image_size)`` as ``(n, feature_dim)``."""
        wanted = (self.in_channels, self.image_size, self.image_size)
        if isinstance(images, Tensor) and not images.is_floating_point():
            raise TypeError(f"images: expected a floating dtype, got {images.dtype}; use images.float() / 255")
        images = ready(images, "images", self)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            raise ValueError(
                f"images: expected shape (n, {', '.join(map(str, wanted))}), got {tuple(images.shape)}; "
                f"this encoder was made with in_channels={self.in_channels} and image_size={self.image_size}"
            )
        _check_rows(len(images) * math.ceil(self.image_size / 8) ** 2, "images", self)
        maps = self.convolutions(images)  # (n, 2 width, side, side)
        return maps.flatten(1)  # (n, feature_dim)


class MLP(nn.Module):
    """Linear layers with a normalization and ReLU between them; nothing after the last.

    Args:
        sizes: widths from the input to the output, at least two; ``[d, k]`` is one linear layer.
        norm: of the hidden layers: ``"batch"``, ``"group"``, ``"layer"`` or ``"none"``.

    Shape:
        ``(n, sizes[0])`` to ``(n, sizes[-1])``; without a normalization, or with ``"layer"``, any leading dimensions.
    """

    def __init__(self, sizes: Sequence[int], norm: str = "batch") -> None:
        super().__init__()
        if not isinstance(sizes, Sequence) or isinstance(sizes, str):
            raise TypeError(f"sizes: expected a list of widths, got {type(sizes).__name__}")
        check_count(0, **{f"sizes[{i}]": size for i, size in enumerate(sizes)})
        check_choice(NORMS, norm=norm)
        self.sizes = tuple(int(size) for size in sizes)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: expected at least two positive widths, got {self.sizes}")
        layers: list[nn.Module] = []
        for i, (in_dim, out_dim) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            last = i == len(self.sizes) - 2
            # Batch normalization subtracts the mean, so a bias before it would have no effect.
            layers.append(nn.Linear(in_dim, out_dim, bias=last or norm != "batch"))
            if not last:
                layers += [*_normalization(norm, out_dim, images=False), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, sizes[0])`` to ``(n, sizes[-1])``."""
        return self.layers(of_width(x, self.sizes[0], "x", self))


def cifar_resnet18(in_channels: int = 3, *, norm: str = "batch") -> nn.Module:
    """ResNet-18 for pictures of 32x32 pixels, without its classifier: the encoder that papers on CIFAR-10 compare with.

    torchvision's network with the usual stem for small pictures: the first convolution is 3x3 with stride 1, and there
    is no pooling after it.

    Args:
        in_channels: 1 for gray, 3 for color.
        norm: ``"batch"`` or ``"group"``.

    Returns:
        A network from ``(n, in_channels, h, w)`` to ``(n, 512)``; its ``feature_dim`` says 512.

    Raises:
        ImportError: torchvision is not installed.

    Source:
        He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition (2016); the stem as in Chen et al., A
        Simple Framework for Contrastive Learning of Visual Representations (2020), appendix B.9.
    """
    check_count(in_channels=in_channels)
    check_choice(("batch", "group"), norm=norm)
    try:
        from torchvision.models import resnet18
    except ImportError as error:
        raise ImportError("cifar_resnet18 needs torchvision: pip install torchvision") from error
    layer = nn.BatchNorm2d if norm == "batch" else partial(_group_norm, images=True)
    network = resnet18(norm_layer=layer)
    network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    network.feature_dim = 512
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision does elsewhere
    return network


def of_width(x: Tensor, width: int, name: str, network: nn.Module) -> Tensor:
    """Rows for a network whose first layer takes ``width`` numbers."""
    x = ready(x, name, network)
    if x.ndim < 2 or x.shape[-1] != width:
        raise ValueError(f"{name}: expected shape (n, {width}), got {tuple(x.shape)}")
    if x.ndim > 2 and any(isinstance(m, nn.BatchNorm1d | nn.GroupNorm) for m in network.modules()):
        raise ValueError(f"{name}: expected shape (n, {width}) for this normalization, got {tuple(x.shape)}")
    _check_rows(len(x), name, network)
    return x


def ready(x: Tensor, name: str, network: nn.Module) -> Tensor:
    """Floating numbers in the dtype of the network's weights; under autocast torch decides.

    Values are looked at on a CPU only: on a GPU that would make every network wait, and the loss looks at them.
    """
    if isinstance(x, Tensor) and not x.is_cpu and not x.is_meta:
        if x.dtype not in FLOATING:
            raise TypeError(f"{name}: expected a floating dtype, got {x.dtype}; convert it with .float()")
    else:
        check_shapes(**{name: (x, "...")})
    return x if torch.is_autocast_enabled(x.device.type) else x.to(next(network.parameters()).dtype)


def _check_rows(count: int, name: str, network: nn.Module) -> None:
    """Batch normalization in training divides by the deviation of at least two numbers."""
    if count < 2 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in network.modules()):
        raise ValueError(f"{name}: expected at least two rows for batch normalization in training, got {count}")


def _halve(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """Halve the sides of the map (rounded up) and change the number of channels."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1, bias=norm == "none"),
        *_normalization(norm, out_channels, images=True),
        nn.ReLU(),
    )


def _normalization(norm: str, width: int, *, images: bool) -> list[nn.Module]:
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(width) if images else nn.BatchNorm1d(width)]
    if norm == "layer":
        return [nn.GroupNorm(1, width) if images else nn.LayerNorm(width)]
    return [_group_norm(width, images=images)]


def _group_norm(width: int, *, images: bool) -> nn.GroupNorm:
    """At most 32 groups, each of at least four channels: a group of one number would always be zero."""
    groups = next(g for g in range(min(GROUPS, max(width // LEAST, 1)), 0, -1) if width % g == 0)
    if not images and width // groups < 2:
        raise ValueError(f"norm: 'group' needs hidden layers of at least 2 units, got {width}")
    return nn.GroupNorm(groups, width)
