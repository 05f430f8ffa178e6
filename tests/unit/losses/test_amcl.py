"""Wang et al. (2024): several heads, a temperature for every pair."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.losses.amcl import AMCL, PairTemperature, amcl, optimal_positive_temperature, regularizer
from cl_teach.losses.dcl import dcl

HEADS = draw(3, 8, 5)
TAU = 0.2 + torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("form", ["lse", "max"])
def test_equals_the_loops(form):
    z, d, beta = normalize(HEADS), 5, 0.7

    def omega(t):
        return d / 2 * torch.log(t) + 1 / t

    total = 0.0
    for c in range(3):
        for i in range(8):
            p = (i + 4) % 8
            negatives = [n for n in range(8) if n not in (i, p)]
            s = {n: z[c, i] @ z[c, n] for n in range(8)}
            total += -s[p] / TAU[c, i, p] + beta * omega(TAU[c, i, p])
            terms = [s[n] / TAU[c, i, n] - beta * omega(TAU[c, i, n]) for n in negatives]
            hardest = max(range(6), key=lambda m: s[negatives[m]])  # noqa: B023
            total += torch.stack(terms).logsumexp(0) if form == "lse" else terms[hardest]
    assert torch.allclose(amcl(HEADS, TAU, beta=beta, form=form), total / 8)


def test_equal_temperatures_give_the_decoupled_loss_of_every_head():
    tau = torch.full((3, 8, 8), 0.3, dtype=torch.float64)
    expected = sum(dcl(h[:4], h[4:], 0.3) for h in HEADS)
    assert torch.allclose(amcl(HEADS, tau), expected)
    gap = amcl(HEADS, tau) - amcl(HEADS, tau, form="max")
    assert 0 <= gap <= 3 * math.log(6)


def test_identical_heads_add_up():
    one = amcl(HEADS[:1], TAU[:1])
    assert torch.allclose(amcl(HEADS[:1].repeat(3, 1, 1), TAU[:1].repeat(3, 1, 1)), 3 * one)


def test_max_form_touches_one_negative_and_lse_all():
    for form, count in (("max", 1), ("lse", 6)):
        tau = TAU.clone().requires_grad_()
        amcl(HEADS, tau, form=form).backward()
        touched = (tau.grad != 0).sum(-1)
        assert (touched == count + 1).all()  # and the positive
        assert (tau.grad.diagonal(dim1=1, dim2=2) == 0).all()


def test_positive_temperature_rests_where_its_term_is_smallest():
    s = torch.tensor([-0.5, 0.0, 0.9], dtype=torch.float64)
    for beta in (1.0, 2.0):
        best = optimal_positive_temperature(s, 16, beta).requires_grad_()
        (-s / best + beta * regularizer(best, 16)).sum().backward()
        assert torch.allclose(best.grad, torch.zeros(3, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(optimal_positive_temperature(s, 16), 2 * (1 - s) / 16)
    assert optimal_positive_temperature(s, 16, 0.1).isnan().tolist() == [False, False, True]


def test_descent_on_a_free_temperature_finds_its_rest():
    s = torch.tensor([-0.5, 0.0, 0.9], dtype=torch.float64)
    log_tau = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_tau], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        (-s / log_tau.exp() + regularizer(log_tau.exp(), 16)).sum().backward()
        optimizer.step()
    assert torch.allclose(log_tau.exp(), optimal_positive_temperature(s, 16), rtol=1e-2)


def test_temperatures_are_symmetric_and_inside_their_bounds():
    torch.manual_seed(0)
    tau = PairTemperature(5, low=0.1, high=1.5).double()(HEADS)
    assert torch.allclose(tau, tau.mT)
    assert ((tau > 0.1) & (tau < 1.5)).all()


def test_scaling_the_heads_changes_nothing():
    assert torch.allclose(amcl(1e4 * HEADS, TAU), amcl(HEADS, TAU))


@pytest.mark.parametrize("form", ["lse", "max"])
def test_gradcheck(form):
    assert torch.autograd.gradcheck(
        lambda h, t: amcl(h, t, form=form), (HEADS.clone().requires_grad_(), TAU.clone().requires_grad_())
    )


def test_training_lowers_the_loss_with_temperatures_inside_their_bounds():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    method = AMCL([nn.Linear(6, 8) for _ in range(2)], 8)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        x = torch.randn(32, 6, generator=generator)
        loss = method(x + 0.3 * torch.randn(32, 6, generator=generator), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < sum(losses[:20])
    with torch.no_grad():
        x = torch.randn(64, 6, generator=generator)
        z = normalize(torch.stack([head(x) for head in method.heads]))
        tau = method.temperature(z)
    assert ((tau > 0.05) & (tau < 2)).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: amcl(HEADS[:, :7], TAU), "even number"),
        (lambda: amcl(HEADS[:, :2], TAU), "to have a negative"),
        (lambda: amcl(HEADS, TAU[:, :4]), "temperatures"),
        (lambda: amcl(HEADS, 0 * TAU), "temperatures"),
        (lambda: amcl(HEADS, TAU, form="mean"), "form"),
        (lambda: amcl(HEADS, TAU, beta=-1), "beta"),
        (lambda: AMCL([], 4), "heads"),
        (lambda: PairTemperature(5, low=2.0, high=1.0)(HEADS.float()), "high - low"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
