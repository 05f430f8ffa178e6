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
    sbcl,
    split_classes,
    subclass_counts,
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


def test_counts_and_temperatures_follow_their_rules():
    counts = subclass_counts(torch.tensor([500, 50, 5]), 10)
    assert counts.tolist() == [50, 5, 1]
    found = class_temperatures(torch.tensor([0.1, 0.2, 0.4]), counts, 0.1)
    assert found[2].item() == pytest.approx(0.1) and found[0] < found[1]


def test_concentration_is_larger_for_a_spread_class():
    tight, wide = torch.ones(30, 4) + 0.01 * draw(30, 4).float(), draw(30, 4, seed=1).float()
    phi = class_concentration(torch.cat([tight, wide]), torch.tensor([0] * 30 + [1] * 30))
    assert phi[1] > 10 * phi[0]


@pytest.mark.parametrize("balanced", [False, True])
def test_subclasses_stay_inside_their_class_and_balance_to_one(balanced):
    labels = torch.tensor([0] * 50 + [1] * 12)
    ids = split_classes(draw(62, 5), labels, torch.tensor([4, 1]), balanced=balanced)
    assert set(ids[:50].tolist()) == {0, 1, 2, 3} and set(ids[50:].tolist()) == {4}
    if balanced:
        sizes = ids[:50].bincount()
        assert sizes.max() - sizes.min() <= 1


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
                loss = method(*views, rows)
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


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sbcl(Z[:11], LABELS[:11], SUB[:11], TAU2), "even number"),
        (lambda: sbcl(Z, LABELS + 2, SUB, TAU2), "labels"),
        (lambda: sbcl(Z, LABELS, SUB[:3], TAU2), "subclasses"),
        (lambda: sbcl(Z, LABELS, SUB, 0 * TAU2), "temperatures"),
        (lambda: sbcl(Z, LABELS, SUB, TAU2, gamma=-1.0), "gamma"),
        (lambda: subclass_counts(torch.tensor([5, 0])), "class_counts"),
        (lambda: class_concentration(Z, LABELS * 2), "class 1 has none"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
