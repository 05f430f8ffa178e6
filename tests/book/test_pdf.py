"""The book as a PDF: what happens to links, ids, figures and folds, and a small book printed by Chromium."""

from __future__ import annotations

import re
from typing import Any

import make_pdf
import pypdf
import pytest
from bs4 import BeautifulSoup, Tag
from make_pdf import Page

TOC: dict[str, Any] = {
    "root": "book/intro",
    "parts": [
        {"caption": "Part 1: Ground", "chapters": [{"file": "chapters/1_ground/01_first"}]},
        {
            "caption": "Around",
            "chapters": [
                {"file": "book/methods", "sections": [{"glob": "book/methods/*"}]},
                {"file": "book/api", "sections": [{"glob": "book/api/*"}]},
            ],
        },
    ],
}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
FRAMES = (
    '<figure class="cl-frames"><div><label><span>temperature</span><input type="range"></label>'
    "<output>0.5</output></div>"
    f'<img src="{PIXEL}" alt="a"><img src="{PIXEL}" alt="b" hidden><figcaption>A caption.</figcaption></figure>'
)
PLAY = f'<figure class="cl-play" data-state="{{}}"><img src="{PIXEL}" alt="p"><script>1</script></figure>'
CODE = (
    '<div class="cell"><details class="admonition hide above-input"><summary>Show code</summary>'
    '<div class="cell_input"><div class="highlight"><pre><span></span><span class="n">a</span>\nb\n</pre></div>'
    "</div></details></div>"
)
BUILT = {
    "book/intro": (
        '<h1>The book<a class="headerlink" href="#the-book">#</a></h1>'
        '<p><a href="../chapters/1_ground/01_first.html#a-game">on</a></p>'
    ),
    "chapters/1_ground/01_first": (
        '<section id="first"><h1>First</h1><p><a href="../../book/intro.html">back</a> <a href="#a-game">down</a> '
        '<a href="https://example.org/x">out</a> '
        '<a href="../../book/api/core.html#f">core</a> <a href="#nowhere">own</a> '
        '<a href="../../book/intro.html#no">lost</a></p>'
        '<img src="../../_images/a.png"><blockquote><p><strong>Predict.</strong> What?</p></blockquote>'
        f'<section id="a-game"><h2>A game</h2>{FRAMES}{PLAY}{CODE}'
        "<details><summary>Hint</summary><p>Look.</p></details>"
        '<div class="cell tag_setup"><pre>import cl_teach</pre></div>'
        f"<table><tr>{''.join(f'<td>column_number_{k}</td>' for k in range(14))}</tr></table>"
        f"<pre>{'long_line_of_code(' * 30}</pre></section></section>"
    ),
    "book/methods": "<h1>Methods</h1>",
    "book/methods/dcl": (
        "<h1>DCL</h1><section><section><h2>Functions</h2></section><section><h2>Idea</h2></section></section>"
    ),
    "book/methods/amcl": "<h1>AMCL</h1>",
    "book/api": "<h1>Reference</h1>",
    "book/api/core": '<h1>core</h1><p id="f">f</p>',
}
TEXTS = {
    name: f'<html><body><article class="bd-article">{text}</article></body></html>' for name, text in BUILT.items()
}
CHAPTER = "chapters/1_ground/01_first"


def article(html: str) -> Tag:
    found = BeautifulSoup(f"<article>{html}</article>", "html.parser").article
    assert found is not None
    return found


def joined() -> tuple[str, list[str]]:
    return make_pdf.join(
        make_pdf.pages(TOC, list(BUILT)), TEXTS, "The book", "<div class='cl-title'><h1>The book</h1></div>"
    )


def test_pages_come_in_the_order_of_the_contents_and_the_reference_stays_out() -> None:
    assert make_pdf.pages(TOC, list(BUILT)) == [
        Page("book/intro"),
        Page(CHAPTER, "Part 1: Ground"),
        Page("book/methods", "Around"),
        Page("book/methods/amcl", "", 1),
        Page("book/methods/dcl", "", 1),
    ]


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("#here", (CHAPTER, "here")),
        ("../../book/intro.html", ("book/intro", "")),
        ("../2_more/01_x.html#a-b", ("chapters/2_more/01_x", "a-b")),
        ("https://example.org", None),
        ("mailto:a@example.org", None),
        ("//example.org/x", None),
    ],
)
def test_a_link_leads_to_a_page_and_an_anchor_or_out(href: str, expected: tuple[str, str] | None) -> None:
    assert make_pdf.target(href, CHAPTER) == expected


def test_ids_of_two_pages_never_meet() -> None:
    first, second = (
        article('<p id="a"></p><label for="a"></label>'),
        article('<p id="a"></p><svg><use href="#a"/></svg>'),
    )
    assert make_pdf.prefix_ids(first, "book/x") == {"page-book-x--a"}
    assert make_pdf.prefix_ids(second, "book/y") == {"page-book-y--a"}
    assert first.label is not None and first.label["for"] == "page-book-x--a"
    assert second.use is not None and second.use["href"] == "#page-book-y--a"


