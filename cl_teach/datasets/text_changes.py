"""Other ways to say the same: words become synonyms, change places, or are left out.

Source: the strong and weak changes of Fini et al., Improved baselines for vision-language pre-training (2023), released
code. How many words a change touches is chosen here. Word 0 is a gap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
)

__all__ = ["TextDraws", "change_texts", "draw_text_changes", "remove_words"]

CHANGES = (0.4, 0.4, 0.2)  # shares of synonyms, swap, deletion in the released code


class TextDraws(NamedTuple):
    """The random numbers of `change_texts`.

    Attributes:
        kind: ``(N,)`` 0 takes synonyms, 1 swaps two words, 2 deletes.
        chance: ``(N, L)`` in [0, 1), a word below the share is replaced or deleted.
        synonym: ``(N, L)`` in [0, 1), which of its synonyms it becomes.
        places: ``(N, 2)`` what is swapped.
    """

    kind: Tensor
    chance: Tensor
    synonym: Tensor
    places: Tensor


def draw_text_changes(n: int, length: int, *, generator: torch.Generator | None = None) -> TextDraws:
    """Draw for n texts of ``length`` words, kinds with the shares of the released code: 0.4, 0.4, 0.2."""
    check_count(n=n, length=length)
    check_generator(generator)
    where = torch.device("cpu") if generator is None else generator.device
    kind = torch.multinomial(torch.tensor(CHANGES, device=where), n, replacement=True, generator=generator)
    chance, synonym = torch.rand(2, n, length, generator=generator, device=where)
    return TextDraws(kind, chance, synonym, torch.randint(length, (n, 2), generator=generator, device=where))


def change_texts(texts: Tensor, synonyms: Tensor, draws: TextDraws, *, share: float = 0.3) -> Tensor:
    """The strong change of a text: synonyms, a swap of two words, or deletion.

    Args:
        texts: ``(N, L)`` words, 0 is a gap.
        synonyms: ``(words + 1, S)`` for each word S that mean the same, itself where it has none.
        draws: from `draw_text_changes`.
        share: of the words that become another one, or a gap.

    Returns:
        ``(N, L)`` int64.
    """
    check_shapes(texts=(texts, "N L", int), synonyms=(synonyms, "words S", int))
    check_entries(0, len(synonyms) - 1, open_low=False, **{"texts, synonyms": texts, "synonyms": synonyms})
    check_in_range(0, 1, share=share)
    check_type(tuple, draws=draws)
    if len(draws) != len(TextDraws._fields):
        raise ValueError(f"draws: expected {', '.join(TextDraws._fields)}, got {len(draws)} parts")
    check_shapes(texts=(texts, "N L", int), **{"draws.kind": (draws[0], "N", int)})
    texts, kind = texts.long(), check_labels(draws[0], len(texts), name="draws.kind", num_classes=3)[:, None]
    shapes = {"draws.chance": (draws[1], "N L"), "draws.synonym": (draws[2], "N L")}
    check_shapes(texts=(texts, "N L", int), **shapes, **{"draws.places": (draws[3], "N 2", int)})
    check_entries(0, 1, open_low=False, **{"draws.chance": draws[1], "draws.synonym": draws[2]})
    check_entries(0, texts.shape[1] - 1, open_low=False, **{"draws.places": draws[3]})
    which = (draws[2] * synonyms.shape[1]).long().clamp_max(synonyms.shape[1] - 1)
    hit, places = draws[1] < share, draws[3].long()
    renamed = torch.where(hit, synonyms.long()[texts, which], texts)
    swapped = texts.scatter(1, places, texts.gather(1, places.flip(1)))
    return torch.where(kind == 0, renamed, torch.where(kind == 1, swapped, texts.masked_fill(hit, 0)))


def remove_words(
    texts: Tensor, removable: Tensor, probability: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Replace every removable word by a gap with some probability.

    Args:
        texts: ``(N, L)`` words.
        removable: ``(words + 1,)`` boolean, which words may go: the stop words for a weak change, all for a strong one.
        probability: in [0, 1].
        generator: of the draws.

    Returns:
        ``(N, L)``.
    """
    check_shapes(texts=(texts, "N L", int), removable=(removable, "words", bool))
    check_entries(0, len(removable) - 1, open_low=False, **{"texts, removable": texts})
    check_in_range(0, 1, probability=probability)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    draw = torch.rand(texts.shape, generator=generator, device=where).to(texts.device)
    return texts.masked_fill((draw < probability) & removable[texts.long()], 0)
