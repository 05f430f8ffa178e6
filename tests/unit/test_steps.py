"""Every method's step can be measured, and the page of their costs says what was."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cl_teach.survey import load

ROOT = Path(__file__).resolve().parents[2]


def from_benchmarks(name: str) -> ModuleType:
    """A module of the benchmarks, whose folder is no package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


step_calls, steps_page = from_benchmarks("step_calls"), from_benchmarks("steps_page")
CASES = step_calls.cases()
ROWS = {row["slug"]: row for row in json.loads(steps_page.RESULTS.read_text(encoding="utf-8"))["methods"]}


def test_every_method_is_measured_and_nothing_else() -> None:
    slugs = [method.slug for method in load()]
    assert sorted(CASES) == sorted(slugs)
    assert list(ROWS) == slugs, "run: .venv/bin/python benchmarks/steps.py"


@pytest.mark.parametrize("slug", CASES)
def test_both_steps_give_finite_gradients_for_what_they_train(slug: str) -> None:
    torch.manual_seed(0)
    for step in CASES[slug].make(16):
        gradients = [x.grad for x in step() if x.grad is not None]
        assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients)


def test_the_page_is_made_from_the_stored_file() -> None:
    page = steps_page.PAGE.read_text(encoding="utf-8")
    assert steps_page.stored() == page, "run: .venv/bin/python benchmarks/steps_page.py"


@pytest.mark.parametrize("method", load(), ids=lambda method: method.slug)
def test_a_row_says_how_much_beside_what_and_why_it_grows(method) -> None:
    row, case = ROWS[method.slug], CASES[method.slug]
    told = [row["name"], row["n"], row["beside"], tuple(row["sizes"]), row["why"], row["note"]]
    assert told == [method.name, case.n, case.baseline, case.sizes, case.why, case.note]
    line = next(line for line in steps_page.stored().splitlines() if line.startswith(f"| [{method.name}]("))
    assert line.count(" | ") == len(steps_page.HEAD) - 1
    for side in ("method", "baseline"):
        assert all(len(row[side][key]) == 3 and min(row[side][key]) > 0 for key in ("milliseconds", "peak_mib"))
    assert row["why"] or row["method"]["growth"]["peak_mib"] < 1.2, "memory grows faster than n: say why"
