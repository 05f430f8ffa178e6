"""What was coded by hand for the last chapter fits what it was coded from."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from method_pages import numbered

from cl_teach import evidence, survey

ROOT = Path(__file__).resolve().parents[2]
NOTES = tomllib.loads((ROOT / "cl_teach" / "claims.toml").read_text(encoding="utf-8"))
METHODS = survey.load(ROOT)
KINDS = {"broken", "formula", "setting", "numerics", "choice", "left out", "clarified"}


def test_every_method_has_its_rows_and_no_other_has() -> None:
    slugs = [method.slug for method in METHODS]
    assert list(NOTES["abstract"]) == slugs
    assert list(NOTES["differences"]) == slugs
    assert set(NOTES["world"]["found"]) < set(slugs)


def test_abstracts_are_coded_in_the_words_of_the_key() -> None:
    for slug, row in NOTES["abstract"].items():
        assert row["number"] in {"gain", "value", "none"}, slug
        assert ("gain" in row) == ("unit" in row) == (row["number"] == "gain"), slug
        assert row["about"] in {"mechanism", "accuracy"}, slug
        assert isinstance(row["best"], bool), slug
        assert ("words" in row) == (row["best"] or row["number"] != "none"), slug


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.slug)
def test_differences_are_those_of_the_module(method: survey.Method) -> None:
    file = (ROOT / method.module.replace(".", "/")).with_suffix(".py")
    versus = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("Paper versus code.")[2]
    text = " ".join(versus.split())
    coded = NOTES["differences"][method.slug]
    assert {kind for kind, _ in coded} <= KINDS
    for _, start in coded:
        assert re.search(rf"\(\w+\) {re.escape(start)}", text), f"claims.toml: no item begins {start!r}; code it anew"
    items = sum(bool(re.match(r"\d+\. ", each)) for each in numbered(versus.strip()))
    assert items in (0, len(coded)), f"claims.toml: {len(coded)} items coded, the module has {items}"


def test_controls_are_records_of_the_book() -> None:
    rows = Counter((row["slug"], row["claim"]) for row in NOTES["control"])
    assert max(rows.values()) == 1
    for row in NOTES["control"]:
        assert row["kind"] in {"untrained", "simple"} and row["side"] in {"baseline", "method"}
        assert evidence.load(row["slug"], row["claim"], root=ROOT).origin == "ours", row
