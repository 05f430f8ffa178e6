"""Tian et al. (2021): the linear theory of learning without negatives."""

import pytest
import torch
from unit_helpers import draw

from cl_teach.theory.linear_byol import (
    decoupled_flow,
    decoupled_trajectory,
    fixed_points,
    linear_flow,
    matrix_trajectory,
    symmetric_flow,
)


def correlation(seed=0, d=4):
    f = draw(20, d, seed=seed)
    return f.T @ f / 20


def test_flow_is_minus_the_gradient_with_the_target_held_still():
    W, Wp, Wa = draw(3, 4).requires_grad_(), draw(3, 3, seed=1).requires_grad_(), draw(3, 4, seed=2)
    X, Xp = correlation(4), correlation(5)
    # J = E|Wp W x1 - Wa x2|^2 / 2 with E[x1 x1^T] = X + X', E[x1 x2^T] = X, and the target a constant
    J = 0.5 * torch.trace(Wp @ W @ (X + Xp) @ W.T @ Wp.T) - torch.trace(Wp @ W @ X @ Wa.T)
    g, gp = torch.autograd.grad(J, [W, Wp])
    flow = linear_flow(W, Wp, Wa, X, Xp, predictor_rate=0.7, target_rate=0.4, weight_decay=0.02)
    assert torch.allclose(flow.online, -g - 0.02 * W)
    assert torch.allclose(flow.predictor, -0.7 * gp - 0.02 * Wp)
    assert torch.allclose(flow.target, 0.4 * (W - Wa))


def test_without_predictor_and_with_equal_target_the_weights_only_decay():
    W, X, zero = draw(3, 4), correlation(4), torch.zeros(4, 4, dtype=torch.float64)
    flow = linear_flow(W, torch.eye(3, dtype=torch.float64), W, X, zero, weight_decay=0.1)
    assert torch.allclose(flow.online, -0.1 * W)
    noisy = linear_flow(W, torch.eye(3, dtype=torch.float64), W, X, 0.2 * torch.eye(4, dtype=torch.float64))
    assert torch.allclose(noisy.online, -0.2 * W)


def test_symmetric_flow_is_the_full_flow_projected():
    W, Wp = draw(3, 4), correlation(1, 3)
    eye = torch.eye(4, dtype=torch.float64)
    full = linear_flow(W, Wp, 0.9 * W, eye, 0.2 * eye, predictor_rate=0.7, weight_decay=0.03)
    d_predictor, d_correlation = symmetric_flow(
        Wp, W @ W.T, predictor_rate=0.7, noise=0.2, weight_decay=0.03, target_scale=0.9
    )
    assert torch.allclose(d_predictor, (full.predictor + full.predictor.T) / 2)
    assert torch.allclose(d_correlation, full.online @ W.T + W @ full.online.T)


def test_diagonal_matrices_follow_the_decoupled_flow():
    p, s = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor([0.2, 0.5], dtype=torch.float64)
    settings = {"predictor_rate": 0.7, "noise": 0.2, "weight_decay": 0.03, "target_scale": 0.9}
    d_predictor, d_correlation = symmetric_flow(torch.diag(p), torch.diag(s), **settings)
    dp, ds = decoupled_flow(p, s, **settings)
    assert torch.allclose(d_predictor, torch.diag(dp)) and torch.allclose(d_correlation, torch.diag(ds))


def test_fixed_points_solve_their_equation_and_divide_growth_from_collapse():
    settings = {"noise": 0.2, "weight_decay": 0.05, "target_scale": 1.0}
    rest = fixed_points(**settings)
    for p in rest:
        assert 1.2 * p**2 - p + 0.05 == pytest.approx(0, abs=1e-12)
    p0 = torch.tensor([1.05, 0.95], dtype=torch.float64) * rest.unstable
    p, s = decoupled_trajectory(p0, p0**2, torch.tensor([400.0], dtype=torch.float64), **settings)
    assert p[0, 0].item() == pytest.approx(rest.stable, rel=1e-6)
    assert abs(p[1, 0].item()) < 1e-3
    assert torch.allclose(s, p**2, atol=1e-9)  # s = p^2 / predictor_rate is kept


def test_beyond_the_threshold_only_collapse_remains():
    assert fixed_points(noise=0.2, weight_decay=0.209) == (None, None)
    assert fixed_points(noise=0.2, weight_decay=0.208).stable is not None


def test_the_invariant_relaxes_with_twice_the_weight_decay():
    settings = {"predictor_rate": 0.5, "noise": 0.1, "weight_decay": 0.04}
    p0, s0 = torch.tensor([0.6], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    times = torch.tensor([0.0, 1.0, 7.0], dtype=torch.float64)
    p, s = decoupled_trajectory(p0, s0, times, **settings)
    gap = s - p**2 / 0.5
    assert torch.allclose(gap, gap[:, :1] * torch.exp(-2 * 0.04 * times), rtol=1e-8)


def test_eigenvectors_align_over_time():
    times = torch.tensor([0.0, 5.0, 20.0], dtype=torch.float64)
    P, F = matrix_trajectory(
        0.3 * torch.eye(3, dtype=torch.float64) + 0.1 * correlation(1, 3),
        correlation(2, 3),
        times,
        noise=0.2,
        weight_decay=0.02,
    )
    Z = torch.linalg.matrix_norm(F @ P - P @ F)
    assert Z[0] > 10 * Z[1] > 10 * Z[2]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fixed_points(weight_decay=-0.1), "weight_decay"),
        (lambda: decoupled_trajectory(draw(2), draw(2), torch.tensor([1.0, 0.5])), "times"),
        (lambda: decoupled_trajectory(1e8 * draw(2).abs(), draw(2).abs(), torch.tensor([1e3])), "p0, s0, times"),
        (lambda: matrix_trajectory(1e9 * torch.eye(2), torch.eye(2), torch.tensor([9.0])), "predictor, correlation"),
        (lambda: linear_flow(draw(3, 4), draw(3, 3), draw(3, 5), torch.eye(4), torch.eye(4)), "target"),
        (lambda: symmetric_flow(torch.eye(2), torch.eye(2), noise=float("nan")), "noise"),
        (lambda: decoupled_flow(torch.ones(2), torch.ones(3)), "p, s"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
