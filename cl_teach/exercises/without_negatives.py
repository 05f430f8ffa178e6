"""Exercises of chapter 2.3, Without negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..theory.linear_byol import fixed_points
from . import Case, Exercise


def forgetting_rate(signal: float, noise: float, weight_decay: float, target_rate: float) -> float:
    r"""How fast linear BYOL *without a predictor* forgets a mode, when the target follows at a finite rate.

    :math:`\dot w = x w_a - (x + x' + \eta) w`, :math:`\dot w_a = \beta (w - w_a)`: the slower of the two rates.

    Args:
        signal: :math:`x \ge 0`, what the views share.
        noise: :math:`x' \ge 0`, what differs between them.
        weight_decay: :math:`\eta \ge 0`.
        target_rate: :math:`\beta > 0`.

    Returns:
        A rate, at least 0.
    """
    trace = signal + noise + weight_decay + target_rate
    product = target_rate * (noise + weight_decay)
    return 2 * product / (trace + math.sqrt(trace**2 - 4 * product))  # without a difference of near numbers


def where_it_ends(p: Tensor, s: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    r"""Where modes end without weight decay, from the conserved :math:`s - p^2` (target scale and rate 1).

    Args:
        p: ``(n,)`` eigenvalues of the predictor, at least 0.
        s: ``(n,)`` eigenvalues of the correlation, greater than 0.
        noise: variance that the augmentation adds.

    Returns:
        End values of p and of s.
    """
    kept = s - p.square()
    alive = 1 / (1 + noise)
    lives = kept + alive**2 > 0
    return torch.where(lives, alive, (-kept).clamp_min(0).sqrt()), torch.where(lives, kept + alive**2, 0.0)


def rescue(s: float, largest: float, noise: float, weight_decay: float) -> float:
    """The smallest lift with which DirectPred (paper's form) keeps a mode from falling at once.

    Args:
        s: eigenvalue of the weak mode.
        largest: largest eigenvalue of the correlation.
        noise: variance that the augmentation adds.
        weight_decay: of all weights.

    Returns:
        Epsilon, 0 if the mode needs no help, infinite if no lift can help.
    """
    watershed = fixed_points(noise=noise, weight_decay=weight_decay).unstable
    return math.inf if watershed is None else max(0.0, (watershed - math.sqrt(s)) / largest)


def _uniform(seed: int, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXERCISES = {
    1: Exercise(
        prompt="The rate at which a mode is forgotten without a predictor, behind a slow target.",
        reference=forgetting_rate,
        cases=[
            Case(
                "a moderate target",
                lambda seed: (1.0, 0.2 + 0.1 * seed, 0.01, 0.4),
                "Write the two equations as a matrix. Its eigenvalues are negative; the one nearer to 0 is the answer.",
            ),
            Case(
                "a very slow target",
                lambda seed: (1.0, 0.2, 0.01, 1e-9),
                "Two near numbers are subtracted here: multiply root and conjugate.",
            ),
            Case(
                "a very fast target",
                lambda seed: (1.0, 0.2, 0.05, 1e6),
                "The target is the network itself then, and the rate noise plus weight decay.",
            ),
            Case(
                "neither noise nor weight decay",
                lambda seed: (1.0, 0.0, 0.0, 0.4),
                "Nothing decays: online network and target can agree on anything.",
            ),
        ],
    ),
    2: Exercise(
        prompt="Where a mode ends when there is no weight decay.",
        reference=where_it_ends,
        cases=[
            Case(
                "modes that live",
                lambda seed: (_uniform(seed, 5, 0.0, 0.7), _uniform(seed + 9, 5, 0.1, 1.0), 0.2),
                "Without weight decay s - p^2 is conserved, and a mode that lives ends where the bracket is 0.",
            ),
            Case(
                "predictors that are too large",
                lambda seed: (_uniform(seed, 5, 1.2, 2.0), _uniform(seed + 9, 5, 0.01, 0.3), 0.2),
                "s cannot become negative: if the invariant asks for that, the mode stops where s reaches 0.",
            ),
            Case(
                "no noise",
                lambda seed: (_uniform(seed, 5, 0.0, 1.5), _uniform(seed + 9, 5, 0.01, 1.0), 0.0),
                "A mode lives if s - p^2 > -1 / (1 + noise)^2 at the start.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The smallest epsilon with which DirectPred keeps a weak mode.",
        reference=rescue,
        cases=[
            Case(
                "a weak mode",
                lambda seed: (1e-5 * (seed + 1), 0.6, 0.2, 0.01),
                "The mode's own predictor eigenvalue is sqrt(s) + epsilon * largest; it has to pass the watershed.",
            ),
            Case(
                "a mode above the watershed",
                lambda seed: (0.01, 0.6, 0.2, 0.01),
                "Such a mode grows without help: the answer is 0, not a negative number.",
            ),
            Case(
                "a weight decay that kills everything",
                lambda seed: (0.01, 0.6, 0.2, 0.3),
                "Without rest points there is no watershed to pass, and no lift helps: math.inf.",
            ),
        ],
    ),
}
