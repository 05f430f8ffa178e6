"""Part 9."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import nt_xent
from cl_teach.models.point_transformer import make_patches, take_tokens, visible_first
from cl_teach.signals.comet import LEVELS, comet_loss
from cl_teach.signals.contrastive_ucb import ContrastiveUCB
from cl_teach.signals.point_cmae import PointCMAE, chamfer_distance, draw_masks

from . import DIM, Case, Trained, descend, trainable, whole


def with_comet(n: int) -> tuple[Trained, Trained]:
    """Windows of 16 time stamps; the baseline compares their maxima over time."""
    given = {
        level: (trainable(n, 16, DIM, seed=2 * k), trainable(n, 16, DIM, seed=2 * k + 1))
        for k, level in enumerate(LEVELS)
    }
    encoded = [r for pair in given.values() for r in pair]
    patients, trials = torch.arange(n) // 8, torch.arange(n) // 4
    return (
        descend(lambda: comet_loss(given, patients, trials), encoded),
        descend(lambda: nt_xent(encoded[0].amax(1), encoded[1].amax(1), 0.1), encoded),
    )


def with_point_cmae(n: int) -> tuple[Trained, Trained]:
    """Clouds of 64 points in 8 patches; the baseline is a masked autoencoder, one branch without contrast."""
    method, points = PointCMAE(groups=8, size=8), torch.randn(n, 64, 3)
    branch = method.branches[0]

    def plain() -> Tensor:
        masks = draw_masks(n, 8)
        centers, patches = make_patches(points, 8, 8)
        tokens, places = method._tokens(centers, patches)
        order = visible_first(masks)[:, : -int(masks[0].sum())]
        _, visible = method._encode(branch, take_tokens(tokens, order), take_tokens(places, order))
        return chamfer_distance(branch(visible, centers, masks).patches.flatten(0, 1), patches[masks])

    weights = list(method.parameters())
    return descend(lambda: method.loss(points), weights), descend(plain, weights)


def with_ucb(n: int) -> tuple[Trained, Trained]:
    """A gradient step of the features and a plan; the baseline fits a table of transitions."""
    horizon, states, actions = 4, 32, 8
    agent = ContrastiveUCB(torch.rand(horizon, states, actions), DIM)
    points = torch.stack(
        [whole(high, n, seed=k) for k, high in enumerate((horizon, states, actions, states, states))], 1
    )
    agent.points = points
    table = nn.Parameter(torch.zeros(horizon, states, actions, states))
    step, state, action, after, _ = points.unbind(1)
    return (
        descend(lambda: agent.loss(points), agent.parameters(), agent.replan),
        descend(lambda: F.cross_entropy(table[step, state, action], after), [table]),
    )


CASES = {
    "comet": Case(
        "windows",
        "NT-Xent of maxima over time",
        with_comet,
        "every pair of windows is compared at every time stamp",
        sizes=(16, 64, 256),
        note="16 time stamps, four levels, five time scales",
    ),
    "point-cmae": Case(
        "clouds", "one masked autoencoder", with_point_cmae, note="64 points, 8 patches, width 48", sizes=(16, 64, 256)
    ),
    "contrastive-ucb": Case(
        "transitions", "a table fitted by likelihood", with_ucb, note="bonus and plan do not depend on n"
    ),
}
