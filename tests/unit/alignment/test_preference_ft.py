"""Tajwar et al. (2024): what on-policy samples and negative gradients do."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.preference_ft import (
    PreferenceTuning,
    advantages,
    best_of_n,
    dpo,
    ipo,
    margins,
    policy_gradient,
    ppo,
    rwr,
)
from cl_teach.core.divergences import descend, divergence, divergence_gradient
from cl_teach.datasets.bandits import peaked_bandit
from cl_teach.models.policies import ActionPolicy, TokenPolicy, bumps, measure

L, REF, OLD, R = draw(3, 4), draw(3, 4, seed=1), draw(3, 4, seed=2), draw(3, 4, seed=3)
THETA = draw(3, 7, seed=4)
ACTIONS = torch.tensor([[0, 2, 4, 5], [1, 3, 5, 6], [6, 0, 1, 2]])  # no action twice in a state


def logit_gradient(loss):
    theta = THETA.clone().requires_grad_()
    return torch.autograd.grad(loss(theta.log_softmax(1).gather(1, ACTIONS)), theta)[0]


def test_losses_equal_their_loops():
    gain = advantages(R)
    reward, clipped, regression, best, pairs = [], [], [], [], []
    for s in range(3):
        row = R[s].tolist()
        mean = sum(row) / 4
        deviation = (sum((r - mean) ** 2 for r in row) / 4) ** 0.5
        best.append(-L[s, row.index(max(row))].item())
        for n in range(4):
            a, penalty = (row[n] - mean) / deviation, 0.1 * (L[s, n] - REF[s, n]).item()
            assert math.isclose(gain[s, n].item(), a, rel_tol=1e-9)
            rho = math.exp(L[s, n] - OLD[s, n])
            reward.append(-L[s, n].item() * a + penalty)
            clipped.append(max(-a * rho, -a * min(max(rho, 0.8), 1.2)) + penalty)
            regression.append(-L[s, n].item() * math.exp(row[n] / 0.5))
            for m in range(n):
                w, z = (n, m) if row[n] > row[m] else (m, n)
                pairs.append((L[s, w] - REF[s, w] - L[s, z] + REF[s, z]).item())

    def mean_of(values):
        return torch.tensor(sum(values) / len(values)).double()

    assert torch.isclose(best_of_n(L, R), mean_of(best), rtol=1e-5)
    assert torch.isclose(rwr(L, R, 0.5), mean_of(regression), rtol=1e-5)
    assert torch.isclose(policy_gradient(L, REF, R, beta_kl=0.1), mean_of(reward), rtol=1e-5)
    assert torch.isclose(ppo(L, OLD, REF, R, beta_kl=0.1, clip=0.2), mean_of(clipped), rtol=1e-5)
    found = margins(L, REF, R)
    assert torch.allclose(found.sort().values, torch.tensor(pairs, dtype=torch.float64).sort().values)
    assert torch.isclose(ipo(found, 2.0), mean_of([(h - 2) ** 2 for h in pairs]), rtol=1e-5)
    assert torch.isclose(dpo(found, 0.3), mean_of([math.log1p(math.exp(-0.3 * h)) for h in pairs]), rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: best_of_n(x, R, negative_weight=0.3, against="rest"),
        lambda x: rwr(x, R, 0.5),
        lambda x: policy_gradient(x, REF, R, beta_kl=0.05),
        lambda x: ppo(x, OLD, REF, R, beta_kl=0.05),
        lambda x: dpo(margins(x, REF, R)),
        lambda x: ipo(margins(x, REF, R)),
    ],
)
def test_gradients_are_right_and_sum_to_zero_over_logits(loss):
    assert torch.autograd.gradcheck(loss, L.clone().requires_grad_())
    gradient = logit_gradient(loss)
    assert gradient.abs().max() > 1e-3
    assert torch.allclose(gradient.sum(1), torch.zeros(3).double(), atol=1e-12)


def test_at_the_reference_the_pair_losses_have_known_values():
    h = margins(REF, REF, R)
    assert torch.isclose(dpo(h), torch.tensor(2.0).double().log())
    assert torch.isclose(ipo(h, 3.0), torch.tensor(9.0).double())


def test_limits_of_best_of_n_and_rwr():
    assert torch.isclose(best_of_n(L[:, :1], R[:, :1]), -L[:, 0].mean())
    assert torch.isclose(rwr(L, R, 1e9), -L.mean())
    sharp = -(L * (R / 0.01).softmax(1)).sum(1).mean()
    assert torch.isclose(sharp, best_of_n(L, R), atol=1e-3)
    one = logit_gradient(lambda x: rwr(x[:1], R[:1] - R[:1].max(), 0.01))[0]
    best = logit_gradient(lambda x: best_of_n(x[:1], R[:1]))[0] / 4
    assert torch.allclose(one, best, atol=1e-3)


def test_best_of_n_does_not_single_out_losers_but_a_pair_touches_only_its_two():
    gradient = logit_gradient(lambda x: best_of_n(x, R))
    p = THETA.softmax(1)
    for s in range(3):
        rest = torch.arange(7) != ACTIONS[s, R[s].argmax()]
        assert torch.allclose(gradient[s, rest], p[s, rest] / 3)
    rewards = torch.tensor([[1.0, 0.0]]).double()
    for loss, beyond in ((dpo, False), (lambda h: ipo(h, 1.0), True)):
        for margin in (0.5, 3.0):
            theta = THETA[:1].clone().requires_grad_()
            log_p = theta.log_softmax(1)[:, [2, 5]]
            reference = log_p.detach() - torch.tensor([[margin, 0.0]])
            (gradient,) = torch.autograd.grad(loss(margins(log_p, reference, rewards)), theta)
            others = torch.tensor([0, 1, 3, 4, 6])
            assert gradient[0, others].abs().max() < 1e-12
            assert torch.isclose(gradient[0, 2], -gradient[0, 5])
            assert (gradient[0, 5] > 0) == (not beyond or margin < 1)


def test_ppo_on_fresh_samples_has_the_gradient_of_reinforce():
    fresh = logit_gradient(lambda x: ppo(x, x.detach(), REF, R, beta_kl=0.05))
    assert torch.allclose(fresh, logit_gradient(lambda x: policy_gradient(x, REF, R, beta_kl=0.05)))


def test_a_constant_reward_changes_nothing():
    shift = torch.tensor([[5.0], [-2.0], [0.5]]).double()
    assert torch.allclose(advantages(R + shift), advantages(R))
    assert torch.equal(advantages(torch.ones(2, 3)), torch.zeros(2, 3))


def test_ties_and_small_gaps_are_no_pairs():
    rewards = torch.tensor([[1.0, 1.0, 0.0, 0.1]]).double()
    assert len(margins(L[:1], REF[:1], rewards)) == 5
    assert len(margins(L[:1], REF[:1], rewards, minimum_gap=0.5)) == 4


@pytest.mark.parametrize("kind", ["forward", "reverse"])
def test_divergence_gradients_match_autograd_and_vanish_at_the_target(kind):
    target = draw(7, seed=8).softmax(0)
    logits = THETA[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(divergence(logits, target, kind), logits)
    assert torch.allclose(divergence_gradient(THETA[0], target, kind), expected)
    assert divergence_gradient(target.log() + 3, target, kind).abs().max() < 1e-12


def test_mode_seeking_is_faster_only_where_mass_must_leave():
    def distribution(first):
        return torch.tensor([first] + [(1 - first) / 9] * 9, dtype=torch.float64)

    def steps(start, end, reached):
        paths = (
            descend(distribution(start).log(), distribution(end), k, step_size=0.5, steps=300)[:, 0]
            for k in ("forward", "reverse")
        )
        return [int(reached(path).int().argmax()) for path in paths]

    forward, reverse = steps(0.8, 0.02, lambda p: p < 0.4)
    assert 0 < reverse < forward
    forward, reverse = steps(0.002, 0.8, lambda p: p > 0.4)
    assert 0 < 5 * forward < reverse


STATES = torch.arange(20)


def train(name, center, rounds, **settings):
    generator, world = torch.Generator().manual_seed(0), peaked_bandit(center=center)
    policy = ActionPolicy(world.reference)
    method = PreferenceTuning(policy, world.reward, name, **settings)
    start = measure(policy, world.rewards).reward
    for _ in range(rounds):
        method.step(method.collect(STATES, generator=generator), steps=300 // rounds)
    return start, measure(policy, world.rewards)


@pytest.mark.parametrize("name", ["best_of_n", "rwr", "ipo", "reinforce"])
def test_on_policy_samples_help_most_where_the_peak_is_far(name):
    _, offline = train(name, 70.0, 1)
    _, online = train(name, 70.0, 30)
    near = train(name, 20.0, 30)[1].reward - train(name, 20.0, 1)[1].reward
    gain = online.reward - offline.reward
    assert gain > 0.15
    assert gain > near + 0.05


@pytest.mark.parametrize("name", ["ppo", "dpo"])
def test_ppo_and_dpo_raise_the_reward_near_the_reference(name):
    start, end = train(name, 20.0, 30)
    assert end.reward > start + 0.2
    assert end.entropy < math.log(100)


def policies():
    world = peaked_bandit(center=20.0)
    yield ActionPolicy(world.reference)
    yield ActionPolicy(world.reference, features=bumps(100, 25))
    yield TokenPolicy(world.reference, length=3, width=8)


@pytest.mark.parametrize("name", PreferenceTuning.LOSSES)
def test_steps_on_one_batch_lower_the_loss_of_every_policy(name):
    torch.manual_seed(0)
    for policy in policies():
        method = PreferenceTuning(policy, peaked_bandit(center=20.0).reward, name)
        draws = method.collect(STATES, generator=torch.Generator().manual_seed(0))
        losses = method.step(draws, steps=50)
        assert method.loss(*draws).item() < losses[0].item() - 0.01


def test_a_collapsed_policy_has_no_pairs_and_stays():
    method = PreferenceTuning(ActionPolicy(torch.ones(4)), peaked_bandit(4).reward, "dpo")
    actions = torch.full((20, 3), 2)
    draws = method.collect(STATES, 3)._replace(actions=actions, rewards=peaked_bandit(4).reward(actions))
    before = method.policy.weights.detach().clone()
    method.step(draws, steps=2)
    assert torch.equal(method.policy.weights, before)


def test_training_goes_on_from_its_state():
    world = peaked_bandit(center=20.0)
    there, fresh = (PreferenceTuning(ActionPolicy(world.reference), world.reward, "dpo") for _ in range(2))
    there.step(there.collect(STATES, generator=torch.Generator().manual_seed(0)), steps=3)
    fresh.load_state_dict(there.state_dict())
    for method in (there, fresh):
        method.step(method.collect(STATES, generator=torch.Generator().manual_seed(1)), steps=3)
    assert torch.equal(there.policy.weights, fresh.policy.weights)
    assert (fresh.reference.network.weights == 0).all()


def test_half_precision_is_close_and_never_nan():
    losses = (
        lambda l, ref, old, r: best_of_n(l, r),  # noqa: E741
        lambda l, ref, old, r: rwr(l, r, 0.5),  # noqa: E741
        lambda l, ref, old, r: policy_gradient(l, ref, r, beta_kl=0.1),  # noqa: E741
        lambda l, ref, old, r: ppo(l, old, ref, r),  # noqa: E741
        lambda l, ref, old, r: dpo(margins(l, ref, r)),  # noqa: E741
        lambda l, ref, old, r: advantages(torch.ones_like(r)).sum(),  # noqa: E741
    )
    for loss in losses:
        exact = loss(L, REF, OLD, R)
        for dtype in (torch.bfloat16, torch.float16):
            found = loss(*(x.to(dtype) for x in (L, REF, OLD, R)))
            assert found.isfinite() and abs(found - exact) < 0.05 * (1 + abs(exact))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: advantages(R.long()), TypeError, "rewards"),
        (lambda: best_of_n(L, R[:2]), ValueError, "rewards"),
        (lambda: best_of_n(L, R, against="all"), ValueError, "against"),
        (lambda: rwr(L, R, 1e-5), ValueError, "beta"),
        (lambda: ppo(L, OLD, REF, R, clip=2.0), ValueError, "clip"),
        (lambda: margins(L, REF, torch.ones_like(R)), ValueError, "rewards"),
        (lambda: ipo(L[0], 0.0), ValueError, "target"),
        (lambda: divergence(L[0], torch.ones(4).double()), ValueError, "target"),
        (lambda: divergence(L[0], torch.ones(4).double() / 4, "other"), ValueError, "kind"),
        (lambda: ActionPolicy(torch.zeros(4)), ValueError, "reference"),
        (lambda: PreferenceTuning(ActionPolicy(torch.ones(4)), abs, "sft"), ValueError, "name"),
        (lambda: peaked_bandit().reward(torch.tensor([[100]])), ValueError, "actions"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
