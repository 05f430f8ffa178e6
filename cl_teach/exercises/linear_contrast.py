"""Exercises of chapter 2.2, A contrastive learner that can be solved."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def deep_escape_time(c: Tensor, start: float, depth: int) -> Tensor:
    r"""Time at which the early growth of a balanced network of ``depth`` linear layers blows up.

    Balanced layers of size :math:`a = s^{1/L}` give :math:`\dot s = 4 L s^{3-2/L}(c - m^2 s^2)`. Without the second
    term the solution reaches infinity at

    .. math:: t = \frac{1}{8 c (L-1) s_0^{2-2/L}},

    which is never for a single layer, whose growth is exponential.

    Args:
        c: ``(n,)`` signal of each feature, at least 0.
        start: end-to-end weight :math:`s_0 > 0` at time 0.
        depth: number of layers :math:`L`, at least 1.

    Returns:
        ``(n,)``, infinite where nothing blows up.

    Source: derived in the chapter.
    """
    return 1 / (8 * c * (depth - 1) * start ** (2 - 2 / depth))


def decayed_one_layer_weight(times: Tensor, c: Tensor, m: Tensor, start: float, weight_decay: float) -> Tensor:
    r"""Squared weight of one linear layer under the spectral loss plus :math:`\frac\lambda2\lVert W\rVert^2`.

    :math:`\dot y = 8y(k - m^2 y)` with :math:`k = c - \lambda/4`, a logistic curve whose rate may be zero or negative:

    .. math:: y(t) = \frac{y_0}{e^{-8kt} + m^2 y_0 \, (1 - e^{-8kt})/k}.

    Args:
        times: ``(k,)``, at least 0.
        c: ``(n,)`` signal, at least 0.
        m: ``(n,)`` variance, greater than 0.
        start: :math:`y_0 > 0`.
        weight_decay: :math:`\lambda \ge 0`.

    Returns:
        ``(n, k)``.

    Source: derived in the chapter.
    """
    rate = (c - weight_decay / 4)[:, None]  # (n, 1)
    t = times[None, :]
    # (1 - exp(-8 k t)) / k, which is 8 t at k = 0
    grown = torch.where(rate == 0, 8 * t, -torch.expm1(-8 * rate * t) / torch.where(rate == 0, 1.0, rate))
    return start / (torch.exp(-8 * rate * t) + m[:, None].square() * start * grown)


def _draw(seed: int, n: int = 4, low: float = 0.2, high: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def _decay_case(seed: int, weight_decay: float) -> tuple[Tensor, Tensor, Tensor, float, float]:
    times = torch.linspace(0, 3, 7, dtype=torch.float64)
    return times, _draw(seed), _draw(seed + 10, low=0.5), 1e-3, weight_decay


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        prompt="Escape time of a balanced network of L linear layers.",
        reference=deep_escape_time,
        cases=[
            Case(
                "two layers",
                lambda seed: (_draw(seed), 0.02, 2),
                "Two layers must give 1 / (8 c s_0). Integrate ds / s^(3 - 2/L) = 4 L c dt from s_0 to infinity.",
            ),
            Case(
                "three and more layers",
                lambda seed: (_draw(seed), 0.05, 3 + seed),
                "The integral of s^-(3 - 2/L) from s_0 to infinity is s_0^-(2 - 2/L) / (2 - 2/L). What does 4 L times "
                "(2 - 2/L) simplify to?",
            ),
            Case(
                "a single layer",
                lambda seed: (_draw(seed), 0.02, 1),
                "One layer grows exponentially and never blows up: the answer is infinite, not an error.",
            ),
            Case(
                "a feature without signal",
                lambda seed: (torch.cat([torch.zeros(1, dtype=torch.float64), _draw(seed, 2)]), 0.1, 2),
                "Where c = 0 nothing grows: return infinity there and the usual value elsewhere.",
            ),
        ],
    ),
    2: Exercise(
        prompt="One linear layer with weight decay.",
        reference=decayed_one_layer_weight,
        cases=[
            Case(
                "no weight decay",
                lambda seed: _decay_case(seed, 0.0),
                "This is the logistic curve of the chapter. Is the result of shape (features, times)?",
            ),
            Case(
                "a little weight decay",
                lambda seed: _decay_case(seed, 0.3),
                "The penalty adds lambda w to the gradient of w, hence -2 lambda y to the derivative of y = w^2. Which "
                "constant replaces c?",
            ),
            Case(
                "more weight decay than signal",
                lambda seed: _decay_case(seed, 20.0),
                "The rate c - lambda/4 is now negative. The same formula holds, with y falling to 0; do not clamp it.",
            ),
            Case(
                "weight decay exactly 4 c",
                lambda seed: (
                    torch.linspace(0, 3, 7, dtype=torch.float64),
                    torch.full((3,), 0.5 * (1 + seed), dtype=torch.float64),
                    _draw(seed + 10, 3, low=0.5),
                    0.5,
                    2.0 * (1 + seed),
                ),
                "The rate is 0 and (1 - exp(-8 k t)) / k is 0/0. Its limit is 8 t.",
            ),
        ],
    ),
}

__all__ = ["EXERCISES", "decayed_one_layer_weight", "deep_escape_time"]
