"""Chen et al. (2023): strong communities count more."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize, nt_xent
from cl_teach.datasets.interactions import community_graph
from cl_teach.graphs.csgcl import (
    CSGCL,
    attribute_drop_probability,
    bonus_weight,
    community_strength,
    detect_communities,
    drop_attributes,
    drop_weak_edges,
    edge_keep_probability,
    edge_weights,
    team_up,
)
from cl_teach.models.graph import gcn_matrix
from cl_teach.training import fit

Z1, Z2, S = draw(6, 4), draw(6, 4, seed=1), 0.1 * draw(6, seed=2)
GRAPH = community_graph((40, 40, 40), (0.4, 0.12, 0.12), 0.02)
STRENGTH = community_strength(GRAPH.edges, GRAPH.labels)
WEIGHTS = edge_weights(GRAPH.edges, GRAPH.labels, STRENGTH)
INNER = GRAPH.labels[GRAPH.edges[0]] == GRAPH.labels[GRAPH.edges[1]]


def test_team_up_equals_the_loops():
    z1, z2, gamma, tau, total = normalize(Z1), normalize(Z2), 2.0, 0.3, 0.0
    for x, y in ((z1, z2), (z2, z1)):
        for i in range(6):

            def phi(a, b, i, j):
                return math.exp((a[i] @ b[j] + gamma * (S[i] + S[j])) / tau)

            bottom = sum(phi(x, y, i, j) for j in range(6)) + sum(phi(x, x, i, j) for j in range(6) if j != i)
            total -= math.log(phi(x, y, i, i) / bottom) / 12
    assert team_up(Z1, Z2, S, gamma, tau).item() == pytest.approx(total, rel=1e-12)
    assert team_up(Z1, Z2, S, gamma, tau, reduction="none").mean().item() == pytest.approx(total, rel=1e-12)


def test_probabilities_equal_the_loops():
    x = (draw(120, 5, seed=3) > 0).double()
    nodes = STRENGTH[GRAPH.labels]
    raw = []
    for u, v in GRAPH.edges.T.tolist():
        a, b = GRAPH.labels[u], GRAPH.labels[v]
        raw.append(float(STRENGTH[a] if a == b else -(STRENGTH[a] + STRENGTH[b])))
    scaled = [(w - min(raw)) / (max(raw) - min(raw)) for w in raw]
    mean = sum(scaled) / len(scaled)
    keep = [min(1.0, max(0.3, w / mean * 0.6)) for w in scaled]
    assert edge_keep_probability(WEIGHTS, 0.4, threshold=0.7).tolist() == pytest.approx(keep, rel=1e-12)
    logs = [math.log(sum(float(x[i, a] * nodes[i]) for i in range(120))) for a in range(5)]
    q = [(max(logs) - v) / (max(logs) - min(logs)) for v in logs]
    drop = [min(0.7, 0.4 * v / (sum(q) / 5)) for v in q]
    assert attribute_drop_probability(x, nodes, 0.4, threshold=0.7).tolist() == pytest.approx(drop, rel=1e-9)


def test_strengths_sum_to_the_modularity_of_networkx():
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph(GRAPH.edges.T.tolist())
    parts = [set(GRAPH.labels.eq(c).nonzero()[:, 0].tolist()) & set(graph) for c in range(3)]
    assert STRENGTH.sum().item() == pytest.approx(networkx.community.modularity(graph, parts), abs=1e-12)


def test_louvain_finds_the_planted_blocks():
    pytest.importorskip("networkx")
    graph = community_graph((30, 30), 0.4, 0.02)
    found = detect_communities(graph.edges, 60, generator=torch.Generator().manual_seed(0))
    assert (found[:, None] == found).equal(graph.labels[:, None] == graph.labels)


def test_without_bonus_or_with_equal_strengths_it_is_nt_xent():
    expected = nt_xent(Z1, Z2, 0.3)
    assert torch.allclose(team_up(Z1, Z2, S, 0.0, 0.3), expected)
    assert torch.allclose(team_up(Z1, Z2, torch.full_like(S, 0.7), 5.0, 0.3), expected)


def test_a_constant_on_all_strengths_changes_nothing_and_neither_do_scale_order_and_swap():
    loss = team_up(Z1, Z2, S, 2.0)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(team_up(Z1, Z2, S + 3, 2.0), loss)
    assert torch.allclose(team_up(4 * Z1, Z2, S, 2.0), loss)
    assert torch.allclose(team_up(Z2, Z1, S, 2.0), loss)
    assert torch.allclose(team_up(Z1[order], Z2[order], S[order], 2.0), loss)


def test_a_stronger_node_is_pushed_harder_as_a_negative():
    def push(strength):
        z2 = Z2.clone().requires_grad_()
        team_up(Z1, z2, strength, 2.0, reduction="none")[0].backward()
        return z2.grad[3].norm()

    stronger = S.clone()
    stronger[3] += 0.5
    assert push(stronger) > 1.2 * push(S)


def test_schedule_rises_by_a_hundredth_an_epoch_between_zero_and_its_maximum():
    assert [bonus_weight(t, 100, 0.5) for t in (1, 100, 101, 150, 151, 500)] == [0, 0, 0.01, 0.5, 0.5, 0.5]


def test_edges_of_the_strongest_community_are_kept_most():
    keep = edge_keep_probability(WEIGHTS, 0.5)
    assert 0 <= keep.min() and keep.max() <= 1
    strongest = INNER & (GRAPH.labels[GRAPH.edges[0]] == STRENGTH.argmax())
    assert (keep[strongest] == keep.max()).all()
    assert keep[INNER].min() > keep[~INNER].max()
    assert keep.min() == 0 and keep.mean() <= 0.5 + 1e-12  # the weakest edge never survives


def test_communal_dropping_leaves_a_graph_of_higher_modularity_than_uniform_dropping():
    generator = torch.Generator().manual_seed(0)
    keep = edge_keep_probability(WEIGHTS, 0.5)
    uniform = keep.mean().expand(len(keep))

    def modularity(probability):
        kept = [drop_weak_edges(GRAPH.edges, probability, generator=generator) for _ in range(20)]
        return sum(community_strength(e, GRAPH.labels).sum().item() for e in kept) / 20

    assert modularity(keep) > modularity(uniform) + 0.05


def test_dropping_keeps_edges_paired_and_follows_the_probabilities():
    generator = torch.Generator().manual_seed(0)
    shuffled = GRAPH.edges[:, torch.randperm(GRAPH.edges.shape[1], generator=generator)]
    keep = torch.full((shuffled.shape[1],), 0.3, dtype=torch.float64)
    kept = drop_weak_edges(shuffled, keep, generator=generator)
    assert kept.unique(dim=1).equal(kept.flip(0).unique(dim=1))
    assert kept.shape[1] / len(keep) == pytest.approx(0.3, abs=0.05)
    apart = drop_weak_edges(shuffled, keep, undirected=False, generator=generator)
    assert not apart.unique(dim=1).equal(apart.flip(0).unique(dim=1))
    x = drop_attributes(torch.ones(3, 4000), torch.full((4000,), 0.25), generator=generator)
    assert (x == x[:1]).all() and x.mean().item() == pytest.approx(0.75, abs=0.03)


def test_attributes_of_strong_communities_are_dropped_less():
    own = torch.nn.functional.one_hot(GRAPH.labels, 3).double()
    drop = attribute_drop_probability(own, STRENGTH[GRAPH.labels], 0.3)
    assert drop.argmin() == STRENGTH.argmax() and drop.argmax() == STRENGTH.argmin()


def test_negative_and_missing_votes_leave_probabilities_finite():
    x = torch.tensor([[1.0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.float64)
    s = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64)
    drop = attribute_drop_probability(x, s, 0.2)  # votes 0.3, -0.1, 0.2, none
    assert torch.isfinite(drop).all() and drop.argmax() == 1 and drop[0] == drop[3] == 0
    assert torch.allclose(attribute_drop_probability(x, -s.abs(), 0.2), torch.tensor(0.2).double())
    equal = edge_weights(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0]), torch.tensor([0.5]))
    assert torch.allclose(edge_keep_probability(equal, 0.2), torch.tensor(0.8))


def test_gradcheck_and_strengths_are_constants():
    inputs = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: team_up(a, b, S, 2.0), inputs)
    strength = S.clone().requires_grad_()
    team_up(*inputs, strength, 2.0).backward()
    assert strength.grad is None


def test_a_small_temperature_and_a_zero_row_stay_finite():
    z1 = Z1.float()
    z1[2] = 0
    z1.requires_grad_()
    loss = team_up(z1, Z2.float(), S.float(), 10.0, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z1.grad).all()


def test_propagation_of_a_path_is_as_by_hand():
    a = gcn_matrix(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
    r = 1 / math.sqrt(6)
    assert torch.allclose(a, torch.tensor([[1 / 2, r, 0], [r, 1 / 3, r], [0, r, 1 / 2]]))
    assert gcn_matrix(torch.zeros(2, 0, dtype=torch.long), 3).equal(torch.eye(3))  # all edges dropped


def test_training_lowers_the_loss_and_groups_the_blocks():
    graph = community_graph(seed=1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = CSGCL(graph.features, graph.edges, graph.labels, start=50)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, weight_decay=1e-5)

    def gap():
        with torch.no_grad():
            z = model()
        z = normalize(z - z.mean(0))
        cosine, same = z @ z.T, graph.labels[:, None] == graph.labels
        return (cosine[same].mean() - cosine[~same].mean()).item()

    before, losses = gap(), []
    for _ in range(100):
        loss = model.loss(generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    assert model.epoch == 101
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.5
    assert gap() > before + 0.15


def small():
    graph = community_graph((10, 10), 0.5, 0.1)
    torch.manual_seed(0)
    return CSGCL(graph.features, graph.edges, graph.labels, 8, start=1)


def test_training_goes_on_from_its_state_and_looking_does_not_count():
    there, fresh = small(), small()
    for model, epochs in ((there, 5), (fresh, 0)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for seed in range(epochs):
            model.loss(generator=torch.Generator().manual_seed(seed)).backward()
            optimizer.step()
            model.after_step()
    there(), there.eval().loss()
    fresh.load_state_dict(there.state_dict())
    assert fresh.epoch == 6
    losses = [m.loss(generator=torch.Generator().manual_seed(9)) for m in (there, fresh)]
    assert torch.equal(*losses) and torch.equal(there(), fresh())


def test_a_part_of_the_nodes_is_contrasted_among_itself_and_fit_trains_on_all():
    model = small()
    part = model.loss(torch.tensor([3, 1, 7]), generator=torch.Generator().manual_seed(0))
    assert part < model.loss(generator=torch.Generator().manual_seed(0))
    nodes = torch.arange(20)
    fit(model, model.loss, nodes, epochs=2, batch_size=20, after_step=model.after_step)
    assert model.epoch == 3


def test_half_precision_and_autocast_are_close_and_edges_may_be_of_any_width():
    exact = team_up(Z1, Z2, S, 2.0, 0.3)
    assert abs(team_up(Z1.bfloat16(), Z2.float(), S.half(), 2.0, 0.3) - exact) < 0.05
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(generator=torch.Generator().manual_seed(0))
    assert found.dtype == torch.float32 and abs(found - model.loss(generator=torch.Generator().manual_seed(0))) < 0.05
    for dtype in (torch.int32, torch.uint8):
        edges, labels = GRAPH.edges.to(dtype), GRAPH.labels.to(dtype)
        assert torch.equal(community_strength(edges, labels), STRENGTH)
        assert torch.equal(edge_weights(edges, labels, STRENGTH), WEIGHTS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: team_up(Z1, Z2[:4], S, 1.0), "z2"),
        (lambda: team_up(Z1, Z2, S[:4], 1.0), "node_strength"),
        (lambda: team_up(Z1, Z2, S, 1.0, 0.0), "temperature"),
        (lambda: team_up(Z1, Z2, S, -1.0), "gamma"),
        (lambda: team_up(Z1[:1], Z2[:1], S[:1], 1.0), "at least 2 rows"),
        (lambda: community_strength(GRAPH.edges, GRAPH.labels[:5]), "edges"),
        (lambda: community_strength(GRAPH.edges.T, GRAPH.labels), "edges"),
        (lambda: edge_weights(GRAPH.edges, GRAPH.labels, STRENGTH[:2]), "communities"),
        (lambda: edge_keep_probability(WEIGHTS, 1.5), "rate"),
        (lambda: attribute_drop_probability(Z1, S, 0.1, threshold=2.0), "threshold"),
        (lambda: drop_weak_edges(GRAPH.edges, WEIGHTS[:3]), "keep"),
        (lambda: drop_attributes(Z1, torch.tensor([0.1, 0.2])), "drop"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
