"""How each playground begins: its state as plain numbers, a still picture, and a text that says what it shows.

The numbers in the text come from `cl_teach`; the page computes them again in JavaScript.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
)
from .look import BLUE, CYCLE, GRAY, VERMILLION, ink

COLORS = (*CYCLE, GRAY)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PAIR_LOSSES = ("InfoNCE", "DCL", "without negatives")
PUSHES = ("DPO", "IPO", "likelihood", "on-policy")


class First(NamedTuple):
    """The first state: what JavaScript gets, what one should see in words, and a function that draws it."""

    state: dict[str, Any]
    alt: str
    draw: Callable[[], Figure]


def circle(
    angles: Tensor,
    *,
    temperature: float = 0.5,
    loss: str = "InfoNCE",
    names: Sequence[str] | None = None,
    chosen: int | None = 0,
    pictures: Tensor | None = None,
) -> First:
    """Points on a circle; point i and point i + n/2 belong together, and every point looks for its partner.

    Args:
        angles: ``(n,)`` in radians, first views before second views, n even.
        temperature: greater than 0.
        loss: ``"InfoNCE"`` (every point an anchor, all others candidates: NT-Xent), ``"DCL"`` or
            ``"without negatives"``.
        names: of the n/2 pairs; letters if None.
        chosen: the point whose shares are drawn as lines, or None.
        pictures: ``(n, h, w)`` in [0, 1], shown beside the points.
    """
    check_shapes(angles=(angles, "n"), pictures=(pictures, "n h w?"))
    check_positive(temperature=temperature)
    check_choice(PAIR_LOSSES, loss=loss)
    n = len(angles)
    if n % 2 or n < 4:
        raise ValueError(f"angles: expected at least two pairs, first views before second views, got {n} points")
    if pictures is not None and len(pictures) != n:
        raise ValueError(f"pictures: expected one a point, {n}, got {len(pictures)}")
    names = _names("names", names, n // 2)
    if chosen is not None:
        check_count(0, n - 1, chosen=chosen)
    angles = angles.detach().double().cpu()
    value = pair_loss(angles, temperature, loss).item()
    alt = (
        f"{n // 2} pairs of points on a circle, the two of a pair in one color. {loss} at temperature {temperature:g} "
        f"is {value:.2f}; with all points in one place it would be {_collapsed(n, temperature, loss):.2f}."
    )

    def draw() -> Figure:
        figure, ax = plt.subplots(figsize=(3.4, 3.4))
        turn = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(turn), np.sin(turn), color="#C8C8C8", lw=1)
        for i, angle in enumerate(angles.tolist()):
            hue = COLORS[i % (n // 2) % len(COLORS)]
            x, y = math.cos(angle), math.sin(angle)
            ax.plot(x, y, "o", color=hue if i < n // 2 else "white", mec=hue, mew=2, ms=15 if pictures is None else 7)
            if pictures is not None:
                far = 0.71 if i < n // 2 else 1.29  # first views inside
                box = (far * x - 0.14, far * x + 0.14, far * y - 0.14, far * y + 0.14)
                ax.imshow(pictures[i].cpu(), cmap="gray", extent=box, vmin=0, vmax=1)
            else:
                tint = "white" if i < n // 2 else "black"
                ax.text(x, y, names[i % (n // 2)], color=tint, ha="center", va="center", fontsize=9, weight="bold")
        _bare(ax, 1.45 if pictures is not None else 1.15)
        return figure

    state = {"angles": _plain(angles), "temperature": temperature, "loss": loss, "names": names, "chosen": chosen}
    return First(state | ({} if pictures is None else {"pictures": _strip(pictures)}), alt, draw)


def pair_loss(angles: Tensor, temperature: float, loss: str) -> Tensor:
    """The circle's loss from `cl_teach`; "without negatives" is the attraction alone, minus cosine / temperature."""
    from ..core.contrast import nt_xent
    from ..losses.dcl import dcl, decoupled_terms

    first, second = torch.stack([angles.cos(), angles.sin()], 1).chunk(2)
    if loss == "without negatives":
        return -decoupled_terms(first, second, temperature).positive.mean()
    return (nt_xent if loss == "InfoNCE" else dcl)(first, second, temperature)


