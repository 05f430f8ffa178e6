"""Rules that every chapter keeps, read from the stored notebooks without running them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import address
import nbformat
import pytest
import shown_sources
from bs4 import BeautifulSoup
from notebooks import CHAPTERS, NAMES, ROOT, code_cells, prose, read

every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=NAMES)

LONGEST_CELL = 40
DEAD_ON_A_PAGE = re.compile(
    r"\binteract(ive)?\s*\(|\bto_jshtml\b|\bplotly\b|\bPlay\s*\(|%matplotlib\s+(widget|notebook)"
)
MYST = re.compile(r"^(```+|:::+)\s*\{|\{[a-z:-]+\}`|^\([\w-]+\)=\s*$|\{\{.*?\}\}|^\+\+\+", re.MULTILINE)
MACHINE_PATH = re.compile(r"(/home/|/root/|/work/|/tmp/|/Users/|[A-Z]:\\\\)")
BOXES = {"Definition.", "Predict.", "Note.", "Paper versus code.", "How sure are we?"}


@every_chapter
def test_first_cells_say_title_colab_goals_needs_and_run_time(path: Path) -> None:
    cells = read(path).cells
    first = cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source), "the first line is the title"
    where = address.colab_link(address.current(), str(path.relative_to(ROOT)))
    assert f"]({where})" in first.source, f"no Colab link to {where}"
    for wanted in ("able to", "**Needs", "**Run time"):
        assert wanted.lower() in first.source.lower(), f"the first cell does not say {wanted!r}"
    second = cells[1]
    assert second.cell_type == "code", "the second cell brings cl_teach to Colab"
    for wanted in ("import cl_teach", "--no-deps", f"git+{address.current()}", "cl_teach.welcome("):
        assert wanted in second.source, f"the second cell lacks {wanted!r}"
    assert re.search(r"^\s+%pip install", second.source, re.MULTILINE), "the install line is commented out"


def test_the_table_of_contents_lists_every_chapter_once() -> None:
    listed = re.findall(r"chapters/\S+", (ROOT / "book" / "_toc.yml").read_text())
    assert sorted(listed) == sorted(str(path.relative_to(ROOT).with_suffix("")) for path in CHAPTERS)


@every_chapter
def test_executed_in_order_without_errors(path: Path) -> None:
    cells = [cell for _, cell in code_cells(path)]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "call `make chapters`"
    errors = [i for i, cell in code_cells(path) if any(o.output_type == "error" for o in cell.outputs)]
    assert errors == []


@every_chapter
def test_shown_sources_are_as_they_are_now(path: Path) -> None:
    stale = shown_sources.refresh(nbformat.read(path, as_version=4))
    assert not stale, f"cells {stale}; run: .venv/bin/python tools/shown_sources.py"


@every_chapter
def test_stored_metadata_is_clean(path: Path) -> None:
    notebook = read(path)
    assert [cell["id"] for cell in notebook.cells] == [f"cell-{i:03d}" for i in range(len(notebook.cells))]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags", "mystnb"}


@every_chapter
def test_every_picture_has_alt_text(path: Path) -> None:
    """The page takes it from the cell's metadata; without it a reader who cannot see gets a hash."""
    missing = []
    for i, cell in code_cells(path):
        data = [output.get("data", {}) for output in cell.outputs]
        if any(mime.startswith("image/") for d in data for mime in d):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            if len(alt.split()) < 5:
                missing.append(f"cell {i}: mystnb.image.alt is {alt!r}")
        for d in data:
            for image in BeautifulSoup("".join(d.get("text/html", "")), "html.parser").find_all("img"):
                if len(image.get("alt", "").split()) < 3:
                    missing.append(f"cell {i}: <img> with alt {image.get('alt', '')!r}")
    assert missing == []


@every_chapter
def test_no_output_that_is_dead_on_a_page(path: Path) -> None:
    used = [i for i, cell in code_cells(path) if DEAD_ON_A_PAGE.search(cell.source)]
    stored = [
        (i, mime)
        for i, cell in code_cells(path)
        for output in cell.outputs
        for mime in output.get("data", {})
        if "widget" in mime or "plotly" in mime or mime == "application/javascript"
    ]
    assert used == []
    assert stored == []


@every_chapter
def test_outputs_hold_no_clutter_and_no_machine(path: Path) -> None:
    """No progress bars, no warnings on stderr, no paths of the machine that ran it."""
    clutter = [
        (i, output.text[:80])
        for i, cell in code_cells(path)
        for output in cell.outputs
        if output.output_type == "stream" and (output.name == "stderr" or "it/s]" in output.text)
    ]
    paths = [
        (i, found.group())
        for i, cell in code_cells(path)
        for output in cell.outputs
        for text in [output.get("text", "") or "".join(output.get("data", {}).get("text/plain", ""))]
        if (found := MACHINE_PATH.search(text))
    ]
    assert clutter == []
    assert paths == []


@every_chapter
def test_cells_fit_on_a_screen(path: Path) -> None:
    long = {i: n for i, cell in code_cells(path) if (n := len(cell.source.splitlines())) > LONGEST_CELL}
    assert long == {}


@every_chapter
def test_reads_as_plain_markdown(path: Path) -> None:
    """MyST syntax shows as raw text in Colab and on GitHub."""
    found = [(i, m.group()) for i, text in prose(path) for m in MYST.finditer(text)]
    assert found == []


@every_chapter
def test_boxes_have_known_names(path: Path) -> None:
    heads = [(i, m.group(1)) for i, text in prose(path) for m in re.finditer(r"^> \*\*([^*]+)\*\*", text, re.M)]
    unknown = [(i, head) for i, head in heads if head not in BOXES]
    assert unknown == []


@every_chapter
def test_relative_links_resolve(path: Path) -> None:
    dead = []
    for i, text in prose(path):
        for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
            if re.match(r"[a-z]+:|#", target):
                continue
            if not (path.parent / unquote(target.split("#")[0])).exists():
                dead.append(f"cell {i}: {target}")
    assert dead == []


@every_chapter
def test_code_reaches_for_no_address(path: Path) -> None:
    """Only the cell that installs cl_teach in Colab names one."""
    reaching = [i for i, cell in code_cells(path) if i != 1 and re.search(r"https?://", cell.source)]
    assert reaching == []


@every_chapter
def test_american_spelling(path: Path, tmp_path: Path) -> None:
    for i, cell in enumerate(read(path).cells):
        (tmp_path / f"cell-{i:03d}.md").write_text(cell.source, encoding="utf-8")
    command = [str(Path(sys.executable).parent / "codespell"), "--toml", str(ROOT / "pyproject.toml"), "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
