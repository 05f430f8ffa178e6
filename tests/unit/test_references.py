"""The bibliography: complete, and every key used anywhere is in it (of methods, see test_survey_rules.py)."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from survey_rules import bibliography

ROOT = Path(__file__).resolve().parents[2]
BIB = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
KEY = re.compile(r"(?<![\w/.#-])[a-z]+(?:19|20)\d\d[a-z]+(?![\w/.-]*[\w/])")
CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def used_keys(text: str) -> set[str]:
    """Keys in ``{cite}`` roles, and every word that looks like a key (chapters write them out)."""
    cited = {key.strip() for group in CITE.findall(text) for key in group.split(",")}
    return cited | set(KEY.findall(text))


def test_no_key_and_no_paper_occurs_twice() -> None:
    keys = re.findall(r"(?m)^@\w+\{([^,]+),", BIB)
    assert len(keys) == len(set(keys)) == len(bibliography(ROOT))
    numbers = Counter(entry["eprint"] for entry in bibliography(ROOT).values() if "eprint" in entry)
    assert [number for number, count in numbers.items() if count > 1] == []


def test_every_entry_has_title_authors_and_year_and_a_place() -> None:
    for key, entry in bibliography(ROOT).items():
        assert {"title", "author", "year"} <= set(entry), key
        assert {"booktitle", "journal", "eprint"} & set(entry), key
        assert re.fullmatch(r"\d{4}", entry["year"]), key
        assert entry["year"] in key, key


def test_every_key_used_in_chapters_and_pages_exists() -> None:
    known = set(bibliography(ROOT))
    for notebook in (ROOT / "chapters").glob("*/*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert used_keys(text) - known == set(), notebook.name
    for page in (ROOT / "book").glob("*.md"):
        assert used_keys(page.read_text(encoding="utf-8")) - known == set(), page.name


def test_the_search_for_keys_finds_keys_and_leaves_links_alone() -> None:
    text = "[CPC](https://arxiv.org/abs/1807.03748) (`oord2018representation`), {cite:p}`a1,b2`, wrong2099key."
    assert used_keys(text) == {"oord2018representation", "a1", "b2", "wrong2099key"}
    assert used_keys("https://example.org/papers2020new and x_train2020foo/bar") == set()
