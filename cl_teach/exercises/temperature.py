"""Exercises of chapter 2.1, Temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from ..theory.contrastive_loss_behaviour import contrast_terms, penalty_entropy
from . import Case, Exercise


def push_on_sphere(anchors: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """How far each negative drives each anchor along the sphere, per unit of step; 0 for the positive.

    A gradient of p / temperature in the cosine becomes one of p / temperature times the length of the part of the key
    that is at a right angle to the anchor, sqrt(1 - cosine^2).

    Args:
        anchors: ``(n, d)`` unit vectors.
        keys: ``(n, d)`` unit vectors, row i the positive of anchor i.
        temperature: greater than 0.

    Returns:
        ``(n, n)``.
    """
    cosine = anchors @ keys.mT
    share = (cosine / temperature).softmax(1).fill_diagonal_(0)
    return share / temperature * (1 - cosine.square()).clamp_min(0).sqrt()


def temperature_for(cosines: Tensor, effective: float) -> Tensor:
    """The temperature at which an anchor has a given effective number of negatives.

    The entropy rises with the temperature, so the interval can be halved, on a logarithmic scale.

    Args:
        cosines: ``(n, m)`` of the negatives of each anchor.
        effective: number of negatives, between 1 and m.

    Returns:
        ``(n,)`` between 1e-3 and 1e3.
    """
    low, high = torch.full((2, len(cosines)), 1e-3, dtype=cosines.dtype)
    high = 1e6 * high
    for _ in range(80):
        middle = (low * high).sqrt()
        many = penalty_entropy((cosines / middle[:, None]).softmax(1)).exp() > effective
        low, high = torch.where(many, low, middle), torch.where(many, middle, high)
    return (low * high).sqrt()


def calibrated_temperature(similarity: Tensor) -> float:
    """The temperature at which the mean loss of fixed features is lowest.

    The loss is convex in 1 / temperature, and its slope there is the mean cosine that the softmax expects minus the
    mean cosine of the positives.

    Args:
        similarity: ``(n, n)`` cosines, the positives on the diagonal; at least one positive is beaten by a negative.

    Returns:
        A temperature between 1e-3 and 1e3.
    """
    low, high = 1e-3, 1e3  # of 1 / temperature
    for _ in range(80):
        b = (low * high) ** 0.5
        expected = (contrast_terms(similarity, 1 / b).probability * similarity).sum(1)
        low, high = (low, b) if float((expected - similarity.diagonal()).mean()) > 0 else (b, high)
    return (low * high) ** -0.5


def _unit(seed: int, n: int = 6, d: int = 5) -> Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z / z.norm(dim=1, keepdim=True)


def _square(seed: int, n: int = 6) -> Tensor:
    return _unit(seed, n) @ _unit(seed + 99, n).mT


EXERCISES = {
    1: Exercise(
        prompt="How far each negative drives each anchor along the sphere.",
        reference=push_on_sphere,
        cases=[
            Case(
                "random embeddings",
                lambda seed: (_unit(seed), _unit(seed + 50), 0.3),
                "The softmax is over all keys, the positive included; its own column counts as 0 afterward.",
            ),
            Case(
                "a negative that equals its anchor",
                lambda seed: (_unit(seed), _unit(seed).roll(1, 0), 0.2),
                "Equal vectors cannot be told where to go: the push is 0, and round-off must not make it NaN.",
            ),
            Case(
                "a temperature of 0.002",
                lambda seed: (_unit(seed), _unit(seed + 50), 0.002),
                "exp(cosine / temperature) overflows here; softmax does not.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The temperature at which an anchor has a given effective number of negatives.",
        reference=temperature_for,
        cases=[
            Case(
                "six negatives, three effective",
                lambda seed: (_square(seed), 3.0),
                "The entropy never falls as the temperature rises: halve an interval until the entropy is log 3.",
            ),
            Case(
                "nearly all of them",
                lambda seed: (_square(seed), 5.9),
                "Start from an interval that is wide enough, and halve it on a logarithmic scale.",
            ),
            Case(
                "cosines that differ by little",
                lambda seed: (0.01 * _square(seed) + 0.9, 2.0),
                "Only differences over the temperature count: the answer is a hundredth of that without the factor.",
            ),
        ],
        rtol=1e-3,
    ),
    3: Exercise(
        prompt="The temperature at which fixed features have the lowest mean loss.",
        reference=calibrated_temperature,
        cases=[
            Case(
                "random similarities, positives a little ahead",
                lambda seed: (_square(seed, 12) * 0.5 + 0.2 * torch.eye(12, dtype=torch.float64),),
                "Differentiate by b = 1 / temperature: expected minus positive cosine, on average. Find the zero.",
            ),
            Case(
                "half of the spread",
                lambda seed: (_square(seed, 12) * 0.25 + 0.1 * torch.eye(12, dtype=torch.float64),),
                "The loss sees only s / temperature: half of the spread, half of the temperature.",
            ),
        ],
        rtol=1e-3,
    ),
}
