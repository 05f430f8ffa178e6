"""Ma et al. (2024): items from three descriptions, bundles from items, a contrast on both levels."""

import functools
import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.datasets.networks import item_bundles
from cl_teach.graphs.clhe import (
    CLHE,
    Descriptions,
    clhe_terms,
    drop_descriptions,
    one_way_contrast,
    pad_bundles,
    part_of,
    perturb,
    released_part,
)
from cl_teach.models.bundles import BundleEncoder, StackEncoder


def generator():
    return torch.Generator().manual_seed(0)


def seeded(kind, **options):
    torch.manual_seed(0)
    return kind(4, **options).double()


STACKS, ENCODED, DECODED, VIEWS = draw(7, 3, 4), draw(7, 4, seed=1), draw(7, 4, seed=2), (draw(7, 4, seed=3),) * 2
BUNDLES = [torch.tensor([2, 1, 0, 3]), torch.tensor([5, 4, 1]), torch.tensor([6, 2])]
PARTS = [torch.tensor([3, 1]), torch.tensor([5]), torch.tensor([2])]


def attention(rows, module):
    """Row by row: a mean of the rows, weighted by a softmax of query times key."""
    result = []
    for a in rows:
        logits = [((module.query.weight @ a) @ (module.key.weight @ b)).item() / math.sqrt(len(a)) for b in rows]
        weights = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
        result.append(sum(w * b for w, b in zip(weights, rows, strict=True)))
    return sum(result) / len(rows)


def test_item_encoder_equals_the_loops():
    encoder = seeded(StackEncoder)
    for stack, v in zip(STACKS, encoder(STACKS), strict=True):
        assert torch.allclose(attention([row / row.norm() for row in stack], encoder), v)


def test_item_encoder_ignores_order_and_lengths_and_without_queries_averages():
    encoder = seeded(StackEncoder)
    scale = draw(7, 3, 1, seed=4).exp()
    assert torch.allclose(encoder((scale * STACKS)[:, [2, 0, 1]]), encoder(STACKS))
    torch.nn.init.zeros_(encoder.query.weight)
    assert torch.allclose(encoder(STACKS), F.normalize(STACKS, dim=2).mean(1))


def test_a_dropped_description_takes_a_share_of_the_softmax_and_gets_no_gradient():
    encoder = seeded(StackEncoder)
    dropped = torch.zeros(7, 3, dtype=torch.bool)
    dropped[:, 1] = True
    stacks = STACKS.clone().requires_grad_()
    v = encoder(drop_descriptions(stacks, dropped))
    v.square().sum().backward()
    assert (stacks.grad[:, 1] == 0).all() and (stacks.grad[:, 0] != 0).any(1).all()
    assert (v.norm(dim=1) < encoder(STACKS[:, [0, 2]]).norm(dim=1)).all()  # masked out, it would take none
    assert (encoder(torch.zeros(2, 3, 4, dtype=torch.float64)) == 0).all()


def test_bundle_encoder_equals_the_loops_and_ignores_order_and_padding():
    encoder = seeded(BundleEncoder)
    ids, present = pad_bundles(BUNDLES, 7)
    r = encoder(ENCODED[ids], present)
    for bundle, vector in zip(BUNDLES, r, strict=True):
        rows = [(x - x.mean()) / (x.var(correction=0) + 1e-9).sqrt() for x in ENCODED[bundle]]
        assert torch.allclose(attention(rows, encoder), vector)
    ids, present = F.pad(ids, (2, 3), value=6), F.pad(present, (2, 3))
    assert torch.allclose(encoder(ENCODED[ids], present), r)
    assert torch.allclose(encoder(ENCODED[ids.flip(1)], present.flip(1)), r)
    torch.nn.init.zeros_(encoder.query.weight)
    assert torch.allclose(encoder(ENCODED[ids], present)[2], F.layer_norm(ENCODED[BUNDLES[2]], (4,), eps=1e-9).mean(0))


def test_contrast_equals_the_loops_and_is_zero_for_a_single_row():
    a, c = draw(4, 3), draw(4, 3, seed=1)
    cosine = [[(x @ y / x.norm() / y.norm()).item() / 0.3 for y in c] for x in a]
    naive = sum(-row[k] + math.log(sum(map(math.exp, row))) for k, row in enumerate(cosine)) / 4
    assert one_way_contrast(a, c, 0.3).item() == pytest.approx(naive, rel=1e-12)
    assert one_way_contrast(a[:1], c[:1], 0.3).item() == 0
    assert one_way_contrast(c, a, 0.3).item() != pytest.approx(naive, rel=1e-3)


