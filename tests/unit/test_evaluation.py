"""Scores of a representation against plain loops, closed forms and degenerate inputs."""

import math

import pytest
import torch
from torch import nn

from cl_teach import evaluation as ev


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


@pytest.fixture
def z():
    return torch.randn(23, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.randint(0, 4, (23,), generator=torch.Generator().manual_seed(1))


# embed


def test_embed_equals_one_call_in_eval_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    x = torch.randn(7, 3)
    expected = model(x)
    model.train()
    got = ev.embed(model, x, batch_size=3)
    assert torch.allclose(got, expected, atol=1e-6) and not got.requires_grad


def test_embed_restores_the_mode_of_every_submodule_even_after_an_error():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].eval()
    ev.embed(model, torch.randn(5, 3))
    with pytest.raises(RuntimeError):
        ev.embed(model, torch.randn(5, 9))
    assert model.training and model[0].training and not model[1].training


def test_embed_takes_a_function():
    x = torch.rand(5, 1, 2, 2)
    assert torch.equal(ev.embed(lambda b: b.flatten(1), x, batch_size=2), x.flatten(1))


def test_embed_refuses_bad_input():
    with pytest.raises(TypeError, match="images"):
        ev.embed(nn.Identity(), [1.0])
    with pytest.raises(ValueError, match="images"):
        ev.embed(nn.Identity(), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="batch_size"):
        ev.embed(nn.Identity(), torch.zeros(2, 3), batch_size=0)


# knn_accuracy


def knn_loop(train_x, train_y, test_x, test_y, k):
    right = 0
    for query, label in zip(unit(test_x), test_y, strict=True):
        order = sorted(range(len(train_x)), key=lambda i: -float(unit(train_x)[i] @ query))[:k]
        votes: dict[int, list[float]] = {}
        for i in order:
            votes.setdefault(int(train_y[i]), []).append(float(unit(train_x)[i] @ query))
        best = max(votes, key=lambda c: (len(votes[c]), sum(votes[c]), -c))
        right += best == int(label)
    return right / len(test_x)


@pytest.mark.parametrize("k", [1, 2, 4, 23])
def test_knn_equals_loop_also_in_blocks(z, labels, k, monkeypatch):
    g = torch.Generator().manual_seed(2)
    test_x = torch.randn(30, 5, generator=g, dtype=torch.float64)
    test_y = torch.randint(0, 4, (30,), generator=g)
    expected = knn_loop(z, labels, test_x, test_y, k)
    assert ev.knn_accuracy(z, labels, test_x, test_y, k=k) == expected
    monkeypatch.setattr(ev, "CACHED_ENTRIES", 7 * 23)  # uneven last block
    assert ev.knn_accuracy(z, labels, test_x, test_y, k=k) == expected


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_knn_with_a_temperature_weighs_votes_by_the_exponential(z, labels, temperature):
    test_x = torch.randn(30, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    votes = []
    for query in unit(test_x):
        near = sorted(((float(row @ query), int(y)) for row, y in zip(unit(z), labels, strict=True)), reverse=True)[:9]
        votes.append([sum(math.exp(s / temperature) for s, y in near if y == c) for c in range(4)])
    winners = torch.tensor(votes).argmax(1)
    assert ev.knn_accuracy(z, labels, test_x, winners, k=9, temperature=temperature) == 1
    plain = ev.knn_accuracy(z, labels, test_x, winners, k=9)
    assert plain < 1 and ev.knn_accuracy(z, labels, test_x, winners, k=9, temperature=1e6) == pytest.approx(plain)


def test_knn_temperature_near_zero_leaves_the_nearest_and_no_overflow(z, labels):
    coldest = ev.knn_accuracy(z.float(), labels, z.roll(1, 1).float(), labels, k=9, temperature=1e-30)
    assert coldest == ev.knn_accuracy(z.float(), labels, z.roll(1, 1).float(), labels, k=1)
    with pytest.raises(ValueError, match="temperature"):
        ev.knn_accuracy(z, labels, z, labels, temperature=0.0)


def test_knn_tie_goes_to_the_closer_class_then_to_the_smaller_label():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 2.0]])  # closer to the second row
    assert ev.knn_accuracy(train, torch.tensor([0, 1]), query, torch.tensor([1]), k=2) == 1
    even = torch.tensor([[1.0, 1.0]])
    assert ev.knn_accuracy(train, torch.tensor([5, 3]), even, torch.tensor([3]), k=2) == 1


