"""Where chapters wait: the tool that looks, and the page of what it saw."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

from cl_teach.survey import heading_anchors

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted(
    path.relative_to(ROOT / "chapters").with_suffix("").as_posix() for path in ROOT.glob("chapters/*/*.ipynb")
)


def from_tools(name: str) -> ModuleType:
    """A module of the tools, whose folder is no package."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "tools"))


profile_chapters, waiting_page = from_tools("profile_chapters"), from_tools("waiting_page")
RECORD = json.loads(waiting_page.RECORD.read_text(encoding="utf-8"))


def test_a_chapter_is_run_and_every_cell_says_what_it_did(tmp_path: Path) -> None:
    busy = "def idle():\n    for _ in range(2_000_000):\n        pass\n\n\nidle()"
    codes = ["import torch", busy, "idle()  # again\nfound = 1 / 0"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    command = [sys.executable, str(ROOT / "tools" / "profile_chapters.py"), "--inside", str(tmp_path / "tiny.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, third = json.loads(done.stdout.splitlines()[-1])
    assert [first["starts"], second["starts"], third["starts"]] == ["import torch", "def idle():", "idle()  # again"]
    assert next(iter(second["by"])) == "idle" and "idle" in third["by"]  # an error takes time to be told
    assert next(iter(second["work"])) == "the chapter's own lines"
    assert all(cell["seconds"] >= 0 and not cell["optional"] for cell in (first, second, third))


def test_an_error_that_was_not_expected_ends_the_run(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("found = 1 / 0")])
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    command = [sys.executable, str(ROOT / "tools" / "profile_chapters.py"), "--inside", str(tmp_path / "broken.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "broken.ipynb, 'found = 1 / 0'" in done.stderr


def test_a_cell_is_known_by_its_first_line_that_no_other_has() -> None:
    sources = ["seed(0)\n# a comment\nx = 1", "seed(0)\n\n  y = 2", "seed(0)"]
    assert profile_chapters.known_by(sources) == ["x = 1", "y = 2", ""]


def test_what_is_kept_are_the_slowest_cells() -> None:
    cells = [{"starts": str(t), "seconds": t, "work": {}, "by": {}, "optional": False} for t in (1.0, 5.0, 2.0, 4.0)]
    kept = profile_chapters.summary(cells)
    assert (kept["seconds"], kept["cells"]) == (12.0, 4)
    assert [cell["seconds"] for cell in kept["slowest"]] == [5.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("own", "where"),
    [
        ("cl_teach.training.loop.fit", "`fit`"),
        ("cl_teach.models.encoders.MLP.forward", "`MLP.forward`"),
        ("train", "`train`"),
        ("the cell itself", "the cell itself"),
    ],
)
def test_shares_are_told_in_words(own: str, where: str) -> None:
    cell = {"work": {"backward passes": 0.5, "drawing": 0.04}, "by": {own: 0.6, "other": 0.4}}
    assert waiting_page.what(cell) == f"50 % backward passes; 60 % in {where}"


def test_every_chapter_is_measured_and_nothing_else() -> None:
    assert sorted(RECORD) == CHAPTERS, "run: make profile ONLY=<the chapter>"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_cell_of_the_record_is_still_there(chapter: str) -> None:
    starts = [cell["starts"] for cell in RECORD[chapter]["slowest"]]
    anchors = heading_anchors(ROOT / "chapters" / f"{chapter}.ipynb")
    for line in [*starts, *RECORD[chapter].get("optional", {})]:
        where = waiting_page.place(chapter, line)
        assert where, f"no single cell has {line!r}; run: make profile ONLY={chapter}"
        assert where.anchor in anchors


def test_every_reason_belongs_to_a_cell_and_the_slowest_cells_have_one() -> None:
    for chapter, line in waiting_page.REASONS:
        assert waiting_page.place(chapter, line), f"{chapter}: no single cell has {line!r}"
    slowest = {(chapter, cell["starts"]) for chapter, cell in waiting_page.slowest(RECORD)}
    assert slowest <= set(waiting_page.REASONS), "say in tools/waiting_page.py why these cells take their time"


def test_the_page_is_made_from_the_record() -> None:
    page = waiting_page.PAGE.read_text(encoding="utf-8")
    assert waiting_page.stored() == page, "run: .venv/bin/python tools/waiting_page.py"
