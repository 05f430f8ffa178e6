"""Pictures of things in places, patch by patch, with known foreground."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_generator, check_in_range, check_labels, check_shapes

__all__ = ["ScenePairs", "Scenes", "draw_scene_pairs", "draw_scenes"]

PATCH, SIDE = 4, 12  # pixels
PROTOTYPES = 100  # of things, and as many of places
BRIGHTNESS, NOISE = 0.75, 0.3  # of the foreground above gray, of the background below it; standard deviation


class Scenes(NamedTuple):
    """Pictures ``(n, 1, 12, 12)`` of nine patches, and which patches ``(n, 9)`` are foreground, boolean."""

    images: Tensor
    foreground: Tensor


def draw_scenes(things: Tensor, places: Tensor, sizes: Tensor, *, generator: torch.Generator | None = None) -> Scenes:
    """Bright patches show a thing, dark ones a place; the center is always foreground. Prototypes are fixed.

    Args:
        things: ``(n,)`` classes of the foregrounds, below 100.
        places: ``(n,)`` classes of the backgrounds, below 100.
        sizes: ``(n,)`` patches of foreground, 1 to 8.
        generator: on the CPU; draws which patches and the noise.

    Example:
        >>> scenes = draw_scenes(torch.tensor([0, 1]), torch.tensor([5, 5]), torch.tensor([1, 8]))
        >>> scenes.images.shape, scenes.foreground.sum(1).tolist()
        (torch.Size([2, 1, 12, 12]), [1, 8])
    """
    check_shapes(things=(things, "n", int), places=(places, "n", int), sizes=(sizes, "n", int))
    n, dim, patches = len(things), PATCH**2, (SIDE // PATCH) ** 2
    things = check_labels(things, n, name="things", num_classes=PROTOTYPES)
    places = check_labels(places, n, name="places", num_classes=PROTOTYPES)
    sizes = check_labels(sizes, n, name="sizes")
    check_entries(1, patches - 1, sizes=sizes)
    check_generator(generator)
    fixed = torch.Generator().manual_seed(0)
    tables = torch.randn(2, PROTOTYPES, dim, generator=fixed)
    tables = tables - tables.mean(2, keepdim=True)  # brightness carries no class
    order = torch.rand(n, patches, generator=generator)
    order[:, patches // 2] = -1  # the center comes first
    foreground = order.argsort(1).argsort(1) < sizes.cpu()[:, None]  # (n, 9)
    front = tables[0][things.cpu()][:, None] + BRIGHTNESS  # (n, 1, 16)
    back = tables[1][places.cpu()][:, None] - BRIGHTNESS
    noise = NOISE * torch.randn(n, patches, dim, generator=generator)
    tokens = torch.where(foreground[..., None], front, back) + noise
    images = nn.functional.fold(tokens.mT, (SIDE, SIDE), PATCH, stride=PATCH)
    return Scenes(images.to(things.device), foreground.to(things.device))


class ScenePairs(NamedTuple):
    """Pictures and a variation of each, ``first`` and ``second (n, 1, 12, 12)``.

    Attributes:
        things: ``(n,)`` what the first picture shows.
        wrong: ``(n,)`` whether the second one shows something else, boolean.
        places: ``(n, 2)`` where.
    """

    first: Tensor
    second: Tensor
    things: Tensor
    wrong: Tensor
    places: Tensor


def draw_scene_pairs(
    n: int,
    things: int = 6,
    places: int = 20,
    *,
    wrong: float = 0.4,
    size: int = 4,
    generator: torch.Generator | None = None,
) -> ScenePairs:
    """What a generator of views makes of a scene: the thing in another place, and sometimes another thing.

    Args:
        n: how many pairs.
        things: kinds of things, 2 to 100.
        places: kinds of places, at most 100.
        wrong: share of the variations that lost the thing.
        size: patches of foreground, of nine.
        generator: on the CPU.

    Example:
        >>> pairs = draw_scene_pairs(5, wrong=0.0)
        >>> pairs.second.shape, pairs.wrong.any().item()
        (torch.Size([5, 1, 12, 12]), False)
    """
    check_count(n=n)
    check_count(2, PROTOTYPES, things=things)
    check_count(1, PROTOTYPES, places=places)
    check_count(1, 8, size=size)
    check_in_range(0, 1, wrong=wrong)
    check_generator(generator)
    shown = torch.randint(things, (n,), generator=generator)
    lost = torch.rand(n, generator=generator) < wrong
    other = torch.where(lost, (shown + torch.randint(1, things, (n,), generator=generator)) % things, shown)
    where = torch.randint(places, (n, 2), generator=generator)
    sizes = torch.full((n,), size)
    first = draw_scenes(shown, where[:, 0], sizes, generator=generator).images
    second = draw_scenes(other, where[:, 1], sizes, generator=generator).images
    return ScenePairs(first, second, shown, lost, where)
