"""Exercises of chapter 4.1, Should a feature know where?"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.crop_geometry import draw_boxes, positive_cells
from ..core.similarity import normalize
from ..views.pixpro import propagate_cells
from . import Case, Exercise


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _boxes(seed: int, n: int) -> Tensor:
    return draw_boxes(n, generator=torch.Generator().manual_seed(seed)).double()


def _propagated(x: Tensor, transformed: Tensor, gamma: float) -> Tensor:
    return propagate_cells(x.mT[None, :, None], transformed.mT[None, :, None], gamma=gamma)[0, :, 0].mT


def _cell_contrast(x: Tensor, k: Tensor, positives: Tensor, temperature: float) -> Tensor:
    rows = positives.any(1)
    if not rows.any():
        return 0.0 * x.sum()
    shares = (normalize(x) @ normalize(k).mT / temperature).log_softmax(1)[rows]
    return -shares.masked_fill(~positives[rows], -torch.inf).logsumexp(1).mean()


def _positives(seed: int, p: int) -> Tensor:
    return _draw(seed + 70, p, p) > 0.3


EXERCISES = {
    2: Exercise(
        prompt="The assignment of cells of two crops.",
        reference=positive_cells,
        cases=[
            Case(
                "one crop twice",
                lambda seed: (_boxes(seed, 1).abs(), _boxes(seed, 1).abs(), 3, 3, 0.7),
                "At 0.7 each cell is the positive of itself alone: neighbors are 0.707 diagonals apart.",
            ),
            Case(
                "random crops, some mirrored",
                lambda seed: (_boxes(seed, 5), _boxes(seed + 50, 5), 5, 5, 0.7),
                "With x0 > x1 the first column lies on the right; a diagonal is positive all the same.",
            ),
            Case(
                "more columns than rows",
                lambda seed: (_boxes(seed, 4), _boxes(seed + 50, 4), 2, 6, 1.0),
                "Cells are counted row by row, and need not be square.",
            ),
            Case(
                "crops of different size",
                lambda seed: (_boxes(seed, 3), torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double().expand(3, 4), 4, 4, 0.7),
                "The unit is the larger of both diagonals, for each image its own.",
            ),
            Case(
                "crops that do not meet",
                lambda seed: (
                    torch.tensor([[0.0, 0.0, 0.2, 0.2]]).double(),
                    torch.tensor([[0.7, 0.7, 0.9, 0.9]]).double(),
                    5,
                    5,
                    0.7,
                ),
                "No pair at all is a possible answer.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Propagation within one map.",
        reference=_propagated,
        cases=[
            Case(
                "gamma 2",
                lambda seed: (_draw(seed, 6, 4), _draw(seed + 50, 6, 4), 2.0),
                "Weights are cosines, negative ones 0, to the power gamma; the result has rows of length one.",
            ),
            Case(
                "other width",
                lambda seed: (_draw(seed, 5, 4), 3 * _draw(seed + 50, 5, 7), 1.0),
                "What is mixed is normalized, too, and may have another width.",
            ),
            Case(
                "one cell",
                lambda seed: (_draw(seed, 1, 3), _draw(seed + 50, 1, 3), 2.0),
                "A single cell becomes its own transformed direction.",
            ),
            Case(
                "a large gamma",
                lambda seed: (_draw(seed, 6, 4), _draw(seed + 50, 6, 4), 500.0),
                "Each cell is left by itself; rounding must not lift a cosine above 1.",
            ),
        ],
    ),
    4: Exercise(
        prompt="The contrast of the cells of one image, in one direction.",
        reference=_cell_contrast,
        cases=[
            Case(
                "random cells",
                lambda seed: (_draw(seed, 6, 4), _draw(seed + 50, 6, 4), _positives(seed, 6), 0.3),
                "The sum over positives stands inside the logarithm.",
            ),
            Case(
                "a cell without a positive",
                lambda seed: (
                    _draw(seed, 5, 4),
                    _draw(seed + 50, 5, 4),
                    _positives(seed, 5) & (torch.arange(5) > 1)[:, None],
                    0.3,
                ),
                "Cells without a positive are not in the mean.",
            ),
            Case(
                "crops that do not meet",
                lambda seed: (_draw(seed, 4, 3), _draw(seed + 50, 4, 3), torch.zeros(4, 4, dtype=torch.bool), 0.3),
                "Nothing to compare costs nothing: 0, not NaN.",
            ),
            Case(
                "every cell is a positive",
                lambda seed: (_draw(seed, 4, 3), _draw(seed + 50, 4, 3), torch.ones(4, 4, dtype=torch.bool), 0.3),
                "Then nothing can be wrong: 0.",
            ),
            Case(
                "a very low temperature",
                lambda seed: (_draw(seed, 6, 4), _draw(seed + 50, 6, 4), _positives(seed, 6), 0.001),
                "Exponentials of 1,000 overflow: use logsumexp.",
            ),
        ],
    ),
}