def test_knn_ignores_length_and_never_finds_a_class_without_training_rows():
    train, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    assert ev.knn_accuracy(train * 1e4, y, train * 1e-4, y, k=1) == 1
    assert ev.knn_accuracy(train, y, train, torch.tensor([2, 3]), k=1) == 0


def test_knn_of_zero_vectors_is_finite():
    assert (
        ev.knn_accuracy(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), torch.zeros(2, 2), torch.tensor([0, 1]), k=4)
        == 0.5
    )


@pytest.mark.parametrize("probe", [ev.knn_accuracy, ev.linear_probe])
def test_probes_refuse_bad_input(probe, z, labels):
    with pytest.raises(ValueError, match="test_x"):
        probe(z, labels, z[:, :3], labels)
    with pytest.raises(ValueError, match="train_y"):
        probe(z, labels[:-1], z, labels)
    with pytest.raises(TypeError, match="test_y"):
        probe(z, labels, z, labels.double())
    with pytest.raises(ValueError, match="train_x"):
        probe(z * math.nan, labels, z, labels)


def test_knn_refuses_k_outside_the_training_set(z, labels):
    for k in (0, 24):
        with pytest.raises(ValueError, match="k: "):
            ev.knn_accuracy(z, labels, z, labels, k=k)
    with pytest.raises(TypeError, match="k: "):
        ev.knn_accuracy(z, labels, z, labels, k=1.5)


# linear_probe


def test_linear_probe_separates_what_a_line_separates_at_any_scale_and_offset():
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    x = torch.stack([1e4 * x[:, 0] + 1e5, x[:, 1], torch.ones(200)], dim=1)  # constant last feature
    first = ev.linear_probe(x[:150], y[:150], x[150:], y[150:])
    assert first > 0.95 and first == ev.linear_probe(x[:150], y[:150], x[150:], y[150:])


def test_linear_probe_of_constant_features_predicts_the_larger_class():
    y = torch.tensor([0, 1, 1])
    assert ev.linear_probe(torch.ones(3, 2), y, torch.ones(4, 2), torch.tensor([1, 1, 1, 0])) == 0.75


def test_linear_probe_needs_two_classes_and_positive_regularization(z, labels):
    with pytest.raises(ValueError, match="train_y"):
        ev.linear_probe(z, torch.zeros_like(labels), z, labels)
    with pytest.raises(ValueError, match="regularization"):
        ev.linear_probe(z, labels, z, labels, regularization=0.0)


# alignment, uniformity, tolerance


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_alignment_equals_loop(z, alpha):
    other = z.roll(1, 0) + 1
    expected = sum(float((a - b).norm()) ** alpha for a, b in zip(unit(z), unit(other), strict=True)) / len(z)
    assert float(ev.alignment(z, other, alpha)) == pytest.approx(expected)


def test_alignment_is_zero_for_equal_views_four_for_opposite_ones_and_has_a_finite_gradient():
    z1 = torch.eye(3, requires_grad=True)
    loss = ev.alignment(z1, z1 * 5, alpha=1)
    loss.backward()
    assert float(loss.detach()) == 0 and z1.grad.isfinite().all()
    assert float(ev.alignment(torch.eye(3), -torch.eye(3))) == pytest.approx(4)


@pytest.mark.parametrize("t", [0.5, 2, 1000])
def test_uniformity_equals_loop_also_in_blocks(z, t, monkeypatch):
    u = unit(z)
    exponents = torch.stack([-t * (u[i] - u[j]).square().sum() for i in range(len(u)) for j in range(i)])
    expected = float(exponents.logsumexp(0)) - math.log(len(exponents))
    assert float(ev.uniformity(z, t)) == pytest.approx(expected)
    monkeypatch.setattr(ev, "BLOCK_ENTRIES", 4 * 23)
    assert float(ev.uniformity(z, t)) == pytest.approx(expected)


