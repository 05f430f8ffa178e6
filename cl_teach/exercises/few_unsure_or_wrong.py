"""Exercises of chapter 5.1, Few, unsure or wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.subclasses import subclass_counts
from ..datasets import polluted_moments
from ..labels.bacon import debiased_probabilities, pair_weights
from . import Case, Exercise


def subclasses(counts: Tensor, min_size: int) -> Tensor:
    """How many subclasses every class gets when none may be larger than the smallest class.

    Args:
        counts: ``(C,)`` samples of each class.
        min_size: the smallest limit that makes sense.

    Returns:
        ``(C,)`` integers.
    """
    return subclass_counts(counts, min_size)


def soft_pairs(logits: Tensor, counts: Tensor, kappa: float) -> Tensor:
    """Weights of pairs from logits of two views, freed of class frequencies.

    Args:
        logits: ``(2N, C)``, second views below the first, already divided by the temperature.
        counts: ``(C,)`` estimated class sizes.
        kappa: how much of the log-frequency is taken off.

    Returns:
        ``(N, N)``, 1 on the diagonal.
    """
    return pair_weights(debiased_probabilities(logits, counts, kappa=kappa, temperature=1.0))


def cleaned_means(polluted: Tensor, priors: Tensor, eta: float) -> Tensor:
    """Recover true class means from those of noisy classes, when the noise rate is known.

    Args:
        polluted: ``(K, m)`` means of the noisy classes.
        priors: ``(K,)`` frequencies.
        eta: noise rate below 1.

    Returns:
        ``(K, m)``.
    """
    center = priors @ polluted
    return center + (polluted - center) / (1 - eta)


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _priors(k: int) -> Tensor:
    weights = 1 / torch.arange(1, k + 1, dtype=torch.float64)
    return weights / weights.sum()


def _polluted(seed: int, k: int, eta: float) -> tuple[Tensor, Tensor, float]:
    means = 3 * _draw(seed, k, 2)
    return polluted_moments(means, torch.eye(2, dtype=torch.float64), _priors(k), eta)[1], _priors(k), eta


EXERCISES = {
    1: Exercise(
        prompt="Number of subclasses of every class.",
        reference=subclasses,
        cases=[
            Case(
                "a long tail",
                lambda seed: (torch.tensor([500, 50, 5]), 10),
                "The limit is the smallest class, but at least min_size. A class needs enough subclasses to hold it.",
            ),
            Case(
                "sizes that do not divide",
                lambda seed: (torch.tensor([101, 40, 20]), 10),
                "Round up: 101 samples do not fit into five subclasses of 20.",
            ),
            Case("equal classes", lambda seed: (torch.tensor([30, 30]), 10), "The limit is the whole class: one each."),
            Case("one class", lambda seed: (torch.tensor([7]), 10), "Smaller than the limit: still one subclass."),
        ],
    ),
    3: Exercise(
        prompt="Soft pair weights from the logits of two views.",
        reference=soft_pairs,
        cases=[
            Case(
                "random logits",
                lambda seed: (_draw(seed, 8, 3), torch.tensor([50.0, 20.0, 5.0], dtype=torch.float64), 0.5),
                "Logits minus kappa * log(share); softmax; mean over views; inner products; ones on the diagonal.",
            ),
            Case(
                "nothing taken off",
                lambda seed: (_draw(seed, 6, 4), torch.tensor([9.0, 3.0, 2.0, 1.0], dtype=torch.float64), 0.0),
                "With kappa = 0 the counts play no part.",
            ),
            Case(
                "equal sizes",
                lambda seed: (_draw(seed, 6, 4), torch.full((4,), 7.0, dtype=torch.float64), 2.0),
                "A constant on all logits changes no softmax.",
            ),
            Case(
                "one sample",
                lambda seed: (_draw(seed, 2, 3), torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64), 1.0),
                "The only entry is the pair of a sample with itself, which counts 1.",
            ),
            Case(
                "logits of 1,000",
                lambda seed: (1000 * _draw(seed, 6, 3), torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64), 1.0),
                "exp(1000) overflows; torch's softmax does not.",
            ),
        ],
    ),
    4: Exercise(
        prompt="True class means from polluted ones.",
        reference=cleaned_means,
        cases=[
            Case(
                "five classes",
                lambda seed: _polluted(seed, 5, 0.4),
                "All means shrink toward the global mean by the factor 1 - eta, and this noise leaves that mean alone.",
            ),
            Case("no noise", lambda seed: _polluted(seed, 3, 0.0), "With eta = 0 nothing changes."),
            Case("much noise", lambda seed: _polluted(seed, 4, 0.9), "Divide by 1 - eta, around the center."),
            Case("one class", lambda seed: _polluted(seed, 1, 0.5), "The class is its own center."),
        ],
    ),
}
