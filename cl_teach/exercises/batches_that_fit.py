"""Exercises of chapter 1.4, Batches that fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise


def merge(m1: Tensor, s1: Tensor, m2: Tensor, s2: Tensor) -> tuple[Tensor, Tensor]:
    """Running log-sums of two parts of each row, put together.

    Args:
        m1: ``(n,)`` largest logits of the first part, minus infinity where it is empty.
        s1: ``(n,)`` sums of exponentials relative to ``m1``, 0 where it is empty.
        m2: ``(n,)`` likewise for the second part.
        s2: ``(n,)`` likewise.

    Returns:
        Largest logits and sums of the whole rows, ``(n,)`` each.
    """
    m = torch.maximum(m1, m2)
    reference = m.masked_fill(m == -math.inf, 0.0)
    return m, s1 * (m1 - reference).exp() + s2 * (m2 - reference).exp()


def softmax_average(logits: Tensor, values: Tensor, side: int) -> Tensor:
    """Average of values under the softmax of each row; the reference takes all columns at once.

    Args:
        logits: ``(n, m)``.
        values: ``(m, d)``.
        side: columns a reader's solution takes at a time; the result does not depend on it.

    Returns:
        ``(n, d)``.
    """
    return logits.softmax(1) @ values


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _part(logits: Tensor) -> tuple[Tensor, Tensor]:
    m = logits.amax(1)
    return m, (logits - m[:, None]).exp().sum(1)


def _parts(seed: int, left: int, right: int, scale: float = 1.0, shift: float = 0.0) -> tuple[Tensor, ...]:
    first, second = scale * _draw(seed, 6, left), scale * _draw(seed + 10, 6, right) + shift
    return *_part(first), *_part(second)


def _empty(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.full((n,), -math.inf), torch.zeros(n)


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        prompt="Merge two partial log-sums.",
        reference=merge,
        cases=[
            Case(
                "six rows, parts of five and three logits",
                lambda seed: _parts(seed, 5, 3),
                "Take the larger maximum and convert each sum by exp(its own maximum minus the new one).",
            ),
            Case(
                "one logit in each part",
                lambda seed: _parts(seed, 1, 1),
                "Each sum is 1; the result is 1 plus the exponential of minus the distance.",
            ),
            Case(
                "logits of several thousand, far apart",
                lambda seed: _parts(seed, 5, 3, scale=1000.0, shift=3000.0),
                "Do not leave the logarithmic scale: exp(m) alone overflows. Only differences of maxima "
                "that are at most 0 may be exponentiated.",
            ),
            Case(
                "the second part is empty",
                lambda seed: (*_part(_draw(seed, 6, 4)), *_empty()),
                "exp(-inf) is 0, as it should be. Which difference is not -inf but NaN?",
            ),
            Case(
                "both parts are empty",
                lambda seed: (*_empty(), *_empty()),
                "-inf - (-inf) is NaN. Subtract something finite instead; the sum is 0 anyway.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The average under a softmax, in one pass over pieces of the columns.",
        reference=softmax_average,
        cases=[
            Case(
                "twelve columns in pieces of four",
                lambda seed: (_draw(seed, 5, 12), _draw(seed + 10, 12, 3), 4),
                "Three running quantities per row: maximum, sum, weighted sum. Divide at the end.",
            ),
            Case(
                "the last piece is smaller",
                lambda seed: (_draw(seed, 5, 11), _draw(seed + 10, 11, 3), 4),
                "split(4) of 11 columns gives pieces of 4, 4 and 3.",
            ),
            Case(
                "pieces of one column",
                lambda seed: (_draw(seed, 4, 6), _draw(seed + 10, 6, 2), 1),
                "Keep the dimension: amax(1, keepdim=True).",
            ),
            Case(
                "one piece larger than the table",
                lambda seed: (_draw(seed, 4, 6), _draw(seed + 10, 6, 2), 100),
                "One pass through the loop must already give the ordinary softmax.",
            ),
            Case(
                "logits of several hundred that rise from piece to piece",
                lambda seed: (
                    100 * _draw(seed, 5, 12) + torch.arange(12) * 50.0,
                    _draw(seed + 10, 12, 3),
                    4,
                ),
                "When the maximum rises, both the sum and the weighted sum are multiplied by "
                "exp(old maximum - new maximum).",
            ),
        ],
    ),
}

__all__ = ["EXERCISES", "merge", "softmax_average"]
