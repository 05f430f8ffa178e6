"""The survey: complete, consistent with the house, and its status derived from what exists."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from cl_teach import evidence, survey
from cl_teach.survey import load, parts, status

ROOT = Path(__file__).resolve().parents[2]
SLUG = "dcl"
CHAPTER = "3_losses/01_weights_and_decoupling"


def row(root: Path, slug: str = SLUG) -> survey.Status:
    return next(each for each in status(root) if each.method.slug == slug)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def add_notebook(root: Path, *sources: str) -> None:
    cells = [{"cell_type": "markdown", "source": [source]} for source in sources]
    write(root / "chapters" / f"{CHAPTER}.ipynb", json.dumps({"cells": cells}))


def add_record(root: Path, slug: str = SLUG, method: tuple[float, ...] = (1.0, 1.1, 1.2)) -> None:
    evidence.record(
        slug,
        "claim",
        claim="It is better | always.",
        metric="kNN accuracy",
        unit="points",
        expected="higher",
        baseline_name="base",
        method_name=slug,
        seeds=[0, 1, 2],
        baseline=[0.5, 0.7, 0.6],
        method=method,
        seconds=1,
        root=root,
    )


def test_there_are_52_methods_in_nine_parts() -> None:
    counts = Counter(method.part for method in load())
    assert counts == {2: 3, 3: 9, 4: 9, 5: 5, 6: 6, 7: 5, 8: 6, 9: 3, 10: 6}
    assert [part.number for part in parts()] == list(range(1, 11))


@pytest.mark.parametrize("field", ["slug", "name", "title", "cite", "module"])
def test_no_two_methods_share(field: str) -> None:
    counts = Counter(getattr(method, field) for method in load())
    assert {value for value, count in counts.items() if count > 1} == set()


def test_every_row_follows_the_house_rules() -> None:
    packages = {part.number: part for part in parts()}
    for method in load():
        part = packages[method.part]
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", method.slug)
        assert method.module == f"cl_teach.{part.package}.{method.identifier}", method.slug
        assert not method.chapter or method.chapter.startswith(f"{part.chapters}/"), method.slug
        assert re.fullmatch(r"(\d{4}\.\d{5})?", method.arxiv), method.slug
        assert re.fullmatch(r"([\w.-]+/[\w.-]+@[0-9a-f]{7,40})?", method.official_code), method.slug
        assert 2018 <= method.year <= 2026, method.slug
        assert method.authors, method.slug
        assert method.modality, method.slug


def test_entry_points_exist_once_they_are_named() -> None:
    import importlib

    for method in load():
        for name in method.entry_points:
            assert hasattr(importlib.import_module(method.module), name), f"{method.module}.{name}"


def test_modules_of_the_survey_packages_are_in_the_survey() -> None:
    """A file in a part's package is a method of the survey, or says in its name that it is shared (``_``)."""
    known = {method.module.split(".", 1)[1] for method in load()}
    for part in parts()[1:]:
        for file in (ROOT / "cl_teach" / part.package).glob("*.py"):
            name = f"{part.package}.{file.stem}"
            assert name in known or file.stem.startswith("_") or name in SHARED, name


SHARED = {"theory.linear_model"}  # the toy model that two methods of part 2 are compared on


def test_an_empty_repository_has_nothing(tmp_path: Path) -> None:
    found = row(tmp_path)
    assert (found.module, found.adapter, found.golden_cases) == (False, False, 0)
    assert (found.evidence, found.anchor, found.exercise) == ([], "", False)
    assert found.verdicts == "not yet measured"


def test_a_module_counts_when_its_file_is_there(tmp_path: Path) -> None:
    write(tmp_path / "cl_teach" / "losses" / "dcl.py", "")
    assert row(tmp_path).module
    assert not row(tmp_path, "cacr").module


def test_an_adapter_counts_when_it_names_every_quantity(tmp_path: Path) -> None:
    golden = tmp_path / "tests" / "golden"
    cases = [{"quantity": "loss"}, {"quantity": "loss"}, {"quantity": "weights"}]
    write(golden / "data" / "dcl.json", json.dumps({"method": "dcl", "cases": cases}))
    assert (row(tmp_path).quantities, row(tmp_path).golden_cases) == (0, 3)
    write(golden / "adapters" / "dcl.py", "def dcl(quantity, inputs, params):\n    return quantity == 'loss'\n")
    assert (row(tmp_path).quantities, row(tmp_path).all_quantities, row(tmp_path).adapter) == (1, 2, False)
    assert "1/2" in survey.table(status(tmp_path))
    write(golden / "adapters" / "dcl.py", "def dcl(q, i, p):\n    return q in ('loss', 'weights')\n")
    assert row(tmp_path).adapter
    (golden / "adapters" / "dcl.py").rename(golden / "adapters" / "cacr.py")
    assert not row(tmp_path).quantities


