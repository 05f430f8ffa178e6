"""Slides of every chapter, made from its own cells: ``make slides`` writes _build/slides.

A teacher starts with something: what is to be seen stands on the slide, what is to be said in the notes (key S).

How a chapter is cut, and why:

- ``##`` begins a column, ``###`` a slide below it. Without a heading a new slide begins when one is full.
- Of a paragraph the slide keeps its first sentence, sentences with bold type, and the one that leads into a formula;
  the whole stands in the notes. Formulas, tables, boxes and lists stay; long items and boxes are shortened alike.
- A figure fills its slide, with the first sentence of what follows as its caption. One that moves still moves.
- Code that is folded in the book shows only what it gives. Open code stays; what it gives comes at the next key.
- After a *Predict* box a new slide begins: the class answers before it sees.
- Hints, solutions and other folds are slides of their own below what they belong to.

The stored notebooks are not changed, and nbconvert's slides are not used: they take their cuts from metadata of cells,
and bring jQuery, RequireJS and an old MathJax from the network.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nbformat
import yaml
from execute_chapters import find
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "_build" / "slides"
HERE = Path(__file__).resolve().parent / "slides"
ASSETS = {
    "reveal.css": HERE / "vendor" / "reveal" / "reveal.css",
    "slides.css": HERE / "slides.css",
    "reveal.js": HERE / "vendor" / "reveal" / "reveal.js",
    "notes.js": HERE / "vendor" / "reveal" / "notes.js",
    "slides.js": HERE / "slides.js",
    "mathjax.js": ROOT / "book" / "_static" / "vendor" / "mathjax" / "tex-svg-full.js",
}
#: Words of running text that a slide may hold, and its height in lines of text.
WORDS, LINES = 90, 15
#: Boxes and lists above this are shortened as paragraphs are.
LONG = 45
MOVABLE = re.compile(r'<figure class="cl-(frames|play|highlight)"')
#: What must not be cut by the end of a sentence: formulas, code, links, emphasis.
WHOLE = re.compile(
    r"\$[^$]+\$|`[^`]+`|!?\[[^\]]*\]\([^)]*\)|\*\*.+?\*\*|(?<!\*)\*[^*\n]+\*(?!\*)|\([^()]*\)", re.DOTALL
)
END = re.compile(r"[.!?][”\")]?(?=\s+[A-Z“\"$`*\[(0-9])")
SHORT = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|al|approx|resp|Fig|Eq|No|St|Dr)|\b[A-Z])\.$")


@dataclass(frozen=True)
class Block:
    """Something on a slide.

    kind: text, math, list, quote, table, code, figure, movable, output or fold; words: of running text; lines: its
    height; notes: what the speaker reads instead, as HTML; later: appears at the next key; inside: blocks of a fold.
    """

    kind: str
    html: str
    words: int = 0
    lines: float = 1.0
    notes: str = ""
    later: bool = False
    title: str = ""
    inside: tuple[Block, ...] = ()


@dataclass
class Slide:
    """A heading (HTML), blocks, notes (HTML)."""

    heading: str
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: str = ""

    @property
    def words(self) -> int:
        """Words of running text."""
        return sum(block.words for block in self.blocks)

    @property
    def lines(self) -> float:
        """Height in lines of text."""
        return sum(block.lines for block in self.blocks)


@dataclass
class Deck:
    """A chapter as slides: columns, the slides of each from top to bottom."""

    title: str
    columns: list[list[Slide]]

    @property
    def slides(self) -> list[Slide]:
        """All slides in their order."""
        return [slide for column in self.columns for slide in column]


# --- sentences ------------------------------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """Cut Markdown into sentences, never inside a formula, code, a link, emphasis or brackets."""

    def veil(found: re.Match[str]) -> str:
        # Emphasis that ends with a full stop ends a sentence.
        ends = found[0].startswith("*") and found[0].rstrip("*")[-1:] in ".!?"
        return "x" * (len(found[0]) - 1) + ("." if ends else "x")

    veiled = WHOLE.sub(veil, text)
    cuts = [m.end() for m in END.finditer(veiled) if not SHORT.search(veiled[: m.end()])]
    # A veiled end of emphasis is no capital's neighbor: look at the real text only for where it stands.
    parts = [text[a:b].strip() for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    joined: list[str] = []
    for part in parts:  # a label such as "**Note.**" belongs to what it labels
        if joined and len(joined[-1].split()) <= 5 and re.fullmatch(r"\*+[^*]+\*+", joined[-1]):
            joined[-1] += " " + part
        elif part:
            joined.append(part)
    return joined


def shorten(text: str, limit: int = WORDS) -> str:
    """What of a paragraph stands on the slide: its first sentence, bold ones, labeled ones, the one that leads on."""
    found = sentences(text)
    kept = [
        sentence
        for place, sentence in enumerate(found)
        if place == 0
        or (place == 1 and len(found[0].split()) < 7)
        or "**" in sentence
        or re.match(r"\*[^*]+:\*", sentence)
        or (place == len(found) - 1 and sentence[-1] in ",:")
    ]
    while len(kept) > 1 and count_words(" ".join(kept)) > limit:
        kept.pop(-1 if kept[-1][-1] not in ",:" else len(kept) // 2)
    one = " ".join(kept)
    if count_words(one) <= limit:
        return one
    words = one.split()  # a sentence of more than a slide: what fits, and the rest is in the notes
    cut = " ".join(words[: limit * 2 // 3])
    for mark in ("$", "`", "**", "*"):  # not in the middle of something
        if cut.count(mark) % 2:
            cut = cut[: cut.rindex(mark)].rstrip()
    return cut.rstrip(",;:") + " …"


def count_words(text: str) -> int:
    """Words of Markdown or HTML; a formula counts as one."""
    text = re.sub(r"\$\$.+?\$\$|\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", " x ", text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", text)
    return sum(1 for word in text.split() if re.search(r"\w", word))


# --- Markdown into blocks -------------------------------------------------------------------------------------------


def _formula(content: str, options: dict[str, Any]) -> str:
    text = html.escape(content.strip())
    return f"\\[{text}\\]" if options["display_mode"] else f"\\({text}\\)"


def _code(content: str, language: str) -> str:
    lexer = get_lexer_by_name("python" if language in ("", "python", "ipython3") else "text")
    painted = highlight(content.rstrip("\n"), lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="cl-code highlight"><code>{painted}</code></pre>'


def _fence(content: str, language: str, _: str) -> str:
    return _code(content, language.split()[0] if language else "text")


def reader() -> MarkdownIt:
    """Markdown as the book reads it: formulas between dollars, tables, raw HTML."""
    md = MarkdownIt("commonmark", {"html": True, "highlight": _fence}).enable(["table", "strikethrough"])
    md.use(dollarmath_plugin, renderer=_formula, allow_digits=True, double_inline=True)
    return md.use(amsmath_plugin, renderer=lambda content, **_: html.escape(content))


MD = reader()


def _links(text: str) -> str:
    """Links to other chapters lead to their slides; other places of the book are words only."""

    def lead(found: re.Match[str]) -> str:
        goal, inner = found[1], found[2]
        if re.match(r"https?:", goal):
            return f'<a href="{goal}" target="_blank" rel="noopener">{inner}</a>'
        chapter = re.search(r"(\d+_\w+)/(\d+_\w+)\.ipynb", goal)
        return f'<a href="{chapter[1]}-{chapter[2]}.html">{inner}</a>' if chapter else inner

    return re.sub(r'<a href="([^"]*)"[^>]*>(.*?)</a>', lead, text, flags=re.DOTALL)


def _render(tokens: Sequence[Token]) -> str:
    return _links(MD.renderer.render(list(tokens), MD.options, {}))


def _groups(tokens: Sequence[Token]) -> list[list[Token]]:
    """Tokens of one block each."""
    groups: list[list[Token]] = []
    depth = 0
    for token in tokens:
        if depth == 0:
            groups.append([])
        groups[-1].append(token)
        depth += token.nesting
    return groups


def _shortened(tokens: Sequence[Token], limit: int) -> list[Token]:
    """The same tokens with every paragraph shortened."""
    made = []
    for token in tokens:
        if token.type == "inline":
            text = shorten(token.content, limit)
            token = replace_token(token, text)
        made.append(token)
    return made


def replace_token(token: Token, text: str) -> Token:
    """An inline token that says something else."""
    other = token.copy()
    other.content, other.children = text, MD.parseInline(text)[0].children
    return other


def _words(tokens: Iterable[Token]) -> int:
    return sum(count_words(token.content) for token in tokens if token.type == "inline")


def _height(tokens: Sequence[Token]) -> float:
    """Lines that the text takes, at about 76 letters a line."""
    return sum(-(-len(re.sub(r"\]\([^)]*\)", "]", t.content)) // 76) + 0.35 for t in tokens if t.type == "inline")


def _pieces(group: list[Token]) -> list[list[Token]]:
    """A long list as lists of few items, so that no slide holds more than it may."""
    items: list[list[Token]] = []
    for token in group[1:-1]:
        if token.type == "list_item_open" and token.level == group[0].level + 1:
            items.append([])
        items[-1].append(token)
    pieces: list[list[list[Token]]] = [[]]
    for item in items:
        full = pieces[-1] and _words(t for one in pieces[-1] for t in one) + _words(item) > WORDS - 20
        if full or sum(_height(one) for one in pieces[-1]) > LINES - 5:
            pieces.append([])
        pieces[-1].append(item)
    made, first = [], int(group[0].attrGet("start") or 1)
    for piece in pieces:
        opening = group[0].copy()
        if opening.type == "ordered_list_open":
            opening.attrs = {**opening.attrs, "start": first}
        first += len(piece)
        made.append([opening, *(t for item in piece for t in item), group[-1]])
    return made


def _texts(group: list[Token], whole: bool) -> list[Block]:
    """Blocks of one paragraph, list, box, table, formula or fence."""
    kind = group[0].type
    if kind == "paragraph_open":
        limit = WORDS - 10
        short = list(group) if whole and _words(group) <= limit else _shortened(group, limit)
        notes = _render(group) if short[1].content != group[1].content else ""
        return [Block("text", _render(short), _words(short), _height(short), notes)]
    if kind in ("bullet_list_open", "ordered_list_open"):
        long = _words(group) > LONG and not (whole and _words(group) <= WORDS - 20)
        short = _shortened(group, WORDS - 30) if long else list(group)
        notes = _render(group) if _words(short) < _words(group) else ""
        blocks = [Block("list", _render(piece), _words(piece), _height(piece)) for piece in _pieces(short)]
        blocks[0] = replace(blocks[0], notes=notes)
        return blocks
    if kind == "blockquote_open":
        label = re.match(r"\*\*(\w+)", group[2].content if len(group) > 2 else "")
        name = label[1] if label else ""
        # The question of a Predict box is its last sentence, and half a definition is none.
        room = WORDS - 10 if name in ("Predict", "Definition") else LONG
        short = _shortened(group, WORDS - 10) if _words(group) > room else list(group)
        paragraphs = [place for place, token in enumerate(short) if token.type == "inline"]
        while _words(short) > WORDS - 5 and len(paragraphs) > 1:  # a box of many paragraphs: those that fit
            last = paragraphs.pop()
            short = [t for place, t in enumerate(short) if abs(place - last) > 1]
        notes = _render(group) if _words(short) < _words(group) else ""
        text = _render(short).replace("<blockquote>", f'<blockquote class="cl-box-{name.lower()}">', 1)
        return [Block("quote", text, _words(short), _height(short) + 1, notes, title=name)]
    if kind == "table_open":
        rows = sum(token.type == "tr_open" for token in group)
        return [Block("table", _render(group), 0, 1.25 * rows + 0.5)]
    if kind == "fence":
        return [code_block(group[0].content, group[0].info or "text")]
    if kind in ("math_block", "math_block_label", "amsmath"):
        return [Block("math", _render(group), 0, 2.6)]
    if kind in ("hr", "html_block"):
        return []
    return [Block("text", _render(group), _words(group), _height(group))]


def code_block(source: str, language: str = "python") -> Block:
    """Code on a slide."""
    lines = source.strip("\n").count("\n") + 1
    return Block("code", _code(source, language), 0, 0.6 * lines + 0.9)


def blocks_of(text: str, whole: bool = False) -> list[Block]:
    """Blocks of a Markdown cell; a heading is a block of kind h1 to h6.

    Args:
        text: Markdown.
        whole: leave paragraphs that fit on a slide as they are, as an exercise needs.
    """
    made: list[Block] = []
    folds: list[tuple[str, list[Block]]] = []

    def add(blocks: Iterable[Block]) -> None:
        (folds[-1][1] if folds else made).extend(blocks)

    exercise = whole
    for group in _groups(MD.parse(text)):
        first = group[0]
        if first.type == "heading_open":
            if first.tag == "h2":
                exercise = whole or group[1].content.strip().lower() == "exercises"
            add([Block(first.tag, _links(MD.renderer.render(group[1:-1], MD.options, {})), title=group[1].content)])
        elif first.type == "html_block" and "<details" in first.content:
            summary = re.search(r"<summary>(.*?)</summary>", first.content, re.DOTALL)
            name = re.sub(r"<[^>]+>", "", summary[1]).strip() if summary else "More"
            folds.append((name, []))
            after = first.content.split("</summary>")[-1].replace("</details>", "").strip()
            if after:
                add(blocks_of(after, exercise))
        if first.type == "html_block" and "</details>" in first.content and folds:
            name, inside = folds.pop()
            add([Block("fold", "", title=name, inside=tuple(inside))])
        elif first.type not in ("heading_open", "html_block"):
            add(_texts(group, exercise))
    for name, inside in reversed(folds):  # never closed: what is there
        made.append(Block("fold", "", title=name, inside=tuple(inside)))
    return made


# --- code cells into blocks -----------------------------------------------------------------------------------------


def outputs_of(cell: NotebookNode) -> list[Block]:
    """What a code cell gave."""
    made: list[Block] = []
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.outputs:
        if output.output_type == "stream":
            text = output.text.strip("\n")
            if text:
                pre = f'<pre class="cl-output">{html.escape(text)}</pre>'
                made.append(Block("output", pre, 0, 0.6 * (text.count("\n") + 1) + 0.8))
            continue
        data = output.get("data", {})
        if "text/html" in data:
            kind = "movable" if MOVABLE.search(data["text/html"]) else "output"
            made.append(Block(kind, f'<div class="cl-{kind}">{data["text/html"]}</div>', 0, LINES))
        elif "image/png" in data:
            source = data["image/png"].replace("\n", "")
            image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt, quote=True)}">'
            made.append(Block("figure", f'<figure class="cl-figure">{image}</figure>', 0, LINES - 2))
        elif "text/markdown" in data:
            made += blocks_of(data["text/markdown"])
        elif "text/plain" in data:
            pre = f'<pre class="cl-output">{html.escape(data["text/plain"])}</pre>'
            made.append(Block("output", pre, 0, 0.6 * (data["text/plain"].count("\n") + 1) + 0.8))
    return made


def cell_blocks(cell: NotebookNode, exercise: bool = False) -> list[Block]:
    """Blocks of a cell."""
    if cell.cell_type == "markdown":
        return blocks_of(cell.source, exercise)
    tags = set(cell.metadata.get("tags", ()))
    if cell.cell_type != "code" or "setup" in tags or "remove-cell" in tags:
        return []
    given = outputs_of(cell)
    if tags & {"hide-input", "hide-cell", "remove-input"} or re.fullmatch(r"\s*show\([^\n]*\)\s*", cell.source):
        return given  # `show(f)` gives the source of f: one of the two is enough
    source = cell.source.replace("# NBVAL_CHECK_OUTPUT\n", "")
    if "exercises.check(" in source:
        given = []  # what the empty stub is told
    return [code_block(source), *(replace(block, later=True) for block in given)]


# --- blocks into slides ---------------------------------------------------------------------------------------------


def cut(notebook: NotebookNode) -> Deck:
    """Cut a chapter into slides.

    Raises:
        ValueError: the first cell is no Markdown with a title.
    """
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        raise ValueError("notebook: expected a first Markdown cell that begins with '# title'")
    opening = blocks_of(first.source)
    title = opening[0].html
    columns: list[list[Slide]] = [[Slide(title, kind="title")]]
    for block in opening[1:]:
        words = re.sub(r"<[^>]+>", "", block.html).strip()
        if words.startswith("Open in Colab"):
            continue
        if block.kind == "text" and words.startswith("You will be able to"):
            columns[0].append(Slide("You will be able to"))
        elif block.kind == "text" and words.startswith(("Needs:", "Run time:")):
            columns[0][0].notes.append(block.notes or block.html)
        else:
            _place(columns[0], block)
    exercise = False
    for cell in notebook.cells[1:]:
        for block in cell_blocks(cell, exercise):
            if block.kind in ("h1", "h2"):
                exercise = block.title.strip().lower() == "exercises"
                columns.append([Slide(block.html)])
            elif re.fullmatch("h[3-6]", block.kind):
                columns[-1].append(Slide(block.html))
            elif block.kind == "fold":
                _unfold(columns[-1], block)
            else:
                _place(columns[-1], block)
    for column in columns:
        _tidy(column)
    return Deck(re.sub(r"<[^>]+>", "", html.unescape(title)), [column for column in columns if column])


def _place(column: list[Slide], block: Block) -> None:
    """Put a block on the last slide of a column, or on a new one if it does not fit there."""
    slide = column[-1]
    big = block.kind in ("figure", "movable")
    last = slide.blocks[-1] if slide.blocks else None
    if last is not None and last.kind in ("figure", "movable") and block.kind == "text" and block.words <= 35:
        # What follows a figure says what it shows: the caption.
        slide.blocks.append(replace(block, kind="caption", lines=min(block.lines, 2)))
        slide.notes += [block.notes] if block.notes else []
        return
    predicted = last is not None and last.kind == "quote" and last.title == "Predict"
    shown = any(one.kind in ("figure", "movable", "caption") for one in slide.blocks)
    # A sentence or two go with what they announce, even if it becomes a little smaller for it.
    lead = slide.kind != "title" and slide.lines <= 3 and all(one.kind == "text" for one in slide.blocks)
    full = slide.words + block.words > WORDS or slide.lines + block.lines > LINES
    full = full and not (lead and block.lines <= LINES and block.kind not in ("text", "list", "quote"))
    small = block.kind == "output" and block.lines <= 2.5
    apart = (big and not lead) or (shown and not small)
    if slide.blocks and (predicted or full or apart):
        fresh = Slide(slide.heading, kind=slide.kind.replace("title", ""))
        # The sentence that leads into a formula or a list goes with it.
        words = re.sub(r"<[^>]+>", "", last.html).strip() if last is not None and last.kind == "text" else ""
        fits = last is not None and last.words + block.words <= WORDS
        if words.endswith((":", ",")) and len(slide.blocks) > 1 and fits and not predicted:
            fresh.blocks.append(slide.blocks.pop())
        column.append(fresh)
        slide = fresh
    slide.blocks.append(block)
    if block.notes:
        slide.notes.append(block.notes)


def _unfold(column: list[Slide], fold: Block) -> None:
    """A fold's slides, below what it belongs to; whatever follows gets a new slide."""
    heading = column[-1].heading
    own = Slide(
        f"{heading}<small>{html.escape(fold.title)}</small>" if heading else html.escape(fold.title), kind="fold"
    )
    below = [own]
    for block in fold.inside:
        if block.kind == "fold":
            _unfold(below, block)
        elif re.fullmatch("h[1-6]", block.kind):
            below.append(Slide(block.html, kind="fold"))
        else:
            _place(below, block)
    column += [slide for slide in below if slide.blocks]
    column.append(Slide(re.sub(r"<small>.*", "", heading)))


