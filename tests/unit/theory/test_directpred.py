"""Tian et al. (2021): why there is no collapse without negatives."""

import copy

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.theory.directpred import DirectPred, DirectPredictor, byol_loss, predictor_weights


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
                loss = method.loss(*views)
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


def test_the_predictor_follows_the_step_and_evaluation_changes_nothing():
    torch.manual_seed(0)
    method, views = DirectPred(nn.Linear(4, 3), 3), (torch.randn(6, 4), torch.randn(6, 4))
    before = copy.deepcopy(method.state_dict())
    method.eval()
    method(*views)
    method.train()
    with torch.no_grad():
        method(*views)
    method.after_step()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    z = method.online(views[0]).detach(), method.online(views[1]).detach()
    method(*views)
    assert torch.equal(method.predictor.weight, torch.eye(3))
    method.after_step()
    expected = DirectPredictor(3)
    expected.update(*z)
    assert torch.equal(method.predictor.weight, expected.weight)


def test_two_calls_before_one_backward_have_the_gradient_of_the_sum():
    def gradient(two):
        torch.manual_seed(0)
        method, views = DirectPred(nn.Linear(4, 3), 3), torch.randn(2, 6, 4)
        first = method(*views)
        if not two:
            first.backward()
            first = 0.0
        method.after_step()
        (first + method(*views.flip(0))).backward()
        return method.online.weight.grad

    assert torch.allclose(gradient(True), gradient(False))


def test_a_loaded_method_continues_as_if_never_stopped():
    def make():
        torch.manual_seed(0)
        method = DirectPred(nn.Linear(4, 3), 3, momentum=0.9)
        return method, torch.optim.SGD(method.online.parameters(), lr=0.1, momentum=0.9)

    def train(method, optimizer, steps):
        for step in steps:
            loss = method(*draw(2, 6, 4, seed=step).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
        return loss.item()

    whole = train(*make(), range(6))
    method, optimizer = make()
    train(method, optimizer, range(3))
    fresh, its = make()
    fresh.load_state_dict(method.state_dict())
    its.load_state_dict(optimizer.state_dict())
    assert train(fresh, its, range(3, 6)) == whole


def test_half_precision_embeddings():
    F = correlation().float()
    assert predictor_weights(F.bfloat16()).dtype == torch.float32
    predictor = DirectPredictor(4)
    z = draw(6, 4).bfloat16()
    predictor.update(z, z)
    assert torch.allclose(predictor.correlation, z.float().T @ z.float() / 6)
    method = DirectPred(nn.Linear(4, 3), 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(torch.randn(6, 4), torch.randn(6, 4))
    loss.backward()
    method.after_step()
    assert loss.dtype == torch.float32
    assert method.predictor.weight.isfinite().all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: predictor_weights(draw(2, 3)), "square"),
        (lambda: predictor_weights(torch.zeros(2, 2)), "positive eigenvalue"),
        (lambda: predictor_weights(torch.eye(2), form="other"), "form"),
        (lambda: predictor_weights(torch.eye(2), epsilon=-1.0), "epsilon"),
        (lambda: DirectPredictor(3, decay=2.0), "decay"),
        (lambda: DirectPredictor(3).update(draw(4, 2), draw(4, 2)), "z1"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
