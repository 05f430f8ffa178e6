"""A small transformer for point clouds: cut a cloud into patches, make a token of each, let the tokens attend.

Centers are spread by farthest point sampling, a patch is a center's nearest neighbors, counted from the center. So a
patch holds form only, and where it lies enters once more as a position embedding, before every block. A `MaskedBranch`
imagines the patches that were hidden.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_shapes, finite_result

__all__ = [
    "MaskedBranch",
    "MaskedPatches",
    "PatchEmbedding",
    "Patches",
    "PositionedBlocks",
    "check_points",
    "farthest_points",
    "make_patches",
    "position_embedding",
    "take_tokens",
    "to_token_order",
    "visible_first",
]


class Patches(NamedTuple):
    """``centers (B, G, 3)`` and ``points (B, G, S, 3)``, the latter relative to their centers."""

    centers: Tensor
    points: Tensor


class MaskedPatches(NamedTuple):
    """``tokens (B, G, C)`` before the last normalization, in token order; ``patches (B, n, S, 3)`` of masked tokens."""

    tokens: Tensor
    patches: Tensor


def check_points(points: Tensor, *, name: str = "points") -> None:
    """Check clouds ``(B, N, 3)``; what often comes instead gets its own sentence."""
    check_shapes(**{name: (points, "b n d")})
    if points.shape[2] != 3:
        came = f"got shape {tuple(points.shape)}"
        if points.shape[1] == 3:
            raise ValueError(f"{name}: expected coordinates in the last dimension, (B, N, 3), {came}; use .mT")
        extra = "; keep the coordinates, [..., :3]" if points.shape[2] > 3 else ""
        raise ValueError(f"{name}: expected three coordinates a point, (B, N, 3), {came}{extra}")


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices ``(B, count)`` of points that lie far apart: start with the first, add the farthest from all chosen.

    Args:
        points: ``(B, N, 3)``.
        count: from 1 to N.
    """
    check_points(points)
    check_count(1, points.shape[1], count=count)
    points = _wide(points)
    rows = torch.arange(len(points), device=points.device)
    chosen = [torch.zeros_like(rows)]
    nearest = torch.full_like(points[..., 0], math.inf)  # (B, N) squared distance to the nearest chosen point
    while len(chosen) < count:
        last = points[rows, chosen[-1]][:, None]
        nearest = torch.minimum(nearest, (points - last).square().sum(-1))
        chosen.append(nearest.argmax(1))
    return torch.stack(chosen, 1)


def make_patches(points: Tensor, groups: int, size: int) -> Patches:
    """Cut clouds ``(B, N, 3)`` into G patches of the S points nearest to a center, which is one of them; they overlap.

    Groups and size are at most N. Neighbors are found in at least float32; the patches have the dtype of the points.
    """
    check_points(points)
    check_count(1, points.shape[1], groups=groups, size=size)
    rows = torch.arange(len(points), device=points.device)[:, None]
    centers = points[rows, farthest_points(points, groups)]  # (B, G, 3)
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        distance = torch.cdist(_wide(centers), _wide(points))
        nearest = finite_result(distance, points=points).topk(size, largest=False).indices  # (B, G, S)
    return Patches(centers, points[rows[..., None], nearest] - centers[:, :, None])


def visible_first(masks: Tensor) -> Tensor:
    """Decoder order ``(B, G)``: indices of the visible tokens, then of the masked ones, each increasing."""
    check_shapes(masks=(masks, "b g", bool))
    return masks.long().argsort(dim=1, stable=True)


