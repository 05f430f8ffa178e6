"""Chang et al. (2023): channels that tell little about the label turn into noise and are cut."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.language.cvib import (
    CVIB,
    Objectives,
    VIBMask,
    cvib_objectives,
    draw_noises,
    kept_channels,
    mask_divergence,
    noise_ratio,
    noisy_mask,
    self_pruning_contrast,
)
from cl_teach.models.token_classifier import TokenClassifier

X, MEAN, RHO, NOISE = draw(3, 4, 6), draw(6, seed=1), draw(6, seed=2) - 1, draw(3, 6, seed=3)
P, O = draw(5, 8, seed=4), draw(5, 8, seed=5)  # noqa: E741
LABELS = torch.tensor([0, 2, 1, 1, 0])
LOGITS_O, LOGITS_P = draw(5, 3, seed=6), draw(5, 3, seed=7)


def objectives(o=O, p=P, kl=2.0, **settings):
    return cvib_objectives(LOGITS_O, LOGITS_P, LABELS, o, p, kl, **settings)


def test_mask_and_divergence_equal_the_loops():
    out, kl = noisy_mask(X, MEAN, RHO, NOISE), 0.0
    for j in range(6):
        mu, var = MEAN[j].item(), math.exp(RHO[j])
        prior = mu**2 + var  # the variance of a zero-mean prior that makes the KL smallest
        kl += 4 * 0.5 * (math.log(prior / var) + (var + mu**2) / prior - 1)
        for b in range(3):
            for s in range(4):
                expected = X[b, s, j].item() * (mu + math.sqrt(var) * NOISE[b, j].item())
                assert out[b, s, j].item() == pytest.approx(expected, rel=1e-12)
    assert mask_divergence(MEAN, RHO, 4).item() == pytest.approx(kl, rel=1e-6)


def test_contrast_and_objectives_equal_the_loops():
    p, o, total = normalize(P), normalize(O), 0.0
    for i in range(5):
        total -= math.log(math.exp(p[i] @ o[i] / 0.3) / sum(math.exp(p[i] @ o[j] / 0.3) for j in range(5))) / 5
    assert self_pruning_contrast(P, O, 0.3).item() == pytest.approx(total, rel=1e-10)
    got = objectives(temperature=0.3, contrast_weight=0.7, divergence_weight=0.1)
    assert got.original.item() == pytest.approx(F.cross_entropy(LOGITS_O, LABELS).item() + 0.7 * total)
    assert got.pruned.item() == pytest.approx(F.cross_entropy(LOGITS_P, LABELS).item() + 0.7 * total + 0.2)


def test_mean_one_without_noise_is_the_identity():
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.allclose(noisy_mask(X, ones, -80 * ones, NOISE), X)


def test_mean_zero_costs_nothing_and_passes_nothing():
    layer = VIBMask(6).double()
    layer.load_state_dict({"mean": torch.zeros(6), "log_variance": RHO})
    assert mask_divergence(layer.mean, layer.log_variance, 4).item() == 0
    assert not layer.kept.any() and not layer.eval()(X).any()
    assert torch.allclose(noise_ratio(torch.zeros(6).double(), RHO), RHO + 8 * math.log(10))


def test_divergence_grows_with_the_mean_falls_with_the_noise_and_sees_their_ratio_only():
    kl = mask_divergence(MEAN, RHO)
    assert kl > 0
    assert mask_divergence(1.1 * MEAN, RHO) > kl > mask_divergence(MEAN, RHO + 0.1)
    assert torch.allclose(mask_divergence(3 * MEAN, RHO + math.log(9)), kl)


def test_divergence_gradient_is_the_closed_form():
    mean = MEAN.clone().requires_grad_()
    mask_divergence(mean, RHO, 4).backward()
    assert torch.allclose(mean.grad, 4 * MEAN / (MEAN**2 + RHO.exp()), rtol=1e-6)


def test_output_has_the_stated_mean_and_variance_and_tokens_share_the_draw():
    x = X[:1].expand(40000, 4, 6)
    out = noisy_mask(x, MEAN, RHO, draw(40000, 6, seed=8))
    assert torch.allclose(out.mean(0), X[0] * MEAN, atol=0.05)
    assert torch.allclose(out.var(0), X[0] ** 2 * RHO.exp(), rtol=0.05)
    factors = out / x
    assert torch.allclose(factors, factors[:, :1].expand_as(factors))


def test_raising_the_threshold_never_removes_a_channel():
    counts = [kept_channels(MEAN, RHO, t) for t in (-math.inf, -2.0, 0.0, 2.0, math.inf)]
    assert not counts[0].any() and counts[-1].all()
    assert all((~a | b).all() for a, b in zip(counts[:-1], counts[1:], strict=True))


def test_evaluation_multiplies_survivors_by_their_mean_without_noise():
    layer = VIBMask(6).double()
    layer.load_state_dict({"mean": MEAN, "log_variance": RHO})
    kept = torch.tensor([math.exp(r) < m * m for m, r in zip(MEAN.tolist(), RHO.tolist(), strict=True)])
    assert kept.any() and not kept.all()
    assert torch.equal(layer.eval()(X), torch.where(kept, X * MEAN, torch.zeros(())))


def test_contrast_is_one_direction_of_clip():
    both = (self_pruning_contrast(P, O, 0.2) + self_pruning_contrast(O, P, 0.2)) / 2
    assert torch.allclose(both, clip_loss(P, O, math.log(5)))
    assert abs(self_pruning_contrast(P, O, 0.2) - self_pruning_contrast(O, P, 0.2)) > 1e-3
    assert self_pruning_contrast(P[:1], O[:1], 0.2).item() == 0


def test_each_objective_is_constant_for_the_other_network():
    o, p = O.clone().requires_grad_(), P.clone().requires_grad_()
    losses = objectives(o, p)
    for loss, own, other in ((losses.original, o, p), (losses.pruned, p, o)):
        mine, theirs = torch.autograd.grad(loss, (own, other), retain_graph=True, allow_unused=True)
        assert mine.abs().max() > 0 and theirs is None


def test_without_weights_two_independent_classifiers_remain():
    losses = objectives(contrast_weight=0.0, divergence_weight=0.0)
    assert torch.allclose(losses.original, F.cross_entropy(LOGITS_O, LABELS))
    assert torch.allclose(losses.pruned, F.cross_entropy(LOGITS_P, LABELS))


def test_gradcheck():
    leaves = [t.clone().requires_grad_() for t in (X, MEAN, RHO)]
    assert torch.autograd.gradcheck(lambda x, m, r: noisy_mask(x, m, r, NOISE).sum() + mask_divergence(m, r, 4), leaves)
    pair = [t.clone().requires_grad_() for t in (P, O)]
    assert torch.autograd.gradcheck(lambda p, o: self_pruning_contrast(p, o, 0.3), pair)


def test_zero_vectors_duplicates_and_a_tiny_temperature_stay_finite():
    p = torch.cat([torch.zeros(2, 8), P.float()[:1].repeat(3, 1)]).requires_grad_()
    loss = self_pruning_contrast(p, O.float(), 0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(p.grad).all()


def networks(sizes=(6, 8), **settings):
    torch.manual_seed(0)
    pair = TokenClassifier(sizes, 3), TokenClassifier(sizes, 3, mask=VIBMask, mask_input=True)
    return CVIB(*pair, **settings)


def test_networks_start_equal_and_vectors_count_as_one_token():
    method = networks().eval()
    a, b = method.original(X.float())[0], method.pruned(X.float())[0]
    assert torch.allclose(a, b, atol=0.1) and not torch.equal(a, b)  # the means are only near 1
    assert method.original.layers[0].weight is not method.pruned.layers[0].weight
    x = X[:, 0].float()
    torch.testing.assert_close(method.pruned(x)[1], method.pruned(x[:, None])[1])


def test_injected_noise_repeats_and_fresh_noise_does_not():
    method = networks()
    noises = [torch.randn(3, 6), torch.randn(3, 8)]
    x = X.float()
    assert torch.equal(method.pruned(x, noises)[0], method.pruned(x, noises)[0])
    assert not torch.equal(method.pruned(x)[0], method.pruned(x)[0])


def toy(n, agreement, seed):
    """4 core inputs, 4 that follow a cue agreeing with the label as often as told, 30 of noise."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=g)
    sign = (2.0 * y - 1)[:, None]
    cue = torch.where(torch.rand(n, 1, generator=g) < agreement, sign, -sign)
    core = 0.9 * sign + torch.randn(n, 4, generator=g)
    spurious = 0.8 * cue + 0.8 * torch.randn(n, 4, generator=g)
    return torch.cat([core, spurious, torch.randn(n, 30, generator=g)], 1), y


