"""Qin et al. (2023): learned views, trained in turns with the encoder."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize, nt_xent
from cl_teach.datasets.interactions import item_sequences
from cl_teach.graphs.mclrec import (
    Augmenter,
    MCLRec,
    inner_product_nt_xent,
    margin_regularizer,
    mclrec_terms,
)
from cl_teach.models.item_sequences import SequenceEncoder, augment_sequences

X, Y = draw(5, 4), draw(5, 4, seed=1)
DATA = item_sequences(300, 40, 4, 8)


def rows(x, y, tau=1.0):
    """Positive and negative scores of each of the 2B rows."""
    v = torch.cat([x, y])
    for r in range(len(v)):
        partner = (r + len(x)) % len(v)
        yield float(v[r] @ v[partner]) / tau, [float(v[r] @ v[k]) / tau for k in range(len(v)) if k not in (r, partner)]


def test_contrast_equals_the_loops_and_is_symmetric():
    total = sum(-p + math.log(math.exp(p) + sum(map(math.exp, n))) for p, n in rows(X, Y, 0.7)) / 10
    assert inner_product_nt_xent(X, Y, 0.7).item() == pytest.approx(total, rel=1e-12)
    assert torch.allclose(inner_product_nt_xent(Y, X, 0.7), inner_product_nt_xent(X, Y, 0.7))


def test_regularizer_equals_the_loops():
    scores = list(rows(X, Y, 0.7))
    smallest, largest = min(p for p, _ in scores), max(max(n) for _, n in scores)
    for scope in ("row", "batch"):
        up = down = 0.0
        for p, n in scores:
            ends = (p, max(n)) if scope == "row" else (smallest, largest)
            up += max(0.0, p - min(ends)) / 10
            down += sum(max(0.0, max(ends) - s) for s in n) / (10 * len(n))
        assert margin_regularizer(X, Y, 0.7, scope=scope).item() == pytest.approx(up + down, rel=1e-12)


def test_on_unit_rows_it_is_nt_xent_and_equal_rows_give_the_logarithm():
    x, y = normalize(X), normalize(Y)
    assert torch.allclose(inner_product_nt_xent(x, y, 0.5), nt_xent(X, Y, 0.5))
    same = X[:1].expand(5, 4)
    assert inner_product_nt_xent(same, same).item() == pytest.approx(math.log(9), rel=1e-12)
    assert inner_product_nt_xent(x, y) >= math.log(1 + 8 * math.exp(-2))


def test_a_clean_margin_costs_twice_the_margin():
    x = torch.eye(5, dtype=torch.float64)  # positives 9, all negatives 0
    for scope in ("row", "batch"):
        assert margin_regularizer(3 * x, 3 * x, scope=scope).item() == pytest.approx(18)


def test_it_is_zero_where_negatives_are_equal_and_positives_do_not_exceed_them():
    same = torch.ones(4, 3, dtype=torch.float64)
    assert margin_regularizer(same, same).item() == 0
    assert margin_regularizer(X, Y) > 0 and margin_regularizer(X, Y, scope="batch") > 0


def test_it_scales_with_the_scores_and_ignores_a_constant_on_all_of_them():
    for scope in ("row", "batch"):
        base = margin_regularizer(X, Y, scope=scope)
        assert torch.allclose(margin_regularizer(2 * X, 2 * Y, scope=scope), 4 * base)
        one = 3 * torch.ones(5, 1, dtype=torch.float64)  # an extra coordinate adds 9 to every inner product
        shifted = margin_regularizer(torch.cat([X, one], 1), torch.cat([Y, one], 1), scope=scope)
        assert torch.allclose(shifted, base)


def test_minimizing_it_lowers_easy_positives_and_raises_easy_negatives():
    x = 2 * torch.eye(3, dtype=torch.float64)
    x, y = (x + 0.3 * draw(3, 3, seed=2)).requires_grad_(), x + 0.3 * draw(3, 3, seed=3)
    (gradient,) = torch.autograd.grad(margin_regularizer(x, y), x)
    with torch.no_grad():
        before, after = list(rows(x, y)), list(rows(x - 0.02 * gradient, y))
    mean = [sum(p for p, _ in s) / 6 for s in (before, after)]
    others = [sum(sum(n) for _, n in s) / 24 for s in (before, after)]
    assert mean[1] < mean[0] and others[1] > others[0]


def test_terms_are_the_three_pairs_at_temperature_one():
    z1, z2 = normalize(draw(5, 4, seed=4)), normalize(draw(5, 4, seed=5))
    terms = mclrec_terms(X, Y, z1, z2, 0.5)
    learned = sum(inner_product_nt_xent(a, b) for a, b in ((z1, z2), (X, z2), (Y, z1)))
    assert torch.allclose(terms.learned, learned)
    assert torch.allclose(terms.plain, inner_product_nt_xent(X, Y, 0.5))
    assert torch.allclose(terms.margins[2], margin_regularizer(z1, z2) / 0.5)
    assert torch.allclose(terms.augmenter_loss(0.1), learned + 0.1 * sum(terms.margins))


def test_gradcheck():
    inputs = X.clone().requires_grad_(), Y.clone().requires_grad_()
    assert torch.autograd.gradcheck(inner_product_nt_xent, inputs)
    for scope in ("row", "batch"):
        assert torch.autograd.gradcheck(lambda a, b, s=scope: margin_regularizer(a, b, scope=s), inputs)


def test_large_scores_and_a_small_temperature_stay_finite():
    x, y = (30 * X.float()).requires_grad_(), 30 * Y.float()
    loss = inner_product_nt_xent(x, y, 0.005) + margin_regularizer(x, y, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()


def test_augmenters_give_unit_rows_and_zero_stays_zero():
    augmenter = Augmenter(4, (6, 5)).double()
    assert torch.allclose(augmenter(X).norm(dim=1), torch.ones(5, dtype=torch.float64))
    torch.nn.init.zeros_(augmenter.third.weight)
    torch.nn.init.zeros_(augmenter.third.bias)
    assert (augmenter(X) == 0).all()


def test_every_augmentation_is_a_crop_a_mask_or_a_shuffle():
    short = torch.zeros(400, 9, dtype=torch.long)
    for i in range(400):
        length = 1 + i % 9
        short[i, 9 - length :] = torch.arange(1, length + 1) + 10 * (i % 7)
    found = {"crop": 0, "mask": 0, "shuffle": 0}
    for before, after in zip(short, augment_sequences(short, generator=torch.Generator().manual_seed(0)), strict=True):
        items, kept = before[before > 0], after[after > 0]
        n = len(items)
        half = max(n // 2, 1)
        crops = [items[i : i + half].tolist() for i in range(n - half + 1)]
        if len(kept) == n and sorted(kept.tolist()) == items.tolist():
            assert (after.eq(0) == before.eq(0)).all()
            moved = (after != before).nonzero()[:, 0]
            assert len(moved) == 0 or moved[-1] - moved[0] < int(0.8 * n)
            found["shuffle"] += n > 4
        elif len(kept) == n - n // 2 and (after[after > 0] == before[after > 0]).all():
            found["mask"] += n > 4
        else:
            assert after[-half:].tolist() in crops and (after[:-half] == 0).all()
            found["crop"] += n > 4
    assert min(found.values()) > 40


def test_the_encoder_is_blind_to_padding_and_masked_items():
    torch.manual_seed(0)
    encoder = SequenceEncoder(40, 16, 8).eval()
    tail = torch.tensor([[5, 0, 9, 3]])
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), tail], 1)
    assert torch.allclose(encoder(tail), encoder(padded), atol=1e-6)
    with torch.no_grad():  # torch then takes another path through the layers
        assert torch.allclose(encoder(tail), encoder(padded), atol=1e-6)
        quick = encoder(DATA.sequences)
    assert torch.allclose(quick, encoder(DATA.sequences), atol=1e-5)
    other = padded.clone()
    other[0, 5] = 7
    assert not torch.allclose(encoder(other), encoder(padded), atol=1e-4)


def test_stages_move_only_their_own_part(monkeypatch):
    torch.manual_seed(0)
    model = MCLRec(SequenceEncoder(40, 16, 8), (8, 8))
    moves, update = [], model._update

    def watch(loss, *optimizers):
        state = {name: p.clone() for name, p in model.named_parameters()}
        update(loss, *optimizers)
        moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, state[name])}
        moves.append(moved)

    monkeypatch.setattr(model, "_update", watch)
    model.step((DATA.sequences[:16], DATA.targets[:16]))
    assert moves == [{"encoder"}, {"augmenters"}, {"encoder"}]
    moves.clear()
    model.step((DATA.sequences[:16], DATA.targets[:16]), joint=True)
    assert moves == [{"encoder", "augmenters"}]


def test_the_regularizer_narrows_the_margin_of_trained_augmenters():
    def gap(weight):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        h = torch.randn(64, 16, generator=generator)
        h1, h2 = (h + 0.3 * torch.randn(64, 16, generator=generator) for _ in range(2))
        pair = torch.nn.ModuleList(Augmenter(16, (8, 8)) for _ in range(2))
        optimizer = torch.optim.Adam(pair.parameters(), lr=1e-2)
        losses = []
        for _ in range(150):
            z1, z2 = pair[0](h1), pair[1](h2)
            terms = mclrec_terms(h1, h2, z1, z2)
            loss = terms.learned + weight * terms.margins[2]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 1
        scores = z1 @ z2.T
        hardest = (scores - 3 * torch.eye(64)).amax(1)
        return scores.diagonal().mean().item(), (scores.diagonal() - hardest).mean().item()

    free, held = gap(0.0), gap(1.0)
    assert held[0] < free[0] - 0.1 and held[1] < free[1] - 0.03


def test_training_in_turns_ranks_the_next_item_far_above_chance():
    torch.manual_seed(0)
    data = item_sequences(600, 40, 4, 8, seed=1)
    model = MCLRec(SequenceEncoder(40, 32, 8), learning_rate=3e-3)
    order, views = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(6):
        for batch in torch.randperm(500, generator=order).split(100):
            losses.append(model.step((data.sequences[batch], data.targets[batch]), generator=views).item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    model.eval()
    top = model.scores(data.sequences[500:]).topk(5, dim=1).indices + 1
    hit = (top == data.targets[500:, None]).any(1).double().mean().item()
    assert hit > 2 * 5 / 40


def small(**settings):
    torch.manual_seed(0)
    return MCLRec(SequenceEncoder(40, 16, 8), (8, 8), **settings)


def test_the_scope_of_the_margin_reaches_the_loss():
    losses = []
    for scope in ("row", "batch"):
        model = small(scope=scope, margin_weight=1.0).eval()
        generator = torch.Generator().manual_seed(0)
        losses.append(model.loss(DATA.sequences[:16], DATA.targets[:16], generator=generator).item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_training_goes_on_from_its_state():
    there, fresh = small(), small()
    batch = DATA.sequences[:16], DATA.targets[:16]
    there.step(batch, generator=torch.Generator().manual_seed(0))
    fresh.load_state_dict(there.state_dict())
    losses = []
    for model in (there, fresh):
        torch.manual_seed(1)  # dropout
        generator = torch.Generator().manual_seed(1)
        losses.append([model.step(batch, generator=generator) for _ in range(2)])
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))
    assert torch.equal(there.scores(batch[0]), fresh.scores(batch[0]))


def test_scores_have_no_dropout_and_leave_the_mode():
    model = small().train()
    assert torch.equal(model.scores(DATA.sequences[:4]), model.scores(DATA.sequences[:4].int()))
    assert model.training and model.encoder.training


def test_half_precision_and_autocast():
    half = inner_product_nt_xent(X.bfloat16(), Y.bfloat16())
    assert abs(half - inner_product_nt_xent(X, Y)) < 0.05
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(DATA.sequences[:16], DATA.targets[:16])
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: inner_product_nt_xent(X, Y[:4]), "y"),
        (lambda: inner_product_nt_xent(X[:1], Y[:1]), "at least 2 rows"),
        (lambda: inner_product_nt_xent(X, Y, 0.0), "temperature"),
        (lambda: margin_regularizer(X, Y, scope="all"), "scope"),
        (lambda: margin_regularizer(X, Y * math.nan), "y"),
        (lambda: augment_sequences(torch.zeros(2, 3, dtype=torch.long)), "sequences"),
        (lambda: augment_sequences(torch.tensor([1, 2])), "sequences"),
        (lambda: Augmenter(0), "dim"),
        (lambda: MCLRec(SequenceEncoder(4), margin_weight=-1.0), "margin_weight"),
        (
            lambda: MCLRec(SequenceEncoder(4)).step((torch.tensor([[1], [2]]), torch.tensor([1, 5]))),
            r"batch\[1\].*got 5",
        ),
        (lambda: MCLRec(SequenceEncoder(4)).loss(torch.tensor([[1], [2]]), torch.tensor([1, 0])), "targets.*got 0"),
        (lambda: SequenceEncoder(4, length=3)(torch.ones(2, 4).long()), "sequences.*at most 3 items, got 4"),
        (lambda: SequenceEncoder(4)(torch.full((2, 3), 5)), "sequences.*below 5, got 5"),
        (lambda: MCLRec(SequenceEncoder(4), scope="all"), "scope"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
