"""Bai et al. (2023): class counts from clusters, soft labels from a classifier, each helping the other."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.core import normalize, nt_xent, sup_con
from cl_teach.core.pseudo_labels import estimate_counts, sampling_rates, select_confident
from cl_teach.labels.bacon import (
    BaCon,
    debiased_probabilities,
    distribution_regularizer,
    pair_weights,
    self_distillation,
    soft_contrast,
)
from cl_teach.models import CosineClassifier

N, C = 5, 4
Z = draw(2 * N, 6)
P = draw(N, C, seed=1).softmax(1)
LOGITS = draw(2 * N, C, seed=2).tanh()
COUNTS = torch.tensor([40.0, 20.0, 10.0, 5.0], dtype=torch.float64)


def test_soft_contrast_equals_the_loops():
    z, tau, total = normalize(Z), 0.2, 0.0
    for i in range(2 * N):
        others = [j for j in range(2 * N) if j != i]
        w = {j: 1.0 if j % N == i % N else float(P[i % N] @ P[j % N]) for j in others}
        bottom = sum(math.exp(z[i] @ z[a] / tau) for a in others)
        total -= sum(w[j] * math.log(math.exp(z[i] @ z[j] / tau) / bottom) for j in others) / sum(w.values())
    assert soft_contrast(Z, pair_weights(P), 0.2).item() == pytest.approx(total / (2 * N), rel=1e-12)


def test_one_hot_labels_give_supcon_and_orthogonal_ones_nt_xent():
    labels = torch.tensor([0, 1, 0, 2, 1])
    hard = pair_weights(F.one_hot(labels).double())
    assert torch.allclose(soft_contrast(Z, hard, 0.2), sup_con(Z, labels.repeat(2), 0.2))
    alone = pair_weights(torch.eye(N, dtype=torch.float64))
    assert torch.allclose(soft_contrast(Z, alone, 0.2), nt_xent(Z[:N], Z[N:], 0.2))


def test_equal_soft_labels_give_their_squared_length():
    w = pair_weights(P[:1].expand(N, C))
    assert torch.allclose(w.diagonal(), torch.ones(N, dtype=torch.float64))
    assert torch.allclose(w[0, 1:], (P[0] @ P[0]).expand(N - 1))


def test_soft_contrast_ignores_scale_order_and_rotation():
    loss, w = soft_contrast(Z, pair_weights(P)), pair_weights(P)
    assert torch.allclose(soft_contrast(Z, 7 * w), loss)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = torch.cat([Z[:N][order], Z[N:][order]])
    assert torch.allclose(soft_contrast(shuffled, pair_weights(P[order])), loss)
    assert torch.allclose(soft_contrast(Z @ torch.linalg.qr(draw(6, 6, seed=3)).Q, w), loss)


def test_gradient_is_orthogonal_and_weights_are_constants():
    z, p = Z.clone().requires_grad_(), P.clone().requires_grad_()
    soft_contrast(z, pair_weights(p)).backward()
    assert torch.allclose((z.grad * Z).sum(1), torch.zeros(2 * N, dtype=torch.float64), atol=1e-12)
    assert p.grad is None and z.grad.abs().max() > 0.01


def test_gradchecks():
    w = pair_weights(P)
    assert torch.autograd.gradcheck(lambda z: soft_contrast(z, w, 0.3), (Z.clone().requires_grad_(),))
    for form in ("released", "kl"):
        check = lambda s, form=form: distribution_regularizer(s, COUNTS, form=form, temperature=0.5)  # noqa: E731
        assert torch.autograd.gradcheck(check, (LOGITS.clone().requires_grad_(),))


@pytest.mark.parametrize("temperature", [0.005, 0.07])
def test_small_temperatures_zero_vectors_and_duplicates_stay_finite(temperature):
    z = torch.cat([Z[:3], torch.zeros(1, 6), Z[:1], Z[N : N + 3], torch.zeros(1, 6), Z[:1]]).float().requires_grad_()
    s = LOGITS.float().requires_grad_()
    loss = soft_contrast(z, pair_weights(P.float()), temperature)
    loss = loss + distribution_regularizer(s, COUNTS.float(), temperature=temperature)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all() and torch.isfinite(s.grad).all()


@pytest.mark.parametrize("form", ["released", "kl"])
def test_regularizer_equals_its_formula_and_ignores_the_scale_of_the_counts(form):
    mean = (LOGITS / 0.1).softmax(1).mean(0)
    target = COUNTS**1.1 / (COUNTS**1.1).sum()
    r = mean / target / (mean / target).sum()
    wanted = (r * r.log()).sum() + math.log(C) if form == "released" else (mean * (mean / target).log()).sum()
    assert torch.allclose(distribution_regularizer(LOGITS, COUNTS, form=form), wanted)
    assert torch.allclose(distribution_regularizer(LOGITS, 9 * COUNTS, form=form), wanted)
    entropy = -(mean * mean.log()).sum()
    assert torch.allclose(distribution_regularizer(LOGITS, COUNTS, power=0.0, form="kl"), math.log(C) - entropy)
    assert torch.allclose(distribution_regularizer(LOGITS, COUNTS, power=0.0), math.log(C) - entropy)


@pytest.mark.parametrize("form", ["released", "kl"])
def test_regularizer_alone_drives_the_mean_prediction_to_the_counts(form):
    s = LOGITS.clone().requires_grad_()
    optimizer = torch.optim.Adam([s], lr=0.02)
    for _ in range(300):
        loss = distribution_regularizer(s, COUNTS, form=form)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean, target = (s / 0.1).softmax(1).mean(0), COUNTS**1.1 / (COUNTS**1.1).sum()
    assert 0 <= loss < 1e-3 and torch.allclose(mean, target, atol=0.01)


def test_debiasing_divides_by_a_power_of_the_frequency():
    got = debiased_probabilities(LOGITS, COUNTS, kappa=0.5)
    raw = (LOGITS / 0.1).softmax(1) / (COUNTS / COUNTS.sum()) ** 0.5
    raw = raw / raw.sum(1, keepdim=True)
    assert torch.allclose(got, (raw[:N] + raw[N:]) / 2)
    plain = (LOGITS / 0.1).softmax(1)
    plain = (plain[:N] + plain[N:]) / 2
    assert torch.allclose(debiased_probabilities(LOGITS, COUNTS, kappa=0.0), plain)
    assert torch.allclose(debiased_probabilities(LOGITS, torch.ones(C)), plain)


def test_sampling_rates_are_one_for_the_rarest_class_and_follow_the_two_exponents():
    rates = sampling_rates(COUNTS, torch.tensor([1]), alpha=1.0, beta=0.5)
    assert torch.allclose(rates, torch.tensor([8**-0.5, 0.25, 2**-0.5, 1.0], dtype=torch.float64))
    assert sampling_rates(torch.full((3,), 7), torch.tensor([0])).tolist() == [1.0] * 3


def test_exponent_one_selects_equally_many_of_every_class_and_the_most_confident():
    predicted = torch.arange(C).repeat_interleave(COUNTS.long() * 20)
    probs = (3 * F.one_hot(predicted, C) + draw(len(predicted), C, seed=4).abs()).softmax(1)
    rates = sampling_rates(COUNTS, torch.arange(C), alpha=1.0)
    keep = select_confident(probs, rates, generator=torch.Generator().manual_seed(0))
    confidence, predicted = probs.max(1)
    counts = predicted[keep].bincount(minlength=C)
    share = rates * predicted.bincount(minlength=C)
    assert ((counts - share).abs() < 4 * share.sqrt() + 1).all() and not keep.all()
    for c in range(3):
        mine = predicted == c
        assert confidence[mine & keep].min() >= confidence[mine & ~keep].max()
    assert torch.equal(keep, select_confident(probs, rates, generator=torch.Generator().manual_seed(0)))


def test_self_distillation_equals_the_loops_and_its_teacher_is_constant():
    s, total = LOGITS.clone().requires_grad_(), 0.0
    for i in range(2 * N):
        q = (LOGITS[(i + N) % (2 * N)] / 0.04).softmax(0)
        total -= (q * (s[i] / 0.1).log_softmax(0)).sum() / (2 * N)
    loss = self_distillation(s)
    assert torch.allclose(loss, total)
    (got,), (wanted,) = torch.autograd.grad(loss, s), torch.autograd.grad(total, s)
    assert torch.allclose(got, wanted)


def test_counts_are_recovered_from_perfect_clusters():
    labels = torch.arange(5).repeat_interleave(torch.tensor([30, 18, 9, 12, 6]))
    clusters = torch.tensor([3, 0, 4, 1, 2])[labels]  # any names
    labeled = torch.arange(len(labels)) % 3 == 0
    labels = torch.where(labeled & (labels < 3), labels, -1)  # novel classes have no labels
    labeled &= labels >= 0
    assert estimate_counts(clusters, labels, labeled, 5, 3).tolist() == [30, 18, 9, 12, 6]


def test_known_sizes_are_dealt_by_the_rank_of_the_labels():
    clusters = torch.tensor([0] * 8 + [1] * 4 + [2] * 2)
    labels = torch.tensor([0, 0, *[-1] * 6, 1, 1, 1, -1, -1, -1])  # class 1 has more labels, but the smaller cluster
    assert estimate_counts(clusters, labels, labels >= 0, 3, 2).tolist() == [4, 8, 2]


def test_no_gradient_passes_from_the_contrastive_loss_to_the_classifier():
    method, labels, labeled = BaCon(C, 2), torch.tensor([0, 1, 0, 1, 0]), torch.tensor([True, True, True, False, False])
    z, s = Z.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    method.contrastive_loss(z, s, labels, labeled).backward()
    assert z.grad.any() and s.grad is None
    warm = method.contrastive_loss(Z, LOGITS, labels, labeled, warm_up=True)
    rows = labeled.repeat(2)
    wanted = 0.65 * nt_xent(Z[:N], Z[N:], 1.0) + 0.35 * sup_con(Z[rows], labels.repeat(2)[rows], 0.07)
    assert torch.allclose(warm, wanted)


def test_without_labels_the_losses_are_still_finite():
    method, labels, none = BaCon(C, 2), torch.full((N,), -1), torch.zeros(N, dtype=torch.bool)
    assert torch.isfinite(method.contrastive_loss(Z, LOGITS, labels, none))
    assert torch.isfinite(method.classifier_loss(LOGITS, labels, none))


def long_tail(seed):
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([160, 108, 72, 49, 33, 22, 15, 10])
    labels = torch.arange(8).repeat_interleave(sizes)
    x = 2 * torch.randn(8, 12, generator=generator)[labels] + torch.randn(len(labels), 12, generator=generator)
    return x, labels, sizes, generator


def cluster_accuracy(z, labels, classes):
    clusters = torch.from_numpy(KMeans(classes, n_init=5, random_state=0).fit(z.numpy()).labels_).long()
    table = torch.zeros(classes, classes).index_put((clusters, labels), torch.ones(len(labels)), accumulate=True)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    right = torch.from_numpy(columns)[clusters] == labels
    assert (rows == range(classes)).all()
    sizes = clusters.bincount().sort(descending=True).values / len(labels)
    truth = labels.bincount().sort(descending=True).values / len(labels)
    return right[labels < 4].float().mean().item(), (sizes - truth).abs().sum().item() / 2


def test_soft_pairs_bear_biased_pseudo_labels_better_than_hard_ones():
    def run(seed, soft):
        x, labels, sizes, generator = long_tail(seed)
        noise = 1.3 * torch.randn(len(x), 8, generator=generator)
        pseudo = (2 * F.one_hot(labels, 8) + noise + 0.6 * (sizes / sizes.sum()).log()).softmax(1)
        probs = pseudo if soft else F.one_hot(pseudo.argmax(1), 8).float()
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 16))
        optimizer, losses = torch.optim.Adam(net.parameters(), lr=3e-3), []
        for _ in range(200):
            rows = torch.randperm(len(x), generator=generator)[:128]
            views = x[rows].repeat(2, 1) + 0.5 * torch.randn(256, 12, generator=generator)
            loss = soft_contrast(net(views), pair_weights(probs[rows]), 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) < sum(losses[:20])
        with torch.no_grad():
            return torch.tensor(cluster_accuracy(normalize(net(x)), labels, 8))

    soft, hard = (torch.stack([run(seed, mode) for seed in range(3)]).mean(0) for mode in (True, False))
    assert soft[0] > hard[0] + 0.02 and soft[1] < hard[1] - 0.02  # head accuracy, error of the class shares


def branches():
    torch.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 16)) for _ in range(2)]
    return nn.ModuleList([*parts, CosineClassifier(16, 8)])


def train(method, nets, data, steps, generator):
    """Losses of both branches under one optimizer without a memory."""
    x, labels, labeled = data
    optimizer, losses = torch.optim.SGD(nets.parameters(), lr=0.03), []
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=generator)[:128]
        views = x[rows].repeat(2, 1) + 0.5 * torch.randn(256, 12, generator=generator)
        logits = nets[2](nets[1](views))
        terms = method.loss(nets[0](views), logits, labels[rows], labeled[rows], generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(terms.loss.item())
    return losses


def partly_labeled():
    x, labels, _, generator = long_tail(0)
    return x, labels, (labels < 4) & (torch.rand(len(x), generator=generator) < 0.5)


def test_both_branches_together_learn():
    data, nets, method = partly_labeled(), branches(), BaCon(8, 4, warm_up_steps=50, ramp_steps=100)
    generator = torch.Generator().manual_seed(0)
    warm = train(method, nets, data, 50, generator)
    with torch.no_grad():
        method.refresh(nets[0](data[0]), *data[1:], generator=generator)
    losses = train(method, nets, data, 100, generator)
    assert method.class_counts.sum() == len(data[0]) and method.class_counts.std() > 20
    assert sum(warm[-20:]) < sum(warm[:20]) and sum(losses[-20:]) < sum(losses[:20])


def test_the_teacher_gets_sharper_and_the_warm_up_ends():
    method = BaCon(C, 2, warm_up_steps=2, ramp_steps=4)
    labels, labeled = torch.tensor([0, 1, 0, 1, 0]), torch.tensor([True, True, True, False, False])
    seen = []
    for step in range(6):
        seen.append(method.teacher_temperature)
        terms = method.loss(Z, LOGITS, labels, labeled)
        warm = method.contrastive_loss(Z, LOGITS, labels, labeled, warm_up=True)
        assert (terms.contrastive == warm) == (step < 2)
        assert torch.allclose(terms.loss, terms.classifier + terms.contrastive)
        method.after_step()
    assert seen == pytest.approx([0.07, 0.0625, 0.055, 0.0475, 0.04, 0.04])


def test_a_saved_state_continues_as_if_never_stopped():
    data, nets, method = partly_labeled(), branches(), BaCon(8, 4, warm_up_steps=3, ramp_steps=9)
    train(method, nets, data, 4, torch.Generator().manual_seed(0))
    method.refresh(data[0], *data[1:], generator=torch.Generator().manual_seed(1))
    fresh, others = BaCon(8, 4, warm_up_steps=3, ramp_steps=9), branches()
    fresh.load_state_dict(method.state_dict())
    others.load_state_dict(nets.state_dict())
    first = train(method, nets, data, 3, torch.Generator().manual_seed(2))
    assert first == train(fresh, others, data, 3, torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(nets.parameters(), others.parameters(), strict=True))


def test_evaluation_changes_nothing():
    method, labels = BaCon(C, 2).eval(), torch.tensor([0, 1, 0, 1, 0])
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method.loss(Z, LOGITS, labels, labels == 0)
    method.after_step()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_half_precision_and_autocast_give_the_loss_of_single_precision():
    method, labels = BaCon(C, 2), torch.tensor([0, 1, 0, 1, 0])
    method.class_counts.copy_(COUNTS)
    known = labels == 0

    def loss(z, logits):
        generator = torch.Generator().manual_seed(0)
        return method.loss(z, logits, labels, known, generator=generator).loss

    right = loss(Z.float(), LOGITS.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(loss(Z.float(), LOGITS.float()), right, rtol=1e-5)
    z, logits = Z.bfloat16().requires_grad_(), LOGITS.bfloat16().requires_grad_()
    low = loss(z, logits)
    low.backward()
    assert low.dtype == torch.float32 and torch.allclose(low, right, rtol=0.05)
    assert torch.isfinite(z.grad).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_width_give_the_same_numbers(dtype):
    clusters = torch.arange(20).repeat(10)  # 20 x 20 pairs do not fit into a byte
    every = torch.ones(200, dtype=torch.bool)
    wanted = estimate_counts(clusters, clusters, every, 20, 20)
    assert torch.equal(estimate_counts(clusters.to(dtype), clusters.to(dtype), every, 20, 20), wanted)
    method, labels = BaCon(C, 2), torch.tensor([0, 1, 0, 1, 0])
    right = method.classifier_loss(LOGITS, labels, labels == 0)
    assert torch.equal(method.classifier_loss(LOGITS, labels.to(dtype), labels == 0), right)
    narrow = sampling_rates(COUNTS, torch.tensor([1], dtype=dtype))
    assert torch.equal(narrow, sampling_rates(COUNTS, torch.tensor([1])))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pair_weights(2 * P), "probs"),
        (lambda: soft_contrast(Z, pair_weights(P)[:4, :4]), "weights"),
        (lambda: soft_contrast(Z, torch.zeros(N, N)), "weights"),
        (lambda: soft_contrast(Z, -pair_weights(P)), "weights"),
        (lambda: soft_contrast(Z, pair_weights(P), 0.0), "temperature"),
        (lambda: distribution_regularizer(LOGITS, COUNTS[:2]), "class_counts"),
        (lambda: distribution_regularizer(LOGITS, 0 * COUNTS), "class_counts"),
        (lambda: distribution_regularizer(LOGITS, COUNTS, form="js"), "form"),
        (lambda: debiased_probabilities(LOGITS[:3], COUNTS), "logits"),
        (lambda: debiased_probabilities(LOGITS, COUNTS, kappa=-1.0), "kappa"),
        (lambda: sampling_rates(COUNTS, torch.tensor([9])), "labeled_classes"),
        (lambda: sampling_rates(COUNTS, torch.tensor([0]), alpha=-1.0), "alpha"),
        (lambda: select_confident(P, 2 * COUNTS), "rates"),
        (lambda: self_distillation(LOGITS[:3]), "logits"),
        (lambda: estimate_counts(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([True] * 2), 2, 1), "empty"),
        (
            lambda: estimate_counts(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([True] * 2), 2, 2),
            "class 1",
        ),
        (lambda: BaCon(3, 4), "num_known"),
        (lambda: BaCon(4, 3, rho=2.0), "rho"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
