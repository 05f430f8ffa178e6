"""Residual blocks of dilated convolutions over time, and the segments of time that are hidden from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_generator, check_in_range, check_shapes

__all__ = ["DilatedEncoder", "draw_segments"]


class DilatedEncoder(nn.Module):
    """An encoder of series that keeps the time axis: ``(B, T, F)`` to ``(B, T, dim)``."""

    def __init__(
        self, in_channels: int = 1, hidden: int = 64, dim: int = 320, depth: int = 10, dropout: float = 0.1
    ) -> None:
        """Set the sizes; the defaults are COMET's.

        Args:
            in_channels: F.
            hidden: channels of the blocks.
            dim: channels C of the encoding.
            depth: number of blocks before the last; block i looks 2 ** i steps far.
            dropout: of the encoding, in [0, 1].
        """
        super().__init__()
        check_count(in_channels=in_channels, hidden=hidden, dim=dim)
        check_count(1, 30, depth=depth)  # a dilation of 2 ** 30 looks beyond any series
        check_in_range(0, 1, dropout=dropout)
        self.project = nn.Linear(in_channels, hidden)
        self.blocks = nn.ModuleList(_block(hidden, hidden, 2**i) for i in range(depth))
        self.last, self.skip = _block(hidden, dim, 2**depth), nn.Conv1d(hidden, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode ``(B, T, F)``; where ``hidden`` ``(B, T)`` is true, the *projected* input is zero."""
        check_shapes(x=(x, f"b t {self.project.in_features}"), hidden=(hidden, "b t?", bool))
        h = self.project(x.to(self.project.weight.dtype))  # (B, T, hidden)
        if hidden is not None:
            h = h.masked_fill(hidden[..., None], 0.0)  # after the projection: a zero that no input can produce
        h = h.mT
        for block in self.blocks:
            h = h + block(h)
        return self.dropout((self.skip(h) + self.last(h)).mT)


def draw_segments(
    n: int, length: int, *, segments: int = 5, share: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Which time stamps are hidden: segments of ``share * length`` at random places, which may overlap.

    Args:
        n: windows.
        length: time stamps T.
        segments: per window.
        share: of a window that one segment covers, in [0, 1].
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(n, T)`` boolean, true where hidden.
    """
    check_count(n=n, length=length, segments=segments)
    check_in_range(0, 1, share=share)
    check_generator(generator)
    width = int(share * length)
    start = torch.randint(length - width + 1, (n, segments, 1), generator=generator)
    t = torch.arange(length)
    return ((t >= start) & (t < start + width)).any(1)


def _block(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    def conv(a: int, b: int) -> nn.Conv1d:
        return nn.Conv1d(a, b, 3, padding=dilation, dilation=dilation)

    return nn.Sequential(nn.GELU(), conv(in_channels, out_channels), nn.GELU(), conv(out_channels, out_channels))