def _collapsed(n: int, temperature: float, loss: str) -> float:
    return {"InfoNCE": math.log(n - 1), "DCL": math.log(n - 2), "without negatives": -1 / temperature}[loss]


def game(pictures: Tensor, pairs: Tensor, players: Mapping[str, Tensor]) -> First:
    """Which two belong together? Rounds of a few pictures, and players to compare with.

    Args:
        pictures: ``(rounds, k, h, w)`` in [0, 1], k from 3 to 8.
        pairs: ``(rounds, 2)`` integers, the two of each round that belong together.
        players: name to ``(rounds, k, k)`` similarities; a player chooses the most similar two.
    """
    check_shapes(pictures=(pictures, "rounds k h w"), pairs=(pairs, "rounds 2", int))
    rounds, k = pictures.shape[:2]
    check_count(3, 8, **{"pictures.shape[1]": k})
    pairs = check_labels(pairs.flatten(), name="pairs", num_classes=k).view(rounds, 2)
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("pairs: expected two different pictures in every round")
    tables = {}
    for name, table in players.items():
        check_shapes(**{"pictures": (pictures, "rounds k h w"), f"players[{name!r}]": (table, "rounds k k")})
        squares = table.detach().cpu().tolist()
        tables[name] = [[[round(v, 3) for v in row[i + 1 :]] for i, row in enumerate(square)] for square in squares]
    alt = (
        f"The first of {rounds} rounds: {k} small pictures, A to {LETTERS[k - 1]}; two of them are pieces of one "
        f"garment. Guessing is right once in {k * (k - 1) // 2}."
    )

    def draw() -> Figure:
        figure, axes = plt.subplots(1, k, figsize=(0.9 * k, 1.3))
        for ax, picture, letter in zip(axes, pictures[0].cpu(), LETTERS, strict=False):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set_title(letter, loc="center", fontsize=11)
            ax.axis("off")
        return figure

    strip = _strip(pictures.flatten(0, 1))
    return First({"pictures": strip, "size": k, "pairs": pairs.tolist(), "players": tables}, alt, draw)


def masks(
    similarities: Tensor,
    labels: Tensor,
    positives: Tensor,
    candidates: Tensor | None = None,
    *,
    temperature: float = 0.5,
    names: Sequence[str] | None = None,
    pictures: Tensor | None = None,
) -> First:
    """A table of similarities whose cells the reader makes positives, candidates or nothing.

    Args:
        similarities: ``(n, n)``, rows are anchors; first views before second views, n even.
        labels: ``(n,)`` integers, for SupCon.
        positives: ``(n, n)`` boolean, how it begins.
        candidates: ``(n, n)`` boolean, None means none but the positives.
        temperature: greater than 0.
        names: of the n rows; letters if None.
        pictures: ``(n, h, w)`` in [0, 1], beside rows and above columns.
    """
    from ..core.contrast import softmax_contrast

    check_shapes(
        similarities=(similarities, "n n"),
        labels=(labels, "n", int),
        positives=(positives, "n n", bool),
        candidates=(candidates, "n n?", bool),
        pictures=(pictures, "n h w?"),
    )
    check_positive(temperature=temperature)
    labels, n = check_labels(labels, len(similarities)), len(similarities)
    if n % 2:
        raise ValueError(f"similarities: expected first views before second views, an even number, got {n}")
    candidates = positives.clone() if candidates is None else candidates | positives
    names = _names("names", names, n)
    cells = candidates.int() + positives.int()  # 0 nothing, 1 candidate, 2 positive
    asking = positives.any(1)
    alt = f"A table of {n} by {n} similarities. "
    if asking.any():
        s = similarities.detach().double()[asking] / temperature
        loss = softmax_contrast(s, positives[asking], candidates[asking])
        alt += f"{int(asking.sum())} rows have positives, {int(positives.sum())} cells in all; "
        alt += f"their mean loss is {loss:.2f}."
    else:
        alt += "No cell is a positive yet, so nobody asks."

    def draw() -> Figure:
        figure, ax = plt.subplots(figsize=(3.8, 3.8))
        hues = np.array([[1.0, 1, 1], [0.95, 0.77, 0.55], [0.36, 0.64, 0.85]])
        ax.imshow(hues[cells.cpu().numpy()])
        for i in range(n):
            for j in range(n):
                ax.text(j, i, f"{similarities[i, j]:.1f}", ha="center", va="center", fontsize=8)
        for i, picture in enumerate([] if pictures is None else pictures.cpu()):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(-1.45, -0.55, i + 0.45, i - 0.45))
        for i, name in enumerate(names if pictures is None else []):
            ax.text(-1, i, name, ha="center", va="center")
        ax.set(xlim=(-1.6, n - 0.4), ylim=(n - 0.4, -0.6))
        ax.axis("off")
        return figure

    state = {
        "similarities": _plain(similarities),
        "labels": labels.tolist(),
        "cells": cells.tolist(),
        "temperature": temperature,
        "names": names,
    }
    return First(state | ({} if pictures is None else {"pictures": _strip(pictures)}), alt, draw)


