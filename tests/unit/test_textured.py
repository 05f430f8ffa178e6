"""Textured scenes, and the encoders of maps that are trained on them."""

from __future__ import annotations

import torch

from cl_teach.datasets import textured_scenes
from cl_teach.models import MapEncoder


def test_a_cell_that_is_background_is_plain_and_one_that_is_not_is_textured() -> None:
    scenes = textured_scenes(200, seed=3)
    cells = scenes.images.unflatten(3, (5, 4)).unflatten(2, (5, 4)).transpose(3, 4)  # (n, 3, 5, 5, 4, 4)
    spread = cells.flatten(4).std(4).amax(1)  # (n, 5, 5)
    corner = spread[:, 0, 0][scenes.cells[:, 0, 0] == 0]
    assert corner.median() < 0.1 < spread[scenes.cells > 0].median()


def test_the_textures_are_those_of_the_world_and_the_pictures_those_of_the_seed() -> None:
    first, other_world = textured_scenes(4, world=1, seed=2), textured_scenes(4, world=5, seed=2)
    assert torch.equal(first.cells, other_world.cells)
    assert not torch.equal(first.images, other_world.images)
    assert not torch.equal(first.cells, textured_scenes(4, world=1, seed=3).cells)
    assert torch.equal(first.images, textured_scenes(4, world=1, seed=2).images)


def test_most_cells_are_background_and_all_six_textures_occur() -> None:
    cells = textured_scenes(300).cells
    counts = torch.bincount(cells.flatten(), minlength=7).double() / cells.numel()
    assert len(counts) == 7 and counts[0] > 0.4 and counts[1:].min() > 0.03


def test_a_cell_sees_as_many_pixels_as_reach_says() -> None:
    for wide in (False, True):
        encoder = MapEncoder(wide=wide).double()
        with torch.no_grad():
            for layer in encoder.layers:
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.fill_(0.1)  # no path is switched off
        images = torch.rand(1, 3, 84, 84, dtype=torch.float64, requires_grad=True)
        encoder.eval()(images)[0, :, 10, 10].sum().backward()
        assert images.grad is not None
        seen = images.grad[0].abs().sum(0).sum(0) > 0  # columns
        assert int(seen.sum()) == encoder.reach == (39 if wide else 15)
