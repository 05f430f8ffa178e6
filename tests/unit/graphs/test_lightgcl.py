"""Cai et al. (2023): the second view is a low-rank reconstruction."""

import importlib
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.core.interactions import draw_unseen
from cl_teach.core.ranking import bpr
from cl_teach.datasets.interactions import interactions
from cl_teach.graphs.lightgcl import (
    LightGCL,
    LowRank,
    Sides,
    drop_edges,
    inner_product_contrast,
    layerwise_contrast,
    lightgcl,
    low_rank_view,
    propagate,
)
from cl_teach.models.graph import normalize_interactions

MODULE = importlib.import_module("cl_teach.graphs.lightgcl")  # the package has a function of that name
R = draw(6, 8) > 0.2
A = normalize_interactions(R).double()
VIEW = low_rank_view(A, 3)
U0, V0 = TABLES = Sides(draw(6, 4, seed=1), draw(8, 4, seed=2))
BATCH = torch.tensor([0, 2, 2, 5]), torch.tensor([1, 3, 0, 7]), torch.tensor([4, 4, 6, 2])


def test_todays_objective_equals_the_loops():
    local, glob = [[U0, V0]], [[U0, V0]]
    dense = VIEW.u @ VIEW.s.diag() @ VIEW.v.T
    for _ in range(2):
        u, i = local[-1]
        local.append([A @ i, A.T @ u])
        glob.append([dense @ i, dense.T @ u])
    E, G = ([sum(layer[side] for layer in stack) for side in (0, 1)] for stack in (local, glob))
    contrast = 0.0
    for side, nodes in ((0, BATCH[0].tolist()), (1, BATCH[1].tolist() + BATCH[2].tolist())):
        for n in nodes:
            bottom = sum(math.exp(G[side][n] @ E[side][k] / 0.3) for k in range(len(E[side])))
            own = min(5.0, max(-5.0, float(G[side][n] @ E[side][n] / 0.3)))
            contrast += (math.log(bottom + 1e-8) - own) / len(nodes)
    rank = 0.0
    for u, p, n in zip(*(x.tolist() for x in BATCH), strict=True):
        rank += math.log(1 + math.exp(-(E[0][u] @ E[1][p] - E[0][u] @ E[1][n]))) / 4
    got = lightgcl(propagate(TABLES, A, VIEW), BATCH, 0.3, weight=0.2, decay=0.01, form="inner product")
    assert got.contrast.item() == pytest.approx(float(contrast), rel=1e-12)
    assert got.recommendation.item() == pytest.approx(rank, rel=1e-12)
    norms = float((U0**2).sum() + (V0**2).sum())
    assert got.loss.item() == pytest.approx(rank + 0.2 * float(contrast) + 0.01 * norms, rel=1e-12)


def test_layerwise_form_equals_the_loops():
    users, items = torch.tensor([0, 3, 5]), torch.tensor([1, 2, 4, 7])
    dense = VIEW.u @ VIEW.s.diag() @ VIEW.v.T
    e, total = [U0, V0], [0.0, 0.0]

    def leaky(x):
        return torch.where(x > 0, x, 0.5 * x)

    for _ in range(2):
        z, g = [leaky(A @ e[1]), leaky(A.T @ e[0])], [leaky(dense @ e[1]), leaky(dense.T @ e[0])]
        for side, ids in enumerate((users, items)):
            for i in ids:
                p = [math.exp(normalize(z[side][i]) @ normalize(g[side][k]) / 0.4) for k in ids]
                own = math.exp(normalize(z[side][i]) @ normalize(g[side][i]) / 0.4)
                total[side] -= math.log(own / sum(p))
        e = [z[0] + e[0], z[1] + e[1]]
    layers = propagate(TABLES, A, VIEW, slope=0.5, residual=True)
    got = layerwise_contrast(layers, users, items, 0.4)
    assert [x.item() for x in got] == pytest.approx(total, rel=1e-12)
    mean = layerwise_contrast(layers, users, items, 0.4, reduction="mean")
    assert [x.item() for x in mean] == pytest.approx([total[0] / 3, total[1] / 4], rel=1e-12)