def test_objective_equals_the_loops():
    encoder = seeded(BundleEncoder)
    views = draw(7, 4, seed=5), draw(7, 4, seed=6)
    terms = clhe_terms(ENCODED, DECODED, views, BUNDLES, PARTS, encoder, temperatures=(0.5, 0.2), weights=(0.3, 0.7))
    r, part = (
        torch.cat([encoder(ENCODED[b][None], torch.ones(1, len(b)).bool()) for b in s]) for s in (BUNDLES, PARTS)
    )
    naive = 0.0
    for bundle, vector in zip(BUNDLES, r, strict=True):
        exps = [math.exp((vector @ u).item()) for u in DECODED]
        naive -= sum(math.log(exps[i] / sum(exps)) for i in bundle.tolist()) / len(bundle) / 3
    assert terms.reconstruction.item() == pytest.approx(naive, rel=1e-12)
    assert torch.allclose(terms.items, one_way_contrast(*views, 0.5))  # all seven items occur, two of them twice
    assert torch.allclose(terms.bundles, one_way_contrast(r, part, 0.2))
    assert torch.allclose(terms.loss, terms.reconstruction + 0.3 * terms.items + 0.7 * terms.bundles)
    assert torch.allclose(terms.vectors, r) and torch.allclose(terms.scores, r @ DECODED.T)


def test_items_in_no_bundle_are_not_contrasted():
    views = (VIEWS[0].clone().requires_grad_(), VIEWS[1])
    clhe_terms(ENCODED, DECODED, views, BUNDLES[1:2], PARTS[1:2], seeded(BundleEncoder)).items.backward()
    assert (views[0].grad != 0).any(1).nonzero()[:, 0].tolist() == [1, 4, 5]


def test_equal_views_one_bundle_and_a_zero_bundle_vector_have_known_losses():
    encoder = seeded(BundleEncoder)
    terms = clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES, PARTS, encoder, temperatures=(0.5, 0.2))
    cosine = F.normalize(VIEWS[0]) @ F.normalize(VIEWS[0]).T
    assert torch.allclose(terms.items, ((cosine - 1) / 0.5).logsumexp(1).mean())
    assert clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES[:1], PARTS[:1], encoder).bundles.item() == 0
    nothing = clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES, PARTS, lambda items, present: 0 * items.sum(1))
    assert nothing.reconstruction.item() == pytest.approx(math.log(7))


def test_the_released_part_shows_item_zero_for_every_item_left_out():
    filled = [released_part(bundle, part) for bundle, part in zip(BUNDLES, PARTS, strict=True)]
    assert [x.tolist() for x in filled] == [[3, 1, 0, 0], [5, 0, 0], [2, 0]]
    right, wrong = (clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES, p, seeded(BundleEncoder)) for p in (PARTS, filled))
    assert right.bundles.item() != pytest.approx(wrong.bundles.item(), rel=1e-3)
    assert torch.equal(right.reconstruction, wrong.reconstruction) and torch.equal(right.items, wrong.items)


def test_gradcheck():
    encoder, bundle_encoder = seeded(StackEncoder), seeded(BundleEncoder)

    def loss(stacks, decoded):
        v = encoder(stacks)
        dropped = torch.zeros(7, 3, dtype=torch.bool)
        dropped[0, 1] = True
        views = v, encoder(drop_descriptions(stacks, dropped))
        return clhe_terms(v, decoded, views, BUNDLES, PARTS, bundle_encoder).loss

    assert torch.autograd.gradcheck(loss, (STACKS.clone().requires_grad_(), DECODED.clone().requires_grad_()))


def test_zero_vectors_duplicates_and_small_temperatures_stay_finite():
    stacks = torch.cat([torch.zeros(3, 3, 4), torch.ones(4, 3, 4)]).requires_grad_()
    v = seeded(StackEncoder).float()(stacks)
    terms = clhe_terms(v, v, (v, v), BUNDLES, PARTS, seeded(BundleEncoder).float(), temperatures=(0.005, 0.005))
    terms.loss.backward()
    assert torch.isfinite(terms.loss) and torch.isfinite(stacks.grad).all()