def train(contrast_weight):
    torch.manual_seed(0)
    x, y = toy(300, 0.75, 0)
    pair = TokenClassifier((38, 32), 2), TokenClassifier((38, 32), 2, mask=VIBMask, mask_input=True)
    method = CVIB(*pair, contrast_weight=contrast_weight, divergence_weight=0.005)
    losses = []
    for _ in range(800):
        rows = torch.randperm(300)[:64]
        losses.append(torch.stack(method.step((x[rows], y[rows]))[1:]))
    history = torch.stack(losses)
    test_x, test_y = toy(2000, 0.75, 1)
    with torch.no_grad():
        accuracy = (method.eval()(test_x).argmax(1) == test_y).float().mean().item()
    kept = method.pruned.masks[0].kept.float()
    return history, accuracy, [1 - kept[a:b].mean().item() for a, b in ((0, 4), (4, 8), (8, 38))]


def test_training_cuts_noise_keeps_the_core_and_the_contrast_slows_the_cutting():
    history, accuracy, (core, _, noise) = train(0.0)
    assert (history[-50:].mean(0) < 0.7 * history[:50].mean(0)).all()
    assert accuracy > 0.9
    assert core == 0 and noise > 0.8
    history, accuracy, (core, _, kept_noise) = train(0.5)
    assert (history[-50:].mean(0) < 0.7 * history[:50].mean(0)).all()
    assert accuracy > 0.85
    assert core == 0 and kept_noise < noise - 0.2


