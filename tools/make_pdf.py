"""The whole book as one PDF: ``make pdf`` joins the built pages into one document and lets Chromium print it.

The order is that of ``book/_toc.yml``. The reference of the ground floor (``book/api``) stays online: nobody reads
signatures on paper, and a tablet with the PDF on it has a browser. The pages of the methods are its appendix.

What changes on the way to paper, and why:

- A figure that moves shows its first frame, a playground its still picture, each with a line that says so.
- Hints, solutions and side remarks stand open: paper cannot be clicked. Folded code does not: these cells draw, print
  and assert, nobody can run them on paper, and they would fill 150 pages. A line says how many lines are left out.
- The pages of the methods, an appendix, come without signatures and entries for a bibliography file, one after another.
- The two cells that install `cl_teach` and import are left out; they are the same in every chapter.
- Ids get the name of their page in front, and links between pages become links inside the PDF. A link to a page that
  is not in it becomes text.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag
from chromium import ARGUMENTS, CHROMIUM, INSTALL

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
WORK = ROOT / "_build" / "pdf"
TARGET = ROOT / "_build" / "cl-teach-book.pdf"
LEFT_OUT = re.compile(r"book/api(/|$)")
CHAPTER = re.compile(r"chapters/(\d+)_[^/]+/(\d+)_[^/]+$")
BOXES = {
    "definition.": "definition",
    "predict.": "predict",
    "note.": "note",
    "paper versus code.": "code",
    "how sure are we?": "sure",
}
#: Colors of code that tell something on paper: comments, keywords, strings, numbers, what is defined.
PAINTED = re.compile(r"(c|k|s|m|go|gp)[a-z0-9]?\b|n[fcd]\b")
#: Sections of a method's page that stay online: signatures, and an entry for a bibliography file.
UNSEEN = {"Functions", "Cite"}
#: A4 less its margins, in CSS pixels: what is measured on the screen must be what is printed.
WIDTH, MARGIN = 658, "18mm"
PAPER = Path(__file__).resolve().parent / "paper"


@dataclass(frozen=True)
class Page:
    """A page of the book: its name without suffix, the part that begins with it, how deep it stands in the contents."""

    name: str
    part: str = ""
    depth: int = 0


def pages(toc: Mapping[str, Any], built: Sequence[str]) -> list[Page]:
    """The pages of a table of contents in their order.

    Args:
        toc: what ``_toc.yml`` says: root, parts, chapters, sections; each entry a file or a glob.
        built: names of all built pages, for the globs.
    """

    def walk(entries: Sequence[Mapping[str, Any]], depth: int) -> Iterator[tuple[str, int]]:
        for entry in entries:
            if "glob" in entry:
                pattern = re.compile(re.escape(entry["glob"]).replace(r"\*", "[^/]*"))
                names = sorted(name for name in built if pattern.fullmatch(name))
            else:
                names = [entry["file"]]
            yield from ((name, depth) for name in names)
            yield from walk(entry.get("sections", ()), depth + 1)

    found = [Page(toc["root"])]
    for part in toc.get("parts", ()):
        caption = part.get("caption", "")
        for name, depth in walk(part["chapters"], 0):
            if not LEFT_OUT.match(name):
                found.append(Page(name, caption, depth))
                caption = ""
    return found


def address(name: str, anchor: str = "") -> str:
    """The id, in the joined document, of a page or of an anchor on it."""
    page = "page-" + re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return f"{page}--{anchor}" if anchor else page


def number(name: str) -> str:
    """What the text calls a chapter: ``2.3`` and a space for the third chapter of part 2, nothing for another page."""
    found = CHAPTER.fullmatch(name)
    return f"{int(found[1])}.{int(found[2])} " if found else ""


def prefix_ids(article: Tag, name: str) -> set[str]:
    """Put the page's name in front of every id and of what points to ids without a link; the new ids."""
    for tag in article.find_all(id=True):
        tag["id"] = address(name, str(tag["id"]))
    for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls", "aria-owns"):
        for tag in article.find_all(attrs={attribute: True}):
            tag[attribute] = " ".join(address(name, one) for one in str(tag[attribute]).split())
    for tag in article.find_all("use"):
        for attribute in ("href", "xlink:href"):
            if str(tag.get(attribute, "")).startswith("#"):
                tag[attribute] = "#" + address(name, str(tag[attribute])[1:])
    for tag in article.find_all(lambda tag: any("url(#" in str(value) for value in tag.attrs.values())):
        for key, value in tag.attrs.items():
            tag[key] = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{address(name, m[1])})", str(value))
    return {str(tag["id"]) for tag in article.find_all(id=True)}


