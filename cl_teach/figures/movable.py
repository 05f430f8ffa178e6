"""Figures that move without a kernel: a slider over ready-made pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .look import styled

MAX_FRAMES = 12


class Frames:
    """A slider over ready-made pictures: plain HTML that works without a kernel, offline and by keyboard."""

    def __init__(
        self,
        pictures: Sequence[bytes],
        texts: Sequence[str],
        alts: Sequence[str],
        label: str,
        caption: str | None,
        start: int,
        size: tuple[int, int],
    ) -> None:
        self.pictures, self.texts, self.alts = tuple(pictures), tuple(texts), tuple(alts)
        self.label, self.caption, self.start, self.size = label, caption, start, size

    def __repr__(self) -> str:
        """The values, for front ends that show no HTML."""
        return f"Frames({self.label}: {', '.join(self.texts)})"

    def _repr_html_(self) -> str:
        last, first = len(self.pictures) - 1, self.start
        width, height = self.size
        rows = zip(self.pictures, self.texts, self.alts, strict=True)
        images = "".join(
            # `dark-light` tells the book's theme that the picture reads in both: no dimming, no padding.
            f'<img class="dark-light" src="data:image/png;base64,{base64.b64encode(picture).decode()}" '
            f'alt="{html.escape(alt)}" data-value="{html.escape(text)}" width="{width}" height="{height}" '
            f'style="display:{"block" if number == first else "none"};max-width:100%;height:auto;margin:0"'
            f"{'' if number == first else ' hidden'}>"
            for number, (picture, text, alt) in enumerate(rows)
        )
        # No id and no global name: any number of these, in any page. Both `hidden` and `display`, because a
        # page's own style for images may win over `hidden`. `autocomplete=off`: on reload browsers restore
        # the slider only.
        script = (
            "const f=this.closest('figure'),n=+this.value,m=f.querySelectorAll('img');"
            "m.forEach((e,i)=>{e.hidden=i!=n;e.style.display=i==n?'block':'none'});"
            "const t=m[n].dataset.value;this.setAttribute('aria-valuetext',t);"
            "f.querySelector('output').value=t"
        )
        text = html.escape(self.texts[first])
        caption = ""
        if self.caption:
            note = html.escape(self.caption)
            caption = f'<figcaption style="margin-top:.4em;text-align:left">{note}</figcaption>'
        return (
            f'<figure class="cl-frames" style="margin:0;max-width:{width}px">'
            '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0 .75em">'
            '<label style="display:flex;flex:1 1 14em;align-items:center;gap:.75em;margin:0">'
            f"<span>{html.escape(self.label)}</span>"
            f'<input type="range" min="0" max="{last}" step="1" value="{first}" autocomplete="off" '
            f'aria-valuetext="{text}" oninput="{script}" '
            'style="flex:1;min-width:8em;height:32px;margin:0;accent-color:#0072B2;cursor:pointer"></label>'
            f'<output aria-live="off" style="min-width:3.5em">{text}</output></div>'
            f"{images}{caption}</figure>"
        )


def frames(
    draw: Callable[[Any], Figure | Axes],
    values: Sequence[Any],
    *,
    alt: str | Callable[[Any], str],
    label: str = "value",
    caption: str | None = None,
    value_format: str = "{:g}",
    start: int = 0,
) -> Frames:
    """A figure with a slider that moves one thing.

    Put it last in a cell. The pictures are made now, in the book's style, with at most 64 colors each; their
    figures are closed. Without JavaScript and in print the first frame (`start`) shows.

    Args:
        draw: from a value to a figure, or to an axes in it. Every call makes a new figure of the same
            size. Keep the axis limits fixed, so that only what changes moves.
        values: 2 to 12 values, in the order of the slider.
        alt: what one should see: a template with `{value}`, or a function from the value to a sentence.
        label: name of the slider, such as "temperature".
        caption: a sentence under the picture.
        value_format: how a number is written; texts are taken as they are.
        start: index of the frame that shows at first.

    Raises:
        TypeError: draw or alt of the wrong type, draw returns no figure.
        ValueError: too few or too many values, an empty alt or label, alt the same for two frames, start
            out of range, frames of unequal size.
    """
    if not callable(draw):
        raise TypeError(f"draw: expected a function from a value to a figure, got {type(draw).__name__}")
    if not callable(alt) and not isinstance(alt, str):
        raise TypeError(f"alt: expected a text with {{value}} or a function, got {type(alt).__name__}")
    values = [value.item() if isinstance(value, Tensor | np.generic) else value for value in values]
    if not 2 <= len(values) <= MAX_FRAMES:
        raise ValueError(f"values: expected 2 to {MAX_FRAMES}, each a picture in the page, got {len(values)}")
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < len(values):
        raise ValueError(f"start: expected a frame index in 0..{len(values) - 1}, got {start!r}")
    if not label.strip():
        raise ValueError("label: expected a name for the slider, got an empty text")
    texts = [value if isinstance(value, str) else value_format.format(value) for value in values]
    alts = [
        alt(value) if callable(alt) else alt.replace("{value}", text) for value, text in zip(values, texts, strict=True)
    ]
    if not all(isinstance(item, str) and item.strip() for item in alts):
        raise ValueError("alt: expected a sentence for every frame, got an empty one")
    if len(set(alts)) < len(alts):
        raise ValueError("alt: expected a different text for every frame; use {value} in it, or a function")
    pictures, sizes = [], []
    for value in values:
        with styled():
            picture, size = _picture(draw(value))
        pictures.append(picture)
        sizes.append(size)
    if len(set(sizes)) > 1:
        raise ValueError(f"draw: expected figures of one size, or the page jumps, got {sorted(set(sizes))}")
    return Frames(pictures, texts, alts, label, caption, start, sizes[0])


def _picture(drawn: object, colors: int = 64) -> tuple[bytes, tuple[int, int]]:
    """Image file and size in pixels of what `draw` returned; closes the figure."""
    figure = drawn if isinstance(drawn, Figure) else getattr(drawn, "figure", None)
    if not isinstance(figure, Figure):
        raise TypeError(f"draw: expected it to return its figure or axes, got {type(drawn).__name__}")
    raw = io.BytesIO()
    figure.savefig(raw, format="png", pil_kwargs={"compress_level": 0})  # read again at once
    plt.close(figure)
    image = Image.open(raw).convert("RGB")
    small = image.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    # Level 6, the usual one: the highest takes ten times as long for a sixth fewer bytes, and what the book stores is
    # packed more tightly than either.
    small.save(file, format="PNG")
    return file.getvalue(), image.size
