"""Exercises of chapter 10.3, Several rewards, each right up to a point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import Case, Exercise


def multiplier_step(raw: Tensor, rewards: Tensor, thresholds: Tensor, rate: float) -> Tensor:
    """One step of plain gradient descent of the multipliers of xi-PPO.

    Args:
        raw: ``(N,)`` before.
        rewards: ``(N,)`` means.
        thresholds: ``(N,)``.
        rate: of the step.

    Returns:
        ``(N,)``.
    """
    return raw - rate * (1 - raw.tanh() ** 2) * (rewards - thresholds)


def mix(constraints: Tensor, near: Tensor, weights: Tensor) -> Tensor:
    """Mixed advantage of rewards and of staying near the reference.

    Args:
        constraints: ``(B, N)``.
        near: ``(B,)``.
        weights: ``(N,)``.

    Returns:
        ``(B,)``.
    """

    def standard(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1e-8)

    return (len(weights) - weights.sum()) * standard(near) + standard(constraints) @ weights


def _step(seed: int, raw: float | None = None) -> tuple[Any, ...]:
    draws = torch.Generator().manual_seed(seed)
    start, rewards, thresholds = torch.rand(3, 3, generator=draws, dtype=torch.float64)
    return (start if raw is None else torch.full_like(start, raw)), rewards, thresholds, 0.3


def _batch(seed: int, n: int = 2, weight: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    constraints = 3 + 2 * torch.randn(8, n, generator=draws, dtype=torch.float64)
    near = torch.randn(8, generator=draws, dtype=torch.float64)
    weights = torch.rand(n, generator=draws, dtype=torch.float64)
    return constraints, near, weights if weight is None else torch.full_like(weights, weight)


EXERCISES = {
    2: Exercise(
        prompt="One step of the multipliers of xi-PPO.",
        reference=multiplier_step,
        cases=[
            Case("random multipliers", _step, "The gradient is (J - theta) times the derivative of tanh."),
            Case(
                "multipliers at zero",
                lambda seed: _step(seed, 0.0),
                "There tanh has slope 1: each moves by minus rate times its violation; below the threshold it rises.",
            ),
            Case(
                "saturated multipliers",
                lambda seed: _step(seed, -6.0),
                "Far from zero tanh is flat, so such a multiplier hardly moves; do not forget the slope.",
            ),
            Case(
                "thresholds met exactly",
                lambda seed: (_step(seed)[0], _step(seed)[1], _step(seed)[1], 0.3),
                "No violation, no step.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The mixed advantage.",
        reference=mix,
        cases=[
            Case("two rewards", _batch, "Standardize every channel over the batch, then mix."),
            Case(
                "weights of 1",
                lambda seed: _batch(seed, weight=1.0),
                "With all weights 1 nothing is left for staying near.",
            ),
            Case(
                "weights of 0",
                lambda seed: _batch(seed, weight=0.0),
                "With all weights 0 staying near counts N times, here twice.",
            ),
            Case(
                "negative weights",
                lambda seed: _batch(seed, 3, -0.5),
                "tanh may be negative; the weight of staying near is then more than N.",
            ),
            Case(
                "a reward that never differs",
                lambda seed: (torch.ones(5, 1), torch.arange(5.0), torch.tensor([0.3])),
                "A deviation of 0: add 1e-8 to it, and the channel is 0.",
            ),
        ],
    ),
}
