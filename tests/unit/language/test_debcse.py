"""Miao et al. (2023), reconstructed: pairs drawn with inverse propensities."""

import math
from functools import cache

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.core.surface import edit_distance, first_occurrences, surface_similarity
from cl_teach.language.debcse import (
    DebCSE,
    debcse_loss,
    draw_pairs,
    effective_choices,
    nearest,
    pair_probabilities,
)


def sentences(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (n,), generator=generator).tolist()
    return [torch.randint(4, (k,), generator=generator).tolist() for k in lengths]


def square(seed):
    x = torch.rand(7, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x + x.T) / 2


SURFACE, SEMANTIC = square(0), 2 * square(1) - 1
H, POSITIVE, NEGATIVES = draw(4, 6), draw(4, 6, seed=1), draw(4, 2, 6, seed=2)


def test_edit_distance_equals_the_recursion():
    def recursion(a, b):
        @cache
        def d(i, j):
            if i == 0 or j == 0:
                return i + j
            return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

        return d(len(a), len(b))

    for a in sentences(8):
        for b in sentences(8, seed=1):
            assert edit_distance(a, b) == recursion(a, b)


def test_edit_distance_is_a_metric_bounded_by_the_longer_length():
    corpus = sentences(8)
    for a in corpus:
        for b in corpus:
            assert edit_distance(a, b) == edit_distance(b, a) <= max(len(a), len(b))
            assert (edit_distance(a, b) == 0) == (a == b)
            assert all(edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c) for c in corpus)


def test_surface_similarity_is_one_for_equal_and_zero_for_disjoint_sentences():
    a = surface_similarity([[1, 2], [1, 2], [3, 4], [1, 2, 5, 6]])
    assert a[0].tolist() == [1, 1, 0, 0.5]
    assert torch.equal(a, a.T)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_probabilities_equal_the_loops(cap):
    got = pair_probabilities(SURFACE, SEMANTIC, sharpness=4.0, power=2.0, smallest_propensity=0.1, largest_weight=cap)
    for i in range(7):
        plus, minus = [0.0] * 7, [0.0] * 7
        for j in range(7):
            if j != i:
                a, m = SURFACE[i, j].item(), (SEMANTIC[i, j].item() + 1) / 2
                plus[j] = min(m**2 / max(math.exp(4 * (a - 1)), 0.1), cap or math.inf)
                minus[j] = min((1 - m) ** 2 / max(math.exp(-4 * a), 0.1), cap or math.inf)
        assert got.positives[i].tolist() == pytest.approx([w / sum(plus) for w in plus])
        assert got.negatives[i].tolist() == pytest.approx([w / sum(minus) for w in minus])


def test_rows_sum_to_one_and_nobody_draws_itself():
    for q in pair_probabilities(SURFACE, SEMANTIC):
        assert torch.allclose(q.sum(1), torch.ones(7, dtype=torch.float64))
        assert (q.diagonal() == 0).all()
        ess = effective_choices(q)
        assert ((ess >= 1) & (ess <= 6)).all()


def test_without_sharpness_only_meaning_counts_without_power_only_surface():
    def q(surface, semantic, sharpness, power):
        return torch.stack(pair_probabilities(surface, semantic, sharpness=sharpness, power=power))

    assert torch.equal(q(SURFACE, SEMANTIC, 0, 1), q(square(2), SEMANTIC, 0, 1))
    assert torch.equal(q(SURFACE, SEMANTIC, 2, 0), q(SURFACE, -SEMANTIC, 2, 0))
    uniform = q(SURFACE, SEMANTIC, 0, 0)
    assert torch.allclose(uniform[0], (1 - torch.eye(7, dtype=torch.float64)) / 6)
    assert torch.allclose(effective_choices(uniform[0]), torch.tensor(6.0, dtype=torch.float64))


def test_the_table_of_all_pairs_equals_pair_by_pair():
    corpus = [[f"word{t}" for t in sentence] for sentence in sentences(40, seed=3)]
    a = surface_similarity(corpus)
    for i, x in enumerate(corpus):
        for j, y in enumerate(corpus):
            assert a[i, j].item() == pytest.approx(1 - edit_distance(x, y) / max(len(x), len(y)), abs=1e-12)


def test_positives_look_different_and_mean_the_same_negatives_the_reverse():
    base = pair_probabilities(SURFACE, SEMANTIC)
    surface, semantic = SURFACE.clone(), SEMANTIC.clone()
    surface[0, 3] = min(surface[0, 3] + 0.2, 1)
    looks = pair_probabilities(surface, SEMANTIC)
    assert looks.positives[0, 3] < base.positives[0, 3] and looks.negatives[0, 3] > base.negatives[0, 3]
    semantic[0, 3] = min(semantic[0, 3] + 0.2, 1)
    means = pair_probabilities(SURFACE, semantic)
    assert means.positives[0, 3] > base.positives[0, 3] and means.negatives[0, 3] < base.negatives[0, 3]


