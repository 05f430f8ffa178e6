"""Zhuo et al. (2023): whitening of shuffled groups before the contrast."""

import math

import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.evaluation import effective_rank, uniformity
from cl_teach.language.whitenedcse import (
    WhitenedCSE,
    draw_shuffles,
    dropout_views,
    group_whiten,
    inverse_square_root,
    one_to_many_contrast,
)

H = draw(12, 8) @ draw(8, 8, seed=1) + 3
ORDERS = draw_shuffles(3, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_equals_the_loops(groups):
    order, k = ORDERS[0].tolist(), 8 // groups
    expected = torch.zeros_like(H)
    for g in range(groups):
        channels = order[g * k : (g + 1) * k]
        x = torch.stack([H[:, c] - H[:, c].mean() for c in channels], 1)
        sigma = sum(torch.outer(row, row) for row in x) / len(x)
        root = torch.from_numpy(sqrtm(sigma.numpy()).real)
        y = torch.stack([torch.linalg.solve(root, row) for row in x])
        for p, c in enumerate(channels):
            expected[:, c] = y[:, p]
    assert torch.allclose(group_whiten(H, groups, ORDERS[0]), expected, rtol=1e-9)


def test_loss_equals_the_loops():
    method = WhitenedCSE(8, 2, temperature=0.3).double()
    views = [H + 0.3 * draw(12, 8, seed=s) for s in (2, 3, 4)]
    z = [normalize(torch.tanh(method.head(group_whiten(h, 2, o)))).detach() for h, o in zip(views, ORDERS, strict=True)]
    for v in (1, 2):
        total = 0.0
        for i in range(12):
            bottom = sum(math.exp(z[0][i] @ z[v][j] / 0.3) for j in range(12))
            total -= math.log(math.exp(z[0][i] @ z[v][i] / 0.3) / bottom)
        assert method.terms(views, ORDERS)[v - 1].item() == pytest.approx(total / 12, rel=1e-10)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_every_group_has_mean_zero_and_covariance_one(groups):
    y = group_whiten(H, groups, ORDERS[1])
    blocks = y[:, ORDERS[1]].unflatten(1, (groups, -1)).transpose(0, 1)
    eye = torch.eye(8 // groups, dtype=torch.float64).expand(groups, -1, -1)
    assert torch.allclose(blocks.mT @ blocks / 12, eye, atol=1e-10)
    assert y.mean(0).abs().max() < 1e-10
    assert y.square().sum().item() == pytest.approx(12 * 8)


def test_an_offset_and_a_scale_change_nothing():
    y = group_whiten(H, 2, ORDERS[0])
    assert torch.allclose(group_whiten(5 * H + draw(8, seed=9), 2, ORDERS[0]), y)
    scales = torch.linspace(0.1, 4, 8, dtype=torch.float64)
    assert torch.allclose(group_whiten(scales * H, 8, ORDERS[0]), group_whiten(H, 8, ORDERS[1]))
    assert not torch.allclose(group_whiten(scales * H, 2, ORDERS[0]), y)  # only single channels forget their scale


def test_one_group_rotates_along_and_ignores_the_shuffle():
    q, _ = torch.linalg.qr(draw(8, 8, seed=3))
    assert torch.allclose(group_whiten(H @ q, 1), group_whiten(H, 1) @ q)
    assert torch.allclose(group_whiten(H, 1, ORDERS[0]), group_whiten(H, 1))


def test_another_shuffle_is_another_view_between_the_extremes_only():
    def distance(groups):
        a, b = (normalize(group_whiten(H, groups, order)) for order in ORDERS[:2])
        return (a - b).square().sum(1).mean().item()

    assert distance(8) < 1e-20 and distance(1) < 1e-20
    assert distance(2) > 0.01 and distance(4) > 0.01
    assert torch.equal(group_whiten(H, 2, ORDERS[0]), group_whiten(H, 2, ORDERS[0]))


def test_identical_views_double_the_single_loss():
    assert torch.allclose(one_to_many_contrast([H, H, H], 0.3).sum(), 2 * info_nce(H, H, temperature=0.3))


def test_detached_gradient_is_the_centered_product_and_sums_to_zero():
    h = H.clone().requires_grad_()
    upstream = draw(12, 8, seed=5)
    (got,) = torch.autograd.grad(group_whiten(h, 1), h, upstream)
    x = H - H.mean(0)
    through = upstream @ inverse_square_root((x.T @ x / 12)[None])[0]
    assert torch.allclose(got, through - through.mean(0))
    assert got.sum(0).abs().max() < 1e-12


def test_the_constant_whitener_gives_a_different_gradient():
    h = H.clone().requires_grad_()
    upstream = draw(12, 8, seed=5)
    (cut,) = torch.autograd.grad(group_whiten(h, 2), h, upstream)
    (full,) = torch.autograd.grad(group_whiten(h, 2, detach=False), h, upstream)
    assert (cut - full).norm() > 0.1 * full.norm()
    assert abs((full * (H - H.mean(0))).sum()) < 1e-10 < abs((cut * (H - H.mean(0))).sum())  # scale has no effect


def test_gradcheck_through_the_whitener():
    h = draw(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: group_whiten(h, 2, detach=False, ridge=0.1), (h,))


def test_gradient_exists_where_all_eigenvalues_are_equal():
    white = group_whiten(H, 2)
    h = white.clone().requires_grad_()
    (got,) = torch.autograd.grad(group_whiten(h, 2, detach=False), h, draw(12, 8, seed=5))
    assert torch.isfinite(got).all() and got.norm() < 10
    near = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda m: inverse_square_root((m + m.mT) / 2), (near,))


def test_zero_vectors_duplicates_and_a_tiny_temperature_stay_finite_with_a_ridge():
    h = torch.cat([torch.zeros(3, 8), H.float()[:3].repeat(2, 1)]).requires_grad_()
    loss = WhitenedCSE(8, 2, temperature=0.005, ridge=1e-3, detach=False)([h, h, h])
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(h.grad).all()


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_under_autocast_and_in_half_precision_the_groups_are_as_white(offset):
    x = draw(256, 32, dtype=torch.float32) * torch.linspace(1, 9, 32) + offset
    eye = torch.eye(32)
    with torch.autocast("cpu", torch.bfloat16):
        white = group_whiten(x, 1)
    assert white.dtype == torch.float32 and (white.mT @ white / 256 - eye).abs().max() < 1e-2
    white = group_whiten(x.bfloat16(), 1)
    assert white.dtype == torch.float32 and (white.mT @ white / 256 - eye).abs().max() < 1e-2


def test_backward_through_the_whitener_works_inside_and_outside_autocast():
    x = draw(32, 8, dtype=torch.float32)
    grads = []
    for inside in (False, True):
        h = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = group_whiten(h, 2, ridge=1e-3, detach=False).pow(3).mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        grads.append(h.grad)
    assert (grads[0] - grads[1]).norm() < 0.02 * grads[0].norm()  # inside, torch multiplies in bfloat16


def test_the_head_may_be_in_half_precision_and_its_state_is_its_own():
    views = [draw(12, 8, seed=s, dtype=torch.bfloat16) for s in (2, 3)]
    method = WhitenedCSE(8, 2, ridge=1e-3).bfloat16()
    with torch.no_grad():
        loss = method.eval()(views)
    assert torch.isfinite(loss)
    fresh = WhitenedCSE(8, 2, ridge=1e-3).bfloat16()
    fresh.load_state_dict(method.state_dict())
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    one, other = (m(views, generator=g) for m, g in zip((method, fresh), generators, strict=True))
    assert torch.equal(one, other)


def test_dropout_views_differ_only_in_training():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).double()
    a, b, _ = dropout_views(net, H)
    assert not torch.allclose(a, b)
    a, b = dropout_views(net.eval(), H, 2)
    assert torch.equal(a, b)


