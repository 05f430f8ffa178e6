"""The linear toy model: closed forms against autograd, an ODE solver and gradient descent."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from unit_helpers import draw

from cl_teach.theory.linear_model import (
    escape_time,
    minimizer,
    one_layer_weight,
    population_gradient,
    population_loss,
    spectral_loss,
    two_layer_time,
    two_layer_weight,
    weight_decay_fixed_point,
    weight_decay_threshold,
)


def moments(d=5, seed=0):
    a, b = draw(d, d, seed=seed), draw(d, d - 1, seed=seed + 1)
    cross = b @ b.T / d
    return cross + a @ a.T / d + 0.1 * torch.eye(d), cross


def t64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_gradient_formula_equals_autograd():
    M, C = moments()
    W = draw(3, 5).requires_grad_()
    (g,) = torch.autograd.grad(population_loss(W, M, C), W)
    assert torch.allclose(population_gradient(W, M, C), g)


def test_several_maps_at_once():
    M, C = moments()
    W = torch.stack([draw(3, 5), draw(3, 5, seed=1)])
    assert torch.allclose(population_loss(W, M, C), torch.stack([population_loss(w, M, C) for w in W]))
    assert torch.allclose(population_gradient(W, M, C)[1], population_gradient(W[1], M, C))


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_loss_at_the_minimizer_is_minus_the_sum_of_squares_and_its_gradient_is_zero(rank):
    M, C = moments()
    best = minimizer(M, C, rank)
    values, vectors = torch.linalg.eigh(best.gram)
    W = (vectors * values.clamp_min(0).sqrt()).T
    assert torch.allclose(population_loss(W, M, C), best.loss)
    assert population_gradient(W, M, C).abs().max() < 1e-6  # the root of a null direction is good to 1e-8
    assert torch.allclose(best.pre_gram @ best.pre_gram, best.gram, atol=1e-10)
    assert torch.linalg.matrix_rank(best.gram, atol=1e-9) == min(rank, 4)


def test_no_map_beats_the_minimizer():
    M, C = moments()
    best = minimizer(M, C, 2).loss
    for seed in range(20):
        W = draw(2, 5, seed=seed).requires_grad_()
        step = torch.optim.LBFGS([W], max_iter=200, line_search_fn="strong_wolfe")

        def closure(W=W, step=step):
            step.zero_grad()
            loss = population_loss(W, M, C)
            loss.backward()
            return loss

        step.step(closure)
        assert population_loss(W, M, C) >= best - 1e-9


def test_a_direction_without_variance_gets_no_weight():
    M, C = torch.diag(t64(1.0, 0.0)), torch.diag(t64(0.5, 0.0))
    assert torch.allclose(minimizer(M, C, 2).gram, torch.diag(t64(0.5, 0.0)))


def test_spectral_loss_is_an_unbiased_estimate_of_the_population_loss():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 3, generator=generator, dtype=torch.float64)
    a = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    b = x + 0.5 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    M, C, W = 1.25 * torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), 0.4 * draw(2, 3)
    parts = [spectral_loss(u @ W.T, v @ W.T) for u, v in zip(a.split(500), b.split(500), strict=True)]
    mean, error = torch.stack(parts).mean(), torch.stack(parts).std() / math.sqrt(len(parts))
    assert (mean - population_loss(W, M, C)).abs() < 4 * error


def test_spectral_loss_equals_the_double_loop():
    a, b = draw(5, 3), draw(5, 3, seed=1)
    pull = sum(torch.dot(a[i], b[i]) for i in range(5)) / 5
    push = sum(torch.dot(a[i], b[j]) ** 2 for i in range(5) for j in range(5) if i != j) / 20
    assert torch.allclose(spectral_loss(a, b), -2 * pull + push)
    assert torch.autograd.gradcheck(spectral_loss, (a.requires_grad_(), b.requires_grad_()))


C_, M_, TIMES = t64(1.0, 0.4, 0.0, 2.0), t64(1.2, 0.9, 0.5, 3.0), t64(0.0, 0.3, 2.0, 30.0)


def integrate(right_hand_side, start):
    columns = []
    for c, m in zip(C_.tolist(), M_.tolist(), strict=True):
        solution = solve_ivp(
            lambda _, y, c=c, m=m: right_hand_side(y, c, m),
            (0, 30),
            [start],
            t_eval=TIMES,
            rtol=1e-11,
            atol=1e-14,
        )
        columns.append(torch.from_numpy(solution.y[0]))
    return torch.stack(columns)


@pytest.mark.parametrize("start", [0.01, 0.2, 1.5])
def test_one_layer_closed_form_equals_the_ode(start):
    ode = integrate(lambda y, c, m: 8 * y * (c - m**2 * y), start)
    assert torch.allclose(one_layer_weight(TIMES, C_, M_, start), ode, rtol=1e-6)


@pytest.mark.parametrize("start", [0.05, 0.2, 1.5])
def test_two_layer_closed_form_equals_the_ode(start):
    ode = integrate(lambda s, c, m: 8 * s**2 * (c - m**2 * s**2), start)
    assert torch.allclose(two_layer_weight(TIMES, C_, M_, start), ode, rtol=1e-6)


def test_a_feature_without_signal_decays_like_a_cube_root_of_time_from_any_start():
    for start in (1e-12, 0.02, 3.0):
        weight = two_layer_weight(t64(0.0, 5.0).float(), torch.zeros(1), torch.full((1,), 0.5), start)
        expected = (start**-3 + 24 * 0.25 * t64(0.0, 5.0)) ** (-1 / 3)
        assert torch.allclose(weight.double(), expected[None], rtol=1e-6)


def test_a_bisection_has_no_gradient():
    c = C_.clone().requires_grad_()
    assert not two_layer_weight(TIMES, c, M_, 0.1).requires_grad


def test_spectral_loss_of_half_precision_embeddings():
    a, b = 50 * draw(64, 8), 50 * draw(64, 8, seed=1)
    loss = spectral_loss(a.half(), b.half())
    assert torch.allclose(loss, spectral_loss(a.half().float(), b.half().float()))


def test_time_and_weight_are_inverse():
    s = two_layer_weight(t64(0.5, 2.0), t64(1.0), t64(1.2), 0.1)
    assert torch.allclose(two_layer_time(s[0], t64(1.0, 1.0), t64(1.2, 1.2), 0.1), t64(0.5, 2.0))


def test_both_depths_reach_the_same_weight_and_the_deeper_one_is_later():
    c, m = t64(1.0), t64(1.2)
    late = t64(1e4)
    assert torch.allclose(two_layer_weight(late, c, m, 0.01), one_layer_weight(late, c, m, 1e-4).sqrt())
    early = t64(2.0)
    assert two_layer_weight(early, c, m, 0.01) < one_layer_weight(early, c, m, 1e-4).sqrt()


def test_escape_takes_about_the_stated_time():
    c, m = t64(1.0), t64(1.0)
    half = two_layer_time(t64(0.5), c, m, 0.01)
    assert half.item() == pytest.approx(escape_time(c, 0.01).item(), rel=0.1)


def test_weight_decay_root_solves_its_equation_and_vanishes_beyond_the_threshold():
    c, m = t64(1.0, 0.4, 2.0), t64(1.2, 0.9, 3.0)
    for share in (0.0, 0.3, 0.999):
        for k in range(3):
            decay = share * weight_decay_threshold(c, m)[k].item()
            s = weight_decay_fixed_point(c[k : k + 1], m[k : k + 1], decay)
            assert torch.allclose(4 * c[k] * s - 4 * m[k] ** 2 * s**3, t64(decay), atol=1e-9)
            assert s**2 >= c[k] / (3 * m[k] ** 2) - 1e-9  # the outer, stable root
    assert (weight_decay_fixed_point(c, m, 1.01 * weight_decay_threshold(c, m).max().item()) == 0).all()
    assert (weight_decay_fixed_point(t64(0.0), t64(1.0), 0.0) == 0).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: minimizer(torch.eye(2), torch.eye(3), 1), "C"),
        (lambda: minimizer(torch.eye(2), torch.eye(2), 0), "rank"),
        (lambda: population_loss(draw(2, 3), torch.eye(2), torch.eye(2)), "W"),
        (lambda: spectral_loss(draw(1, 3), draw(1, 3)), "at least 2 rows"),
        (lambda: two_layer_weight(TIMES, -C_, M_, 0.1), "c"),
        (lambda: two_layer_weight(TIMES, C_, M_, 0.0), "start"),
        (lambda: one_layer_weight(TIMES, C_, M_[:2], 0.1), "m"),
        (lambda: weight_decay_fixed_point(C_, M_, -0.1), "weight_decay"),
        (lambda: minimizer(-torch.eye(2), torch.eye(2), 1), "M"),
        (lambda: two_layer_time(t64(9.0), t64(1.0), t64(1.2), 0.1), "s: .*same side"),
        (lambda: spectral_loss(1e20 * torch.eye(3), 1e20 * torch.eye(3)), "z1, z2"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
