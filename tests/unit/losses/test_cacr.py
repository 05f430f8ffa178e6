"""Zheng et al. (2023): positives among positives, negatives among negatives."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.losses.cacr import cacr, cacr_moco, cacr_momentum, cacr_terms, squared_distance

VIEWS = draw(4, 6, 5)


def test_equals_the_loops():
    z, V, N, tp, tn = normalize(VIEWS), 4, 6, 1.3, 0.7

    def c(a, b):
        return ((a - b) ** 2).sum()

    pull = push = 0.0
    for x in range(V):
        for i in range(N):
            costs = torch.stack([c(z[x, i], z[m, i]) for m in range(V) if m != x])
            pull += (torch.softmax(tp * costs, 0) * costs).sum() / (V * N)
    pairs = [(x, y) for x in range(V) for y in range(x + 1, V)]
    for x, y in pairs:
        for i in range(N):
            costs = torch.stack([c(z[x, i], z[y, j]) for j in range(N) if j != i])
            push += (torch.softmax(-tn * costs, 0) * costs).sum() / (len(pairs) * N)
    got = cacr_terms(VIEWS, positive_sharpness=tp, negative_sharpness=tn, alpha=2.0, beta=3.0)
    assert torch.allclose(got.attraction, 2 * pull)
    assert torch.allclose(got.repulsion, -3 * push)


def test_without_sharpness_both_are_plain_means():
    terms = cacr_terms(VIEWS, positive_sharpness=0, negative_sharpness=0)
    assert torch.allclose(terms.positive_weights.amax(-1), torch.full((4, 6), 1 / 3, dtype=torch.float64))
    assert torch.allclose(terms.negative_weights.amax(-1), torch.full((4, 4, 6), 1 / 5, dtype=torch.float64))


def test_both_terms_grow_with_sharpness():
    attraction = [cacr_terms(VIEWS, positive_sharpness=t).attraction for t in (0, 0.5, 1, 2, 50)]
    repulsion = [cacr_terms(VIEWS, negative_sharpness=t).repulsion for t in (0, 0.5, 1, 2, 50)]
    assert attraction == sorted(attraction) and repulsion == sorted(repulsion)


def test_extreme_sharpness_looks_at_the_farthest_positive_and_the_closest_negative():
    z = normalize(VIEWS)
    terms = cacr_terms(VIEWS, positive_sharpness=1e4, negative_sharpness=1e4)
    among = squared_distance(z.transpose(0, 1), z.transpose(0, 1))
    assert torch.allclose(terms.attraction, among.amax(-1).mean())
    closest = squared_distance(z[0], z[1]).masked_fill(torch.eye(6, dtype=torch.bool), math.inf).amin(-1)
    assert torch.allclose((terms.negative_weights[0, 1] * squared_distance(z[0], z[1])).sum(-1), closest)


def test_negative_weights_are_info_nce_weights_at_half_the_inverse_sharpness():
    z = normalize(VIEWS)
    weights = cacr_terms(VIEWS, negative_sharpness=2.0).negative_weights[0, 1]
    s = (z[0] @ z[1].T / 0.25).masked_fill(torch.eye(6, dtype=torch.bool), -math.inf)
    assert torch.allclose(weights, s.softmax(1))


def test_two_views_leave_one_positive_whatever_the_sharpness():
    pair = VIEWS[:2]
    assert torch.allclose(
        cacr_terms(pair, positive_sharpness=9).attraction, cacr_terms(pair, positive_sharpness=0).attraction
    )


def test_a_collapsed_batch_has_loss_zero_and_a_finite_gradient():
    views = torch.ones(3, 4, 5, requires_grad=True)
    loss = cacr(views)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(views.grad).all()


def test_order_of_views_matters_for_repulsion_only():
    order = torch.tensor([2, 0, 3, 1])
    a, b = cacr_terms(VIEWS), cacr_terms(VIEWS[order])
    assert torch.allclose(a.attraction, b.attraction)
    assert not torch.allclose(a.repulsion, b.repulsion)


def test_the_momentum_variant_with_one_query_is_a_multiple_of_info_nce():
    q, k = draw(6, 5), draw(6, 5, seed=1)
    loss, weights = cacr_momentum(q[None], k, 0.2)
    assert torch.allclose(loss, 0.4 * info_nce(q, k, temperature=0.2))
    assert torch.equal(weights, torch.ones(6, 1, dtype=torch.float64))


def test_the_momentum_variant_holds_key_and_weights_constant():
    q, k = draw(3, 6, 5).requires_grad_(), draw(6, 5, seed=1).requires_grad_()
    loss, weights = cacr_momentum(q, k, 0.5)
    loss.backward()
    assert k.grad is None and not weights.requires_grad


def test_gradcheck():
    assert torch.autograd.gradcheck(cacr, (VIEWS.clone().requires_grad_(),))


@pytest.mark.parametrize("in_batch", [True, False])
def test_with_a_queue_equals_the_loops(in_batch):
    keys, queue = draw(4, 6, 5, seed=1), draw(9, 5, seed=2)
    q, k, n = normalize(VIEWS), normalize(keys), normalize(queue)

    def c(a, b):
        return ((a - b) ** 2).sum()

    pull = push = 0.0
    for x in range(4):
        for i in range(6):
            costs = torch.stack([c(q[x, i], k[m, i]) for m in range(4) if m != x])
            pull += (torch.softmax(1.3 * costs, 0) * costs).sum() / 24
            others = [q[x, j] for j in range(6) if j != i and in_batch]
            costs = torch.stack([c(q[x, i], row) for row in [*n, *others]])
            push += (torch.softmax(-0.7 * costs, 0) * costs).sum() / 24
    settings = {"positive_sharpness": 1.3, "negative_sharpness": 0.7, "alpha": 1.5, "beta": 0.5}
    assert torch.allclose(cacr_moco(VIEWS, keys, queue, **settings, in_batch=in_batch), 1.5 * pull - 0.5 * push)


def test_with_a_queue_only_the_queries_get_a_gradient():
    rows = [x.clone().requires_grad_() for x in (VIEWS, draw(4, 6, 5, seed=1), draw(9, 5, seed=2))]
    cacr_moco(*rows).backward()
    assert rows[0].grad.any()
    assert rows[1].grad is None
    assert rows[2].grad is None
    free = VIEWS.clone().requires_grad_()  # without the batch all weights are constants: pull and push along the rows
    cacr_moco(free, rows[1], rows[2], positive_sharpness=0, negative_sharpness=0, in_batch=False).backward()
    assert free.grad.isfinite().all()


def test_half_precision_views_beside_a_wide_queue():
    views, keys, queue = VIEWS.bfloat16(), draw(4, 6, 5, seed=1).float(), draw(9, 5, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(cacr(views), cacr(views.float()))
        assert torch.allclose(cacr_moco(views, keys, queue), cacr_moco(views.float(), keys, queue))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cacr(VIEWS[:1]), "views.*to have a positive"),
        (lambda: cacr(VIEWS[:, :1]), "to have a negative"),
        (lambda: cacr(VIEWS[0]), "views"),
        (lambda: cacr(VIEWS, positive_sharpness=-1), "positive_sharpness"),
        (lambda: cacr(VIEWS, beta=0), "beta"),
        (lambda: cacr_momentum(VIEWS, VIEWS[0, :3]), "key"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
