"""Exercises of chapter 5.2, Labels are numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..labels.conr import disagreements, rarity_weights
from . import Case, Exercise


def share_below(below: float, label: float, above: float) -> float:
    """Weight of the smaller partner so that the mixture of two labels is the anchor's label.

    Args:
        below: label smaller than ``label``.
        label: of the anchor.
        above: label larger than ``label``.
    """
    return (above - label) / (above - below)


def far_but_alike(labels: Tensor, predictions: Tensor, window: float) -> Tensor:
    """Which pairs have far labels but near predictions.

    Args:
        labels: ``(n,)`` numbers.
        predictions: ``(n,)`` numbers.
        window: largest distance that counts as near.

    Returns:
        ``(n, n)`` boolean.
    """
    return disagreements(labels, predictions, window).negatives


def rarity(labels: Tensor, bins: int, power: float) -> Tensor:
    """Inverse frequency of each label's bin to a power, with mean 1.

    Args:
        labels: ``(n,)`` numbers.
        bins: equal bins from the smallest to the largest label.
        power: exponent.

    Returns:
        ``(n,)``.
    """
    return rarity_weights(labels, bins, power=power)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXERCISES = {
    1: Exercise(
        prompt="The share of the smaller label in a mixed positive.",
        reference=share_below,
        cases=[
            Case(
                "in the middle", lambda seed: (20.0, 30.0, 40.0), "Solve share * below + (1 - share) * above = label."
            ),
            Case("nearer to the larger", lambda seed: (10.0, 19.0, 20.0), "The nearer partner has the larger share."),
            Case("negative labels", lambda seed: (-7.0, -1.0, 5.0), "Only differences of labels matter."),
        ],
    ),
    3: Exercise(
        prompt="Pairs with far labels but near predictions.",
        reference=far_but_alike,
        cases=[
            Case(
                "random",
                lambda seed: (10 * _draw(seed, 9), 10 * _draw(seed + 1, 9), 4.0),
                "Two (n, n) tables of distances.",
            ),
            Case("right predictions", lambda seed: (_draw(seed, 5), _draw(seed, 5), 0.5), "Then no pair disagrees."),
            Case(
                "all predictions alike",
                lambda seed: (torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.zeros(4), 1.0),
                "A distance of exactly the window is near.",
            ),
            Case(
                "one row",
                lambda seed: (_draw(seed, 1), _draw(seed + 1, 1), 1.0),
                "A row does not disagree with itself.",
            ),
        ],
    ),
    4: Exercise(
        prompt="Weights from the rarity of labels.",
        reference=rarity,
        cases=[
            Case(
                "a long tail",
                lambda seed: (_draw(seed, 60).abs(), 6, 0.5),
                "bin = floor((y - min) / (max - min) * bins), the largest in the last bin. Divide by the mean.",
            ),
            Case("power 0", lambda seed: (_draw(seed, 12), 4, 0.0), "All weights are 1."),
            Case("inverse frequency", lambda seed: (_draw(seed, 40), 5, 1.0), "Count the rows in each bin."),
            Case("two labels", lambda seed: (torch.tensor([1.0, 1.0, 1.0, 9.0]), 8, 1.0), "Empty bins weigh nothing."),
            Case(
                "all labels equal",
                lambda seed: (torch.full((5,), 3.0), 4, 0.5),
                "The range is zero: one bin, weight 1.",
            ),
        ],
    ),
}