def test_uniformity_of_two_antipodal_points_is_minus_four_t():
    z = torch.tensor([[3.0, 0.0], [-1.0, 0.0]])
    assert float(ev.uniformity(z)) == pytest.approx(-8)
    assert float(ev.uniformity(z, t=1e4)) == pytest.approx(-4e4)  # exp would be 0


def test_collapse_has_uniformity_zero_and_tolerance_one():
    z = torch.tensor([[1.0, 2.0, 3.0]]).repeat(50, 1)
    assert float(ev.uniformity(z)) == pytest.approx(0, abs=1e-5)
    assert float(ev.tolerance(z, torch.arange(50) % 3)) == pytest.approx(1, abs=1e-5)


def test_tolerance_equals_loop_over_distinct_same_label_pairs(z, labels):
    u = unit(z)
    cosines = [float(u[i] @ u[j]) for i in range(23) for j in range(i) if labels[i] == labels[j]]
    assert float(ev.tolerance(z, labels)) == pytest.approx(sum(cosines) / len(cosines))


def test_tolerance_leaves_out_a_sample_alone_in_its_class():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert float(ev.tolerance(z, torch.tensor([7, 7, 2]))) == pytest.approx(1)


def test_tolerance_needs_a_same_label_pair(z):
    with pytest.raises(ValueError, match="labels"):
        ev.tolerance(z, torch.arange(23))


def test_geometry_is_differentiable(z, labels):
    z = z[:6].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ev.alignment(x, x.roll(1, 0)), z)
    assert torch.autograd.gradcheck(ev.uniformity, z)
    assert torch.autograd.gradcheck(lambda x: ev.tolerance(x, torch.tensor([0, 1, 0, 1, 1, 2])), z)
    assert torch.autograd.gradcheck(ev.effective_rank, z)


def test_half_precision_stays_finite(z, labels):
    half = (z * 100).bfloat16()
    for value in (ev.alignment(half, half.roll(1, 0)), ev.uniformity(half), ev.tolerance(half, labels)):
        assert value.isfinite()


def test_geometry_refuses_bad_input(z):
    with pytest.raises(ValueError, match="z1"):
        ev.alignment(z, z[:-1])
    with pytest.raises(ValueError, match="alpha"):
        ev.alignment(z, z, alpha=0)
    with pytest.raises(ValueError, match="z: "):
        ev.uniformity(z[:1])
    with pytest.raises(ValueError, match="t: "):
        ev.uniformity(z, t=-1)
    with pytest.raises(TypeError, match="features"):
        ev.effective_rank(torch.ones(3, 2, dtype=torch.long))


# effective_rank


def test_effective_rank_equals_loop(z):
    s = torch.linalg.svdvals(z - z.mean(0)).tolist()
    p = [value / sum(s) for value in s]
    assert float(ev.effective_rank(z)) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_equal_directions_whatever_scale_and_offset(rank):
    corners = torch.eye(rank, dtype=torch.float64)
    cross = torch.cat([corners, -corners])  # centered, equal singular values
    wide = torch.cat([cross, torch.zeros(2 * rank, 3, dtype=torch.float64)], dim=1)
    assert float(ev.effective_rank(1e3 * wide + 7)) == pytest.approx(rank)


def test_effective_rank_of_collapsed_features_is_zero_not_the_rank_of_rounding_noise():
    row = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)) * 1e3
    assert float(ev.effective_rank(row.repeat(500, 1))) == 0
    assert float(ev.effective_rank(torch.zeros(5, 3))) == 0


# retrieval


@pytest.fixture
def retrieval():
    g = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 6, (12, 9), generator=g).double()  # with ties
    mask = torch.rand(12, 9, generator=g) < 0.3
    mask[:, 4] |= ~mask.any(dim=1)
    return scores, mask


def order_of(row):
    return sorted(range(len(row)), key=lambda i: (-float(row[i]), i))


@pytest.mark.parametrize("k", [1, 3, 9])
def test_recall_equals_loop(retrieval, k):
    scores, mask = retrieval
    found = [[bool(m[i]) for i in order_of(s)[:k]] for s, m in zip(scores, mask, strict=True)]
    fraction = sum(sum(f) / int(m.sum()) for f, m in zip(found, mask, strict=True)) / 12
    assert ev.recall_at_k(scores, mask, k) == pytest.approx(fraction)
    assert ev.recall_at_k(scores, mask, k, count="any") == pytest.approx(sum(any(f) for f in found) / 12)


