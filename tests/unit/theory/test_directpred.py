"""Tian et al. (2021): why there is no collapse without negatives."""

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.theory.directpred import (
    DirectPred,
    DirectPredictor,
    byol_loss,
    decoupled_flow,
    decoupled_trajectory,
    fixed_points,
    linear_flow,
    matrix_trajectory,
    predictor_weights,
    symmetric_flow,
)


def correlation(seed=0, d=4):
    f = draw(20, d, seed=seed)
    return f.T @ f / 20


@pytest.mark.parametrize("form", ["code", "paper", "copy"])
def test_predictor_is_symmetric_positive_commutes_and_turns_with_the_features(form):
    F = correlation()
    W = predictor_weights(F, epsilon=0.1, form=form)
    assert torch.allclose(W, W.T)
    assert (torch.linalg.eigvalsh(W) > 0).all()
    assert torch.allclose(W @ F, F @ W)
    R = torch.linalg.qr(draw(4, 4, seed=3)).Q
    assert torch.allclose(predictor_weights(R @ F @ R.T, epsilon=0.1, form=form), R @ W @ R.T)


def test_code_form_ignores_the_scale_of_the_features_and_paper_form_does_not():
    F = correlation()
    assert torch.allclose(predictor_weights(9 * F), predictor_weights(F))
    assert torch.allclose(
        predictor_weights(9 * F, form="paper", epsilon=0), 3 * predictor_weights(F, form="paper", epsilon=0)
    )


def test_a_missing_mode_is_lifted_to_the_floor():
    F = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert torch.allclose(predictor_weights(F, epsilon=0.0), torch.diag(torch.tensor([1.0, 1e-4], dtype=torch.float64)))


def test_running_correlation_is_initialized_by_the_first_batch():
    a, b = draw(6, 3), draw(6, 3, seed=1)
    predictor = DirectPredictor(3, decay=0.25).double()
    predictor.update(a, b)
    first = (a.T @ a + b.T @ b) / 12
    assert torch.allclose(predictor.correlation, first)
    predictor.update(2 * a, 2 * b)
    assert torch.allclose(predictor.correlation, 0.25 * first + 0.75 * 4 * first)


def test_cosine_loss_ignores_the_predictors_scale_and_its_gradient_is_orthogonal():
    z = draw(5, 4).requires_grad_()
    t = draw(5, 4, seed=1).requires_grad_()
    loss = byol_loss(z, z, t, t)
    assert torch.allclose(loss, byol_loss(7 * z, 7 * z, t, t))
    loss.backward()
    assert t.grad is None
    assert torch.allclose((z.grad * z).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)


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


def test_a_training_step_lowers_the_loss_and_keeps_the_rank_that_no_predictor_loses():
    def run(use_predictor):
        torch.manual_seed(0)
        online = nn.Linear(12, 8, bias=False)
        method = DirectPred(online, 8, momentum=0.99)
        optimizer = torch.optim.SGD(online.parameters(), lr=0.05)
        generator = torch.Generator().manual_seed(0)
        scales = torch.linspace(1.5, 0.5, 12)
        losses = []
        for _ in range(800):
            x = torch.randn(256, 12, generator=generator) * scales
            views = [x + 0.45 * torch.randn(256, 12, generator=generator) for _ in range(2)]
            if use_predictor:
                loss = method(*views)
            else:
                z1, z2 = online(views[0]), online(views[1])
                t1, t2 = method.teacher(views[1]), method.teacher(views[0])
                loss = byol_loss(z1, z2, t1, t2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
            losses.append(loss.item())
        spectrum = torch.linalg.svdvals(online(torch.randn(2000, 12, generator=generator) * scales)) ** 2
        share = spectrum / spectrum.sum()
        return losses, torch.special.entr(share).sum().exp().item()

    losses, rank = run(True)
    _, rank_without = run(False)
    assert sum(losses[-20:]) < sum(losses[:20])
    assert rank > 7 and rank > rank_without + 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: predictor_weights(draw(2, 3)), "square"),
        (lambda: predictor_weights(torch.zeros(2, 2)), "positive eigenvalue"),
        (lambda: predictor_weights(torch.eye(2), form="other"), "form"),
        (lambda: predictor_weights(torch.eye(2), epsilon=-1.0), "epsilon"),
        (lambda: DirectPredictor(3, decay=2.0), "decay"),
        (lambda: DirectPredictor(3).update(draw(4, 2), draw(4, 2)), "correlation"),
        (lambda: fixed_points(weight_decay=-0.1), "weight_decay"),
        (lambda: decoupled_trajectory(draw(2), draw(2), torch.tensor([1.0, 0.5])), "times"),
        (
            lambda: linear_flow(draw(3, 4), draw(3, 3), draw(3, 5), torch.eye(4), torch.eye(4)),
            "online, target",
        ),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