def test_a_part_has_the_rounded_size_and_is_drawn_from_the_bundle():
    for size, ratio, kept in ((4, 0.5, 2), (3, 0.5, 2), (6, 0.05, 1), (5, 1.0, 4), (2, 0.5, 1), (1, 0.5, 1)):
        bundle = torch.arange(10, 10 + size)
        part = part_of(bundle, ratio, generator=generator())
        assert len(part) == kept == len(set(part.tolist()) & set(bundle.tolist()))
        filled = part_of(bundle, ratio, fill=10, generator=generator())
        assert torch.equal(filled[:kept], part) and len(filled) == size and (filled[kept:] < 10).all()


def test_noise_and_dropout_keep_the_mean_at_the_asked_strength():
    ones = torch.ones(400, 50)
    noisy, thinned = (perturb(ones, kind, 0.2, generator=generator()) for kind in ("noise", "dropout"))
    assert noisy.std().item() == pytest.approx(0.2, rel=0.05) and noisy.mean().item() == pytest.approx(1, abs=0.01)
    assert (thinned == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert thinned.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(perturb(ones, "dropout", 0.0), ones)


DATA = item_bundles(noise=2.0)
SOURCES = (DATA.content, DATA.text, DATA.feedback)


def test_content_stands_in_where_there_is_no_feedback():
    torch.manual_seed(0)
    stacks = Descriptions(SOURCES, DATA.warm, 8)()
    same = (stacks[:, 0] == stacks[:, 2]).all(1)
    assert torch.equal(same, ~DATA.warm) and stacks.shape == (300, 3, 8)


def test_every_augmentation_trains_what_it_should_and_the_attention_of_bundles_is_a_parameter():
    for augmentation in ("drop", "noise", "dropout", "none"):
        model = CLHE(SOURCES, DATA.warm, 8, augmentation=augmentation, fill=augmentation == "noise")
        model.loss([*DATA.train[:8], torch.tensor([3])]).loss.backward()
        missing = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        untrained = set() if augmentation in ("noise", "dropout") else {"projector.weight", "projector.bias"}
        assert missing == untrained
    assert "bundles.query.weight" in model.state_dict()


def test_views_differ_unless_nothing_is_augmented():
    for augmentation in ("drop", "noise", "dropout", "none"):
        model = CLHE(SOURCES, DATA.warm, 8, augmentation=augmentation)
        stacks, draws = model.describe(), generator()
        assert torch.equal(model.view(stacks, generator=draws), model.view(stacks, generator=draws)) == (
            augmentation == "none"
        )


@functools.cache
def train(item_weight, bundle_weight, seed):
    """Losses; cosine to the vector without each description; style precision from 1 item, 3 items, 3 less feedback."""
    data = item_bundles(noise=2.0, seed=seed)
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    options = {"temperatures": (0.5, 0.2), "weights": (item_weight, bundle_weight)}
    model = CLHE((data.content, data.text, data.feedback), data.warm, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-5)
    losses = []
    for _ in range(60):
        loss = model.loss(data.train, generator=draws).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    stacks, masks = model.describe().detach(), torch.eye(3, dtype=torch.bool)[:, None, :].expand(3, 300, 3)
    with torch.no_grad():
        whole = model.encoder(stacks)
        kept = [F.cosine_similarity(whole, model.encoder(drop_descriptions(stacks, m))).mean().item() for m in masks]
    styles = torch.stack([data.styles[bundle[0]] for bundle in data.test])
    found = []
    for given, dropped in ((1, None), (3, None), (3, masks[2])):
        top = model.scores([bundle[:given] for bundle in data.test], dropped=dropped).topk(10, 1).indices
        found.append((data.styles[top] == styles[:, None]).float().mean().item())
    return losses, kept, found


SEEDS = (0, 1, 2)
PLAIN, ITEMS, BOTH = (0.0, 0.0), (0.5, 0.0), (0.0, 0.5)


def test_training_lowers_the_loss_and_completes_bundles_far_above_chance():
    losses, _, found = train(*ITEMS, 0)
    assert losses[-1] < 0.75 * losses[0] and found[1] > 0.5  # chance is 1 in 12 styles


def test_the_item_contrast_makes_vectors_survive_the_loss_of_any_description():
    for seed in SEEDS:
        plain, contrasted = train(*PLAIN, seed)[1], train(*ITEMS, seed)[1]
        assert all(b > a + 0.01 for a, b in zip(plain, contrasted, strict=True))


def mean_gain(weights, which):
    return sum(train(*weights, s)[2][which] - train(*PLAIN, s)[2][which] for s in SEEDS) / len(SEEDS)


def test_without_feedback_the_item_contrast_ranks_better_and_the_bundle_contrast_worse():
    assert mean_gain(ITEMS, 2) > 0.02
    assert mean_gain(BOTH, 2) < -0.04


def test_the_bundle_contrast_makes_vectors_lean_on_the_id():
    for seed in SEEDS:
        assert train(*BOTH, seed)[1][1] < train(*PLAIN, seed)[1][1] - 0.02


def small(seed=0):
    torch.manual_seed(seed)
    return CLHE(SOURCES, DATA.warm, 8)


def test_a_loaded_model_goes_on_as_the_saved_one():
    there, fresh = small(), small(1)
    fresh.load_state_dict(there.state_dict())
    losses = [m.loss(DATA.train[:8], generator=generator()).loss for m in (there, fresh)]
    assert torch.equal(*losses)
    assert torch.equal(there.scores(DATA.test[:3]), fresh.scores(DATA.test[:3]))
    assert torch.equal(there(DATA.test[:3]), fresh(DATA.test[:3]))


def test_scores_leave_out_what_is_given_and_nothing_else():
    scores = small().scores(DATA.test[:3])
    for row, bundle in zip(scores, DATA.test[:3], strict=True):
        assert sorted(row.isinf().nonzero()[:, 0].tolist()) == sorted(bundle.tolist())


def test_half_precision_autocast_and_narrow_ids():
    a, c = draw(4, 3), draw(4, 3, seed=1)
    assert abs(one_way_contrast(a.bfloat16(), c.float(), 0.3) - one_way_contrast(a, c, 0.3)) < 0.05
    model = small()
    exact = model.loss(DATA.train[:8], generator=generator()).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss([b.int() for b in DATA.train[:8]], generator=generator()).loss
    loss.backward()
    assert abs(loss - exact) < 0.2
    equal = BundleEncoder(4)(torch.ones(2, 3, 4, dtype=torch.float16), torch.ones(2, 3, dtype=torch.bool))
    assert equal.isfinite().all()  # the epsilon of the normalization would be 0


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: one_way_contrast(ENCODED, DECODED, 0.0), ValueError, "temperature"),
        (lambda: one_way_contrast(ENCODED, DECODED[:3], 0.1), ValueError, "candidates"),
        (lambda: pad_bundles([], 7), ValueError, "bundles"),
        (lambda: pad_bundles([BUNDLES[0][:0]], 7), ValueError, "bundles"),
        (lambda: pad_bundles(BUNDLES, 6), ValueError, "bundles"),
        (lambda: part_of(ENCODED[0], 0.5), TypeError, "bundle"),
        (lambda: part_of(BUNDLES[0], 1.5), ValueError, "ratio"),
        (lambda: part_of(BUNDLES[0][:0], 0.5), ValueError, "bundle"),
        (lambda: drop_descriptions(STACKS, torch.zeros(7, 2).bool()), ValueError, "dropped"),
        (lambda: drop_descriptions(STACKS, torch.zeros(7, 3)), TypeError, "dropped"),
        (lambda: perturb(ENCODED, "blur", 0.1), ValueError, "kind"),
        (lambda: perturb(ENCODED, "dropout", 1.0), ValueError, "amount"),
        (lambda: seeded(StackEncoder)(ENCODED), ValueError, "stacks"),
        (lambda: seeded(BundleEncoder)(STACKS, torch.zeros(7, 3).bool()), ValueError, "present"),
        (lambda: BundleEncoder(4, epsilon=0.0), ValueError, "epsilon"),
        (lambda: clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES, PARTS[:2], seeded(BundleEncoder)), ValueError, "parts"),
        (
            lambda: clhe_terms(ENCODED, DECODED, VIEWS, BUNDLES, PARTS, len, weights=(0.1, -1.0)),
            ValueError,
            "weights",
        ),
        (lambda: CLHE(SOURCES, DATA.warm, augmentation="crop"), ValueError, "augmentation"),
        (lambda: CLHE(SOURCES, DATA.warm[:5]), ValueError, "warm"),
        (lambda: CLHE((*SOURCES[:2], SOURCES[2] * math.nan), DATA.warm), ValueError, "sources"),
        (lambda: CLHE(SOURCES, DATA.warm, amount=1.5), ValueError, "amount"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
