"""Vectors in which several things are mixed."""

from __future__ import annotations

import pytest
import torch

from cl_teach.datasets import crossed_classes, draw_scene_pairs, graded_factors


def test_a_louder_factor_has_larger_coordinates_and_equal_factors_give_nearly_equal_points() -> None:
    found = graded_factors(200, sizes=(2, 2), amplitudes=(2.0, 0.5), seed=1)
    first, second = found.points.split(20, dim=1)
    assert first.square().mean().sqrt() == pytest.approx(2.0, abs=0.05)
    assert second.square().mean().sqrt() == pytest.approx(0.5, abs=0.05)
    same = (found.factors == found.factors[0]).all(1)
    assert (found.points[same] - found.points[0]).abs().max() < 0.5


def test_worlds_differ_and_seeds_of_one_world_share_its_prototypes() -> None:
    one, other = graded_factors(50, seed=1), graded_factors(50, seed=2)
    a, b = (x.points[(x.factors[:, 0] == 0)].mean(0)[:20] for x in (one, other))
    assert (a - b).norm() < 0.3
    assert (graded_factors(50, world=1, seed=1).points - one.points).norm() > 10
    with pytest.raises(ValueError, match="sizes"):
        graded_factors(5, sizes=(2, 2), amplitudes=(1.0,))


def test_classes_cross_shape_and_color_and_without_noise_a_class_is_a_point() -> None:
    found = crossed_classes(400, shapes=3, colors=2, noise=0.0)
    assert sorted(found.labels.unique().tolist()) == list(range(6))
    assert torch.equal(found.labels // 2, found.shapes) and torch.equal(found.labels % 2, found.colors)
    mine = found.points[found.labels == 4]
    assert torch.equal(mine, mine[:1].expand_as(mine)) and found.points.abs().max() <= 1


def test_the_wrong_variations_are_those_that_say_so_and_a_right_one_keeps_the_thing() -> None:
    draws = torch.Generator().manual_seed(0)
    pairs = draw_scene_pairs(400, things=3, places=4, wrong=0.3, generator=draws)
    assert pairs.wrong.float().mean() == pytest.approx(0.3, abs=0.06) and pairs.things.max() == 2
    bright = pairs.first.flatten(1).mean(), pairs.second.flatten(1).mean()
    assert abs(bright[0] - bright[1]) < 0.05  # both have four bright patches
    center = [images[:, 0, 4:8, 4:8].flatten(1) for images in (pairs.first, pairs.second)]
    apart = (center[0] - center[1]).norm(dim=1)
    assert apart[~pairs.wrong].max() < apart[pairs.wrong].min() + 2 and apart[pairs.wrong].mean() > 4
    with pytest.raises(ValueError, match="wrong"):
        draw_scene_pairs(5, wrong=1.5)
