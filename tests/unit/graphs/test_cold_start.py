"""Hu et al. (2025), reconstructed: a gate over fields and a contrast of pairs, for items nobody has met."""

import functools
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.datasets.networks import attributed_interactions
from cl_teach.graphs.cold_start import (
    ColdStart,
    cold_start,
    draw_batch,
    hide_fields,
    pair_contrast,
)
from cl_teach.models.fields import FieldEncoder, FusionGate


def scorer(temperature=1.0):
    torch.manual_seed(0)
    return FusionGate(4, 5, temperature=temperature).double()


FIELDS, USERS, ITEMS = draw(6, 3, 4), draw(5, 4, seed=1), draw(5, 4, seed=2)
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]).bool()
KNOWN = torch.zeros(5, 5, dtype=torch.bool)
KNOWN[0, 3] = KNOWN[2, 0] = KNOWN[2, 1] = True


def test_gate_equals_the_loops():
    gate = scorer(0.5)
    fused = gate(FIELDS, PRESENT)
    for n in range(6):
        weights = {}
        for f in PRESENT[n].nonzero()[:, 0].tolist():
            hidden = torch.tanh(gate.first.weight @ FIELDS[n, f] + gate.first.bias)
            weights[f] = math.exp((gate.second.weight[0] @ hidden).item() / 0.5)
        total = sum(weights.values())
        z = sum(w / total * FIELDS[n, f] for f, w in weights.items())
        assert torch.allclose(fused.z[n], z)
        assert fused.gate[n].tolist() == pytest.approx([weights.get(f, 0.0) / total for f in range(3)])
        entropy = -sum(w / total * math.log(w / total) for w in weights.values())
        assert fused.entropy()[n].item() == pytest.approx(entropy, abs=1e-12)


def test_gate_is_a_distribution_and_absent_fields_get_neither_weight_nor_gradient():
    fields = FIELDS.clone().requires_grad_()
    fused = scorer()(fields, PRESENT)
    fused.z.square().sum().backward()
    assert torch.allclose(fused.gate.sum(1), torch.ones(6, dtype=torch.float64)) and (fused.gate >= 0).all()
    assert (fused.gate[~PRESENT] == 0).all() and (fused.gate[PRESENT] > 0).all()
    assert (fields.grad[~PRESENT] == 0).all() and (fields.grad[PRESENT] != 0).all()


def test_a_single_field_passes_unchanged_and_teaches_the_scorer_nothing():
    gate = scorer()
    present = torch.zeros(6, 3, dtype=torch.bool)
    present[:, 1] = True
    z = gate(FIELDS, present).z
    assert torch.equal(z, FIELDS[:, 1])
    z.square().sum().backward()
    assert all((p.grad == 0).all() for p in gate.parameters())


def test_a_silent_scorer_gives_the_mean_and_the_order_of_fields_is_no_matter():
    gate = scorer()
    order = [2, 0, 1]
    assert torch.allclose(gate(FIELDS[:, order], PRESENT[:, order]).z, gate(FIELDS, PRESENT).z)
    torch.nn.init.zeros_(gate.second.weight)
    mean = (FIELDS * PRESENT[:, :, None]).sum(1) / PRESENT.sum(1, keepdim=True)
    assert torch.allclose(gate(FIELDS, PRESENT).z, mean)


def test_a_small_gate_temperature_picks_and_a_large_one_averages():
    every = torch.ones_like(PRESENT)
    best = scorer()(FIELDS, every).gate.argmax(1)
    assert torch.allclose(scorer(1e-5)(FIELDS, every).z, FIELDS[torch.arange(6), best])
    assert torch.allclose(scorer(1e7)(FIELDS, every).z, FIELDS.mean(1), atol=1e-6)


