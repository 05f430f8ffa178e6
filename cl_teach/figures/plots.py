"""Figures that stand still: direct labels instead of legends, all seeds drawn.

Each draws into an axes that is given, or into a new one, and returns it; none calls ``plt.show()``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .look import CYCLE, color, ink, known, look_of


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
        look = look_of(title, i)
        marker = look.marker if known(title) else ("o", "s", "^", "D")[i // len(CYCLE) % 4]
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
    for i, title, angle in zip(ids, titles, spread_apart(angles, 0.22), strict=True):
        x, y = math.cos(angle), math.sin(angle)
        side = "left" if x > 0.3 else "right" if x < -0.3 else "center"
        ax.text(1.1 * x, 1.12 * y, title, color=ink(look_of(title, i).color), ha=side, va="center")
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
            color=ink(color(name)),
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
        look = look_of(name, position)
        hue = (colors or {}).get(name, look.color)
        mark = "o" if values.shape[1] == 1 else None
        if len(values) > 1:
            ax.plot(steps, values.T, color=hue, lw=0.8, alpha=0.35, marker=mark)
        ax.plot(steps, values.mean(axis=0), color=hue, ls=look.linestyle, lw=2, marker=mark, zorder=3)
        ends.append((name, hue, float(steps[-1]), float(values.mean(axis=0)[-1])))
    ax.autoscale_view()
    point = ax.figure.dpi / 72  # pixels
    heights = [ax.transData.transform((right, end))[1] / point for _, _, right, end in ends]
    for (name, hue, right, end), height, moved in zip(ends, heights, spread_apart(heights, 14.0), strict=True):
        ax.annotate(
            name,
            (right, end),
            (6, moved - height),
            textcoords="offset points",
            color=ink(hue),
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
        hue, mean, n = look_of(name, position).color, float(values.mean()), len(values)
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
            color=ink(hue),
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


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
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
