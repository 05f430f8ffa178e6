r"""Preference pairs for tiny language models: generated ones, of which one token is known to decide, and sentences.

Every generated sequence is a start token and a response of random words. At one random place of each response stands a
marker, and the token after it is *good* in the chosen and *bad* in the rejected response. All other words carry no
preference, so the truth about every token is known. A share of the pairs can be flipped, as annotators do by mistake.

The sentences are docstrings of Python's standard library: the chosen response is how a docstring goes on, the rejected
one is the same with few or many other words, with its words in another order, or how another docstring goes on. That
other one is chosen nowhere: what one pair wants, no pair pushes down.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_in_range
from .installed import library_functions

__all__ = ["REJECTED", "LibraryPreferences", "Preferences", "library_preferences", "planted_preferences"]

# What makes a response the worse one, in turn.
REJECTED = ("one word", "half of the words", "another order", "another docstring")


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


class LibraryPreferences(NamedTuple):
    """Sentences and pairs; token 0 starts a docstring, 1 stands for every rarer word.

    Attributes:
        stream: ``(m,)`` int64, all docstrings one after the other, to train a language model on.
        chosen: ``(n, prompt + response)`` int64.
        rejected: ``(n, prompt + response)`` int64, with the same prompt.
        kind: ``(n,)`` int64, index into `REJECTED`.
        changed: ``(n,)`` int64, in how many places the two responses differ: their edit distance, counted in place.
        words: of the tokens.
    """

    stream: Tensor
    chosen: Tensor
    rejected: Tensor
    kind: Tensor
    changed: Tensor
    words: list[str]


def library_preferences(
    n: int = 200,
    vocabulary: int = 800,
    prompt: int = 4,
    response: int = 8,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
) -> LibraryPreferences:
    """Cut preference pairs from docstrings, each kind of rejected response equally often.

    Args:
        n: number of pairs, at least 2; fewer if there are not so many docstrings that are long enough.
        vocabulary: number of tokens, the most frequent words; at least 4.
        prompt: tokens of a prompt, the start token included.
        response: tokens of a response, at least 2.
        seed: of all draws, on the CPU.
        folder: where docstrings are looked for; the standard library of this Python if None, whose texts differ a
            little from version to version.
        device: where the tensors go.

    Raises:
        ValueError: fewer than three docstrings are long enough.
    """
    check_count(prompt=prompt)
    check_count(2, n=n, response=response)
    check_count(4, vocabulary=vocabulary)
    check_count(0, seed=seed)
    check_device(device)
    texts = [re.findall(r"[a-z]+|[.,]", text.lower()) for text, _ in library_functions(packages=False, folder=folder)]
    frequent = Counter(word for text in texts for word in text).most_common(vocabulary - 2)
    words = ["<start>", "<rare>", *(word for word, _ in frequent)]
    number = {word: i for i, word in enumerate(words)}
    stream = torch.tensor([i for text in texts for i in (0, *(number.get(word, 1) for word in text))])
    lengths = torch.tensor([len(text) for text in texts]) + 1
    long = lengths >= prompt + response
    starts = (lengths.cumsum(0) - lengths)[long]
    if len(starts) < 3:
        raise ValueError(f"prompt, response: expected three docstrings of {prompt + response - 1} words, got fewer")
    generator = torch.Generator().manual_seed(seed)
    starts = starts[torch.randperm(len(starts), generator=generator)]
    texts_of = stream[starts[:, None] + torch.arange(prompt + response)]
    count = min(n, 4 * len(starts) // 5)  # the rest, a fifth at least, is chosen nowhere
    chosen, spare = texts_of[:count], texts_of[count:, prompt:]
    kind, ending = torch.arange(count) % len(REJECTED), chosen[:, prompt:]  # (n, response)
    order = torch.rand(count, response, generator=generator).argsort(1)
    drawn = torch.randint(2, len(words), (count, response), generator=generator)
    ways = [torch.where(order < replaced, drawn, ending) for replaced in (1, response // 2)]
    ways += [ending.gather(1, order), spare[torch.arange(count) // len(REJECTED) % len(spare)]]
    worse = torch.stack(ways)[kind, torch.arange(count)]
    rejected = torch.cat([chosen[:, :prompt], worse], dim=1)
    changed = (worse != ending).sum(1)
    stream, chosen, rejected, kind, changed = (x.to(device) for x in (stream, chosen, rejected, kind, changed))
    return LibraryPreferences(stream, chosen, rejected, kind, changed, words)
