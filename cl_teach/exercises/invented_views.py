"""Exercises of chapter 4.2, Invented views."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.augmentation_graph import labeling_error
from ..views.genview import quality_weights
from . import Case, Exercise


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _graph(seed: int, images: int, places: int, labels: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    weights = _draw(seed + 50, images).softmax(0)
    return (2 * _draw(seed, images, places)).softmax(1), weights, torch.tensor(labels)


def _apart() -> tuple[Tensor, Tensor, Tensor]:
    reach = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.3, 0.7]], dtype=torch.float64)
    return reach, torch.tensor([0.2, 0.8], dtype=torch.float64), torch.tensor([0, 1])


EXERCISES = {
    2: Exercise(
        prompt="The labeling error of an augmentation graph.",
        reference=labeling_error,
        cases=[
            Case("classes that share no place", lambda seed: _apart(), "Nothing is wrong: the error is 0."),
            Case(
                "two classes",
                lambda seed: _graph(seed, 6, 5, [0, 0, 1, 1, 1, 0]),
                "The mass of a class at a place is the weight times the reach, summed over its images.",
            ),
            Case(
                "three classes with names of their own",
                lambda seed: _graph(seed, 7, 4, [2, 9, 9, 5, 2, 5, 5]),
                "Labels need not be 0, 1, 2; and of three classes two are wrong at a place.",
            ),
            Case(
                "one place for all",
                lambda seed: (torch.ones(4, 1).double(), _draw(seed, 4).softmax(0), torch.tensor([0, 1, 1, 2])),
                "The majority is weighted: not the class with most images, but the one with most weight.",
            ),
        ],
    ),
    3: Exercise(
        prompt="GenView's weights of pairs.",
        reference=quality_weights,
        cases=[
            Case("gamma 1", lambda seed: (_draw(seed, 6), 1.0), "N times a softmax: the weights sum to N."),
            Case("gamma 0", lambda seed: (_draw(seed, 4), 0.0), "All weights are 1 and the host's loss is left."),
            Case("one pair", lambda seed: (_draw(seed, 1), 3.0), "A single pair has the weight 1."),
            Case(
                "a large gamma",
                lambda seed: (_draw(seed, 5), 1e5),
                "The exponentials overflow: subtract the largest quality first.",
            ),
        ],
    ),
}
