"""How alike two texts look: their edit distance, for one pair or for all pairs of a corpus at the same time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .checks import check_batch, check_type

__all__ = ["check_sentences", "edit_distance", "first_occurrences", "surface_similarity"]

PAIRS = 2**15  # that `surface_similarity` looks at together: small enough for a cache


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and replacements of tokens that turn a into b."""
    check_type(Sequence, a=a, b=b)
    _check_tokens(a=a, b=b)
    row = list(range(len(b) + 1))  # distances from the empty prefix of a
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def surface_similarity(sentences: Sequence[Sequence[Hashable]]) -> Tensor:
    """One minus the edit distance as a share of the longer length, for all pairs.

    The table of `edit_distance` cell by cell, but for many pairs at the same time.

    Args:
        sentences: n lists of tokens, none of them empty.

    Returns:
        ``(n, n)`` float64 in [0, 1], 1 on the diagonal.
    """
    check_sentences(sentences)
    numbers: dict[Hashable, int] = {}
    n, length = len(sentences), torch.tensor([len(sentence) for sentence in sentences])
    padded = torch.full((n, int(length.max())), -1)
    for i, sentence in enumerate(sentences):
        padded[i, : len(sentence)] = torch.tensor([numbers.setdefault(token, len(numbers)) for token in sentence])
    similarity = torch.ones(n, n, dtype=torch.float64)
    for first, second in zip(*(x.split(PAIRS) for x in torch.triu_indices(n, n, 1)), strict=True):
        a, b = padded[first].T.contiguous(), padded[second].T.contiguous()  # (L, pairs)
        row = list(torch.arange(len(b) + 1).to(torch.int16)[:, None].expand(-1, len(first)))
        distance = torch.zeros(len(first), dtype=torch.int16)
        for i, x in enumerate(a, 1):
            corner, row[0] = row[0], torch.full_like(row[0], i)
            for j, y in enumerate(b, 1):
                best = torch.minimum(torch.minimum(row[j], row[j - 1]) + 1, corner + (x != y))
                corner, row[j] = row[j], best
            at_the_end = torch.stack(row).gather(0, length[second][None])[0]
            distance = torch.where(length[first] == i, at_the_end, distance)
        share = distance.double() / torch.maximum(length[first], length[second])
        similarity[first, second] = similarity[second, first] = 1 - share
    return similarity


def first_occurrences(sentences: Sequence[Sequence[Hashable]]) -> list[int]:
    """Rows of the sentences that did not occur before: a copy is a useless positive."""
    check_sentences(sentences)
    seen: dict[tuple[Hashable, ...], int] = {}
    for i, sentence in enumerate(sentences):
        seen.setdefault(tuple(sentence), i)
    return list(seen.values())


def check_sentences(sentences: Sequence[Sequence[Hashable]]) -> None:
    """Check a corpus: lists of tokens, none of them empty."""
    check_type(Sequence, sentences=sentences)
    check_batch(len(sentences), 1, name="sentences", why="to compare")
    for i, sentence in enumerate(sentences):
        check_type(Sequence, **{f"sentences[{i}]": sentence})
        check_batch(len(sentence), 1, name=f"sentences[{i}]", why="(tokens)")
        _check_tokens(**{f"sentences[{i}]": sentence})


def _check_tokens(**sentences: Sequence[Hashable]) -> None:
    for name, sentence in sentences.items():
        for i, token in enumerate(sentence):
            if isinstance(token, Tensor) or not isinstance(token, Hashable):
                raise TypeError(f"{name}[{i}]: expected a number or a word, got {type(token).__name__}; use .tolist()")
