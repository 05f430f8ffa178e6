"""Hou et al. (2023): subclasses of equal size, contrast on two levels."""

import math

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize, nt_xent, sup_con
from cl_teach.labels.sbcl import (
    SBCL,
    class_concentration,
    class_temperatures,
    draw_balanced,
    sbcl,
    subclass_terms,
    two_level_plain,
)

Z = draw(12, 5)
LABELS = torch.tensor([0, 0, 0, 0, 1, 1]).repeat(2)
SUB = torch.tensor([0, 0, 1, 1, 2, 2]).repeat(2)
TAU2 = torch.tensor([0.12, 0.2], dtype=torch.float64)


def test_class_level_equals_the_loops():
    z, total = normalize(Z), 0.0
    for i in range(12):
        other = (i + 6) % 12
        positives = [p for p in range(12) if LABELS[p] == LABELS[i] and SUB[p] != SUB[i]] + [other]
        candidates = [a for a in range(12) if SUB[a] != SUB[i]] + [other]
        tau = TAU2[LABELS[i]]
        bottom = sum(math.exp(z[i] @ z[a] / tau) for a in candidates)
        total += sum(-math.log(math.exp(z[i] @ z[p] / tau) / bottom) for p in positives) / len(positives)
    assert torch.allclose(subclass_terms(Z, LABELS, SUB, TAU2).classes, torch.tensor(total / 12).double())


def test_single_sample_subclasses_give_nt_xent_and_supcon():
    own, tau = torch.arange(6).repeat(2), torch.full((2,), 0.1, dtype=torch.float64)
    terms = subclass_terms(Z, LABELS, own, tau, 0.1)
    assert torch.allclose(terms.subclass, nt_xent(Z[:6], Z[6:], 0.1))
    assert torch.allclose(terms.classes, sup_con(Z, LABELS, 0.1))


def test_subclasses_equal_to_classes_leave_the_other_view_as_only_class_positive():
    terms = subclass_terms(Z, LABELS, LABELS, TAU2, 0.1)
    assert torch.allclose(terms.subclass, sup_con(Z, LABELS, 0.1))


def test_no_class_level_is_supcon_on_subclasses():
    assert torch.allclose(sbcl(Z, LABELS, SUB, TAU2, 0.1, gamma=0.0), sup_con(Z, SUB, 0.1))
    scaled = sbcl(Z, LABELS, SUB, TAU2, 0.1, gamma=0.0, base_temperature=0.07)
    assert torch.allclose(scaled, sup_con(Z, SUB, 0.1) / 0.7)
    plain = two_level_plain(Z, LABELS, SUB, 0.1, gamma=0.5)
    assert torch.allclose(plain, sup_con(Z, SUB, 0.1) + 0.5 * sup_con(Z, LABELS, 0.1))


def test_class_level_temperatures_are_exponential_in_the_paper_and_linear_in_the_release():
    phi, counts, mean = torch.tensor([0.1, 0.2, 0.4]), torch.tensor([50, 5, 1]), 0.7 / 3
    paper = class_temperatures(phi, counts, 0.1)
    assert paper.tolist() == pytest.approx([0.1 * math.exp(0.1 / mean), 0.1 * math.exp(0.2 / mean), 0.1])
    assert (paper[:2] > 0.1).all()  # classes are looser than subclasses
    release = class_temperatures(phi, counts, 0.1, form="linear")
    assert release.tolist() == pytest.approx([0.1 * 0.1 / mean, 0.1 * 0.2 / mean, 0.1])
    low, high = 0.1 + 0.4 * 0.1, 0.2 + 0.6 * 0.2  # 20th and 80th percentile of three numbers
    clipped = class_temperatures(phi, counts, 0.1, form="linear", clip=(20.0, 80.0))
    assert clipped[0].item() == pytest.approx(0.1 * low / ((low + 0.2 + high) / 3))
    for form, wanted in (("exponential", 0.1 * math.e), ("linear", 0.1)):
        assert torch.allclose(class_temperatures(torch.full((2,), 0.3), counts[:2], form=form), torch.tensor(wanted))
        assert torch.allclose(
            class_temperatures(7 * phi, counts, form=form), class_temperatures(phi, counts, form=form)
        )
        assert torch.isfinite(class_temperatures(0 * phi, counts, form=form)).all()  # no spread at all


