"""Minimizing without gradients, when one evaluation is expensive: Nelder and Mead's simplex, with a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import (
    check_callable,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_positive,
    check_shapes,
    finite_result,
)

__all__ = ["Search", "first_simplex", "nelder_mead"]

# Of a step, in distances to the centroid, and of a coordinate: farther points would leave the range of float32.
FARTHEST, LARGEST = 1e3, 1e20


class Search(NamedTuple):
    """Sorted ``simplices (iterations, N + 1, N)``, the ``best (N,)`` point and its value, and fresh ``evaluations``."""

    simplices: Tensor
    best: Tensor
    best_value: float
    evaluations: int


def first_simplex(start: Tensor, top: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """``(N + 1, N)`` points drawn uniformly between ``start (N,)`` and ``top (N,)``."""
    check_shapes(start=(start, "n"), top=(top, "n"))
    check_generator(generator)
    share = torch.rand(len(start) + 1, len(start), generator=generator, dtype=torch.float64).to(start)
    return finite_result(start + share * (top - start), start=start, top=top)


def nelder_mead(
    objective: Callable[[Tensor], float],
    simplex: Tensor,
    *,
    max_evaluations: int = 30,
    max_iterations: int = 1000,
    reflection: float = 1.0,
    expansion: float = 2.0,
    contraction: float = 0.5,
    shrink: float = 0.5,
    cache_tolerance: float = 5e-3,
    tolerance: float = 0.01,
) -> Search:
    """Minimize by moving a simplex; a point close to an earlier one gets that one's value, without an evaluation.

    Args:
        objective: point ``(N,)`` to number; infinity means "not there".
        simplex: ``(N + 1, N)`` first vertices.
        max_evaluations: looked at once an iteration; the first simplex counts.
        max_iterations: a bound for searches that move among cached points and use up no evaluation.
        reflection: how far beyond the centroid the worst vertex is mirrored.
        expansion: how far a successful mirror image is pushed; the better of the two is kept.
        contraction: how far the worst vertex is drawn toward the centroid.
        shrink: of all distances to the best vertex, when nothing else helped.
        cache_tolerance: distance in every coordinate at which points count as one.
        tolerance: directly after a shrink, a range of values below it ends the search.

    Raises:
        ValueError: the objective returned NaN or minus infinity, after which no order of points is left.

    Source: Nelder and Mead (1965). The cache, its tolerance and looking at the stop only after a shrink are from the
    released code of Moskovitz et al. (2024). That code keeps the expanded point whenever it beats the best vertex,
    and compares the standard deviation of the values with the tolerance; the better of two points and the range of the
    values are used here.

    Example:
        >>> found = nelder_mead(lambda x: float((x - 1).square().sum()), torch.tensor([[0.0], [0.5]]))
        >>> bool((found.best - 1).abs() < 0.1), found.evaluations <= 31
        (True, True)
    """
    check_callable(objective=objective)
    check_shapes(simplex=(simplex, "m n"))
    check_count(max_evaluations=max_evaluations, max_iterations=max_iterations)
    check_positive(reflection=reflection, expansion=expansion)
    check_positive(contraction=contraction, shrink=shrink, cache_tolerance=cache_tolerance, tolerance=tolerance)
    check_in_range(0, FARTHEST, reflection=reflection, expansion=expansion, contraction=contraction, shrink=shrink)
    check_entries(-LARGEST, LARGEST, simplex=simplex)
    if simplex.shape[0] != simplex.shape[1] + 1:
        raise ValueError(f"simplex: expected one point more than coordinates, got shape {tuple(simplex.shape)}")
    cache: list[tuple[Tensor, float]] = []

    def value(point: Tensor) -> float:
        for known, found in cache:
            if bool(((known - point).abs() < cache_tolerance).all()):
                return found
        fresh = float(objective(point))
        if math.isnan(fresh) or fresh == -math.inf:
            raise ValueError(f"objective: expected a number at every point, got {fresh} at {point.tolist()}")
        cache.append((point.clone(), fresh))
        return fresh

    points, history = list(simplex.detach()), list[Tensor]()
    values = [value(point) for point in points]
    while len(cache) < max_evaluations and len(history) < max_iterations:
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
            if max(values) == min(values) or max(values) - min(values) < tolerance:
                break
    best = min(range(len(points)), key=values.__getitem__)
    history = history or [torch.stack(points)]
    return Search(torch.stack(history), points[best], values[best], len(cache))
