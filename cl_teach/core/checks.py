"""Argument checks shared by every loss and method: one line at the top of a function, one sentence when it fails.

Every message names the argument, says what came and what is needed. The checks read values (is it finite, is it
positive?), so on a GPU each costs one small transfer; inside ``torch.compile`` the value checks are left out, because
they would break the graph.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "check_batch",
    "check_choice",
    "check_embeddings",
    "check_in_range",
    "check_labels",
    "check_mask",
    "check_positive",
    "check_same_length",
    "check_same_shape",
    "check_same_width",
    "check_square",
]


def check_embeddings(*, ndim: int = 2, **tensors: Tensor) -> None:
    """Check that each tensor is floating, has ``ndim`` dimensions, is not empty and holds only finite numbers.

    Raises:
        TypeError: something is not a tensor, or not of a floating dtype.
        ValueError: wrong number of dimensions, empty, NaN or infinite.
    """
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name}: expected a floating dtype, got {x.dtype}; convert it with .float()")
        if x.ndim != ndim:
            raise ValueError(f"{name}: expected {ndim} dimensions, got shape {tuple(x.shape)}")
        if x.numel() == 0:
            raise ValueError(f"{name}: expected at least one element, got shape {tuple(x.shape)}")
        if not torch.compiler.is_compiling() and not _is_finite(x):
            bad = int((~torch.isfinite(x)).sum())
            raise ValueError(f"{name}: expected finite numbers, got {bad} NaN or infinite of {x.numel()}")


def _is_finite(x: Tensor) -> bool:
    # NaN and infinity survive every sum, so a finite sum proves all numbers finite, in one pass and without a mask.
    return math.isfinite(x.detach().sum()) or bool(torch.isfinite(x).all())


def check_same_shape(**tensors: Tensor) -> None:
    """Check that all tensors have one shape.

    Raises:
        ValueError: two shapes differ.
    """
    if len({tuple(x.shape) for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equal shapes, got {_shapes(tensors)}")


def check_square(minimum: int = 1, **matrices: Tensor) -> None:
    """Check that every tensor is a square matrix (one row and one column a sample), finite and floating.

    Raises:
        TypeError: not floating.
        ValueError: not square, fewer than ``minimum`` rows, NaN.
    """
    check_embeddings(ndim=2, **matrices)
    for name, x in matrices.items():
        if x.shape[0] != x.shape[1] or len(x) < minimum:
            least = f" of at least {minimum} rows" if minimum > 1 else ""
            raise ValueError(f"{name}: expected a square matrix{least}, got shape {tuple(x.shape)}")


def check_same_length(**tensors: Tensor) -> None:
    """Check that all tensors have the same first dimension (one row a sample).

    Raises:
        ValueError: two lengths differ.
    """
    if len({x.shape[0] for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equally many rows, got {_shapes(tensors)}")


def check_same_width(**tensors: Tensor) -> None:
    """Check that all tensors have the same last dimension (they live in one space).

    Raises:
        ValueError: two widths differ.
    """
    if len({x.shape[-1] for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equal last dimensions, got {_shapes(tensors)}")


def check_positive(**scalars: float | Tensor) -> None:
    """Check that each number (or every entry of a tensor) is finite and greater than zero.

    Raises:
        TypeError: not a number and not a tensor.
        ValueError: zero, negative, NaN or infinite.
    """
    for name, value in scalars.items():
        _check_number(name, value)
        if torch.compiler.is_compiling():
            continue
        if isinstance(value, Tensor):
            good = bool((torch.isfinite(value) & (value > 0)).all())
        else:
            good = math.isfinite(value) and value > 0
        if not good:
            raise ValueError(f"{name}: expected a finite number greater than 0, got {_value(value)}")


def check_in_range(low: float, high: float, **scalars: float | Tensor) -> None:
    """Check that each number (or every entry of a tensor) lies in the closed interval [low, high].

    Raises:
        TypeError: not a number and not a tensor.
        ValueError: outside the interval, or NaN.
    """
    for name, value in scalars.items():
        _check_number(name, value)
        if torch.compiler.is_compiling():
            continue
        inside = bool(((value >= low) & (value <= high)).all()) if isinstance(value, Tensor) else low <= value <= high
        if not inside:
            raise ValueError(f"{name}: expected a number in [{low:g}, {high:g}], got {_value(value)}")


def check_labels(labels: Tensor, n: int, *, name: str = "labels", num_classes: int | None = None) -> None:
    """Check integer labels of shape ``(n,)``, at least 0 and, where ``num_classes`` is given, below it.

    Raises:
        TypeError: not an integer tensor.
        ValueError: wrong shape or out of range.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name}: expected an integer dtype, got {labels.dtype}; convert it with .long()")
    if labels.shape != (n,):
        raise ValueError(f"{name}: expected shape ({n},), one label a row, got {tuple(labels.shape)}")
    if n == 0 or torch.compiler.is_compiling():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise ValueError(f"{name}: expected labels of at least 0, got {low}")
    if num_classes is not None and high >= num_classes:
        raise ValueError(f"{name}: expected labels below num_classes={num_classes}, got {high}")


def check_mask(mask: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Check a boolean mask of the given shape.

    Raises:
        TypeError: not a boolean tensor.
        ValueError: wrong shape.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name}: expected a boolean tensor, got {came}")
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(mask.shape)}")


def check_batch(n: int, minimum: int, *, name: str, why: str) -> None:
    """Check that a batch has at least ``minimum`` rows; ``why`` completes "needs at least k rows ...".

    Raises:
        ValueError: the batch is too small.
    """
    if n < minimum:
        raise ValueError(f"{name}: needs at least {minimum} rows {why}, got {n}")


def check_choice(options: Collection[str], **choices: str) -> None:
    """Check that each string is one of ``options``.

    Raises:
        ValueError: it is not.
    """
    for name, value in choices.items():
        if value not in options:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")


def _names(tensors: dict[str, Tensor]) -> str:
    return ", ".join(tensors)


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())


def _value(value: float | Tensor) -> str:
    if isinstance(value, Tensor):
        return f"{value.item():g}" if value.numel() == 1 else f"a tensor with minimum {value.min().item():g}"
    return f"{value:g}"
