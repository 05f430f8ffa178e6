"""Exercises of chapter 2.3, Without negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..theory.directpred import predictor_weights
from ..theory.linear_byol import decoupled_flow
from . import Case, Exercise


def mode_flow(p: Tensor, s: Tensor, weight_decay: float, noise: float) -> tuple[Tensor, Tensor]:
    """Time derivatives of one mode with target scale 1 and predictor rate 1.

    Args:
        p: eigenvalues of the predictor.
        s: eigenvalues of the correlation.
        weight_decay: of all weights.
        noise: variance that the augmentation adds.

    Returns:
        The derivatives of p and of s.
    """
    return decoupled_flow(p, s, weight_decay=weight_decay, noise=noise)


def largest_decay(noise: float) -> float:
    """The weight decay beyond which every mode collapses (target scale 1).

    Args:
        noise: variance that the augmentation adds, at least 0.

    Returns:
        The threshold.
    """
    return 1 / (4 * (1 + noise))


def directpred(correlation: Tensor, epsilon: float) -> Tensor:
    """The predictor of the paper's rule.

    Args:
        correlation: ``(d, d)`` symmetric, positive semi-definite up to round-off.
        epsilon: at least 0.

    Returns:
        ``(d, d)``.
    """
    return predictor_weights(correlation, epsilon=epsilon, form="paper")


def _positive(seed: int, rank: int = 4) -> Tensor:
    f = torch.randn(20, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)).Q
    return basis[:, :rank] @ (f.T @ f / 20) @ basis[:, :rank].T


EXERCISES = {
    1: Exercise(
        prompt="The flow of one decoupled mode.",
        reference=mode_flow,
        cases=[
            Case(
                "random modes",
                lambda seed: (*torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)), 0.05, 0.2),
                "Both contain the same bracket, 1 - (1 + noise) p. p gets s times it, s gets 2 p s times it.",
            ),
            Case(
                "at rest in the origin",
                lambda seed: (torch.zeros(3), torch.zeros(3), 0.1, 0.3),
                "The origin is a fixed point: both derivatives are 0 there.",
            ),
            Case(
                "no data, only decay",
                lambda seed: (torch.ones(2), torch.zeros(2), 0.1, 0.0),
                "s = WW^T decays twice as fast as the weights: -2 weight_decay s.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The weight decay beyond which only collapse remains.",
        reference=largest_decay,
        cases=[
            Case(
                "without noise",
                lambda seed: (0.0,),
                "The square root in the fixed points vanishes at 4 decay (1 + noise) = 1.",
            ),
            Case(
                "with noise",
                lambda seed: (0.2 * (seed + 1),),
                "The noise makes the threshold smaller: divide by 1 + noise.",
            ),
            Case("a lot of noise", lambda seed: (math.e,), "Do not round."),
        ],
    ),
    3: Exercise(
        prompt="DirectPred's predictor, by the paper's rule.",
        reference=directpred,
        cases=[
            Case(
                "a full correlation",
                lambda seed: (_positive(seed), 0.1),
                "p = sqrt(s) + epsilon * max(s), with the eigenvectors of the correlation on both sides.",
            ),
            Case(
                "a correlation of rank two",
                lambda seed: (_positive(seed, 2), 0.1),
                "Round-off makes zero eigenvalues slightly negative: clamp them before the root, or you get NaN.",
            ),
            Case(
                "epsilon zero",
                lambda seed: (_positive(seed), 0.0),
                "Without epsilon the predictor is the matrix square root of the correlation.",
            ),
        ],
        atol=1e-5,
    ),
}
