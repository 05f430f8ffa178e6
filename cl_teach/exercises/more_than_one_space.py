"""Exercises of chapter 4.4, More than one space."""

from __future__ import annotations

import torch
from torch import Tensor

from ..views.hydra import gated_cosine
from ..views.mcl import mcl_nt_xent
from ..views.sepclr import joint_concentration
from . import Case, Exercise


def joint_gap(c: Tensor, s: Tensor, temperature: float) -> Tensor:
    """How far the joint concentration of two codes is from the sum of those of each code alone.

    Args:
        c: ``(n, d)``, used as it is.
        s: ``(n, e)``, used as it is.
        temperature: of both kernels.

    Returns:
        Scalar; near 0 for independent codes, positive where one repeats the other.
    """
    alone = joint_concentration(c, torch.zeros_like(s), temperature)
    return joint_concentration(c, s, temperature) - alone - joint_concentration(torch.zeros_like(c), s, temperature)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _batch(seed: int, n: int, groups: list[int]) -> tuple[Tensor, Tensor, Tensor, float]:
    return _draw(seed, n, 3), _draw(seed + 100, n, 3), torch.tensor(groups), 0.3


EXERCISES = {
    2: Exercise(
        prompt="MCL's loss from NT-Xent of each group.",
        reference=mcl_nt_xent,
        cases=[
            Case("one group", lambda seed: _batch(seed, 5, [0] * 5), "With one group this is NT-Xent of the batch."),
            Case(
                "two groups of unequal size",
                lambda seed: _batch(seed, 7, [4, 4, 9, 9, 9, 9, 9]),
                "Weigh each group by its number of samples, not all groups alike.",
            ),
            Case(
                "one sample is alone",
                lambda seed: _batch(seed, 5, [0, 0, 1, 0, 0]),
                "Alone it costs 0, and still counts in the mean over the batch.",
            ),
            Case(
                "all are alone",
                lambda seed: _batch(seed, 4, [3, 1, 0, 2]),
                "Nobody has a negative; the loss is a tensor with the value 0.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Cosines behind the anchor's gate without a cube.",
        reference=gated_cosine,
        cases=[
            Case(
                "open gates",
                lambda seed: (_draw(seed, 5, 4), torch.ones(5, 4, dtype=torch.float64)),
                "With all gates open these are plain cosines.",
            ),
            Case(
                "gates of each anchor",
                lambda seed: (_draw(seed, 6, 4), _draw(seed + 50, 6, 4).sigmoid()),
                "Row i uses gate i for the anchor and for all keys; squares of the gate appear.",
            ),
            Case(
                "a dimension is closed",
                lambda seed: (_draw(seed, 4, 3), torch.tensor([[1.0, 0.0, 1.0]] * 4).double()),
                "What is closed must enter neither the product nor the lengths.",
            ),
            Case(
                "all is closed but a zero",
                lambda seed: (torch.eye(3).double(), torch.tensor([[0.0, 0.0, 1.0]] * 3).double()),
                "A gated vector of length zero has no direction: the cosine is 0, not NaN.",
            ),
        ],
    ),
    4: Exercise(
        prompt="The joint concentration against that of each code alone.",
        reference=joint_gap,
        cases=[
            Case(
                "two random codes",
                lambda seed: (_draw(seed, 12, 3), _draw(seed + 50, 12, 2), 0.5),
                "J is a mean of logarithms of means, with the row itself among the terms.",
            ),
            Case(
                "a copy",
                lambda seed: (_draw(seed, 12, 2), _draw(seed, 12, 2), 0.5),
                "The kernel of both is the product of the kernels: add the squared distances.",
            ),
            Case(
                "one code held still",
                lambda seed: (_draw(seed, 6, 3), torch.zeros(6, 2).double(), 0.5),
                "A constant code has the concentration 0, and the gap is 0.",
            ),
            Case(
                "codes far apart",
                lambda seed: (1e3 * _draw(seed, 6, 3), _draw(seed + 50, 6, 2), 0.5),
                "Kernels underflow; use logsumexp and not log of a sum.",
            ),
        ],
    ),
}
