"""Vectors of which one knows what they were made from: easy and hard features, common and salient factors, subjects.

All of them are drawn, a new set at every call, from a generator on the CPU (the global state of torch if None).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_generator, check_in_range, check_positive, check_type
from ..core.similarity import normalize

__all__ = [
    "Factors",
    "Subjects",
    "TwoFeatures",
    "draw_factors",
    "draw_intervals",
    "draw_subjects",
    "draw_two_features",
]


class TwoFeatures(NamedTuple):
    """Samples with an easy and a hard feature.

    Attributes:
        x: ``(n, 2 * width)``, the easy feature in the first half of the columns.
        easy: ``(n,)`` its class.
        hard: ``(n,)`` class of the hard feature.
    """

    x: Tensor
    easy: Tensor
    hard: Tensor


def draw_two_features(
    n: int,
    classes: tuple[int, int] = (5, 4),
    amplitudes: tuple[float, float] = (1.5, 0.6),
    *,
    width: int = 20,
    noise: float = 0.05,
    generator: torch.Generator | None = None,
) -> TwoFeatures:
    """Draw two independent classes a sample, each shown by a random vector of its own length, plus noise.

    Args:
        n: samples.
        classes: of the easy and of the hard feature.
        amplitudes: lengths of their vectors.
        width: columns of each.
        noise: standard deviation.
        generator: on the CPU.

    Example:
        >>> data = draw_two_features(100)
        >>> data.x.shape, int(data.easy.max()), int(data.hard.max())
        (torch.Size([100, 40]), 4, 3)
    """
    check_count(n=n, width=width)
    check_type((tuple, list), classes=classes, amplitudes=amplitudes)
    if len(classes) != 2 or len(amplitudes) != 2:
        name, came = ("classes", classes) if len(classes) != 2 else ("amplitudes", amplitudes)
        raise ValueError(f"{name}: expected two numbers, one a feature, got {len(came)}")
    check_count(**{f"classes[{i}]": k for i, k in enumerate(classes)})
    check_positive(**{f"amplitudes[{i}]": a for i, a in enumerate(amplitudes)})
    check_in_range(0, 1e6, noise=noise)
    check_generator(generator)
    labels = [torch.randint(k, (n,), generator=generator) for k in classes]
    tables = [
        a * normalize(torch.randn(k, width, generator=generator)) for a, k in zip(amplitudes, classes, strict=True)
    ]
    x = torch.cat([table[y] for table, y in zip(tables, labels, strict=True)], 1)
    return TwoFeatures(x + noise * torch.randn(x.shape, generator=generator), *labels)


class Factors(NamedTuple):
    """Samples that mix common and salient factors.

    Attributes:
        x: ``(n, d)`` data.
        labels: ``(n,)`` 1 for a target, 0 for background.
        common: ``(n, common_dim)`` factors of all samples.
        salient: ``(n, salient_dim)`` factors that only targets show.
    """

    x: Tensor
    labels: Tensor
    common: Tensor
    salient: Tensor


def draw_factors(
    n: int, d: int = 20, common_dim: int = 3, salient_dim: int = 2, *, generator: torch.Generator | None = None
) -> Factors:
    """Draw x = A c + y B s with Gaussian factors and random A and B; y is 1 for every second sample.

    Two calls draw different A and B: split one draw to get training and test data.

    Example:
        >>> data = draw_factors(100)
        >>> int(torch.linalg.matrix_rank(data.x[data.labels == 0])), int(torch.linalg.matrix_rank(data.x))
        (3, 5)
    """
    check_count(n=n, d=d, common_dim=common_dim, salient_dim=salient_dim)
    check_generator(generator)
    a, b = (torch.randn(k, d, generator=generator) for k in (common_dim, salient_dim))
    common, salient = (torch.randn(n, k, generator=generator) for k in (common_dim, salient_dim))
    labels = torch.arange(n) % 2
    return Factors(common @ a + labels[:, None] * (salient @ b), labels, common, salient)


class Subjects(NamedTuple):
    """Pictures of subjects from many sides.

    Attributes:
        pictures: ``(subjects, frames, dim)``.
        subject: ``(subjects, factors)`` what all pictures of a subject share.
        view: ``(subjects, frames, factors)`` what differs between them.
    """

    pictures: Tensor
    subject: Tensor
    view: Tensor


def draw_subjects(
    subjects: int,
    frames: int,
    dim: int = 32,
    factors: int = 6,
    *,
    gain: float = 0.4,
    view_std: float = 1.5,
    noise: float = 0.05,
    generator: torch.Generator | None = None,
) -> Subjects:
    """Draw pictures tanh(gain (A s + B v)) + noise, s standard normal, v of standard deviation ``view_std``."""
    check_count(subjects=subjects, frames=frames, dim=dim, factors=factors)
    check_in_range(0, 1e6, gain=gain, view_std=view_std, noise=noise)
    check_generator(generator)
    a, b = (torch.randn(factors, dim, generator=generator) for _ in range(2))
    s = torch.randn(subjects, factors, generator=generator)
    v = view_std * torch.randn(subjects, frames, factors, generator=generator)
    clean = torch.tanh(gain * ((s @ a)[:, None] + v @ b))
    return Subjects(clean + noise * torch.randn(clean.shape, generator=generator), s, v)


def draw_intervals(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Points ``(n,)`` float64 of two classes, uniform on [0.02, 0.44] and [0.56, 0.98], and their labels."""
    check_count(n=n)
    check_generator(generator)
    labels = torch.arange(n) % 2
    return 0.02 + 0.54 * labels + 0.42 * torch.rand(n, generator=generator, dtype=torch.float64), labels
