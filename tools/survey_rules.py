"""What a row of the survey promises, and what of it is not kept: one sentence for each thing that is missing.

``python tools/survey_rules.py`` prints the sentences of all methods, or of one if its slug follows. ``make test`` fails
while there are any. Everything is read from files, nothing is imported: the rules hold in a copy of the repository too.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from cl_teach.evidence import load as load_evidence
from cl_teach.survey import STAGES, Method, Part, adapter_strings, find_anchor, golden_quantities, load, parts

ROOT = Path(__file__).resolve().parents[1]
TODO = "TODO"  # what the templates of `make method` leave to be filled in
SHARED = {"theory.linear_model", "theory.linear_byol", "theory.one_operator"}  # toy models of part 2
LINES, MARKERS, COLORS = (
    ("-", "--", "-.", ":"),
    ("o", "s", "^", "D", "v", "x"),
    ("black", "orange", "sky", "green", "blue", "vermillion", "purple"),
)


def problems(root: Path = ROOT, slug: str | None = None) -> list[str]:
    """Everything that rows promise and files do not keep; with ``slug`` of that row only."""
    methods = load(root)
    found: list[str] = []
    known = bibliography(root)
    known_parts = {part.number: part for part in parts(root)}
    for method in methods:
        if slug in (None, method.slug):
            said = itertools.chain(
                _row(known_parts.get(method.part), method),
                _module(root, method),
                _golden(root, method),
                _reference(method, known),
                _evidence(root, method),
                _chapter(root, method),
            )
            found += [f"{method.slug}: {sentence}" for sentence in said]
    found += [f"{name}: {sentence}" for name, sentence in _rows_together(methods) if slug in (None, name)]
    if slug is None:
        found += _strays(root, methods)
    return found


def files(root: Path, method: Method) -> dict[str, Path]:
    """Where the pieces of a method live."""
    package, name = method.module.split(".")[1], method.identifier
    return {
        "module": root / "cl_teach" / package / f"{name}.py",
        "test": root / "tests" / "unit" / package / f"test_{name}.py",
        "adapter": root / "tests" / "golden" / "adapters" / f"{name}.py",
        "golden": root / "tests" / "golden" / "data" / f"{method.slug}.json",
        "experiment": root / "experiments" / f"{method.slug}.py",
        "evidence": root / "data" / "evidence" / f"{method.slug}.json",
    }


def bibliography(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Key to fields of every entry of ``book/references.bib``."""
    file = root / "book" / "references.bib"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return {
        key: dict(re.findall(r"(?m)^\s+(\w+)\s*= \{(.*)\},?$", body))
        for key, body in re.findall(r"(?ms)^@\w+\{([^,]+),\n(.*?)^\}", text)
    }


def _row(part: Part | None, method: Method) -> Iterator[str]:
    if part is None:
        yield f"part {method.part} of its row is not in [parts]"
        return
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", method.slug):
        yield "its slug needs lower case words joined by hyphens"
    if method.stage not in STAGES:
        yield f"stage needs one of {', '.join(STAGES)}, its row says {method.stage!r}"
    if method.module != f"cl_teach.{part.package}.{method.identifier}":
        yield f"module needs cl_teach.{part.package}.{method.identifier}, its row says {method.module}"
    if method.chapter and not method.chapter.startswith(f"{part.chapters}/"):
        yield f"chapter needs a notebook of {part.chapters}/, its row says {method.chapter}"
    if not re.fullmatch(r"(\d{4}\.\d{5})?", method.arxiv):
        yield f"arxiv needs a number like 2107.12345, or nothing, its row says {method.arxiv!r}"
    if not re.fullmatch(r"([\w.-]+/[\w.-]+@[0-9a-f]{7,40})?", method.official_code):
        yield f"official_code needs owner/repository@commit, or nothing, its row says {method.official_code!r}"
    if not 2000 <= method.year <= 2100:
        yield f"year needs a year, its row says {method.year}"
    for name in ("name", "title", "authors", "venue", "modality", "given", "trouble", "use", "watch"):
        if not getattr(method, name):
            yield f"{name} is empty in its row"
    if not method.use.endswith((".", "?")) or method.watch.endswith(".") or method.watch[:1].isupper():
        yield "use needs a sentence, watch words that a sentence may end with"
    look = method.look
    if look.color not in COLORS or look.line not in LINES or look.marker not in MARKERS:
        yield f"look needs a color of {COLORS}, a line of {LINES}, a marker of {MARKERS}, its row says {look}"
    if TODO in repr(method):
        yield f"its row in cl_teach/survey.toml still says {TODO}"


def _rows_together(methods: Sequence[Method]) -> Iterator[tuple[str, str]]:
    for field in ("slug", "name", "title", "cite", "module"):
        counts = Counter(getattr(method, field) for method in methods)
        for method in methods:
            if counts[getattr(method, field)] > 1:
                yield method.slug, f"another row has the same {field}, {getattr(method, field)!r}"
    for a, b in itertools.combinations(methods, 2):
        if a.part == b.part and (a.look.color, a.look.line) == (b.look.color, b.look.line):
            yield b.slug, f"looks like {a.slug} in figures, color {b.look.color} and line {b.look.line!r}"


