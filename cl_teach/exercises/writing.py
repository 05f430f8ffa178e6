"""Exercises of chapter 6.3, Contrast while writing."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.similarity import normalize
from . import Case, Exercise


def switching_alpha(probabilities: Tensor, penalties: Tensor) -> Tensor:
    """Where the likelier of two candidates loses.

    Args:
        probabilities: ``(2,)``, the larger one first.
        penalties: ``(2,)``, the larger one first.

    Returns:
        The alpha at which both have the same score, a scalar; 1 if their penalties are equal.
    """
    likelier, worse = probabilities[0] - probabilities[1], penalties[0] - penalties[1]
    if likelier == 0 and worse == 0:
        return torch.ones_like(likelier)
    return likelier / (likelier + worse)


def next_word(context: Tensor, candidates: Tensor, probabilities: Tensor, alpha: float) -> Tensor:
    """Index of the candidate that contrastive search takes.

    Args:
        context: ``(t, d)`` states of everything so far.
        candidates: ``(k, d)`` states after each candidate.
        probabilities: ``(k,)``.
        alpha: weight of the penalty.
    """
    penalty = (normalize(candidates) @ normalize(context).mT).amax(1)
    return ((1 - alpha) * probabilities - alpha * penalty).argmax()


def rationale_contrast(
    good: Tensor, bad: Tensor, good_scores: Tensor, bad_scores: Tensor, beta: float, margin: float
) -> Tensor:
    """QCRD's contrast of one question.

    Args:
        good: ``(m,)`` losses of the good rationales.
        bad: ``(k,)`` losses of the bad ones, k may be 0.
        good_scores: ``(m,)``.
        bad_scores: ``(k,)``.
        beta: weight of the push.
        margin: nats a token.
    """
    pull = good_scores[good.argmin()] * good.min()
    if len(bad) == 0:
        return pull
    return pull + beta * (1 - bad_scores[bad.argmax()]) * (margin - bad.max()).clamp_min(0)


def _pair(seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 2, generator=draws, dtype=torch.float64).sort(1, descending=True).values)


def _states(seed: int, k: int = 4, t: int = 6, alpha: float = 0.6, scale: float = 1.0) -> tuple:
    draws = torch.Generator().manual_seed(seed)
    context, candidates = (scale * torch.randn(n, 5, generator=draws, dtype=torch.float64) for n in (t, k))
    chances = torch.rand(k, generator=draws, dtype=torch.float64).sort(descending=True).values / k
    return context, candidates, chances, alpha


def _lists(seed: int, m: int = 3, k: int = 2, margin: float = 2.0, level: float = 1.0) -> tuple:
    draws = torch.Generator().manual_seed(seed)
    good, bad, good_scores, bad_scores = (torch.rand(n, generator=draws, dtype=torch.float64) for n in (m, k, m, k))
    return good, level * bad, good_scores, bad_scores, 0.5, margin


EXERCISES = {
    1: Exercise(
        prompt="The alpha at which the likelier of two candidates loses.",
        reference=switching_alpha,
        cases=[
            Case("random candidates", _pair, "Set the two scores equal and solve for alpha."),
            Case(
                "equal penalties",
                lambda seed: (_pair(seed)[0], torch.full((2,), 0.5, dtype=torch.float64)),
                "Without a difference in penalty only alpha = 1 takes the lead away.",
            ),
            Case(
                "equal probabilities",
                lambda seed: (torch.full((2,), 0.2, dtype=torch.float64), _pair(seed)[1]),
                "With equal chances any penalty decides: alpha = 0.",
            ),
        ],
    ),
    2: Exercise(
        prompt="The candidate that contrastive search takes.",
        reference=next_word,
        cases=[
            Case("random states", _states, "The penalty of a candidate is its largest cosine with the context."),
            Case(
                "states of any length",
                lambda seed: _states(seed, scale=100.0),
                "Cosines, not inner products: scale every state to length one.",
            ),
            Case("alpha 0", lambda seed: _states(seed, alpha=0.0), "Without a penalty the likeliest candidate wins."),
            Case("one candidate", lambda seed: _states(seed, k=1), "With k = 1 there is nothing to choose: 0."),
            Case(
                "alpha 1",
                lambda seed: _states(seed, alpha=1.0),
                "With alpha = 1 the candidate with the smallest penalty wins, whatever its chance.",
            ),
        ],
    ),
    3: Exercise(
        prompt="QCRD's contrast of one question.",
        reference=rationale_contrast,
        cases=[
            Case("random losses", _lists, "Pull: smallest good loss times its score. Push: the hinge of the largest."),
            Case(
                "a bad rationale beyond the margin",
                lambda seed: _lists(seed, level=9.0, margin=0.5),
                "Once the largest bad loss exceeds the margin, there is no push at all.",
            ),
            Case("no bad rationale", lambda seed: _lists(seed, k=0), "Without bad rationales only the pull remains."),
            Case("one of each", lambda seed: _lists(seed, 1, 1), "The score belongs to the rationale that was chosen."),
        ],
    ),
}
