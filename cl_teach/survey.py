"""The survey: what ``survey.toml`` says about the methods, and what of each exists.

``python -m cl_teach.survey`` prints the methods with what exists of them. That is never stored: it is read from
modules, golden adapters, evidence records, chapters and exercises. Where ``cl_teach`` is installed without its
repository only the modules can be seen. The book's pages are made from this by ``tools/survey_pages.py``, and
``tools/survey_rules.py`` says what a row promises and does not keep.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from .evidence import VERDICTS, Record, repository_root
from .evidence import load as load_evidence

__all__ = ["Look", "Method", "Part", "Status", "load", "parts", "status"]

STAGES = ("code", "measured", "taught")
NOT_MEASURED = "not yet measured"


@dataclass(frozen=True)
class Look:
    """How a method looks in figures: the name of a color of ``cl_teach.figures``, line and marker."""

    color: str
    line: str
    marker: str


@dataclass(frozen=True)
class Part:
    """One part of the book: its number, name, folder of chapters and subpackage."""

    number: int
    name: str
    chapters: str
    package: str


@dataclass(frozen=True)
class Method:
    """One row of the survey; the fields are explained at the top of ``survey.toml``."""

    slug: str
    stage: str
    name: str
    title: str
    authors: list[str]
    cite: str
    year: int
    venue: str
    arxiv: str
    part: int
    chapter: str
    module: str
    entry_points: list[str]
    official_code: str
    modality: list[str]
    given: list[str]
    trouble: list[str]
    needs: list[str]
    use: str
    watch: str
    look: Look

    @property
    def identifier(self) -> str:
        """The slug as a Python name: the golden adapter, and the last part of the module."""
        return self.slug.replace("-", "_")


@dataclass(frozen=True)
class Status:
    """What exists of one method; None for what cannot be seen without the repository."""

    method: Method
    module: bool
    quantities: int | None  # golden quantities that the adapter's file names ...
    all_quantities: int | None  # ... of so many
    golden_cases: int | None
    evidence: list[Record] | None
    anchor: str | None  # anchor of the heading in the chapter, "" if there is none yet
    exercise: bool | None

    @property
    def adapter(self) -> bool | None:
        """Whether the adapter names every golden quantity."""
        return None if self.quantities is None else 0 < self.quantities == self.all_quantities

    @property
    def verdicts(self) -> str:
        """For example ``2 holds, 1 undecided``; ``not yet measured`` without records."""
        return count_verdicts(self.evidence or []) or NOT_MEASURED


@cache
def _shipped() -> dict[str, Any]:
    return tomllib.loads(resources.files("cl_teach").joinpath("survey.toml").read_text(encoding="utf-8"))


def _data(root: Path | str | None) -> dict[str, Any]:
    file = None if root is None else Path(root) / "cl_teach" / "survey.toml"
    return tomllib.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else _shipped()


def load(root: Path | str | None = None) -> list[Method]:
    """All methods, in the order of the book; with ``root`` those of the list in that repository.

    Raises:
        ValueError: a row lacks a field, or has one too many.
    """
    methods = []
    for row in _data(root)["method"]:
        for kind, given in ((Method, row), (Look, row.get("look", {}))):
            names = {each.name for each in fields(kind)}
            if names != set(given):
                trouble = f"lacks {sorted(names - set(given))}, has too much {sorted(set(given) - names)}"
                raise ValueError(f"survey.toml: the row of {row.get('slug', '?')!r} {trouble}")
        methods.append(Method(**{**row, "look": Look(**row["look"])}))
    return methods


def parts(root: Path | str | None = None) -> list[Part]:
    """The parts of the book."""
    return [Part(int(number), **row) for number, row in _data(root)["parts"].items()]


def status(root: Path | str | None = None) -> list[Status]:
    """What exists of every method, in the order of the book.

    Args:
        root: the repository; default: where this runs, or where ``cl_teach`` was imported from.
    """
    folder = Path(root) if root is not None else repository_root()
    package = folder / "cl_teach" if folder else Path(__file__).parent
    return [_status(method, package, folder) for method in load(root)]


def _status(method: Method, package: Path, root: Path | None) -> Status:
    module = package.joinpath(*method.module.split(".")[1:]).with_suffix(".py").is_file()
    if root is None:
        return Status(method, module, None, None, None, None, None, None)
    golden = root / "tests" / "golden"
    cases = golden_quantities(golden / "data" / f"{method.slug}.json")
    return Status(
        method=method,
        module=module,
        quantities=len(set(cases) & adapter_strings(golden / "adapters" / f"{method.identifier}.py")),
        all_quantities=len(set(cases)),
        golden_cases=len(cases),
        evidence=load_evidence(method.slug, root=root),
        anchor=find_anchor(root, method.chapter),
        exercise=_has_exercise(package, method),
    )


def golden_quantities(file: Path) -> list[str]:
    """The quantity of every case of a golden file; empty if there is no such file."""
    if not file.is_file():
        return []
    return [case["quantity"] for case in json.loads(file.read_text(encoding="utf-8"))["cases"]]


def adapter_strings(file: Path) -> set[str]:
    """Strings in an adapter's file; empty if there is no such file."""
    if not file.is_file():
        return set()
    constants = (
        node.value for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)
    )
    return {value for value in constants if isinstance(value, str)}


