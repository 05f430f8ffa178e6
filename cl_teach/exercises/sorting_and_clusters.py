"""Exercises of chapter 3.4, Sorting and clusters."""

from __future__ import annotations

import math

import torch
from scipy import stats
from torch import Tensor

from ..losses.groco import soft_sort
from . import Case, Exercise


def upper_group(x: Tensor, k: int, steepness: float) -> Tensor:
    """Probability that each input of the soft sorting network ends above the k lowest ranks.

    Args:
        x: ``(b, n)`` inputs.
        k: number of ranks below the group.
        steepness: of the comparators.

    Returns:
        ``(b, n)``.
    """
    return soft_sort(x, steepness)[1][..., k:].sum(-1)


def codes_with_shares(scores: Tensor, shares: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp with given shares of the prototypes, samples scaled last.

    Args:
        scores: ``(B, K)``.
        shares: ``(K,)``, positive, sum one.
        epsilon: weight of the entropy.
        iterations: at least 1.

    Returns:
        ``(B, K)`` codes; rows sum to one.
    """
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True) + (len(scores) * shares).log()
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


def seeds_for(effect: float, spread: float, power: float) -> int:
    """Smallest number of paired seeds with which a two-sided t test at 5 % finds a difference often enough.

    Args:
        effect: the true mean difference, positive.
        spread: standard deviation of the difference within a seed, positive.
        power: probability of finding it, below 1.

    Returns:
        At least 2.
    """
    n = 2
    while True:
        border, shift = stats.t.ppf(0.975, n - 1), math.sqrt(n) * effect / spread
        if stats.nct.sf(border, n - 1, shift) + stats.nct.cdf(-border, n - 1, shift) >= power:
            return n
        n += 1


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _shares(k: int) -> Tensor:
    shares = 1 / torch.arange(1, k + 1, dtype=torch.float64)
    return shares / shares.sum()


EXERCISES = {
    2: Exercise(
        prompt="The probability of ending in the upper group, without the matrix P.",
        reference=upper_group,
        cases=[
            Case(
                "two inputs",
                lambda seed: (_draw(seed, 4, 2), 1, 3.0),
                "One comparator: alpha of the second input and 1 - alpha of the first. The second layer is empty.",
            ),
            Case(
                "seven inputs, an odd number",
                lambda seed: (_draw(seed, 4, 7), 5, 2.0),
                "n layers; an unpaired wire passes unchanged. Comparators of later layers see the mixed values.",
            ),
            Case(
                "eight inputs, three above",
                lambda seed: (_draw(seed, 3, 8), 5, 1.0),
                "Apply the kept layers to v from the last to the first.",
            ),
            Case(
                "all inputs alike",
                lambda seed: (torch.full((2, 5), 0.3, dtype=torch.float64), 4, 1.0),
                "Every comparator swaps one half; the result depends on the wire, it is not uniform.",
            ),
            Case(
                "one input", lambda seed: (_draw(seed, 2, 1), 0, 1.0), "Nothing to compare: it is above with certainty."
            ),
        ],
    ),
    3: Exercise(
        prompt="Sinkhorn's codes with given shares of the prototypes.",
        reference=codes_with_shares,
        cases=[
            Case(
                "equal shares",
                lambda seed: (_draw(seed, 12, 4), torch.full((4,), 0.25, dtype=torch.float64), 0.5, 3),
                "With equal shares these are SwAV's codes: columns first, rows last.",
            ),
            Case(
                "unequal shares",
                lambda seed: (_draw(seed, 12, 5), _shares(5), 0.5, 4),
                "Column k is scaled to B times shares[k].",
            ),
            Case(
                "epsilon 0.001",
                lambda seed: (_draw(seed, 6, 3), _shares(3), 0.001, 3),
                "exp(scores / epsilon) overflows. Keep logarithms and use logsumexp.",
            ),
            Case(
                "equal samples",
                lambda seed: (_draw(seed, 1, 4).expand(5, 4).clone(), _shares(4), 0.2, 3),
                "Equal samples have equal codes: the shares themselves.",
            ),
        ],
    ),
    5: Exercise(
        prompt="Seeds that find a difference of a given size.",
        reference=seeds_for,
        cases=[
            Case(
                "half a point, four times in five",
                lambda seed: (0.5, 0.63, 0.8),
                "The statistic is a noncentral t with n - 1 degrees of freedom, shifted by sqrt(n) * effect / spread.",
            ),
            Case(
                "a small effect",
                lambda seed: (0.2, 0.63 + 0.1 * seed, 0.8),
                "A normal approximation is a seed or two short; half of the effect needs about four times the seeds.",
            ),
            Case("a large effect", lambda seed: (3.0, 0.63, 0.9), "Two seeds are the least that have a spread."),
        ],
    ),
}
