"""Sentences about pictures, and sentences about nothing that could be drawn.

A caption of a sprite names the values of its factors and fills up with words that mean nothing visible. An abstract
sentence is made of such words alone, except that a word for a color or a shape may slip in. A caption of a labeled
image (a digit, a garment) has one of the words of its class and fills up in the same way. Sentences are bags of words:
their order carries nothing. Word 0 is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
)
from .sprites import SPRITE_FACTORS

__all__ = ["CAPTION_WORDS", "abstract_sentences", "as_text", "class_captions", "class_synonyms", "sprite_captions"]

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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Describe every sprite: one word for each factor that is said, then words that mean nothing visible.

    Args:
        factors: values by name, ``(n,)`` integers each, as `sprites` returns them.
        said: the factors that are named.
        fillers: number of further words.
        generator: of the fillers.

    Returns:
        ``(n, len(said) + fillers)`` int64, places in `CAPTION_WORDS`.
    """
    check_type(Mapping, factors=factors)
    _check_said(said)
    check_batch(len(said), 1, name="said", why="(something to say)")
    check_count(0, fillers=fillers)
    check_generator(generator)
    n, columns = None, []
    for name in said:
        check_choice(list(factors), **{f"factors, said[{name!r}]": name})
        label, classes = f"factors[{name!r}]", len(SPRITE_FACTORS[name])
        values = check_labels(factors[name], n, name=label, num_classes=classes)
        check_batch(len(values), 1, name=label, why="(a sprite)")
        n = len(values)
        columns.append(_FIRST[name] + values)
    filler = _draw(_FIRST_ABSTRACT, len(CAPTION_WORDS), (n or 0, fillers), generator)
    return torch.cat([torch.stack(columns, 1), filler.to(columns[0].device)], 1)


def abstract_sentences(
    n: int,
    said: Sequence[str] = tuple(SPRITE_FACTORS),
    *,
    fillers: int = 6,
    accident: float = 0.15,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sentences as long as captions, in whose place of each factor stands a word of it only by accident.

    Args:
        n: number of sentences.
        said: the factors whose words can slip in, each on its own.
        fillers: number of places that always hold an abstract word.
        accident: probability of a slip; 1 gives captions of nothing.
        generator: of the draws.

    Returns:
        ``(n, len(said) + fillers)`` int64, places in `CAPTION_WORDS`.
    """
    check_count(n=n)
    check_in_range(0, 1, accident=accident)
    check_count(0, fillers=fillers)
    _check_said(said)
    check_generator(generator)
    words = _draw(_FIRST_ABSTRACT, len(CAPTION_WORDS), (n, len(said) + fillers), generator)
    for place, name in enumerate(said):
        word = _FIRST[name] + _draw(0, len(SPRITE_FACTORS[name]), (n,), generator)
        slips = torch.rand(n, generator=generator, device=words.device) < accident
        words[:, place] = torch.where(slips, word, words[:, place])
    return words


def class_captions(
    labels: Tensor,
    noise: int = 5,
    *,
    classes: int = 10,
    synonyms: int = 1,
    words: int = 60,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Captions of labeled images: a word for the class, then words that mean nothing.

    Args:
        labels: ``(n,)`` integers.
        noise: number of words that mean nothing.
        classes: C. Class c has the words 1 + c, 1 + c + C, ... ; all from 1 + C times ``synonyms`` on are noise.
        synonyms: words of each class, see `class_synonyms`.
        words: number of the last word.
        generator: of the draws.

    Returns:
        ``(n, 1 + noise)`` int64.

    Example:
        >>> class_captions(torch.tensor([3, 0]), noise=0).tolist()
        [[4], [1]]
    """
    check_count(classes=classes, synonyms=synonyms)
    labels = check_labels(labels, num_classes=classes)
    check_batch(len(labels), 1, name="labels", why="(an image)")
    check_count(0, noise=noise)
    check_count(0, words=words)
    if words <= classes * synonyms:
        raise ValueError(
            f"words, classes, synonyms: expected more words than {classes} classes times {synonyms}, got {words}"
        )
    check_generator(generator)
    which = _draw(0, synonyms, (len(labels),), generator).to(labels.device)
    filler = _draw(classes * synonyms + 1, words + 1, (len(labels), noise), generator).to(labels.device)
    return torch.cat([(1 + labels + classes * which)[:, None], filler], 1)


def class_synonyms(classes: int = 10, synonyms: int = 2, words: int = 60) -> Tensor:
    """``(words + 1, synonyms)`` for each word of `class_captions` all words that mean the same, itself included."""
    check_count(classes=classes, synonyms=synonyms)
    check_count(0, words=words)
    if words <= classes * synonyms:
        raise ValueError(
            f"words, classes, synonyms: expected more words than {classes} classes times {synonyms}, got {words}"
        )
    table = torch.arange(words + 1)[:, None].repeat(1, synonyms)
    named = torch.arange(classes * synonyms)
    table[1:][: len(named)] = 1 + named[:, None] % classes + classes * torch.arange(synonyms)
    return table


def as_text(words: Tensor) -> list[str]:
    """Sentences ``(n, L)`` about sprites as strings, without the gaps."""
    check_shapes(words=(words, "n L", int))
    check_entries(0, len(CAPTION_WORDS) - 1, words=words)
    return [" ".join(CAPTION_WORDS[i] for i in row if i) for row in words.tolist()]


def _check_said(said: Sequence[str]) -> None:
    check_type((list, tuple), said=said)
    check_choice(list(SPRITE_FACTORS), **{f"said[{i}]": name for i, name in enumerate(said)})


def _draw(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device="cpu" if generator is None else generator.device)
