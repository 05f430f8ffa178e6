"""Point clouds: the points lie on their surfaces, evenly, and only form tells the shapes apart."""

import math

import pytest
import torch

from cl_teach.datasets.point_clouds import SHAPES, point_clouds

MANY = point_clouds(4, 20000, rotate=False, seed=0)


def test_shapes_take_turns():
    data = point_clouds(6, 50)
    assert data.points.shape == (6, 50, 3) and data.points.dtype == torch.float32
    assert data.labels.tolist() == [0, 1, 2, 3, 0, 1] and data.classes == SHAPES


def test_every_shape_fits_into_the_unit_ball_and_fills_most_of_it():
    largest = point_clouds(40, 500).points.norm(dim=-1).amax(1)
    assert largest.max() < 1 + 1e-5 and largest.min() > 0.9


def test_points_lie_on_their_surfaces():
    sphere, cube, torus, cone = MANY.points
    assert (sphere.norm(dim=1) - 1).abs().max() < 1e-5
    assert (cube.abs().amax(1) - 1 / math.sqrt(3)).abs().max() < 1e-5
    ring = sphere.new_tensor(0.7)
    assert ((torus[:, :2].norm(dim=1) - ring).square() + torus[:, 2].square() - 0.09).abs().max() < 1e-5
    radius, z = cone[:, :2].norm(dim=1), cone[:, 2]
    on_side = (radius - 0.8 * (0.6 - z) / 1.2).abs() < 1e-5
    on_base = (z + 0.6).abs() < 1e-5
    assert (on_side | on_base).all() and (radius <= 0.8 + 1e-5).all()


def test_points_are_uniform_on_their_surfaces():
    sphere, cube, torus, cone = MANY.points
    assert sphere.mean(0).abs().max() < 0.02
    assert (sphere.square().mean(0) - 1 / 3).abs().max() < 0.02  # the same spread along every axis
    faces = ((cube.abs() - 1 / math.sqrt(3)).abs() < 1e-5).float().mean(0)
    assert (faces - 1 / 3).abs().max() < 0.02
    outer = (torus[:, :2].norm(dim=1) > 0.7).float().mean()
    assert abs(outer - (0.5 + 0.3 / (math.pi * 0.7))) < 0.02  # Pappus: the outer half of the tube is larger
    base = ((cone[:, 2] + 0.6).abs() < 1e-5).float().mean()
    assert abs(base - 0.8 / (0.8 + math.hypot(0.8, 1.2))) < 0.02


def test_rotations_keep_distances_and_orientation():
    turned, still = point_clouds(8, 30, seed=1), point_clouds(8, 30, rotate=False, seed=1)
    assert torch.allclose(turned.points.norm(dim=-1), still.points.norm(dim=-1), atol=1e-5)
    first = torch.linalg.lstsq(still.points, turned.points).solution  # (8, 3, 3)
    assert torch.allclose(torch.linalg.det(first), torch.ones(8), atol=1e-4)
    assert (first - first[:1]).abs().amax((1, 2))[1:].min() > 0.1  # every cloud has its own


def test_a_seed_fixes_everything_and_noise_moves_points_off_the_surface():
    assert torch.equal(point_clouds(4, 20, noise=0.1, seed=3).points, point_clouds(4, 20, noise=0.1, seed=3).points)
    assert not torch.equal(point_clouds(4, 20, seed=3).points, point_clouds(4, 20, seed=4).points)
    noisy = point_clouds(1, 5000, noise=0.1).points[0]
    assert abs(noisy.norm(dim=1).std() - 0.1) < 0.01


@pytest.mark.parametrize("bad", [{"n": 0}, {"points": 0}, {"noise": -1.0}])
def test_bad_input_is_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        point_clouds(**bad)
