"""Write the skeletons of a new method, and say what is to be filled in: ``make method SLUG=nnclr PART=3``.

A row of the survey, the module, its adapter, golden values, unit test, experiment, and an entry of the bibliography;
the section of the chapter is printed. What is still to do is what ``tools/survey_rules.py`` says of the row: whatever
says TODO, and whatever the stage of the row promises.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

from survey_rules import COLORS, LINES, files, problems

from cl_teach.survey import Look, load, parts

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).with_name("templates")
# The lines of the baselines that stand beside methods: these stay theirs.
RESERVED = {("blue", "-"), ("sky", "-"), ("sky", "--"), ("green", "-"), ("purple", "-"), ("black", "-")}
MARKER = {"-": "o", "--": "s", "-.": "^", ":": "D"}


def make(root: Path, slug: str, number: int) -> list[Path]:
    """Write the skeletons into the repository ``root``; returns the files that are new or changed.

    Raises:
        ValueError: no such part, a slug that is not lower case words joined by hyphens or that is taken.
    """
    book = {part.number: part for part in parts(root)[1:]}
    if number not in book:
        raise ValueError(f"PART: needs one of {', '.join(map(str, book))}, got {number}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug):
        raise ValueError(f"SLUG: needs lower case words joined by hyphens, got {slug!r}")
    methods = load(root)
    if slug in {method.slug for method in methods}:
        raise ValueError(f"SLUG: {slug} is in the survey already")
    look = free_look([method.look for method in methods if method.part == number])
    words = {
        "slug": slug,
        "identifier": slug.replace("-", "_"),
        "part": str(number),
        "package": book[number].package,
        "color": look.color,
        "line": look.line,
        "marker": look.marker,
    }
    survey = root / "cl_teach" / "survey.toml"
    survey.write_text(_with_row(survey.read_text(encoding="utf-8"), number, _fill("row.toml", words)), encoding="utf-8")
    references = root / "book" / "references.bib"
    references.write_text(references.read_text(encoding="utf-8") + _fill("entry.bib", words), encoding="utf-8")
    (method,) = [each for each in load(root) if each.slug == slug]
    place = files(root, method)
    written = [survey, references]
    for kind, template in (
        ("module", "module.txt"),
        ("adapter", "adapter.txt"),
        ("golden", "golden.json"),
        ("test", "test.txt"),
        ("experiment", "experiment.txt"),
    ):
        if not place[kind].exists():  # never over something that somebody has begun
            place[kind].write_text(_fill(template, words), encoding="utf-8")
            written.append(place[kind])
    return written


def free_look(taken: Sequence[Look]) -> Look:
    """The first color and line that no method of the part has, and no baseline."""
    used = RESERVED | {(look.color, look.line) for look in taken}
    for line, color in itertools.product(LINES, COLORS):
        if (color, line) not in used and color != "blue":
            return Look(color, line, MARKER[line])
    raise ValueError("no color and line are left in this part")


def section(slug: str) -> str:
    """The Markdown of a section, to be filled in and pasted into a chapter."""
    return _fill("section.md", {"slug": slug, "identifier": slug.replace("-", "_")})


def _fill(name: str, words: dict[str, str]) -> str:
    return Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(words)


def _with_row(text: str, number: int, row: str) -> str:
    """The list with a row after the last one of its part, or of the parts before it."""
    blocks = re.split(r"(?m)^(?=\[\[method\]\]$)", text)
    last = max(i for i, block in enumerate(blocks) if i == 0 or _part(block) <= number)
    blocks[last] = f"{blocks[last].rstrip()}\n{row}" + ("\n" if last + 1 < len(blocks) else "")
    return "".join(blocks)


def _part(block: str) -> int:
    found = re.search(r"(?m)^part = (\d+)$", block)
    return int(found[1]) if found else 0


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if len(given) != 2 or not all(given) or not given[1].isdecimal():
        print("Say which: make method SLUG=nnclr PART=3", file=sys.stderr)
        return 1
    slug, number = given[0], int(given[1])
    try:
        written = make(root, slug, number)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("Written:")
    print("\n".join(f"  {file.relative_to(root)}" for file in written))
    print(f"\nThe section of its chapter, once the row says taught:\n\n{section(slug)}")
    print(f"Still to do (python tools/survey_rules.py {slug}):")
    print("\n".join(f"  {sentence}" for sentence in problems(root, slug)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
