"""Labels with structure: blobs, curves, turned digits."""

from __future__ import annotations

import math

import pytest
import torch

from cl_teach.datasets import curve_points, nested_blobs, turn, turned_digits


def test_a_class_is_made_of_its_blobs() -> None:
    found = nested_blobs((3, 1), each=5, dim=2)
    assert found.points.shape == (20, 2) and found.classes.bincount().tolist() == [15, 5]
    assert [found.classes[found.blobs == b].unique().item() for b in range(4)] == [0, 0, 0, 1]
    assert torch.equal(nested_blobs(seed=3).points, nested_blobs(seed=3).points)


def test_without_nuisance_equal_labels_are_equal_points_and_near_labels_are_near() -> None:
    y = torch.tensor([1.0, 1.0, 1.1, 5.0])
    x = curve_points(y, nuisance=0, seed=2)
    assert torch.equal(x[0], x[1]) and (x[0] - x[2]).norm() < (x[0] - x[3]).norm()


def test_a_quarter_turn_is_a_quarter_turn_and_none_is_none() -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = turn(images, torch.tensor([0.0, 90.0]))
    assert torch.allclose(turned[0], images[0], atol=1e-5)
    assert torch.allclose(turned[1], images[1].rot90(1, (1, 2)), atol=1e-5)


def test_large_angles_are_rare_unless_they_are_not() -> None:
    rare, even = turned_digits(count=2000, decay=12.0).angles, turned_digits(count=2000, decay=math.inf).angles
    assert (rare.abs() > 40).float().mean() < 0.06 < (even.abs() > 40).float().mean()
    assert rare.abs().max() <= 60 and torch.equal(rare, rare.round())


def test_disjoint_parts_share_no_digit() -> None:
    first, second = (turned_digits(count=1500, largest=1, part=part) for part in ((0.0, 0.5), (0.5, 1.0)))
    upright = [found.images[found.angles == 0].flatten(1) for found in (first, second)]
    assert min(map(len, upright)) > 300 and torch.cdist(*upright).min() > 1e-3
    for part in ((0.5, 0.5), (0.6, 0.4), (0.0, 1.1), (0.0, 1e-6)):
        with pytest.raises(ValueError, match="part"):
            turned_digits(count=3, part=part)