def test_the_second_stage_sees_all_classes_equally_often():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = labels[draw_balanced(labels, 30_000, generator=torch.Generator().manual_seed(0))].bincount()
    assert (drawn / 30_000 - 1 / 3).abs().max() < 0.02


def test_concentration_is_larger_for_a_spread_class():
    tight, wide = torch.ones(30, 4) + 0.01 * draw(30, 4).float(), draw(30, 4, seed=1).float()
    phi = class_concentration(torch.cat([tight, wide]), torch.tensor([0] * 30 + [1] * 30))
    assert phi[1] > 10 * phi[0]


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda z: sbcl(z, LABELS, SUB, TAU2), (Z.clone().requires_grad_(),))


def test_training_keeps_the_inner_structure_that_supcon_loses():
    generator = torch.Generator().manual_seed(0)
    blobs = torch.arange(11).repeat_interleave(30)
    labels = torch.tensor([0] * 6 + [1] * 3 + [2, 3])[blobs]  # class 0 has six blobs, class 1 three
    data = 2 * torch.randn(11, 10, generator=generator)[blobs] + 0.6 * torch.randn(330, 10, generator=generator)

    def run(subclasses):
        torch.manual_seed(0)
        net, method = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 16)), SBCL(labels)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        draws, losses = torch.Generator().manual_seed(0), []
        for epoch in range(30):
            if subclasses and epoch >= 5 and epoch % 5 == 0:
                method.refresh(net(data))
            for rows in torch.randperm(330, generator=draws).split(110):
                views = [net(data[rows] + 0.3 * torch.randn(len(rows), 10, generator=draws)) for _ in range(2)]
                loss = method.loss(*views, rows)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        with torch.no_grad():
            z = normalize(net(data[labels == 0])).numpy()
        found = KMeans(6, n_init=5, random_state=0).fit_predict(z)
        return normalized_mutual_info_score(blobs[labels == 0], found), losses

    score, losses = run(True)
    assert score > run(False)[0] + 0.2
    assert losses[-1] < losses[16]  # falls after the switch to two levels


TRAIN = torch.arange(3).repeat_interleave(torch.tensor([40, 20, 10]))


def train(method, net, teacher, steps, generator):
    """Steps of training on features that depend on the class; the losses."""
    x = torch.nn.functional.one_hot(TRAIN, 6).float() + 0.3 * draw(70, 6).float()
    losses = []
    for _ in range(steps):
        rows = torch.randperm(70, generator=generator)[:16]
        views = [x[rows] + 0.1 * torch.randn(16, 6, generator=generator) for _ in range(2)]
        loss = method.loss(net(views[0]), (teacher or net)(views[1]), rows)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p.sub_(0.1 * g)
        method.after_step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("settings", [{}, {"queue_size": 24, "dim": 4}])
def test_a_saved_state_continues_as_if_never_stopped(settings):
    torch.manual_seed(0)
    net, method = nn.Linear(6, 4), SBCL(TRAIN, **settings)
    teacher = nn.Linear(6, 4) if settings else None
    train(method, net, teacher, 2, torch.Generator().manual_seed(0))
    method.refresh(draw(70, 4, seed=3).float(), generator=torch.Generator().manual_seed(1))
    train(method, net, teacher, 2, torch.Generator().manual_seed(1))
    fresh, copied = SBCL(TRAIN, **settings), nn.Linear(6, 4)
    fresh.load_state_dict(method.state_dict())
    copied.load_state_dict(net.state_dict())
    first, second = (
        train(m, n, teacher, 3, torch.Generator().manual_seed(2)) for m, n in ((method, net), (fresh, copied))
    )
    assert first == second and torch.equal(net.weight, copied.weight)
    assert all(torch.equal(a, b) for a, b in zip(method.buffers(), fresh.buffers(), strict=True))


