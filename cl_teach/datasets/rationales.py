"""Arithmetic with worked solutions by a teacher who slips: questions, several sampled rationales, their answers.

A question is three digits a, b, c and asks for the last digit of (a + b) * c. A rationale is worked out in characters,
``a+b=s;s*c=p``. The teacher gets the sum wrong now and then and goes on with it, so a wrong rationale usually, but not
always, ends in a wrong answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_entries, check_generator, check_in_range, check_shapes

__all__ = ["RATIONALE_TOKENS", "Rationales", "arithmetic_rationales", "rationale_text", "spoil_rationales"]

RATIONALE_TOKENS: tuple[str, ...] = ("", *"0123456789+*=;")
"""Token 0 is the gap at the end, then ten digits and four signs."""
LONGEST = len("9+9=18;18*9=162")


class Rationales(NamedTuple):
    """Questions and what the teacher says; texts end in zeros.

    Attributes:
        question: ``(n, 3)`` the digits a, b, c as tokens.
        label: ``(n,)`` the right last digit.
        rationales: ``(n, samples, 15)`` the teacher's samples.
        answers: ``(n, samples)`` the last digit that each of them ends in.
        truth: ``(n, 15)`` the rationale without a slip.
    """

    question: Tensor
    label: Tensor
    rationales: Tensor
    answers: Tensor
    truth: Tensor


def arithmetic_rationales(n: int, *, samples: int = 5, error: float = 0.25, seed: int = 0) -> Rationales:
    """Draw questions and let the teacher answer each of them several times.

    Args:
        n: number of questions.
        samples: the teacher's rationales for each question.
        error: chance that a sample has a wrong sum.
        seed: of all draws.

    Example:
        >>> data = arithmetic_rationales(100, seed=1)
        >>> rationale_text(data.truth[:1])
        ['5+9=14;14*4=56']
    """
    check_count(n=n, samples=samples)
    check_in_range(0, 1, error=error)
    check_count(0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(10, (n, 3), generator=generator)
    slips = torch.rand(n, samples, generator=generator) < error
    # Another sum in [0, 18]: a step of 1 to 18 around the circle of 19.
    steps = torch.randint(1, 19, (n, samples), generator=generator)
    right = digits[:, :1] + digits[:, 1:2]  # (n, 1)
    sums = torch.where(slips, (right + steps) % 19, right)  # (n, samples)
    sums = torch.cat([sums, right], 1)
    pairs = zip(digits.tolist(), sums.tolist(), strict=True)
    told = torch.tensor([[_work_out(a, b, c, s) for s in wrong] for (a, b, c), wrong in pairs])
    answers = sums * digits[:, 2:] % 10
    return Rationales(digits + 1, answers[:, -1], told[:, :-1], answers[:, :-1], told[:, -1])


def rationale_text(tokens: Tensor) -> list[str]:
    """Rationales ``(n, T)`` as strings."""
    check_shapes(tokens=(tokens, "n T", int))
    check_entries(0, len(RATIONALE_TOKENS) - 1, tokens=tokens)
    return ["".join(RATIONALE_TOKENS[i] for i in row) for row in tokens.tolist()]


def spoil_rationales(
    rationales: Tensor, vocabulary: int, rate: float = 0.3, *, generator: torch.Generator | None = None
) -> Tensor:
    """Bad rationales from good ones: every token becomes a random other one with some probability.

    Args:
        rationales: ``(n, R, T)``, 0 behind the end.
        vocabulary: number of tokens, token 0 included.
        rate: chance of a token to be replaced.
        generator: of the draws.
    """
    check_count(2, vocabulary=vocabulary)
    check_shapes(rationales=(rationales, "n R T", int))
    check_entries(0, vocabulary - 1, rationales=rationales)
    check_in_range(0, 1, rate=rate)
    check_generator(generator)
    rationales = rationales.long()
    where = "cpu" if generator is None else generator.device
    hit = torch.rand(rationales.shape, generator=generator, device=where).to(rationales.device) < rate
    step = torch.randint(1, max(2, vocabulary - 1), tuple(rationales.shape), generator=generator, device=where)
    other = (rationales - 1 + step.to(rationales.device)) % (vocabulary - 1) + 1
    return torch.where(hit & (rationales != 0), other, rationales)


def _work_out(a: int, b: int, c: int, total: int) -> list[int]:
    text = f"{a}+{b}={total};{total}*{c}={total * c}"
    return [RATIONALE_TOKENS.index(sign) for sign in text] + [0] * (LONGEST - len(text))