def test_extreme_masks_have_a_finite_ratio_and_a_finite_gradient():
    mean, rho = torch.tensor([0.0, 1e-30, 1e15, 1.0]), torch.tensor([-80.0, 80.0, -80.0, -300.0])
    for tiny in (1e-8, 1e-45):
        assert torch.isfinite(noise_ratio(mean, rho, tiny=tiny)).all()
    leaves = [mean.clone().requires_grad_(), rho.clone().requires_grad_()]
    loss = mask_divergence(*leaves)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_half_precision_and_autocast_give_the_same_objectives():
    right = objectives(divergence_weight=0.1)
    half = cvib_objectives(*(x.bfloat16() for x in (LOGITS_O, LOGITS_P)), LABELS, O.bfloat16(), P.bfloat16(), 2.0)
    assert all(abs(a - b) < 0.05 for a, b in zip(half[1:2], right[1:2], strict=True))
    method, x = networks(), X.float()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.loss(x, LABELS[:3])
    assert all(torch.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_width_count_the_same(dtype):
    got = cvib_objectives(LOGITS_O, LOGITS_P, LABELS.to(dtype), O, P, 2.0)
    assert all(torch.equal(a, b) for a, b in zip(got, objectives(), strict=True))


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped():
    x, y = toy(64, 0.75, 0)

    def made(seed):
        torch.manual_seed(seed)
        pair = TokenClassifier((38, 8), 2), TokenClassifier((38, 8), 2, mask=VIBMask, mask_input=True)
        return CVIB(*pair, divergence_weight=0.005)

    method, fresh = made(0), made(1)
    for _ in range(4):
        method.step((x, y), generator=torch.Generator().manual_seed(0))
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    for _ in range(3):
        pair = [m.step((x, y), generator=torch.Generator().manual_seed(5)) for m in (method, fresh)]
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), fresh.parameters(), strict=True))


def test_a_loss_changes_no_state_and_evaluation_has_no_noise():
    method, x = networks(), X.float()
    before = [p.clone() for p in method.parameters()]
    sums = [method.loss(x, LABELS[:3], generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert isinstance(sums[0], Objectives) and sums[0].loss == sums[1].loss != sums[2].loss
    (sums[0].loss + sums[2].loss).backward()
    assert method.eval().loss(x, LABELS[:3]).loss == method.loss(x, LABELS[:3]).loss
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    assert [tuple(z.shape) for z in draw_noises(method.pruned, 5)] == [(5, 6), (5, 8)]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: noisy_mask(X.long(), MEAN, RHO, NOISE), TypeError, "x"),
        (lambda: noisy_mask(X[0], MEAN, RHO, NOISE), ValueError, "x"),
        (lambda: noisy_mask(X, MEAN, RHO, NOISE[:2]), ValueError, "noise"),
        (lambda: noisy_mask(X, MEAN[:3], RHO, NOISE), ValueError, "mean"),
        (lambda: mask_divergence(MEAN, RHO[:2]), ValueError, "log_variance"),
        (lambda: mask_divergence(MEAN, RHO, 0), ValueError, "tokens"),
        (lambda: mask_divergence(MEAN, RHO + 99), ValueError, "log_variance"),
        (lambda: noise_ratio(MEAN, RHO, tiny=0.0), ValueError, "tiny"),
        (lambda: self_pruning_contrast(P, O[:3]), ValueError, "original"),
        (lambda: self_pruning_contrast(P * math.nan, O), ValueError, "pruned"),
        (lambda: self_pruning_contrast(P, O, 0.0), ValueError, "temperature"),
        (lambda: objectives(contrast_weight=-1.0), ValueError, "contrast_weight"),
        (lambda: cvib_objectives(LOGITS_O, LOGITS_P, LABELS.double(), O, P, 0.0), TypeError, "labels"),
        (lambda: TokenClassifier([4], 2, mask=VIBMask), ValueError, "sizes"),
        (lambda: networks().pruned(X.float(), [NOISE]), ValueError, "noises"),
        (lambda: networks(divergence_weight=-1.0), ValueError, "divergence_weight"),
        (lambda: CVIB(*(TokenClassifier([4, 4], 2) for _ in range(2))), ValueError, "pruned"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