def test_a_perfect_paraphrase_is_never_a_negative():
    semantic = SEMANTIC.clone()
    semantic[2, 5] = 1.0
    assert pair_probabilities(SURFACE, semantic).negatives[2, 5] == 0


def test_candidates_restrict_what_is_drawn():
    near = nearest(SEMANTIC, 2)
    assert (near.sum(1) == 2).all() and not near.diagonal().any()
    others = SEMANTIC - 9 * torch.eye(7, dtype=torch.float64)
    assert (others[near].view(7, 2).min(1).values >= others.masked_fill(near, -9).max(1).values).all()
    q = pair_probabilities(SURFACE, SEMANTIC, positive_candidates=near)
    assert (q.positives[~near] == 0).all() and (q.negatives > 0).sum() == 42


def test_draws_follow_the_probabilities():
    q = pair_probabilities(SURFACE, SEMANTIC).positives
    drawn = draw_pairs(q, 20000, generator=torch.Generator().manual_seed(0))
    share = nn.functional.one_hot(drawn, 7).double().mean(1)
    assert torch.allclose(share, q, atol=0.015)


def test_loss_equals_the_loops():
    h, p, n, total = normalize(H), normalize(POSITIVE), normalize(NEGATIVES), 0.0
    for i in range(4):
        bottom = 0.0
        for j in range(4):
            bottom += math.exp(h[i] @ p[j] / 0.2) + sum(math.exp(h[i] @ n[j, k] / 0.2) for k in range(2))
        total -= math.log(math.exp(h[i] @ p[i] / 0.2) / bottom)
    assert debcse_loss(H, POSITIVE, NEGATIVES, 0.2).item() == pytest.approx(total / 4, rel=1e-12)


def test_without_negatives_it_is_infonce_and_when_collapsed_the_number_of_columns():
    assert torch.allclose(debcse_loss(H, POSITIVE, None, 0.2), info_nce(H, POSITIVE, temperature=0.2))
    same = torch.ones(4, 6)
    assert debcse_loss(same, same, torch.ones(4, 2, 6)).item() == pytest.approx(math.log(4 * 3), rel=1e-6)


def test_a_repeated_sentence_is_no_negative_of_its_own_anchor():
    index = (torch.tensor([0, 1, 2, 3]), torch.tensor([1, 5, 6, 5]), torch.tensor([[7, 8], [9, 0], [7, 9], [8, 9]]))
    h, columns = normalize(H), torch.cat([normalize(POSITIVE), normalize(NEGATIVES).flatten(0, 1)])
    # anchor 0 is drawn as a negative (column 7); positive 1 of row 0 is anchor 1; rows 1 and 3 share positive 5
    left_out, total = {0: {7}, 1: {0, 3}, 2: set(), 3: {1}}, 0.0
    for i in range(4):
        e = {j: math.exp(h[i] @ columns[j] / 0.2) for j in range(12) if j not in left_out[i]}
        total -= math.log(e[i] / sum(e.values()))
    assert debcse_loss(H, POSITIVE, NEGATIVES, 0.2, index=index).item() == pytest.approx(total / 4, rel=1e-12)


def test_gradcheck_into_all_three():
    leaves = [x.clone().requires_grad_() for x in (H, POSITIVE, NEGATIVES)]
    assert torch.autograd.gradcheck(lambda a, b, c: debcse_loss(a, b, c, 0.3), leaves)


