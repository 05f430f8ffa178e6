"""Yeh et al. (2022): the positive leaves the denominator."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import info_nce, normalize, nt_xent
from cl_teach.losses.dcl import dcl, dcl_moco, dclw, decoupled_terms, positive_weight

Z1, Z2 = draw(6, 4), draw(6, 4, seed=1)


def test_equals_the_double_loop():
    z = normalize(torch.cat([Z1, Z2]))
    total = 0.0
    for i in range(12):
        others = [j for j in range(12) if j % 6 != i % 6]
        total += -z[i] @ z[(i + 6) % 12] / 0.3 + math.log(sum(math.exp(z[i] @ z[j] / 0.3) for j in others))
    assert torch.allclose(dcl(Z1, Z2, 0.3), total / 12)


def test_with_a_queue_the_positive_just_leaves_the_softmax():
    queue = draw(9, 4, seed=2)
    loss = dcl_moco(Z1, Z2, queue, 0.3, reduction="none")
    q, k, n = normalize(Z1), normalize(Z2), normalize(queue)
    positive = (q * k).sum(1) / 0.3
    for i in range(6):
        assert torch.isclose(loss[i], math.log(sum(math.exp(q[i] @ row / 0.3) for row in n)) - positive[i])
    coupling = torch.sigmoid((q @ n.T / 0.3).logsumexp(1) - positive)
    assert torch.allclose(info_nce(Z1, Z2, queue, 0.3, reduction="none") - loss, -coupling.log())


def test_with_a_queue_only_the_query_gets_a_gradient():
    rows = [x.clone().requires_grad_() for x in (Z1, Z2, draw(9, 4, seed=2))]
    dcl_moco(*rows).backward()
    assert rows[1].grad is None
    assert rows[2].grad is None
    assert torch.autograd.gradcheck(lambda q: dcl_moco(q, *rows[1:]), (rows[0],))


def test_half_precision_views():
    a, b = Z1.bfloat16(), Z2.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(dcl(a, b, 0.05), dcl(a.float(), b.float(), 0.05))
        assert torch.allclose(dclw(a, b.float()), dclw(a.float(), b.float()))


def test_info_nce_minus_dcl_is_minus_log_of_the_multiplier():
    q = decoupled_terms(Z1, Z2, 0.3).coupling
    gap = nt_xent(Z1, Z2, 0.3, reduction="none") - dcl(Z1, Z2, 0.3, reduction="none")
    assert torch.allclose(gap, -q.log())
    assert (gap > 0).all()


def test_every_gradient_of_info_nce_is_the_multiplier_times_that_of_dcl():
    z1, z2 = Z1.clone().requires_grad_(), Z2.clone().requires_grad_()
    q = decoupled_terms(z1, z2, 0.3).coupling.detach()
    for i in range(12):
        # gradients of one anchor's loss with respect to every embedding are combinations of those to its similarities
        ours = torch.autograd.grad(dcl(z1, z2, 0.3, reduction="none")[i], [z1, z2])
        theirs = torch.autograd.grad(nt_xent(z1, z2, 0.3, reduction="none")[i], [z1, z2])
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(b, q[i] * a)


def test_the_multiplier_grows_with_the_batch():
    big1, big2 = draw(256, 4), draw(256, 4, seed=1)
    means = [decoupled_terms(big1[:n], big2[:n], 0.5).coupling.mean() for n in (4, 16, 64, 256)]
    assert means == sorted(means) and means[-1] > 0.99


def test_shifting_all_negatives_shifts_the_loss_but_not_its_attraction():
    terms = decoupled_terms(Z1, Z2, 0.3)
    shifted = terms._replace(negatives=terms.negatives + 2.0)
    assert torch.allclose(
        (shifted.negatives - shifted.positive) - (terms.negatives - terms.positive), torch.tensor(2.0).double()
    )


def test_weights_have_mean_one_fall_with_alignment_and_vanish_for_large_sigma():
    w = positive_weight(Z1, Z2)
    p = (normalize(Z1) * normalize(Z2)).sum(1)
    assert w.mean().item() == pytest.approx(1)
    assert (w[p.argsort()].diff() < 0).all()
    assert ((w > 2 - 6) & (w < 2)).all()
    assert torch.allclose(dclw(Z1, Z2, sigma=1e8), dcl(Z1, Z2))
    assert torch.allclose(positive_weight(Z1, Z1), torch.ones(6, dtype=torch.float64))


def test_swapping_permuting_and_rotating_change_nothing():
    order, R = torch.tensor([3, 1, 5, 0, 4, 2]), torch.linalg.qr(draw(4, 4, seed=3)).Q
    for a, b in [(Z2, Z1), (Z1[order], Z2[order]), (Z1 @ R, Z2 @ R), (7 * Z1, Z2)]:
        assert torch.allclose(dcl(a, b), dcl(Z1, Z2))
        assert torch.allclose(dclw(a, b), dclw(Z1, Z2))


def test_exact_at_a_temperature_where_an_additive_mask_leaks():
    z = normalize(torch.cat([Z1, Z2]))
    s = z @ z.T / 0.004
    masked = s.masked_fill(torch.eye(6, dtype=torch.bool).repeat(2, 2), -math.inf)
    expected = (masked.logsumexp(1) - s.diagonal(6).repeat(2)).mean()
    assert dcl(Z1.float(), Z2.float(), 0.004).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("loss", [dcl, lambda a, b: dclw(a, b, attach_weight=True)])
def test_gradcheck(loss):
    assert torch.autograd.gradcheck(loss, (Z1.clone().requires_grad_(), Z2.clone().requires_grad_()))


def test_detached_weight_leaves_the_gradient_of_a_constant_weight():
    z1 = Z1.clone().requires_grad_()
    (g,) = torch.autograd.grad(dclw(z1, Z2, 0.3), z1)
    w = positive_weight(Z1, Z2).repeat(2)
    terms = decoupled_terms(z1, Z2, 0.3)
    (expected,) = torch.autograd.grad((terms.negatives - w * terms.positive).mean(), z1)
    assert torch.allclose(g, expected)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: dcl(Z1[:1], Z2[:1]), "at least 2 rows"),
        (lambda: dcl(Z1, Z2[:4]), "z2"),
        (lambda: dcl(Z1, Z2, 0.0), "temperature"),
        (lambda: dclw(Z1, Z2, sigma=-1.0), "sigma"),
        (lambda: dcl(Z1 * math.nan, Z2), "z1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
