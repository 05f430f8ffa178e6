"""The examples in docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import cl_teach

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
LINES = 8  # an example says how something is used; what takes longer is a chapter's


def names() -> Iterator[str]:
    for each in pkgutil.walk_packages(cl_teach.__path__, "cl_teach."):
        if not each.name.endswith("__main__"):
            yield each.name


def examples() -> list[doctest.DocTest]:
    """Every docstring of ``cl_teach`` with a prompt in it."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for name in names() for test in finder.find(importlib.import_module(name), name) if test.examples]


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_runs(example: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_example_is_short(example: doctest.DocTest) -> None:
    lines = sum(each.source.count("\n") for each in example.examples)
    assert lines <= LINES, f"{example.name}: {lines} lines of code, at most {LINES}"
