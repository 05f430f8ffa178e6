"""Wu et al. (2023): a second positive, made in feature space."""

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import info_nce, normalize, nt_xent, regression_loss
from cl_teach.losses.hallucinator import (
    Hallucinator,
    draw_ratio,
    hallucinated_moco,
    hallucinated_simclr,
    hallucinated_simsiam,
)

Q, K, QUEUE = draw(4, 5), normalize(draw(4, 5, seed=1)), draw(7, 5, seed=2)


class Identity(nn.Module):
    """Stands in for a network that returns its first argument."""

    def forward(self, query, key, ratio):
        return query


class Push(nn.Module):
    """Stands in for a network that returns the pushed query."""

    def forward(self, query, key, ratio):
        return (1 + ratio) * query - ratio * key


def make(dim=5):
    torch.manual_seed(0)
    return Hallucinator(dim).double()


def test_the_push_lowers_the_cosine_by_the_stated_amount():
    q, k = normalize(Q), K
    c = (q * k).sum(1)
    for r in (0.01, 0.1, 1.0):
        pushed = Push()(q, k, r)
        got = (normalize(pushed) * k).sum(1)
        assert torch.allclose(got, ((1 + r) * c - r) / (1 + 2 * r * (1 + r) * (1 - c)).sqrt())
        assert (got < c).all()
    assert torch.allclose(Push()(q, q, 0.5), q)


def test_repeating_the_query_gives_the_host_loss():
    loss, queries = hallucinated_moco(Identity(), Q, K, QUEUE, 0.1, 0.2)
    assert torch.allclose(loss, info_nce(Q, K, QUEUE, 0.2))
    assert torch.allclose(queries, normalize(Q).repeat(2, 1))


def test_simclr_rows_are_queries_hallucinations_and_keys_twice():
    network = make()
    h = network(Q, K, 0.05)
    assert torch.allclose(hallucinated_simclr(network, Q, K, 0.05), nt_xent(torch.cat([Q, h]), torch.cat([K, K]), 0.5))


def test_simsiam_is_symmetric_when_the_branches_are_equal_and_half_of_the_regression_loss():
    z = draw(4, 5, seed=3)
    loss = hallucinated_simsiam(Identity(), Q, Q, z, z, 0.0, 0.0)
    assert torch.allclose(loss, regression_loss(Q, z) / 2 - 1)
    assert -1 <= loss <= 1


def test_who_gets_a_gradient():
    network = make()
    q, k, queue = Q.clone().requires_grad_(), K.clone().requires_grad_(), QUEUE.clone().requires_grad_()
    hallucinated_moco(network, q, k, queue, 0.1)[0].backward()
    assert k.grad is None and queue.grad is None and network.network[0].weight.grad.any()
    hallucinated_simclr(network, q, k, 0.1).backward()
    assert k.grad.any()
    p1, p2, z = Q.clone().requires_grad_(), K.clone().requires_grad_(), draw(4, 5, seed=3).requires_grad_()
    hallucinated_simsiam(network, p1, p2, z, z, 0.1, 0.1).backward()
    assert p1.grad.any() and p2.grad.any() and z.grad is None


def test_gradcheck():
    network = make()
    assert torch.autograd.gradcheck(
        lambda q, k: hallucinated_simclr(network, q, k, 0.1), (Q.clone().requires_grad_(), K.clone().requires_grad_())
    )
    assert torch.autograd.gradcheck(
        lambda q: hallucinated_moco(network, q, K, QUEUE, 0.1)[0], (Q.clone().requires_grad_(),)
    )


def test_raw_keys_are_normalized_like_the_queue():
    network = make()
    assert torch.allclose(
        hallucinated_moco(network, Q, 7 * K, 3 * QUEUE, 0.1).loss, hallucinated_moco(network, Q, K, QUEUE, 0.1).loss
    )


def test_half_precision_embeddings_beside_a_wide_memory():
    network, q = make().float(), Q.bfloat16()
    exact = hallucinated_moco(network, q.float(), K.float(), QUEUE.float(), 0.1).loss
    with torch.autocast("cpu", torch.bfloat16):
        inside = hallucinated_moco(network, q, K.float(), QUEUE.float(), 0.1).loss
    outside = hallucinated_moco(network, q, K.float(), QUEUE.float(), 0.1).loss
    assert inside.dtype == outside.dtype == torch.float32
    assert torch.allclose(inside, exact, atol=0.05)
    assert torch.allclose(outside, exact, atol=0.05)


def test_a_single_image_works_in_moco():
    assert torch.isfinite(hallucinated_moco(make(), Q[:1], K[:1], QUEUE, 0.1)[0])


def test_ratio_lies_in_its_range_and_repeats_with_the_seed():
    draws = [draw_ratio(0.1, generator=torch.Generator().manual_seed(s)) for s in range(20)]
    assert all(0 <= r < 0.1 for r in draws) and len(set(draws)) == 20
    assert draw_ratio(generator=torch.Generator().manual_seed(3)) == draws[3]


def test_training_pulls_the_hallucination_toward_the_key():
    torch.manual_seed(0)
    network, generator = Hallucinator(8), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    queue = torch.randn(64, 8, generator=generator)
    cosines, losses = [], []
    for _ in range(200):
        k = normalize(torch.randn(32, 8, generator=generator))
        q = k + 0.2 * torch.randn(32, 8, generator=generator)
        loss, queries = hallucinated_moco(network, q, k, queue, 0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        cosines.append((queries[32:] * k).sum(1).mean().item())
    assert sum(losses[-20:]) < sum(losses[:20])
    assert cosines[-1] > 0.5 > abs(cosines[0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: make()(Q, K[:2], 0.1), "key"),
        (lambda: make()(Q, K, -0.1), "ratio"),
        (lambda: Hallucinator(0), "dim"),
        (lambda: hallucinated_moco(make(), Q, K, QUEUE[:, :3], 0.1), "queue"),
        (lambda: hallucinated_moco(make(), Q, K, QUEUE, 0.1, 0.0), "temperature"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
