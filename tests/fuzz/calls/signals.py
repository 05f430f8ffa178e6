"""Valid calls of Part 9, and of what it took to the ground floor."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform, whole

from cl_teach.core import bonus, planning
from cl_teach.datasets import decisions, series
from cl_teach.datasets.point_clouds import assembled_clouds, point_clouds
from cl_teach.models import dilated, low_rank, point_transformer
from cl_teach.signals import comet, contrastive_ucb, point_cmae

IDS = torch.tensor([0, 0, 1, 1])
PARTS = torch.tensor([[0, 0], [0, 1], [1, 0]])
MASKS1 = torch.tensor([[True, True, False, False], [False, True, True, False]])
MASKS2 = torch.tensor([[True, False, True, False], [True, False, True, False]])
MDP, GAME = decisions.low_rank_mdp(3, 2, 2), decisions.low_rank_game(2, (2, 2), 2)


def positive(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers above 0.1."""
    return uniform(*shape, seed=seed) + 0.1


def shares(*shape: int) -> torch.Tensor:
    """Probabilities along the last dimension."""
    return normal(*shape).softmax(-1)


def method() -> comet.COMET:
    """A small one."""
    return comet.COMET(dilated.DilatedEncoder(1, 4, 3, depth=1))


def model() -> point_cmae.PointCMAE:
    """A small one."""
    return point_cmae.PointCMAE(4, 5, 8, depth=1, heads=2)


def branch() -> point_transformer.MaskedBranch:
    """A small one."""
    return point_transformer.MaskedBranch(8, 5, 1, 2)


def agent() -> contrastive_ucb.ContrastiveUCB:
    """A quick one."""
    return contrastive_ucb.ContrastiveUCB(MDP.reward, 2, fit_steps=2)


def points() -> torch.Tensor:
    """Four points of `MDP`."""
    return torch.stack([whole(2, 4), whole(3, 4, seed=1), whole(2, 4, seed=2), *whole(3, 2, 4, seed=3)], 1)


