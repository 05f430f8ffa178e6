"""InfoNCE against a queue in one pass, against the plain formula."""

import math

import pytest
import torch

from cl_teach.core import against_queue as module
from cl_teach.core import info_nce, tiling
from cl_teach.core.against_queue import against_queue, is_queue


def draw(n=6, k=11, d=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    query, positive, negatives = (torch.randn(m, d, generator=generator, dtype=torch.float64) for m in (n, n, k))
    return query.to(dtype).requires_grad_(), positive.to(dtype), negatives.to(dtype)


@pytest.mark.parametrize("keys", [1, 4, 512])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.025, 0.01])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_value_and_gradient_are_those_of_the_plain_formula(monkeypatch, keys, temperature, reduction):
    monkeypatch.setattr(module, "CPU_KEYS", keys)
    query, positive, negatives = draw()
    found = info_nce(query, positive, negatives, temperature, reduction=reduction)
    with tiling(None):
        wanted = info_nce(query, positive, negatives, temperature, reduction=reduction)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    (a,), (b,) = (torch.autograd.grad(3 * loss.sum(), query) for loss in (found, wanted))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_it_is_taken_where_keys_and_temperature_are_constants():
    query, positive, negatives = draw()
    assert is_queue(positive, negatives, 0.1)
    assert is_queue(positive, negatives, torch.tensor(0.1))
    assert not is_queue(positive, negatives, torch.tensor(0.1, requires_grad=True))
    assert not is_queue(query, negatives, 0.1)
    assert not is_queue(positive, negatives.clone().requires_grad_(), 0.1)
    assert not is_queue(positive, negatives, 0.02)  # exponentials would leave float32
    assert not is_queue(positive, negatives.expand(6, -1, -1), 0.1)  # negatives of each query
    with tiling(None):
        assert not is_queue(positive, negatives, 0.1)


def test_the_gradient_can_be_differentiated():
    query, positive, negatives = draw()
    assert torch.autograd.gradcheck(lambda q: against_queue(q, positive, negatives, 5.0), query)
    assert torch.autograd.gradgradcheck(lambda q: against_queue(q, positive, negatives, 5.0), query)


def test_new_keys_may_come_before_the_backward_pass():
    query, positive, queue = draw()
    expected = torch.autograd.grad(info_nce(query, positive, queue, 0.1), query)
    loss = info_nce(query, positive, queue, 0.1)
    queue.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, query, retain_graph=True), expected)
    with pytest.raises(RuntimeError, match="changed in place"):
        torch.autograd.grad(loss, query, create_graph=True)


def test_a_pair_that_is_as_good_as_right_has_as_small_a_loss_as_float32_can_say():
    query = torch.eye(3, 8)
    exact = math.log1p(5 * math.exp(-30))
    loss = info_nce(query, query, torch.eye(8)[3:], 1 / 30)
    assert loss.item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("which", ["query", "positive", "negatives"])
def test_what_is_not_finite_is_named(which):
    values = dict(zip(("query", "positive", "negatives"), (x.detach() for x in draw()), strict=True))
    values[which][1, 2] = math.nan
    with pytest.raises(ValueError, match=f"^{which}: expected finite numbers"):
        info_nce(**values)


def test_half_precision_keys_and_queries():
    query, positive, negatives = draw(dtype=torch.bfloat16)
    loss = info_nce(query, positive, negatives.float(), 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert query.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, info_nce(query.float(), positive.float(), negatives.float(), 0.1))
