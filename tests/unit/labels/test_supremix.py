"""Wu et al. (2023): mixtures that order the space."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from unit_helpers import draw

from cl_teach.core import normalize, sup_con
from cl_teach.labels.supremix import draw_shares, mixed_positives, supremix

Z = draw(8, 4)
Y = torch.tensor([0.0, 1, 2, 4], dtype=torch.float64).repeat(2)
SHARES = draw_shares(8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("mix_negatives", "window"), [(True, 5.0), (True, None), (False, 3.0), (False, None)])
def test_equals_the_loops(mix_negatives, window):
    z, tau, total = normalize(Z), 0.3, 0.0
    for i in range(8):
        P = [z[j] for j in range(8) if j != i and Y[j] == Y[i]]
        W = []
        if window is not None:
            for j in range(8):
                for k in range(8):
                    if Y[j] < Y[i] < Y[k] and Y[i] - Y[j] < window and Y[k] - Y[i] < window:
                        a = (Y[k] - Y[i]) / (Y[k] - Y[j])
                        W.append(a * z[j] + (1 - a) * z[k])
        bottom = sum((1 + abs(Y[i] - Y[j])) * math.exp(z[i] @ z[j] / tau) for j in range(8) if j != i)
        if mix_negatives:
            for k in range(8):
                if Y[k] != Y[i]:
                    lam = SHARES[i, k]
                    m = lam * z[i] + (1 - lam) * z[k]
                    bottom += (1 + (1 - lam) * abs(Y[i] - Y[k])) * math.exp(z[i] @ m / tau)
        bottom += sum(math.exp(z[i] @ p / tau) for p in W)
        total += sum(-math.log(math.exp(z[i] @ p / tau) / bottom) for p in P + W) / (len(P) + len(W))
    got = supremix(Z, Y, SHARES if mix_negatives else None, 0.3, window=window)
    assert got.item() == pytest.approx(float(total) / 8, rel=1e-12)


def test_one_label_only_is_supcon():
    same = torch.zeros(8, dtype=torch.float64)
    assert torch.allclose(supremix(Z, same, SHARES, 0.3, window=5.0), sup_con(Z, torch.zeros(8, dtype=torch.long), 0.3))


def test_a_share_of_zero_counts_every_negative_twice():
    doubled = supremix(Z, Y, torch.zeros(8, 8, dtype=torch.float64), 0.3, reduction="none")
    z = normalize(Z)
    s, gap = z @ z.T / 0.3, (Y[:, None] - Y[None, :]).abs()
    weight = (1 + gap) * torch.where(gap == 0, 1.0, 2.0)
    logits = (s + weight.log()).masked_fill(torch.eye(8, dtype=torch.bool), -math.inf)
    own = s[torch.arange(8), torch.arange(8).roll(4)]
    assert torch.allclose(doubled, logits.logsumexp(1) - own)


def test_mixed_positives_have_the_anchors_label_and_extremes_have_none():
    i, j, k, share = mixed_positives(Y, 10.0)
    assert torch.allclose(share * Y[j] + (1 - share) * Y[k], Y[i])
    assert not (Y[i] == Y.min()).any() and not (Y[i] == Y.max()).any()
    spaced = torch.tensor([0.0, 1.0, 2.0])
    assert mixed_positives(spaced, 1.5).share.tolist() == [0.5]
    assert len(mixed_positives(spaced, 1.0).anchor) == 0  # the window is strict


def test_mixtures_are_constants_and_the_gradient_is_orthogonal():
    z = Z.clone().requires_grad_()
    supremix(z, Y, SHARES, 0.3, window=5.0).backward()
    assert torch.allclose((z.grad * Z).sum(1), torch.zeros(8, dtype=torch.float64), atol=1e-12)
    assert torch.isfinite(z.grad).all()


def test_shifting_labels_changes_nothing_and_larger_gaps_cost_more():
    assert torch.allclose(supremix(Z, Y + 9, SHARES, window=5.0), supremix(Z, Y, SHARES, window=5.0))
    assert supremix(Z, 3 * Y) > supremix(Z, Y)


def test_gradcheck_without_mixtures():
    assert torch.autograd.gradcheck(lambda z: supremix(z, Y), (Z.clone().requires_grad_(),))


def test_a_small_temperature_stays_finite():
    z = Z.float().requires_grad_()
    loss = supremix(z, Y.float(), SHARES, 0.005, window=5.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_shares_have_the_mean_of_their_beta_distribution():
    a, b = (draw_shares(200, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(a, b)


def test_half_precision_and_autocast_give_the_loss_of_single_precision():
    z, y, shares = Z.float(), Y.float(), SHARES.float()
    right = supremix(z, y, shares, window=5.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(supremix(z, y, shares, window=5.0), right)
    for dtype in (torch.bfloat16, torch.float16):
        low = z.to(dtype).requires_grad_()
        loss = supremix(low, y, shares, window=5.0)
        loss.backward()
        assert loss.dtype == torch.float32 and torch.allclose(loss, right, rtol=0.02)
        assert low.grad.dtype == dtype and torch.isfinite(low.grad).all()


def test_training_orders_the_space_more_than_supcon_does():
    def run(use_mixtures):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        lift = torch.randn(8, 24, generator=generator)

        def inputs(values):
            waves = torch.stack([torch.sin(values * w) for w in (0.2, 0.4, 0.7, 1.1, 1.6)], 1)
            return torch.tanh(torch.cat([waves, 0.5 * torch.randn(len(values), 3, generator=generator)], 1) @ lift)

        net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 16))
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        kinds, losses = torch.tensor([0.0, 1, 2, 4, 5, 7, 8, 10]), []
        for _ in range(250):
            y = kinds[torch.randint(8, (12,), generator=generator)]
            z, labels = net(torch.cat([inputs(y), inputs(y)])), y.repeat(2)
            if use_mixtures:
                loss = supremix(z, labels, draw_shares(24, generator=generator), window=3.0)
            else:
                loss = sup_con(z, labels.long(), 0.3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-20:]) < sum(losses[:20])
        test = torch.arange(0, 10.5, 0.5)
        with torch.no_grad():
            z = normalize(net(inputs(test)))
        i, j = torch.triu_indices(len(test), len(test), offset=1)
        return spearmanr(1 - (z @ z.T)[i, j], (test[i] - test[j]).abs()).statistic

    assert run(True) > run(False) + 0.1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: supremix(Z, Y[:4]), "labels"),
        (lambda: supremix(Z, Y, SHARES[:4]), "shares"),
        (lambda: supremix(Z, Y, SHARES + 1), "shares"),
        (lambda: supremix(Z, Y, temperature=0.0), "temperature"),
        (lambda: supremix(Z[:4], Y[:4]), "two views"),
        (lambda: mixed_positives(Y, 0.0), "window"),
        (lambda: draw_shares(3, a=0.0), "a"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