def test_evidence_counts_with_its_verdicts(tmp_path: Path) -> None:
    add_record(tmp_path)
    assert row(tmp_path).verdicts == "1 holds"
    add_record(tmp_path, method=(0.5, 0.8, 0.5))
    assert row(tmp_path).verdicts == "1 inconclusive"


def test_a_chapter_counts_when_a_heading_holds_the_anchor(tmp_path: Path) -> None:
    add_notebook(tmp_path, "# Weights and decoupling", "Text on DCL.\n\n```python\n## dcl\n```\n")
    assert row(tmp_path).anchor == ""
    add_notebook(tmp_path, "# Weights", "## The *decoupled* loss: [`DCL`](https://example.org) (2022)\n\nText.")
    assert row(tmp_path).anchor == "the-decoupled-loss-dcl-2022"
    add_notebook(tmp_path, "## dclw, another one")
    assert row(tmp_path).anchor == ""


def test_an_exercise_counts_when_the_chapter_file_names_the_method(tmp_path: Path) -> None:
    file = tmp_path / "cl_teach" / "exercises" / "weights_and_decoupling.py"
    write(file, "from ..losses import dcl\n")
    assert row(tmp_path).exercise
    assert not row(tmp_path, "cacr").exercise


def test_without_the_repository_only_modules_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "repository_root", lambda: None)
    rows = status()
    assert len(rows) == 52
    assert all(each.golden_cases is None and each.anchor is None for each in rows)
    assert "can be seen only in the repository" in survey.table(rows)
    assert survey.main(["--write"]) == 1


def test_the_table_has_a_line_for_every_slug_and_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert survey.main([]) == 0
    text = capsys.readouterr().out
    for method in load():
        assert re.search(rf"^ +{method.part}  {method.slug} ", text, re.MULTILINE), method.slug
    assert re.search(r"^module \d+/52, adapter \d+/52, golden 52/52, evidence \d+/52,", text, re.MULTILINE)


def test_the_map_has_every_method_and_cites_every_reference() -> None:
    text = survey.survey_map(status(ROOT), ROOT)
    assert len(re.findall(r"(?m)^\| .*\{cite:p\}", text)) == 52
    for method in load():
        assert f"`{method.cite}`" in text
    for key in survey.bib_keys(ROOT):
        assert f"`{key}`" in text


def test_the_map_links_a_section_that_exists_and_no_other(tmp_path: Path) -> None:
    assert "](../chapters/" not in survey.survey_map(status(tmp_path), tmp_path)
    add_notebook(tmp_path, "## DCL")
    assert f"[DCL](../chapters/{CHAPTER}.ipynb#dcl)" in survey.survey_map(status(tmp_path), tmp_path)


def test_the_evidence_page_names_every_method_measured_or_not(tmp_path: Path) -> None:
    add_record(tmp_path)
    add_record(tmp_path, slug="simclr")
    text = survey.evidence_page(status(tmp_path), tmp_path)
    for method in load():
        assert method.name in text, method.slug
    assert "So far: 2 records, 2 holds, 0 opposite, 0 inconclusive; 1 of the 52" in text
    assert text.index("### SimCLR") < text.index("## Part 2")
    assert "(evidence-dcl)=" in text
    assert "always" in text
    assert re.search(r"Not yet measured: CACR, iSogCLR", text)
    table = [line for line in text.splitlines() if line.startswith("| It is better")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [5, 5]


def test_the_drawn_interval_is_labelled_and_inside_the_picture(tmp_path: Path) -> None:
    add_record(tmp_path)
    (record,) = evidence.load(SLUG, root=tmp_path)
    svg = survey.draw_interval(record)
    assert f'aria-label="Method minus baseline: {record.interval}; holds."' in svg
    assert svg.count("<circle") == len(record.seeds) + 1
    places = [float(x) for x in re.findall(r'cx="([-\d.]+)"', svg)]
    places += [float(x) for x in re.findall(r'd="M([-\d.]+)', svg)]
    assert all(8 <= x <= 152 for x in places)
    assert "\n" not in svg


def test_writing_the_pages_twice_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    add_record(tmp_path)
    files = survey.write_pages(tmp_path)
    before = [(file.read_text(encoding="utf-8"), file.stat().st_mtime_ns) for file in files]
    assert [file.name for file in files] == ["survey_map.md", "evidence.md"]
    survey.write_pages(tmp_path)
    assert [(file.read_text(encoding="utf-8"), file.stat().st_mtime_ns) for file in files] == before
    assert survey.pages(tmp_path) == {file.name: file.read_text(encoding="utf-8") for file in files}