def test_contrast_equals_the_loops():
    popularity = torch.tensor([1.0, 2.0, 5.0, 1.0, 3.0], dtype=torch.float64)
    for often in (None, popularity):
        total = 0.0
        for i in range(5):
            terms = {}
            for j in range(5):
                if not KNOWN[i, j]:
                    cosine = float(USERS[i] @ ITEMS[j] / USERS[i].norm() / ITEMS[j].norm())
                    terms[j] = math.exp(cosine / 0.3) / (1.0 if often is None else float(often[j]))
            total -= math.log(terms[i] / sum(terms.values())) / 5
        assert pair_contrast(USERS, ITEMS, KNOWN, 0.3, popularity=often).item() == pytest.approx(total, rel=1e-12)


def test_contrast_ignores_lengths_and_gives_the_mean_log_count_when_collapsed():
    scale = draw(5, 1, seed=3).exp()
    base = pair_contrast(USERS, ITEMS, KNOWN)
    assert torch.allclose(pair_contrast(scale * USERS, ITEMS, KNOWN), base)
    assert torch.allclose(pair_contrast(USERS, scale * ITEMS, KNOWN), base)
    same = USERS[:1].expand(5, 4)
    expected = (3 * math.log(5) + math.log(4) + math.log(3)) / 5
    assert pair_contrast(same, same, KNOWN).item() == pytest.approx(expected, rel=1e-12)


def test_items_a_user_likes_are_not_pushed_away():
    items = ITEMS.clone().requires_grad_()
    pair_contrast(USERS, items, KNOWN, reduction="none")[2].backward()
    assert (items.grad[:2] == 0).all() and (items.grad[2:] != 0).any(1).all()


def test_total_is_the_ranking_plus_the_weighted_contrast():
    unseen = draw(5, 4, seed=4)
    terms = cold_start(USERS, ITEMS, unseen, KNOWN, weight=0.7)
    naive = sum(math.log(1 + math.exp(float(USERS[i] @ (unseen[i] - ITEMS[i])))) for i in range(5)) / 5
    assert terms.ranking.item() == pytest.approx(naive, rel=1e-12)
    assert torch.allclose(terms.loss, terms.ranking + 0.7 * pair_contrast(USERS, ITEMS, KNOWN))
    assert torch.equal(cold_start(USERS, ITEMS, unseen, KNOWN, weight=0.0).loss, terms.ranking)
    assert cold_start(USERS, ITEMS, ITEMS, KNOWN).ranking.item() == pytest.approx(math.log(2))


def test_gradcheck():
    gate = scorer()
    fields = FIELDS[:5].clone().requires_grad_()

    def loss(x):
        return cold_start(gate(x, PRESENT[:5]).z, ITEMS, ITEMS.flip(0), KNOWN).loss

    assert torch.autograd.gradcheck(loss, (fields,))
    assert torch.autograd.gradcheck(lambda a, b: pair_contrast(a, b, KNOWN), (USERS.clone().requires_grad_(), ITEMS))


def test_zero_vectors_duplicates_and_a_small_temperature_stay_finite():
    users = torch.cat([torch.zeros(1, 4), torch.ones(4, 4)]).requires_grad_()
    loss = cold_start(users, torch.ones(5, 4), -1e3 * torch.ones(5, 4), KNOWN, 0.005).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(users.grad).all()


def test_hidden_fields_come_at_their_rates_and_never_all():
    present = torch.ones(4000, 3, dtype=torch.bool)
    present[:2000, 1] = False
    kept = hide_fields(present, 2, 0.5, 0.1, generator=torch.Generator().manual_seed(0))
    assert kept.any(1).all() and not (kept & ~present).any()
    assert (1 - kept[:, 2].float().mean()).item() == pytest.approx(0.5, abs=0.05)  # less the few that would be empty
    assert (1 - kept[2000:, 1].float().mean()).item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(hide_fields(present, None, 1.0, 1.0), present)


