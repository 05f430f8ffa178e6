"""Wang et al. (2024): several heads, a temperature for every pair."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.losses.amcl import (
    AMCL,
    PairTemperature,
    amcl,
    amcl_barlow_twins,
    amcl_moco,
    amcl_simsiam,
    optimal_positive_temperature,
    pair_temperature,
    regularizer,
)
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


def test_alike_pairs_are_cold():
    """The minus in the exponent: a pair of equal vectors is never above the middle, whatever the network."""
    torch.manual_seed(0)
    tau = PairTemperature(5, low=0.1, high=1.5).double()(HEADS)
    assert torch.allclose(tau, tau.mT)
    assert ((tau > 0.1) & (tau < 1.5)).all()
    own = tau.diagonal(dim1=1, dim2=2)
    assert (own <= 0.8).all()
    assert (tau >= torch.minimum(own[:, :, None], own[:, None]) - 1e-12).all()
    direction = torch.tensor([1.0, 0.0])
    others = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    steps = pair_temperature(direction.expand(4, 2), others, low=0.1, high=1.5)
    assert (steps.diff() > 0).all()  # hotter, the less alike
    assert torch.isclose(steps[2], torch.tensor(0.8))


def test_all_pairs_hold_the_rows_pairs():
    torch.manual_seed(0)
    tau = PairTemperature(5).double()
    a, b = HEADS[:, :4], HEADS[:, 4:]
    assert torch.allclose(tau(a, b).diagonal(dim1=1, dim2=2), tau.of_pairs(a, b))
    assert torch.allclose(tau(torch.cat([a, b], 1))[:, :4, 4:], tau(a, b))


def test_the_most_similar_negatives_between_one_and_all():
    def loss(form, topk=100, heads=HEADS):
        return amcl(heads, TAU, beta=0.7, form=form, topk=topk)

    assert torch.isclose(loss("topk", 1), loss("max"))
    assert torch.isclose(loss("topk", 6), loss("topk", 100))
    for k in (1, 2, 6):  # Jensen
        assert loss("lse") - loss("topk", k) >= 3 * math.log(k) - 1e-12
    flat = HEADS[..., :2]  # where d' is 2 the release has the full regularizer, so with one negative it is the print
    assert torch.isclose(loss("released", 1, flat), loss("max", heads=flat))
    assert not torch.isclose(loss("released", 3, flat), loss("topk", 3, flat))  # a sum against a mean
    for k in (1, 2, 5):
        tau = TAU.clone().requires_grad_()
        amcl(HEADS, tau, form="topk", topk=k).backward()
        assert ((tau.grad != 0).sum(-1) == k + 1).all()


def test_swapping_the_views_changes_nothing():
    back = torch.cat([HEADS[:, 4:], HEADS[:, :4]], 1)
    tau = TAU.roll((4, 4), (1, 2))
    assert torch.allclose(amcl(back, tau), amcl(HEADS, TAU))


QUERY, KEY, QUEUE = draw(2, 3, 4, seed=1), draw(2, 3, 4, seed=2), draw(2, 6, 4, seed=3)
WARM = [0.2 + draw(*shape, seed=i).abs() for i, shape in enumerate([(2, 3), (2, 3, 6), (2, 3, 6)])]


@pytest.mark.parametrize("form", ["lse", "topk"])
def test_moco_equals_the_loops(form):
    q, k, memory = normalize(QUERY), normalize(KEY), normalize(QUEUE)
    total = torch.tensor(0.0, dtype=torch.float64)
    for c in range(2):
        for i in range(3):
            total += regularizer(WARM[0][c, i], 4) - q[c, i] @ k[c, i] / WARM[0][c, i]
            s = memory[c] @ q[c, i]
            terms = s / WARM[1][c, i] - regularizer(WARM[1][c, i], 4)
            total += terms.logsumexp(0) if form == "lse" else terms[s.argsort(descending=True)[:2]].mean()
    assert torch.allclose(amcl_moco(QUERY, KEY, QUEUE, *WARM[:2], form=form, topk=2), total / 3)


def test_moco_gives_keys_and_queue_no_gradient():
    rows = [x.clone().requires_grad_() for x in (QUERY, KEY, QUEUE)]
    amcl_moco(*rows, *WARM, form="released").backward()
    assert rows[0].grad.abs().sum() > 0
    assert rows[1].grad is None
    assert rows[2].grad is None


def test_simsiam_equals_the_loops_and_targets_have_no_gradient():
    p1, p2, z1, z2 = (draw(2, 3, 4, seed=i).requires_grad_() for i in range(4))
    warm = WARM[0], WARM[0] + 0.3
    total = torch.tensor(0.0, dtype=torch.float64)
    for c in range(2):
        for i in range(3):
            for p, z, tau in ((p1, z2, warm[0]), (p2, z1, warm[1])):
                cosine = torch.cosine_similarity(p[c, i], z[c, i], dim=0)
                total = total - cosine / (2 * tau[c, i]) + 0.5 * regularizer(tau[c, i], 4)
    loss = amcl_simsiam(p1, z2, p2, z1, *warm, beta=0.5)
    assert torch.allclose(loss, total / 3)
    loss.backward()
    assert z1.grad is None
    assert z2.grad is None


def test_barlow_twins_equals_the_loops():
    z1, z2, tau = draw(2, 6, 3), draw(2, 6, 3, seed=1), 0.3 + draw(2, 3, 3, seed=2).abs()
    total = torch.tensor(0.0, dtype=torch.float64)
    for c in range(2):
        a, b = ((z[c] - z[c].mean(0)) / z[c].std(0) for z in (z1, z2))
        for i in range(3):
            for j in range(3):
                r, t = a[:, i] @ b[:, j] / 6, tau[c, i, j]
                total += (1 - r / t) ** 2 + 0.1 * regularizer(t, 3) if i == j else 0
                total += 0.01 * r**2 / t - 0.1 * regularizer(t, 3) if i != j else 0
    assert torch.allclose(amcl_barlow_twins(z1, z2, tau, beta=0.1, off_diagonal=0.01), total)
    flat = torch.cat([z1[..., :2], torch.ones(2, 6, 1, dtype=torch.float64)], -1).requires_grad_()
    amcl_barlow_twins(flat, z2, tau).backward()
    assert flat.grad.isfinite().all()  # a channel that says nothing


def test_half_precision_heads_with_wide_temperatures():
    exact = amcl(HEADS.bfloat16().float(), TAU.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(amcl(HEADS.bfloat16(), TAU.float()), exact)
        method = AMCL([nn.Linear(6, 8) for _ in range(2)], 8)
        loss = method(torch.randn(4, 6), torch.randn(4, 6))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters())


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
    assert ((tau >= 0.05) & (tau <= 2)).all()
    s = z @ z.mT
    assert tau[s > 0.8].mean() < tau[s < 0].mean()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: amcl(HEADS[:, :7], TAU[:, :7, :7]), "even number"),
        (lambda: amcl(HEADS[:, :2], TAU[:, :2, :2]), "to have a negative"),
        (lambda: amcl(HEADS, TAU[:, :4]), "temperatures"),
        (lambda: amcl(HEADS, 0 * TAU), "temperatures"),
        (lambda: amcl(HEADS, TAU, form="mean"), "form"),
        (lambda: amcl(HEADS, TAU, beta=-1), "beta"),
        (lambda: AMCL([], 4), "heads"),
        (lambda: amcl(HEADS, TAU, form="topk", topk=0), "topk"),
        (lambda: amcl_moco(QUERY, KEY, QUEUE, *WARM[:2], form="released"), "key_temperatures"),
        (lambda: amcl_moco(QUERY, KEY, QUEUE, WARM[0], WARM[0]), "negative_temperatures"),
        (lambda: amcl_simsiam(QUERY, KEY, QUERY, QUEUE, WARM[0], WARM[0]), "z1"),
        (lambda: amcl_barlow_twins(QUERY[:, :1], KEY[:, :1], torch.ones(2, 4, 4)), "z1"),
        (lambda: PairTemperature(5, low=2.0, high=1.0), "low"),
        (lambda: PairTemperature(4)(HEADS.float()), "heads"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