def to_token_order(decoded: Tensor, masks: Tensor) -> Tensor:
    """Undo `visible_first`: features ``(B, G, C)`` of a decoder in the order of the tokens."""
    check_shapes(decoded=(decoded, "b g c"), masks=(masks, "b g", bool))
    return take_tokens(decoded, visible_first(masks).argsort(1))


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """``(B, T, C)``: the tokens ``(B, G, C)`` at ``index (B, T)``."""
    check_shapes(tokens=(tokens, "b g c"), index=(index, "b t", int))
    index = index.long()
    low, high = index.min(), index.max()
    if low < 0 or high >= tokens.shape[1]:
        raise ValueError(f"index: expected indices below {tokens.shape[1]}, got {int(low if low < 0 else high)}")
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class PatchEmbedding(nn.Module):
    """A small PointNet: ``(B, G, S, 3)`` to ``(B, G, dim)``, blind to the order of a patch's points."""

    def __init__(self, dim: int) -> None:
        """Make two pairs of layers; between them every point hears of its whole patch."""
        super().__init__()
        check_count(dim=dim)
        self.first = nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))
        self.second = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, patches: Tensor) -> Tensor:
        """Embed every patch."""
        check_shapes(patches=(patches, "b g s 3"))
        h = self.first(patches.to(_dtype(self)))  # (B, G, S, dim)
        whole = h.amax(2, keepdim=True).expand_as(h)
        return self.second(torch.cat([whole, h], -1)).amax(2)


def position_embedding(dim: int) -> nn.Sequential:
    """A network from centers ``(..., 3)`` to ``(..., dim)``."""
    check_count(dim=dim)
    return nn.Sequential(nn.Linear(3, dim), nn.GELU(), nn.Linear(dim, dim))


class PositionedBlocks(nn.Module):
    """Transformer blocks on tokens ``(B, T, dim)``; the positions are added again before every block.

    The last output is not normalized.
    """

    def __init__(self, dim: int, depth: int, heads: int) -> None:
        """Make ``depth`` pre-norm blocks without dropout; ``heads`` divides ``dim``."""
        super().__init__()
        check_count(dim=dim, depth=depth, heads=heads)
        if dim % heads:
            raise ValueError(f"heads: expected a divisor of dim={dim}, got {heads}")
        self.dim = dim
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Attend; ``positions`` has the shape of ``tokens``."""
        check_shapes(tokens=(tokens, f"b t {self.dim}"), positions=(positions, f"b t {self.dim}"))
        return finite_result(self.attend(tokens, positions), tokens=tokens, positions=positions)

    def attend(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`forward` without checks, for networks that check under their own names."""
        tokens, positions = tokens.to(_dtype(self)), positions.to(_dtype(self))
        for block in self.blocks:
            tokens = block(tokens + positions)
        return tokens


class MaskedBranch(nn.Module):
    """What imagines hidden patches: class token, mask token, decoder and head."""

    def __init__(self, dim: int, size: int, depth: int, heads: int) -> None:
        """Make a decoder of ``depth`` blocks and a head that draws ``size`` points for a token."""
        super().__init__()
        check_count(dim=dim, size=size)
        self.class_token, self.class_position, self.mask_token = (
            nn.Parameter(0.02 * torch.randn(1, 1, dim)) for _ in range(3)
        )
        self.position, self.decoder = position_embedding(dim), PositionedBlocks(dim, depth, heads)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 3 * size)

    def forward(self, visible: Tensor, centers: Tensor, masks: Tensor) -> MaskedPatches:
        """Decode encoded visible tokens ``(B, G - n, C)``, given all centers ``(B, G, 3)`` and the masks ``(B, G)``."""
        shape = f"b v {self.decoder.dim}"
        check_shapes(visible=(visible, shape), centers=(centers, "b g 3"), masks=(masks, "b g", bool))
        count = centers.shape[1] - visible.shape[1]  # n
        if count < 1 or not bool((masks.sum(1) == count).all()):
            hidden = masks.sum(1).tolist()
            raise ValueError(
                f"visible, centers, masks: expected to hide G - {visible.shape[1]} of G = {centers.shape[1]} "
                f"tokens in every cloud, at least one; got masks that hide {hidden}"
            )
        places = take_tokens(centers, visible_first(masks)).to(_dtype(self))
        tokens = torch.cat([visible.to(_dtype(self)), self.mask_token.expand(len(visible), count, -1)], 1)
        decoded = finite_result(self.decoder.attend(tokens, self.position(places)), visible=visible, centers=centers)
        patches = self.head(self.norm(decoded[:, -count:])).unflatten(2, (-1, 3))
        return MaskedPatches(to_token_order(decoded, masks), patches)


def _dtype(network: nn.Module) -> torch.dtype:
    return next(network.parameters()).dtype


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
