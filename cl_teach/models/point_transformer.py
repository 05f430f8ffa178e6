"""A small transformer for point clouds: cut a cloud into patches, make a token of each, let the tokens attend.

Centers are spread by farthest point sampling, a patch is a center's nearest neighbors, counted from the center. So a
patch holds form only, and where it lies enters once more as a position embedding, before every block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_embeddings, check_in_range, check_positive, check_same_shape

__all__ = ["PatchEmbedding", "Patches", "PositionedBlocks", "farthest_points", "make_patches", "position_embedding"]


class Patches(NamedTuple):
    """``centers (B, G, 3)`` and ``points (B, G, S, 3)``, the latter relative to their centers."""

    centers: Tensor
    points: Tensor


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices ``(B, count)`` of points that lie far apart: start with the first, add the farthest from all chosen.

    Args:
        points: ``(B, N, 3)``.
        count: from 1 to N.

    Raises:
        TypeError: not floating.
        ValueError: not three-dimensional, NaN, ``count`` out of range.
    """
    check_embeddings(ndim=3, points=points)
    check_in_range(1, points.shape[1], count=count)
    rows = torch.arange(len(points), device=points.device)
    chosen = [torch.zeros_like(rows)]
    nearest = torch.full_like(points[..., 0], torch.inf)  # (B, N) squared distance to the nearest chosen point
    while len(chosen) < count:
        last = points[rows, chosen[-1]][:, None]
        nearest = torch.minimum(nearest, (points - last).square().sum(-1))
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, 1)


def make_patches(points: Tensor, groups: int, size: int) -> Patches:
    """Cut clouds ``(B, N, 3)`` into G patches of the S points nearest to a center, which is one of them; they overlap.

    Raises:
        TypeError: not floating.
        ValueError: not three-dimensional, NaN, more groups or a larger size than points.
    """
    check_embeddings(ndim=3, points=points)
    check_in_range(1, points.shape[1], groups=groups, size=size)
    rows = torch.arange(len(points), device=points.device)[:, None]
    centers = points[rows, farthest_points(points, groups)]  # (B, G, 3)
    nearest = torch.cdist(centers, points).topk(size, largest=False).indices  # (B, G, S)
    return Patches(centers, points[rows[..., None], nearest] - centers[:, :, None])


class PatchEmbedding(nn.Module):
    """A small PointNet: ``(B, G, S, 3)`` to ``(B, G, dim)``, blind to the order of a patch's points."""

    def __init__(self, dim: int) -> None:
        """Make two pairs of layers; between them every point hears of its whole patch."""
        super().__init__()
        check_positive(dim=dim)
        self.first = nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))
        self.second = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Embed every patch."""
        check_embeddings(ndim=4, patches=patches)
        h = self.first(patches)  # (B, G, S, dim)
        whole = h.amax(2, keepdim=True).expand_as(h)
        return self.second(torch.cat([whole, h], -1)).amax(2)


def position_embedding(dim: int) -> nn.Sequential:
    """A network from centers ``(..., 3)`` to ``(..., dim)``."""
    check_positive(dim=dim)
    return nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))


class PositionedBlocks(nn.Module):
    """Transformer blocks on tokens ``(B, T, dim)``; the positions are added again before every block.

    The last output is not normalized.
    """

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        """Make ``depth`` pre-norm blocks without dropout."""
        super().__init__()
        check_positive(dim=dim, depth=depth, heads=heads)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Attend; ``positions`` has the shape of ``tokens``."""
        check_embeddings(ndim=3, tokens=tokens)
        check_same_shape(tokens=tokens, positions=positions)
        for block in self.blocks:
            tokens = block(tokens + positions)
        return tokens
