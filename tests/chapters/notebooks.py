"""The chapters, read once."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*/*.ipynb"))
NAMES = [str(path.relative_to(ROOT / "chapters").with_suffix("")) for path in CHAPTERS]


@functools.cache
def read(path: Path) -> NotebookNode:
    """A notebook."""
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[tuple[int, NotebookNode]]:
    """The code cells with their positions."""
    return [(i, cell) for i, cell in enumerate(read(path).cells) if cell.cell_type == "code"]


def prose(path: Path) -> list[tuple[int, str]]:
    """The Markdown cells with fenced code and inline code taken out."""
    cells = [(i, cell.source) for i, cell in enumerate(read(path).cells) if cell.cell_type == "markdown"]
    without = re.compile(r"^(```+|~~~+)(?!\{).*?^\1", re.MULTILINE | re.DOTALL)
    return [(i, re.sub(r"(?<!\})`[^`\n]*`", "", without.sub("", text))) for i, text in cells]
