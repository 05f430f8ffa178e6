"""Smaller pictures: fewer bytes, colors that nobody can tell apart, and nothing else changed."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pictures
import pytest
from numpy.typing import NDArray
from pictures import MAKER, MEAN_ERROR, RARE_ERROR, compress, errors, smaller, with_palette
from PIL import Image, ImageDraw

CHAPTERS = sorted((Path(__file__).parents[2] / "chapters").glob("*/*.ipynb"))
LARGEST, ALL = 600_000, 10_500_000  # bytes of one stored chapter, and of all


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture(scope="module")
def figure() -> Image.Image:
    """Soft-edged lines in three colors on white, as a plot has them."""
    large = Image.new("RGBA", (800, 480), "white")
    draw = ImageDraw.Draw(large)
    for i, color in enumerate(["#0072B2", "#D55E00", "#009E73"]):
        draw.line([(0, 80 + 120 * i), (800, 330 - 90 * i)], fill=color, width=24)
    return large.resize((400, 240), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    """What no palette shows: a color of its own for nearly every pixel."""
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_a_figure_gets_a_palette_and_looks_the_same(figure: Image.Image) -> None:
    before = png(figure)
    after = smaller(before)
    moved = errors(figure, opened(after))
    assert opened(after).mode == "P"
    assert opened(after).size == figure.size
    assert len(after) < 0.6 * len(before)
    assert moved.mean() <= MEAN_ERROR
    assert np.quantile(moved, 0.999) <= RARE_ERROR


def test_background_and_full_colors_stay_exactly_as_they_are(figure: Image.Image) -> None:
    small = opened(smaller(png(figure))).convert("RGB")
    colors = {color for _, color in small.getcolors() or []}
    assert {(255, 255, 255), (0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colors


def test_a_second_time_changes_nothing(figure: Image.Image) -> None:
    once = smaller(png(figure))
    assert opened(once).info["Software"] == MAKER
    assert smaller(once) == once


def test_a_picture_of_too_many_colors_keeps_them(noise: NDArray[np.uint8]) -> None:
    after = smaller(png(Image.fromarray(noise)))
    assert np.array_equal(np.asarray(opened(after).convert("RGB")), noise)


def test_few_colors_are_kept_without_an_error() -> None:
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, "L").resize(
        (40, 40), Image.Resampling.NEAREST
    )
    assert errors(image, with_palette(image, 32)).max() == 0


def test_transparency_is_left_alone(figure: Image.Image) -> None:
    figure = figure.copy()
    figure.putalpha(100)
    assert smaller(png(figure)) == png(figure)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="png: expected a PNG file, got 3 bytes"):
        smaller(b"abc")


def test_a_notebook_keeps_everything_but_its_pictures(figure: Image.Image) -> None:
    stored = base64.b64encode(png(figure)).decode()
    outputs = [
        {"data": {"image/png": stored, "text/plain": ["<Figure>"]}},
        {"data": {"text/html": [f'<img src="data:image/png;base64,{stored}" alt="a line">\n', "<p>é</p>"]}},
    ]
    notebook = {"cells": [{"source": ["x = 1\n"], "outputs": outputs}], "nbformat": 4}
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    better = compress(text, jobs=2)
    new = base64.b64encode(smaller(png(figure))).decode()
    assert len(new) < len(stored)
    assert better == text.replace(stored, new)


def test_no_stored_chapter_is_heavy() -> None:
    """What a clone and Colab fetch. If this fails, call ``python tools/execute_chapters.py --compress``."""
    sizes = {path.stem: path.stat().st_size for path in CHAPTERS}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}
    assert sum(sizes.values()) <= ALL


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_stored_picture_was_made_smaller(path: Path) -> None:
    stored = pictures.STORED.findall(path.read_text(encoding="utf-8"))
    assert stored
    assert [i for i, data in enumerate(stored) if opened(base64.b64decode(data)).info.get("Software") != MAKER] == []