def phase(
    start: Sequence[float] = (0.0, 0.05),
    *,
    weight_decay: float = 0.05,
    predictor_rate: float = 1.0,
    noise: float = 0.2,
    target_rate: float | None = None,
) -> First:
    """One mode of linear BYOL: the reader chooses a start and sees where it ends.

    Args:
        start: p from -0.1 to 1.2 and s from 0 to 1, eigenvalues of predictor and features.
        weight_decay: 0 to 0.35.
        predictor_rate: 0.25 to 8.
        noise: variance that the augmentation adds, 0 to 1.5.
        target_rate: how fast the target follows, 0.02 to 20; None: at once.
    """
    from ..theory.linear_byol import decoupled_flow, decoupled_trajectory, fixed_points

    p0, s0 = (float(value) for value in start)
    check_in_range(-0.1, 1.2, **{"start[0]": p0})
    check_in_range(0, 1, **{"start[1]": s0})
    check_in_range(0, 0.35, weight_decay=weight_decay)
    check_in_range(0.25, 8, predictor_rate=predictor_rate)
    check_in_range(0, 1.5, noise=noise)
    if target_rate is not None:
        check_in_range(0.02, 20, target_rate=target_rate)
    rest = fixed_points(noise=noise, weight_decay=weight_decay)
    settings: dict[str, Any] = {"weight_decay": weight_decay, "predictor_rate": predictor_rate, "noise": noise}
    begin = torch.tensor([p0], dtype=torch.float64), torch.tensor([s0], dtype=torch.float64)
    p, s = decoupled_trajectory(*begin, torch.linspace(0, 300, 1501, dtype=torch.float64), **settings)
    alt = f"Plane of predictor eigenvalue p and feature eigenvalue s at weight decay {weight_decay:g}. "
    if rest.stable is None or rest.unstable is None:
        alt += "Every mode collapses. "
    else:
        alt += f"A mode can rest at p = {rest.stable:.2f}; the watershed is p = {rest.unstable:.2f}. "
    if target_rate is None:
        alt += f"The start p = {p0:.2f}, s = {s0:.2f} ends at p = {abs(p[0, -1].item()):.2f}."

    def draw() -> Figure:
        figure, ax = plt.subplots(figsize=(4.6, 3.6))
        grid = np.meshgrid(np.linspace(0, 1.1, 12), np.linspace(0.1, 0.9, 9))
        dp, ds = (d.numpy() for d in decoupled_flow(*(torch.from_numpy(g) for g in grid), **settings))
        size = np.hypot(dp, 1.3 * ds) + 1e-12
        ax.quiver(*grid, dp / size, 1.3 * ds / size, color="#A8A8A8", pivot="mid", scale=26, width=0.004)
        line = np.linspace(0, 1.2, 100)
        ax.plot(line, line**2 / predictor_rate, color=BLUE, lw=1.5)
        for value, face in ((rest.stable, BLUE), (rest.unstable, "white")):
            if value is not None and weight_decay > 0:
                ax.plot(value, value**2 / predictor_rate, "o", mfc=face, mec=BLUE if face == BLUE else "black", ms=9)
        if target_rate is None:
            ax.plot(p[0].numpy(), s[0].numpy(), color=VERMILLION, lw=2.5)
        ax.plot(p0, s0, "s", color=VERMILLION, ms=9)
        ax.set(xlim=(-0.1, 1.2), ylim=(0, 1.0), xlabel="predictor eigenvalue $p$", ylabel="feature eigenvalue $s$")
        return figure

    given = {"decay": weight_decay, "rate": predictor_rate, "noise": noise, "ema": target_rate}
    return First({"start": [p0, s0], "settings": given}, alt, draw)


