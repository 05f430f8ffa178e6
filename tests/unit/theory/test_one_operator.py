"""One operator: the positive-pair kernel, its eigenfunctions, and the losses that aim at them."""

import math

import pytest
import torch

from cl_teach.theory.linear_model import population_loss
from cl_teach.theory.one_operator import (
    barlow_twins,
    batch_moments,
    canonical_directions,
    eigenfunctions,
    largest_angle,
    positive_pair_kernel,
    probe_residual,
    vicreg,
    whitened_invariance,
)

F64 = torch.float64


def table(n=6, seed=0):
    """Pairs of views of n natural inputs: symmetric and positive semidefinite."""
    g = torch.Generator().manual_seed(seed)
    augmentation = torch.rand(n, n, generator=g, dtype=F64).softmax(1) * torch.rand(n, n, generator=g, dtype=F64)
    augmentation /= augmentation.sum(1, keepdim=True)
    return augmentation.mT @ augmentation / n


def matrices(d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    shared, own = (torch.randn(d, d, generator=g, dtype=F64) for _ in range(2))
    C = shared @ shared.mT
    return C + own @ own.mT, C


def test_kernel_is_the_sum_over_its_eigenfunctions():
    joint = table()
    rho, e = eigenfunctions(joint)
    assert torch.allclose(e * rho @ e.mT, positive_pair_kernel(joint))
    p = joint.sum(1)
    assert torch.allclose(e.mT @ (p[:, None] * e), torch.eye(6, dtype=F64), atol=1e-10)
    assert math.isclose(rho[0], 1.0, rel_tol=1e-12)
    assert torch.allclose(e[:, 0].abs(), torch.ones(6, dtype=F64))  # the constant predicts itself


def test_correlation_of_a_function_is_its_expected_product_on_pairs():
    joint = table(seed=1)
    rho, e = eigenfunctions(joint)
    assert torch.allclose(e.mT @ joint @ e, torch.diag(rho), atol=1e-10)


def test_top_functions_leave_the_smallest_worst_residual():
    joint, r, delta = table(seed=2), 3, 0.02
    rho, e = eigenfunctions(joint)
    p = joint.sum(1)
    worst = e[:, 0] * math.sqrt(1 - delta / (1 - rho[r])) + e[:, r] * math.sqrt(delta / (1 - rho[r]))
    left_out = probe_residual(e[:, :r], worst, p)
    assert torch.isclose(left_out, delta / (1 - rho[r]))  # reaches the bound
    g = torch.Generator().manual_seed(0)
    for _ in range(50):
        y = torch.randn(6, generator=g, dtype=F64)
        y = y / (p * y.square()).sum().sqrt()
        disagreement = 1 - y @ joint @ y
        assert probe_residual(e[:, :r], y, p) <= disagreement / (1 - rho[r]) + 1e-12


def test_residual_is_zero_in_the_span_and_one_outside():
    e = torch.eye(4, dtype=F64)[:, :2]
    p = torch.full((4,), 0.25, dtype=F64)
    assert probe_residual(torch.cat([e, e], 1), e[:, 0] - 3 * e[:, 1], p) < 1e-12
    assert torch.isclose(probe_residual(e, torch.tensor([0.0, 0, 2, 1], dtype=F64), p), torch.ones((), dtype=F64))
    assert probe_residual(torch.zeros(4, 1, dtype=F64), torch.ones(4, dtype=F64), p) == 1
    with pytest.raises(ValueError, match="target"):
        probe_residual(e, torch.zeros(4, dtype=F64), p)


def test_canonical_directions_solve_the_eigenvalue_problem():
    M, C = matrices()
    rho, V = canonical_directions(M, C)
    assert torch.allclose(C @ V, M @ V * rho)
    assert torch.allclose(V.mT @ M @ V, torch.eye(5, dtype=F64), atol=1e-10)
    assert (rho.diff() <= 0).all()


def test_angle_knows_equal_spans_and_right_angles():
    M, C = matrices()
    V = canonical_directions(M, C).functions
    mix = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=F64)
    assert largest_angle(mix @ V[:, :2].mT, V[:, :2], M) < 1e-5
    assert torch.isclose(largest_angle(V[:, 3:].mT, V[:, :2], M), torch.tensor(90.0, dtype=F64))


def test_whitened_invariance_at_one_is_the_spectral_loss():
    M, C = matrices()
    W = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
    for mu, equal in ((1.0, True), (0.5, False)):
        value = whitened_invariance(W @ M @ W.mT, W @ C @ W.mT, mu) - 3
        assert bool(torch.isclose(value, population_loss(W, M, C))) is equal


def test_barlow_twins_ignores_the_scale_of_a_coordinate():
    M, C = matrices(3)
    D = torch.diag(torch.tensor([0.1, 2.0, 7.0], dtype=F64))
    assert torch.isclose(barlow_twins(M, C, 0.3), barlow_twins(D @ M @ D, D @ C @ D, 0.3))
    eye = torch.eye(3, dtype=F64)
    assert barlow_twins(eye, eye) == 0
    assert torch.isclose(barlow_twins(eye, 0.5 * eye), torch.tensor(0.75, dtype=F64))


def test_vicreg_from_a_batch_is_the_sum_of_its_terms():
    g = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(200, 4, generator=g, dtype=F64) for _ in range(2))
    z1, z2 = z1 - z1.mean(0), z2 - z2.mean(0)
    gram, cross = batch_moments(z1, z2)
    apart = (z1 - z2).square().mean()
    assert torch.isclose(vicreg(gram, cross, variance=0, covariance=0), 25 * apart)
    small = vicreg(0.25 * gram / gram.diagonal().mean(), cross, invariance=0, covariance=0)
    assert 11 < small < 14  # standard deviations near one half: 25 times a hinge of about one half


@pytest.mark.parametrize(
    "joint", [torch.tensor([[0.5, 0.2], [0.1, 0.2]]), torch.eye(2), torch.diag(torch.tensor([1.0, 0]))]
)
def test_refuses_what_is_no_table_of_pairs(joint):
    with pytest.raises(ValueError, match="joint"):
        eigenfunctions(joint)


def test_refuses_a_covariance_that_is_none():
    with pytest.raises(ValueError, match="M: expected"):
        canonical_directions(torch.zeros(2, 2), torch.eye(2))
    with pytest.raises(ValueError, match="gram"):
        barlow_twins(torch.zeros(2, 2), torch.zeros(2, 2))
