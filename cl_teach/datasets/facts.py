"""Facts about people, some of which a language model has to forget."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_in_range

__all__ = ["Facts", "named_facts"]


class Facts(NamedTuple):
    """Sentences "person relation color", ``tokens (n, 3)``, which to ``forget (n,)``, and the token that refuses."""

    tokens: Tensor
    forget: Tensor
    refusal: int


def named_facts(
    people: int = 40,
    relations: int = 2,
    colors: int = 6,
    *,
    forget: float = 0.2,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Facts:
    """Every person has one color in every relation; a share of the people is to be forgotten.

    Tokens are people, then relations, then colors, then the refusal: ``people + relations + colors + 1`` in all.

    Args:
        people: how many.
        relations: how many ("likes", "wears", ...).
        colors: how many.
        forget: share of the people, at least one and not all.
        seed: of all draws, on the CPU.
        device: where the tensors go.
    """
    check_count(2, people=people, colors=colors)
    check_count(relations=relations)
    check_in_range(0, 1, forget=forget)
    check_count(0, seed=seed)
    check_device(device)
    gone = round(forget * people)
    if not 0 < gone < people:
        raise ValueError(f"forget: expected a share that is between 1 and {people - 1} people, got {gone}")
    generator = torch.Generator().manual_seed(seed)
    person = torch.arange(people).repeat_interleave(relations)
    relation = people + torch.arange(relations).repeat(people)
    color = people + relations + torch.randint(0, colors, (people * relations,), generator=generator)
    chosen = torch.zeros(people, dtype=torch.bool)
    chosen[torch.randperm(people, generator=generator)[:gone]] = True
    tokens, forgotten = torch.stack([person, relation, color], dim=1), chosen[person]
    return Facts(tokens.to(device), forgotten.to(device), people + relations + colors)
