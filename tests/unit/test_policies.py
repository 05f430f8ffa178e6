"""Policies over few actions: they start at the reference, and sample what they say."""

import pytest
import torch
from unit_helpers import draw

from cl_teach.models.policies import ActionPolicy, TokenPolicy, bumps

REFERENCE = torch.tensor([0.5, 0.3, 0.1, 0.1])
STATES = torch.arange(2)


def test_both_start_at_the_reference_and_sum_to_one():
    actions = torch.arange(4).repeat(2, 1)
    table = ActionPolicy(REFERENCE, 2)
    assert torch.allclose(table(STATES, actions).exp(), REFERENCE.expand(2, 4))
    writer = TokenPolicy(REFERENCE, 2, length=3, width=8)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3).expand(2, -1, -1)
    log_p = writer(STATES, every)
    assert torch.allclose(log_p.exp().sum(1), torch.ones(2))
    assert torch.allclose(log_p.exp(), REFERENCE[every].prod(-1))


def test_samples_have_the_probabilities_of_the_policy():
    policy = ActionPolicy(REFERENCE, 2)
    with torch.no_grad():
        policy.weights.copy_(draw(2, 4, dtype=torch.float32))
    found = policy.sample(STATES, 20_000, generator=torch.Generator().manual_seed(0))
    counts = torch.stack([row.bincount(minlength=4) for row in found]) / 20_000
    assert (counts - policy.log_probabilities().exp()).abs().max() < 0.015


def test_a_token_policy_writes_what_it_finds_likely():
    policy = TokenPolicy(REFERENCE, 2, length=3, width=8)
    torch.manual_seed(0)
    torch.nn.init.normal_(policy.model.output.weight)
    drawn = policy.sample(STATES, 4000, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 4000, 3)
    word = drawn[0, 0]
    share = (drawn[0] == word).all(-1).double().mean().item()
    chance = policy(STATES, word.expand(2, 1, 3)).exp()[0, 0].item()
    assert abs(share - chance) < 0.05


def test_features_generalize_and_a_table_does_not():
    for features, moves in ((None, False), (bumps(4, 2), True)):
        policy = ActionPolicy(REFERENCE, 1, features=features)
        policy(torch.tensor([0]), torch.tensor([[0]])).sum().backward()
        with torch.no_grad():
            policy.weights.add_(policy.weights.grad)
        gap = policy.log_probabilities()[0, 1] - policy.log_probabilities()[0, 3]
        assert (gap > policy.log_reference[1] - policy.log_reference[3] + 0.05) == moves


def test_bumps_are_one_at_their_centers():
    found = bumps(25, 25)
    assert torch.allclose(found.diagonal(), torch.ones(25)) and (found >= 0).all() and found.max() <= 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ActionPolicy(-REFERENCE), "reference"),
        (lambda: ActionPolicy(REFERENCE, 2)(torch.tensor([2]), torch.tensor([[0]])), "states"),
        (lambda: ActionPolicy(REFERENCE, 2)(STATES, torch.full((2, 1), 4)), "actions"),
        (lambda: TokenPolicy(REFERENCE, 2, length=3)(STATES, torch.zeros(2, 1, 2).long()), "actions"),
        (lambda: ActionPolicy(REFERENCE, features=bumps(5, 3)), "features"),
        (lambda: bumps(1), "actions"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
