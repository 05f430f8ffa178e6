"""Figures that compute: a playground in the page, in plain JavaScript, without a kernel, a server or a network.

Every playground is one file in ``play/``: its mathematics, which the tests compare with `cl_teach`, and its drawing.
``play/engine.js`` holds what they share. Where no script may run (on GitHub, on paper) a still picture of the first
state stands in, with a text that says what it shows.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files
from typing import Any

from ..core.checks import check_choice
from .look import styled
from .movable import _picture
from .play_states import STATES, First

try:
    from rjsmin import jsmin
except ImportError:  # in Colab, which installs the package alone: the same scripts as they were written, 5 KB more
    jsmin = str

PLAYGROUNDS = tuple(STATES)
WIDTH = 860  # pixels of the whole, picture beside controls


class Playground:
    """A figure to play with: HTML that holds its scripts, its first state, a still picture and a text."""

    def __init__(self, name: str, first: First, caption: str | None) -> None:
        self.name, self.state, self.alt, self.caption = name, first.state, first.alt, caption
        with styled():
            self.picture, self.size = _picture(first.draw(), colors=16)

    def __repr__(self) -> str:
        """For front ends that show no HTML: what is to be seen."""
        return f"Playground({self.name}: {self.alt})"

    def _repr_html_(self) -> str:
        width, height = self.size
        # One line in an attribute, not a script of its own: some front ends drop scripts that are no JavaScript.
        state = json.dumps(self.state, separators=(",", ":"), ensure_ascii=False)
        for mark, entity in (("&", "&amp;"), ("'", "&#39;"), ("<", "&lt;")):
            state = state.replace(mark, entity)
        note = html.escape(self.caption or "")
        caption = f'<figcaption style="margin-top:.4em;text-align:left">{note}</figcaption>' if note else ""
        return (
            f'<figure class="cl-play" data-play="{self.name}" data-state=\'{state}\' '
            f'style="margin:0;max-width:{WIDTH}px">'
            f'<img class="dark-light" src="data:image/png;base64,{base64.b64encode(self.picture).decode()}" '
            f'alt="{html.escape(self.alt)}" width="{width}" height="{height}" '
            'style="max-width:100%;height:auto;margin:0">'
            f"{caption}<script>{scripts(self.name)}</script></figure>"
        )


def play(name: str, *, caption: str | None = None, **state: Any) -> Playground:
    """A playground: the reader drags, clicks and pulls, and the page computes at once.

    Put it last in a cell. It works without a kernel, by mouse, finger and keyboard, in the dark and in print.

    Args:
        name: ``"circle"``, ``"game"``, ``"masks"``, ``"phase"``, ``"modes"``, ``"balance"``, ``"sorting"`` or
            ``"preferences"``.
        caption: a sentence under it.
        **state: how it begins, see the function of that name in `cl_teach.figures.play_states`.

    Example:
        >>> import torch
        >>> play("sorting", values=torch.tensor([0.3, 0.1]), steepness=1000.0)
        Playground(sorting: A sorting network for 2 numbers at steepness 1000: 0.30, 0.10 become 0.10, 0.30.)
    """
    check_choice(PLAYGROUNDS, name=name)
    return Playground(name, STATES[name](**state), caption)


def scripts(name: str) -> str:
    """Engine, look and one playground as one text, without comments and spaces; it wakes the figure.

    Every figure brings the engine, so that a cell works alone (Colab shows each in a frame of its own).
    """
    folder = files("cl_teach.figures") / "play"
    look = re.sub(r"/\*.*?\*/|\n", "", (folder / "look.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    engine, own = (jsmin((folder / f"{file}.js").read_text(encoding="utf-8")) for file in ("engine", name))
    return f"{engine}\nclPlay.look={json.dumps(look)};\n{own}\nclPlay.wake();"
