"""Text whose words have a background by a value: plain HTML that reads without colors, too."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .look import ORANGE
from .movable import MAX_FRAMES

STRONGEST = 0.5  # opacity of the background at the highest value: black on it, and white in the dark, both read well

__all__ = ["Highlighted", "Passage", "highlight"]


class Passage(NamedTuple):
    """Words of a text with a number each; None for words that have none, such as a prompt's."""

    name: str
    words: Sequence[str]
    values: Sequence[float | None]


class Highlighted:
    """One text or several with a slider between them; HTML that works without a kernel, offline and by keyboard.

    Words are words on the page: they can be selected, read aloud and searched. A value shows twice, as the depth of the
    background and as the thickness of a line under the word, and once more as a number in a fold.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        alts: Sequence[str],
        label: str,
        quantity: str,
        caption: str | None,
        start: int,
        limits: tuple[float, float],
        hue: str,
    ) -> None:
        self.passages, self.alts = tuple(passages), tuple(alts)
        self.label, self.quantity, self.caption, self.start = label, quantity, caption, start
        self.limits, self.hue = limits, hue

    def __repr__(self) -> str:
        """What a screen reader says of the first text, for front ends that show no HTML."""
        return f"Highlighted({self.alts[self.start]})"

    def _repr_html_(self) -> str:
        slider, last = "", len(self.passages) - 1
        if last:
            # As in `Frames`: no id and no global name, `hidden` and `display` both.
            script = (
                "const f=this.closest('figure'),n=+this.value,m=f.querySelectorAll('[data-value]');"
                "m.forEach((e,i)=>{e.hidden=i!=n;e.style.display=i==n?'block':'none'});"
                "const t=m[n].dataset.value;this.setAttribute('aria-valuetext',t);"
                "f.querySelector('output').value=t"
            )
            text = html.escape(self.passages[self.start].name)
            slider = (
                '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:0 .75em">'
                '<label style="display:flex;flex:1 1 14em;align-items:center;gap:.75em;margin:0">'
                f"<span>{html.escape(self.label)}</span>"
                f'<input type="range" min="0" max="{last}" step="1" value="{self.start}" autocomplete="off" '
                f'aria-valuetext="{text}" oninput="{script}" '
                'style="flex:1;min-width:8em;height:32px;margin:0;accent-color:#0072B2;cursor:pointer"></label>'
                f'<output aria-live="off" style="min-width:3.5em">{text}</output></div>'
            )
        texts = "".join(self._passage(i) for i in range(len(self.passages)))
        note = f'<figcaption style="margin-top:.4em">{html.escape(self.caption)}</figcaption>' if self.caption else ""
        return (
            '<figure class="cl-highlight" style="margin:0;max-width:44em;text-align:left;color:inherit">'
            f"{slider}{texts}{note}</figure>"
        )

    def _passage(self, number: int) -> str:
        passage, shown = self.passages[number], number == self.start
        words = " ".join(map(self._word, passage.words, passage.values))
        rows = "; ".join(
            f"{html.escape(word)} {value:.2f}"
            for word, value in zip(passage.words, passage.values, strict=True)
            if value is not None
        )
        return (
            f'<div role="group" aria-label="{html.escape(self.alts[number])}" data-value="{html.escape(passage.name)}" '
            f'style="display:{"block" if shown else "none"}"{"" if shown else " hidden"}>'
            f'<p style="line-height:2.1;margin:.4em 0">{words}</p>'
            f'<details style="font-size:.9em"><summary>{html.escape(self.quantity)} of every word, as numbers</summary>'
            f"<p>{rows}</p></details></div>"
        )

    def _word(self, word: str, value: float | None) -> str:
        if value is None:
            return f'<span style="opacity:.75">{html.escape(word)}</span>'
        low, high = self.limits
        part = min(1.0, max(0.0, (value - low) / (high - low)))
        red, green, blue = (int(self.hue[i : i + 2], 16) for i in (1, 3, 5))
        return (
            f'<span style="background:rgba({red},{green},{blue},{STRONGEST * part:.2f});'
            f"border-bottom:{3 * part:.1f}px solid {self.hue};padding:.1em .15em;border-radius:.2em;color:inherit"
            f'">{html.escape(word)}</span>'
        )


def highlight(
    passages: Sequence[Passage],
    *,
    alt: str | Callable[[Passage], str],
    low: float = 0.0,
    high: float = 1.0,
    hue: str = ORANGE,
    label: str = "text",
    quantity: str = "value",
    caption: str | None = None,
    start: int = 0,
) -> Highlighted:
    """Give the words of a text a background by a value; with several texts a slider goes from one to the next.

    Put it last in a cell.

    Args:
        passages: 1 to 12 texts.
        alt: what one should notice: a template with `{name}`, or a function from the passage to a sentence.
        low: value without a background.
        high: value with the deepest one.
        hue: hex color of the deepest one.
        label: name of the slider.
        quantity: what the values are, in words.
        caption: a sentence under the text.
        start: index of the text that shows at first, and without JavaScript or in print.

    Raises:
        ValueError: no passage or more than 12, a passage without words or with another number of values, an alt that
            is empty or the same for two passages.
    """
    if not 1 <= len(passages) <= MAX_FRAMES:
        raise ValueError(f"passages: expected 1 to {MAX_FRAMES}, got {len(passages)}")
    for passage in passages:
        if not passage.words or len(passage.words) != len(passage.values):
            raise ValueError(
                f"passages: expected a value for every word of {passage.name!r}, got {len(passage.values)} for "
                f"{len(passage.words)}"
            )
        if any(value is not None and not math.isfinite(value) for value in passage.values):
            raise ValueError(f"passages: expected finite values or None in {passage.name!r}")
    if not low < high:
        raise ValueError(f"low, high: expected low < high, got {low:g} and {high:g}")
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < len(passages):
        raise ValueError(f"start: expected a passage index in 0..{len(passages) - 1}, got {start!r}")
    alts = [alt(passage) if callable(alt) else alt.replace("{name}", passage.name) for passage in passages]
    if not all(text.strip() for text in alts) or len(set(alts)) < len(alts):
        raise ValueError("alt: expected a sentence for every passage, each different; use {name} in it, or a function")
    return Highlighted(passages, alts, label, quantity, caption, start, (low, high), hue)