def test_no_loss_behind_the_whitening_moves_the_common_offset():
    encoder = nn.Linear(8, 8).double()
    WhitenedCSE(8, 2).double()(dropout_views(encoder, H)).backward()
    assert encoder.bias.grad.abs().max() < 1e-10 < encoder.weight.grad.abs().max()


def test_training_with_whitening_keeps_more_directions_and_leaves_the_offset():
    generator = torch.Generator().manual_seed(0)
    words = torch.multinomial(1 / torch.arange(1, 513).expand(1024, -1), 10, replacement=True, generator=generator)
    data = torch.zeros(1024, 512).scatter_add_(1, words, torch.ones(1024, 10))  # word counts of Zipf sentences

    def run(whiten):
        torch.manual_seed(0)
        layers = [nn.Dropout(0.5), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32)]
        encoder, method = nn.Sequential(*layers), WhitenedCSE(32, 8, ridge=1e-4)
        optimizer = torch.optim.Adam([*encoder.parameters(), *method.parameters()], lr=3e-3)
        losses = []
        for _ in range(150):
            views = dropout_views(encoder, data[torch.randperm(824)[:64]])
            if whiten:
                loss = method(views)
            else:
                loss = one_to_many_contrast([torch.tanh(method.head(h)) for h in views]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) < 0.6 * sum(losses[:20])
        with torch.no_grad():
            features = encoder.eval()(data[824:])
        return float(effective_rank(features)), float(uniformity(features))

    (rank, spread), (plain_rank, plain_spread) = run(True), run(False)
    assert rank > plain_rank + 1
    assert spread > plain_spread + 0.1  # only the plain loss sees, and removes, what all sentences share


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: group_whiten(H.long(), 2), TypeError, "features"),
        (lambda: group_whiten(H, 3), ValueError, "groups"),
        (lambda: group_whiten(H[:4], 2), ValueError, "features.*at least 5 rows"),
        (lambda: group_whiten(H, 2, torch.zeros(8, dtype=torch.long)), ValueError, "shuffle"),
        (lambda: group_whiten(H, 2, ridge=-1.0), ValueError, "ridge"),
        (lambda: group_whiten(torch.ones(12, 8), 2), ValueError, "full rank"),
        (lambda: inverse_square_root(draw(1, 2, 3)), ValueError, "matrix"),
        (lambda: one_to_many_contrast([H]), ValueError, "embeddings"),
        (lambda: one_to_many_contrast([H, H[:4]]), ValueError, "embeddings"),
        (lambda: WhitenedCSE(8, 3), ValueError, "groups"),
        (lambda: WhitenedCSE(8, 2, temperature=0.0), ValueError, "temperature"),
        (lambda: WhitenedCSE(8, 2).double().terms([H, H], ORDERS), ValueError, "shuffles"),
        (lambda: dropout_views(nn.Identity(), H, 1), ValueError, "views"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
