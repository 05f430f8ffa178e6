"""Link a chapter's text to the glossary and to other chapters.

The first use of a glossary's term in a chapter's running text becomes a link to its entry, and the first mention of
another chapter in a cell ("chapter 3.4") a link to that chapter. The links are ordinary Markdown, so that they work in
the book, in Jupyter and on GitHub. What is linked already stays as it is: a second run changes nothing.

``python tools/glossary_links.py`` does all chapters and the index of symbols, ``... --check`` only says what it would
change. Notebooks are not executed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cl_teach import files

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
GLOSSARY = ROOT / "book" / "glossary.md"
NOTATION = ROOT / "book" / "notation.md"
TO_GLOSSARY = "../../book/glossary.md"
MOST = 12  # links to the glossary in one chapter: a text full of them is hard to read

#: How a term is written in running text, where that is not the term with or without a plural's "s". Words that are
#: also everyday words count only in the form that is clearly the term.
FORMS = {
    "alignment": r"alignment",
    "candidate": r"candidates",
    "collapse": r"(?:dimensional )?collapse",
    "displacement": r"(?:likelihood )?displacement",
    "features": r"features",
    "head": r"projection heads?",
    "kNN accuracy": r"kNN accurac(?:y|ies)",
    "long tail": r"long tails?|long-tailed",
    "momentum encoder": r"(?:momentum encoder|momentum teacher|slow cop(?:y|ie))s?",
    "negative": r"negatives",
    "policy": r"polic(?:y|ies)",
    "positive": r"positives",
    "view": r"views",
}
#: Chapters in which a word means something else than the glossary says.
OTHERWISE = {
    "candidate": {"5.2", "6.1", "6.2"},  # settings that were tried; functions to be found
    "prototype": {"4.2"},  # the pattern of a class of drawn pictures
    "alignment": {"4.3", "9.2", "10.1", "10.2", "10.3"},  # of a text with a picture; of language models
    "predictor": {"3.3"},  # named only to say that a letter is not one
    "temperature": {"8.3"},  # of a gate
    "features": {"2.2", "2.4", "8.3", "9.2"},  # of an input, in a world whose inputs are made of features
    "embedding": {"4.2", "10.2"},  # the condition of a generator; rows of a table
    "interval": {"3.2"},  # between two bounds
    "logit": {"9.2"},  # of a classifier with one output
    "policy": {"7.1"},  # in a quotation
}

CODE = r"```.*?```|`[^`\n]+`"
MATH = r"\$\$.*?\$\$|\$[^$\n]+\$"
LINK = r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)|https?://\S+"
HTML = r"<summary>.*?</summary>|<!--.*?-->|<[A-Za-z/][^>]*>"
LINES = r"^[> ]*#[^\n]*|^[> ]*\|[^\n]*"  # headings and rows of tables
EMPHASIS = r"\*\*.+?\*\*|(?<![*\w])\*[^*\s][^*\n]*\*"
#: Where no link may stand, and where the first use of a term does not count either.
CLOSED = re.compile("|".join((CODE, MATH, LINK, HTML, LINES)), re.DOTALL | re.MULTILINE)
REFERENCES = r"^#+ References\b.*"  # to the end of the cell
NOT_RUNNING = re.compile(
    "|".join((REFERENCES, r"<details>.*?</details>", CODE, MATH, LINK, HTML, LINES, EMPHASIS)), re.S | re.M
)
#: "chapter 3.4", or "chapters 1.2 (one softmax), 2.1 and 3.4 (sorting)".
MENTION = re.compile(
    r"\b[Cc]hapter(?:[ \n]\d+\.\d+|s[ \n]\d+\.\d+(?:(?: \([^()\n]*\))?(?:,| and| or|, and| to)[ \n]\d+\.\d+)*)"
)
NUMBER = re.compile(r"\d+\.\d+")


def terms(glossary: str) -> dict[str, str]:
    """Every term of a Sphinx glossary with its definition."""
    inside = glossary.split(":::{glossary}\n", 1)[-1].split("\n:::", 1)[0]
    entries = re.split(r"\n(?=\S)", inside.strip("\n"))
    return {term: " ".join(text.split()) for term, _, text in (entry.partition("\n") for entry in entries)}


def anchor(term: str) -> str:
    """The id that Sphinx gives to a term's entry."""
    return "term-" + re.sub(r"[^A-Za-z0-9]+", "-", term).strip("-")


def pattern(term: str, around: str = "{}") -> re.Pattern[str]:
    """How the term looks in running text: a word of its own, at the start of a sentence too."""
    form = FORMS.get(term, rf"{re.escape(term)}s?")
    return re.compile(around.replace("{}", rf"(?<![\w/-])(?:{form})(?![\w/-])"), re.IGNORECASE if term.islower() else 0)


