"""Worlds of one decision: what is planted is there."""

import pytest
import torch

from cl_teach.datasets.bandits import peaked_bandit, proxy_bandit


def test_the_reference_has_most_of_its_mass_at_low_indices_and_no_empty_bin():
    world = peaked_bandit()
    assert world.reference.sum().item() == pytest.approx(1, abs=1e-5) and world.reference.min() > 0
    assert world.reference[:50].sum() > 0.7
    assert world.rewards.argmax() == 70 and world.rewards.max() == 1
    assert (world.reference @ world.rewards) < 0.2 < (world.reference @ peaked_bandit(center=20.0).rewards)


def test_a_reward_of_tokens_is_their_mean():
    world, actions = peaked_bandit(), torch.tensor([[[70, 70], [70, 0]]])
    assert torch.allclose(world.reward(actions), torch.tensor([[1.0, 0.5]]), atol=1e-6)
    assert torch.equal(world.reward(actions[0].to(torch.uint8)), world.rewards[actions[0]])


def test_the_shared_part_is_the_correlation_of_the_proxies():
    found = [torch.corrcoef(proxy_bandit(400, shared=s).proxies.mT)[0, 1].item() for s in (0.0, 0.5, 1.0)]
    assert abs(found[0]) < 0.15 and found[0] + 0.3 < found[1] and found[1] + 0.1 < found[2]
    assert found[2] > 0.9


def test_the_gold_score_is_best_at_its_point():
    world = proxy_bandit()
    assert world.gold(world.point).item() == 1
    assert world.gold(world.point + torch.tensor([0.15, 0.0])).item() == pytest.approx(torch.tensor(-1.0).exp().item())
    start = world.log_reference.exp() @ world.proxies
    assert (start < world.point).all()


@pytest.mark.parametrize("bad", [{"shared": 1.5}, {"noise": -1.0}, {"steepness": 0.0}, {"point": (1.0,)}])
def test_bad_proxies_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        proxy_bandit(**bad)


@pytest.mark.parametrize("bad", [{"actions": 1}, {"width": 0.0}, {"draws": 0}, {"center": float("nan")}])
def test_bad_peaks_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        peaked_bandit(**bad)
