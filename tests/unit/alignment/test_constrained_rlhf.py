"""Moskovitz et al. (2024): rewards kept at thresholds by multipliers."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.constrained_rlhf import (
    ConstrainedBandit,
    ConstrainedPPO,
    mixed_advantages,
    saturating_reward,
    score_thresholds,
    value_loss,
)
from cl_teach.core.multipliers import Multipliers, multiplier_loss, squash, violations
from cl_teach.core.policy_gradient import advantages_and_returns, clipped_policy_loss, probability_ratio, reward_to_go
from cl_teach.core.search import first_simplex, nelder_mead
from cl_teach.datasets.bandits import proxy_bandit
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
    raw = Multipliers(torch.zeros(4), generator=torch.Generator().manual_seed(0)).raw
    assert (raw == raw[0]).all() and 0 < raw[0].abs() < 0.1


def learner(kind="equality", point=POINT, **settings):
    generator = torch.Generator().manual_seed(0)
    multipliers = Multipliers(point, kind, learning_rate=0.05, momentum=0.0, generator=generator)
    bandit = ConstrainedBandit(proxy_bandit(), multipliers, **settings)
    optimizer = torch.optim.Adam([bandit.logits], lr=0.05)

    def step():
        found = bandit.loss()
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        bandit.after_step()
        return found

    return bandit, step


def train(kind, **settings):
    bandit, step = learner(kind, **settings)
    start, gold = step(), []
    for _ in range(1200):
        end = step()
        gold.append(bandit.gold())
    return start, end, gold


def test_fixed_weights_run_past_the_point_where_the_gold_score_is_best():
    start, end, gold = train("fixed")
    assert end.loss < start.loss - 1
    assert max(gold) > 0.7 and gold[-1] < 0.01
    assert (end.rewards > 0.9).all()


@pytest.mark.parametrize("kind", ["equality", "inequality"])
def test_constraints_keep_the_rewards_near_their_thresholds(kind):
    _, end, gold = train(kind)
    assert gold[-1] > 0.7
    assert (end.rewards - POINT).abs().max() < 0.1
    assert (end.weights[1] < 0) == (kind == "equality")  # the second proxy overshoots with the first


def test_saturating_rewards_and_upper_bounds_stay_at_or_below_the_thresholds():
    _, saturated, _ = train("fixed", saturating=True)
    assert (saturated.rewards < POINT + 0.1).all()
    _, bounded, _ = train("upper")
    assert (bounded.rewards.sum() < POINT.sum() + 0.1) and bounded.weights.sum() < 1


def test_saturating_reward_equals_its_loop_and_is_zero_only_at_the_thresholds():
    rewards, thresholds, coefficients = draw(4, 2), draw(2, seed=1), draw(2, seed=2).abs()
    found = saturating_reward(rewards, thresholds, coefficients)
    for b in range(4):
        expected = -sum(coefficients[i] * (rewards[b, i] - thresholds[i]) ** 2 for i in range(2))
        assert torch.isclose(found[b], expected)
    assert (found < 0).all()
    assert saturating_reward(thresholds[None], thresholds).item() == 0
    assert torch.allclose(
        saturating_reward(2 * thresholds - rewards, thresholds), saturating_reward(rewards, thresholds)
    )
    x = rewards.clone().requires_grad_()
    (slope,) = torch.autograd.grad(saturating_reward(x, thresholds, coefficients).sum(), x)
    assert torch.allclose(slope, -2 * coefficients * (rewards - thresholds))


def test_a_ratio_that_would_overflow_is_held_and_still_pushed_back():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        log_p = torch.tensor([99.0, -99.0, 0.0], dtype=dtype, requires_grad=True)
        old = torch.zeros(3, dtype=dtype)
        for sign in (1.0, -1.0):
            loss = clipped_policy_loss(log_p, old, torch.full((3,), sign, dtype=dtype))
            (gradient,) = torch.autograd.grad(loss, log_p)
            assert loss.isfinite()
            assert gradient[0] == 0 if sign > 0 else gradient[0] > 0
    assert probability_ratio(torch.tensor([99.0]), torch.zeros(1)).item() == pytest.approx(math.exp(20), rel=1e-5)
    d = torch.tensor([-3.0, 0.0, 1.5])
    assert torch.allclose(probability_ratio(d, torch.zeros(3)), d.exp())


def test_equal_advantages_are_zero_in_every_precision():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        one = torch.ones(4, 2).to(dtype)
        assert (mixed_advantages(one, one[:, 0], one[0]) == 0).all()


def test_multipliers_go_on_from_their_state():
    there, fresh = (Multipliers(torch.tensor([0.6, 0.7])) for _ in range(2))
    for seed in range(3):
        there.update(draw(10, 2, seed=seed, dtype=torch.float32))
    fresh.load_state_dict(there.state_dict())
    for seed in range(3, 6):
        for one in (there, fresh):
            one.update(draw(10, 2, seed=seed, dtype=torch.float32))
    assert torch.equal(there.raw, fresh.raw) and torch.equal(there.velocity, fresh.velocity)


def writer(**settings):
    torch.manual_seed(0)
    return ConstrainedPPO(LanguageModel(8, 16), 16, proxies, Multipliers(torch.tensor([0.4, 0.5])), **settings)


def test_ppo_goes_on_from_its_state():
    there, fresh = writer(), writer()
    there.step(there.write(8, generator=torch.Generator().manual_seed(0)))
    fresh.load_state_dict(there.state_dict())
    rounds = []
    for one in (there, fresh):
        generator = torch.Generator().manual_seed(1)
        rounds += [one.step(one.write(8, generator=generator), generator=generator) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(rounds[1], rounds[3], strict=True))
    for a, b in zip(there.policy.parameters(), fresh.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def texts():
    method = writer()
    return method.rate(method.write(8, generator=torch.Generator().manual_seed(0)))


def test_the_first_loss_has_a_ratio_of_one_and_errors_of_the_baselines():
    method, batch = writer(), texts()
    found = method.loss(batch)
    index = torch.tensor([3, 7, 40])
    some = method.loss(batch._replace(picked=index))
    for measured, where in ((found, torch.arange(64)), (some, index)):
        a = batch.advantages.flatten(0, 1)[where]
        a = (a - a.mean(0)) / a.std(0)
        weights = method.multipliers()
        policy = -(a[:, :2] @ weights + (2 - weights.sum()) * a[:, 2]).mean()  # 0 up to rounding
        with torch.no_grad():
            values = method.values(method.policy(batch.tokens[:, :-1])[0]).flatten(0, 1)[where]
        error = (batch.returns.flatten(0, 1)[where] - values).square().mean(0)
        assert torch.isclose(measured.loss, policy + 0.5 * error[:2].mean() + 0.2 * error[2], atol=1e-6)
    assert torch.equal(found.rewards, proxies(batch.tokens[:, 1:]).mean(0)) and abs(found.divergence) < 1e-6
    found.loss.backward()
    assert method.multipliers.raw.grad is None
    assert all(p.grad is not None for p in method.trained)


def test_a_step_is_the_loss_of_its_minibatches():
    """One pass and one minibatch: the loss of the whole batch, from before the step."""
    method, generator = writer(epochs=1, minibatch=64), torch.Generator().manual_seed(0)
    tokens = method.write(8, generator=generator)
    before, raw = method.loss(method.rate(tokens)).loss, method.multipliers.raw.clone()
    assert torch.isclose(method.step(tokens).loss, before, atol=1e-6)
    assert not torch.equal(method.multipliers.raw, raw)
    assert method.loss(method.rate(tokens)).loss.requires_grad


def test_the_reference_has_no_dropout_and_texts_are_written_without_it():
    class Dropping(LanguageModel):
        def forward(self, tokens):
            states, logits = super().forward(tokens)
            return states, torch.nn.functional.dropout(logits, 0.5, self.training)

    torch.manual_seed(0)
    method = ConstrainedPPO(Dropping(8, 16), 16, proxies, Multipliers(torch.tensor([0.4, 0.5]))).train()
    first, second = (method.write(4, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second) and method.policy.training and not method.reference.network.training
    assert torch.equal(method.reference(first)[1], method.reference(first)[1])


def test_looking_at_the_bandit_in_evaluation_mode_moves_no_multiplier():
    bandit, step = learner()
    step()
    before = bandit.multipliers.raw.clone()
    bandit.eval()
    bandit.loss()
    bandit.after_step()
    assert torch.equal(bandit.multipliers.raw, before)


def proxies(tokens):
    first = (tokens == 1).float().mean(1)
    return torch.stack([first, first + (tokens == 2).float().mean(1)], dim=1)


def test_a_language_model_is_held_at_its_thresholds_and_runs_off_without_them():
    thresholds, means = torch.tensor([0.4, 0.5]), []
    for settings in ({}, {"initial": torch.full((2,), 4.0), "learning_rate": 1e-9}):  # the second: weights stay near 1
        torch.manual_seed(0)
        multipliers = Multipliers(thresholds, "inequality", **settings)
        generator = torch.Generator().manual_seed(0)
        method = ConstrainedPPO(LanguageModel(8, 16), 16, proxies, multipliers)
        rounds = [method.step(method.write(64, generator=generator), generator=generator) for _ in range(60)]
        means.append(torch.stack([r.rewards for r in rounds[20:]]).mean(0))
        assert (rounds[0].rewards < thresholds - 0.1).all() and abs(rounds[0].divergence) < 1e-5
        assert rounds[-1].divergence > 0.2
    assert (means[0] - thresholds).abs().max() < 0.2
    assert (means[1] > 0.9).all()


def test_the_search_trains_on_and_stops_early_at_the_thresholds():
    bandit, step = learner()
    reached = step().rewards
    before = bandit.logits.detach().clone()
    score = score_thresholds(lambda: step().rewards, bandit.gold, bandit.multipliers, reached, steps=10, every=1)
    assert score <= 0
    one = (bandit.logits.detach() - before).abs().max()
    assert 0 < one < 0.06  # one step of Adam, then all rewards were within 5 %
    assert torch.equal(bandit.multipliers.thresholds, reached)


def test_the_search_finds_thresholds_with_a_better_gold_score_than_it_began_with():
    bandit, step = learner(point=torch.tensor([0.3, 0.3]))
    generator = torch.Generator().manual_seed(0)
    simplex = first_simplex(torch.full((2,), 0.3), torch.full((2,), 0.8), generator=generator)
    seen = []

    def objective(point):
        seen.append(score_thresholds(lambda: step().rewards, bandit.gold, bandit.multipliers, point, steps=100))
        return seen[-1]

    found = nelder_mead(objective, simplex, max_evaluations=20)
    assert len(seen) == found.evaluations
    assert found.best_value == min(seen) < min(-0.8, *seen[:3])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: squash(draw(2), "other"), ValueError, "kind"),
        (lambda: mixed_advantages(CONSTRAINTS, KL[:5], draw(2)), ValueError, "kl"),
        (lambda: mixed_advantages(CONSTRAINTS, KL, draw(3)), ValueError, "weights"),
        (lambda: mixed_advantages(CONSTRAINTS[:1], KL[:1], draw(2)), ValueError, "kl"),
        (lambda: clipped_policy_loss(OLD, OLD, KL, 2.0), ValueError, "clip"),
        (lambda: value_loss(CONSTRAINTS, CONSTRAINTS, KL), ValueError, "values"),
        (lambda: reward_to_go(torch.ones(2, 3, 1).long()), TypeError, "rewards"),
        (lambda: advantages_and_returns(draw(2, 3, 1), draw(2, 3, 2)), ValueError, "values"),
        (lambda: violations(CONSTRAINTS, draw(3)), ValueError, "thresholds"),
        (lambda: Multipliers(draw(2), initial=draw(3)), ValueError, "initial"),
        (lambda: Multipliers(draw(2), learning_rate=0.0), ValueError, "learning_rate"),
        (lambda: squash(draw(2), "sigmoid"), ValueError, "kind"),
        (lambda: saturating_reward(CONSTRAINTS, draw(3)), ValueError, "thresholds"),
        (lambda: writer().step(torch.zeros(3, 4).long()), ValueError, "batch"),
        (lambda: writer().loss(torch.zeros(3, 9)), TypeError, "batch"),
        (lambda: writer().loss(texts()._replace(old=draw(3, 8))), ValueError, r"batch\.old"),
        (lambda: writer().loss(texts()._replace(picked=torch.tensor([3]))), ValueError, r"batch\.picked"),
        (lambda: proxy_bandit(shared=2.0), ValueError, "shared"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