def _tidy(column: list[Slide]) -> None:
    """Drop slides on which nothing is; a heading that only has headings below it stays as the column's title."""
    kept = [slide for place, slide in enumerate(column) if slide.blocks or place == 0]
    if not kept[0].blocks:
        kept[0].kind = kept[0].kind or "divider"
    column[:] = kept


# --- slides into a page ---------------------------------------------------------------------------------------------


def section(slide: Slide, book: str) -> str:
    """HTML of one slide."""
    body = []
    for block in slide.blocks:
        fragment = ' class="fragment"' if block.later else ""
        body.append(f"<div{fragment}>{block.html}</div>" if fragment else block.html)
        if block.kind == "caption":
            body[-1] = f'<div class="cl-caption">{block.html}</div>'
    notes = f'<aside class="notes">{"".join(slide.notes)}</aside>' if slide.notes else ""
    level = "h1" if slide.kind in ("title", "divider") else "h2"
    foot = f'<p class="cl-book">{book}</p>' if slide.kind == "title" else ""
    kind = f' class="cl-{slide.kind}"' if slide.kind else ""
    return (
        f"<section{kind}><{level}>{slide.heading}</{level}>"
        f'<div class="cl-body">{"".join(body)}</div>{foot}{notes}</section>'
    )


def page(deck: Deck, book: str, alone: bool = False) -> str:
    """A whole presentation.

    Args:
        deck: the slides.
        book: what the title slide says of the book, HTML.
        alone: put scripts and styles into the file (2.6 MB more), so that it can be sent without its folder.
    """

    def sheet(name: str) -> str:
        if alone:
            return f"<style>{ASSETS[name].read_text(encoding='utf-8')}</style>"
        return f'<link rel="stylesheet" href="assets/{name}">'

    def script(name: str) -> str:
        if alone:
            text = ASSETS[name].read_text(encoding="utf-8").replace("</script", r"<\/script")
            return f"<script>{text}</script>"
        return f'<script src="assets/{name}"></script>'

    columns = []
    for column in deck.columns:
        inner = "".join(section(slide, book) for slide in column)
        columns.append(inner if len(column) == 1 else f"<section>{inner}</section>")
    colors = HtmlFormatter(style="github-light-high-contrast").get_style_defs(".highlight")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(deck.title)}: slides</title>"
        f"{sheet('reveal.css')}<style>{colors}</style>{sheet('slides.css')}"
        f'</head><body class="cl-preparing"><div class="reveal"><div class="slides">{"".join(columns)}</div></div>'
        f"{script('reveal.js')}{script('notes.js')}{script('slides.js')}{script('mathjax.js')}</body></html>"
    )


