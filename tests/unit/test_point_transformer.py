"""Patches cover a cloud evenly; tokens do not depend on the order of points."""

import math

import pytest
import torch

from cl_teach.models.point_transformer import (
    PatchEmbedding,
    PositionedBlocks,
    farthest_points,
    make_patches,
    position_embedding,
)

POINTS = torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0))


def test_every_new_center_is_the_farthest_from_those_before():
    chosen = farthest_points(POINTS, 6)
    for cloud, picks in zip(POINTS, chosen, strict=True):
        assert picks[0] == 0
        for k in range(1, 6):
            nearest = [min(float((x - cloud[j]).norm()) for j in picks[:k]) for x in cloud]
            assert nearest[picks[k]] == pytest.approx(max(nearest))


def test_all_points_can_be_centers_once_and_duplicates_do_no_harm():
    assert farthest_points(POINTS, 40).sort(1).values.tolist() == [list(range(40))] * 3
    assert farthest_points(torch.zeros(2, 5, 3), 3).shape == (2, 3)


def test_centers_are_spread_better_than_random_points():
    centers = make_patches(POINTS, 8, 4).centers
    far = torch.cdist(centers, centers) + 1e3 * torch.eye(8)
    near = torch.cdist(POINTS[:, :8], POINTS[:, :8]) + 1e3 * torch.eye(8)
    assert far.amin((1, 2)).mean() > 1.5 * near.amin((1, 2)).mean()


def test_a_patch_holds_the_nearest_points_seen_from_its_center():
    centers, patches = make_patches(POINTS, 5, 7)
    assert centers.shape == (3, 5, 3) and patches.shape == (3, 5, 7, 3)
    for b in range(3):
        for g in range(5):
            wanted = sorted(float((x - centers[b, g]).norm()) for x in POINTS[b])[:7]
            assert sorted(patches[b, g].norm(dim=1).tolist()) == pytest.approx(wanted, abs=1e-6)
            absolute = patches[b, g] + centers[b, g]
            assert torch.cdist(absolute, POINTS[b]).amin(1).max() < 1e-3
    assert patches.norm(dim=-1).amin(2).max() == 0  # the center itself


def test_half_precision_finds_the_same_centers_and_keeps_its_dtype():
    low = POINTS.half()
    centers, patches = make_patches(low, 5, 7)
    right = make_patches(low.float(), 5, 7)
    assert centers.dtype == patches.dtype == torch.float16
    assert torch.equal(centers.float(), right.centers)
    assert torch.allclose(patches.float(), right.points, atol=1e-2)


def test_patches_do_not_notice_where_the_cloud_lies():
    centers, patches = make_patches(POINTS, 5, 7)
    moved = make_patches(POINTS + 2, 5, 7)
    assert torch.allclose(moved.points, patches, atol=1e-5) and torch.allclose(moved.centers, centers + 2, atol=1e-5)


def test_a_token_does_not_depend_on_the_order_of_its_points():
    torch.manual_seed(0)
    embed, patches = PatchEmbedding(6), make_patches(POINTS, 5, 7).points
    shuffled = patches[:, :, torch.randperm(7)]
    assert embed(patches).shape == (3, 5, 6)
    assert torch.allclose(embed(shuffled), embed(patches), atol=1e-6)
    changed = patches.clone()
    changed[0, 0, 0] += 1
    assert not torch.allclose(embed(changed)[0, 0], embed(patches)[0, 0])
    assert torch.equal(embed(changed)[1:], embed(patches)[1:])


def test_blocks_carry_order_only_through_positions():
    torch.manual_seed(0)
    blocks, tokens, order = PositionedBlocks(8, 2, 2), torch.randn(2, 5, 8), torch.randperm(5)
    positions = position_embedding(8)(torch.randn(2, 5, 3))
    out = blocks(tokens, positions)
    assert torch.allclose(blocks(tokens[:, order], positions[:, order]), out[:, order], atol=1e-5)
    assert not torch.allclose(blocks(tokens, positions[:, order]), out, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: farthest_points(POINTS[0], 3), "points"),
        (lambda: farthest_points(POINTS, 41), "count"),
        (lambda: farthest_points(POINTS * math.nan, 3), "points"),
        (lambda: make_patches(POINTS, 0, 3), "groups"),
        (lambda: make_patches(POINTS, 3, 41), "size"),
        (lambda: PatchEmbedding(0), "dim"),
        (lambda: PatchEmbedding(4)(POINTS), "patches"),
        (lambda: PositionedBlocks(4, 0, 1), "depth"),
        (lambda: PositionedBlocks(4, 1, 3), "heads"),
        (lambda: make_patches(POINTS.mT, 2, 3), r"points: .* in the last dimension"),
        (lambda: make_patches(torch.cat([POINTS, POINTS], 2), 2, 3), r"points: .* keep the coordinates"),
        (lambda: PositionedBlocks(4, 1, 1)(torch.ones(1, 2, 4), torch.ones(1, 3, 4)), "positions"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
