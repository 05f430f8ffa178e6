"""Pictures of textured squares on a plain ground, with the class of every cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import check_count

__all__ = ["TexturedScenes", "textured_scenes"]

SIDE, CELL, OBJECT, OBJECTS = 20, 4, 8, 3  # pixels of a picture, a cell and an object; objects in a picture
TEXTURES, TILE, NOISE = 6, 4, 0.08  # kinds of objects, pixels after which a texture repeats, standard deviation


class TexturedScenes(NamedTuple):
    """Pictures ``(n, 3, 20, 20)`` and the class of each of their cells ``(n, 5, 5)``, 0 where it is background."""

    images: Tensor
    cells: Tensor


def textured_scenes(n: int, *, world: int = 0, seed: int = 0) -> TexturedScenes:
    """Three squares of 8 by 8 pixels, each with one of six textures and its hue, on a ground of any color.

    They may cover one another. A cell of 4 by 4 pixels has the class of most of its pixels.

    Args:
        n: how many pictures.
        world: draws the six textures.
        seed: draws the pictures.

    Example:
        >>> scenes = textured_scenes(3)
        >>> scenes.images.shape, scenes.cells.shape, int(scenes.cells.max()) <= 6
        (torch.Size([3, 3, 20, 20]), torch.Size([3, 5, 5]), True)
    """
    check_count(n=n)
    check_count(0, world=world, seed=seed)
    fixed, draws = torch.Generator().manual_seed(world), torch.Generator().manual_seed(seed)
    hue, pattern = torch.rand(TEXTURES, 3, 1, 1, generator=fixed), torch.rand(TEXTURES, 1, TILE, TILE, generator=fixed)
    copies = SIDE // TILE + 1  # one more than fits: a texture may begin anywhere
    tiles = (0.6 * hue + 0.7 * (pattern - 0.3)).clamp(0, 1).repeat(1, 1, copies, copies)
    images = torch.rand(n, 3, 1, 1, generator=draws).expand(n, 3, SIDE, SIDE).clone()
    labels = torch.zeros(n, SIDE, SIDE, dtype=torch.long)
    place = torch.arange(SIDE)
    for _ in range(OBJECTS):
        kind = torch.randint(TEXTURES, (n,), generator=draws)
        corner = torch.randint(SIDE - OBJECT + 1, (2, n), generator=draws)
        shift = torch.randint(TILE, (2, n), generator=draws)
        rows, columns = (
            (place >= corner[k][:, None]) & (place < corner[k][:, None] + OBJECT) for k in range(2)
        )  # (n, side)
        inside = rows[:, :, None] & columns[:, None]
        y, x = (place + shift[k][:, None] for k in range(2))
        paint = tiles[kind[:, None, None], :, y[:, :, None], x[:, None]].permute(0, 3, 1, 2)
        images = torch.where(inside[:, None], paint, images)
        labels = torch.where(inside, kind[:, None, None] + 1, labels)
    images = (images + NOISE * torch.randn(images.shape, generator=draws)).clamp(0, 1)
    share = F.avg_pool2d(F.one_hot(labels, TEXTURES + 1).permute(0, 3, 1, 2).float(), CELL)
    return TexturedScenes(images, share.argmax(1))