def number(path: Path) -> str:
    """``2.1`` for the first chapter of part 2."""
    return f"{int(path.parent.name.split('_')[0])}.{int(path.stem.split('_')[0])}"


def index(rows: Sequence[tuple[str, str, str, int]], title: str) -> str:
    """The page that lists all presentations: part, file, title, slides of each."""
    parts: dict[str, list[str]] = {}
    for part, name, heading, slides in rows:
        entry = f'<li><a href="{name}">{html.escape(heading)}</a> <span>{slides} slides</span></li>'
        parts.setdefault(part, []).append(entry)
    lists = "".join(f"<h2>{html.escape(part)}</h2><ul>{''.join(items)}</ul>" for part, items in parts.items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}: slides</title>"
        '<link rel="stylesheet" href="assets/slides.css"></head><body class="cl-index"><main>'
        f"<h1>{html.escape(title)}: slides</h1><p>Made from the chapters by <code>make slides</code>. Keys: space to "
        "go on, left and right for sections, down for what is below; <kbd>S</kbd> for the speaker's notes, which hold "
        "the chapter's full text; <kbd>Esc</kbd> to leave a figure or to see all slides; <kbd>F</kbd> for full screen. "
        f"Text and figures: CC BY 4.0. Code: BSD-3-Clause.</p>{lists}</main></body></html>"
    )


