"""Keramati et al. (2024): push where labels are far and predictions near."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize, sup_con
from cl_teach.labels.conr import conr, disagreements, rarity_weights

F = draw(10, 4)
Y = torch.tensor([0.0, 1, 5, 6, 9], dtype=torch.float64).repeat(2)
GUESS = torch.tensor([0.2, 0.4, 0.9, 6.0, 1.0], dtype=torch.float64).repeat(2)
ETA = torch.tensor([1.0, 2, 0.5, 1, 3], dtype=torch.float64).repeat(2)


@pytest.mark.parametrize("released", [False, True])
def test_equals_the_loops(released):
    q, tau, window, e = normalize(F), 0.3, 1.0, 0.05
    total = 0.0
    for j in range(10):
        P = [i for i in range(10) if i != j and abs(Y[i] - Y[j]) <= window]
        N = [i for i in range(10) if abs(Y[i] - Y[j]) > window and abs(GUESS[i] - GUESS[j]) <= window]
        if not N:
            continue
        bottom = sum(math.exp(q[j] @ q[p] / tau) for p in P)
        bottom += sum(ETA[j] * math.exp(e * abs(Y[j] - Y[n])) * math.exp(q[j] @ q[n] / tau) for n in N)
        if released:
            bottom += 10 - len(P)
        total += ETA[j] * sum(-math.log(math.exp(q[j] @ q[p] / tau) / bottom) for p in P) / len(P)
    got = conr(F, Y, GUESS, ETA, tau, window=window, push_scale=e, released=released)
    assert got.item() == pytest.approx(float(total) / 10, rel=1e-12)


def test_perfect_predictions_give_exactly_zero_and_no_gradient():
    f = F.clone().requires_grad_()
    loss = conr(f, Y, Y.clone())
    loss.backward()
    assert loss.item() == 0 and not f.grad.any()


def test_constant_predictions_without_push_are_supcon_over_label_groups():
    labels = torch.tensor([0.0, 2, 4, 6, 8], dtype=torch.float64).repeat(2)
    got = conr(F, labels, torch.zeros(10, dtype=torch.float64), temperature=0.3, push_scale=0.0)
    assert torch.allclose(got, sup_con(F, (labels / 2).long(), 0.3))


def test_shifts_rotations_and_scales_change_nothing():
    R, scale = torch.linalg.qr(draw(4, 4, seed=3)).Q, torch.rand(10, 1, dtype=torch.float64) + 0.5
    base = conr(F, Y, GUESS, ETA)
    for other in (conr(F, Y + 7, GUESS - 3, ETA), conr(F @ R, Y, GUESS, ETA), conr(scale * F, Y, GUESS, ETA)):
        assert torch.allclose(other, base)


def test_loss_grows_with_the_push_and_more_than_in_proportion_to_the_weights():
    assert conr(F, Y, GUESS, push_scale=0.1) > conr(F, Y, GUESS, push_scale=0.01)
    assert conr(F, Y, GUESS, 2 * ETA) > 2 * conr(F, Y, GUESS, ETA)
    assert conr(F, Y, GUESS, ETA, released=True) > conr(F, Y, GUESS, ETA)


def test_predictions_only_select_and_other_rows_get_gradient():
    f, guess = F.clone().requires_grad_(), GUESS.clone().requires_grad_()
    conr(f, Y, guess, ETA).backward()
    anchors = disagreements(Y, GUESS).anchors
    assert guess.grad is None and not anchors.all() and f.grad[~anchors].any()
    assert torch.allclose((f.grad * F).sum(1), torch.zeros(10, dtype=torch.float64), atol=1e-12)


def test_a_temperature_where_plain_exponentials_overflow_stays_finite():
    f = F.float().requires_grad_()
    loss = conr(f, Y.float(), GUESS.float(), temperature=0.005)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(f.grad).all()


def test_half_precision_and_autocast_give_the_loss_of_single_precision():
    right = conr(F.float(), Y.float(), GUESS.float(), ETA.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conr(F.float(), Y.float(), GUESS.float(), ETA.float()), right)
    low = F.bfloat16().requires_grad_()
    loss = conr(low, Y.float(), GUESS.float(), ETA.float())
    loss.backward()
    assert loss.dtype == torch.float32 and torch.allclose(loss, right, rtol=0.02)
    assert torch.isfinite(low.grad).all()


def test_labels_of_several_dimensions_are_compared_by_their_distance():
    turn = torch.linalg.qr(draw(3, 3, seed=5)).Q
    flat = torch.stack([Y, torch.zeros(10).double(), torch.zeros(10).double()], 1)
    guess = torch.stack([GUESS, torch.zeros(10).double(), torch.zeros(10).double()], 1)
    assert torch.allclose(conr(F, flat @ turn, guess @ turn, ETA, window=1.5), conr(F, Y, GUESS, ETA, window=1.5))
    assert torch.allclose(conr(F, Y[:, None], GUESS[:, None], ETA), conr(F, Y, GUESS, ETA))
    labels = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.6, 0.8]])  # 5 and 1 from the first
    found = disagreements(labels, torch.zeros(3, 2), window=1.0)
    assert found.positives.tolist() == [[False, False, True], [False] * 3, [True, False, False]]
    assert found.negatives.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    weights = rarity_weights(torch.tensor([[0.0, 0.0]] * 4 + [[0.0, 1.0]]), power=1.0)
    assert torch.allclose(weights, torch.tensor([5 / 8] * 4 + [5 / 2]))


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda f: conr(f, Y, GUESS, ETA), (F.clone().requires_grad_(),))


def test_rarity_weights_are_larger_for_rare_labels_with_mean_one():
    labels = torch.cat([torch.zeros(90), torch.full((10,), 5.0)])
    weights = rarity_weights(labels)
    assert weights.mean().item() == pytest.approx(1, rel=1e-5)
    assert weights[-1].item() / weights[0].item() == pytest.approx(3, rel=1e-5)  # the root of nine


def test_training_with_the_regularizer_separates_rare_from_frequent_features():
    def run(beta):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        grid = torch.arange(0, 60, 2.0)
        counts = (120 * torch.exp(-(grid - 25).abs() / 7)).long().clamp_min(2)
        y = grid.repeat_interleave(counts)
        lift = torch.randn(10, 32, generator=generator)

        def inputs(values):
            waves = torch.stack([torch.sin(values * w) for w in (0.03, 0.05, 0.08, 0.11, 0.15, 0.2)], 1)
            return torch.tanh(torch.cat([waves, torch.randn(len(values), 4, generator=generator)], 1) @ lift)

        body, regressor = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU()), nn.Linear(16, 1)
        optimizer = torch.optim.Adam([*body.parameters(), *regressor.parameters()], lr=3e-3)
        losses = []
        for _ in range(250):
            rows = torch.randperm(len(y), generator=generator)[:64]
            x = inputs(y[rows])
            loss = (regressor(body(x)).squeeze(1) - y[rows]).abs().mean()
            if beta:
                views = torch.cat([x + 0.05 * torch.randn(x.shape, generator=generator) for _ in range(2)])
                features = body(views)
                guess = regressor(features).squeeze(1).detach()
                loss = loss + beta * conr(features, y[rows].repeat(2), guess)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            z = normalize(body(inputs(grid)))
        rare, frequent = (counts <= 3), (counts > 40)
        assert sum(losses[-20:]) < sum(losses[:20])
        return (z[rare] @ z[frequent].T).mean().item()

    assert run(4.0) < run(0.0) - 0.05


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: conr(F, Y[:4], GUESS), "labels"),
        (lambda: conr(F, Y, GUESS[:4]), "predictions"),
        (lambda: conr(F, Y, GUESS, 0 * ETA), "weights"),
        (lambda: conr(F, Y, GUESS, temperature=0.0), "temperature"),
        (lambda: conr(F, Y, GUESS, window=-1.0), "window"),
        (lambda: conr(F[:5], Y[:5] * 10, GUESS[:5]), "two views"),
        (lambda: conr(F, torch.stack([Y, Y], 1), GUESS), "predictions"),
        (lambda: rarity_weights(Y, bins=0), "bins"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
