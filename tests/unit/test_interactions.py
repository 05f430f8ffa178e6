"""Generated interactions, graphs and sequences: the planted truth is really in them."""

import pytest
import torch

from cl_teach.datasets.interactions import community_graph, interactions, item_sequences


def test_densities_inside_and_outside_are_as_asked():
    data = interactions(600, 400, 4, inside=0.25, outside=0.02, spurious=0.0)
    same = data.user_groups[:, None] == data.item_groups[None, :]
    assert data.train[same].double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert data.train[~same].double().mean().item() == pytest.approx(0.02, abs=0.002)


def test_spurious_meetings_are_between_groups_and_as_many_as_asked():
    data = interactions(spurious=0.2)
    same = data.user_groups[:, None] == data.item_groups[None, :]
    assert not (data.spurious & same).any()
    assert (data.spurious & ~data.train).sum() == 0
    assert data.spurious.sum().item() == round(0.2 * (data.train & ~data.spurious).sum().item())


def test_held_out_meetings_are_in_the_group_and_not_in_train():
    whole, split = interactions(held_out=0.0), interactions(held_out=0.25)
    same = split.user_groups[:, None] == split.item_groups[None, :]
    assert not (split.test & split.train).any() and not (split.test & ~same).any()
    assert torch.equal(split.test | split.train, whole.train)
    assert split.test.sum().item() == round(0.25 * (whole.train & same).sum().item())


def test_pareto_makes_popularity_uneven_around_one():
    even, uneven = interactions(), interactions(pareto=1.5)
    assert torch.equal(even.popularity, torch.ones(200))
    assert uneven.popularity.mean().item() == pytest.approx(1.0, abs=1e-5)
    popular = uneven.popularity.argsort(descending=True)
    degree = uneven.train.sum(0)
    assert degree[popular[:20]].sum() > 3 * degree[popular[-20:]].sum()


def test_groups_have_equal_sizes_up_to_one():
    counts = interactions(31, 20, 6).user_groups.bincount()
    assert counts.max() - counts.min() <= 1


def test_graph_lists_every_edge_in_both_directions_and_no_loops():
    edges = community_graph().edges
    half = edges.shape[1] // 2
    assert torch.equal(edges[:, :half].flip(0), edges[:, half:])
    assert (edges[0, :half] < edges[1, :half]).all()
    assert edges.unique(dim=1).shape == edges.shape


def test_graph_densities_and_attributes_follow_the_blocks():
    graph = community_graph((150, 150, 150), (0.3, 0.15, 0.05), 0.02, features=30, on=0.4, off=0.1)
    u, v = graph.edges
    inner = graph.labels[u] == graph.labels[v]
    for block, density in enumerate((0.3, 0.15, 0.05)):
        found = (inner & (graph.labels[u] == block)).sum().item() / (150 * 149)
        assert found == pytest.approx(density, abs=0.01)
    assert (~inner).sum().item() / (450 * 300) == pytest.approx(0.02, abs=0.003)
    own = graph.labels[:, None] == torch.arange(30)[None, :] % 3
    assert graph.features[own].mean().item() == pytest.approx(0.4, abs=0.02)
    assert graph.features[~own].mean().item() == pytest.approx(0.1, abs=0.02)


def test_sequences_follow_successors_and_stay_in_topics():
    data = item_sequences(2000, 60, 6, 9, stay=0.8, follow=0.5)
    walk = torch.cat([data.sequences, data.targets[:, None]], 1)
    assert walk.shape == (2000, 10) and walk.min() == 1 and walk.max() == 60
    follows = (walk[:, 1:] - 1 == (walk[:, :-1] + 5) % 60).double().mean().item()
    stays = (data.topics[walk[:, 1:]] == data.topics[walk[:, :-1]]).double().mean().item()
    inside = 0.8 + 0.2 / 6
    assert stays == pytest.approx(0.5 + 0.5 * inside, abs=0.01)
    assert follows == pytest.approx(0.5 + 0.5 * inside / 10, abs=0.01)


def test_taste_brings_a_user_back_to_one_topic():
    plain, own = (item_sequences(500, 60, 6, 9, stay=0.2, follow=0.2, taste=taste) for taste in (0.0, 0.9))

    def favorite(data):  # share of the sequence that the most frequent topic has
        topics = data.topics[data.sequences]
        return torch.stack([(topics == k).double().mean(1) for k in range(6)]).amax(0).mean()

    assert favorite(own) > favorite(plain) + 0.2


@pytest.mark.parametrize("make", [interactions, community_graph, item_sequences])
def test_same_seed_same_data_other_seed_other_data(make):
    assert all(torch.equal(a, b) for a, b in zip(make(seed=3), make(seed=3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(make(seed=3), make(seed=4), strict=True))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: interactions(3, 20, 6), "groups"),
        (lambda: interactions(inside=1.5), "inside"),
        (lambda: interactions(pareto=1.0), "pareto"),
        (lambda: interactions(6, 6, 2, outside=1.0, inside=1.0), "spurious"),
        (lambda: community_graph((10, 0)), "sizes"),
        (lambda: community_graph((10, 10), (0.1, 0.2, 0.3)), "inside"),
        (lambda: community_graph(outside=-0.1), "outside"),
        (lambda: item_sequences(items=15, topics=10), "items"),
        (lambda: item_sequences(stay=2.0), "stay"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