def test_links_lead_inside_outside_stay_and_what_is_not_there_is_named() -> None:
    text, lost = joined()
    soup = BeautifulSoup(text, "html.parser")
    where = {a.get_text(): a["href"] for a in soup.select(".cl-page a")}
    assert where["on"] == where["down"] == "#page-chapters-1_ground-01_first--a-game"
    assert where["back"] == "#page-book-intro"
    assert where["out"] == "https://example.org/x"
    assert "core" not in where and "core" in soup.get_text()  # its page is not in the PDF: the word stays
    assert lost == [f"{CHAPTER}: ../../book/intro.html#no"] and where["lost"] == "#page-book-intro"
    assert "own" not in where
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert all(href[1:] in ids for href in where.values() if href.startswith("#"))


def test_headings_are_parts_pages_sections() -> None:
    soup = BeautifulSoup(joined()[0], "html.parser")
    found = [(tag.name, tag.get_text().strip()) for tag in soup.find_all(re.compile("^h[1-6]$"))]
    assert found == [
        ("h1", "The book"),
        ("h2", "Contents"),
        ("h2", "The book"),
        ("h1", "Part 1: Ground"),
        ("h2", "1.1 First"),
        ("h3", "A game"),
        ("h1", "Around"),
        ("h2", "Methods"),
        ("h3", "AMCL"),
        ("h3", "DCL"),
        ("h4", "Idea"),
    ]


def test_movable_figures_stand_still_and_say_so() -> None:
    made = article(FRAMES + PLAY)
    make_pdf.still_figures(made)
    assert [image["alt"] for image in made.find_all("img")] == ["a", "p"]
    assert not made.find_all("input") and "data-state" not in str(made)
    assert "temperature: 0.5. This figure moves" in made.get_text() and "playground" in made.get_text()


def test_hints_stand_open_and_folded_code_is_counted() -> None:
    made = article("<details><summary>Hint</summary>x</details>" + CODE)
    make_pdf.open_folds(made)
    assert [fold.get("open") for fold in made.find_all("details")] == [""]
    assert "2 lines of code" in made.get_text()


def test_setup_cells_go_and_pictures_are_found() -> None:
    text, _ = joined()
    assert "import cl_teach" not in text and 'src="../html/_images/a.png"' in text and "cl-box-predict" in text


def test_an_exercise_keeps_its_stub_and_not_what_the_stub_is_told() -> None:
    stub = '<div class="cell"><div class="cell_input"><pre>exercises.check("a.1", f)</pre></div>'
    made = article(f'{stub}<div class="cell_output"><pre>not yet</pre></div></div>')
    make_pdf.strip(made)
    assert "exercises.check" in made.get_text() and "not yet" not in made.get_text()


def test_a_page_without_an_article_is_refused() -> None:
    with pytest.raises(ValueError, match="book/intro: expected a built page with an <article>"):
        make_pdf.prepare(Page("book/intro"), "<p>x</p>")


@pytest.fixture(scope="module")
def printed(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[pypdf.PdfReader, dict[str, Any]]:
    """The small book, printed."""
    folder = tmp_path_factory.mktemp("pdf")
    (folder / "book.html").write_text(joined()[0], encoding="utf-8")
    report = make_pdf.print_pdf(browser, folder / "book.html", folder / "book.pdf")
    assert make_pdf.pack(folder / "book.pdf", report["titles"]) == len(pypdf.PdfReader(folder / "book.pdf").pages)
    return pypdf.PdfReader(folder / "book.pdf"), report


def test_the_pdf_has_an_outline_of_parts_pages_and_sections(printed: tuple[pypdf.PdfReader, dict[str, Any]]) -> None:
    def walk(entries: list[Any], depth: int = 0) -> list[tuple[int, str]]:
        found = []
        for entry in entries:
            found += walk(entry, depth + 1) if isinstance(entry, list) else [(depth, entry.title.strip())]
        return found

    found = walk(printed[0].outline)
    assert found == [
        (0, "The book"),
        (1, "Contents"),
        (1, "The book"),
        (0, "Part 1: Ground"),
        (1, "1.1 First"),
        (2, "A game"),
        (0, "Around"),
        (1, "Methods"),
        (2, "AMCL"),
        (2, "DCL"),
        (3, "Idea"),
    ]


def test_the_pdf_links_inside_and_outside(printed: tuple[pypdf.PdfReader, dict[str, Any]]) -> None:
    reader, _ = printed
    notes = [note.get_object() for page in reader.pages for note in page.get("/Annots", [])]
    inside = {str(note["/Dest"]).lstrip("/") for note in notes if "/Dest" in note}
    outside = {str(note["/A"]["/URI"]) for note in notes if "/A" in note}
    assert {"page-book-intro", "page-chapters-1_ground-01_first--a-game"} <= inside
    assert inside <= {name.lstrip("/") for name in reader.named_destinations}
    assert outside == {"https://example.org/x"}


def test_every_sheet_has_its_number_and_the_contents_know_it(printed: tuple[pypdf.PdfReader, dict[str, Any]]) -> None:
    reader, report = printed
    texts = [page.extract_text() for page in reader.pages]
    for number, text in enumerate(texts[1:], 2):  # the title page has none
        assert str(number) in text.split("\n")
    chapter = report["places"]["page-chapters-1_ground-01_first"]
    assert "A game" in texts[chapter - 1] and "1.1 First" in texts[chapter - 1]
    assert re.search(rf"1\.1 First\s*{chapter}\b", texts[1])


def test_what_is_wide_is_made_to_fit(printed: tuple[pypdf.PdfReader, dict[str, Any]]) -> None:
    assert printed[1]["wide"] == []
