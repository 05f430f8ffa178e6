"""Slides: how a chapter is cut, on small notebooks and on every stored chapter."""

from __future__ import annotations

import re
from pathlib import Path

import make_slides
import nbformat
import pytest
from make_slides import LINES, WORDS, Slide, count_words, cut, sentences, shorten
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTERS = sorted((make_slides.ROOT / "chapters").glob("*/*.ipynb"))
TITLE = new_markdown_cell("# A title\n\n[Open in Colab](https://example.org)\n\n**Needs:** Python.")
PICTURE = "iVBORw0KGgo="


def made(*cells: NotebookNode | str) -> list[Slide]:
    """Slides of a notebook with these cells (text: Markdown) after its title."""
    given = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return cut(new_notebook(cells=[TITLE, *given])).slides[1:]


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = (), alt: str = "") -> NotebookNode:
    metadata = {"tags": list(tags), "mystnb": {"image": {"alt": alt}}}
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


def picture() -> NotebookNode:
    return new_output("display_data", {"image/png": PICTURE, "text/plain": "x"})


def text_of(slide: Slide) -> str:
    return re.sub(r"<[^>]+>", "", " ".join(block.html for block in slide.blocks))


# --- sentences ------------------------------------------------------------------------------------------------------


def test_a_sentence_does_not_end_inside_a_formula_code_or_an_abbreviation() -> None:
    text = "Take $a. B$ and `x. Y`, e.g. That one. Chen et al. Found it (see 2. Here). Then stop."
    assert sentences(text) == [
        "Take $a. B$ and `x. Y`, e.g. That one.",
        "Chen et al. Found it (see 2. Here).",
        "Then stop.",
    ]


def test_a_label_belongs_to_what_it_labels() -> None:
    assert sentences("**Note.** One thing. Another.") == ["**Note.** One thing.", "Another."]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The first sentence says what it is about. The second explains.", "The first sentence says what it is about."),
        (
            "The first sentence says what it is about. **This matters.** No.",
            "The first sentence says what it is about. **This matters.**",
        ),
        (
            "The first sentence says what it is about. It explains. It is this:",
            "The first sentence says what it is about. It is this:",
        ),
        ("Short one. The second says it. The third does not.", "Short one. The second says it."),
    ],
)
def test_a_paragraph_keeps_what_a_class_should_read(text: str, kept: str) -> None:
    assert shorten(text) == kept


def test_no_sentence_is_longer_than_a_slide() -> None:
    short = shorten("word " * 80 + "$a + b$ " + "word " * 80 + "end.")
    assert count_words(short) <= WORDS and short.endswith("…") and short.count("$") % 2 == 0


def test_a_formula_counts_as_one_word_and_markup_as_none() -> None:
    assert count_words("one $a + b = c$ **two** [three](https://example.org/a) <b>four</b>") == 5


# --- cutting --------------------------------------------------------------------------------------------------------


def test_headings_begin_columns_and_slides() -> None:
    deck = cut(
        new_notebook(
            cells=[TITLE, new_markdown_cell("## One\n\na\n\n### Below\n\nb"), new_markdown_cell("## Two\n\nc")]
        )
    )
    assert [[slide.heading for slide in column] for column in deck.columns] == [["A title"], ["One", "Below"], ["Two"]]
    assert deck.title == "A title"


def test_the_title_slide_leaves_out_the_badge_and_keeps_the_needs_for_the_speaker() -> None:
    title = cut(new_notebook(cells=[TITLE])).slides[0]
    assert title.kind == "title" and not title.blocks and "Python" in "".join(title.notes)


def test_the_full_paragraph_stands_in_the_notes() -> None:
    (slide,) = made("## A\n\nThe first sentence says what it is about. The second explains.")
    assert "second" not in text_of(slide) and "second" in "".join(slide.notes)


def test_a_full_slide_is_followed_by_another_with_the_same_heading() -> None:
    slides = made("## A\n\n" + "\n\n".join(f"Paragraph {k} has exactly these eight words." for k in range(20)))
    assert len(slides) > 1 and {slide.heading for slide in slides} == {"A"}
    assert all(slide.words <= WORDS and slide.lines <= LINES for slide in slides)


def test_what_leads_into_a_formula_goes_with_it() -> None:
    filler = "\n\n".join(f"A paragraph number {k} of some words, as long as others are." for k in range(9))
    slides = made(f"## A\n\n{filler}\n\nIt is this:\n\n$$a = b$$\n\n$$c = d$$\n\n$$e = f$$")
    first = next(slide for slide in slides if any(block.kind == "math" for block in slide.blocks))
    assert "It is this:" in text_of(first)


