"""Emoji: 1,377 small pictures, each with a name in fourteen languages.

Pictures are rendered from Noto Color Emoji (Google, SIL Open Font License 1.1), names are those of the package `emoji`
(Kim and Wurster, BSD license), which has them from Unicode's CLDR. ``data/README.md`` says how the file was made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_choice, check_count, check_device, check_type
from .common import verify

__all__ = ["EMOJI_LANGUAGES", "EmojiNames", "emoji_names", "name_pieces"]

FILE = Path(__file__).with_name("emoji_names.npz")
SHA256 = "8ee2d3b0dfc368ae0d0699e8f406829033e25006f9f928405192e3a73a6447d7"
EMOJI_LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")


class EmojiNames(NamedTuple):
    """Pictures that have one name in each language.

    Attributes:
        images: ``(n, 3, 16, 16)``, float32 in [0, 1], on white.
        signs: the n emoji as characters, in the order of their code points, so that neighbors are often alike.
        names: for each language its n names, spelled as they are written there.
    """

    images: Tensor
    signs: tuple[str, ...]
    names: dict[str, tuple[str, ...]]


def emoji_names(languages: Sequence[str] = EMOJI_LANGUAGES, *, device: torch.device | str | None = None) -> EmojiNames:
    """Load the emoji that ship with `cl_teach`; no network.

    Args:
        languages: which names to load, of `EMOJI_LANGUAGES` (ISO 639-1).
        device: where the pictures go.

    Raises:
        FileNotFoundError: the embedded file is missing.
        RuntimeError: the file is damaged.

    Example:
        >>> data = emoji_names(("en", "fr"))
        >>> data.images.shape
        torch.Size([1377, 3, 16, 16])
        >>> row = data.signs.index("🐙")
        >>> data.names["en"][row], data.names["fr"][row]
        ('octopus', 'pieuvre')
    """
    check_type((list, tuple), languages=languages)
    if not languages or len(set(languages)) < len(languages):
        raise ValueError(f"languages: expected at least one, each once, got {languages!r}")
    for language in languages:
        check_choice(EMOJI_LANGUAGES, languages=language)
    check_device(device)
    verify(FILE, SHA256)
    with np.load(FILE) as arrays:
        text = json.loads(arrays["text"].tobytes())
        pixels = torch.from_numpy(arrays["images"]).to(device)
    images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return EmojiNames(images, tuple(text["signs"]), {code: tuple(text["names"][code]) for code in languages})


def name_pieces(names: Sequence[str], buckets: int = 2048, length: int = 48) -> Tensor:
    """Names in any script as bags of hashed pairs and triples of characters, for a `torch.nn.EmbeddingBag`.

    Args:
        names: n names, none of them empty.
        buckets: numbers that pieces share, 0 among them, which is a gap.
        length: of the longest bag; what is beyond is left out.

    Returns:
        ``(n, length)`` int64 in [0, buckets).

    Example:
        >>> name_pieces(["cat", "cats"], length=8).ne(0).sum(1).tolist()  # " cat " has four pairs and three triples
        [7, 8]
    """
    check_type((list, tuple), names=names)
    check_count(2, buckets=buckets)
    check_count(length=length)
    if not names:
        raise ValueError("names: expected at least one, got none")
    bags = torch.zeros(len(names), length, dtype=torch.long)
    for row, name in enumerate(names):
        check_type(str, **{f"names[{row}]": name})
        if not name:
            raise ValueError(f"names[{row}]: expected a name, got an empty one")
        padded = f" {name} "
        pieces = [padded[i : i + n] for n in (2, 3) for i in range(len(padded) - n + 1)][:length]
        # Python's own hash differs from run to run.
        codes = [1 + sum(ord(c) * 31**i for i, c in enumerate(piece)) % (buckets - 1) for piece in pieces]
        bags[row, : len(codes)] = torch.tensor(codes)
    return bags
