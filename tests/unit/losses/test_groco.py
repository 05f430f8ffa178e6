"""Shvetsova et al. (2023): positives above negatives, by a differentiable sorting network."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.losses.groco import groco, group_order, soft_sort

VIEWS = draw(3, 8, 5)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_the_matrix_is_doubly_stochastic_and_sorts_what_it_sorts(n):
    x = draw(4, n)
    y, P = soft_sort(x)
    assert torch.allclose(P.sum(-1), torch.ones(4, n, dtype=torch.float64))
    assert torch.allclose(P.sum(-2), torch.ones(4, n, dtype=torch.float64))
    assert torch.allclose((x[:, None] @ P).squeeze(1), y)
    assert torch.allclose(y.sum(-1), x.sum(-1))


def test_a_steep_network_sorts():
    x = draw(4, 6)
    y, P = soft_sort(x, 1e9)
    assert torch.allclose(y, x.sort(-1).values, atol=1e-6)
    assert torch.allclose(P.argmax(-1), x.argsort(-1).argsort(-1))


def test_the_loop_over_single_comparators_gives_the_same():
    x, beta = draw(7), 2.0
    values, P = x.clone(), torch.eye(7, dtype=torch.float64)
    for layer in range(7):
        for a in range(layer % 2, 6, 2):
            keep = math.atan(beta * (values[a + 1] - values[a])) / math.pi + 0.5
            low, high = values[a].clone(), values[a + 1].clone()
            values[a], values[a + 1] = keep * low + (1 - keep) * high, (1 - keep) * low + keep * high
            left, right = P[:, a].clone(), P[:, a + 1].clone()
            P[:, a], P[:, a + 1] = keep * left + (1 - keep) * right, (1 - keep) * left + keep * right
    y, got = soft_sort(x, beta)
    assert torch.allclose(y, values) and torch.allclose(got, P)


def test_ties_favor_the_border_rows():
    _, P = soft_sort(torch.zeros(5, dtype=torch.float64))
    assert torch.allclose(P[0], torch.tensor([0.3125, 0.3125, 0.15625, 0.15625, 0.0625], dtype=torch.float64))


def test_one_positive_and_one_negative_have_a_closed_form():
    views = VIEWS[:2, :2]
    order = group_order(views[0], views[1:], views[0], top_negatives=1, steepness=3.0)
    gap = order.scores[:, 1] - order.scores[:, 0]
    assert torch.allclose(order.loss, -(0.5 + torch.arctan(3.0 * gap) / math.pi).log())


@pytest.mark.parametrize(("steepness", "floor"), [(1.0, 0.147), (10.0, 0.0148)])
def test_the_floor_of_the_loss(steepness, floor):
    x = torch.tensor([-1.0] * 10 + [1.0], dtype=torch.float64)
    _, P = soft_sort(x, steepness)
    rank = P[:, 10]
    loss = -(rank[10].log() + (1 - rank[:10]).log().sum()) / 11
    assert loss.item() == pytest.approx(floor, abs=0.0005)


def test_negatives_beyond_the_hardest_have_no_influence():
    order = group_order(VIEWS[0], VIEWS[1:], VIEWS[0], top_negatives=3)
    negatives = VIEWS[0].clone()
    unit = torch.nn.functional.normalize(VIEWS[0])
    far = (unit[0] @ unit.T).argmin()
    negatives[far] = -VIEWS[0][0]  # even farther from anchor 0
    moved = group_order(VIEWS[0], VIEWS[1:], negatives, top_negatives=3)
    assert torch.allclose(moved.loss[0], order.loss[0])


def test_gradient_pulls_positives_and_pushes_kept_negatives_at_steepness_one():
    generator = torch.Generator().manual_seed(0)
    for m in (1, 2, 3):
        x = 2 * torch.rand(500, 6 + m, generator=generator, dtype=torch.float64) - 1
        x = torch.cat([x[:, :6].sort(1).values, x[:, 6:].sort(1).values], 1).requires_grad_()
        rank = soft_sort(x)[1][..., 6:].sum(-1)
        loss = -(1 - rank[:, :6]).log().sum() - rank[:, 6:].log().sum()
        (g,) = torch.autograd.grad(loss, x)
        assert (g[:, :6] > 0).all() and (g[:, 6:] < 0).all()


def test_only_anchors_get_a_gradient():
    views = VIEWS.clone().requires_grad_()
    losses = groco(views, top_negatives=3)
    (g,) = torch.autograd.grad(losses[0], views)
    assert g[0].any() and not g[1:].any()
    (g,) = torch.autograd.grad(groco(views, top_negatives=3, stop_gradient=False)[0], views)
    assert g[1:].any()


def test_permuting_images_or_positives_and_scaling_rows_change_nothing():
    loss = groco(VIEWS, top_negatives=3).mean()
    order = torch.tensor([3, 1, 5, 0, 4, 2, 7, 6])
    scale = torch.rand(3, 8, 1, dtype=torch.float64) + 0.5
    for other in (VIEWS[:, order], VIEWS[[0, 2, 1]], scale * VIEWS):
        assert torch.allclose(groco(other, top_negatives=3).mean(), loss)
    views = VIEWS.clone().requires_grad_()
    (g,) = torch.autograd.grad(groco(views, top_negatives=3).mean(), views)
    assert torch.allclose((g * VIEWS).sum(-1), torch.zeros(3, 8, dtype=torch.float64), atol=1e-12)


def test_multi_crop_uses_the_first_views_as_positives():
    losses = groco(VIEWS, top_negatives=3, positive_views=2)
    third = group_order(VIEWS[2], VIEWS[:2], VIEWS[2], top_negatives=3).loss.mean()
    assert torch.allclose(losses[2], third)


def test_gradcheck():
    assert torch.autograd.gradcheck(
        lambda v: groco(v, top_negatives=3, stop_gradient=False).mean(), (VIEWS.clone().requires_grad_(),)
    )


def test_training_lowers_the_loss_and_the_number_of_violated_pairs():
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)

    def batch():
        x = torch.randn(32, 10, generator=generator)
        return torch.stack([encoder(x + 0.5 * torch.randn(32, 10, generator=generator)) for _ in range(2)])

    def violated(views):
        scores = group_order(views[0], views[1:], views[0], top_negatives=10).scores
        return (scores[:, :10] > scores[:, 10:]).float().sum(1).mean().item()

    with torch.no_grad():
        before = violated(batch())
    losses = []
    for _ in range(200):
        loss = groco(batch()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = violated(batch())
    assert sum(losses[-20:]) < sum(losses[:20]) and after < 0.7 * before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: groco(VIEWS, top_negatives=8), "top_negatives=8"),
        (lambda: groco(VIEWS, top_negatives=0), "top_negatives"),
        (lambda: groco(VIEWS[:1], top_negatives=3), "views.*positive"),
        (lambda: groco(VIEWS, top_negatives=3, positive_views=4), "positive_views"),
        (lambda: groco(VIEWS[0], top_negatives=3), "views"),
        (lambda: soft_sort(VIEWS[0], 0.0), "steepness"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