def test_a_long_list_is_cut_between_its_items_and_goes_on_counting() -> None:
    items = "\n".join(f"{k}. item number {k} says something of about twelve words, as items do" for k in range(1, 16))
    slides = made(f"## A\n\n{items}")
    assert len(slides) > 1 and all(slide.words <= WORDS for slide in slides)
    assert re.search(r'<ol start="\d+"', "".join(block.html for block in slides[1].blocks))


def test_folded_code_shows_only_what_it_gives_and_open_code_gives_it_later() -> None:
    out = new_output("stream", name="stdout", text="7\n")
    folded = made("## A", code("secret = 7", out, tags=("hide-input",)))[0]
    assert [block.kind for block in folded.blocks] == ["output"] and "secret" not in text_of(folded)
    opened = made("## A", code("# NBVAL_CHECK_OUTPUT\nshown = 7", out))[0]
    assert [(block.kind, block.later) for block in opened.blocks] == [("code", False), ("output", True)]
    assert "NBVAL" not in text_of(opened)


def test_setup_cells_are_left_out() -> None:
    assert not made("## A", code("import cl_teach", tags=("setup",)))[0].blocks


def test_a_figure_has_its_alt_text_and_the_next_sentence_as_caption() -> None:
    (slide,) = made(
        "## A", code("draw()", picture(), tags=("hide-input",), alt='A "curve"'), "It rises. Then it falls."
    )
    assert [block.kind for block in slide.blocks] == ["figure", "caption"]
    assert 'alt="A &quot;curve&quot;"' in slide.blocks[0].html and PICTURE in slide.blocks[0].html


def test_the_class_predicts_before_it_sees() -> None:
    slides = made("## A\n\n> **Predict.** Which one wins?\n\nThe first one wins always, as we saw.", code("x"))
    assert "wins always" not in text_of(slides[0]) and "wins always" in text_of(slides[1])


def test_a_predict_box_keeps_its_question() -> None:
    box = "> **Predict.** " + "This is a sentence of seven words. " * 7 + "Which one?"
    assert "Which one?" in text_of(made(f"## A\n\n{box}")[0])


def test_exercises_stay_whole_and_their_folds_are_slides_below() -> None:
    statement = "Write the loss of a batch in plain code. Return the mean over its anchors. Use no loop."
    fold = "".join(
        f"<details>\n<summary>{name}</summary>\n\n{text}\n\n</details>\n\n"
        for name, text in (("Hint", "One product."), ("Solution", "```python\nx = 1\n```"))
    )
    stub = code('exercises.check("a.1", f)', new_output("stream", name="stdout", text="a.1: not yet\n"))
    slides = made("## Exercises", f"### 1. In code\n\n{statement}", stub, fold)
    assert slides[0].kind == "divider"
    assert "Use no loop." in text_of(slides[1]) and "not yet" not in "".join(map(text_of, slides))
    assert [(slide.kind, slide.heading) for slide in slides[2:]] == [
        ("fold", "1. In code<small>Hint</small>"),
        ("fold", "1. In code<small>Solution</small>"),
    ]


def test_links_lead_to_slides_or_out_and_never_to_files_that_are_not_there() -> None:
    (slide,) = made(
        "## A\n\n[a](../2_theory/01_temperature.ipynb) [b](../../book/notation.md) [c](https://example.org)"
    )
    shown = slide.blocks[0].html
    assert 'href="2_theory-01_temperature.html"' in shown and "notation" not in shown and "https://example.org" in shown


def test_a_notebook_without_a_title_is_refused() -> None:
    with pytest.raises(ValueError, match="notebook: expected a first Markdown cell"):
        cut(new_notebook(cells=[new_code_cell("x")]))


# --- every stored chapter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_gives_slides_that_hold_its_figures_and_not_too_many_words(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.writes(notebook)
    deck = cut(notebook)
    assert nbformat.writes(notebook) == before  # what is stored is not touched
    assert len(deck.slides) >= 20 and deck.slides[0].kind == "title"
    assert [slide.heading for slide in deck.slides if slide.words > WORDS] == []
    assert all(slide.blocks or slide.kind in ("title", "divider") for slide in deck.slides)
    page = make_slides.page(deck, "The book")
    data = [
        output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    pictures = [one["image/png"].replace("\n", "") for one in data if "image/png" in one and "text/html" not in one]
    movable = [one["text/html"] for one in data if make_slides.MOVABLE.search(one.get("text/html", ""))]
    assert all(picture in page for picture in pictures)
    assert movable and all(figure in page for figure in movable)
    assert page.count("<section") == page.count("</section>")
    assert not re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="https?:', page)
