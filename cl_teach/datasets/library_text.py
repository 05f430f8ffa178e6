"""Prose of Python's own library: docstrings of modules, classes and functions as words, for small language models."""

from __future__ import annotations

import ast
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_type

__all__ = ["LibraryText", "library_text"]

START, RARE = 0, 1
SHORTEST = 8  # words of a docstring
SKIPPED = {"site-packages", "dist-packages", "lib2to3", "idlelib", "turtledemo"}


class LibraryText(NamedTuple):
    """Docstrings in an order drawn at random; token 0 starts each, 1 stands for every rarer word.

    Attributes:
        documents: each ``(length,)`` int64.
        words: of the tokens.
    """

    documents: list[Tensor]
    words: list[str]

    def prompts(self, first: int, prompt: int, length: int) -> Tensor:
        """The beginnings ``(n, length)`` of the long enough documents from ``first`` on.

        Args:
            first: documents before it are not looked at.
            prompt: the first so many tokens contain no rare word.
            length: of what is returned.
        """
        check_count(0, first=first)
        check_count(prompt=prompt, length=length)
        found = [x[:length] for x in self.documents[first:] if len(x) >= length and not (x[:prompt] == RARE).any()]
        if not found:
            raise ValueError(f"first, prompt, length: expected a document of {length} tokens, got none")
        return torch.stack(found)


def library_text(vocabulary: int = 2000, *, seed: int = 0, folder: str | os.PathLike[str] | None = None) -> LibraryText:
    """Read the docstrings of a library, each text once, without examples of code.

    Args:
        vocabulary: number of tokens, the most frequent words; at least 3.
        seed: of the order.
        folder: where to look, and one folder deeper; the standard library of this Python if None, whose texts differ a
            little from version to version.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has no docstring that is long enough.
    """
    check_count(3, vocabulary=vocabulary)
    check_count(0, seed=seed)
    if folder is not None:
        check_type((str, os.PathLike), folder=folder)
    root = Path(folder) if folder is not None else Path(sysconfig.get_paths()["stdlib"])
    if not root.is_dir():
        raise FileNotFoundError(f"folder: {root} is not a folder")
    texts: dict[tuple[str, ...], None] = {}
    for file in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        parts = file.relative_to(root).parts
        if SKIPPED & set(parts) or any("test" in part for part in parts):
            continue
        texts |= dict.fromkeys(_docstrings(file))
    if not texts:
        raise ValueError(f"folder: expected docstrings of {SHORTEST} words in {root}, got none")
    frequent = Counter(word for text in texts for word in text).most_common(vocabulary - 2)
    words = ["<start>", "<rare>", *(word for word, _ in frequent)]
    number = {word: i for i, word in enumerate(words)}
    every = [torch.tensor([START, *(number.get(word, RARE) for word in text)]) for text in texts]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    return LibraryText([every[i] for i in order.tolist()], words)


def _docstrings(file: Path) -> list[tuple[str, ...]]:
    """Words, full stops and commas of every docstring of a file."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []  # a file that cannot be read says nothing about the others
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            prose = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith((">>>", "...")))
            words = tuple(re.findall(r"[a-z]+|[.,]", prose.lower()))
            if len(words) >= SHORTEST:
                found.append(words)
    return found