def test_zero_vectors_duplicates_and_a_tiny_temperature_stay_finite():
    h = torch.cat([torch.zeros(2, 6), H.float()[:1].repeat(2, 1)]).requires_grad_()
    loss = debcse_loss(h, h, h[:, None], 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(h.grad).all()


def toy(seed):
    """Sentences of four concepts out of 16 with three words each, in four forms, and up to three empty words."""
    generator = torch.Generator().manual_seed(seed)
    found, meaning, vectors = [], [], []
    for m in range(60):
        concepts = torch.randperm(16, generator=generator)[:4]
        for form in range(4):
            words = concepts * 3 + torch.randint(3, (4,), generator=generator)
            if form % 2:
                words = words[torch.randperm(4, generator=generator)]
            extra = torch.randint(48, 54, (int(torch.randint(4, (), generator=generator)),), generator=generator)
            found.append(words.tolist() + extra.tolist())
            meaning.append(m)
            vectors.append(torch.zeros(16).index_fill(0, concepts, 1.0))
    keep = first_occurrences(found)
    return [found[i] for i in keep], torch.tensor(meaning)[keep], torch.stack(vectors)[keep], generator


def test_weights_choose_positives_that_look_different_and_negatives_that_look_alike():
    found, meaning, vectors, generator = toy(0)
    scorer = vectors + 0.4 * torch.randn(vectors.shape, generator=generator)
    same = meaning[:, None] == meaning

    def look(sharpness):
        method = DebCSE(found, candidates=20, sharpness=sharpness, power=8.0)
        method.refresh(scorer)
        surface = [float((q * method.surface).sum(1).mean()) for q in (method.positives, method.negatives)]
        return *surface, float((method.positives * same).sum(1).mean())

    (plus, minus, precision), (plus_weighted, minus_weighted, precision_weighted) = look(0.0), look(2.0)
    assert plus_weighted < 0.9 * plus and minus_weighted > minus
    assert precision_weighted > 0.85 * precision > 5 * float(same.float().mean())


def test_training_follows_meaning_more_and_surface_less_than_dropout_pairs():
    found, meaning, vectors, generator = toy(0)
    bags = torch.stack([torch.bincount(torch.tensor(x), minlength=54).float() for x in found])
    known = meaning < 40
    train, test = known.nonzero()[:, 0], (~known).nonzero()[:, 0]
    method = DebCSE([found[i] for i in train], candidates=20, power=8.0)
    method.refresh(vectors[train] + 0.4 * torch.randn(len(train), 16, generator=generator))
    i, j = torch.triu_indices(len(test), len(test), offset=1)
    overlap = (vectors[test] @ vectors[test].T)[i, j]
    surface = surface_similarity([found[k] for k in test])[i, j]
    unrelated = overlap <= 1

    def run(debiased):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Dropout(0.2), nn.Linear(54, 64), nn.ReLU(), nn.Linear(64, 24))
        optimizer, losses = torch.optim.Adam(net.parameters(), lr=3e-3), []
        for _ in range(150):
            index = torch.randperm(len(train))[:32]
            if debiased:
                loss = method(
                    lambda rows: net(bags[train][rows]), index, generator=torch.Generator().manual_seed(len(losses))
                )
            else:
                loss = info_nce(net(bags[train][index]), net(bags[train][index]), temperature=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) < sum(losses[:20])
        with torch.no_grad():
            z = normalize(net.eval()(bags[test]))
        cosine = (z @ z.T)[i, j]
        by_surface = spearmanr(cosine[unrelated], surface[unrelated]).statistic
        return spearmanr(cosine, overlap).statistic, by_surface

    (means, looks), (naive_means, naive_looks) = run(True), run(False)
    assert means > naive_means + 0.1
    assert looks < naive_looks - 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    method = DebCSE([[i, i + 1, 9] for i in range(8)])
    for seed in range(10):
        method.refresh(draw(8, 32, seed=seed).to(dtype))
        assert torch.allclose(method.positives.sum(1), torch.ones(8).double())
    loss = debcse_loss(H.to(dtype), POSITIVE.to(dtype), NEGATIVES.float(), 0.2)
    assert loss.dtype == torch.float32 and abs(loss - debcse_loss(H, POSITIVE, NEGATIVES, 0.2)) < 0.02


def test_saved_and_loaded_it_draws_the_same_pairs_and_a_loss_changes_nothing():
    corpus = [[i, i + 1, 9] for i in range(8)]
    method, fresh, encoder = DebCSE(corpus), DebCSE(corpus), nn.Embedding(8, 6)
    method.refresh(draw(8, 5))
    fresh.load_state_dict(method.state_dict())
    index = torch.arange(4, dtype=torch.uint8)
    before = [x.clone() for x in method.state_dict().values()]
    one, other = (m(encoder, index, generator=torch.Generator().manual_seed(0)) for m in (method, fresh))
    assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(before, method.state_dict().values(), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(method(lambda rows: encoder(rows) @ torch.eye(6), index))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: surface_similarity([[1], []]), ValueError, r"sentences\[1\]"),
        (lambda: pair_probabilities(SURFACE, SEMANTIC[:3]), ValueError, "semantic"),
        (lambda: pair_probabilities(SURFACE + 1, SEMANTIC), ValueError, "surface"),
        (lambda: pair_probabilities(SURFACE, SEMANTIC, sharpness=-1.0), ValueError, "sharpness"),
        (lambda: pair_probabilities(SURFACE, SEMANTIC, smallest_propensity=0.0), ValueError, "smallest_propensity"),
        (lambda: pair_probabilities(SURFACE, torch.ones_like(SURFACE)), ValueError, "no negative"),
        (lambda: pair_probabilities(SURFACE, SEMANTIC, positive_candidates=SURFACE), TypeError, "positive_candidates"),
        (lambda: nearest(SEMANTIC, 7), ValueError, "count"),
        (lambda: debcse_loss(H, POSITIVE[:3]), ValueError, "positive"),
        (lambda: debcse_loss(H, POSITIVE, NEGATIVES[:3]), ValueError, "negatives"),
        (lambda: debcse_loss(H[:1], POSITIVE[:1]), ValueError, "anchor"),
        (lambda: debcse_loss(H, POSITIVE, temperature=0.0), ValueError, "temperature"),
        (lambda: DebCSE([[1], [1]]), ValueError, "duplicate"),
        (lambda: DebCSE([[1], [2]])(nn.Identity(), torch.tensor([0])), ValueError, "refresh"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