def test_index_and_mask_of_one_right_item_agree():
    scores = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    mask, index = torch.eye(8, dtype=torch.bool), torch.arange(8)
    assert ev.recall_at_k(scores, mask, 3) == ev.recall_at_k(scores, index, 3, count="any")
    assert ev.mean_reciprocal_rank(scores, mask) == ev.mean_reciprocal_rank(scores, index)


def test_mean_reciprocal_rank_equals_loop(retrieval):
    scores, mask = retrieval
    ranks = [next(r for r, i in enumerate(order_of(s), 1) if m[i]) for s, m in zip(scores, mask, strict=True)]
    assert ev.mean_reciprocal_rank(scores, mask) == pytest.approx(sum(1 / r for r in ranks) / 12)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_mean_reciprocal_rank_looks_at_the_first_k_only(retrieval, k):
    scores, mask = retrieval
    ranks = [next(r for r, i in enumerate(order_of(s), 1) if m[i]) for s, m in zip(scores, mask, strict=True)]
    assert max(ranks) > 1
    assert ev.mean_reciprocal_rank(scores, mask, k) == pytest.approx(sum(1 / r for r in ranks if r <= k) / 12)


@pytest.mark.parametrize(
    "score",
    [
        ev.mean_reciprocal_rank,
        lambda *a, **more: ev.recall_at_k(*a, 3, **more),
        lambda *a, **more: ev.recall_at_k(*a, 3, count="any", **more),
    ],
)
def test_queries_without_a_relevant_item_are_refused_skipped_or_zero(retrieval, score):
    scores, mask = retrieval
    some = mask.clone()
    some[[2, 5]] = False
    kept = [i for i in range(12) if i not in (2, 5)]
    with pytest.raises(ValueError, match="relevant.*row 2 has none"):
        score(scores, some)
    assert score(scores, some, empty="skip") == score(scores[kept], mask[kept])
    assert score(scores, some, empty="zero") == pytest.approx(score(scores[kept], mask[kept]) * 10 / 12)
    assert score(scores, mask, empty="skip") == score(scores, mask, empty="zero") == score(scores, mask)
    nothing = torch.zeros_like(mask)
    assert score(scores, nothing, empty="zero") == 0
    with pytest.raises(ValueError, match="relevant.*nothing is left"):
        score(scores, nothing, empty="skip")
    with pytest.raises(ValueError, match="empty"):
        score(scores, mask, empty="error")


def test_equal_scores_rank_by_position():
    scores = torch.zeros(4, 4)
    assert ev.recall_at_k(scores, torch.arange(4), 1) == 0.25
    assert ev.mean_reciprocal_rank(scores, torch.tensor([3, 3, 3, 3])) == 0.25


def test_minus_infinity_takes_an_item_out():
    scores = torch.tensor([[-math.inf, 0.2, 0.1]])
    assert ev.recall_at_k(scores, torch.tensor([1]), 1) == 1


@pytest.mark.parametrize("gain", ["linear", "exponential"])
@pytest.mark.parametrize("k", [1, 4, None])
def test_ndcg_equals_loop(retrieval, gain, k):
    scores, mask = retrieval
    grades = mask * torch.arange(1, 10)
    value = (lambda r: r) if gain == "linear" else (lambda r: 2**r - 1)
    total = 0.0
    for s, g in zip(scores, grades.tolist(), strict=True):
        best = sorted(g, reverse=True)[:k]
        found = [g[i] for i in order_of(s)[:k]]
        dcg, ideal = (sum(value(r) / math.log2(p + 2) for p, r in enumerate(x)) for x in (found, best))
        total += dcg / ideal
    assert ev.ndcg(scores, grades, k, gain=gain) == pytest.approx(total / 12)


def test_ndcg_agrees_with_scikit_learn_without_ties():
    sklearn = pytest.importorskip("sklearn.metrics")
    g = torch.Generator().manual_seed(0)
    scores, grades = torch.randn(6, 10, generator=g), torch.randint(0, 4, (6, 10), generator=g)
    assert ev.ndcg(scores, grades, 5) == pytest.approx(sklearn.ndcg_score(grades.numpy(), scores.numpy(), k=5))


