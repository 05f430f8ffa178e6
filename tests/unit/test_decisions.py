"""Decision processes: the tables are what they claim, and exact values agree with counting."""

import itertools

import pytest
import torch

from cl_teach.datasets.decisions import (
    Decisions,
    combination_lock,
    exploitability,
    lock_factors,
    low_rank_game,
    low_rank_mdp,
    optimal_value,
    policy_value,
)


@pytest.mark.parametrize("process", [low_rank_mdp(horizon=3), low_rank_game(), combination_lock()])
def test_rows_are_distributions_and_rewards_lie_in_the_unit_interval(process):
    assert process.transition.dtype == torch.float64 and process.transition.min() >= 0
    assert torch.allclose(process.transition.sum(-1), torch.ones_like(process.reward))
    assert process.reward.min() >= 0 and process.reward.max() <= 1
    assert torch.allclose(process.start.sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_rank_is_the_one_that_was_asked_for(rank):
    for process in (low_rank_mdp(horizon=2, rank=rank), low_rank_game(4, (3, 3), rank=rank)):
        for table in process.transition:
            assert torch.linalg.matrix_rank(table.flatten(0, -2), rtol=1e-8) == rank


def test_the_lock_has_rank_two_and_opens_for_one_secret_only():
    lock = combination_lock(3, 3, 2, consolation=0.1, seed=1)
    assert all(torch.linalg.matrix_rank(p.flatten(0, 1)) == 2 for p in lock.transition)
    values = []
    for secret in itertools.product(range(3), repeat=3):
        policy = torch.zeros_like(lock.reward)
        for h, a in enumerate(secret):
            policy[h, :, a] = 1
        values.append(round(policy_value(lock, policy).item(), 9))
    # Wrong at once: two steps in bad states; at the second step: one; at the last: none.
    assert sorted(values) == [0.0] * 2 + [0.1] * 6 + [0.2] * 18 + [1.0]
    assert optimal_value(lock) == pytest.approx(1.0)


def test_values_equal_a_simulation():
    process = low_rank_mdp(4, 2, 3, seed=2)
    generator = torch.Generator().manual_seed(0)
    policy = torch.rand(3, 4, 2, generator=generator, dtype=torch.float64)
    policy = policy / policy.sum(-1, keepdim=True)
    n = 20000
    state, total = process.start.multinomial(n, True, generator=generator), torch.zeros(n, dtype=torch.float64)
    for h in range(3):
        action = policy[h][state].multinomial(1, generator=generator)[:, 0]
        total += process.reward[h, state, action]
        state = process.transition[h, state, action].multinomial(1, generator=generator)[:, 0]
    assert abs(total.mean() - policy_value(process, policy)) < 4 * total.std() / n**0.5


def test_the_best_value_is_the_largest_over_all_deterministic_policies():
    process = low_rank_mdp(2, 2, 2, seed=3)
    best = -1.0
    for choice in itertools.product(range(2), repeat=4):
        policy = torch.nn.functional.one_hot(torch.tensor(choice).view(2, 2), 2).double()
        best = max(best, policy_value(process, policy).item())
    assert optimal_value(process).item() == pytest.approx(best, rel=1e-12)


def test_matching_pennies_cannot_be_exploited_when_both_mix_evenly():
    reward = torch.eye(2, dtype=torch.float64).view(1, 1, 2, 2)
    game = Decisions(torch.ones(1, 1, 2, 2, 1).double(), reward, torch.ones(1).double())
    even, pure = torch.full((1, 1, 2), 0.5).double(), torch.tensor([[[1.0, 0.0]]]).double()
    assert exploitability(game, even, even) == pytest.approx(0.0)
    assert exploitability(game, pure, pure) == pytest.approx(1.0)
    assert exploitability(game, even, pure) == pytest.approx(0.5)


def test_a_seed_fixes_everything():
    for make in (low_rank_mdp, low_rank_game, combination_lock):
        assert all(torch.equal(a, b) for a, b in zip(make(seed=4), make(seed=4), strict=True))
        assert not torch.equal(make(seed=4).reward, make(seed=7).reward)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: low_rank_mdp(0), "states"),
        (lambda: low_rank_mdp(actions=0), "actions"),
        (lambda: low_rank_mdp(rank=0), "rank"),
        (lambda: low_rank_mdp(concentration=0.0), "concentration"),
        (lambda: low_rank_game(actions=(2,)), "actions"),
        (lambda: low_rank_game(actions=(2, 0)), r"actions\[1\]"),
        (lambda: combination_lock(1), "actions"),
        (lambda: combination_lock(consolation=2.0), "consolation"),
        (lambda: policy_value(low_rank_mdp(), torch.ones(1, 8, 2)), "policy"),
        (lambda: optimal_value(low_rank_game()), "process"),
        (lambda: exploitability(low_rank_game(), torch.ones(2, 3, 3), torch.ones(2, 3, 3)), "row"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(("copies", "digits"), [(1, 0), (2, 1), (3, 2), (8, 3)])
def test_the_parts_of_a_lock_tell_its_states_apart_and_the_first_says_good_or_bad(copies, digits):
    parts = lock_factors(copies)
    assert parts.shape == (2 * copies, 1 + digits) and parts.dtype == torch.int64
    assert len(parts.unique(dim=0)) == 2 * copies
    assert parts[:, 0].tolist() == [0] * copies + [1] * copies
    assert torch.equal(parts[:copies, 1:], parts[copies:, 1:])
    with pytest.raises(ValueError, match="copies"):
        lock_factors(0)