def test_batches_hold_met_pairs_unseen_items_and_what_else_is_known():
    data = attributed_interactions(60, 50)
    batch = draw_batch(data.train, 40, generator=torch.Generator().manual_seed(0))
    assert data.train[batch.users, batch.items].all() and not data.train[batch.users, batch.unseen].any()
    assert len(torch.stack([batch.users, batch.items], 1).unique(dim=0)) == 40
    for i in range(40):
        met = [i != j and bool(data.train[batch.users[i], batch.items[j]]) for j in range(40)]
        assert batch.known[i].tolist() == met
        assert batch.popularity[i] == data.train[:, batch.items[i]].sum()
    assert batch.known.any()


def test_missing_categories_and_cold_ids_are_absent():
    fields = torch.tensor([[0, 2], [-1, 1], [1, 0]])
    cold = torch.tensor([False, True, False])
    model = ColdStart(fields, fields, cold, 4, cold_users=~cold, hide=(0.0, 0.0))
    assert (model.fuse_items(torch.arange(3)).gate > 0).tolist() == [[1, 1, 1], [0, 1, 0], [1, 1, 1]]
    assert (model.fuse_users(torch.arange(3)).gate > 0).tolist() == [[1, 1, 0], [0, 1, 1], [1, 1, 0]]
    vectors, present = FieldEncoder([2, 3], 4)(fields)
    assert vectors.shape == (3, 2, 4) and torch.equal(present, fields >= 0)