def parts_of(toc: dict[str, Any]) -> dict[str, str]:
    """From a chapter (``1_foundations/01_x``) to the part it stands in."""
    return {
        entry["file"].removeprefix("chapters/"): part["caption"]
        for part in toc["parts"]
        for entry in part["chapters"]
        if entry.get("file", "").startswith("chapters/")
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make slides of chapters.")
    parser.add_argument("names", nargs="*", help="for example 1_foundations/01_learning_by_comparison; none: all")
    parser.add_argument("--alone", action="store_true", help="scripts and styles inside each file")
    args = parser.parse_args()
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    known = parts_of(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")))
    (TARGET / "assets").mkdir(parents=True, exist_ok=True)
    for name, origin in ASSETS.items():
        shutil.copyfile(origin, TARGET / "assets" / name)
    paths = sorted(find(args.names), key=lambda path: [int(one) for one in number(path).split(".")])
    if not paths:
        sys.exit("There is no chapter in chapters/ yet.")
    rows = []
    for path in paths:
        deck = cut(nbformat.read(path, as_version=4))
        part = known.get(f"{path.parent.name}/{path.stem}", "Other chapters")
        book = f"{html.escape(config['title'])} · {html.escape(part)} · CC BY 4.0 (code: BSD-3-Clause)"
        deck.columns[0][0].heading = f"<small>{number(path)}</small>{deck.columns[0][0].heading}"
        name = f"{path.parent.name}-{path.stem}.html"
        (TARGET / name).write_text(page(deck, book, args.alone), encoding="utf-8")
        rows.append((part, name, f"{number(path)} {deck.title}", len(deck.slides)))
    if not args.names:  # one chapter alone leaves the list of all as it is
        (TARGET / "index.html").write_text(index(rows, config["title"]), encoding="utf-8")
    slides, weight = sum(row[3] for row in rows), sum((TARGET / row[1]).stat().st_size for row in rows) / 1e6
    where = TARGET.relative_to(ROOT) / ("index.html" if not args.names else rows[0][1])
    print(f"{where}: {len(rows)} chapter(s), {slides} slides, {weight:.1f} MB.")


if __name__ == "__main__":
    main()
