"""The survey: what the list says, and what exists of it, derived from files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cl_teach import evidence, survey
from cl_teach.survey import load, parts, status

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


def add_record(root: Path, method: tuple[float, ...] = (1.0, 1.1, 1.2)) -> None:
    evidence.record(
        SLUG,
        "claim",
        claim="It is better.",
        metric="kNN accuracy",
        unit="points",
        expected="higher",
        baseline_name="base",
        method_name=SLUG,
        seeds=[0, 1, 2],
        baseline=[0.5, 0.7, 0.6],
        method=method,
        seconds=1,
        origin="paper",
        smallest_effect=0.05,
        effect_reason="a tenth of what the paper reports",
        root=root,
    )


def test_methods_stand_in_the_order_of_the_parts() -> None:
    numbers = [part.number for part in parts()]
    of_methods = [method.part for method in load()]
    assert numbers == sorted(numbers) and of_methods == sorted(of_methods)
    assert set(of_methods) == set(numbers[1:])  # the first part is the common ground


def test_a_row_that_lacks_a_field_is_named(tmp_path: Path) -> None:
    write(tmp_path / "cl_teach" / "survey.toml", '[[method]]\nslug = "nnclr"\nname = "NNCLR"\n')
    with pytest.raises(ValueError, match="row of 'nnclr' lacks .*'stage'"):
        load(tmp_path)


def test_a_repository_is_read_with_its_own_list(tmp_path: Path) -> None:
    text = Path(survey.__file__).with_suffix(".toml").read_text(encoding="utf-8")
    write(tmp_path / "cl_teach" / "survey.toml", text.rpartition("[[method]]")[0])
    assert [each.method for each in status(tmp_path)] == load()[:-1]


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
    adapter = golden / "adapters" / "dcl.py"
    cases = [{"quantity": "loss"}, {"quantity": "loss"}, {"quantity": "weights"}]
    write(golden / "data" / "dcl.json", json.dumps({"method": "dcl", "cases": cases}))
    assert (row(tmp_path).quantities, row(tmp_path).golden_cases) == (0, 3)
    write(adapter, "def dcl(quantity, inputs, params):\n    return quantity == 'loss'\n")
    assert (row(tmp_path).quantities, row(tmp_path).all_quantities, row(tmp_path).adapter) == (1, 2, False)
    assert "1/2" in survey.table(status(tmp_path))
    write(adapter, "def dcl(q, i, p):\n    return q in ('loss', 'weights')\n")
    assert row(tmp_path).adapter
    adapter.rename(adapter.with_name("cacr.py"))  # another method's adapter does not count
    assert not row(tmp_path).quantities


def test_evidence_counts_with_its_verdicts(tmp_path: Path) -> None:
    add_record(tmp_path)
    assert row(tmp_path).verdicts == "1 holds"
    add_record(tmp_path, method=(0.5, 0.8, 0.5))
    assert row(tmp_path).verdicts == "1 undecided"


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
    assert len(rows) == len(load())
    assert all(each.module and each.golden_cases is None and each.anchor is None for each in rows)
    assert "can be seen only in the repository" in survey.table(rows)


def test_the_table_has_a_line_for_every_slug_and_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "repository_root", lambda: tmp_path)
    add_record(tmp_path)
    assert survey.main() == 0
    text = capsys.readouterr().out
    for method in load():
        assert re.search(rf"^ +{method.part}  {method.slug} +{method.stage} ", text, re.MULTILINE), method.slug
    n = len(load())
    assert f"module 0/{n}, adapter 0/{n}, golden 0/{n}, evidence 1/{n}, chapter 0/{n}, exercise 0/{n}" in text
    assert "0 golden cases; evidence of the methods: 1 holds" in text
