"""Slides of one chapter in a browser that may not leave this machine: they open, turn, move, and fit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_slides
import nbformat
import pytest

CHAPTER = "1_foundations/01_learning_by_comparison"
NOW = "() => { const at = Reveal.getIndices(); return [at.h, at.v] }"


@pytest.fixture(scope="module", params=["folder", "alone"])
def slides(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The slides of a chapter, opened from disk: beside their assets, or as one file by itself."""
    folder: Path = tmp_path_factory.mktemp("slides")
    alone = request.param == "alone"
    if not alone:
        (folder / "assets").mkdir()
        for name, origin in make_slides.ASSETS.items():
            shutil.copyfile(origin, folder / "assets" / name)
    deck = make_slides.cut(nbformat.read(make_slides.ROOT / "chapters" / f"{CHAPTER}.ipynb", as_version=4))
    (folder / "x.html").write_text(make_slides.page(deck, "The book", alone), encoding="utf-8")
    page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    page.wrong, page.outside = [], []
    page.on("console", lambda m: page.wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("requestfailed", lambda request: page.wrong.append(request.url))
    page.on(
        "request", lambda r: page.outside.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None
    )
    page.goto((folder / "x.html").as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    page.deck = deck
    yield page
    page.context.close()


def show(page: Any, selector: str) -> None:
    """Turn to the first slide that holds something."""
    page.evaluate(
        "selector => { const slide = document.querySelector(selector).closest('section');"
        " const at = Reveal.getIndices(slide); Reveal.slide(at.h, at.v); }",
        selector,
    )


def test_they_open_without_errors_and_ask_for_nothing_outside(slides: Any) -> None:
    assert slides.wrong == [] and slides.outside == []
    assert slides.evaluate("() => Reveal.getTotalSlides()") == len(slides.deck.slides)


def test_formulas_are_typeset(slides: Any) -> None:
    assert slides.locator("mjx-container").count() > 30
    assert not re.search(r"\\\(", slides.evaluate("() => document.querySelector('.slides').textContent"))


def test_keys_turn_slides(slides: Any) -> None:
    slides.evaluate("() => Reveal.slide(0, 0)")
    slides.keyboard.press("Space")
    assert slides.evaluate(NOW) == [0, 1]
    slides.keyboard.press("Shift+Space")
    assert slides.evaluate(NOW) == [0, 0]
    slides.keyboard.press("ArrowRight")
    assert slides.evaluate(NOW)[0] == 1


def test_a_slider_moves_its_figure_and_not_the_slide(slides: Any) -> None:
    show(slides, ".cl-frames")
    at = slides.evaluate(NOW)
    slider = slides.locator("section.present:not(.stack) .cl-frames input").first
    shown = "() => document.querySelector('section.present:not(.stack) .cl-frames img:not([hidden])').dataset.value"
    before = slides.evaluate(shown)
    slider.focus()
    slides.keyboard.press("ArrowLeft")
    assert slides.evaluate(shown) != before and slides.evaluate(NOW) == at
    slides.keyboard.press("Escape")  # leaves the figure, and does not open the overview
    assert not slides.evaluate("() => Reveal.isOverview()")
    slides.keyboard.press("PageUp")
    assert slides.evaluate(NOW) != at


def test_a_playground_takes_its_keys(slides: Any) -> None:
    show(slides, ".cl-play[data-play=circle]")
    at = slides.evaluate(NOW)
    handle = slides.locator(".cl-play[data-play=circle] [role=slider]").first
    before = handle.get_attribute("aria-valuenow")
    handle.focus()
    slides.keyboard.press("ArrowRight")
    assert handle.get_attribute("aria-valuenow") != before and slides.evaluate(NOW) == at
    slides.keyboard.press("Escape")


def test_no_slide_is_cut_off(slides: Any) -> None:
    found = slides.eval_on_selector_all("section[data-fit]", "all => all.map(s => s.dataset.fit)")
    assert len(found) == len(slides.deck.slides)
    assert sum(fit == "scroll" for fit in found) <= 1
    assert slides.locator("section[data-wide=yes]").count() == 0
    assert sum(fit == "1.00" for fit in found) >= 0.85 * len(found)