def test_perfect_order_scores_one(retrieval):
    _, mask = retrieval
    perfect = mask.double()
    assert ev.ndcg(perfect, mask) == pytest.approx(1)
    assert ev.mean_reciprocal_rank(perfect, mask) == 1
    assert ev.recall_at_k(perfect, mask, 9) == 1


def test_retrieval_refuses_bad_input(retrieval):
    scores, mask = retrieval
    with pytest.raises(ValueError, match="NaN"):
        ev.recall_at_k(scores * math.nan, mask, 1)
    with pytest.raises(ValueError, match="row 0"):
        ev.mean_reciprocal_rank(scores, torch.zeros_like(mask))
    with pytest.raises(TypeError, match="relevant"):
        ev.mean_reciprocal_rank(scores, mask.double())
    with pytest.raises(ValueError, match="relevant"):
        ev.mean_reciprocal_rank(scores, torch.full((12,), 9))
    with pytest.raises(ValueError, match="k: "):
        ev.recall_at_k(scores, mask, 10)
    with pytest.raises(ValueError, match="count"):
        ev.recall_at_k(scores, mask, 1, count="all")
    with pytest.raises(ValueError, match="relevance"):
        ev.ndcg(scores, -mask.int())
    with pytest.raises(ValueError, match="gain"):
        ev.ndcg(scores, mask, gain="log")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_scores_on_gpu(z, labels, retrieval):
    z, g = z.float(), z.float().cuda()
    assert float(ev.uniformity(g)) == pytest.approx(float(ev.uniformity(z)), abs=1e-4)
    assert float(ev.tolerance(g, labels.cuda())) == pytest.approx(float(ev.tolerance(z, labels)), abs=1e-4)
    assert float(ev.effective_rank(g)) == pytest.approx(float(ev.effective_rank(z)), rel=1e-4)
    assert ev.knn_accuracy(g, labels.cuda(), g, labels, k=3) == ev.knn_accuracy(z, labels, z, labels, k=3)
    scores, mask = retrieval
    assert ev.recall_at_k(scores.cuda(), mask.cuda(), 3) == pytest.approx(ev.recall_at_k(scores, mask, 3))


def test_knn_votes_over_the_classes_that_exist_whatever_they_are_called():
    z, y = torch.eye(4), torch.tensor([3, 3, 10**15, 10**15])
    assert ev.knn_accuracy(z, y, z, y, k=1) == 1  # a table as wide as the largest label would hold 10^15 columns
    assert ev.knn_accuracy(z, y, z, torch.tensor([3, 5, 10**15, 10**16]), k=1) == 0.5  # 5 and 10^16 have no voters


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_width(z, labels, dtype):
    rows = (z, labels.to(dtype), z, labels.to(dtype))
    assert ev.knn_accuracy(*rows, k=3) == ev.knn_accuracy(z, labels, z, labels, k=3)
    assert ev.linear_probe(*rows) == ev.linear_probe(z, labels, z, labels)
    assert torch.equal(ev.tolerance(z, labels.to(dtype)), ev.tolerance(z, labels))


def test_exponential_gains_of_large_grades_stay_finite():
    scores, grades = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[2000.0, 1000.0, 0.0]])
    assert ev.ndcg(scores, grades, gain="exponential") == pytest.approx(1)
    assert 0 < ev.ndcg(scores.flip(1), grades, gain="exponential") < 1


def test_gradients_at_degenerate_points_are_finite():
    z = torch.ones(4, 3, requires_grad=True)
    for value in (ev.alignment(z, z.detach(), alpha=0.5), ev.effective_rank(z), ev.uniformity(z)):
        (gradient,) = torch.autograd.grad(value, z, allow_unused=True)
        assert gradient is None or gradient.isfinite().all()
    deficient = torch.zeros(5, 3).index_fill(1, torch.tensor(0), 1.0)
    deficient[0, 0] = 2
    deficient.requires_grad_()
    assert torch.autograd.grad(ev.effective_rank(deficient), deficient)[0].isfinite().all()


def test_effective_rank_does_not_depend_on_the_scale_however_extreme():
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(ev.effective_rank(scale * z), ev.effective_rank(z))