def modes(
    strength: Tensor,
    augmentation: Tensor,
    *,
    names: Sequence[str] | None = None,
    noise: float = 0.25,
    start: float = 0.02,
    layers: int = 2,
    time: float = 26.0,
) -> First:
    """The linear contrastive learner: the reader pulls strengths and augmentations, the learning curves follow.

    Args:
        strength: ``(n,)`` of each feature, from 0 to 2; at most seven features.
        augmentation: ``(n,)`` probability that the sign is drawn anew.
        names: of the features; letters if None.
        noise: variance of the noise.
        start: weight at time 0.
        layers: 1 or 2.
        time: end of the axis.
    """
    from ..theory.linear_model import one_layer_weight, two_layer_weight

    check_shapes(strength=(strength, "n"), augmentation=(augmentation, "n"))
    check_entries(0, 2, strength=strength)
    check_entries(0, 1, augmentation=augmentation)
    check_positive(noise=noise, start=start, time=time)
    check_count(1, 2, layers=layers)
    check_count(1, 7, **{"len(strength)": len(strength)})
    names = _names("names", names, len(strength))
    phi, alpha = strength.detach().double().cpu(), augmentation.detach().double().cpu()
    c, m = (1 - alpha) * phi.square(), phi.square() + noise
    times = torch.linspace(0, time, 200, dtype=torch.float64)
    weights = two_layer_weight(times, c, m, start) if layers == 2 else one_layer_weight(times, c, m, start**2).sqrt()
    ends = c.sqrt() / m
    reached = (weights >= ends[:, None] / 2) & (c[:, None] > 0)
    when = [times[row.int().argmax()].item() if row.any() else math.inf for row in reached]
    order = [names[i] for i in sorted(range(len(names)), key=lambda i: when[i]) if math.isfinite(when[i])]
    alt = (
        f"Learning curves of {len(names)} features in {layers} layer{'s' * (layers > 1)}. Learned in this order: "
        f"{', '.join(order) or 'none'}. Largest in the end: {names[int(ends.argmax())]}, {ends.max():.2f}."
    )

    def draw() -> Figure:
        figure, (left, ax) = plt.subplots(1, 2, figsize=(7.4, 3.2), width_ratios=[1, 1.3])
        hues = [CYCLE[i % len(CYCLE)] for i in range(len(names))]
        place = np.arange(len(names))
        left.bar(place - 0.2, phi.numpy(), 0.36, color=hues)
        left.bar(place + 0.2, alpha.numpy(), 0.36, color="white", edgecolor=hues, linewidth=2)
        left.set_xticks(place, names, fontsize=9)
        left.set_title("strength, augmentation", fontsize=11)
        for row, hue, name in zip(weights.numpy(), hues, names, strict=True):
            ax.plot(times.numpy(), row, color=hue)
            ax.text(1.02 * time, row[-1], name, color=ink(hue), va="center", fontsize=10)
        ax.set(xlim=(0, 1.25 * time), xlabel="time")
        ax.set_title("weight in the embedding", fontsize=11)
        return figure

    state = {
        "strength": _plain(phi),
        "augmentation": _plain(alpha),
        "names": names,
        "noise": noise,
        "start": start,
        "layers": layers,
        "time": time,
    }
    return First(state, alt, draw)


