"""Sentences about sprites, and sentences about nothing that could be drawn.

A caption names the values of a sprite's factors and fills up with words that mean nothing visible. An abstract sentence
is made of such words alone, except that a word for a color or a shape may slip in. Sentences are bags of words: their
order carries nothing. Word 0 is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.checks import check_batch, check_choice, check_in_range, check_labels, check_positive
from .sprites import SPRITE_FACTORS

__all__ = ["CAPTION_WORDS", "abstract_sentences", "as_text", "sprite_captions"]

_ABSTRACT = (
    "although argument because belief business claim concept debate decision doubt economy even hardly however hope "
    "idea indeed justice law memory merely moreover need opinion perhaps policy promise question rather reason rule "
    "since theory therefore truth whether"
).split()
_FIRST = {  # number of the first word of every factor
    name: 1 + sum(len(values) for values in list(SPRITE_FACTORS.values())[:i]) for i, name in enumerate(SPRITE_FACTORS)
}
CAPTION_WORDS: tuple[str, ...] = ("", *(word for values in SPRITE_FACTORS.values() for word in values), *_ABSTRACT)
"""The gap, the 26 words for what can be seen, and 36 for what cannot."""
_FIRST_ABSTRACT = len(CAPTION_WORDS) - len(_ABSTRACT)


def sprite_captions(
    factors: Mapping[str, Tensor],
    said: Sequence[str] = tuple(SPRITE_FACTORS),
    *,
    fillers: int = 6,
    generator: torch.Generator,
) -> Tensor:
    """Describe every sprite: one word for each factor that is said, then words that mean nothing visible.

    Args:
        factors: values by name, ``(n,)`` int64 each, as `sprites` returns them.
        said: the factors that are named.
        fillers: number of further words.
        generator: on the CPU.

    Returns:
        ``(n, len(said) + fillers)`` int64, places in `CAPTION_WORDS`.

    Raises:
        TypeError: a factor not of an integer dtype.
        ValueError: nothing said, an unknown factor, values out of range.
    """
    check_batch(len(said), 1, name="said", why="(something to say)")
    check_in_range(0, float("inf"), fillers=fillers)
    n = len(factors[said[0]]) if said[0] in factors else 0
    columns = []
    for name in said:
        check_choice(SPRITE_FACTORS, **{f"said[{name!r}]": name})
        check_choice(factors, **{f"factors[{name!r}]": name})
        check_labels(factors[name], n, name=f"factors[{name!r}]", num_classes=len(SPRITE_FACTORS[name]))
        columns.append(_FIRST[name] + factors[name])
    filler = torch.randint(_FIRST_ABSTRACT, len(CAPTION_WORDS), (n, fillers), generator=generator)
    return torch.cat([torch.stack(columns, 1), filler.to(columns[0].device)], 1)


def abstract_sentences(
    n: int,
    said: Sequence[str] = tuple(SPRITE_FACTORS),
    *,
    fillers: int = 6,
    accident: float = 0.15,
    generator: torch.Generator,
) -> Tensor:
    """Sentences as long as captions, in whose place of each factor stands a word of it only by accident.

    Args:
        n: number of sentences.
        said: the factors whose words can slip in, each on its own.
        fillers: number of places that always hold an abstract word.
        accident: probability of a slip; 1 gives captions of nothing.
        generator: on the CPU.

    Returns:
        ``(n, len(said) + fillers)`` int64, places in `CAPTION_WORDS`.

    Raises:
        ValueError: n not positive, an unknown factor, a probability outside [0, 1].
    """
    check_positive(n=n)
    check_in_range(0, 1, accident=accident)
    check_in_range(0, float("inf"), fillers=fillers)
    check_choice(SPRITE_FACTORS, **{f"said[{name!r}]": name for name in said})
    words = torch.randint(_FIRST_ABSTRACT, len(CAPTION_WORDS), (n, len(said) + fillers), generator=generator)
    for place, name in enumerate(said):
        word = _FIRST[name] + torch.randint(len(SPRITE_FACTORS[name]), (n,), generator=generator)
        slips = torch.rand(n, generator=generator) < accident
        words[:, place] = torch.where(slips, word, words[:, place])
    return words


def as_text(words: Tensor) -> list[str]:
    """Sentences ``(n, L)`` as strings, without the gaps."""
    return [" ".join(CAPTION_WORDS[i] for i in row if i) for row in words.tolist()]
