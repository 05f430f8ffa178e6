"""Exercises of chapter 10.1, Where does the probability go?"""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def dpo_gradient(logits: Tensor, reference_logits: Tensor, winner: int, loser: int, beta: float) -> Tensor:
    """DPO's gradient in a table of logits, without autograd.

    Args:
        logits: ``(K,)`` of the policy.
        reference_logits: ``(K,)``.
        winner: index of the chosen answer.
        loser: index of the rejected one.
        beta: of the loss.

    Returns:
        ``(K,)``.
    """
    moved = logits - reference_logits
    push = beta * torch.sigmoid(-beta * (moved[winner] - moved[loser]))
    gradient = torch.zeros_like(logits)
    gradient[winner] -= push
    gradient[loser] += push
    return gradient


def normalized_ches(chosen_states: Tensor, rejected_states: Tensor) -> Tensor:
    """Length-normalized CHES of one pair.

    Args:
        chosen_states: ``(K, d)`` that predict the tokens of the chosen response.
        rejected_states: ``(J, d)``.

    Returns:
        A scalar.
    """
    chosen, rejected = chosen_states.mean(0), rejected_states.mean(0)
    return chosen @ rejected - chosen @ chosen


def _logits(seed: int, winner: int = 1, loser: int = 3, scale: float = 1.0, beta: float = 0.1) -> tuple:
    draws = torch.Generator().manual_seed(seed)
    policy, reference = scale * torch.randn(2, 6, generator=draws, dtype=torch.float64)
    return policy, reference, winner, loser, beta


def _states(seed: int, k: int, j: int, d: int = 5) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=draws, dtype=torch.float64) for n in (k, j))  # type: ignore[return-value]


EXERCISES = {
    2: Exercise(
        prompt="The gradient of DPO in a table of logits.",
        reference=dpo_gradient,
        cases=[
            Case(
                "random logits",
                _logits,
                "Two entries are not zero: minus and plus beta times the sigmoid of minus beta times the margin.",
            ),
            Case(
                "a policy that is its reference",
                lambda seed: (torch.arange(4.0), torch.arange(4.0), 0, 2, 0.5),
                "At the reference the margin is 0 and its sigmoid one half, whatever the logits are.",
            ),
            Case(
                "logits shifted by a constant",
                lambda seed: (_logits(seed)[0] + 100.0, *_logits(seed)[1:]),
                "A constant on all logits changes no probability, so it must change nothing here.",
            ),
            Case(
                "a large margin",
                lambda seed: _logits(seed, scale=200.0, beta=2.0),
                "Take the sigmoid of the margin itself; 1 / (1 + exp(x)) of a large x overflows.",
            ),
            Case(
                "an answer compared with itself",
                lambda seed: _logits(seed, 2, 2),
                "With one index for both the two pushes cancel; add to the entries, do not overwrite them.",
            ),
        ],
    ),
    3: Exercise(
        prompt="The length-normalized CHES of one pair.",
        reference=normalized_ches,
        cases=[
            Case(
                "responses of equal length",
                lambda seed: _states(seed, 4, 4),
                "The inner product of the two mean states, minus the squared length of the chosen one's.",
            ),
            Case(
                "responses of different length",
                lambda seed: _states(seed, 2, 7),
                "Every sum is divided by the number of its own states.",
            ),
            Case("one token each", lambda seed: _states(seed, 1, 1), "A mean over one state is that state."),
            Case(
                "a response compared with itself",
                lambda seed: (_states(seed, 3, 3)[0],) * 2,
                "Equal states give zero: the inner product is the squared length.",
            ),
        ],
    ),
}