def balance(scores: Tensor, *, epsilon: float = 0.1) -> First:
    """Sinkhorn-Knopp, half a step at a time, on scores that the reader may change.

    Args:
        scores: ``(B, K)`` from -1 to 1, similarities of samples and prototypes.
        epsilon: weight of the entropy, from 0.02 to 1.
    """
    check_shapes(scores=(scores, "b k"))
    check_entries(-1, 1, scores=scores)
    check_in_range(0.02, 1, epsilon=epsilon)
    values = scores.detach().double().cpu()
    codes = len(values) * (values / epsilon).flatten().softmax(0).view_as(values)
    totals, fair = codes.sum(0), values.shape[0] / values.shape[1]
    alt = (
        f"A table of {len(values)} samples and {values.shape[1]} prototypes before balancing, epsilon {epsilon:g}. "
        f"The prototypes get {', '.join(f'{v:.2f}' for v in totals)} samples; fair would be {fair:g} each."
    )

    def draw() -> Figure:
        figure, ax = plt.subplots(figsize=(0.9 * values.shape[1] + 0.8, 0.36 * len(values) + 1.0))
        ax.imshow(codes.clamp(max=1), cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
        for i, row in enumerate(codes.tolist()):
            for k, value in enumerate(row):
                ax.text(k, i, f"{value:.2f}", ha="center", va="center", fontsize=10)
        ax.set_xticks(range(values.shape[1]), [f"{v:.2f}" for v in totals])
        ax.set_yticks([])
        ax.set(xlabel="total of each prototype", ylabel="samples")
        return figure

    return First({"scores": _plain(values), "epsilon": epsilon}, alt, draw)


def sorting(values: Tensor, *, steepness: float = 1.0, positive: int | None = None) -> First:
    """A sorting network with soft swaps; the reader drags the numbers.

    Args:
        values: ``(n,)`` from 0 to 1, the lowest wire first; 2 to 8 numbers.
        steepness: of the comparators, from 0.1 to 1000.
        positive: the number that is marked and followed at first; the last one if None.
    """
    from ..losses.groco import soft_sort

    check_shapes(values=(values, "n"))
    check_entries(0, 1, values=values)
    check_count(2, 8, **{"len(values)": len(values)})
    check_in_range(0.1, 1000, steepness=steepness)
    if positive is not None:
        check_count(0, len(values) - 1, positive=positive)
    x = values.detach().double().cpu()
    ordered, spread = soft_sort(x, steepness)
    marked = len(x) - 1 if positive is None else positive
    alt = f"A sorting network for {len(x)} numbers at steepness {steepness:g}: "
    alt += f"{', '.join(f'{v:.2f}' for v in x)} become {', '.join(f'{v:.2f}' for v in ordered)}."
    if positive is not None:
        alt += f" {100 * spread[positive, -1]:.0f} percent of the marked number end on top."

    def draw() -> Figure:
        figure, ax = plt.subplots(figsize=(5.6, 0.45 * len(x) + 0.8))
        n = len(x)
        for wire in range(n):
            ax.plot([-0.6, n - 0.4], [wire, wire], color="#C8C8C8", lw=1)
            ax.text(-0.7, wire, f"{x[wire]:.2f}", ha="right", va="center", color=BLUE if wire == marked else "black")
            ax.text(n - 0.3, wire, f"{ordered[wire]:.2f}", ha="left", va="center")
            ax.plot(
                [n - 0.9, n - 0.4], [wire, wire], color=BLUE, lw=9 * spread[marked, wire].item(), solid_capstyle="butt"
            )
        for layer in range(n):
            for a in range(layer % 2, n - 1, 2):
                ax.plot([layer, layer], [a, a + 1], "o-", color="black", lw=1, ms=4)
        ax.axis("off")
        return figure

    return First({"values": _plain(x), "steepness": steepness, "positive": positive}, alt, draw)


def preferences(
    names: Sequence[str],
    vectors: Tensor,
    state: Tensor,
    *,
    chosen: int = 0,
    rejected: int = 1,
    beta: float = 0.3,
    loss: str = "DPO",
) -> First:
    """A policy over a few answers, softmax(W h), pushed by one preference.

    Args:
        names: of the n answers, at most seven.
        vectors: ``(n, 2)``, unembedding W of each answer, entries up to 4 in size.
        state: ``(2,)``, the prompt's state h.
        chosen: the preferred answer.
        rejected: the other one.
        beta: of DPO and IPO, from 0.05 to 2.
        loss: ``"DPO"``, ``"IPO"``, ``"likelihood"`` or ``"on-policy"``.
    """
    from ..alignment.likelihood_displacement import token_velocity

    check_shapes(vectors=(vectors, "n 2"), state=(state, "2"))
    check_entries(-4, 4, vectors=vectors, state=state)
    check_count(2, 7, **{"len(vectors)": len(vectors)})
    names = _names("names", names, len(vectors))
    check_count(0, len(names) - 1, chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise ValueError(f"rejected: expected another answer than chosen, got {rejected} for both")
    check_in_range(0.05, 2, beta=beta)
    check_choice(PUSHES, loss=loss)
    W, h = vectors.detach().double().cpu(), state.detach().double().cpu()
    log_p = (W @ h).log_softmax(0)
    found = token_velocity(W, h, chosen, rejected, beta, (log_p[chosen] - log_p[rejected]).item())
    said = ", ".join(f"{name} {100 * p:.0f} percent" for name, p in zip(names, found.probabilities, strict=True))
    first = "falls" if found.velocity[chosen] < 0 else "rises"
    alt = (
        f"A policy: {said}. {names[chosen]} is preferred to {names[rejected]}. Under DPO the probability of "
        f"{names[chosen]} {first} at first, that of {names[int(found.velocity.argmax())]} gains most."
    )

    def draw() -> Figure:
        figure, (left, ax) = plt.subplots(1, 2, figsize=(7.0, 3.2))
        hues = [CYCLE[i % len(CYCLE)] for i in range(len(names))]
        left.barh(range(len(names)), found.probabilities.numpy(), color=hues)
        marks = {chosen: " ✓", rejected: " ✗"}
        left.set_yticks(range(len(names)), [name + marks.get(i, "") for i, name in enumerate(names)])
        left.invert_yaxis()
        left.set(xlim=(0, 1), xlabel="probability")
        ax.axhline(0, color="#C8C8C8", lw=1)
        ax.axvline(0, color="#C8C8C8", lw=1)
        ax.annotate("", h.tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2})
        ax.text(h[0] - 0.2, h[1] + 0.2, "$h$", ha="right")
        for (x, y), hue, name in zip(W.tolist(), hues, names, strict=True):
            ax.plot(x, y, "o", color=hue, ms=8)
            ax.text(x + 0.2, y, name, va="center", color=ink(hue))
        _bare(ax, 4.5, 3.6)
        return figure

    given = {"names": names, "vectors": _plain(W), "state": _plain(h), "beta": beta, "loss": loss}
    return First(given | {"chosen": chosen, "rejected": rejected}, alt, draw)


STATES: dict[str, Callable[..., First]] = {
    build.__name__: build for build in (circle, game, masks, phase, modes, balance, sorting, preferences)
}


def _plain(x: Tensor) -> Any:
    """Nested lists of numbers with nine decimals, to be written into the page."""
    return torch.round(x.detach().double().cpu(), decimals=9).tolist()


def _names(name: str, names: Sequence[str] | None, n: int) -> list[str]:
    if names is None:
        return [LETTERS[i % 26] for i in range(n)]
    if len(names) != n or not all(isinstance(each, str) and each for each in names):
        raise ValueError(f"{name}: expected {n} texts, got {list(names)!r}")
    return list(names)


def _strip(pictures: Tensor) -> dict[str, Any]:
    """Small pictures side by side in one file, in ten grays."""
    check_entries(0, 1, pictures=pictures)
    levels = (pictures.detach().double().cpu() * 9).round()
    grays = (levels * 255 / 9).round().to(torch.uint8)  # (n, h, w)
    file = io.BytesIO()
    Image.fromarray(torch.cat(list(grays), dim=1).numpy()).save(file, format="WEBP", lossless=True, quality=100)
    return {"data": base64.b64encode(file.getvalue()).decode(), "n": len(grays)}


def _bare(ax: Axes, width: float, height: float | None = None) -> None:
    """A plane without axes."""
    height = width if height is None else height
    ax.set(xlim=(-width, width), ylim=(-height, height), aspect="equal")
    ax.axis("off")
