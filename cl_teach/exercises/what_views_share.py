"""Exercises of chapter 4.3, What views share."""

from __future__ import annotations

import torch
from torch import Tensor

from ..views.customcontrast import macl, negative_subject_weights
from . import Case, Exercise


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _alike(seed: int, subjects: list[int]) -> tuple[Tensor, Tensor]:
    n = len(subjects)
    square = _draw(seed, n, n).sigmoid()
    return (square + square.mT) / 2, torch.tensor(subjects)


def subject_contrast(z: Tensor, subjects: Tensor, temperature: float) -> Tensor:
    """MACL of a single layer without weights, ``(B, d)`` tokens of ``(B,)`` subjects; scalar."""
    return macl(z[None], subjects, temperature)


EXERCISES = {
    2: Exercise(
        prompt="The factors that weigh the negatives of an anchor by how alike the subjects are.",
        reference=negative_subject_weights,
        cases=[
            Case(
                "three subjects, once each",
                lambda seed: _alike(seed, [0, 1, 2]),
                "One minus the similarity, divided by its mean over the negatives of the row; the diagonal is 0.",
            ),
            Case(
                "two pictures of each subject",
                lambda seed: _alike(seed, [0, 1, 0, 1, 2, 2]),
                "A picture of the same subject is no negative: its factor is 0 and it is not in the mean.",
            ),
            Case(
                "all subjects alike",
                lambda seed: (torch.ones(4, 4).double(), torch.tensor([0, 1, 2, 2])),
                "0/0: if nothing tells the negatives apart, all of them count 1.",
            ),
            Case(
                "a single subject",
                lambda seed: _alike(seed, [3, 3]),
                "Nobody has a negative. All factors are 0.",
            ),
        ],
    ),
    3: Exercise(
        prompt="MACL of one layer, without weights.",
        reference=subject_contrast,
        cases=[
            Case(
                "two pictures of each subject",
                lambda seed: (_draw(seed, 6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), 0.2),
                "With one positive each, this is NT-Xent: the positive and all other subjects in the denominator.",
            ),
            Case(
                "three pictures of one subject",
                lambda seed: (_draw(seed, 5, 3), torch.tensor([0, 0, 0, 1, 1]), 0.5),
                "The other positives are not in the denominator, and the pairs of an anchor are averaged.",
            ),
            Case(
                "somebody is alone",
                lambda seed: (_draw(seed, 4, 3), torch.tensor([0, 0, 1, 2]), 0.5),
                "An anchor without a positive is left out of the mean; it still is a negative of the others.",
            ),
            Case(
                "one subject",
                lambda seed: (_draw(seed, 3, 3), torch.tensor([4, 4, 4]), 0.5),
                "Without negatives the loss is 0.",
            ),
        ],
    ),
}
