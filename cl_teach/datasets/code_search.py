"""Words to be searched: functions of a Python and what their docstrings say of them, as tokens with types.

Words are numbered by a hash, so that a word which no training text has still has a number, the same in a question and
in code. Names fall into their words: ``parse_header`` and ``parseHeader`` are both *parse*, *header*.
"""

from __future__ import annotations

import ast
import io
import keyword
import os
import re
import tokenize
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_choice, check_count, check_flag, check_type
from .installed import Documented, documented_functions, first_paragraph

__all__ = [
    "FIRST_WORD",
    "MASK",
    "PADDING",
    "TOKEN_TYPES",
    "LibraryCode",
    "LibrarySentences",
    "hash_words",
    "library_code",
    "library_sentences",
    "python_tokens",
    "split_words",
]

TOKEN_TYPES = ("name", "keyword", "operator", "number", "string")
PADDING, MASK = 0, 1
NAMED = {kind: 2 + i for i, kind in enumerate(TOKEN_TYPES)}  # tokens that name a type
FIRST_WORD = 2 + len(TOKEN_TYPES)  # all smaller numbers are special
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.COMMENT}


class LibraryCode(NamedTuple):
    """Functions and what their docstrings say, each docstring once.

    Attributes:
        query: ``(n, M)`` int64, words of a docstring's first paragraph, 0 where it has ended.
        code: ``(n, L)`` int64, tokens of the function, without its docstring.
        types: ``(n, L)`` int64, for each token the number of the token that names its type; 0 where the code has ended.
        texts: the paragraphs.
        sources: the code.
        names: such as ``email/utils.py: parseaddr``.
    """

    query: Tensor
    code: Tensor
    types: Tensor
    texts: list[str]
    sources: list[str]
    names: list[str]


class LibrarySentences(NamedTuple):
    """Sentences of docstrings, each once.

    Attributes:
        words: ``(n, M)`` int64, 0 where a sentence has ended.
        function: ``(n,)`` int64, whose docstring it is from.
        file: ``(n,)`` int64, where that function is.
        texts: the sentences.
    """

    words: Tensor
    function: Tensor
    file: Tensor
    texts: list[str]


def split_words(text: str) -> list[str]:
    """The words of a text or a name, in small letters.

    Example:
        >>> split_words("Return parseHTTPHeader's max_size.")
        ['return', 'parse', 'http', 'header', 's', 'max', 'size']
    """
    check_type(str, text=text)
    return [word.lower() for word in WORD.findall(text)]


def hash_words(words: Sequence[str], buckets: int = 8192) -> list[int]:
    """A number from `FIRST_WORD` on for each word; two words in one bucket are one to whoever reads the numbers.

    Args:
        words: any.
        buckets: how many numbers there are.
    """
    check_type((list, tuple), words=words)
    check_type(str, **{f"words[{i}]": word for i, word in enumerate(words)})
    check_count(buckets=buckets)
    return [FIRST_WORD + zlib.crc32(word.encode()) % buckets for word in words]


def python_tokens(code: str, *, hide_names: bool = False) -> list[tuple[str, str]]:
    """Tokens of Python code with their types; names and strings fall into their words.

    Args:
        code: that can be parsed.
        hide_names: say ``<name>`` for what the author of the function named: itself, its arguments, its variables.

    Returns:
        ``(token, type)``, the type one of `TOKEN_TYPES`.

    Raises:
        ValueError: the code cannot be parsed.

    Example:
        >>> python_tokens("return max_size + 1")
        [('return', 'keyword'), ('max', 'name'), ('size', 'name'), ('+', 'operator'), ('1', 'number')]
        >>> python_tokens("def double(x): return abs(x)", hide_names=True)[:2]
        [('def', 'keyword'), ('<name>', 'name')]
    """
    check_type(str, code=code)
    check_flag(hide_names=hide_names)
    try:
        chosen = _chosen_names(ast.parse(code)) if hide_names else set()
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError) as error:
        raise ValueError(f"code: expected Python that can be parsed, got {code[:60]!r} ({error})") from None
    found = []
    for token in _whole_strings(tokens, code):
        text = token.string
        if token.type == tokenize.NAME and keyword.iskeyword(text):
            found.append((text, "keyword"))
        elif token.type == tokenize.NAME and text in chosen:
            found.append(("<name>", "name"))
        elif token.type == tokenize.NAME:
            found += [(word, "name") for word in split_words(text)]
        elif token.type == tokenize.NUMBER:
            found.append((text, "number"))
        elif token.type == tokenize.OP:
            found.append((text, "operator"))
        elif token.type not in LAYOUT:
            found += [(word, "string") for word in split_words(text)]
    return found


