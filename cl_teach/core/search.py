"""Minimizing without gradients, when one evaluation is expensive: Nelder and Mead's simplex, with a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_embeddings, check_positive, check_same_shape

__all__ = ["Search", "first_simplex", "nelder_mead"]


class Search(NamedTuple):
    """Sorted ``simplices (iterations, N + 1, N)``, the ``best (N,)`` point and its value, and fresh ``evaluations``."""

    simplices: Tensor
    best: Tensor
    best_value: float
    evaluations: int


def first_simplex(start: Tensor, top: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """``(N + 1, N)`` points drawn uniformly between ``start (N,)`` and ``top (N,)``."""
    check_embeddings(ndim=1, start=start, top=top)
    check_same_shape(start=start, top=top)
    share = torch.rand(len(start) + 1, len(start), generator=generator, dtype=torch.float64).to(start)
    return start + share * (top - start)


def nelder_mead(
    objective: Callable[[Tensor], float],
    simplex: Tensor,
    *,
    max_evaluations: int = 30,
    reflection: float = 1.0,
    expansion: float = 2.0,
    contraction: float = 0.5,
    shrink: float = 0.5,
    cache_tolerance: float = 5e-3,
    tolerance: float = 0.01,
) -> Search:
    """Minimize by moving a simplex; a point close to an earlier one gets that one's value, without an evaluation.

    Args:
        objective: point ``(N,)`` to number.
        simplex: ``(N + 1, N)`` first vertices.
        max_evaluations: looked at once an iteration; the first simplex counts.
        reflection: how far beyond the centroid the worst vertex is mirrored.
        expansion: how far a successful mirror image is pushed.
        contraction: how far the worst vertex is drawn toward the centroid.
        shrink: of all distances to the best vertex, when nothing else helped.
        cache_tolerance: distance in every coordinate at which points count as one.
        tolerance: directly after a shrink, values that agree to within it end the search.

    Raises:
        TypeError, ValueError: wrong dtype; not N + 1 points, a setting not positive.

    Source: Nelder and Mead (1965); cache and stop as in the code of Moskovitz et al. (2024).
    """
    check_embeddings(simplex=simplex)
    check_positive(max_evaluations=max_evaluations, reflection=reflection, expansion=expansion)
    check_positive(contraction=contraction, shrink=shrink, cache_tolerance=cache_tolerance, tolerance=tolerance)
    if simplex.shape[0] != simplex.shape[1] + 1:
        raise ValueError(f"simplex: expected one point more than coordinates, got shape {tuple(simplex.shape)}")
    cache: list[tuple[Tensor, float]] = []

    def value(point: Tensor) -> float:
        for known, found in cache:
            if bool(((known - point).abs() < cache_tolerance).all()):
                return found
        cache.append((point.clone(), objective(point)))
        return cache[-1][1]

    points, history = list(simplex), []
    values = [value(point) for point in points]
    while len(cache) < max_evaluations:
        order = sorted(range(len(points)), key=values.__getitem__)  # stable
        points, values = [points[i] for i in order], [values[i] for i in order]
        history.append(torch.stack(points))
        centroid = torch.stack(points[:-1]).mean(0)
        mirrored = centroid + reflection * (centroid - points[-1])
        at_mirrored = value(mirrored)
        if values[0] <= at_mirrored < values[-2]:
            points[-1], values[-1] = mirrored, at_mirrored
        elif at_mirrored < values[0]:
            expanded = centroid + expansion * (mirrored - centroid)
            at_expanded = value(expanded)
            better = at_expanded < at_mirrored
            points[-1], values[-1] = (expanded, at_expanded) if better else (mirrored, at_mirrored)
        else:
            contracted = centroid + contraction * (points[-1] - centroid)
            at_contracted = value(contracted)
            if at_contracted < values[-1]:
                points[-1], values[-1] = contracted, at_contracted
                continue
            points = [points[0]] + [points[0] + shrink * (point - points[0]) for point in points[1:]]
            values = [value(point) for point in points]
            if max(values) - min(values) < tolerance:
                break
    best = min(range(len(points)), key=values.__getitem__)
    history = history or [torch.stack(points)]
    return Search(torch.stack(history), points[best], values[best], len(cache))