def target(href: str, name: str) -> tuple[str, str] | None:
    """Page and anchor that a link on page `name` leads to; None if it leads out of the book."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", href, re.IGNORECASE):
        return None
    path, _, anchor = href.partition("#")
    if not path:
        return name, anchor
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path)).removesuffix(".html"), anchor


def rewrite_links(article: Tag, name: str, ids: Mapping[str, set[str]]) -> list[str]:
    """Let links between pages lead inside the document; returns anchors that are nowhere.

    Args:
        article: the page, its ids already prefixed.
        name: its name.
        ids: every page of the document and its (prefixed) ids.
    """
    lost = []
    for link in article.find_all("a", href=True):
        goal = target(str(link["href"]), name)
        if goal is None:
            continue
        page, anchor = goal
        if page not in ids:
            link.unwrap()  # not in the PDF: what it says stays, the link does not
            continue
        if anchor and address(page, anchor) not in ids[page]:
            if page == name:  # in a section that stays online
                link.unwrap()
                continue
            lost.append(f"{name}: {link['href']}")
            anchor = ""
        link["href"] = "#" + address(page, anchor)
        del link["title"]
    return lost


def resolve_sources(article: Tag, name: str, base: str = "../html") -> None:
    """Let pictures of page `name` be found from the joined document, which lies in ``_build/pdf``."""
    for tag in article.find_all(src=True):
        source = str(tag["src"])
        if not re.match(r"[a-z][a-z0-9+.-]*:", source, re.IGNORECASE):
            tag["src"] = posixpath.join(base, posixpath.normpath(posixpath.join(posixpath.dirname(name), source)))


def _note(words: str, name: str = "p") -> Tag:
    tag = BeautifulSoup("", "html.parser").new_tag(name, attrs={"class": "cl-print-note"})
    tag.string = words
    return tag


def still_figures(article: Tag) -> None:
    """Leave of every movable figure what a reader of paper can have, and say what is missing."""
    for figure in article.select("figure.cl-frames, figure.cl-highlight"):
        for hidden in figure.find_all(hidden=True):
            hidden.decompose()
        for numbers in figure.find_all("details"):  # the shades of the words once more, for those who see none
            numbers.decompose()
        slider = figure.find("input")
        if slider is None:
            continue
        label = figure.find("label")
        value = figure.find("output")
        words = f"{label.get_text(strip=True) if label else ''}: {value.get_text(strip=True) if value else ''}"
        slider.find_parent("div").decompose()
        figure.append(_note(f"{words.strip(': ')}. This figure moves in the online edition."))
    for figure in article.select("figure.cl-play"):
        figure.append(_note("A playground in the online edition: there it can be dragged, changed and run."))
        del figure["data-state"]  # heavy, and only its script reads it


def open_folds(article: Tag) -> None:
    """Open hints, solutions and remarks; replace folded code by a line that says how much there is."""
    for fold in article.select("details.hide"):
        lines = sum(len(code.get_text().strip("\n").splitlines()) for code in fold.find_all("pre"))
        if fold.select_one(".cell_output"):  # a folded output is part of the text
            fold["open"] = ""
            fold.summary.decompose()
        else:
            fold.replace_with(_note(f"{lines} line{'s' * (lines != 1)} of code, in the online edition"))
    for fold in article.find_all("details"):
        fold["open"] = ""


def name_boxes(article: Tag) -> None:
    """Give block quotes the class of their first bold words, as ``book.js`` does in the browser."""
    for quote in article.find_all("blockquote"):
        strong = quote.find("strong")
        kind = strong and BOXES.get(strong.get_text().strip().lower())
        if kind:
            quote["class"] = ["cl-box", f"cl-box-{kind}"]


def strip(article: Tag) -> None:
    """Take away what only a browser can use, and what would make the file heavy without being seen."""
    for tag in article.select(
        "script, style, a.headerlink, button, form, input, select, .toctree-wrapper, .copybtn, .cell.tag_setup, "
        "colgroup, .sd-hide-link-text"
    ):
        tag.decompose()
    for cell in article.select(".cell"):
        if "exercises.check(" in "".join(code.get_text() for code in cell.select(".cell_input pre")):
            for given in cell.select(".cell_output"):  # what an empty stub is told
                given.decompose()
    for head in article.find_all("thead"):  # a table of Markdown always has a head, if only an empty one
        if not head.get_text(strip=True):
            head.decompose()
    for mark in article.select(".highlight pre span.c1"):  # a sign for the tests, not for readers
        if mark.get_text() == "# NBVAL_CHECK_OUTPUT":
            mark.decompose()
    for code in article.select(".cell_input pre"):
        first = next((text for text in code.find_all(string=True) if text), None)
        if first is not None and not first.strip():
            first.replace_with("")
    # Every span is an element of the PDF's structure: those that the light theme hardly colors go.
    for span in article.select(".highlight pre span"):
        if not PAINTED.match(" ".join(span.get("class", []))):
            span.unwrap()
    for code in article.select("code.literal span.pre"):
        code.unwrap()
    article.smooth()


def shift_headings(article: Tag, by: int) -> None:
    """Make headings `by` levels lower: the PDF's outline is parts, pages, sections."""
    for heading in article.find_all(re.compile(r"^h[1-6]$")):
        level = int(heading.name[1])
        heading["class"] = [*heading.get("class", []), f"cl-h{level}"]
        heading.name = f"h{min(6, level + by)}"


