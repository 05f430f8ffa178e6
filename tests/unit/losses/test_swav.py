"""Caron et al. (2020): codes that spread evenly, predicted from the other view."""

import copy
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize, sinkhorn
from cl_teach.losses.swav import SwAV, push_front, swav

VIEWS, C = draw(4, 6, 5), normalize(draw(7, 5, seed=1))
SCORES = normalize(VIEWS[0]) @ C.T


def test_codes_equal_the_plain_iteration():
    Q = (SCORES / 0.05).exp().T
    Q = Q / Q.sum()
    for _ in range(3):
        Q = Q / Q.sum(1, keepdim=True) / 7
        Q = Q / Q.sum(0, keepdim=True) / 6
    assert torch.allclose(sinkhorn(SCORES), (Q * 6).T)


@pytest.mark.parametrize("iterations", [1, 3, 50])
def test_samples_sum_to_one_exactly_and_prototypes_in_the_limit(iterations):
    q = sinkhorn(SCORES, 0.5, iterations)
    assert torch.allclose(q.sum(1), torch.ones(6, dtype=torch.float64))
    error = (q.sum(0) - 6 / 7).abs().max()
    assert error < (1e-8 if iterations == 50 else 1.0)


def test_a_shift_of_one_sample_or_prototype_is_ignored_at_convergence_only():
    shift = torch.zeros(6, 7, dtype=torch.float64)
    shift[2] += 0.3
    shift[:, 4] -= 0.2
    assert torch.allclose(sinkhorn(SCORES + shift, 0.5, 300), sinkhorn(SCORES, 0.5, 300))
    assert not torch.allclose(sinkhorn(SCORES + shift, 0.5, 1), sinkhorn(SCORES, 0.5, 1))


def test_large_entropy_makes_codes_uniform_and_small_entropy_nearly_hard():
    assert torch.allclose(sinkhorn(SCORES, 1e6), torch.full((6, 7), 1 / 7, dtype=torch.float64), atol=1e-5)
    strong = 4 * torch.eye(6, dtype=torch.float64)
    assert torch.allclose(sinkhorn(strong, 0.1, 20), torch.eye(6, dtype=torch.float64), atol=1e-6)


def test_an_epsilon_where_the_plain_exponential_overflows_stays_finite():
    q = sinkhorn(SCORES.float(), 0.005)
    assert torch.isfinite(q).all() and torch.allclose(q.sum(1), torch.ones(6))


def test_identical_samples_get_identical_codes_and_zero_scores_the_loss_log_k():
    same = SCORES.clone()
    same[1] = same[0]
    q = sinkhorn(same)
    assert torch.allclose(q[0], q[1])
    flat = torch.zeros(7, 5, dtype=torch.float64)
    assert swav(VIEWS, flat).loss.item() == pytest.approx(math.log(7))


def test_loss_equals_the_loops():
    z = normalize(VIEWS)
    expected = 0.0
    for a in (0, 1):
        q = sinkhorn(z[a] @ C.T)
        for v in range(4):
            if v != a:
                expected += -(q * torch.log_softmax(z[v] @ C.T / 0.1, 1)).sum(1).mean() / (2 * 3)
    result = swav(VIEWS, C)
    assert torch.allclose(result.loss, expected)
    entropy = torch.special.entr(result.codes).sum(-1).mean()
    assert result.loss >= entropy


def test_swapping_the_two_full_crops_changes_nothing():
    assert torch.allclose(swav(VIEWS[[1, 0]], C).loss, swav(VIEWS[:2], C).loss)


def test_codes_are_constants_for_the_gradient():
    z, c = VIEWS[:2].clone().requires_grad_(), C.clone().requires_grad_()
    result = swav(z, c)
    g = torch.autograd.grad(result.loss, [z, c])
    z2, c2 = VIEWS[:2].clone().requires_grad_(), C.clone().requires_grad_()
    log_p = (normalize(z2) @ c2.T / 0.1).log_softmax(-1)
    frozen = -((result.codes[0] * log_p[1]).sum(1).mean() + (result.codes[1] * log_p[0]).sum(1).mean()) / 2
    expected = torch.autograd.grad(frozen, [z2, c2])
    assert all(torch.allclose(a, b) for a, b in zip(g, expected, strict=True))


def test_small_crops_produce_no_codes():
    changed = VIEWS.clone()
    changed[2:] = draw(2, 6, 5, seed=9)
    assert torch.equal(swav(changed, C).codes, swav(VIEWS, C).codes)


def test_a_queue_is_used_once_its_last_row_is_filled():
    empty = torch.zeros(2, 8, 5, dtype=torch.float64)
    assert torch.equal(swav(VIEWS, C, queue=empty).codes, swav(VIEWS, C).codes)
    full = normalize(draw(2, 8, 5, seed=4))
    got = swav(VIEWS, C, queue=full).codes[0]
    expected = sinkhorn(torch.cat([full[0] @ C.T, SCORES]))[-6:]
    assert torch.allclose(got, expected) and not torch.allclose(got, swav(VIEWS, C).codes[0])


