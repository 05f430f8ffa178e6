"""Color, line and marker of everything that is drawn: one palette, one look for one method through the whole book.

How a method of the survey looks stands in its row of ``survey.toml``; here are the palette, and the roles and
baselines that are no methods of the survey.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .. import survey

# Okabe and Ito's palette; its yellow is left out, because on white a yellow line cannot be read.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GRAY = "#767676"  # not of the palette: for what is only there to compare with
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
PALETTE = {
    "black": BLACK,
    "orange": ORANGE,
    "sky": SKY,
    "green": GREEN,
    "blue": BLUE,
    "vermillion": VERMILLION,
    "purple": PURPLE,
}

RC: Any = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same on every machine
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=list(CYCLE)),
    "lines.linewidth": 2.0,
    "image.cmap": "viridis",
}


@dataclass(frozen=True)
class Style:
    """How one method looks: a color, and line and marker that keep equal colors apart."""

    color: str
    linestyle: str = "-"
    marker: str = "o"


ROLES: dict[str, Style] = {
    "NT-Xent": Style(BLUE),
    "SimCLR": Style(BLUE),  # SimCLR's loss is NT-Xent
    "InfoNCE": Style(SKY),
    "MoCo": Style(SKY, "--", "s"),
    "SupCon": Style(GREEN),
    "CLIP": Style(PURPLE),
    "SimSiam": Style(ORANGE),
    "BYOL": Style(VERMILLION),
    "supervised": Style(BLACK),
    "baseline": Style(GRAY),
    "random": Style(GRAY, ":", "x"),
    "PCA": Style(GRAY, "--", "s"),
    "pixels": Style(GRAY, "-.", "^"),
    "anchor": Style(BLACK),
    "positive": Style(BLUE),
    "negative": Style(VERMILLION, "-", "s"),
}
STYLES: dict[str, Style] = ROLES | {
    method.slug: Style(PALETTE[method.look.color], method.look.line, method.look.marker) for method in survey.load()
}
COLORS: dict[str, str] = {name: look.color for name, look in STYLES.items()}


def use_style() -> None:
    """Give all later figures the book's look. Call it once, at the top of a chapter."""
    plt.rcParams.update(RC)


def style(name: str) -> Style:
    """Color, line and marker of a method or role; the same all through the book.

    Upper or lower case, spaces and underscores make no difference: "Feature transformation" is
    "feature-transformation".

    Raises:
        KeyError: unknown name; close ones and all known ones are listed.
    """
    found = known(name)
    if found is None:
        near = difflib.get_close_matches(str(name), STYLES, n=1)
        tip = f"; did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"name: no color for {name!r}{tip} Known are: {', '.join(STYLES)}")
    return found


def color(name: str) -> str:
    """Hex color of a method or role, see `style`.

    Raises:
        KeyError: unknown name; close ones and all known ones are listed.
    """
    return style(name).color


def known(name: str) -> Style | None:
    """The style of a name, None where the book does not know it."""
    return STYLES.get(name) or _FOLDED.get(_fold(name))


def _fold(name: str) -> str:
    return str(name).casefold().replace(" ", "-").replace("_", "-")


_FOLDED = {_fold(name): look for name, look in STYLES.items()}


def look_of(name: str, position: int) -> Style:
    """Style of a known name; for any other, such as "temperature 0.1", the next one of the cycle."""
    found = known(name)
    if found is not None:
        return found
    line = ("-", "--", ":")[position // len(CYCLE) % 3]
    return Style(CYCLE[position % len(CYCLE)], line)


@contextmanager
def styled() -> Iterator[None]:
    """The book's style for a while.

    Not `plt.rc_context`: in a notebook the first figure switches matplotlib to interactive mode, the context
    would take that back at its end, and no later figure would ever be shown.
    """
    before = {key: plt.rcParams[key] for key in RC}
    plt.rcParams.update(RC)
    try:
        yield
    finally:
        plt.rcParams.update(before)


def ink(hue: str) -> str:
    """A color dark enough for text on white: the light ones of the palette have too little contrast."""
    rgb = np.array([int(hue[i : i + 2], 16) for i in (1, 3, 5)]) / 255 if hue.startswith("#") else None
    if rgb is None:
        return hue
    while contrast_with_white(rgb) < 4.5:
        rgb = rgb * 0.94
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def contrast_with_white(rgb: np.ndarray) -> float:
    """Contrast ratio of the Web Content Accessibility Guidelines."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ np.array([0.2126, 0.7152, 0.0722])) + 0.05)