def test_an_empty_queue_compares_queries_with_the_keys_of_the_batch():
    method, rows = SBCL(TRAIN, queue_size=8, dim=5), torch.tensor([0, 1, 45, 65])
    method.refresh(draw(70, 4, seed=3).float(), generator=torch.Generator().manual_seed(0))
    q, k = draw(4, 5).float().requires_grad_(), draw(4, 5, seed=1).float().requires_grad_()
    loss, z, keys = method.loss(q, k, rows), normalize(q).detach(), normalize(k).detach()
    first = second = 0.0
    for i in range(4):
        y, g, tau = TRAIN[rows], method.subclasses[rows], method.temperatures[TRAIN[rows[i]]]
        same = [j for j in range(4) if g[j] == g[i]]
        bottom = sum(math.exp(z[i] @ keys[j] / 0.1) for j in range(4))
        first -= sum(math.log(math.exp(z[i] @ keys[j] / 0.1) / bottom) for j in same) / len(same)
        positives = [j for j in range(4) if y[j] == y[i] and g[j] != g[i]] + [i]
        bottom = sum(math.exp(z[i] @ keys[j] / tau) for j in range(4) if g[j] != g[i] or j == i)
        second -= sum(math.log(math.exp(z[i] @ keys[j] / tau) / bottom) for j in positives) / len(positives)
    assert loss.item() == pytest.approx((first + 0.25 * second) / 4, rel=1e-5)
    loss.backward()
    assert q.grad.any() and k.grad is None


def test_the_queue_keeps_keys_with_their_samples_and_only_in_training():
    method = SBCL(TRAIN, queue_size=5, dim=4)
    for start in (0, 3, 6):
        keys = draw(3, 4, seed=start).float()
        method.eval()
        method.loss(keys, keys, torch.arange(start, start + 3))
        method.after_step()
        method.train()
        method.loss(keys, keys, torch.arange(start, start + 3))
        method.after_step()
        method.after_step()  # nothing is pushed twice
    assert sorted(method.queued.tolist()) == [4, 5, 6, 7, 8]
    for sample, key in zip(method.queued.tolist(), method.queue.features, strict=True):
        assert torch.allclose(key, normalize(draw(3, 4, seed=sample // 3 * 3).float()[sample % 3]))


def test_half_precision_and_autocast_give_the_loss_of_single_precision():
    z, tau = Z.float(), TAU2.float()
    right = sbcl(z, LABELS, SUB, tau)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sbcl(z, LABELS, SUB, tau), right)
    low = z.bfloat16().requires_grad_()
    loss = sbcl(low, LABELS, SUB, tau)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, right, rtol=0.02) and torch.isfinite(low.grad).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_width_give_the_same_numbers(dtype):
    assert torch.equal(sbcl(Z, LABELS.to(dtype), SUB.to(dtype), TAU2), sbcl(Z, LABELS, SUB, TAU2))
    wide, narrow = SBCL(TRAIN), SBCL(TRAIN.to(dtype))
    for method in (wide, narrow):
        method.refresh(draw(70, 4).float(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(wide.subclasses, narrow.subclasses) and torch.equal(wide.temperatures, narrow.temperatures)
    index = torch.tensor([0, 30, 50, 69])
    z = draw(4, 5).float()
    assert torch.equal(narrow.loss(z, z + 1, index.to(dtype)), wide.loss(z, z + 1, index))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sbcl(Z[:11], LABELS[:11], SUB[:11], TAU2), "even number"),
        (lambda: sbcl(Z, LABELS + 2, SUB, TAU2), "labels"),
        (lambda: sbcl(Z, LABELS, SUB[:3], TAU2), "subclasses"),
        (lambda: sbcl(Z, LABELS, SUB, 0 * TAU2), "temperatures"),
        (lambda: sbcl(Z, LABELS, SUB, TAU2, gamma=-1.0), "gamma"),
        (lambda: class_concentration(Z, LABELS * 2), "class 1 has none"),
        (lambda: class_temperatures(TAU2, SUB[:2], form="cubic"), "form"),
        (lambda: class_temperatures(TAU2, SUB[:2], clip=(80.0, 20.0)), "clip"),
        (lambda: SBCL(TRAIN, clustering="ward"), "clustering"),
        (lambda: SBCL(TRAIN).refresh(Z), "features"),
        (lambda: SBCL(TRAIN).loss(Z, Z, SUB + 69), "index"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