def test_full_rank_makes_both_views_equal_and_rank_zero_leaves_the_table():
    whole = propagate(TABLES, A, low_rank_view(A, 6))
    for e, g in zip(whole.local_sum(), whole.global_sum(), strict=True):
        assert torch.allclose(e, g, atol=1e-12)
    nothing = propagate(TABLES, A, low_rank_view(A, 0)).global_sum()
    assert torch.equal(nothing.users, U0) and torch.equal(nothing.items, V0)


def test_signs_of_the_factors_do_not_matter():
    sign = torch.tensor([1.0, -1, -1], dtype=torch.float64)
    flipped = propagate(TABLES, A, LowRank(VIEW.u * sign, VIEW.s, VIEW.v * sign)).global_sum()
    for a, b in zip(flipped, propagate(TABLES, A, VIEW).global_sum(), strict=True):
        assert torch.allclose(a, b, atol=1e-14)


def test_largest_singular_value_is_one_at_the_square_roots_of_the_degrees():
    assert torch.linalg.matrix_norm(A, 2).item() == pytest.approx(1.0, abs=1e-6)
    root_users, root_items = R.sum(1).double().sqrt(), R.sum(0).double().sqrt()
    assert torch.allclose(A @ root_items, root_users, atol=1e-6)


def test_users_and_items_without_an_interaction_stay_zero():
    lonely = R.clone()
    lonely[2], lonely[:, 5] = False, False
    a = normalize_interactions(lonely)
    assert torch.isfinite(a).all() and (a[2] == 0).all() and (a[:, 5] == 0).all()


def test_zero_tables_give_the_logarithms_of_the_counts():
    u, i = torch.zeros_like(U0), torch.zeros_like(V0)
    got = lightgcl(propagate(Sides(u, i), A, VIEW), BATCH, form="inner product")
    assert got.recommendation.item() == pytest.approx(math.log(2), rel=1e-12)
    assert got.contrast.item() == pytest.approx(math.log(6) + math.log(8), abs=1e-8)


