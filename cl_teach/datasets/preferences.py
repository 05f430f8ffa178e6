r"""Preference pairs for a tiny language model, of which one token is known to decide.

Every sequence is a start token and a response of random words. At one random place of each response stands a marker,
and the token after it is *good* in the chosen and *bad* in the rejected response. All other words carry no preference,
so the truth about every token is known. A share of the pairs can be flipped, as annotators do by mistake.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_in_range

__all__ = ["Preferences", "planted_preferences"]


class Preferences(NamedTuple):
    """Pairs of sequences; token 0 is the start, 1 the marker, 2 good, 3 bad, the others are words.

    Attributes:
        chosen: ``(n, length + 1)`` int64.
        rejected: ``(n, length + 1)`` int64.
        key_chosen: ``(n,)`` int64, position of the marker, whose state predicts the token that decides.
        key_rejected: ``(n,)`` int64.
        flipped: ``(n,)`` boolean, pairs whose two responses were exchanged.
    """

    chosen: Tensor
    rejected: Tensor
    key_chosen: Tensor
    key_rejected: Tensor
    flipped: Tensor


def planted_preferences(
    n: int = 500,
    vocabulary: int = 20,
    length: int = 10,
    *,
    flipped: float = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Preferences:
    """Draw preference pairs; the two responses of a pair are independent except for the token after the marker.

    Args:
        n: number of pairs.
        vocabulary: number of tokens, at least 5.
        length: tokens of a response, at least 2.
        flipped: share of the pairs with chosen and rejected exchanged.
        seed: of all draws, on the CPU.
        device: where the tensors go.

    """
    check_count(n=n)
    check_count(5, vocabulary=vocabulary)  # start, marker, good, bad and a word
    check_count(2, length=length)  # the marker and the token after it
    check_in_range(0, 1, flipped=flipped)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randint(4, vocabulary, (2, n, length), generator=generator)
    key = torch.randint(0, length - 1, (2, n, 1), generator=generator)
    responses.scatter_(2, key, 1)
    responses.scatter_(2, key + 1, torch.tensor([2, 3]).view(2, 1, 1).expand(2, n, 1))
    swap = torch.zeros(n, dtype=torch.bool)
    swap[torch.randperm(n, generator=generator)[: round(flipped * n)]] = True
    responses = torch.where(swap[:, None], responses.flip(0), responses)
    key = torch.where(swap, key[..., 0].flip(0), key[..., 0]) + 1  # (2, n), counted with the start token
    sequences = torch.cat([torch.zeros(2, n, 1, dtype=torch.int64), responses], dim=2)
    return Preferences(*(x.to(device) for x in (*sequences, *key, swap)))
