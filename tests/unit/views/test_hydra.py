"""Wu et al. (2024): any pair of classes agrees in a subspace of its own."""

import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.models import MLP, ClassPairGate
from cl_teach.views.hydra import (
    Hydra,
    draw_partners,
    gated_cosine,
    gated_product,
    pair_masks,
    partner_contrast,
)

LABELS = torch.tensor([0, 0, 1, 2, 2, 1, 3])
PARTNERS = torch.tensor([1, 0, 2, 2, 4, 0, 1])  # class 4 is absent
Z, GATE = draw(7, 6), draw(7, 6, seed=1).sigmoid()


def loss_of(z, gate, labels=LABELS, partners=PARTNERS, temperature=0.2, form=gated_cosine):
    return partner_contrast(form(z, gate), labels, partners, temperature)


def loop(z, gate, labels, partners, temperature):
    terms = []
    for i in range(len(z)):
        s = [(F.cosine_similarity(gate[i] * z[i], gate[i] * key, dim=0) / temperature).item() for key in z]
        others = [s[k] for k in range(len(z)) if labels[k] not in (labels[i], partners[i])]
        for j in range(len(z)):
            if labels[j] == partners[i]:
                terms.append(-s[j] + math.log(math.exp(s[j]) + sum(map(math.exp, others))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_is_the_loop_over_positive_pairs(temperature):
    ours = loss_of(Z, GATE, temperature=temperature).item()
    assert ours == pytest.approx(loop(Z, GATE, LABELS, PARTNERS, temperature), rel=1e-12)


def test_cosine_is_that_of_the_gated_vectors():
    a, b = GATE * Z, GATE[:, None] * Z[None]  # (N, k), (N, N, k)
    assert torch.allclose(gated_cosine(Z, GATE), F.cosine_similarity(a[:, None], b, dim=-1))
    product = (F.normalize(Z) * GATE)[:, None] * (F.normalize(Z)[None] * GATE[:, None])
    assert torch.allclose(gated_product(Z, GATE), product.sum(-1))


def test_own_class_is_ignored_unless_it_is_the_partner():
    positives, negatives = pair_masks(LABELS, PARTNERS)
    assert positives[0].tolist() == [False, False, True, False, False, True, False]
    assert negatives[0].tolist() == [False, False, False, True, True, False, True]
    assert positives[1].tolist() == [True, True] + [False] * 5  # with itself
    assert not positives[4].any() and not negatives[4, [3, 4]].any()


def test_a_factor_on_a_gate_changes_the_product_form_only():
    factor = torch.rand(7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
    assert torch.allclose(loss_of(Z, GATE * factor), loss_of(Z, GATE))
    assert not torch.allclose(
        loss_of(Z, GATE * factor, form=gated_product), loss_of(Z, GATE, form=gated_product), rtol=1e-3
    )
    gate = GATE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss_of(Z, gate), gate)
    assert slope.abs().max() > 1e-3
    assert torch.allclose((slope * GATE).sum(1), torch.zeros(7, dtype=torch.float64), atol=1e-12)


def test_scale_order_of_dimensions_and_names_of_classes_do_not_matter():
    expected, order = loss_of(Z, GATE), torch.tensor([3, 0, 5, 1, 4, 2])
    scale, names = torch.linspace(0.1, 9, 7, dtype=torch.float64)[:, None], torch.tensor([2, 4, 0, 1, 3])
    assert torch.allclose(loss_of(Z * scale, GATE), expected)
    assert torch.allclose(loss_of(Z[:, order], GATE[:, order]), expected)
    assert torch.allclose(loss_of(Z, GATE, names[LABELS], names[PARTNERS]), expected)


def test_a_closed_dimension_gets_no_gradient():
    z, gate = Z.clone().requires_grad_(), GATE.clone()
    gate[:, 2] = 0
    loss_of(z, gate).backward()
    assert torch.allclose(z.grad[:, 2], torch.zeros(7, dtype=torch.float64), atol=1e-12)
    assert z.grad[:, 1].abs().max() > 1e-3


def test_no_negatives_and_no_positives_give_zero_with_finite_gradients():
    for labels, partners in (([0, 0, 1, 1], [1, 1, 0, 0]), ([0, 1, 2, 2], [5, 5, 5, 5])):
        z = Z[:4].clone().requires_grad_()
        loss = loss_of(z, GATE[:4], torch.tensor(labels), torch.tensor(partners))
        loss.backward()
        assert loss.item() == 0 and torch.equal(z.grad, torch.zeros_like(z))


def test_an_anchor_without_positives_counts_only_in_the_average_over_anchors():
    similarity = gated_cosine(Z, GATE)
    keep = PARTNERS != 4  # anchor 4 has no positive
    anchor = partner_contrast(similarity, LABELS, PARTNERS, 0.2, average="anchor")
    positives, negatives = pair_masks(LABELS, PARTNERS)
    s = similarity / 0.2
    terms = (s.exp() + (s.exp() * negatives).sum(1, keepdim=True)).log() - s
    rows = (terms * positives).sum(1)[keep] / positives.sum(1)[keep]
    assert anchor.item() == pytest.approx(rows.sum().item() / 7, rel=1e-5)


def test_gradients_are_those_of_finite_differences():
    z, gate = Z.clone().requires_grad_(), GATE.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss_of, (z, gate))
    assert torch.autograd.gradcheck(lambda z, g: loss_of(z, g, form=gated_product), (z, gate))


def test_low_temperature_zeros_and_duplicates_stay_finite():
    z = Z.float()
    z[0], z[3] = 0, z[2]
    z.requires_grad_()
    loss = loss_of(z, GATE.float(), temperature=0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("fuse", [True, False])
def test_gate_is_symmetric_and_between_zero_and_one(fuse):
    torch.manual_seed(0)
    gate = ClassPairGate(5, 6, fuse=fuse)
    out = gate(LABELS, PARTNERS)
    assert torch.allclose(out, gate(PARTNERS, LABELS), atol=1e-6)
    assert out.shape == (7, 6) and (out > 0).all() and (out < 1).all()
    assert not torch.allclose(out[0], out[2], atol=1e-3)


def test_gate_depends_on_the_batch_in_training_mode_only():
    torch.manual_seed(0)
    gate = ClassPairGate(5, 6)
    assert not torch.allclose(gate(LABELS, PARTNERS)[:3], gate(LABELS[:3], PARTNERS[:3]), atol=1e-3)
    gate.eval()
    assert torch.allclose(gate(LABELS, PARTNERS)[:3], gate(LABELS[:3], PARTNERS[:3]), atol=1e-6)


def test_partners_are_shuffled_kept_or_different():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(100) % 5
    arbitrary = draw_partners(labels, 5, generator=generator)
    assert torch.equal(arbitrary.bincount(), labels.bincount()) and not torch.equal(arbitrary, labels)
    assert torch.equal(draw_partners(labels, 5, "identical"), labels)
    distinct = draw_partners(labels, 5, "distinct", generator=generator)
    assert (distinct != labels).all() and ((distinct - labels) % 5).unique().tolist() == [1, 2, 3, 4]


def test_the_classifier_sends_no_gradient_to_the_backbone():
    torch.manual_seed(0)
    x, labels = torch.randn(7, 8), LABELS
    grads = []
    for whole in (True, False):
        torch.manual_seed(1)
        hydra = Hydra(torch.nn.Linear(8, 16), 16, 5)
        terms = hydra.compare(x, labels, PARTNERS)
        (terms.loss if whole else terms.contrast).backward()
        grads.append(hydra.backbone.weight.grad)
        assert (hydra.probe.weight.grad is not None) == whole
    assert torch.equal(*grads) and grads[0].abs().max() > 0


def train(gating, kind, steps=250):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(6, 16, generator=generator)
    hydra = Hydra(MLP([16, 64, 32]), 32, 6, gating=gating, kind=kind)
    optimizer = torch.optim.Adam(hydra.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        labels = torch.randint(6, (64,), generator=generator)
        x = centers[labels] + 0.2 * torch.randn(64, 16, generator=generator)
        terms = hydra.loss(x, labels, generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(terms.contrast.item())
    return sum(losses[:10]) / 10, sum(losses[-10:]) / 10


def test_only_the_gate_makes_arbitrary_pairs_learnable():
    first, gated = train(True, "arbitrary")
    _, plain = train(False, "arbitrary")
    _, identical = train(False, "identical")
    assert gated < first / 4
    assert identical < 0.2
    assert plain > gated + 1


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda: gated_cosine(Z, GATE[:, :3]), "gate", ValueError),
        (lambda: gated_product(Z, GATE, Z[:3]), "keys", ValueError),
        (lambda: gated_cosine(Z.long(), GATE), "z: .*floating", TypeError),
        (lambda: partner_contrast(Z, LABELS, PARTNERS), "similarity", ValueError),
        (lambda: loss_of(Z, GATE, partners=PARTNERS[:3]), "partners", ValueError),
        (lambda: loss_of(Z, GATE, partners=PARTNERS.double()), "partners", TypeError),
        (lambda: loss_of(Z, GATE, temperature=0.0), "temperature", ValueError),
        (lambda: partner_contrast(Z @ Z.T, LABELS, PARTNERS, average="row"), "average", ValueError),
        (lambda: draw_partners(LABELS, 3), "labels.*below", ValueError),
        (lambda: draw_partners(LABELS, 4, "other"), "kind", ValueError),
        (lambda: draw_partners(LABELS * 0, 1, "distinct"), "num_classes", ValueError),
        (lambda: ClassPairGate(4, 6)(LABELS, PARTNERS), "partners.*below", ValueError),
        (lambda: ClassPairGate(5, 6)(LABELS[:1], PARTNERS[:1]), "at least 2 rows", ValueError),
        (lambda: ClassPairGate(5, 0), "width", ValueError),
    ],
)
def test_bad_input_is_named(call, says, error):
    with pytest.raises(error, match=says):
        call()