def test_attraction_stops_where_the_positive_is_clipped():
    g = torch.tensor([[2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    e = (2 * g).clone().requires_grad_()
    inner_product_contrast(g, e, torch.tensor([0]), 0.2).backward()
    assert e.grad[0, 0] > 0.9 * 2 / 0.2  # descending pushes the node away from its own global embedding
    e.grad = None
    inner_product_contrast(0.01 * g, e, torch.tensor([0]), 0.2).backward()
    assert e.grad[0, 0] < 0


def test_layerwise_form_ignores_lengths_and_a_single_node_costs_nothing():
    layers = propagate(TABLES, A, VIEW)
    longer = layers._replace(local=[type(z)(3 * z.users, 0.2 * z.items) for z in layers.local])
    some = torch.tensor([0, 1, 4]), torch.tensor([2, 3])
    for a, b in zip(layerwise_contrast(layers, *some), layerwise_contrast(longer, *some), strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-12) and a > 0
    assert layerwise_contrast(layers, torch.tensor([3]), torch.tensor([3])).users.item() == pytest.approx(0, abs=1e-12)


def test_gradcheck():
    def total(u, i):
        return lightgcl(propagate(Sides(u, i), A, VIEW), BATCH, 0.5, weight=0.2, decay=0.1, form="inner product").loss

    def layerwise(u, i):
        layers = propagate(Sides(u, i), A, VIEW, slope=0.5, residual=True)
        return sum(layerwise_contrast(layers, torch.arange(6), torch.arange(8), 0.5))

    inputs = [(0.5 * x).requires_grad_() for x in (U0, V0)]
    assert torch.autograd.gradcheck(total, inputs) and torch.autograd.gradcheck(layerwise, inputs)


def test_a_small_temperature_stays_finite():
    u, i = (10 * U0.float()).requires_grad_(), (10 * V0.float()).requires_grad_()
    layers = propagate(Sides(u, i), A.float(), LowRank(*(x.float() for x in VIEW)))
    both = lightgcl(layers, BATCH, 0.005, form="inner product").loss + sum(
        layerwise_contrast(layers, torch.arange(6), torch.arange(8), 0.005)
    )
    both.backward()
    assert torch.isfinite(both) and torch.isfinite(u.grad).all() and torch.isfinite(i.grad).all()


def test_dropped_edges_keep_the_mean_and_unseen_items_are_unseen():
    ones = torch.ones(300, 300)
    dropped = drop_edges(ones, 0.25, generator=torch.Generator().manual_seed(0))
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    users = torch.arange(6).repeat(200)
    unseen = draw_unseen(R, users, generator=torch.Generator().manual_seed(0))
    assert not R[users, unseen].any()
    assert torch.bincount(6 * unseen + users, minlength=48).view(8, 6).T.bool().equal(~R)


def test_the_view_separates_signal_from_noise_best_at_the_number_of_groups():
    data = interactions(300, 200, 6, inside=0.25, outside=0.02, spurious=0.2)
    same = data.user_groups[:, None] == data.item_groups[None, :]
    a = normalize_interactions(data.train)
    ratio = {}
    for q in (1, 6, 20, 200):
        u, s, v = low_rank_view(a, q)
        weight = (u * s) @ v.T
        ratio[q] = (weight[same & ~data.train].mean() / weight[data.spurious].mean()).item()
    assert ratio[6] > 1.5 * max(ratio[1], ratio[20])
    assert abs(ratio[200]) < 1e-3  # all edges are back, and nothing else: so it is for an edge-dropped graph, too


def train(form, weight, data, seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = LightGCL(data.train, rank=8, temperature=0.5, weight=weight, decay=0.0, form=form)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    users, met = data.train.nonzero().T
    losses = []
    for _ in range(40):
        for rows in torch.randperm(len(users), generator=generator).split(1024):
            terms = model.loss(users[rows], met[rows], generator=generator)
            optimizer.zero_grad()
            terms.loss.backward()
            optimizer.step()
            losses.append(terms.loss.item())
    scores = model.scores().masked_fill(data.train, -math.inf)
    top = scores.topk(20, dim=1).indices
    hits = data.test.gather(1, top).sum(1) / data.test.sum(1).clamp_min(1)
    return losses, hits[data.test.any(1)].mean().item()


def test_training_with_the_layerwise_contrast_finds_more_held_out_items_than_without():
    data = interactions(300, 240, 8, inside=0.3, outside=0.01, spurious=0.2, held_out=0.25, pareto=2.0, seed=0)
    _, plain = train("layerwise", 0.0, data)
    losses, contrast = train("layerwise", 0.1, data)
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert contrast > plain + 0.03


def test_one_default_for_each_setting():
    model = LightGCL(R, dim=4, rank=3).double()
    users, met, unseen = BATCH
    expected = lightgcl(model.propagate(), BATCH)
    for found, other in zip(model.loss(users, met, unseen), expected, strict=True):
        assert torch.equal(found, other)


def test_edges_are_dropped_in_training_only_and_unseen_items_are_drawn():
    torch.manual_seed(0)
    model, generator = LightGCL(R, dim=4, edge_dropout=0.5), torch.Generator()
    users, met, unseen = BATCH
    losses = [model.loss(users, met, unseen, generator=generator.manual_seed(s)).loss for s in (0, 0, 1)]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    model.eval()
    assert torch.equal(*(model.loss(users, met, unseen, generator=generator.manual_seed(s)).loss for s in (0, 1)))
    assert model.loss(users, met, generator=generator).loss.isfinite()
    assert torch.allclose(model.scores(), model().users @ model().items.mT)


def test_a_loaded_model_ranks_as_the_saved_one():
    torch.manual_seed(0)
    there, fresh = LightGCL(R, dim=4), LightGCL(~R, dim=4)
    fresh.load_state_dict(there.state_dict())
    assert torch.equal(there.scores(), fresh.scores())
    assert torch.equal(there.loss(*BATCH).loss, fresh.loss(*BATCH).loss)


def test_a_call_is_the_local_sum_along_the_graph_of_now():
    torch.manual_seed(0)
    for table in (R, torch.eye(40, 60).roll(3, 1).bool()):  # dense and sparse
        model = LightGCL(table, dim=4)
        with torch.inference_mode():  # what is made here must not serve training
            model()
        for _ in range(2):
            expected = model.propagate(model.adjacency).local_sum()
            for found, again, wanted in zip(model(), model.propagate().local_sum(), expected, strict=True):
                torch.testing.assert_close(found, wanted)
                torch.testing.assert_close(again, wanted)
            assert model().users.sum().backward() is None and model.items.grad.abs().sum() > 0
            model.adjacency.mul_(2)
    model.adjacency.requires_grad_()
    model().users.sum().backward()
    assert model.adjacency.grad.abs().sum() > 0
    model.adjacency.requires_grad_(False)[0, 0] = math.inf
    with pytest.raises(ValueError, match="adjacency"):
        model()
    model.adjacency.copy_(normalize_interactions(table))
    model.users.data.fill_(math.nan)
    with pytest.raises(ValueError, match="tables.users"):
        model()


def test_a_sparse_graph_is_the_same_graph_and_what_changes_under_a_table_is_seen():
    found, expected = (propagate(TABLES, graph, VIEW).local_sum() for graph in (A.to_sparse().coalesce(), A))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    memory = A.numpy().copy()
    table = torch.from_numpy(memory)
    propagate(TABLES, table, VIEW)
    memory *= 2  # not through torch
    for a, b in zip(propagate(TABLES, table, None).local, propagate(TABLES, 2 * A, None).local, strict=True):
        torch.testing.assert_close(a.users, b.users)
    with pytest.raises(ValueError, match="adjacency: expected shape"):
        propagate(TABLES, A.mT.to_sparse().coalesce(), None)


def test_half_precision_autocast_and_narrow_ids():
    model = LightGCL(R, dim=4)
    exact = model.loss(*BATCH).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert abs(model.loss(*BATCH).loss - exact) < 1e-5
    narrow = [ids.to(d) for ids, d in zip(BATCH, (torch.uint8, torch.int32, torch.int16), strict=True)]
    assert torch.equal(model.loss(*narrow).loss, exact)
    half = low_rank_view(A.bfloat16(), 3)
    assert torch.allclose(half.s.double(), VIEW.s, atol=0.02)
    layers = propagate(Sides(U0.bfloat16(), V0.bfloat16()), A.float(), half)
    assert lightgcl(layers, BATCH, 0.3).loss.isfinite()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: normalize_interactions(R[0]), "interactions"),
        (lambda: low_rank_view(A, 7), "rank"),
        (lambda: propagate(Sides(U0, V0[:7]), A, VIEW), "adjacency"),
        (lambda: propagate(TABLES, A, VIEW, 0), "layers"),
        (lambda: inner_product_contrast(U0, U0, torch.tensor([6])), "nodes"),
        (lambda: inner_product_contrast(U0, U0, torch.tensor([0]), 0.0), "temperature"),
        (lambda: layerwise_contrast(propagate(TABLES, A, VIEW), torch.arange(7), torch.arange(8)), "user_ids"),
        (lambda: bpr(U0, U0, U0 * math.nan), "negatives"),
        (lambda: drop_edges(A, 1.0), "rate"),
        (lambda: draw_unseen(torch.ones(2, 3, dtype=torch.bool), torch.tensor([0])), "interactions"),
        (lambda: lightgcl(propagate(TABLES, A, VIEW), BATCH, form="cosine"), "form"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="interactions"):
        normalize_interactions(A)


def test_few_entries_are_multiplied_alone_with_the_same_value_and_gradient(monkeypatch):
    graph = normalize_interactions(torch.eye(40, 60).roll(3, 1).bool())
    tables = Sides(draw(40, 3, seed=1).requires_grad_(), draw(60, 3, seed=2).requires_grad_())
    assert MODULE._without_zeros(graph).is_sparse
    assert not MODULE._without_zeros(torch.ones(4, 5)).is_sparse
    found = []
    for share in (MODULE.SPARSE, 60):  # the second takes the whole table
        monkeypatch.setattr(MODULE, "SPARSE", share)
        last = propagate(tables, graph.double(), low_rank_view(graph.double(), 2)).carried[-1]
        value = last.users.square().sum() + last.items.sum()
        found.append((value, *torch.autograd.grad(value, tables)))
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)