def _module(root: Path, method: Method) -> Iterator[str]:
    place = files(root, method)
    if not place["module"].is_file():
        yield f"no module; write {_short(root, place['module'])}"
    else:
        tree = _parse(place["module"])
        names = _public_names(tree)
        if not method.entry_points:
            yield "its row names no entry points"
        for name in method.entry_points:
            if name not in names:
                yield f"entry point {name} does not exist in {_short(root, place['module'])}"
        if not any(">>>" in text for text in _docstrings(tree)):
            yield f"no docstring in {_short(root, place['module'])} has an Example: with >>> that doctest can run"
        yield from _unfinished(root, place["module"])
    if not place["test"].is_file():
        yield f"no unit test; write {_short(root, place['test'])}"
    else:
        if not re.search(r"(?m)^def test_", place["test"].read_text(encoding="utf-8")):
            yield f"{_short(root, place['test'])} has no test"
        yield from _unfinished(root, place["test"])


def _golden(root: Path, method: Method) -> Iterator[str]:
    place = files(root, method)
    if not place["golden"].is_file():
        yield f"no golden values; write {_short(root, place['golden'])}"
    else:
        content = json.loads(place["golden"].read_text(encoding="utf-8"))
        if content.get("method") != method.slug:
            yield f"{_short(root, place['golden'])} says it is of {content.get('method')!r}"
        if not content.get("cases"):
            yield f"no golden case in {_short(root, place['golden'])}"
        yield from _unfinished(root, place["golden"])
    if not place["adapter"].is_file():
        yield f"no golden adapter; write {_short(root, place['adapter'])} with a function {method.identifier}"
        return
    functions = {node.name for node in _parse(place["adapter"]).body if isinstance(node, ast.FunctionDef)}
    if method.identifier not in functions:
        yield f"{_short(root, place['adapter'])} has no function {method.identifier}"
    missing = sorted(set(golden_quantities(place["golden"])) - adapter_strings(place["adapter"]))
    if missing:
        yield f"{_short(root, place['adapter'])} does not exercise the golden quantities {', '.join(missing)}"
    yield from _unfinished(root, place["adapter"])


def _reference(method: Method, known: dict[str, dict[str, str]]) -> Iterator[str]:
    entry = known.get(method.cite)
    if entry is None:
        yield f"no entry {method.cite!r} in book/references.bib"
        return
    facts = {
        "title": (entry.get("title", ""), f"{{{method.title}}}"),
        "year": (entry.get("year", ""), str(method.year)),
        "eprint": (entry.get("eprint", ""), method.arxiv),
        "number of authors": (str(entry.get("author", "").count(" and ") + 1), str(len(method.authors))),
    }
    for name, (there, here) in facts.items():
        if there != here:
            yield f"book/references.bib has another {name} for {method.cite}, {there!r}; the row says {here!r}"
    if TODO in repr(entry):
        yield f"its entry in book/references.bib still says {TODO}"


def _evidence(root: Path, method: Method) -> Iterator[str]:
    place = files(root, method)
    if place["experiment"].is_file():
        yield from _unfinished(root, place["experiment"])
    elif method.stage != "code":
        yield f"no experiment; write {_short(root, place['experiment'])}"
    if method.stage == "code":
        return
    try:
        records = load_evidence(method.slug, root=root)
    except ValueError as error:
        yield str(error)
        return
    if not records:
        yield f"no evidence, stage {method.stage} promises it; `make evidence ONLY={method.slug}` measures it"
        return
    headlines = [record.claim_id for record in records if record.headline]
    if len(headlines) != 1:
        yield f"exactly one of its records is the headline, {_short(root, place['evidence'])} has {len(headlines)}"


def _chapter(root: Path, method: Method) -> Iterator[str]:
    if not method.chapter:
        if method.stage == "taught":
            yield "no chapter, stage taught promises one"
        return
    notebook, _, words = method.chapter.partition("#")
    file = root / "chapters" / f"{notebook}.ipynb"
    if method.stage != "taught":
        return
    if not file.is_file():
        yield f"no chapter {_short(root, file)}, stage taught promises it"
    elif not find_anchor(root, method.chapter):
        yield f"no heading of {_short(root, file)} has the anchor {words!r}"


def _strays(root: Path, methods: Sequence[Method]) -> Iterator[str]:
    """Files that belong to a method of which there is no row."""
    slugs, names = {method.slug for method in methods}, {method.identifier for method in methods}
    modules = {method.module.split(".", 1)[1] for method in methods} | SHARED
    golden = root / "tests" / "golden"
    for file in sorted((golden / "data").glob("*.json")):
        if file.stem not in slugs:
            yield f"{file.stem}: {_short(root, file)} belongs to no row of the survey"
    for file in sorted((golden / "adapters").glob("[a-z]*.py")):
        if file.stem not in names:
            yield f"{file.stem}: {_short(root, file)} belongs to no row of the survey"
    for part in parts(root)[1:]:
        for file in sorted((root / "cl_teach" / part.package).glob("[a-z]*.py")):
            if f"{part.package}.{file.stem}" not in modules:
                yield f"{file.stem}: {_short(root, file)} belongs to no row of the survey"


def _short(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _unfinished(root: Path, file: Path) -> Iterator[str]:
    if TODO in file.read_text(encoding="utf-8"):
        yield f"{_short(root, file)} still says {TODO}"


@cache
def _parse_text(text: str) -> ast.Module:
    return ast.parse(text)


def _parse(file: Path) -> ast.Module:
    return _parse_text(file.read_text(encoding="utf-8"))


def _public_names(tree: ast.Module) -> set[str]:
    """What a module defines or imports at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _docstrings(tree: ast.Module) -> list[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return [ast.get_docstring(node) or "" for node in nodes]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the sentences; 1 if there are any."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    slug = given[0] if given else None
    if slug is not None and slug not in {method.slug for method in load(ROOT)}:
        print(f"no row {slug!r} in cl_teach/survey.toml", file=sys.stderr)
        return 1
    found = problems(ROOT, slug)
    print("\n".join(found) or "Every row keeps its promise.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
