"""The book's pages that are made from the survey and the records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import survey_pages

from cl_teach import evidence
from cl_teach.survey import load, parts, status

ROOT = Path(__file__).resolve().parents[2]
SLUG = "dcl"
CHAPTER = "3_losses/01_weights_and_decoupling"


def add_record(root: Path, slug: str = SLUG, claim_id: str = "claim", headline: bool = True, **changes: object) -> None:
    settings = dict(
        claim="It is better | always.",
        metric="kNN accuracy",
        unit="points",
        expected="higher",
        baseline_name="base",
        method_name=slug,
        seeds=[0, 1, 2],
        baseline=[0.5, 0.7, 0.6],
        method=[1.0, 1.1, 1.2],
        seconds=1,
        origin="paper",
        headline=headline,
        smallest_effect=0.05,
        effect_reason="a tenth of what the paper reports",
        root=root,
    )
    evidence.record(slug, claim_id, **(settings | changes))


def test_the_map_has_every_method_and_cites_every_reference(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "references.bib").write_bytes((ROOT / "book" / "references.bib").read_bytes())
    text = survey_pages.survey_map(status(tmp_path), tmp_path)
    assert len(re.findall(r"(?m)^\| .*\{cite:p\}", text)) == len(load())
    for method in load():
        assert f"`{method.cite}`" in text
    for key in survey_pages.bib_keys(ROOT):
        assert f"`{key}`" in text


def test_the_map_links_a_section_that_exists_and_no_other(tmp_path: Path) -> None:
    assert "](../chapters/" not in survey_pages.survey_map(status(tmp_path), tmp_path)
    notebook = tmp_path / "chapters" / f"{CHAPTER}.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": ["## DCL"]}]}), encoding="utf-8")
    link = f"[DCL](../chapters/{CHAPTER}.ipynb#dcl)"
    assert link in survey_pages.survey_map(status(tmp_path), tmp_path)


def test_the_map_says_what_became_of_the_headline_alone(tmp_path: Path) -> None:
    add_record(tmp_path, claim_id="b", headline=False, method=[0.5, 0.8, 0.5])
    assert "[no headline yet](#evidence-dcl)" in survey_pages.survey_map(status(tmp_path), tmp_path)
    add_record(tmp_path)
    assert "[holds](#evidence-dcl) |" in survey_pages.survey_map(status(tmp_path), tmp_path)


def test_writing_the_pages_twice_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    add_record(tmp_path)
    files = survey_pages.write_pages(tmp_path)
    before = [(file.read_text(encoding="utf-8"), file.stat().st_mtime_ns) for file in files]
    parts_ = [f"evidence_part_{number}.md" for number in range(1, len(parts(tmp_path)) + 1)]
    names = [str(file.relative_to(tmp_path / "book")) for file in files]
    assert [name for name in names if "/" not in name] == [
        *("survey_map.md", "which_one.md", "evidence.md"),
        *parts_,
        *("methods.md", "api.md"),
    ]
    listed = (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
    assert re.findall(r"file: book/(evidence\S*)", listed) == ["evidence", *(name[:-3] for name in parts_)]
    survey_pages.write_pages(tmp_path)
    assert [(file.read_text(encoding="utf-8"), file.stat().st_mtime_ns) for file in files] == before
    assert survey_pages.pages(tmp_path) == {
        name: file.read_text(encoding="utf-8") for name, file in zip(names, files, strict=True)
    }
