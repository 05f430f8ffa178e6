"""Links of chapters to the glossary and to one another, on small notebooks and on every stored chapter."""

from __future__ import annotations

import json
import re
from pathlib import Path

import glossary_links
import pytest
from glossary_links import MOST, anchor, link_chapter, link_mentions, link_rows, link_terms, numbers, terms

GLOSSARY = """\
# Glossary

:::{glossary}
CHES
  A score. [Chapter 10.1](../chapters/10_alignment/01_where_probability_goes).

false negative
  A {term}`negative` of the anchor's own kind.

negative
  A candidate that does not
  belong to the anchor.

view
  What the network sees.
:::
"""
ENTRIES = terms(GLOSSARY)
CHAPTERS = numbers()
TARGETS = {"1.1": "01_a.ipynb", "2.1": "../2/01_b.ipynb", "2.2": "../2/02_c.ipynb"}
FEWEST = 3  # links to the glossary in any chapter


def linked(*texts: str, number: str = "1.2") -> list[str]:
    return link_terms(["# Title", *texts], number, ENTRIES)[1:]


def to(term: str, text: str) -> str:
    return f"[{text}](../../book/glossary.md#{anchor(term)})"


def test_terms_and_definitions_are_read_from_the_page() -> None:
    assert list(ENTRIES) == ["CHES", "false negative", "negative", "view"]
    assert ENTRIES["negative"] == "A candidate that does not belong to the anchor."
    assert [anchor(term) for term in ENTRIES] == ["term-CHES", "term-false-negative", "term-negative", "term-view"]


def test_only_the_first_use_of_a_term_is_linked() -> None:
    assert linked("Two views of a thing, and more views.", "Views again.") == [
        f"Two {to('view', 'views')} of a thing, and more views.",
        "Views again.",
    ]


def test_the_start_of_a_sentence_and_the_plural_count_but_no_longer_word() -> None:
    assert linked("Reviews, multi-view, views-to-be. Views!") == [
        f"Reviews, multi-view, views-to-be. {to('view', 'Views')}!"
    ]


def test_a_longer_term_wins_over_the_one_inside_it() -> None:
    text = linked("Some false negatives. Then other negatives.")[0]
    assert text.startswith(f"Some {to('false negative', 'false negatives')}.")
    assert text.count("](") == text.count("term-")


@pytest.mark.parametrize(
    "text",
    [
        "## Two views",
        "| views | number |",
        "`views` and $views$",
        "$$\nviews\n$$",
        "```python\nviews = 2\n```",
        "[two views](https://example.org)",
        "<summary>Why two views?</summary>",
        "> **Two views.**",
        "<details>\n\nTwo views.\n\n</details>",
        "## References\n\n- On views.",
        "a *pair of views*",
    ],
)
def test_nothing_is_linked_outside_running_text(text: str) -> None:
    assert linked(text) == [text]


def test_a_chapter_that_introduces_a_term_needs_no_link_to_it() -> None:
    assert linked("Views come first.", "These are **views**.") == ["Views come first.", "These are **views**."]
    assert linked("CHES is new.", number="10.1") == ["CHES is new."]
    assert "term-CHES" in linked("CHES is new.", number="10.2")[0]


def test_there_are_never_too_many_and_a_second_run_changes_nothing() -> None:
    entries = {f"word{i}": "A word." for i in range(MOST + 5)}
    once = link_terms(["# Title", " ".join(entries)], "1.1", entries)
    assert once[1].count("](") == MOST
    assert link_terms(once, "1.1", entries) == once


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("See chapter 2.1 and chapter 2.1.", "See [chapter 2.1](../2/01_b.ipynb) and chapter 2.1."),
        (
            "Needs: chapters 1.1 (pairs), 2.1 and 2.2.",
            "Needs: chapters [1.1](01_a.ipynb) (pairs), [2.1](../2/01_b.ipynb) and [2.2](../2/02_c.ipynb).",
        ),
        ("Chapter 1.2 is this one, chapter 9.9 is none.", "Chapter 1.2 is this one, chapter 9.9 is none."),
        ("### Chapter 2.1", "### Chapter 2.1"),
        ("[chapter 2.1](../2/01_b.ipynb), chapter 2.1", "[chapter 2.1](../2/01_b.ipynb), chapter 2.1"),
        ("`chapter 2.1`", "`chapter 2.1`"),
    ],
)
def test_the_first_mention_of_another_chapter_is_linked(before: str, after: str) -> None:
    assert link_mentions(before, "1.2", TARGETS) == after
    assert link_mentions(after, "1.2", TARGETS) == after


def test_code_cells_and_the_form_of_a_source_stay() -> None:
    def cell(kind: str, source: str | list[str]) -> dict[str, object]:
        return {"cell_type": kind, "source": source}

    notebook = {
        "cells": [
            cell("markdown", "# Title"),
            cell("code", "views  # chapter 2.1"),
            cell("markdown", ["Two\n", "views."]),
            cell("markdown", "Chapter 2.1."),
        ]
    }
    link_chapter(notebook, "1.2", ENTRIES, TARGETS)
    assert [cell["source"] for cell in notebook["cells"]] == [
        "# Title",
        "views  # chapter 2.1",
        ["Two\n", f"{to('view', 'views')}."],
        "[Chapter 2.1](../2/01_b.ipynb).",
    ]


def test_chapter_numbers_in_the_last_column_of_a_table_are_linked() -> None:
    table = "| symbol | chapter |\n| --- | --- |\n| $2.1$ | 1.1, 2.1 |\n\n| 1.1 | 2.1 |"
    once = link_rows(table, TARGETS)
    assert once.splitlines()[2] == "| $2.1$ | [1.1](01_a.ipynb), [2.1](../2/01_b.ipynb) |"
    assert once.splitlines()[4] == "| 1.1 | 2.1 |"
    assert link_rows(once, TARGETS) == once


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_chapter_links_to_terms_that_exist(number: str) -> None:
    notebook = json.loads(CHAPTERS[number].read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    found = re.findall(r"\]\(\.\./\.\./book/glossary\.md#([^)]*)\)", text)
    known = {anchor(term) for term in terms(glossary_links.GLOSSARY.read_text(encoding="utf-8"))}
    assert set(found) <= known
    assert len(found) == len(set(found)), "a term is linked once"
    assert FEWEST <= len(found) <= MOST


@pytest.mark.parametrize("path", [*CHAPTERS.values(), glossary_links.NOTATION], ids=lambda path: path.stem)
def test_stored_texts_have_all_their_links(path: Path) -> None:
    """If this fails, call ``python tools/glossary_links.py``."""
    entries = terms(glossary_links.GLOSSARY.read_text(encoding="utf-8"))
    assert glossary_links.linked(path, entries, CHAPTERS) == path.read_text(encoding="utf-8")
