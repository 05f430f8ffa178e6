"""Qiu et al. (2022): telling true next states from random ones yields the model, and its features say where to look."""

import math

import pytest
import torch

from cl_teach.core.bonus import RunningBonus, exploration_bonus
from cl_teach.datasets.decisions import (
    combination_lock,
    exploitability,
    lock_factors,
    low_rank_game,
    low_rank_mdp,
    policy_value,
)
from cl_teach.models.low_rank import FactoredFeatures, LowRankFeatures
from cl_teach.signals.contrastive_ucb import (
    ContrastiveUCB,
    collect,
    contrastive_loss,
    density_ratio,
    expected_contrastive_loss,
    low_rank_model,
    transition_loss,
)


def positive(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


A, C, REAL = positive(6, 3), positive(6, 3, seed=1), torch.tensor([1, 0, 1, 1, 0, 0])
MDP = low_rank_mdp(5, 3, 2, seed=3)
NEGATIVES = positive(5, seed=2) / positive(5, seed=2).sum()
PHI, PSI = positive(2, 5, 3, 2, seed=4), positive(2, 5, 2, seed=5)


def test_the_loss_equals_the_loop():
    total = 0.0
    for a, c, y in zip(A, C, REAL, strict=True):
        u = sum(float(x * z) for x, z in zip(a, c, strict=True))
        total += math.log(1 + 1 / u) if y else math.log(1 + u)
    assert contrastive_loss(A, C, REAL).item() == pytest.approx(total / 6, rel=1e-12)
    assert contrastive_loss(A, C, REAL, reduction="none").sum().item() == pytest.approx(total, rel=1e-12)


def test_a_change_of_basis_leaves_the_loss_and_the_model():
    basis = torch.tensor([[2.0, 0.3], [0.1, 1.0]], dtype=torch.float64)
    other = (A[:, :2] @ basis, C[:, :2] @ torch.linalg.inv(basis).mT)
    assert torch.allclose(contrastive_loss(*other, REAL), contrastive_loss(A[:, :2], C[:, :2], REAL))
    moved = low_rank_model(PHI @ basis, PSI @ torch.linalg.inv(basis).mT, NEGATIVES)
    assert torch.allclose(moved.transition, low_rank_model(PHI, PSI, NEGATIVES).transition)


def test_swapped_labels_and_inverted_scores_give_the_same_loss():
    u, one = positive(6, 1, seed=7), torch.ones(6, 1).double()
    assert torch.allclose(contrastive_loss(u, one, REAL), contrastive_loss(1 / u, one, 1 - REAL))


def test_the_loss_is_convex_in_the_logarithm_of_the_score():
    u, v, one = positive(6, 1, seed=8), 5 * positive(6, 1, seed=9), torch.ones(6, 1).double()
    ends = (contrastive_loss(u, one, REAL) + contrastive_loss(v, one, REAL)) / 2
    assert contrastive_loss((u * v).sqrt(), one, REAL) < ends - 1e-3


def test_the_density_ratio_is_the_minimum_and_its_value_is_a_divergence():
    p, weights = MDP.transition[0], positive(5, 3, seed=1) / positive(5, 3, seed=1).sum()
    u = density_ratio(p, NEGATIVES).requires_grad_()
    loss = expected_contrastive_loss(u, p, NEGATIVES, weights)
    middle = (p + NEGATIVES) / 2
    js = ((p * (p / middle).log()).sum(-1) + (NEGATIVES * (NEGATIVES / middle).log()).sum(-1)) / 2
    assert loss.item() == pytest.approx(math.log(2) - (weights * js).sum().item(), rel=1e-12)
    assert torch.autograd.grad(loss, u)[0].abs().max() < 1e-12
    for seed in range(5):
        other = u.detach() * (positive(5, 3, 5, seed=seed) + 0.4)
        assert expected_contrastive_loss(other, p, NEGATIVES, weights) > loss


def test_nothing_to_tell_apart_costs_the_logarithm_of_two():
    same = NEGATIVES.expand(5, 3, 5)
    u = density_ratio(same, NEGATIVES)
    assert torch.allclose(u, torch.ones_like(u))
    assert expected_contrastive_loss(u, same, NEGATIVES, torch.full((5, 3), 1 / 15)).item() == pytest.approx(
        math.log(2)
    )


def test_the_population_loss_is_the_expectation_and_accepts_impossible_states():
    p = torch.tensor([[[1.0, 0.0]], [[0.25, 0.75]]]).double()
    negatives, weights = torch.tensor([0.4, 0.6]).double(), torch.tensor([[0.3], [0.7]]).double()
    u = density_ratio(p, negatives).requires_grad_()
    loss = expected_contrastive_loss(u, p, negatives, weights)
    wanted = 0.0
    for s in range(2):
        for t in range(2):
            x = u[s, 0, t].item()
            term = float(negatives[t]) * math.log(1 + x) + (float(p[s, 0, t]) * math.log(1 + 1 / x) if x else 0)
            wanted += float(weights[s, 0]) * term / 2
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    assert torch.isfinite(torch.autograd.grad(loss, u)[0]).all()


def test_model_rows_sum_to_one_whatever_the_scale_of_a_feature():
    model = low_rank_model(PHI, PSI, NEGATIVES)
    assert torch.allclose(model.transition.sum(-1), torch.ones(2, 5, 3, dtype=torch.float64))
    scaled = low_rank_model(PHI * positive(2, 5, 3, 1, seed=6), PSI, NEGATIVES)
    assert torch.allclose(scaled.transition, model.transition) and torch.allclose(scaled.features, model.features)


def test_the_ratio_is_turned_back_into_the_truth():
    phi, psi = MDP.transition, torch.eye(5, dtype=torch.float64).expand(2, 5, 5) / NEGATIVES
    assert torch.allclose(low_rank_model(7 * phi, psi, NEGATIVES).transition, MDP.transition)


def test_the_bonus_of_one_hot_features_counts_visits():
    one_hot = torch.eye(6, dtype=torch.float64).view(1, 3, 2, 6)
    visits = torch.tensor([[0, 0], [0, 0], [2, 1], [0, 0]])
    counts = torch.tensor([[[3.0, 0.0], [0.0, 0.0], [0.0, 1.0]]]).double()
    assert torch.allclose(exploration_bonus(one_hot, [visits], 0.5, 0.3), 0.3 / (0.5 + counts).sqrt())


def test_the_bonus_never_grows_with_data_and_shrinks_with_repetition():
    f, none = PHI[:1], torch.empty(0, 2, dtype=torch.int64)
    before = exploration_bonus(f, [none], 0.5, 0.3)
    assert torch.allclose(before, 0.3 * f.norm(dim=-1) / 0.5**0.5)
    after = exploration_bonus(f, [torch.tensor([[1, 2]] * 9)], 0.5, 0.3)
    assert (after <= before + 1e-12).all()
    length = f[0, 1, 2].norm()
    assert after[0, 1, 2].item() == pytest.approx(float(0.3 * length / (0.5 + 9 * length**2).sqrt()))
    assert exploration_bonus(f, [none], 0.5, 0.3, cap=0.1).max() == 0.1


def test_the_running_bonus_includes_the_present_batch_and_never_forgets():
    bonus, batches = RunningBonus(3, ridge=0.1, factor=2.0), [A, C]
    covariance = 0.1 * torch.eye(3, dtype=torch.float64)
    for batch in batches:
        covariance = covariance + batch.T @ batch
        wanted = [2 * math.sqrt(f @ torch.linalg.inv(covariance) @ f) for f in batch]
        assert bonus(batch).tolist() == pytest.approx(wanted)
    repeated = [bonus(A[:1]).item() for _ in range(5)]
    assert repeated == sorted(repeated, reverse=True) and repeated[-1] < repeated[0]
    tiny = RunningBonus(3)  # the ridge of 1e-5 would be lost in float32
    assert all(torch.isfinite(tiny(1e3 * A[:1].float())).all() for _ in range(20))


def test_collection_follows_the_policy_and_ends_at_random():
    lock = combination_lock(4, 3, 2, seed=0)
    secret = lock.transition[:, 0, :, :2].sum(-1).argmax(1)
    policy = torch.nn.functional.one_hot(secret, 4).double()[:, None].expand(3, 4, 4)
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([collect(lock, policy, torch.full((4,), 0.25), generator=generator) for _ in range(400)])
    assert points[:, 0].bincount().tolist() == [400, 800, 800]
    step, state, action, after, negative = points.unbind(1)
    assert (lock.transition[step, state, action, after] > 0).all()
    for h, good in ((0, 1.0), (1, (1 + 1 / 4) / 2), (2, (1 + 1 / 4) / 2)):  # half of the runs err one step earlier
        assert abs((state[step == h] < 2).double().mean() - good) < 0.06
    assert (action.bincount() / len(points) - 0.25).abs().max() < 0.04
    assert (negative.bincount() / len(points) - 0.25).abs().max() < 0.04


def test_several_episodes_are_as_many_single_ones():
    one, many = (collect(MDP, torch.ones(2, 5, 3), NEGATIVES, episodes=n) for n in (1, 50))
    assert one.shape == (3, 5) and many.shape == (150, 5)
    assert many[:, 0].bincount().tolist() == [50, 100]
    assert (MDP.transition[many[:, 0], many[:, 1], many[:, 2], many[:, 3]] > 0).all()


def test_features_of_parts_share_what_states_have_in_common():
    torch.manual_seed(0)
    parts = torch.tensor([[0, 5], [0, 7], [9, 5], [9, 7]])  # any names
    features = FactoredFeatures(2, parts, 3, 2)
    phi, psi = features()
    assert phi.shape == (2, 4, 3, 2) and psi.shape == (2, 4, 2) and phi.dtype == torch.float64 and phi.min() > 0
    raw = torch.expm1(phi - 1e-6).log()  # before the softplus the parts add up
    assert torch.allclose(raw[:, 0] - raw[:, 1], raw[:, 2] - raw[:, 3])
    phi[:, 0].sum().backward()
    touched = features.raw_phi.grad.abs().sum((0, 2, 3)) > 0
    assert touched.tolist() == [True, False, True, False]  # two parts out of four, each shared with another state
    alone = FactoredFeatures(2, torch.arange(4)[:, None], 3, 2)  # one part a state: free tables
    assert alone.raw_phi.shape == LowRankFeatures(2, 4, 3, 2).raw_phi.shape


def test_shared_features_learn_of_states_that_were_never_visited():
    """Data in half of the copies; the others have the same transition, and only shared features can know."""
    lock, parts = combination_lock(3, 1, 4, seed=1), lock_factors(4)
    visited, g = torch.tensor([0, 3, 4, 7]), torch.Generator().manual_seed(0)  # every digit occurs in both values
    state, action = visited[torch.randint(4, (4000,), generator=g)], torch.randint(3, (4000,), generator=g)
    after = lock.transition[0, state, action].multinomial(1, generator=g)[:, 0]
    points = torch.stack([0 * state, state, action, after, torch.randint(8, (4000,), generator=g)], 1)
    wrong = []
    for factors in (parts, None):
        torch.manual_seed(0)
        agent = ContrastiveUCB(lock.reward, 2, factors=factors, fit_steps=300)
        agent.step(points)
        with torch.no_grad():
            model = low_rank_model(*agent.features(), agent.negatives)
        wrong.append((model.transition - lock.transition)[0, [1, 2, 5, 6]].abs().sum(-1).mean() / 2)
    assert wrong[0] < 0.15 and wrong[1] > wrong[0] + 0.15


def recovered(n, seed=0):
    """Mean total variation between the learned and the true transition, and the losses."""
    mdp, g = low_rank_mdp(seed=seed), torch.Generator().manual_seed(seed)
    state, action, negative = (torch.randint(k, (n,), generator=g) for k in (8, 3, 8))
    after = mdp.transition[0, state, action].multinomial(1, generator=g)[:, 0]
    torch.manual_seed(seed)
    features, losses = LowRankFeatures(1, 8, 3, 2), []
    points = torch.stack([0 * state, state, action, after, negative], 1)
    optimizer = torch.optim.Adam(features.parameters(), lr=0.05)
    for _ in range(400):
        loss = transition_loss(*features(), points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        model = low_rank_model(*features.forward(), torch.full((8,), 1 / 8).double())
    return (model.transition - mdp.transition).abs().sum(-1).mean().item() / 2, losses


def test_contrast_recovers_the_transition_and_more_data_recover_it_better():
    few, _ = recovered(400)
    many, losses = recovered(4000)
    assert losses[-1] < losses[0] - 0.1
    assert many < 0.06 and many < few / 2


def episode(agent, process, generator):
    return agent.step(collect(process, agent.policy, agent.negatives, generator=generator))


def lock_value(seed, scale):
    """Mean exact value of the last 10 of 54 policies."""
    lock, found = combination_lock(3, 3, 2, seed=seed), []
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    agent = ContrastiveUCB(lock.reward, bonus_scale=scale, fit_steps=60, refit_every=3)
    for _ in range(54):
        found.append(policy_value(lock, episode(agent, lock, generator)).item())
    return sum(found[-10:]) / 10


def test_the_bonus_opens_every_lock_and_greedy_planning_gives_up_on_one():
    """On a lock this short greedy planning is often lucky: two of the three actions of a run may be random anyway."""
    assert min(lock_value(seed, 1.0) for seed in (0, 1, 2)) > 0.9
    assert lock_value(0, 0.0) < 0.1


def test_in_a_game_the_bounds_close_and_the_players_get_hard_to_exploit():
    game = low_rank_game(3, (2, 3), 2, seed=0)
    torch.manual_seed(0)
    agent = ContrastiveUCB(game.reward, 2, bonus_scale=0.3, fit_steps=60, refit_every=10)
    generator = torch.Generator().manual_seed(0)
    start, gaps = agent.policy.view_as(game.reward).clone(), []
    for _ in range(60):
        joint = episode(agent, game, generator)
        if agent.plan is not None:
            gaps.append((agent.plan.v_upper - agent.plan.v_lower)[0].mean().item())
    assert min(gaps) >= 0 and gaps[-1] < 0.6 * gaps[0]
    before, after = (exploitability(game, x.sum(3), x.sum(2)) for x in (start, joint))
    assert torch.allclose(joint.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64))
    assert after < 0.2 * before


def test_gradcheck_and_tiny_scores():
    assert torch.autograd.gradcheck(lambda a, c: contrastive_loss(a, c, REAL), (A.requires_grad_(), C.requires_grad_()))
    A.requires_grad_(False), C.requires_grad_(False)
    tiny = torch.full((6, 3), 1e-12, requires_grad=True)
    loss = contrastive_loss(tiny, torch.full((6, 3), 1e-12), REAL)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(tiny.grad).all()
    points = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 0, 0, 0]])
    wanted = contrastive_loss(
        torch.stack([PHI[0, 1, 2], PHI[1, 0, 0]] * 2),
        torch.stack([PSI[0, 3], PSI[1, 0], PSI[0, 4], PSI[1, 0]]),
        torch.tensor([1, 1, 0, 0]),
    )
    assert torch.allclose(transition_loss(PHI, PSI, points), wanted)


