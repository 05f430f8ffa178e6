"""Clusters of limited size: nobody is left out, no cluster is too large, and similar rows come first."""

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.core.subclasses import fill_evenly, size_limited_clusters, split_classes, subclass_counts

Z, CENTERS = draw(20, 4), draw(4, 4, seed=1)


def test_a_pass_takes_the_most_similar_free_pair_again_and_again():
    similarity = normalize(Z) @ normalize(CENTERS).T
    pairs = [(float(similarity[i, k]), i, k) for i in range(20) for k in range(4)]
    assigned, sizes = {}, [0] * 4
    while len(assigned) < 20:
        _, row, center = max(p for p in pairs if p[1] not in assigned and sizes[p[2]] < 6)
        assigned[row] = center
        sizes[center] += 1
    found = size_limited_clusters(Z, CENTERS, 6)
    assert found.assignment.tolist() == [assigned[i] for i in range(20)]
    assert found.sizes.tolist() == sizes and torch.equal(found.centers, CENTERS)


def test_with_room_for_all_every_row_goes_to_its_nearest_center():
    nearest = (normalize(Z) @ normalize(CENTERS).T).argmax(1)
    assert torch.equal(size_limited_clusters(Z, CENTERS, 20).assignment, nearest)


def test_updates_move_centers_to_means_and_an_empty_cluster_keeps_its_own():
    far = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    found = size_limited_clusters(*far, 2, updates=1)
    assert torch.allclose(found.centers[0], normalize(far[0][:2]).mean(0)) and torch.equal(found.centers[2], far[1][2])
    assert found.sizes.tolist() == [2, 1, 0]


def test_clusters_do_not_depend_on_scale_rotation_and_order():
    turn = torch.linalg.qr(draw(4, 4, seed=2)).Q
    plain, order = size_limited_clusters(Z, CENTERS, 6, updates=3), torch.randperm(20)
    turned = size_limited_clusters(3 * Z @ turn, CENTERS @ turn, 6, updates=3)
    shuffled = size_limited_clusters(Z[order], CENTERS, 6, updates=3)
    assert torch.equal(turned.assignment, plain.assignment)
    assert torch.equal(shuffled.assignment, plain.assignment[order])


def test_even_clusters_differ_by_at_most_one():
    sizes = fill_evenly(draw(22, 4)).bincount()
    assert sizes.sum() == 22 and sizes.max() - sizes.min() <= 1


def test_counts_follow_their_rules():
    counts = torch.tensor([500, 55, 5])
    assert subclass_counts(counts, 10).tolist() == [50, 6, 1]  # as few as hold a class
    for clustering in ("kmeans", "even"):
        assert subclass_counts(counts, 10, clustering=clustering).tolist() == [50, 5, 1]
    assert subclass_counts(torch.tensor([500, 55, 20]), 10).tolist() == [25, 3, 1]  # the smallest class is the limit


@pytest.mark.parametrize("clustering", ["size_limited", "kmeans", "even"])
def test_subclasses_stay_inside_their_class(clustering):
    labels = torch.tensor([0] * 50 + [1] * 12)
    generator = torch.Generator().manual_seed(0)
    ids = split_classes(draw(62, 5), labels, clustering=clustering, generator=generator)
    count = 5 if clustering == "size_limited" else 4
    assert set(ids[:50].tolist()) == set(range(count)) and set(ids[50:].tolist()) == {count}
    sizes = ids[:50].bincount()
    if clustering == "size_limited":
        assert sizes.max() <= 12
    if clustering == "even":
        assert sizes.max() - sizes.min() <= 1
    again = split_classes(draw(62, 5), labels, clustering=clustering, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ids, again)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: size_limited_clusters(Z, CENTERS, 4), "max_size"),
        (lambda: size_limited_clusters(Z, CENTERS[:, :2], 6), "centers"),
        (lambda: size_limited_clusters(Z, CENTERS, 6, updates=-1), "updates"),
        (lambda: split_classes(Z, torch.zeros(19).long()), "labels"),
        (lambda: split_classes(Z, torch.ones(20).long()), "class_counts|labels"),
        (lambda: subclass_counts(torch.tensor([3, 0])), "class_counts"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