@functools.cache
def train(gate, weight, seed, gate_temperature=1.0):
    """Losses, R-precision on warm and on cold items, gate mass on the two informative fields, gate entropy."""
    data = attributed_interactions(200, 200, values=5, met=2, seed=seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    options = {"gate": gate, "weight": weight, "gate_temperature": gate_temperature}
    model = ColdStart(data.user_fields, data.item_fields, data.cold, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        loss = model.loss(*draw_batch(data.train, 64, generator=generator), generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    everyone, everything = torch.arange(200), torch.arange(200)
    scores = model.scores(everyone, everything).masked_fill(data.train, -math.inf)
    found = []
    for items in (~data.cold, data.cold):
        liked = (data.liked & ~data.train)[:, items]
        count = liked.sum(1, keepdim=True)
        top = scores[:, items].argsort(1, descending=True).argsort(1) < count
        some = count[:, 0] > 0
        found.append(((top & liked).sum(1)[some] / count[some, 0]).mean().item())
    fused = model.fuse_items(everything[data.cold])
    return losses, *found, fused.gate[:, :2].sum(1).mean().item(), fused.entropy().mean().item()


SEEDS = (0, 1, 2)


def test_training_lowers_the_loss():
    losses = train(True, 0.3, 0)[0]
    assert sum(losses[-10:]) / 10 < 0.6 * losses[0]


def test_the_gate_finds_the_informative_fields_of_items_nobody_has_met():
    for seed in SEEDS:
        assert train(False, 0.3, seed)[3] == pytest.approx(2 / 6)
        assert train(True, 0.3, seed)[3] > 0.8


def test_the_contrast_ranks_cold_items_better_over_a_mean_and_on_average_over_a_gate():
    gain = {gate: [train(gate, 0.3, s)[2] - train(gate, 0.0, s)[2] for s in SEEDS] for gate in (False, True)}
    assert min(gain[False]) > 0.15
    assert sum(gain[True]) / len(SEEDS) > 0.1


def test_alone_the_gate_settles_on_one_field_and_ranks_warm_items_worse_than_the_mean():
    for seed in SEEDS:
        alone, mean = train(True, 0.0, seed), train(False, 0.0, seed)
        assert alone[1] < mean[1] - 0.05
        assert alone[4] < math.log(2) - 0.2  # two fields are needed; equal votes for both have entropy log 2


def test_the_contrast_and_a_larger_gate_temperature_keep_more_of_both_fields():
    for seed in SEEDS:
        alone = train(True, 0.0, seed)[4]
        assert train(True, 0.3, seed)[4] > alone + 0.1 and train(True, 0.0, seed, 3.0)[4] > alone + 0.1


def small(seed=0):
    data = attributed_interactions(30, 20, seed=0)
    torch.manual_seed(seed)
    return ColdStart(data.user_fields, data.item_fields, data.cold, 8), draw_batch(
        data.train, 16, generator=torch.Generator().manual_seed(0)
    )


def test_scores_hide_nothing_whatever_the_mode_and_a_loaded_model_gives_the_same():
    (there, batch), (fresh, _) = small(), small(1)
    fresh.load_state_dict(there.state_dict())
    users, items = torch.arange(30), torch.arange(20)
    there.train()
    assert torch.equal(there.scores(users, items), there.scores(users, items)) and there.training
    assert torch.equal(there.scores(users, items), fresh.scores(users, items))
    losses = [m.loss(*batch, generator=torch.Generator().manual_seed(0)).loss for m in (there, fresh)]
    assert torch.equal(*losses)


def test_ids_of_every_width_and_half_precision():
    model, batch = small()
    model.eval()
    right = model.fuse_users(batch.users).z
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(model.fuse_users(batch.users.to(dtype)).z, right)
    exact = pair_contrast(USERS, ITEMS, KNOWN)
    assert abs(pair_contrast(USERS.bfloat16(), ITEMS.float(), KNOWN) - exact) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert abs(model.loss(*batch).loss - model.loss(*batch).loss.float()) < 0.05
        assert model.loss(*batch).loss.isfinite()


def test_a_user_who_met_everything_and_unknown_ids_are_named():
    with pytest.raises(ValueError, match="met: user 0 met every item"):
        draw_batch(torch.ones(2, 3, dtype=torch.bool), 2)
    model, _ = small()
    with pytest.raises(ValueError, match="users.*30"):
        model.scores(torch.tensor([30]), torch.arange(4))
    with pytest.raises(ValueError, match="items.*25"):
        model.scores(torch.tensor([0]), torch.tensor([25]))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: FusionGate(0), ValueError, "dim"),
        (lambda: FusionGate(4, temperature=0.0), ValueError, "temperature"),
        (lambda: scorer()(FIELDS, PRESENT & False), ValueError, "present"),
        (lambda: scorer()(FIELDS, PRESENT.long()), TypeError, "present"),
        (lambda: scorer()(FIELDS * math.nan, PRESENT), ValueError, "fields"),
        (lambda: FieldEncoder([2])(torch.tensor([[2]])), ValueError, "categories"),
        (lambda: FieldEncoder([2])(torch.tensor([[0, 1]])), ValueError, "categories"),
        (lambda: hide_fields(PRESENT, None, 1.5, 0.0), ValueError, "id_rate"),
        (lambda: draw_batch(PRESENT, 100), ValueError, "size"),
        (lambda: draw_batch(FIELDS, 2), TypeError, "met"),
        (lambda: pair_contrast(USERS, ITEMS, ~KNOWN), ValueError, "known"),
        (lambda: pair_contrast(USERS, ITEMS, KNOWN, 0.0), ValueError, "temperature"),
        (lambda: pair_contrast(USERS, ITEMS[:4], KNOWN), ValueError, "items"),
        (lambda: pair_contrast(USERS[:1], ITEMS[:1], KNOWN[:1, :1]), ValueError, "users"),
        (lambda: pair_contrast(USERS, ITEMS, KNOWN, popularity=torch.zeros(5)), ValueError, "popularity"),
        (lambda: cold_start(USERS, ITEMS, ITEMS, KNOWN, weight=-1.0), ValueError, "weight"),
        (lambda: ColdStart(KNOWN.long()[0], KNOWN.long(), KNOWN[0]), ValueError, "user_fields"),
        (lambda: ColdStart(KNOWN.long(), KNOWN.long(), KNOWN[0, :3]), ValueError, "cold_items"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
