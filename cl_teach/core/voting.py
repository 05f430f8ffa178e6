"""Several answers to one question: which of them agree with the majority (self-consistency, Wang et al. 2022)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_shapes, check_type

__all__ = ["Split", "majority_mask", "self_consistency_split"]


class Split(NamedTuple):
    """The majority answer of a question, the indices of the samples that give it, and the others: the negatives."""

    majority: Hashable
    positive: list[int]
    discarded: list[int]


def self_consistency_split(answers: Sequence[Hashable]) -> Split:
    """Which of the teacher's samples agree with the majority; a tie goes to the answer that comes first."""
    check_type((Sequence, str), answers=answers)
    if not len(answers):
        raise ValueError("answers: expected at least one, got none")
    check_type(Hashable, **{f"answers[{i}]": answer for i, answer in enumerate(answers)})
    majority = Counter(answers).most_common(1)[0][0]  # equal counts keep their order
    positive = [i for i, answer in enumerate(answers) if answer == majority]
    return Split(majority, positive, [i for i, answer in enumerate(answers) if answer != majority])


def majority_mask(answers: Tensor) -> Tensor:
    """``(n, R)`` boolean: which samples give the majority answer of their row of integers ``answers (n, R)``."""
    check_shapes(answers=(answers, "n R", int))
    majority = torch.tensor([self_consistency_split(row).majority for row in answers.tolist()])
    return answers == majority.to(answers)[:, None]
