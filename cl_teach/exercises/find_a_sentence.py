"""Exercises of chapter 6.2, How do you spread sentences?"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def center_and_compare(embeddings: Tensor) -> Tensor:
    """Cosines of all pairs after the common offset is taken off.

    Args:
        embeddings: ``(n, d)``.

    Returns:
        ``(n, n)``.
    """
    unit = torch.nn.functional.normalize(embeddings - embeddings.mean(0), dim=1)
    return unit @ unit.mT


def whiten_group(features: Tensor) -> Tensor:
    """Whiten one group of channels: mean 0, (biased) covariance I, by the symmetric root.

    Args:
        features: ``(B, k)``, B larger than k, of full rank.
    """
    centered = features - features.mean(0)
    values, vectors = torch.linalg.eigh(centered.mT @ centered / len(features))
    return centered @ (vectors / values.sqrt()) @ vectors.mT


def term_with_queue(anchor: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Find the key of each anchor among the keys of the batch and what the queue holds.

    Args:
        anchor: ``(B, d)`` unit vectors.
        key: ``(B, d)`` unit vectors, row i belongs to anchor i.
        queue: ``(M, d)`` unit vectors; M may be 0.
        temperature: greater than 0.
    """
    logits = anchor @ torch.cat([key, queue]).mT / temperature
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(anchor)))


def _normal(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _unit(seed: int, n: int, d: int = 5) -> Tensor:
    return torch.nn.functional.normalize(_normal(seed, n, d), dim=1)


EXERCISES = {
    2: Exercise(
        prompt="Cosines without the cone.",
        reference=center_and_compare,
        cases=[
            Case("random embeddings", lambda seed: (_normal(seed, 6, 4),), "Subtract the mean, then normalize."),
            Case(
                "a large offset",
                lambda seed: (_normal(seed, 6, 4) + 100,),
                "Normalizing first squeezes everything into the cone; the mean has to go before.",
            ),
            Case("two texts", lambda seed: (_normal(seed, 2, 4),), "Two points lie opposite each other: cosine -1."),
        ],
    ),
    3: Exercise(
        prompt="Whitening of one group.",
        reference=whiten_group,
        cases=[
            Case(
                "correlated channels",
                lambda seed: (_normal(seed, 30, 4) @ _normal(seed + 50, 4, 4),),
                "Divide by the roots of the eigenvalues in their own directions, and turn back.",
            ),
            Case(
                "one channel",
                lambda seed: (3 + 5 * _normal(seed, 30, 1),),
                "A group of one is standardized: minus the mean, divided by the deviation (divide by B).",
            ),
            Case("already white", lambda seed: (whiten_group(_normal(seed, 30, 3)),), "Then nothing may change."),
        ],
        rtol=1e-3,
        atol=1e-5,
    ),
    4: Exercise(
        prompt="A contrast with a queue.",
        reference=term_with_queue,
        cases=[
            Case(
                "batch and queue",
                lambda seed: (_unit(seed, 4), _unit(seed + 9, 4), _unit(seed + 20, 7), 0.1),
                "Candidates are the keys and the queue, in one softmax.",
            ),
            Case(
                "an empty queue",
                lambda seed: (_unit(seed, 4), _unit(seed + 9, 4), torch.zeros(0, 5, dtype=torch.float64), 0.1),
                "Then it is the contrast of the batch.",
            ),
            Case(
                "a queue that holds the keys",
                lambda seed: (_unit(seed, 4), _unit(seed, 4), _unit(seed, 4), 0.01),
                "The right key competes with its copy: about log 2. Copies are not masked.",
            ),
            Case(
                "a low temperature",
                lambda seed: (_unit(seed, 4), _unit(seed + 9, 4), _unit(seed + 20, 7), 0.001),
                "exp overflows here; log_softmax or cross_entropy does not.",
            ),
        ],
    ),
}
