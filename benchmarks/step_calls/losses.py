"""Part 3."""

from __future__ import annotations

import torch
from torch import nn

from cl_teach.core import info_nce, nt_xent
from cl_teach.losses.amcl import AMCL
from cl_teach.losses.cacr import cacr
from cl_teach.losses.dcl import dcl
from cl_teach.losses.feature_transformation import draw_transformation, feature_transformation
from cl_teach.losses.groco import groco
from cl_teach.losses.hallucinator import Hallucinator, hallucinated_moco
from cl_teach.losses.isogclr import ISogCLR
from cl_teach.losses.mochi import draw_mixture, hardest_rows, mochi
from cl_teach.losses.swav import SwAV

from . import DIM, Case, Trained, descend, in_views, rows, trainable

QUEUE = 4096


def plain(z1: torch.Tensor, z2: torch.Tensor) -> Trained:
    """NT-Xent."""
    return descend(lambda: nt_xent(z1, z2, 0.1), (z1, z2))


def with_dcl(n: int) -> tuple[Trained, Trained]:
    """Negatives only in the denominator."""
    z1, z2 = in_views(n)
    return descend(lambda: dcl(z1, z2, 0.1), (z1, z2)), plain(z1, z2)


def with_cacr(n: int) -> tuple[Trained, Trained]:
    """Two views."""
    both = trainable(2, n, DIM)
    return descend(lambda: cacr(both), (both,)), descend(lambda: nt_xent(*both, 0.1), (both,))


def with_isogclr(n: int) -> tuple[Trained, Trained]:
    """A training set of one batch."""
    z1, z2 = in_views(n)
    memory, index = ISogCLR(n), torch.arange(n)
    return descend(lambda: memory.loss(z1, z2, index), (z1, z2)), plain(z1, z2)


def with_amcl(n: int) -> tuple[Trained, Trained]:
    """Two linear heads, or one."""
    z1, z2 = in_views(n)
    method, head = AMCL([nn.Linear(DIM, DIM) for _ in range(2)], DIM), nn.Linear(DIM, DIM)
    return (
        descend(lambda: method.loss(z1, z2), (z1, z2, *method.parameters())),
        descend(lambda: nt_xent(head(z1), head(z2), 0.1), (z1, z2, *head.parameters())),
    )


def moco(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Trained]:
    """Query, key, queue and MoCo's step on them."""
    query, key, queue = trainable(n), rows(n, seed=1), rows(QUEUE, seed=2)
    return query, key, queue, descend(lambda: info_nce(query, key, queue, 0.2), (query,))


def with_mochi(n: int) -> tuple[Trained, Trained]:
    """Of 256 hard negatives, 128 are mixed with one another and 64 with the query."""
    query, key, queue, baseline = moco(n)

    def loss() -> torch.Tensor:
        return mochi(query, key, queue, draw_mixture(hardest_rows(query, queue, 256), 128, 64))

    return descend(loss, (query,)), baseline


def with_transformation(n: int) -> tuple[Trained, Trained]:
    """Drawn anew in every step."""
    query, key, queue, baseline = moco(n)

    def loss() -> torch.Tensor:
        return feature_transformation(query, key, queue, **draw_transformation(QUEUE)._asdict())

    return descend(loss, (query,)), baseline


def with_hallucinator(n: int) -> tuple[Trained, Trained]:
    """A second positive by a small network."""
    query, key, queue, baseline = moco(n)
    network = Hallucinator(DIM)
    loss = descend(lambda: hallucinated_moco(network, query, key, queue, 0.05), (query, *network.parameters()))
    return loss, baseline


def with_groco(n: int) -> tuple[Trained, Trained]:
    """Ten nearest negatives are sorted."""
    both = trainable(2, n, DIM)
    return descend(lambda: groco(both).sum(), (both,)), descend(lambda: nt_xent(*both, 0.1), (both,))


def with_swav(n: int) -> tuple[Trained, Trained]:
    """Two crops and 300 prototypes."""
    both, method = trainable(2, n, DIM), SwAV(DIM, 300)
    swapped = descend(lambda: method.loss(both), (both, *method.parameters()), method.after_step)
    return swapped, descend(lambda: nt_xent(*both, 0.1), (both,))


EVERY_PAIR = "every pair is compared"
CASES = {
    "dcl": Case("pairs", "NT-Xent", with_dcl, EVERY_PAIR),
    "cacr": Case("pairs", "NT-Xent", with_cacr, "a table of n x n because each pair has its own weight"),
    "isogclr": Case("pairs", "NT-Xent", with_isogclr, "a table of 2n x 2n: each sample weighs its negatives itself"),
    "amcl": Case(
        "pairs",
        "NT-Xent behind a linear head",
        with_amcl,
        "a table of 2n x 2n for each head, because each pair has its own temperature",
        note="two heads",
    ),
    "mochi": Case(
        "queries", "MoCo", with_mochi, note="a queue of 4,096; 256 hard negatives, 128 + 64 mixtures for each query"
    ),
    "feature-transformation": Case("queries", "MoCo", with_transformation, note="a queue of 4,096"),
    "hallucinator": Case("queries", "MoCo", with_hallucinator, note="a queue of 4,096"),
    "groco": Case(
        "pairs", "NT-Xent", with_groco, "every pair is compared to find the nearest ones", note="10 nearest negatives"
    ),
    "swav": Case("pairs", "NT-Xent", with_swav, note="300 prototypes"),
}