def closed(text: str, rule: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where in the text a rule holds: pairs of first and last position."""
    return [match.span() for match in rule.finditer(text)]


def is_free(span: tuple[int, int], taken: Iterable[tuple[int, int]]) -> bool:
    """Whether a stretch of text touches none of the taken ones."""
    return all(span[1] <= start or end <= span[0] for start, end in taken)


def numbers(folder: Path = CHAPTERS) -> dict[str, Path]:
    """Chapter numbers, such as "3.4", and their notebooks."""
    found = {}
    for path in sorted(folder.glob("*/*.ipynb")):
        part, chapter = path.parent.name.split("_")[0], path.name.split("_")[0]
        found[f"{int(part)}.{int(chapter)}"] = path
    return found


def defines(texts: list[str], term: str) -> bool:
    """Whether a chapter introduces the term itself: in bold or in italics."""
    return any(pattern(term, r"\*[^*\n]{0,24}{}\.?\*").search(text) for text in texts)


def link_terms(texts: list[str], number: str, entries: dict[str, str]) -> list[str]:
    """Link the first uses of terms in the Markdown cells of one chapter.

    Args:
        texts: one text a Markdown cell, in order. The first (title, goals) and the references stay without links.
        number: the chapter's number; a term whose entry points to this chapter is defined here.
        entries: terms and definitions.
    """
    texts = list(texts)
    there = {term for term in entries if any(f"{TO_GLOSSARY}#{anchor(term)})" in text for text in texts)}
    first: dict[str, tuple[int, re.Match[str]]] = {}
    for term, definition in entries.items():
        here = re.search(rf"\[(?:Chapter )?{re.escape(number)}\]", definition)
        if term in there or here or number in OTHERWISE.get(term, ()) or defines(texts, term):
            continue
        longer = [pattern(other) for other in entries if other != term and term in other]
        for place, text in enumerate(texts):
            if place == 0:
                continue
            taken = [span for rule in (NOT_RUNNING, *longer) for span in closed(text, rule)]
            match = next((m for m in pattern(term).finditer(text) if is_free(m.span(), taken)), None)
            if match:
                first[term] = place, match
                break
    # the less common a term is, the more its link is worth: those used least often come first
    often = Counter({term: sum(len(pattern(term).findall(text)) for text in texts) for term in first})
    chosen = sorted(first, key=lambda term: (often[term], term))[: max(0, MOST - len(there))]
    # from the end, so that the places of the others stay right
    for term in sorted(chosen, key=lambda term: first[term][1].start(), reverse=True):
        place, match = first[term]
        text = texts[place]
        link = f"[{match.group()}]({TO_GLOSSARY}#{anchor(term)})"
        texts[place] = text[: match.start()] + link + text[match.end() :]
    return texts


def link_mentions(text: str, own: str, targets: dict[str, str]) -> str:
    """Link the first mention of every other chapter in one text.

    Args:
        text: Markdown.
        own: number of the chapter in which it stands, which gets no link; "" on a page.
        targets: chapter numbers and the addresses to write.
    """
    done = {number for number, target in targets.items() if f"]({target}" in text}
    done.add(own)
    taken = closed(text, CLOSED)
    edits: list[tuple[int, int, str]] = []
    for match in MENTION.finditer(text):
        if not is_free(match.span(), taken):
            continue
        found = [
            (m.start() + match.start(), m.end() + match.start(), m.group()) for m in NUMBER.finditer(match.group())
        ]
        if match.group()[len("chapter")] != "s":
            found = [(match.start(), match.end(), found[0][2])]  # "chapter 3.4" as a whole
        for start, end, number in found:
            if number in targets and number not in done:
                done.add(number)
                edits.append((start, end, f"[{text[start:end]}]({targets[number]})"))
    for start, end, link in reversed(edits):
        text = text[:start] + link + text[end:]
    return text


def relative(target: Path, folder: Path) -> str:
    """Address of a file as a link in a file of `folder`."""
    return Path(os.path.relpath(target, folder)).as_posix()


def link_chapter(notebook: dict[str, Any], number: str, entries: dict[str, str], targets: dict[str, str]) -> None:
    """Write all links into the Markdown cells of one notebook, in place."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    texts = [link_mentions("".join(cell["source"]), number, targets) for cell in cells]
    for cell, text in zip(cells, link_terms(texts, number, entries), strict=True):
        cell["source"] = text if isinstance(cell["source"], str) else text.splitlines(keepends=True)


def link_rows(text: str, targets: dict[str, str]) -> str:
    """Link the chapter numbers in the last column of the tables whose last column is called "chapter"."""
    lines, inside = [], False
    for line in text.split("\n"):
        inside = bool(re.search(r"\| (?:chapter|first in) \|$", line)) or (inside and line.startswith("|"))
        if inside:
            head, last = line.removesuffix("|").rsplit("|", 1)
            last = re.sub(
                r"(?<![\[\d.])\d+\.\d+(?![\].\d])",
                lambda m: f"[{m.group()}]({targets[m.group()]})" if m.group() in targets else m.group(),
                re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", last),
            )
            line = f"{head}|{last}|"
        lines.append(line)
    return "\n".join(lines)


def linked(path: Path, entries: dict[str, str], chapters: dict[str, Path]) -> str:
    """The text of a notebook's file, or of the page of symbols, with its links."""
    targets = {number: relative(target, path.parent) for number, target in chapters.items()}
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return link_rows(text, targets)
    number = next(number for number, target in chapters.items() if target == path)
    notebook = json.loads(text)
    link_chapter(notebook, number, entries, targets)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if something would change")
    arguments = parser.parse_args()
    entries, chapters = terms(GLOSSARY.read_text(encoding="utf-8")), numbers()
    changed = []
    for path in (*chapters.values(), NOTATION):
        text = linked(path, entries, chapters)
        if text != path.read_text(encoding="utf-8"):
            changed.append(path.relative_to(ROOT))
            if not arguments.check:
                files.write_text(path, text)
    for name in changed:
        print(f"{'would change' if arguments.check else 'changed'}: {name}")
    if arguments.check and changed:
        sys.exit(1)


if __name__ == "__main__":
    main()
