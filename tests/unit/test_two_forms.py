"""Methods that leave the table of similarities out have the same value and gradient as with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from unit_helpers import draw

from cl_teach.core import tiling
from cl_teach.crossmodal.improved_vlp import Views, clip_rocket
from cl_teach.crossmodal.one_to_k import one_to_k
from cl_teach.crossmodal.visualness import tip_clip
from cl_teach.losses.dcl import dcl
from cl_teach.losses.groco import group_order, soft_sort
from cl_teach.views.adainf import nt_xent_with_ids
from cl_teach.views.mcl import mcl_nt_xent

LABELS = torch.arange(7) % 3


def rocket(z: Tensor) -> Tensor:
    """Two local views a side."""
    return clip_rocket(Views(z[0], list(z[2:4])), Views(z[1], list(z[4:6])), 1.3, 2.0, 0.2).loss


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "dcl": lambda z: dcl(z[0], z[1], 0.2),
    "adainf": lambda z: nt_xent_with_ids(z[0], z[1], LABELS),
    "mcl": lambda z: mcl_nt_xent(z[0], z[1], LABELS),
    "improved-vlp": rocket,
    "visualness": lambda z: tip_clip(z[0], z[1], z[2, 0], LABELS > 0, 1.3),
    "one-to-k": lambda z: one_to_k(z[0], z[1:4].transpose(0, 1).flatten(0, 1), 0.3),
}


@pytest.mark.parametrize("side", [1, 3, 16])
@pytest.mark.parametrize("name", LOSSES)
def test_tiles_change_neither_value_nor_gradient(name: str, side: int) -> None:
    found = []
    for choice in (None, side):
        z = draw(6, 7, 4).requires_grad_()
        with tiling(choice):
            loss = LOSSES[name](z)
            found.append((loss.detach(), *torch.autograd.grad(loss, z)))
    (plain, gradient), (tiled, other) = found
    assert torch.allclose(tiled, plain) and torch.allclose(other, gradient)
    assert gradient.abs().max() > 1e-3


def test_group_order_needs_no_permutation() -> None:
    z = draw(3, 9, 4)
    order = group_order(z[0], z[1:], z[0], top_negatives=5, steepness=2.0)
    rank = soft_sort(order.scores, 2.0)[1][..., 5:].sum(-1)
    assert torch.allclose(order.positive_rank, rank) and rank.std() > 0.01