def test_pushing_puts_the_batch_in_front_and_drops_the_oldest():
    queue = torch.arange(5.0)[:, None]
    assert push_front(queue, torch.tensor([[9.0], [8.0]])).flatten().tolist() == [9, 8, 0, 1, 2]


def test_equipartition_prevents_the_collapse_that_a_softmax_code_allows():
    def run(code):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        encoder = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        method = SwAV(8, 10)
        optimizer = torch.optim.Adam([*encoder.parameters(), *method.parameters()], lr=3e-3)
        for _ in range(300):
            x = torch.randn(64, 8, generator=generator)
            views = torch.stack([encoder(x + 0.1 * torch.randn(64, 8, generator=generator)) for _ in range(2)])
            if code == "sinkhorn":
                loss = method(views)
            else:
                scores = normalize(views) @ method.prototypes.T
                q = (scores.detach() / 0.05).softmax(-1)
                log_p = (scores / 0.1).log_softmax(-1)
                loss = -((q[0] * log_p[1]).sum(1).mean() + (q[1] * log_p[0]).sum(1).mean()) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
        with torch.no_grad():
            scores = normalize(encoder(torch.randn(512, 8, generator=generator))) @ normalize(method.prototypes).T
            usage = (scores / 0.05).softmax(-1).mean(0)
        return torch.special.entr(usage).sum().item() / math.log(10)

    assert run("sinkhorn") > 0.9
    assert run("softmax") < 0.5


def test_the_module_keeps_prototypes_on_the_sphere_and_fills_its_queue():
    method = SwAV(5, 7, queue_size=8).double()
    with torch.no_grad():
        method.prototypes.mul_(3)
    unit = normalize(method.prototypes.detach())
    assert torch.allclose(method(VIEWS), swav(VIEWS, unit).loss)
    method.after_step()
    assert torch.allclose(method.prototypes.norm(dim=1), torch.ones(7, dtype=torch.float64))
    assert torch.allclose(method.queue[0, :6], normalize(VIEWS[0])) and not method.queue[0, -1].any()


def test_evaluation_and_no_grad_change_nothing():
    method = SwAV(5, 7, queue_size=8).double()
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        method(VIEWS)
    method.eval()
    method(VIEWS)
    method.after_step()
    for name, value in method.state_dict().items():
        assert torch.allclose(value, before[name])


def test_two_calls_before_one_backward_have_the_gradient_of_the_sum():
    method = SwAV(5, 7, queue_size=20).double()
    (method(VIEWS) + method(VIEWS.flip(1))).backward()
    both = method.prototypes.grad.clone()
    method.prototypes.grad = None
    method(VIEWS).backward()
    method(VIEWS.flip(1)).backward()
    assert torch.allclose(method.prototypes.grad, both)


def test_a_loaded_method_continues_as_if_never_stopped():
    def make():
        torch.manual_seed(0)
        method = SwAV(5, 7, queue_size=12)
        return method, torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9)

    def train(method, optimizer, steps):
        for step in steps:
            loss = method(draw(2, 6, 5, seed=step).float())
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


def test_half_precision_crops():
    method = SwAV(5, 7, queue_size=6)
    exact = method(VIEWS.bfloat16().float())
    method.after_step()
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(VIEWS.bfloat16())
    loss.backward()
    method.after_step()
    assert exact.dtype == loss.dtype == torch.float32
    assert method.queue.isfinite().all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sinkhorn(SCORES, 0.0), "epsilon"),
        (lambda: sinkhorn(SCORES, iterations=0), "iterations"),
        (lambda: swav(VIEWS[:1], C), "to swap"),
        (lambda: swav(VIEWS, C[:, :3]), "prototypes"),
        (lambda: swav(VIEWS, C, assign=[0, 4]), "assign"),
        (lambda: swav(VIEWS, C, queue=torch.zeros(1, 8, 5)), "queue"),
        (lambda: push_front(C, draw(8, 5)), "features"),
        (lambda: SwAV(5, 0), "prototypes"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_the_gradient_by_hand_is_that_of_the_formula_and_can_be_differentiated():
    views, prototypes = VIEWS.clone().requires_grad_(), C.clone().requires_grad_()
    for assign in ((0, 1), (2,), (3, 0, 1, 2)):

        def loss(x, y, assign=assign):
            return 3 * swav(x, y, assign=assign).loss

        by_hand = torch.autograd.grad(loss(views, prototypes), (views, prototypes))
        seen = torch.autograd.grad(loss(views, prototypes), (views, prototypes), create_graph=True)
        transformed = torch.func.grad(loss, (0, 1))(VIEWS, C)
        for found, again, other in zip(by_hand, seen, transformed, strict=True):
            torch.testing.assert_close(found, again, rtol=1e-10, atol=1e-13)
            torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-13)
        curvature = torch.autograd.grad(seen[0].square().sum() + seen[1].sum(), views)[0]

        def from_gradients(x, loss=loss):
            of_views, of_prototypes = torch.func.grad(loss, (0, 1))(x, C)
            return of_views.square().sum() + of_prototypes.sum()

        torch.testing.assert_close(curvature, torch.func.grad(from_gradients)(VIEWS))
