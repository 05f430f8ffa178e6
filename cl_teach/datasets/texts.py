"""A toy language: texts in which always taking the likeliest next word runs into a loop, as it does in real text."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import check_count, check_generator

__all__ = ["toy_text"]

LESS_LIKELY = 0.7  # a successor is this much less likely than the one before it


def toy_text(
    n: int,
    length: int,
    vocabulary: int = 40,
    successors: int = 5,
    *,
    language: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw texts of a language in which every word has a few successors, some of them likelier than others.

    Args:
        n: number of texts.
        length: words of a text.
        vocabulary: number of words.
        successors: number of words that can follow a word; the r-th has a probability proportional to 0.7 to the r.
        language: seed of the table of successors.
        generator: of the texts.

    Returns:
        ``(n, length)`` int64.

    Example:
        >>> text = toy_text(2, 6, generator=torch.Generator().manual_seed(0))
        >>> text.shape, int(text.max()) < 40
        (torch.Size([2, 6]), True)
    """
    check_count(n=n, length=length, successors=successors)
    check_count(successors, vocabulary=vocabulary)
    check_count(0, language=language)
    check_generator(generator)
    where = torch.device("cpu") if generator is None else generator.device
    table = torch.Generator().manual_seed(language)
    follows = torch.rand(vocabulary, vocabulary, generator=table).argsort(1)[:, :successors].to(where)
    chances = LESS_LIKELY ** torch.arange(successors, device=where)
    words = [torch.randint(vocabulary, (n,), generator=generator, device=where)]
    for _ in range(length - 1):
        rank = torch.multinomial(chances, n, replacement=True, generator=generator)
        words.append(follows[words[-1], rank])
    return torch.stack(words, 1)
