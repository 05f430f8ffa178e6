"""Color, size and shape of all figures of the book, and figures that move without a kernel.

One palette (Okabe and Ito, made for color-blind readers), one color for one method through the whole book,
direct labels instead of legends, all seeds drawn. Figures keep an opaque white face, so that they read in
dark mode too. The helpers draw into an axes that is given, or into a new one, and return it; none of them
calls `plt.show()`.
"""

from __future__ import annotations

import base64
import difflib
import html
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Okabe and Ito's palette; its yellow is left out, because on white a yellow line cannot be read.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GRAY = "#767676"  # not of the palette: for what is only there to compare with
CYCLE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)

MAX_FRAMES = 12

_RC: Any = {
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


def _styles() -> dict[str, Style]:
    """Name to style; in one part of the book no two names look the same."""
    common = {
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
    parts = (
        "contrastive-loss-behaviour directpred projection-head",
        "dcl cacr isogclr amcl mochi feature-transformation hallucinator groco swav",
        "pixpro scatsimclr adainf genview cdvg customcontrast mcl hydra sepclr",
        "sbcl bacon rcal supremix conr",
        "debcse whitenedcse cvib cocosoda contrastive-search qcrd",
        "improved-vlp cwcl visualness one-to-k more",
        "csgcl meow lightgcl mclrec cold-start clhe",
        "comet point-cmae contrastive-ucb",
        "preference-ft likelihood-displacement sparsepo constrained-rlhf loss-reweighting wagle",
    )
    # Never blue, gray or solid sky: those belong to the baselines that stand beside these methods.
    looks = [Style(hue, "-", "o") for hue in (VERMILLION, GREEN, PURPLE, ORANGE)]
    looks += [Style(hue, "--", "s") for hue in (VERMILLION, GREEN, PURPLE, ORANGE, BLACK)]
    taken = {(style.color, style.linestyle): name for name, style in common.items()}
    methods: dict[str, Style] = {}
    for part in parts:
        slugs = part.split()
        # Labels meet SupCon and crossmodal methods meet CLIP: their solid line stays theirs there.
        host = {"sbcl": "SupCon", "improved-vlp": "CLIP"}.get(slugs[0])
        free = [look for look in looks if taken.get((look.color, look.linestyle)) != host or host is None]
        methods.update(zip(slugs, free, strict=False))
    return common | methods


STYLES: dict[str, Style] = _styles()
COLORS: dict[str, str] = {name: look.color for name, look in STYLES.items()}


def use_style() -> None:
    """Give all later figures the book's look. Call it once, at the top of a chapter."""
    plt.rcParams.update(_RC)


def style(name: str) -> Style:
    """Color, line and marker of a method or role; the same all through the book.

    Upper or lower case, spaces and underscores make no difference: "Feature transformation" is
    "feature-transformation".

    Raises:
        KeyError: unknown name; close ones and all known ones are listed.
    """
    found = _known(name)
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


def _known(name: str) -> Style | None:
    return STYLES.get(name) or _FOLDED.get(_fold(name))


def _fold(name: str) -> str:
    return str(name).casefold().replace(" ", "-").replace("_", "-")


_FOLDED = {_fold(name): look for name, look in STYLES.items()}


def _look(name: str, position: int) -> Style:
    """Style of a known name; for any other, such as "temperature 0.1", the next one of the cycle."""
    known = _known(name)
    if known is not None:
        return known
    line = ("-", "--", ":")[position // len(CYCLE) % 3]
    return Style(CYCLE[position % len(CYCLE)], line)


# ----------------------------------------------------------------------------------------------------
# Figures that move


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
        with _styled():
            picture, size = _picture(draw(value))
        pictures.append(picture)
        sizes.append(size)
    if len(set(sizes)) > 1:
        raise ValueError(f"draw: expected figures of one size, or the page jumps, got {sorted(set(sizes))}")
    return Frames(pictures, texts, alts, label, caption, start, sizes[0])


@contextmanager
def _styled() -> Iterator[None]:
    """The book's style for a while.

    Not `plt.rc_context`: in a notebook the first figure switches matplotlib to interactive mode, the context
    would take that back at its end, and no later figure would ever be shown.
    """
    before = {key: plt.rcParams[key] for key in _RC}
    plt.rcParams.update(_RC)
    try:
        yield
    finally:
        plt.rcParams.update(before)


def _picture(drawn: object) -> tuple[bytes, tuple[int, int]]:
    """Image file and size in pixels of what `draw` returned; closes the figure."""
    figure = drawn if isinstance(drawn, Figure) else getattr(drawn, "figure", None)
    if not isinstance(figure, Figure):
        raise TypeError(f"draw: expected it to return its figure or axes, got {type(drawn).__name__}")
    raw = io.BytesIO()
    figure.savefig(raw, format="png", metadata={"Software": None})
    plt.close(figure)
    image = Image.open(raw).convert("RGB")
    small = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, format="PNG", optimize=True)
    return file.getvalue(), image.size


# ----------------------------------------------------------------------------------------------------
# Figures that stand still


def circle(
    z: Tensor,
    labels: Tensor | None = None,
    ax: Axes | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Two-dimensional embeddings, normalized, on the unit circle, with direct labels.

    Args:
        z: (n, 2) embeddings; a zero vector has no direction and is refused.
        labels: (n,) integers. Points of one label share a color, and the label's name stands at their
            mean direction.
        ax: axes to draw into.
        names: with labels, the name of label 0, 1, ...; without labels, the name of every point. Names
            that the book knows ("anchor", "positive", "CLIP", ...) bring their color.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: z, labels or names do not fit.
    """
    points = _array("z", z, ndim=2)
    if points.shape[1] != 2:
        raise ValueError(f"z: expected shape (n, 2), got {points.shape}")
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if (length == 0).any():
        raise ValueError("z: expected vectors with a direction, got a zero vector")
    points = points / length
    if labels is None:
        every = np.arange(len(points))
        groups = [every] if names is None else list(every[:, None])
        titles = [""] if names is None else list(names)
        ids = list(range(len(groups)))
    else:
        label = _array("labels", labels, ndim=1)
        if len(label) != len(points) or (label != label.round()).any() or (label < 0).any():
            raise ValueError(f"labels: expected an integer >= 0 for each of {len(points)} points")
        ids = [int(i) for i in np.unique(label)]
        groups = [np.flatnonzero(label == i) for i in ids]
        titles = [str(i) for i in ids] if names is None else list(names)
        if names is not None and len(titles) > max(ids):
            titles = [titles[i] for i in ids]
    if len(titles) != len(groups):
        raise ValueError(f"names: expected one name a label (or a point), {len(groups)}, got {len(titles)}")
    ax = _axes(ax, figsize=(5.2, 3.8))
    turn = np.linspace(0, 2 * np.pi, 181)
    ax.plot(np.cos(turn), np.sin(turn), color="#B0B0B0", lw=1, zorder=1)
    angles = []
    for i, title, group in zip(ids, titles, groups, strict=True):
        look = _look(title, i)
        marker = look.marker if _known(title) else ("o", "s", "^", "D")[i // len(CYCLE) % 4]
        ax.scatter(
            points[group, 0],
            points[group, 1],
            s=36,
            color=look.color,
            marker=marker,
            alpha=0.8,
            lw=0,
            zorder=3,
        )
        mean = points[group].mean(axis=0)
        if np.linalg.norm(mean) < 1e-6:  # opposite points have no mean direction
            mean = points[group[0]]
        angles.append(math.atan2(mean[1], mean[0]))
    for i, title, angle in zip(ids, titles, _spread(angles, 0.22), strict=True):
        x, y = math.cos(angle), math.sin(angle)
        side = "left" if x > 0.3 else "right" if x < -0.3 else "center"
        ax.text(1.1 * x, 1.12 * y, title, color=_ink(_look(title, i).color), ha=side, va="center")
    # Room for labels inside the axes: in a movable figure the circle must not shift with them.
    ax.set(xlim=(-1.75, 1.75), ylim=(-1.25, 1.25), aspect="equal")
    ax.axis("off")
    return ax


def similarity_histogram(positive: Tensor, negative: Tensor, ax: Axes | None = None) -> Axes:
    """Densities of the similarities of positive and of negative pairs, with both means marked.

    Args:
        positive: similarities of positive pairs, any shape.
        negative: similarities of negative pairs, any shape.
        ax: axes to draw into.

    Returns:
        The axes. Cosines get the limits -1 to 1, other scores those of the data.

    Raises:
        TypeError, ValueError: no tensors, empty, not finite.
    """
    pairs = {"positive": positive, "negative": negative}
    parts = {name: _array(name, values).ravel() for name, values in pairs.items()}
    low, high = min(part.min() for part in parts.values()), max(part.max() for part in parts.values())
    if low >= -1 - 1e-4 and high <= 1 + 1e-4:
        low, high = -1.0, 1.0
    elif low == high:
        low, high = low - 0.5, high + 0.5
    ax = _axes(ax)
    bins = np.linspace(low, high, 51).tolist()
    for row, (name, part) in enumerate(parts.items()):
        mean = float(part.mean())
        inside = part.clip(low, high)  # rounding: a cosine of 1.0000001 counts as 1
        ax.hist(inside, bins, density=True, color=color(name), alpha=0.35, zorder=2)
        ax.hist(inside, bins, density=True, color=color(name), histtype="step", lw=1.5, zorder=3)
        ax.axvline(mean, color=color(name), ls="--", lw=1.5, zorder=4)
        right = mean > (low + high) / 2
        ax.annotate(
            f"{name}, mean {mean:.2f}",
            xy=(mean, 0.97 - 0.11 * row),
            xycoords=ax.get_xaxis_transform(),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            color=_ink(color(name)),
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1},
            zorder=5,
        )
    ax.set(xlim=(low, high), ylim=(0, 1.3 * ax.get_ylim()[1]), xlabel="similarity", ylabel="density")
    return ax


def curves(
    series: Mapping[str, Tensor],
    ax: Axes | None = None,
    x: Tensor | Sequence[float] | None = None,
    *,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """All seeds as thin lines and their mean as a thick one, with the name at the line's end.

    Set a logarithmic scale on `ax` before, not after: the names are spread in the scale that they find.

    Args:
        series: name to (seeds, steps) or (steps,) values. Names that the book knows bring their color.
        ax: axes to draw into.
        x: (steps,) positions, common to all; 1, 2, ... otherwise.
        colors: name to color, for names that the book does not know.

    Returns:
        The axes.

    Raises:
        TypeError, ValueError: no series, wrong shapes, not finite, x of the wrong length.
    """
    if not isinstance(series, Mapping) or not series:
        raise ValueError("series: expected a dictionary of name to (seeds, steps) values, got none")
    lines = {name: np.atleast_2d(_array(f"series[{name!r}]", values)) for name, values in series.items()}
    for name, values in lines.items():
        if values.ndim != 2:
            raise ValueError(f"series[{name!r}]: expected shape (seeds, steps), got {values.shape}")
    given = None if x is None else _array("x", x, ndim=1)
    ax = _axes(ax)
    ends = []
    for position, (name, values) in enumerate(lines.items()):
        steps = np.arange(1, values.shape[1] + 1) if given is None else given
        if len(steps) != values.shape[1]:
            raise ValueError(f"x: expected {values.shape[1]} positions as in {name!r}, got {len(steps)}")
        look = _look(name, position)
        hue = (colors or {}).get(name, look.color)
        mark = "o" if values.shape[1] == 1 else None
        if len(values) > 1:
            ax.plot(steps, values.T, color=hue, lw=0.8, alpha=0.35, marker=mark)
        ax.plot(steps, values.mean(axis=0), color=hue, ls=look.linestyle, lw=2, marker=mark, zorder=3)
        ends.append((name, hue, float(steps[-1]), float(values.mean(axis=0)[-1])))
    ax.autoscale_view()
    point = ax.figure.dpi / 72  # pixels
    heights = [ax.transData.transform((right, end))[1] / point for _, _, right, end in ends]
    for (name, hue, right, end), height, moved in zip(ends, heights, _spread(heights, 14.0), strict=True):
        ax.annotate(
            name,
            (right, end),
            (6, moved - height),
            textcoords="offset points",
            color=_ink(hue),
            va="center",
            annotation_clip=False,
        )
    return ax


def intervals(
    rows: Mapping[str, Tensor],
    ax: Axes | None = None,
    *,
    confidence: float = 0.95,
    number_format: str = "{:.3g}",
) -> Axes:
    """One row a method: every seed as a dot, the mean with its t-interval beside it.

    Args:
        rows: name to (seeds,) values. One seed gets a dot and no interval.
        ax: axes to draw into.
        confidence: of the interval, Student's t over seeds.
        number_format: how the mean is written.

    Returns:
        The axes, first row on top.

    Raises:
        TypeError, ValueError: no rows, wrong shapes, not finite, confidence outside (0, 1).
    """
    from scipy import stats

    if not isinstance(rows, Mapping) or not rows:
        raise ValueError("rows: expected a dictionary of name to (seeds,) values, got none")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    dots = {name: _array(f"rows[{name!r}]", values, ndim=1) for name, values in rows.items()}
    ax = _axes(ax, figsize=(6.4, 1.3 + 0.55 * len(dots)))
    for position, (name, values) in enumerate(dots.items()):
        hue, mean, n = _look(name, position).color, float(values.mean()), len(values)
        ax.scatter(values, np.full(n, position + 0.18), s=22, color=hue, alpha=0.5, lw=0)
        if n > 1:
            half = stats.t.ppf((1 + confidence) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
            ax.plot([mean - half, mean + half], [position - 0.1] * 2, color=hue, lw=3, solid_capstyle="butt")
        ax.plot([mean], [position - 0.1], "o", color=hue, ms=8, mec="white")
        ax.annotate(
            number_format.format(mean),
            (mean, position - 0.1),
            (0, 7),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=11,
            color=_ink(hue),
        )
    ax.set_yticks(range(len(dots)), list(dots))
    ax.set_ylim(len(dots) - 0.5, -0.75)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="#E0E0E0", lw=0.8)
    ax.set_axisbelow(True)
    ax.margins(x=0.08)
    return ax


def image_grid(images: Tensor, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """Small images side by side, unsmoothed, without axes.

    Args:
        images: (n, 1, h, w), (n, 3, h, w) or (n, h, w), floating in [0, 1] or uint8.
        titles: one a picture.
        columns: pictures in a row.

    Returns:
        The figure.

    Raises:
        TypeError, ValueError: wrong shape or range, number of titles, columns < 1.
    """
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns: expected an integer of at least 1, got {columns!r}")
    whole = isinstance(images, Tensor) and images.dtype == torch.uint8
    pixels = _array("images", images) / (255 if whole else 1)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"images: expected (n, 1 or 3, h, w) or (n, h, w), got {tuple(images.shape)}")
    if pixels.min() < -1e-6 or pixels.max() > 1 + 1e-6:
        raise ValueError(
            f"images: expected values in [0, 1], got [{pixels.min():.3g}, {pixels.max():.3g}]; use .clamp(0, 1)"
        )
    n = len(pixels)
    if titles is not None and len(titles) != n:
        raise ValueError(f"titles: expected one a picture, {n}, got {len(titles)}")
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    side = 6.4 / max(columns, 4)
    height = rows * (side * pixels.shape[2] / pixels.shape[3] + (0.3 if titles else 0.04))
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, height), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for number, picture in enumerate(pixels):
        ax = axes.flat[number]
        ax.imshow(picture.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if titles is not None:
            ax.set_title(titles[number], fontsize=11, loc="center", pad=3)
    return figure


def _axes(ax: Axes | None, figsize: tuple[float, float] | None = None) -> Axes:
    if ax is None:
        return plt.subplots(figsize=figsize)[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib axes, got {type(ax).__name__}")
    return ax


def _array(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """Values as a finite, non-empty float array on the CPU."""
    try:
        plain = values.detach().double().cpu() if isinstance(values, Tensor) else values
        array = np.asarray(plain, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected a tensor of numbers, got {type(values).__name__}") from error
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, at least one, got shape {array.shape}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimension{'s' * (ndim > 1)}, got shape {array.shape}")
    return array


def _ink(hue: str) -> str:
    """A color dark enough for text on white: the light ones of the palette have too little contrast."""
    rgb = np.array([int(hue[i : i + 2], 16) for i in (1, 3, 5)]) / 255 if hue.startswith("#") else None
    if rgb is None:
        return hue
    while _contrast_with_white(rgb) < 4.5:
        rgb = rgb * 0.94
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def _contrast_with_white(rgb: np.ndarray) -> float:
    """Contrast ratio of the Web Content Accessibility Guidelines."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 1.05 / (float(linear @ np.array([0.2126, 0.7152, 0.0722])) + 0.05)


def _spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions at least `gap` apart, in the same order, each group centered where it was."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    groups: list[list[float]] = []  # [mean of the wanted positions, how many]
    for i in order:
        groups.append([positions[i], 1])
        while len(groups) > 1:
            (low, m), (high, n) = groups[-2], groups[-1]
            if high - low >= gap * (m + n) / 2 - 1e-9:
                break
            groups[-2:] = [[(low * m + high * n) / (m + n), m + n]]
    spread = [0.0] * len(positions)
    places = iter(order)
    for middle, count in groups:
        for k in range(int(count)):
            spread[next(places)] = middle + gap * (k - (count - 1) / 2)
    return spread
