"""Wang et al. (2023): what belongs together at four levels of a medical recording."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.datasets.series import heart_beats
from cl_teach.models.dilated import DilatedEncoder, draw_segments
from cl_teach.signals.comet import (
    COMET,
    LEVELS,
    comet_loss,
    identity_loss,
    identity_similarity,
    observation_loss,
    over_pooled_time,
    sample_loss,
    trial_batches,
)

B, T, C = 5, 7, 3
R1, R2 = draw(B, T, C), draw(B, T, C, seed=1)
IDS = torch.tensor([0, 1, 0, 1, 0])


def block(u, v):
    """The two-view block, pair by pair."""
    both, n = [*u, *v], len(u)
    total = 0.0
    for k in range(2 * n):
        bottom = sum(math.exp(both[k] @ both[a]) for a in range(2 * n) if a != k)
        total += math.log(bottom) - float(both[k] @ both[(k + n) % (2 * n)])
    return total / (2 * n)


def test_fine_levels_equal_the_loops():
    wanted = sum(block(R1[:, t], R2[:, t]) for t in range(T)) / T
    assert sample_loss(R1, R2).item() == pytest.approx(wanted, rel=1e-12)
    wanted = sum(block(R1[b], R2[b]) for b in range(B)) / B
    assert observation_loss(R1, R2).item() == pytest.approx(wanted, rel=1e-12)


def test_identity_loss_equals_the_loops():
    r, s = ((x / x.norm(dim=1, keepdim=True)).reshape(B, -1) for x in (R1, R2))
    r, s = r / r.norm(dim=1, keepdim=True), s / s.norm(dim=1, keepdim=True)
    E = torch.exp(r @ s.T / 0.1)
    pairs = [(i, j) for i in range(B) for j in range(i + 1, B) if IDS[i] == IDS[j]]
    forth = sum(-math.log(E[i, j] / E[i].sum()) for i, j in pairs) / len(pairs)
    back = sum(-math.log(E[j, i] / E[:, i].sum()) for i, j in pairs) / len(pairs)
    assert identity_loss(R1, R2, IDS).item() == pytest.approx((forth + back) / 2, rel=1e-12)


def test_nothing_to_contrast_gives_zero_with_gradient_zero():
    for loss in (
        lambda r: sample_loss(r[:1], R2[:1]),
        lambda r: observation_loss(r[:, :1], R2[:, :1]),
        lambda r: identity_loss(r, R2, torch.arange(B)),
        lambda r: over_pooled_time(sample_loss, r[:, :1], R2[:, :1]),
    ):
        r = R1.clone().requires_grad_()
        value = loss(r)
        value.backward()
        assert value == 0 and not r.grad.any()


def test_equal_encodings_give_the_logarithm_of_the_number_of_candidates():
    same = torch.full((B, T, C), 0.3, dtype=torch.float64)
    assert sample_loss(same, same).item() == pytest.approx(math.log(2 * B - 1))
    assert observation_loss(same, same).item() == pytest.approx(math.log(2 * T - 1))
    assert identity_loss(same, same, torch.zeros(B, dtype=torch.long)).item() == pytest.approx(math.log(B))


def test_swapping_the_views_changes_no_loss():
    assert torch.allclose(sample_loss(R2, R1), sample_loss(R1, R2))
    assert torch.allclose(observation_loss(R2, R1), observation_loss(R1, R2))
    assert torch.allclose(identity_loss(R2, R1, IDS), identity_loss(R1, R2, IDS))


def test_identity_loss_ignores_channel_scales_and_names_but_not_quite_the_order():
    scale = draw(B, 1, C, seed=2).abs() + 0.1
    assert torch.allclose(identity_loss(scale * R1, R2, IDS), identity_loss(R1, R2, IDS))
    assert torch.allclose(identity_loss(R1, R2, 7 - IDS), identity_loss(R1, R2, IDS))
    back = torch.arange(B - 1, -1, -1)
    assert not torch.allclose(identity_loss(R1[back], R2[back], IDS[back]), identity_loss(R1, R2, IDS))


def test_identity_gradient_is_orthogonal_to_every_channel():
    r = R1.clone().requires_grad_()
    identity_loss(r, R2, IDS).backward()
    assert torch.allclose((r.grad * R1).sum(1), torch.zeros(B, C, dtype=torch.float64), atol=1e-12)
    assert r.grad.abs().max() > 0.01


def test_pooling_visits_every_length_above_one():
    for length, wanted in ((8, [8, 4, 2]), (7, [7, 3]), (1, [])):
        seen = []

        def loss(r1, r2, seen=seen):
            seen.append(r1.shape[1])
            return r1.sum()

        over_pooled_time(loss, draw(2, length, 2), draw(2, length, 2))
        assert seen == wanted
    pooled = [torch.stack([x[:, 2 * t : 2 * t + 2].amax(1) for t in range(3)], 1) for x in (R1, R2)]
    wanted = (sample_loss(R1, R2) + sample_loss(*pooled)) / 2
    assert torch.allclose(over_pooled_time(sample_loss, R1, R2), wanted)


def test_the_released_weights_of_the_coarse_levels_only_switch():
    views = {level: (draw(B, T, C, seed=2 * i), draw(B, T, C, seed=2 * i + 1)) for i, level in enumerate(LEVELS)}
    trials, patients = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 0, 1])
    alone = [comet_loss(views, patients, trials, tuple(float(i == k) for i in range(4))) for k in range(4)]
    factors = (0.1, 0.7, 0.15, 0.05)
    wanted = sum(f * x for f, x in zip(factors, alone, strict=True))
    assert torch.allclose(comet_loss(views, patients, trials, factors), wanted)
    wanted = alone[0] + alone[1] + 0.15 * alone[2] + 0.05 * alone[3]
    assert torch.allclose(comet_loss(views, patients, trials, factors, released=True), wanted)
    off = comet_loss(views, patients, trials, (0.0, 0.7, 0.15, 0.05), released=True)
    assert torch.allclose(off, wanted - alone[0])
    only_patient = {"patient": views["patient"]}
    assert torch.allclose(comet_loss(only_patient, patients, trials, (1.0, 0, 0, 0)), alone[0])


def test_gradchecks():
    inputs = tuple(x[:3, :4].clone().requires_grad_() for x in (R1, R2))
    assert torch.autograd.gradcheck(lambda a, b: over_pooled_time(sample_loss, a, b), inputs)
    assert torch.autograd.gradcheck(observation_loss, inputs)
    assert torch.autograd.gradcheck(lambda a, b: identity_loss(a, b, IDS[:3], 0.5), inputs)


def test_large_encodings_low_temperatures_and_zeros_stay_finite():
    r = torch.cat([100 * R1[:3].float(), torch.zeros(2, T, C)]).requires_grad_()
    other = torch.cat([100 * R1[:3].float(), torch.zeros(2, T, C)])
    loss = sample_loss(r, other) + observation_loss(r, other) + identity_loss(r, other, IDS, 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(r.grad).all()


def test_segments_hide_between_one_and_five_tenths_of_a_window():
    hidden = draw_segments(500, 40, generator=torch.Generator().manual_seed(0))
    share = hidden.sum(1)
    assert hidden.shape == (500, 40) and share.min() >= 4 and share.max() == 20
    assert hidden.any(0).all()  # every place can be hidden, the last one too
    assert not draw_segments(3, 9).any()  # a tenth of 9 rounds down to nothing


def test_batches_hold_whole_trials_and_cover_the_data():
    trials = torch.arange(12).repeat_interleave(6)[torch.randperm(72, generator=torch.Generator().manual_seed(1))]
    passes = list(trial_batches(trials, 18, generator=torch.Generator().manual_seed(0)))
    assert torch.cat(passes).sort().values.tolist() == list(range(72))
    assert all(trials[rows].bincount()[trials[rows].unique()].tolist() == [6, 6, 6] for rows in passes)
    again = list(trial_batches(trials, 18, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(torch.cat(passes), torch.cat(again))


def test_a_hidden_stamp_does_not_reach_the_encoding():
    torch.manual_seed(0)
    encoder = DilatedEncoder(1, 4, 5, depth=2).eval()
    x, hidden = draw(2, 16, 1).float(), torch.zeros(2, 16, dtype=torch.bool)
    hidden[:, 6:9] = True
    changed = x.masked_fill(hidden[..., None], 9.0)
    assert encoder(x).shape == (2, 16, 5)
    assert torch.equal(encoder(x, hidden), encoder(changed, hidden))
    assert not torch.allclose(encoder(x), encoder(changed))


def test_the_average_is_the_mean_of_the_weights():
    method, kept = COMET(DilatedEncoder(1, 4, 5, depth=1)), []
    for k in range(3):
        with torch.no_grad():
            method.encoder.project.weight.add_(k)
        kept.append(method.encoder.project.weight.detach().clone())
        method.after_step()
    assert torch.allclose(method.average.network.project.weight, torch.stack(kept).mean(0))


def patient_auc(encode, data):
    """How often a pair of one patient (from two trials) is more alike than a pair of two patients."""
    r = encode(data.windows)
    similarity = identity_similarity(r, r)
    same_patient, same_trial = (x[:, None] == x for x in (data.patients, data.trials))
    above = torch.ones_like(same_trial).triu(1)
    positive, negative = similarity[same_patient & ~same_trial & above], similarity[~same_patient & above]
    rank = torch.searchsorted(negative.sort().values, positive)
    return rank.float().mean().item() / len(negative)


def train_and_test(seed, factors, epochs):
    """Check that the loss falls; the AUC of unseen patients before and after."""
    torch.manual_seed(seed)
    train, test = heart_beats(length=32, seed=seed), heart_beats(length=32, seed=1000 + seed)
    method, generator = COMET(DilatedEncoder(1, 16, 16, depth=3), factors), torch.Generator().manual_seed(seed)
    before = patient_auc(method, test)
    optimizer, losses = torch.optim.AdamW(method.encoder.parameters(), lr=1e-2), []
    for _ in range(epochs):
        for rows in trial_batches(train.trials, 72, generator=generator):
            loss = method.loss(train.windows[rows], train.patients[rows], train.trials[rows], generator=generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
            losses.append(loss.item())
    assert sum(losses[-4:]) < sum(losses[:4])
    return before, patient_auc(method, test)


def test_the_patient_level_makes_unseen_patients_more_consistent():
    before, after = torch.tensor([train_and_test(seed, (1.0, 0.0, 0.0, 0.0), 20) for seed in range(3)]).mean(0)
    assert after > before + 0.04


def test_the_fine_levels_alone_make_them_less_consistent():
    before, after = train_and_test(0, (0.0, 0.0, 0.5, 0.5), 6)
    assert after < before - 0.02


def test_all_levels_together_train():
    train_and_test(0, (0.25, 0.25, 0.25, 0.25), 3)


def small(**settings):
    torch.manual_seed(0)
    return COMET(DilatedEncoder(1, 4, 5, depth=1), **settings)


def run(method, steps, seed):
    """Losses of some steps on one batch."""
    data, generator = heart_beats(2, 2, 2, length=16), torch.Generator().manual_seed(seed)
    optimizer, losses = torch.optim.SGD(method.parameters(), 0.05), []
    torch.manual_seed(seed)  # dropout
    for _ in range(steps):
        loss = method.loss(data.windows, data.patients, data.trials, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    return losses


def test_the_released_form_reaches_the_loss_of_the_method():
    data = heart_beats(2, 2, 2, length=16)
    ours, theirs, coarse = (small(**s) for s in ({}, {"released": True}, {"factors": (1.0, 1.0, 0.25, 0.25)}))

    def loss(method):
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(1)
        return method.loss(data.windows, data.patients, data.trials, generator=generator)

    assert loss(theirs) == loss(coarse) > loss(ours)


def test_a_saved_state_continues_as_if_never_stopped():
    method, fresh = small(), small()
    run(method, 3, seed=0)
    fresh.load_state_dict(method.state_dict())
    assert run(method, 3, seed=1) == run(fresh, 3, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_evaluation_changes_nothing_and_the_average_has_no_dropout():
    method, x = small(), draw(3, 16, 1).float()
    run(method, 2, seed=0)
    method.train()
    assert torch.equal(method(x), method(x)) and not method(x).requires_grad
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.eval()
    method.after_step()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_half_precision_and_autocast_give_the_loss_of_single_precision():
    views = {level: (R1.float(), R2.float()) for level in LEVELS}
    low = {level: (R1.bfloat16().requires_grad_(), R2.bfloat16()) for level in LEVELS}
    right = comet_loss(views, IDS, IDS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(comet_loss(views, IDS, IDS), right)
    loss = comet_loss(low, IDS, IDS)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, right, rtol=0.03)
    assert all(torch.isfinite(pair[0].grad).all() for pair in low.values())
    with torch.autocast("cpu", torch.bfloat16):
        assert all(math.isfinite(x) for x in run(small(), 2, seed=0))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_ids_of_any_width_give_the_same_numbers(dtype):
    assert torch.equal(identity_loss(R1, R2, IDS.to(dtype)), identity_loss(R1, R2, IDS))
    wide, narrow = (list(trial_batches(x, 2, generator=torch.Generator().manual_seed(0))) for x in (IDS, IDS.to(dtype)))
    assert torch.equal(torch.cat(wide), torch.cat(narrow))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sample_loss(R1[0], R2[0]), "r1"),
        (lambda: sample_loss(R1, R2[:2]), "r2"),
        (lambda: observation_loss(R1, R2 * math.nan), "r2"),
        (lambda: identity_loss(R1, R2, IDS[:2]), "ids"),
        (lambda: identity_loss(R1, R2, IDS, 0.0), "temperature"),
        (lambda: comet_loss({}, IDS, IDS), "views"),
        (lambda: comet_loss({}, IDS, IDS, (0.0,) * 4), "factors"),
        (lambda: comet_loss({}, IDS, IDS, (-1.0, 1.0, 0.0, 0.0)), "factors"),
        (lambda: draw_segments(3, 9, share=2.0), "share"),
        (lambda: next(trial_batches(IDS, 9)), "batch_size"),
        (lambda: DilatedEncoder(depth=0), "depth"),
        (lambda: DilatedEncoder(2, 4, 5, depth=1)(torch.zeros(2, 8, 1)), "x"),
        (lambda: COMET(DilatedEncoder(1, 4, 5, depth=1), (0.0,) * 4), "factors"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