def _whole_strings(tokens: list[tokenize.TokenInfo], code: str) -> list[tokenize.TokenInfo]:
    """Formatted strings as one token each, as Python 3.11 has them; from 3.12 on they come in pieces."""
    lines = list(io.StringIO(code))  # as the tokenizer cuts them
    whole: list[tokenize.TokenInfo] = []
    opened: list[tokenize.TokenInfo] = []
    for token in tokens:
        kind = tokenize.tok_name[token.type]
        if kind in ("FSTRING_START", "TSTRING_START"):
            opened.append(token)
        elif kind in ("FSTRING_END", "TSTRING_END"):
            first = opened.pop()
            if not opened:
                (top, left), (bottom, right) = first.start, token.end
                text = "".join(lines[top - 1 : bottom])
                text = text[left : len(text) - len(lines[bottom - 1]) + right]
                whole.append(tokenize.TokenInfo(tokenize.STRING, text, first.start, token.end, first.line))
        elif not opened:
            whole.append(token)
    return whole


def _chosen_names(tree: ast.AST) -> set[str]:
    """What the author of a function has named: functions, arguments, variables."""
    chosen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            chosen.add(node.name)
        elif isinstance(node, ast.arg):
            chosen.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            chosen.add(node.id)
    return chosen


def library_code(
    *,
    methods: bool = False,
    names: str = "kept",
    query_length: int = 24,
    code_length: int = 96,
    buckets: int = 8192,
    folder: str | os.PathLike[str] | None = None,
) -> LibraryCode:
    """Questions and functions of a Python's standard library, as numbers.

    A docstring that occurs again, in any function, is left out: it would have two answers.

    Args:
        methods: also the methods of top-level classes.
        names: ``"kept"``, or ``"hidden"``: what the author of a function named is only ``<name>`` in its code.
        query_length: M, words that are kept of a docstring's first paragraph.
        code_length: L, tokens that are kept of a function.
        buckets: of the hash.
        folder: where to look; the standard library of this Python if None, which differs from version to version.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no function with a docstring of four words is there.
    """
    check_choice(("kept", "hidden"), names=names)
    check_flag(methods=methods)
    check_count(query_length=query_length, code_length=code_length, buckets=buckets)
    firsts: dict[str, Documented] = {}
    for each in documented_functions(folder):
        text = first_paragraph(each.text)
        if len(split_words(text)) >= 4 and (methods or "." not in each.name):
            firsts.setdefault(text, each)
    if not firsts:
        raise ValueError(f"folder: expected a function with a docstring of four words, found none in {folder}")
    code, types = [], []
    for each in firsts.values():
        tokens = python_tokens(each.code, hide_names=names == "hidden")[:code_length]
        kinds = [NAMED[kind] for _, kind in tokens]
        numbers = hash_words([text for text, _ in tokens], buckets)
        hidden = [text == "<name>" for text, _ in tokens]
        code.append([kind if hide else n for n, kind, hide in zip(numbers, kinds, hidden, strict=True)])
        types.append(kinds)
    return LibraryCode(
        _padded([hash_words(split_words(text)[:query_length], buckets) for text in firsts], query_length),
        _padded(code, code_length),
        _padded(types, code_length),
        list(firsts),
        [each.code for each in firsts.values()],
        [f"{each.file}: {each.name}" for each in firsts.values()],
    )


def library_sentences(
    *, shortest: int = 5, length: int = 24, buckets: int = 8192, folder: str | os.PathLike[str] | None = None
) -> LibrarySentences:
    """Sentences of the docstrings of a Python's standard library, as numbers; examples in them are left out.

    Args:
        shortest: words of the shortest sentence.
        length: M, words that are kept of a sentence.
        buckets: of the hash.
        folder: where to look; the standard library of this Python if None, which differs from version to version.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such sentence is there.
    """
    check_count(shortest=shortest, length=length, buckets=buckets)
    found: dict[str, tuple[int, str]] = {}
    for i, each in enumerate(documented_functions(folder)):
        for paragraph in each.text.split("\n\n"):
            if ">>>" not in paragraph:
                for text in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                    if len(split_words(text)) >= shortest:
                        found.setdefault(text, (i, each.file))
    if not found:
        raise ValueError(f"folder: expected a docstring with a sentence of {shortest} words, found none in {folder}")
    functions, files = zip(*found.values(), strict=True)
    number = {file: i for i, file in enumerate(dict.fromkeys(files))}
    return LibrarySentences(
        _padded([hash_words(split_words(text)[:length], buckets) for text in found], length),
        torch.tensor(functions),
        torch.tensor([number[file] for file in files]),
        list(found),
    )


def _padded(rows: Sequence[Sequence[int]], length: int) -> Tensor:
    return torch.tensor([[*row, *[PADDING] * (length - len(row))] for row in rows])