def prepare(page: Page, text: str) -> tuple[Tag, str]:
    """The article of a built page made ready for paper, but for its links, and its title."""
    article = BeautifulSoup(text, "html.parser").select_one("article")
    if article is None:
        raise ValueError(f"{page.name}: expected a built page with an <article>, got none; call `make book` again")
    still_figures(article)  # before the controls go: they say what is shown
    open_folds(article)
    name_boxes(article)
    strip(article)
    if page.depth:
        for section in article.select("section section"):
            if section.find(re.compile("^h[1-6]$")).get_text().strip() in UNSEEN:
                section.decompose()
    heading = article.find("h1")
    if heading is None:
        raise ValueError(f"{page.name}: expected a page with a title (h1), got none")
    if number(page.name):
        heading.insert(0, number(page.name))
    title = heading.get_text(strip=False).strip()
    shift_headings(article, 1 + page.depth)
    resolve_sources(article, page.name)
    prefix_ids(article, page.name)
    return article, title


def contents(listed: Sequence[tuple[Page, str]]) -> str:
    """The table of contents; the numbers of the pages come in after the first printing."""
    rows = []
    for page, title in listed:
        if page.part:
            rows.append(f'<li class="cl-toc-part">{html.escape(page.part)}</li>')
        goal = address(page.name)
        rows.append(
            f'<li class="cl-toc-{page.depth}"><a href="#{goal}"><span>{html.escape(title)}</span></a>'
            f'<i></i><b data-page="{goal}"></b></li>'
        )
    return f'<nav class="cl-toc"><h2 class="cl-h1">Contents</h2><ol>{"".join(rows)}</ol></nav>'


