"""Exercises of chapter 3.1, Weights and decoupling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise


def coupling(similarity: Tensor, temperature: float) -> Tensor:
    """Negative-positive-coupling multiplier of every row; positives on the diagonal of a square matrix.

    Args:
        similarity: ``(n, n)`` cosines, n at least 2.
        temperature: greater than 0.

    Returns:
        ``(n,)`` in (0, 1).
    """
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    logits = similarity / temperature
    return torch.sigmoid(logits.masked_fill(itself, -math.inf).logsumexp(1) - logits.diagonal())


def negatives_needed(lead: float, temperature: float, q: float) -> float:
    """Number of equal negatives at which the multiplier is q.

    Args:
        lead: cosine of the positive minus that of the negatives.
        temperature: greater than 0.
        q: in (0, 1).

    Returns:
        A positive number, not rounded.
    """
    return q / (1 - q) * math.exp(lead / temperature)


def attached_force(c: Tensor, sharpness: float) -> Tensor:
    """Gradient of the softmax-weighted mean of costs, through the weights.

    Args:
        c: ``(m,)`` costs.
        sharpness: factor of the costs in the softmax, of either sign.

    Returns:
        ``(m,)``, sums to 1.
    """
    share = (sharpness * c).softmax(0)
    return share * (1 + sharpness * (c - (share * c).sum()))


def _square(seed: int, n: int = 6) -> Tensor:
    z = torch.nn.functional.normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed)), dim=1)
    w = torch.nn.functional.normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed + 99)), dim=1)
    return z @ w.T


def _costs(seed: int, n: int = 6) -> Tensor:
    return 4 * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXERCISES = {
    1: Exercise(
        prompt="The coupling multiplier of every anchor, with all its digits.",
        reference=coupling,
        atol=1e-12,
        cases=[
            Case(
                "random similarities",
                lambda seed: (_square(seed), 0.3),
                "Sum of the negatives over the sum of everything; the positive of row i is entry (i, i).",
            ),
            Case(
                "a positive far ahead, in float32",
                lambda seed: (0.1 * _square(seed) + 0.9 * torch.eye(6), 0.04),
                "1 - p is a difference of two nearly equal numbers. Write q as a sigmoid of log U minus the positive.",
            ),
            Case(
                "a temperature of 0.005",
                lambda seed: (_square(seed), 0.005),
                "exp(s / temperature) overflows here. Use logsumexp.",
            ),
            Case(
                "all similarities alike",
                lambda seed: (torch.full((5, 5), 0.3), 0.1),
                "With n - 1 negatives as close as the positive, q is (n - 1) / n.",
            ),
        ],
    ),
    2: Exercise(
        prompt="How many negatives a multiplier needs.",
        reference=negatives_needed,
        cases=[
            Case(
                "nine tenths",
                lambda seed: (0.1 * (seed + 1), 0.1, 0.9),
                "Solve q = M / (exp(lead / temperature) + M) for M.",
            ),
            Case("no lead", lambda seed: (0.0, 0.1, 0.5), "One negative as close as the positive takes half."),
            Case(
                "negatives ahead of the positive",
                lambda seed: (-0.3, 0.1, 0.2 + 0.2 * seed),
                "A negative lead is allowed: fewer negatives are needed, and the answer may be below 1.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The force that flows through a softmax weight.",
        reference=attached_force,
        cases=[
            Case(
                "attraction",
                lambda seed: (_costs(seed), 1.0),
                "weight * (1 + t * (c - mean)), where the mean is the weighted one.",
            ),
            Case(
                "repulsion: a negative sharpness",
                lambda seed: (_costs(seed), -2.0),
                "The sign of the sharpness goes into the softmax and into the bracket.",
            ),
            Case("sharpness 0", lambda seed: (_costs(seed), 0.0), "Plain mean: every cost gets 1 / m."),
            Case("a single cost", lambda seed: (_costs(seed, 1), 3.0), "One cost is its own mean: the force is 1."),
            Case(
                "a sharpness of 1000",
                lambda seed: (_costs(seed), 1000.0),
                "exp(1000 c) overflows. Use softmax.",
            ),
        ],
    ),
}
