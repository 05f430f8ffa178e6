"""Part 2."""

from __future__ import annotations

import copy

from torch import nn

from cl_teach.core import info_nce, nt_xent
from cl_teach.core.regression import regression_loss
from cl_teach.core.teacher import MomentumTeacher
from cl_teach.models.fixed_head import FixedHead
from cl_teach.theory.contrastive_loss_behaviour import hard_contrastive_loss
from cl_teach.theory.directpred import DirectPred

from . import DIM, Case, Trained, descend, in_views, rows


def hard_negatives(n: int) -> tuple[Trained, Trained]:
    """The hardest tenth of the negatives, or all."""
    z1, z2 = in_views(n)
    return (
        descend(lambda: hard_contrastive_loss(z1, z2, 0.3, alpha=0.1), (z1, z2)),
        descend(lambda: info_nce(z1, z2, temperature=0.3), (z1, z2)),
    )


def byol(online: nn.Module, x1, x2) -> Trained:
    """BYOL with a linear predictor on any network that gives ``(n, 128)``."""
    predictor, teacher = nn.Linear(DIM, DIM), MomentumTeacher(online)

    def loss():
        return regression_loss(predictor(online(x1)), teacher(x2)) + regression_loss(predictor(online(x2)), teacher(x1))

    return descend(loss, [*online.parameters(), *predictor.parameters()], lambda: teacher.update(online))


def direct_pred(n: int) -> tuple[Trained, Trained]:
    """A predictor from the eigenvectors of the features, or a trained one."""
    x1, x2, online = rows(n), rows(n, seed=1), nn.Linear(DIM, DIM)
    method = DirectPred(copy.deepcopy(online), DIM)
    return descend(lambda: method.loss(x1, x2), method.parameters(), method.after_step), byol(online, x1, x2)


def fixed_head(n: int) -> tuple[Trained, Trained]:
    """A head without weights, or a linear one."""
    z1, z2 = in_views(n)
    fixed, linear = FixedHead(DIM), nn.Linear(DIM, DIM, bias=False)
    return (
        descend(lambda: nt_xent(fixed(z1), fixed(z2)), (z1, z2)),
        descend(lambda: nt_xent(linear(z1), linear(z2)), (z1, z2, *linear.parameters())),
    )


CASES = {
    "contrastive-loss-behaviour": Case(
        "pairs", "InfoNCE", hard_negatives, "every pair is compared, and which ones count is a table of n x n"
    ),
    "directpred": Case(
        "pairs", "BYOL", direct_pred, note="one eigendecomposition of 128 x 128 a step, whatever the batch"
    ),
    "projection-head": Case("pairs", "NT-Xent behind a linear head", fixed_head, "every pair is compared"),
}