def headers(listed: Sequence[tuple[Page, str]]) -> str:
    """A kind of sheet for every page of the book, so that each sheet of paper says where one is."""
    rules, above = [], 0
    for place, (page, title) in enumerate(listed):
        if page.depth:  # the pages below a page follow one another, under its name
            rules.append(f"#{address(page.name)} {{ page: cl-{above}; break-before: auto; margin-top: 12mm; }}")
            continue
        above = place
        words = json.dumps(re.sub(r"\\[()]", "", title), ensure_ascii=False).replace("<", r"\3c ")
        rules.append(
            f"@page cl-{place} {{ @top-right {{ content: {words}; font: 8.5pt sans-serif; color: #5a6270; }} }}\n"
            f"#{address(page.name)} {{ page: cl-{place}; }}"
        )
    return "\n".join(rules)


def head_of(text: str) -> str:
    """Style sheets, MathJax and its settings as a built page has them, seen from the joined document."""
    soup = BeautifulSoup(text, "html.parser")
    lines = []
    for sheet in soup.select('link[rel="stylesheet"]'):
        path = str(sheet["href"]).split("?")[0]
        lines.append(f'<link rel="stylesheet" href="../html/{path[path.index("_static") :]}">')
    for script in soup.find_all("script"):
        if "window.MathJax" in script.get_text():
            # A second copy of each formula for readers aloud would be invisible text in the PDF; names stand for it.
            plain = script.get_text().replace('"assistiveMml": true', '"assistiveMml": false')
            lines.append(f"<script>{plain}</script>")
        elif "mathjax" in str(script.get("src", "")):
            path = str(script["src"]).split("?")[0]
            lines.append(f'<script defer src="../html/{path[path.index("_static") :]}"></script>')
    return "\n".join(dict.fromkeys(lines))


def join(listed: Sequence[Page], texts: Mapping[str, str], title: str, front: str) -> tuple[str, list[str]]:
    """One HTML document of all pages, and the links that lead nowhere.

    Args:
        listed: the pages in their order.
        texts: the built HTML of each.
        title: the book's.
        front: HTML of the title page.
    """
    ready = [(page, *prepare(page, texts[page.name])) for page in listed]
    ids = {page.name: {str(tag["id"]) for tag in article.find_all(id=True)} for page, article, _ in ready}
    lost, body = [], []
    for page, article, _ in ready:
        lost += rewrite_links(article, page.name, ids)
        part = f'<h1 class="cl-part">{html.escape(page.part)}</h1>' if page.part else ""
        body.append(f'<div class="cl-page" id="{address(page.name)}">{part}{article}</div>')
    titles = [(page, name) for page, _, name in ready]
    style = (PAPER / "paper.css").read_text(encoding="utf-8").replace("MARGIN", MARGIN)
    # MathJax comes with every page that has one; the plainest page may know nothing of it.
    head = max((head_of(texts[page.name]) for page in listed), key=len)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>{head}<style>{style}{headers(titles)}</style></head>"
        f"<body>{front}{contents(titles)}{''.join(body)}</body></html>"
    ), lost


def version(root: Path = ROOT) -> str:
    """The tag of this commit, or the version that pyproject.toml says."""
    stated = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    asked = ["git", "-C", str(root), "describe", "--tags", "--exact-match"]
    try:
        tag = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"Version {stated}"
    return f"Version {tag.removeprefix('v')}"


def front_page(config: Mapping[str, Any], picture: str, release: str) -> str:
    """Title, picture, version, address and licenses."""
    where = config.get("repository", {}).get("url", "")
    return (
        f'<div class="cl-title"><h1>{html.escape(config["title"])}</h1>'
        '<p class="cl-subtitle">A textbook on contrastive learning that runs</p>'
        f'<img src="{picture}" alt=""><p class="cl-subtitle">{html.escape(config["author"])}</p>'
        f"<p>{html.escape(release)}, {html.escape(str(config['copyright']))}</p>"
        f'<p><a href="{html.escape(where)}">{html.escape(where)}</a></p>'
        "<p>Text and figures: CC BY 4.0. Code: BSD-3-Clause.</p></div>"
    )