CALLS = {
    # core
    bonus.exploration_bonus: [
        lambda: dict(features=positive(2, 3, 2, 2), visits=[whole(2, 4, 2)] * 2, ridge=0.1, scale=1.0, cap=4.0),
        lambda: dict(features=positive(1, 2, 2, 2, 3), visits=whole(2, 1, 4, 3), cap=None),
    ],
    bonus.RunningBonus: lambda: dict(dim=3, ridge=0.1, factor=1.0),
    bonus.RunningBonus.forward: lambda: (bonus.RunningBonus(3, ridge=0.1), dict(features=normal(4, 3))),
    planning.plan: lambda: dict(
        reward=uniform(2, 3, 2), transition=shares(2, 3, 2, 3), bonus=uniform(2, 3, 2), value_cap=2.0
    ),
    planning.plan_game: [
        lambda: dict(
            reward=uniform(2, 2, 2, 3),
            transition=shares(2, 2, 2, 3, 2),
            bonus=uniform(2, 2, 2, 3),
            value_cap=2.0,
        ),
        lambda: dict(
            reward=uniform(2, 2, 2, 3),
            transition=shares(2, 2, 2, 3, 2),
            bonus=uniform(2, 2, 2, 3),
            value_cap=2.0,
            joint=torch.full((2, 2, 2, 3), 1 / 6),
        ),
    ],
    planning.correlated_equilibrium: lambda: dict(upper=normal(2, 3), lower=normal(2, 3, seed=1)),
    planning.matrix_game_value: lambda: dict(payoff=normal(2, 3)),
    # data sets
    decisions.check_decisions: lambda: dict(process=MDP),
    decisions.low_rank_mdp: lambda: dict(
        states=3, actions=2, horizon=2, rank=2, concentration=0.5, seed=0, device="cpu"
    ),
    decisions.low_rank_game: lambda: dict(
        states=3, actions=(2, 2), horizon=2, rank=2, concentration=0.5, seed=0, device="cpu"
    ),
    decisions.combination_lock: lambda: dict(actions=2, horizon=2, copies=2, consolation=0.02, seed=0, device="cpu"),
    decisions.lock_factors: lambda: dict(copies=3),
    decisions.policy_value: lambda: dict(process=MDP, policy=torch.full((2, 3, 2), 0.5)),
    decisions.optimal_value: lambda: dict(process=MDP),
    decisions.exploitability: lambda: dict(
        game=GAME, row=torch.full((2, 2, 2), 0.5), column=torch.full((2, 2, 2), 0.5)
    ),
    point_clouds: lambda: dict(n=3, points=8, noise=0.1, rotate=True, seed=0, device="cpu"),
    assembled_clouds: lambda: dict(n=3, points=8, noise=0.1, spread=0.2, rotate=True, seed=0, device="cpu"),
    series.heart_beats: lambda: dict(
        patients=2, trials=2, beats=2, length=8, noise=0.1, st_shift=0.2, shift=0.1, wander=1.0, seed=0, device="cpu"
    ),
    series.few_patients: lambda: dict(data=series.heart_beats(4, 2, 2, length=8), per_class=1, generator=generator()),
    # models
    dilated.DilatedEncoder: lambda: dict(in_channels=1, hidden=4, dim=3, depth=1, dropout=0.1),
    dilated.DilatedEncoder.forward: lambda: (
        dilated.DilatedEncoder(1, 4, 3, depth=1),
        dict(x=normal(2, 8, 1), hidden=uniform(2, 8) < 0.3),
    ),
    dilated.draw_segments: lambda: dict(n=3, length=20, segments=2, share=0.1, generator=generator()),
    low_rank.LowRankFeatures: lambda: dict(horizon=2, states=3, actions=2, dim=2),
    low_rank.LowRankFeatures.forward: lambda: (low_rank.LowRankFeatures(2, 3, 2, 2), {}),
    low_rank.FactoredFeatures: lambda: dict(horizon=2, factors=PARTS, actions=2, dim=2),
    low_rank.FactoredFeatures.forward: lambda: (low_rank.FactoredFeatures(2, PARTS, 2, 2), {}),
    point_transformer.check_points: lambda: dict(points=normal(2, 8, 3)),
    point_transformer.farthest_points: lambda: dict(points=normal(2, 8, 3), count=3),
    point_transformer.make_patches: lambda: dict(points=normal(2, 8, 3), groups=3, size=4),
    point_transformer.visible_first: lambda: dict(masks=MASKS1),
    point_transformer.to_token_order: lambda: dict(decoded=normal(2, 4, 3), masks=MASKS1),
    point_transformer.take_tokens: lambda: dict(tokens=normal(2, 4, 3), index=whole(4, 2, 2)),
    point_transformer.position_embedding: lambda: dict(dim=4),
    point_transformer.PatchEmbedding: lambda: dict(dim=4),
    point_transformer.PatchEmbedding.forward: lambda: (
        point_transformer.PatchEmbedding(4),
        dict(patches=normal(2, 3, 5, 3)),
    ),
    point_transformer.PositionedBlocks: lambda: dict(dim=4, depth=1, heads=2),
    point_transformer.PositionedBlocks.forward: lambda: (
        point_transformer.PositionedBlocks(4, 1, 2),
        dict(tokens=normal(2, 3, 4), positions=normal(2, 3, 4, seed=1)),
    ),
    point_transformer.MaskedBranch: lambda: dict(dim=4, size=5, depth=1, heads=2),
    point_transformer.MaskedBranch.forward: lambda: (
        branch(),
        dict(visible=normal(2, 2, 8), centers=normal(2, 4, 3), masks=MASKS1),
    ),
    # comet
    comet.sample_loss: lambda: dict(r1=normal(4, 5, 3), r2=normal(4, 5, 3, seed=1)),
    comet.observation_loss: lambda: dict(r1=normal(4, 5, 3), r2=normal(4, 5, 3, seed=1)),
    comet.over_pooled_time: lambda: dict(loss=comet.sample_loss, r1=normal(4, 5, 3), r2=normal(4, 5, 3, seed=1)),
    comet.identity_similarity: lambda: dict(r1=normal(4, 5, 3), r2=normal(3, 5, 3, seed=1)),
    comet.identity_loss: lambda: dict(r1=normal(4, 5, 3), r2=normal(4, 5, 3, seed=1), ids=IDS, temperature=0.1),
    comet.comet_loss: lambda: dict(
        views={level: (normal(4, 5, 3, seed=i), normal(4, 5, 3, seed=9 + i)) for i, level in enumerate(comet.LEVELS)},
        patients=IDS,
        trials=torch.tensor([0, 0, 1, 2]),
        factors=(0.25, 0.25, 0.25, 0.25),
        temperature=0.1,
        released=False,
    ),
    comet.trial_batches: lambda: dict(trials=IDS, batch_size=2, generator=generator()),
    comet.COMET: lambda: dict(
        encoder=dilated.DilatedEncoder(1, 4, 3, depth=1),
        factors=(0.25, 0.25, 0.25, 0.25),
        temperature=0.1,
        released=True,
    ),
    comet.COMET.loss: lambda: (
        method(),
        dict(x=normal(4, 8, 1), patients=IDS, trials=torch.tensor([0, 0, 1, 2]), generator=generator()),
    ),
    comet.COMET.after_step: lambda: (method(), {}),
    comet.COMET.forward: lambda: (method(), dict(x=normal(4, 8, 1))),
    # point_cmae
    point_cmae.chamfer_distance: lambda: dict(drawn=normal(2, 4, 3), true=normal(2, 5, 3, seed=1)),
    point_cmae.comasked: lambda: dict(masks1=MASKS1, masks2=MASKS2),
    point_cmae.comask_contrast: lambda: dict(
        d1=normal(2, 4, 3), d2=normal(2, 4, 3, seed=1), masks1=MASKS1, masks2=MASKS2, pairing="all", eps=1e-8
    ),
    point_cmae.draw_masks: lambda: dict(n=2, groups=5, ratio=0.6, generator=generator()),
    point_cmae.draw_scale_and_shift: lambda: dict(n=2, scale=(0.7, 1.5), shift=0.2, generator=generator()),
    point_cmae.PointCMAE: lambda: dict(
        groups=4,
        size=5,
        dim=8,
        depth=1,
        decoder_depth=1,
        heads=2,
        ratio=0.6,
        pairing="same",
        reconstruction_weight=1000.0,
        contrast_weight=1.0,
    ),
    point_cmae.PointCMAE.loss: lambda: (model(), dict(points=normal(2, 20, 3), generator=generator())),
    point_cmae.PointCMAE.terms: lambda: (model(), dict(points=normal(2, 20, 3), masks1=MASKS1, masks2=MASKS2)),
    point_cmae.PointCMAE.decode: lambda: (
        model(),
        dict(centers=normal(2, 4, 3), patches=normal(2, 4, 5, 3), masks1=MASKS1, masks2=MASKS2),
    ),
    point_cmae.PointCMAE.encode: lambda: (model(), dict(points=normal(2, 20, 3))),
    point_cmae.PointCMAE.forward: lambda: (model(), dict(points=normal(2, 20, 3))),
    # contrastive_ucb
    contrastive_ucb.contrastive_loss: lambda: dict(
        anchor=positive(4, 3), candidate=positive(4, 3, seed=1), real=torch.tensor([1, 0, 1, 0]), reduction="mean"
    ),
    contrastive_ucb.density_ratio: lambda: dict(transition=shares(3, 2, 3), negatives=positive(3)),
    contrastive_ucb.expected_contrastive_loss: lambda: dict(
        u=positive(3, 2, 3), transition=shares(3, 2, 3), negatives=shares(3), weights=shares(6).view(3, 2)
    ),
    contrastive_ucb.low_rank_model: [
        lambda: dict(phi=positive(2, 3, 2, 2), psi=positive(2, 3, 2, seed=1), negatives=shares(3)),
        lambda: dict(phi=positive(2, 3, 2, 2, 2), psi=positive(2, 3, 2, seed=1), negatives=shares(3)),
    ],
    contrastive_ucb.transition_loss: lambda: dict(
        phi=positive(2, 3, 2, 2), psi=positive(2, 3, 2, seed=1), points=points()
    ),
    contrastive_ucb.collect: lambda: dict(
        process=MDP, policy=torch.full((2, 3, 2), 0.5), negatives=shares(3), episodes=2, generator=generator()
    ),
    contrastive_ucb.ContrastiveUCB: lambda: dict(
        reward=MDP.reward,
        dim=2,
        factors=PARTS,
        ridge=0.1,
        bonus_scale=1.0,
        bonus_cap=4.0,
        fit_steps=2,
        learning_rate=0.05,
        refit_every=1,
    ),
    contrastive_ucb.ContrastiveUCB.forward: lambda: (agent(), dict(steps=whole(2, 4), states=whole(3, 4))),
    contrastive_ucb.ContrastiveUCB.loss: lambda: (agent(), dict(points=points(), generator=generator())),
    contrastive_ucb.ContrastiveUCB.step: lambda: (agent(), dict(batch=points())),
    contrastive_ucb.ContrastiveUCB.replan: lambda: (agent(), {}),
}

EXEMPT = {
    bonus.check_indices: "a check, tested with the functions that start with it",
    point_transformer.PositionedBlocks.attend: "forward without its checks, for networks that check themselves",
}
