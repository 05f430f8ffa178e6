"""Optimistic planning: with the truth and no bonus it is dynamic programming; games have their minimax value."""

import itertools
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core.planning import correlated_equilibrium, matrix_game_value, plan, plan_game
from cl_teach.datasets.decisions import low_rank_game, low_rank_mdp, optimal_value, policy_value

MDP, GAME = low_rank_mdp(4, 3, 3, seed=1), low_rank_game(3, (2, 3), 2, seed=1)
BONUS, GAME_BONUS = draw(3, 4, 3).abs(), draw(2, 3, 2, 3).abs()


def test_the_truth_without_a_bonus_gives_the_best_policy():
    found = plan(MDP.reward, MDP.transition, 0 * MDP.reward, 3.0)
    policy = torch.nn.functional.one_hot(found.policy, 3).double()
    assert policy_value(MDP, policy) == pytest.approx(optimal_value(MDP).item())
    assert MDP.start @ found.v[0] == pytest.approx(optimal_value(MDP).item())


def test_the_backup_equals_the_loops():
    found = plan(MDP.reward, MDP.transition, BONUS, 1.5)
    v = [0.0] * 4
    for h in (2, 1, 0):
        q = [
            [
                float(MDP.reward[h, s, a] + BONUS[h, s, a])
                + sum(float(MDP.transition[h, s, a, t]) * v[t] for t in range(4))
                for a in range(3)
            ]
            for s in range(4)
        ]
        v = [min(max(row), 1.5) for row in q]
        assert torch.allclose(found.q[h], torch.tensor(q, dtype=torch.float64))
        assert torch.allclose(found.v[h], torch.tensor(v, dtype=torch.float64))
        assert found.policy[h].tolist() == [row.index(max(row)) for row in q]


def test_a_bonus_never_lowers_a_value_and_ties_go_to_the_first_action():
    plain, brave = (plan(MDP.reward, MDP.transition, b, 3.0) for b in (0 * BONUS, BONUS))
    assert (brave.q >= plain.q).all() and (brave.v >= plain.v).all() and (brave.v <= 3).all()
    assert not plan(0 * MDP.reward, MDP.transition, 0 * BONUS, 3.0).policy.any()


def test_an_equilibrium_leaves_no_gain_to_a_fixed_action():
    for seed in range(20):
        lower = draw(3, 4, seed=seed)
        upper = lower + draw(3, 4, seed=100 + seed).abs()
        sigma = correlated_equilibrium(upper, lower)
        assert sigma.min() >= 0 and sigma.sum() == pytest.approx(1.0)
        assert (sigma * upper).sum() >= (upper @ sigma.sum(0)).max() - 1e-6
        assert (sigma * lower).sum() <= (sigma.sum(1) @ lower).min() + 1e-6


def test_every_equilibrium_of_a_zero_sum_matrix_has_the_minimax_value():
    for seed in range(10):
        payoff = draw(3, 4, seed=seed)
        sigma, value = correlated_equilibrium(payoff, payoff), matrix_game_value(payoff)
        assert (sigma * payoff).sum().item() == pytest.approx(value.item(), abs=1e-6)
        assert matrix_game_value(-payoff.mT).item() == pytest.approx(-value.item(), abs=1e-6)
    pennies = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert torch.allclose(correlated_equilibrium(pennies, pennies).sum(0), torch.full((2,), 0.5), atol=1e-6)


def test_a_two_by_two_game_has_the_textbook_value():
    payoff = torch.tensor([[3.0, -1.0], [-2.0, 1.0]])
    assert matrix_game_value(payoff).item() == pytest.approx((3 * 1 - 2) / (3 + 1 + 1 + 2))
    pure = [min(max(payoff[a, b] for a in range(2)) for b in range(2)), max(payoff.amin(1))]
    assert pure[1] < matrix_game_value(payoff) < pure[0]


def test_upper_bounds_stay_above_lower_bounds():
    found = plan_game(GAME.reward, GAME.transition, GAME_BONUS, 2.0)
    assert (found.q_upper >= found.q_lower).all() and (found.v_upper >= found.v_lower - 1e-9).all()
    assert found.v_upper.max() <= 2 and found.v_lower.min() >= 0


def test_without_a_bonus_both_bounds_are_the_value_of_the_game():
    found = plan_game(GAME.reward, GAME.transition, 0 * GAME_BONUS, 2.0)
    assert torch.allclose(found.q_upper, found.q_lower, atol=1e-6)
    values = [matrix_game_value(q) for q in found.q_upper[0]]
    assert torch.allclose(found.v_upper[0], torch.stack(values), atol=1e-6)


def test_one_column_action_makes_a_game_an_mdp():
    bonus = 0.1 * BONUS
    game = plan_game(MDP.reward[..., None], MDP.transition[:, :, :, None], bonus[..., None], 3.0)
    alone = plan(MDP.reward, MDP.transition, bonus, 3.0)
    assert torch.allclose(game.q_upper[..., 0], alone.q, atol=1e-6) and torch.allclose(game.v_upper, alone.v, atol=1e-6)


def test_a_given_joint_policy_is_evaluated():
    joint = torch.zeros_like(GAME.reward)
    for h, s in itertools.product(range(2), range(3)):
        joint[h, s, h, s] = 1
    found = plan_game(GAME.reward, GAME.transition, 0 * GAME_BONUS, 2.0, joint)
    assert GAME.start @ found.v_upper[0] == pytest.approx(policy_value(GAME, joint).item())
    assert torch.equal(found.joint, joint)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: plan(MDP.reward[0], MDP.transition, BONUS, 3.0), "reward"),
        (lambda: plan(MDP.reward, MDP.transition[:2], BONUS, 3.0), "transition"),
        (lambda: plan(MDP.reward, MDP.transition[..., :2], BONUS, 3.0), "transition"),
        (lambda: plan(MDP.reward, MDP.transition, BONUS * math.nan, 3.0), "bonus"),
        (lambda: plan(MDP.reward, MDP.transition, BONUS, 0.0), "value_cap"),
        (lambda: plan_game(GAME.reward, GAME.transition, BONUS, 2.0), "bonus"),
        (lambda: plan_game(GAME.reward, GAME.transition, GAME_BONUS, 2.0, GAME_BONUS[:1]), "joint"),
        (lambda: correlated_equilibrium(draw(2, 3), draw(3, 2)), "lower"),
        (lambda: matrix_game_value(draw(3)), "payoff"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