def places(path: Path) -> dict[str, int]:
    """From the named places of a PDF to the numbers of their pages, the first being 1."""
    import pikepdf

    with pikepdf.open(path) as pdf:
        numbers = {page.objgen: number for number, page in enumerate(pdf.pages, 1)}
        return {name.lstrip("/"): numbers[goal[0].objgen] for name, goal in pdf.Root.get("/Dests", {}).items()}


def pack(path: Path, titles: Sequence[str] = ()) -> int:
    """Name the entries of a PDF's outline, and store its many small objects together; returns its pages.

    Chromium says the title of a heading twice if it first stood at the end of a sheet, and nothing of formulas in it.

    Args:
        path: the file, which is written again, a third lighter.
        titles: of all headings in their order; left alone if the outline has another number of entries.
    """
    import pikepdf

    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        with pdf.open_outline() as outline:
            entries = list(_entries(outline.root))
            for depth, entry in entries:
                entry.is_closed = depth > 0  # parts and their chapters are shown, sections on demand
            if len(entries) == len(titles):
                for (_, entry), title in zip(entries, titles, strict=True):
                    entry.title = title
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate)
        return len(pdf.pages)


def _entries(items: Sequence[Any], depth: int = 0) -> Iterator[tuple[int, Any]]:
    for item in items:
        yield depth, item
        yield from _entries(item.children, depth + 1)


def print_pdf(browser: Any, document: Path, pdf: Path) -> dict[str, Any]:
    """Print a document with Chromium, twice: the second time the contents know the pages.

    Returns:
        numbers of formulas and of narrowed things, what is still too wide, the titles of all headings, and the pages
        that the contents name.
    """
    page = browser.new_page(viewport={"width": WIDTH, "height": 930})
    page.set_default_timeout(600_000)
    # A document of the project's own pages: nothing is fetched, whatever they say.
    page.route(lambda url: not url.startswith(("file:", "data:")), lambda route: route.abort())
    page.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
    page.goto(document.as_uri(), wait_until="load")
    formulas = page.evaluate((PAPER / "name_formulas.js").read_text(encoding="utf-8"))
    report = page.evaluate((PAPER / "fit.js").read_text(encoding="utf-8"))
    titles = page.evaluate((PAPER / "titles.js").read_text(encoding="utf-8"))

    def write() -> None:
        page.pdf(path=pdf, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)

    write()
    known = places(pdf)
    page.evaluate(
        "known => document.querySelectorAll('[data-page]').forEach(e => e.textContent = known[e.dataset.page])",
        known,
    )
    write()
    page.close()
    return {"formulas": formulas, **report, "titles": titles, "places": known}


def main() -> None:
    """Write _build/cl-teach-book.pdf."""
    if CHROMIUM is None:
        sys.exit(f"make pdf prints with Chromium, which is not on this machine: {INSTALL}, then call make pdf again.")
    if not (BUILT / "index.html").is_file():
        sys.exit("There is no built book in _build/html. Call `make book` first.")
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    built = [path.relative_to(BUILT).with_suffix("").as_posix() for path in BUILT.rglob("*.html")]
    listed = pages(toc, built)
    missing = [page.name for page in listed if page.name not in built]
    if missing:
        sys.exit(f"In book/_toc.yml, but not in _build/html: {', '.join(missing)}. Call `make book` first.")
    texts = {page.name: (BUILT / f"{page.name}.html").read_text(encoding="utf-8") for page in listed}
    front = front_page(config, "../html/_static/hero.png", version())
    document, lost = join(listed, texts, config["title"], front)
    WORK.mkdir(parents=True, exist_ok=True)
    source = WORK / "book.html"
    source.write_text(document, encoding="utf-8")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        report = print_pdf(browser, source, TARGET)
        browser.close()
    for line in lost:
        print(f"  no such anchor, leads to the page instead: {line}")
    for line in report["wide"][:20]:
        print(f"  wider than the paper: {line}")
    count = pack(TARGET, report["titles"])
    weight = TARGET.stat().st_size / 1e6
    print(f"{TARGET.relative_to(ROOT)}: {count} pages, {weight:.1f} MB, {report['formulas']} formulas.")


if __name__ == "__main__":
    main()