def find_anchor(root: Path, chapter: str) -> str:
    """Anchor of the first heading of the chapter that contains the words after ``#``, or ``""``."""
    notebook, _, words = chapter.partition("#")
    file = root / "chapters" / f"{notebook}.ipynb"
    if not words or not file.is_file():
        return ""
    pattern = re.compile(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])")
    return next((anchor for anchor in heading_anchors(file) if pattern.search(anchor)), "")


def heading_anchors(notebook: Path) -> list[str]:
    """Anchors of a notebook's headings, as MyST and GitHub make them; the title's comes last."""
    title: list[str] = []
    rest: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", "".join(cell["source"]))
            for level, heading in re.findall(r"(?m)^(#{1,6})\s+(.+?)\s*#*$", text):
                (title if len(level) == 1 else rest).append(_slugify(heading))
    return rest + title


def _slugify(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link counts as its text
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def _has_exercise(package: Path, method: Method) -> bool:
    """Whether the chapter's file of exercises names the method."""
    chapter = method.chapter.partition("#")[0].rpartition("/")[2]
    file = package / "exercises" / f"{re.sub(r'^[0-9]+_', '', chapter)}.py"
    if not chapter or not file.is_file():
        return False
    return re.search(rf"\b{method.identifier}\b", file.read_text(encoding="utf-8")) is not None


def count_verdicts(records: Sequence[Record]) -> str:
    """For example ``2 holds, 1 undecided``; empty without records."""
    counts = Counter(each.verdict for each in records)
    return ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])


# --- the table on the terminal --------------------------------------------------------------------

COLUMNS = ("stage", "module", "adapter", "golden", "evidence", "chapter", "exercise")


def table(rows: Sequence[Status]) -> str:
    """The methods, one a line, what exists of each, and the totals."""
    lines = [_line("part", "slug", COLUMNS)]
    lines += [_line(str(row.method.part), row.method.slug, _marks(row)) for row in rows]
    return "\n".join([*lines, "", totals(rows)])


def _line(part: str, slug: str, cells: Iterable[str]) -> str:
    return (f"{part:>4}  {slug:27}" + "".join(f"{cell:10}" for cell in cells)).rstrip()


def _marks(row: Status) -> list[str]:
    partly = f"{row.quantities}/{row.all_quantities}" if row.quantities and not row.adapter else ""
    return [
        row.method.stage,
        _mark(row.module),
        partly or _mark(row.adapter),
        "?" if row.golden_cases is None else str(row.golden_cases or "-"),
        "?" if row.evidence is None else str(len(row.evidence) or "-"),
        _mark(None if row.anchor is None else bool(row.anchor)),
        _mark(row.exercise),
    ]


def _mark(value: bool | None) -> str:
    return "?" if value is None else ("yes" if value else "-")


def totals(rows: Sequence[Status]) -> str:
    """The counts, for example ``module 3/9, adapter 3/9, ...``, and the adapters that are missing."""
    n = len(rows)
    modules = f"module {sum(row.module for row in rows)}/{n}"
    if any(row.golden_cases is None for row in rows):
        return f"{modules} (the rest can be seen only in the repository)"
    verdicts = count_verdicts([record for row in rows for record in row.evidence or []])
    missing = [row.method.slug for row in rows if not row.quantities]
    partly = [row.method.slug for row in rows if row.quantities and not row.adapter]
    lines = [
        f"{modules}, adapter {sum(bool(row.adapter) for row in rows)}/{n}, "
        f"golden {sum(bool(row.golden_cases) for row in rows)}/{n}, "
        f"evidence {sum(bool(row.evidence) for row in rows)}/{n}, "
        f"chapter {sum(bool(row.anchor) for row in rows)}/{n}, "
        f"exercise {sum(bool(row.exercise) for row in rows)}/{n}",
        f"{sum(row.golden_cases or 0 for row in rows)} golden cases; evidence of the methods: {verdicts or 'none'}",
    ]
    if partly:
        lines.append(f"adapters without all quantities ({len(partly)}): {', '.join(partly)}")
    if missing:
        lines.append(f"missing adapters ({len(missing)}): {', '.join(missing)}")
    return "\n".join(lines)


def main() -> int:
    """Print the table; returns the exit status."""
    print(table(status()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