@pytest.mark.parametrize("process", [MDP, low_rank_game(3, (2, 3), 2, seed=0)])
def test_a_saved_agent_continues_as_if_never_stopped(process):
    torch.manual_seed(0)
    agent, fresh = (ContrastiveUCB(process.reward, 2, fit_steps=5, refit_every=2) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        episode(agent, process, generator)
    fresh.load_state_dict(agent.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(agent.plan, fresh.plan, strict=True))
    first, second = (
        [episode(x, process, g) for _ in range(3)]
        for x, g in ((agent, torch.Generator().manual_seed(1)), (fresh, torch.Generator().manual_seed(1)))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert agent.episodes == fresh.episodes == 6 and torch.equal(agent.points, fresh.points)
    rows = torch.arange(2).repeat(3), torch.tensor([0, 1, 2] * 2)
    assert torch.equal(agent(*rows), agent.policy[rows]) and torch.allclose(agent(*rows).sum(1), torch.ones(6).double())


def test_the_running_bonus_learns_in_training_only():
    bonus = RunningBonus(3, ridge=0.1)
    first = bonus(A)
    bonus.eval()
    before = bonus.covariance.clone()
    assert torch.equal(bonus(A), first) and torch.equal(bonus.covariance, before)
    copy = RunningBonus(3)
    copy.load_state_dict(bonus.state_dict())
    assert torch.equal(copy(C), bonus.train()(C))


def test_half_precision_stays_close_and_ids_may_have_any_width():
    a, c = A.bfloat16().requires_grad_(), C.bfloat16()
    loss = contrastive_loss(a, c, REAL.to(torch.uint8))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(a.grad).all()
    assert torch.allclose(loss, contrastive_loss(A, C, REAL).float(), rtol=0.02)
    points = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 0, 0, 0]])
    assert torch.equal(transition_loss(PHI, PSI, points.to(torch.uint8)), transition_loss(PHI, PSI, points))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: contrastive_loss(A, C[:2], REAL), ValueError, "candidate"),
        (lambda: contrastive_loss(-A, C, REAL), ValueError, "anchor"),
        (lambda: contrastive_loss(A * math.nan, C, REAL), ValueError, "anchor"),
        (lambda: contrastive_loss(A, C, REAL + 1), ValueError, "real"),
        (lambda: contrastive_loss(A, C, REAL.double()), TypeError, "real"),
        (lambda: density_ratio(MDP.transition, 0 * NEGATIVES), ValueError, "negatives"),
        (
            lambda: expected_contrastive_loss(MDP.transition[0], MDP.transition[0, :2], NEGATIVES, A),
            ValueError,
            "transition",
        ),
        (lambda: low_rank_model(PHI, PSI[..., :1], NEGATIVES), ValueError, "psi"),
        (lambda: low_rank_model(PHI, PSI, NEGATIVES[:3]), ValueError, "negatives"),
        (lambda: low_rank_model(PHI, -PSI, NEGATIVES), ValueError, "psi"),
        (lambda: exploration_bonus(PHI, [torch.zeros(1, 2).long()]), ValueError, "visits"),
        (lambda: exploration_bonus(PHI, torch.zeros(2, 1, 3).long()), ValueError, "visits"),
        (lambda: exploration_bonus(PHI, torch.zeros(2, 1, 2).long(), ridge=0.0), ValueError, "ridge"),
        (lambda: RunningBonus(3)(A[:, :2]), ValueError, "features"),
        (lambda: LowRankFeatures(1, 2, 0, 3), ValueError, "actions"),
        (lambda: FactoredFeatures(1, torch.zeros(2, 1), 2, 3), TypeError, "factors"),
        (lambda: FactoredFeatures(1, -torch.ones(2, 1).long(), 2, 3), ValueError, "factors"),
        (lambda: ContrastiveUCB(MDP.reward, factors=lock_factors(2)), ValueError, "factors"),
        (lambda: collect(MDP, torch.ones(2, 5, 3), NEGATIVES, episodes=0), ValueError, "episodes"),
        (lambda: collect(MDP, torch.ones(2, 5, 2), NEGATIVES), ValueError, "policy"),
        (lambda: ContrastiveUCB(MDP.reward, refit_every=0), ValueError, "refit_every"),
        (lambda: transition_loss(PHI, PSI, torch.full((1, 5), -1)), ValueError, "points"),
        (lambda: exploration_bonus(PHI, torch.full((2, 1, 2), 9)), ValueError, "visits"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
