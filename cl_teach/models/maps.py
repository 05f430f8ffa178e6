"""An encoder whose output is a map: one vector for every cell of the picture."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.checks import check_count, check_flag, check_shapes
from .apply import apply_network

__all__ = ["MapEncoder"]

STEM = 16  # channels of the first layer


class MapEncoder(nn.Module):
    """Three convolutions of 3x3, the first two with stride 2: a cell of 4x4 pixels sees 15 by 15 (*local*).

    With three more, *wide*, it sees 39 by 39. Each is followed by batch normalization and ReLU.

    Example:
        >>> import torch
        >>> encoder = MapEncoder(wide=True)
        >>> encoder.reach, encoder(torch.rand(2, 3, 20, 20)).shape
        (39, torch.Size([2, 32, 5, 5]))
    """

    def __init__(self, in_channels: int = 3, channels: int = 32, *, wide: bool = False) -> None:
        """Make the layers; ``channels`` are those of the map."""
        super().__init__()
        check_count(in_channels=in_channels, channels=channels)
        check_flag(wide=wide)
        self.in_channels, self.channels = in_channels, channels
        sizes = [(in_channels, STEM, 2), (STEM, channels, 2)] + (4 if wide else 1) * [(channels, channels, 1)]
        layers: list[nn.Module] = []
        self.reach, stride = 1, 1  # pixels that a cell sees, and pixels between two cells
        for old, new, step in sizes:
            layers += [nn.Conv2d(old, new, 3, step, 1, bias=False), nn.BatchNorm2d(new), nn.ReLU()]
            self.reach, stride = self.reach + 2 * stride, stride * step
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` images to ``(n, channels, h / 4, w / 4)`` maps."""
        check_shapes(images=(images, f"n {self.in_channels} h w"))
        return apply_network(self.layers, "n c h w", images=images)
