"""Moskovitz et al. (2024): rewards kept at thresholds by multipliers."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.constrained_rlhf import (
    ConstrainedPPO,
    Multipliers,
    ProxyBandit,
    advantages_and_returns,
    clipped_policy_loss,
    mixed_advantages,
    multiplier_loss,
    reward_to_go,
    score_thresholds,
    squash,
    value_loss,
    violations,
)
from cl_teach.core.search import first_simplex, nelder_mead
from cl_teach.models.language_model import LanguageModel

CONSTRAINTS, KL, OLD = draw(6, 2), draw(6, seed=1), draw(6, seed=2)
POINT = torch.tensor([0.6, 0.65])


def test_mixed_advantages_equal_their_loop():
    weights = torch.tensor([0.4, -0.7]).double()
    found = mixed_advantages(CONSTRAINTS, KL, weights)

    def standardized(column):
        mean = sum(column) / 6
        return [(x - mean) / math.sqrt(sum((y - mean) ** 2 for y in column) / 5) for x in column]

    first, second, last = (standardized(c.tolist()) for c in (*CONSTRAINTS.mT, KL))
    for b in range(6):
        expected = (2 - 0.4 + 0.7) * last[b] + 0.4 * first[b] - 0.7 * second[b]
        assert found[b].item() == pytest.approx(expected, rel=1e-6)


def test_weights_of_zero_leave_the_reference_and_weights_of_one_the_rewards():
    zero, one = (mixed_advantages(CONSTRAINTS, KL, torch.full((2,), w).double()) for w in (0.0, 1.0))
    assert torch.allclose(zero, 2 * (KL - KL.mean()) / KL.std(), atol=1e-6)
    assert torch.allclose(one, ((CONSTRAINTS - CONSTRAINTS.mean(0)) / CONSTRAINTS.std(0)).sum(1), atol=1e-6)


def test_shift_and_scale_of_a_channel_change_nothing():
    weights = torch.tensor([0.4, -0.7]).double()
    scaled = mixed_advantages(CONSTRAINTS * torch.tensor([3.0, 0.2]) - 5, 9 * KL + 1, weights)
    assert torch.allclose(scaled, mixed_advantages(CONSTRAINTS, KL, weights), atol=1e-6)


def test_a_fresh_policy_has_minus_the_advantage_as_gradient_and_clipped_tokens_have_none():
    log_p = OLD.clone().requires_grad_()
    gain = torch.tensor([1.0, -2.0, 3.0, -1.0, 0.5, 0.25]).double()
    (fresh,) = torch.autograd.grad(clipped_policy_loss(log_p, OLD, gain), log_p)
    assert torch.allclose(fresh, -gain / 6)
    moved = (OLD + torch.tensor([0.3, -0.3, -0.3, 0.3, 0.1, -0.1])).requires_grad_()
    (late,) = torch.autograd.grad(clipped_policy_loss(moved, OLD, gain), moved)
    assert (late[:2] == 0).all()  # already too far in the right direction
    assert torch.allclose(late[2:], -gain[2:] * (moved - OLD).exp()[2:] / 6)


def test_gradients_are_right():
    log_p, values = (OLD + 0.1 * draw(6, seed=5)).requires_grad_(), draw(6, 3, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clipped_policy_loss(x, OLD, KL), log_p)
    assert torch.autograd.gradcheck(lambda x: value_loss(x, CONSTRAINTS, KL), values)
    raw = draw(2, seed=7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: multiplier_loss(x, draw(2, seed=8), "equality"), raw)


def test_advantages_equal_their_double_sum():
    rewards, values = draw(2, 5, 3), draw(2, 5, 3, seed=1)
    advantages, returns = advantages_and_returns(rewards, values, 0.9, 0.8)
    for t in range(5):
        expected = 0.0
        for later in range(t, 5):
            following = values[:, later + 1] if later < 4 else 0.0
            expected = expected + 0.72 ** (later - t) * (rewards[:, later] + 0.9 * following - values[:, later])
        assert torch.allclose(advantages[:, t], expected)
    assert torch.allclose(returns, advantages + values)
    full, _ = advantages_and_returns(rewards, values, 1.0, 1.0)
    assert torch.allclose(full + values, reward_to_go(rewards))


def test_rewards_at_the_end_are_the_reward_to_go_of_every_token():
    rewards = torch.zeros(4, 5, 2).double()
    rewards[:, -1] = draw(4, 2)
    assert torch.allclose(reward_to_go(rewards).flatten(0, 1).mean(0), draw(4, 2).mean(0))


@pytest.mark.parametrize("kind", ["equality", "inequality"])
def test_multipliers_rise_below_the_threshold_rest_at_it_and_fall_above(kind):
    multipliers = Multipliers(torch.tensor([0.5, 0.5, 0.5]), kind, initial=torch.zeros(3), momentum=0.0)
    before = multipliers()
    violation = multipliers.update(torch.tensor([[0.2, 0.5, 0.9], [0.4, 0.5, 0.7]]))
    assert torch.allclose(violation, torch.tensor([-0.2, 0.0, 0.3]))
    change = multipliers() - before
    assert change[0] > 0 and change[1] == 0 and change[2] < 0


def test_only_equalities_have_negative_weights_and_the_bound_holds():
    for kind, low in (("equality", -1.0), ("inequality", 0.0)):
        multipliers = Multipliers(torch.zeros(1), kind, learning_rate=10.0)
        for _ in range(200):
            multipliers.update(torch.tensor([[9.0]]))
        assert multipliers.raw.item() == -5
        assert low < multipliers().item() < 0.3
        assert (multipliers().item() < 0) == (kind == "equality")


def test_one_draw_starts_all_multipliers():
    torch.manual_seed(0)
    raw = Multipliers(torch.zeros(4)).raw
    assert (raw == raw[0]).all() and 0 < raw[0].abs() < 0.1


def train(kind, seed=0):
    torch.manual_seed(seed)
    multipliers = None if kind is None else Multipliers(POINT, kind, learning_rate=0.05, momentum=0.0)
    bandit = ProxyBandit(torch.rand(60), multipliers)
    start, gold = bandit.step(), []
    for _ in range(1200):
        end = bandit.step()
        gold.append(bandit.gold())
    return start, end, gold


def test_fixed_weights_run_past_the_point_where_the_gold_score_is_best():
    start, end, gold = train(None)
    assert end.loss < start.loss - 1
    assert max(gold) > 0.7 and gold[-1] < 0.01
    assert (end.rewards > 0.9).all()


@pytest.mark.parametrize("kind", ["equality", "inequality"])
def test_constraints_keep_the_rewards_near_their_thresholds(kind):
    _, end, gold = train(kind)
    assert gold[-1] > 0.7
    assert (end.rewards - POINT).abs().max() < 0.1
    assert (end.weights[1] < 0) == (kind == "equality")  # the second proxy overshoots with the first


def proxies(tokens):
    first = (tokens == 1).float().mean(1)
    return torch.stack([first, first + (tokens == 2).float().mean(1)], dim=1)


def test_a_language_model_is_held_at_its_thresholds_and_runs_off_without_them():
    thresholds, means = torch.tensor([0.4, 0.5]), []
    for settings in ({}, {"initial": torch.full((2,), 4.0), "learning_rate": 1e-9}):  # the second: weights stay near 1
        torch.manual_seed(0)
        multipliers = Multipliers(thresholds, "inequality", **settings)
        generator = torch.Generator().manual_seed(0)
        method = ConstrainedPPO(LanguageModel(8, 16), 16, proxies, multipliers, generator=generator)
        rounds = [method.step() for _ in range(60)]
        means.append(torch.stack([r.rewards for r in rounds[20:]]).mean(0))
        assert (rounds[0].rewards < thresholds - 0.1).all() and abs(rounds[0].divergence) < 1e-5
        assert rounds[-1].divergence > 0.2
    assert (means[0] - thresholds).abs().max() < 0.2
    assert (means[1] > 0.9).all()


def test_the_search_trains_on_and_stops_early_at_the_thresholds():
    torch.manual_seed(0)
    multipliers = Multipliers(POINT, "equality", learning_rate=0.05, momentum=0.0)
    bandit = ProxyBandit(torch.rand(60), multipliers)
    reached = bandit.step().rewards
    before = bandit.logits.detach().clone()
    assert score_thresholds(bandit, multipliers, reached, steps=10, every=1) <= 0
    one = (bandit.logits.detach() - before).abs().max()
    assert 0 < one < 0.06  # one step of Adam, then all rewards were within 5 %
    assert torch.equal(multipliers.thresholds, reached)


def test_the_search_finds_thresholds_with_a_better_gold_score_than_it_began_with():
    torch.manual_seed(0)
    multipliers = Multipliers(torch.tensor([0.3, 0.3]), "equality", learning_rate=0.05, momentum=0.0)
    bandit = ProxyBandit(torch.rand(60), multipliers)
    simplex = first_simplex(torch.full((2,), 0.3), torch.full((2,), 0.8), torch.Generator().manual_seed(0))
    seen = []

    def objective(point):
        seen.append(score_thresholds(bandit, multipliers, point, 100))
        return seen[-1]

    found = nelder_mead(objective, simplex, max_evaluations=20)
    assert len(seen) == found.evaluations
    assert found.best_value == min(seen) < min(-0.8, *seen[:3])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: squash(draw(2), "other"), ValueError, "kind"),
        (lambda: mixed_advantages(CONSTRAINTS, KL[:5], draw(2)), ValueError, "constraints, kl"),
        (lambda: mixed_advantages(CONSTRAINTS, KL, draw(3)), ValueError, "weights"),
        (lambda: mixed_advantages(CONSTRAINTS[:1], KL[:1], draw(2)), ValueError, "kl"),
        (lambda: clipped_policy_loss(OLD, OLD, KL, 2.0), ValueError, "clip"),
        (lambda: value_loss(CONSTRAINTS, CONSTRAINTS, KL), ValueError, "values"),
        (lambda: reward_to_go(torch.ones(2, 3, 1).long()), TypeError, "rewards"),
        (lambda: advantages_and_returns(draw(2, 3, 1), draw(2, 3, 2)), ValueError, "rewards, values"),
        (lambda: violations(CONSTRAINTS, draw(3)), ValueError, "thresholds"),
        (lambda: Multipliers(draw(2), initial=draw(3)), ValueError, "initial"),
        (lambda: Multipliers(draw(2), learning_rate=0.0), ValueError, "learning_rate"),
        (lambda: ProxyBandit(torch.full((3,), 2.0), None), ValueError, "noise"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
