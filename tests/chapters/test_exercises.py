"""Every exercise that checks itself: the stub fails, the worked solution passes.

The convention: a code cell holds the stub and ``exercises.check("<chapter>.<n>", function)``; the Markdown
after it, up to the next code cell, holds hints and the solution in ``<details>``, the solution being the last
fence of Python. Cells tagged ``setup`` hold the imports that both need.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

import pytest
from notebooks import CHAPTERS, ROOT, read

CHECK = re.compile(r"""\bcheck\(\s*["']([\w.-]+)["']""")
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def check_call(source: str) -> str:
    """The statement that calls ``check``, alone."""
    for node in ast.parse(plain(source)).body:
        for part in ast.walk(node):
            name = getattr(part, "func", None)
            if isinstance(part, ast.Call) and (getattr(name, "attr", None) or getattr(name, "id", None)) == "check":
                return ast.unparse(node)
    raise AssertionError("no call of check")


def plain(source: str) -> str:
    """Leave out what only a notebook understands."""
    return "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))


def find() -> list[Any]:
    """All exercises that check themselves, as (path, name, stub, Markdown after it)."""
    found = []
    for path in CHAPTERS:
        cells = read(path).cells
        for i, cell in enumerate(cells):
            name = CHECK.search(cell.source) if cell.cell_type == "code" else None
            if name is None:
                continue
            after = []
            for following in cells[i + 1 :]:
                if following.cell_type == "code":
                    break
                after.append(following.source)
            found.append(pytest.param(path, name[1], cell.source, "\n".join(after), id=name[1]))
    return found


EXERCISES = find()


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A place to run cells in, which notes every report that ``check`` returns."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    exercises = pytest.importorskip("cl_teach.exercises")
    reports: list[Any] = []
    original = exercises.check

    def recording(*args: Any, **kwargs: Any) -> Any:
        report = original(*args, **kwargs)
        reports.append(report)
        return report

    monkeypatch.setattr(exercises, "check", recording)

    def run(source: str) -> None:
        exec(compile(plain(source), "cell", "exec"), namespace)

    namespace: dict[str, Any] = {"__name__": "__main__"}
    return run, reports


@pytest.mark.parametrize(("path", "name", "stub", "after"), EXERCISES)
def test_stub_fails_and_worked_solution_passes(
    path: Path, name: str, stub: str, after: str, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reports = workspace
    monkeypatch.chdir(path.parent)
    setup = [c.source for c in read(path).cells if c.cell_type == "code" and "setup" in c.metadata.get("tags", [])]
    assert setup, f"{path.relative_to(ROOT)}: no cell is tagged 'setup'"
    for source in setup:
        run(source)

    run(stub)
    assert len(reports) == 1, "the stub's cell calls check once"
    assert not reports[0].passed, "the stub already passes"

    solutions = FENCE.findall(after)
    assert solutions, "no solution in a fence of Python after the exercise"
    run(solutions[-1])
    run(check_call(stub))
    assert reports[-1].passed, "the worked solution does not pass"


@pytest.mark.parametrize(("path", "name", "stub", "after"), EXERCISES)
def test_hint_and_solution_are_folded(path: Path, name: str, stub: str, after: str) -> None:
    folded = re.findall(r"<details>(.*?)</details>", after, re.DOTALL)
    summaries = [m.lower() for text in folded for m in re.findall(r"<summary>(.*?)</summary>", text, re.DOTALL)]
    assert any("hint" in s for s in summaries), f"{name}: no folded hint"
    assert any("solution" in s for s in summaries), f"{name}: no folded solution"
    assert after.count("```python") == sum(text.count("```python") for text in folded), "a solution lies open"


def test_exercise_names_are_unique() -> None:
    names = [parameter.id for parameter in EXERCISES]
    assert len(names) == len(set(names))
    assert os.environ.get("CL_TEACH_SCALE", "small") == "small", "the tests run at the small scale"
