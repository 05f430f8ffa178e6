"""Exercises of chapter 7.2, Which part does the work?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import Case, Exercise


def redundancy(image: Tensor, text: Tensor, off_diagonal: float) -> float:
    """BarLIP without its scale: cross-correlation of an image's and its text's projections against the identity.

    Args:
        image: ``(N, D)``, every column with mean 0 and variance 1.
        text: ``(N, D)``, likewise.
        off_diagonal: weight of the entries beside the diagonal.
    """
    c = image.mT @ text / len(image)
    own = c.diagonal()
    return float((own - 1).square().sum() + off_diagonal * (c.square().sum() - own.square().sum()))


def drop_keys(logits: Tensor, dropped: Tensor) -> Tensor:
    """Attention weights when keys are lost before the softmax.

    Args:
        logits: ``(T, T)``, queries in rows.
        dropped: ``(T, T)`` boolean; no row loses all.

    Returns:
        ``(T, T)``, every row sums to 1.
    """
    return logits.masked_fill(dropped, -math.inf).softmax(1)


def modality_gap(first: Tensor, second: Tensor) -> float:
    """Distance between the mean embeddings of two modalities, each embedding scaled to length one before.

    Args:
        first: ``(N, d)``.
        second: ``(M, d)``.
    """
    a, b = (torch.nn.functional.normalize(x, dim=1).mean(0) for x in (first, second))
    return float((a - b).norm())


def _standard(seed: int, n: int = 12, d: int = 3) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x - x.mean(0)) / x.std(0, correction=0)


def _logits(seed: int, rate: float) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    dropped = torch.rand(4, 4, generator=draws) < rate
    dropped[:, 0] = False
    return torch.randn(4, 4, generator=draws, dtype=torch.float64), dropped


def _rows(seed: int, n: int) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EXERCISES = {
    2: Exercise(
        prompt="Redundancy reduction between an image and its text.",
        reference=redundancy,
        cases=[
            Case(
                "unrelated projections",
                lambda seed: (_standard(seed), _standard(seed + 50), 0.01),
                "The cross-correlation is image.T @ text / N; its diagonal should be 1, the rest 0.",
            ),
            Case(
                "equal projections",
                lambda seed: (_standard(seed), _standard(seed), 0.01),
                "Then the diagonal is exactly 1, and only what is beside it costs.",
            ),
            Case(
                "one channel with the wrong sign",
                lambda seed: (
                    _standard(seed),
                    _standard(seed) * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64),
                    0.0,
                ),
                "A correlation of -1 is 2 away from 1, so it costs 4.",
            ),
        ],
    ),
    3: Exercise(
        prompt="Attention that loses keys.",
        reference=drop_keys,
        cases=[
            Case(
                "some keys lost",
                lambda seed: _logits(seed, 0.4),
                "Take the key out before the softmax: a weight that is set to 0 afterward leaves a row below 1.",
            ),
            Case("no key lost", lambda seed: _logits(seed, 0.0), "Then it is plain attention."),
            Case("all but one lost", lambda seed: _logits(seed, 1.1), "What is left gets everything, exactly 1."),
            Case(
                "large logits",
                lambda seed: (1000 * _logits(seed, 0.4)[0], _logits(seed, 0.4)[1]),
                "A large negative number instead of -inf is not large enough here.",
            ),
        ],
    ),
    4: Exercise(
        prompt="The gap between two modalities.",
        reference=modality_gap,
        cases=[
            Case("random embeddings", lambda seed: (_rows(seed, 7), _rows(seed + 50, 9)), "Normalize, then average."),
            Case(
                "the same embeddings",
                lambda seed: (_rows(seed, 7), _rows(seed, 7)),
                "The gap of a cloud to itself is 0.",
            ),
            Case(
                "two opposite points",
                lambda seed: (_rows(seed, 1), -3 * _rows(seed, 1)),
                "Two unit vectors that point apart are 2 apart, whatever their length was.",
            ),
        ],
    ),
}
