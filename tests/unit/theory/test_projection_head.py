"""Xue et al. (2024): features become more unequal with every layer."""

import pytest
import torch

from cl_teach.theory.linear_model import population_loss
from cl_teach.theory.projection_head import (
    FixedHead,
    balanced_layers,
    diagonal_loss,
    diagonal_model,
    end_to_end_weight,
    feature_weights,
)

PHI = torch.tensor([2.0, 1.4, 1.0, 0.7, 0.5, 0.3], dtype=torch.float64)
ALPHA = torch.tensor([0.1, 0.3, 0.1, 0.8, 0.1, 0.1], dtype=torch.float64)
NU = 0.25


def descend(depth, steps, size=0.3, rate=0.02):
    M, C = torch.diag(PHI**2 + NU), torch.diag((1 - ALPHA) * PHI**2)
    layers = balanced_layers(depth, 6, size, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(layers, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        population_loss(torch.linalg.multi_dot(layers[::-1]) if depth > 1 else layers[0], M, C).backward()
        optimizer.step()
    return [w.detach() for w in layers]


@pytest.mark.parametrize(("depth", "steps"), [(2, 8000), (3, 12000)])
def test_layer_l_of_depth_L_carries_the_weight_to_the_power_l_over_L(depth, steps):
    layers = descend(depth, steps, size=0.6 if depth == 3 else 0.3)
    weights = feature_weights(layers, torch.eye(6, dtype=torch.float64))
    s = end_to_end_weight(PHI, ALPHA, NU)
    for level, got in enumerate(weights, start=1):
        assert torch.allclose(got, s ** (level / depth), rtol=2e-3)


def test_balance_is_conserved_along_the_flow():
    first, second = descend(2, 500, rate=1e-3)
    assert (second.T @ second - first @ first.T).abs().max() < 1e-3


def test_head_weight_limits():
    one = torch.ones(1, dtype=torch.float64)
    assert end_to_end_weight(one, one, 0.1) == 0
    assert end_to_end_weight(0 * one, 0 * one, 0.0) == 0
    assert torch.allclose(end_to_end_weight(4 * one, 0 * one, 0.0), one / 4)
    phi = torch.linspace(0.05, 3, 400, dtype=torch.float64)
    best = phi[end_to_end_weight(phi, torch.zeros_like(phi), 0.25).argmax()]
    assert best.item() == pytest.approx(0.5, abs=0.01)


def test_fixed_head_with_kappa_one_is_the_identity_and_its_gradient_is_the_scale():
    r = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(FixedHead(5, 1.0)(r), r)
    head = FixedHead(5, 1.5)
    head(r).sum().backward()
    assert torch.allclose(r.grad, (1.5 ** -torch.arange(5.0, dtype=torch.float64)).expand(4, 5))


def test_diagonal_model_without_threshold_is_linear_and_dead_below_it():
    w1, w2 = torch.tensor([0.9, -0.2], dtype=torch.float64), torch.tensor([0.5, 0.7], dtype=torch.float64)
    phi, alpha = torch.tensor([1.2, 1.0], dtype=torch.float64), torch.tensor([0.1, 0.3], dtype=torch.float64)
    assert torch.allclose(diagonal_model(w1, w2, phi, 0.0).output, w2 * w1.abs() * phi)
    w1.requires_grad_()
    w2.requires_grad_()
    diagonal_loss(w1, w2, phi, alpha, 0.3).backward()
    assert w1.grad[1] == 0 and w2.grad[1] == 0 and w1.grad[0] != 0
    assert diagonal_model(w1, w2, phi, 0.3).active.tolist() == [True, False]


def test_a_scrambled_feature_survives_below_the_head_only():
    phi = torch.tensor([1.2, 0.9, 1.2, 0.9], dtype=torch.float64)
    alpha = torch.tensor([0.1, 0.3, 1.0, 0.9], dtype=torch.float64)
    w1 = torch.full((4,), 0.9, dtype=torch.float64, requires_grad=True)
    w2 = torch.full((4,), 0.9, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w1, w2], lr=0.01)
    for _ in range(5000):
        optimizer.zero_grad()
        diagonal_loss(w1, w2, phi, alpha, 0.3).backward()
        optimizer.step()
    model = diagonal_model(w1, w2, phi, 0.3)
    assert model.pre[2] > 0.3 and model.output[2].abs() < 0.1


def test_gradcheck():
    w = torch.rand(3, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(
        lambda a, b, t: diagonal_loss(a, b, PHI[:3], ALPHA[:3], t),
        (
            w.clone().requires_grad_(),
            w.clone().requires_grad_(),
            torch.tensor(0.1, dtype=torch.float64, requires_grad=True),
        ),
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: FixedHead(5, 0.9), "kappa"),
        (lambda: FixedHead(5)(torch.ones(2, 4)), "representation"),
        (lambda: end_to_end_weight(PHI, ALPHA + 1, 0.1), "disruption"),
        (lambda: feature_weights([], torch.eye(2)), "layers"),
        (lambda: feature_weights([torch.eye(3)], torch.eye(2)), "layers"),
        (lambda: diagonal_model(PHI, PHI[:2], PHI, 0.1), "w2"),
        (lambda: balanced_layers(0, 3, 0.1), "depth"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
