"""In which precision a loss computes, whatever its embeddings came in.

Networks are fast in half precision; a softmax at temperature 0.05 and a sum of two hundred log-probabilities are not
right in it. And the usual pattern makes embeddings under autocast (bfloat16) and compares them with a memory, a
prototype or another tower in float32. One rule answers all of this: *a loss computes in at least float32, in one dtype,
with autocast off*. `full_precision` is that rule as one line above a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["full_precision", "without_autocast"]

P = ParamSpec("P")
T = TypeVar("T")

HALF = (torch.float16, torch.bfloat16)


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Compute in one floating dtype, at least float32, with autocast off.

    All floating tensors among the arguments (and in tuples, lists and dictionaries there) are promoted to float32, or
    to float64 where one of them is float64. Gradients come back in the dtype of what came in. Nothing is copied where
    all have one such dtype already.

    Example:
        >>> @full_precision
        ... def dot(a, b):
        ...     return a @ b
        >>> dot(torch.ones(300, dtype=torch.bfloat16), torch.ones(300)).item()  # bfloat16 has no 300
        300.0
    """

    @wraps(function)
    def wide(*args: P.args, **kwargs: P.kwargs) -> T:
        tensors = list(_floating((*args, *kwargs.values())))
        if not tensors:
            return function(*args, **kwargs)
        dtypes = {x.dtype for x in tensors}
        if len(dtypes) > 1 or not dtypes.isdisjoint(HALF):
            dtype = torch.float64 if torch.float64 in dtypes else torch.float32
            args = tuple(_promote(x, dtype) for x in args)  # type: ignore[assignment]
            kwargs = {name: _promote(x, dtype) for name, x in kwargs.items()}  # type: ignore[assignment]
        kind = tensors[0].device.type
        if kind == "meta" or not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return wide


def without_autocast(function: Callable[P, T]) -> Callable[P, T]:
    """Run with autocast off on the device of the first tensor: for steps of autograd, which choose their dtypes."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        kind = next(x.device.type for x in args if isinstance(x, Tensor))
        if not torch.is_autocast_enabled(kind):
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return plain


def _floating(values: tuple[Any, ...] | list[Any]) -> Iterator[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            # A 0-d tensor is a number (a temperature, a log scale): it follows the others.
            if x.ndim > 0 and x.is_floating_point():
                yield x
        elif isinstance(x, tuple | list):
            yield from _floating(x)
        elif isinstance(x, dict):
            yield from _floating(list(x.values()))


def _promote(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() and x.dtype.itemsize > 1 else x
    if isinstance(x, tuple) and hasattr(x, "_fields"):  # a named tuple
        return type(x)(*map(partial(_promote, dtype=dtype), x))
    if isinstance(x, tuple | list):
        return type(x)(map(partial(_promote, dtype=dtype), x))
    if isinstance(x, dict):
        return {name: _promote(value, dtype) for name, value in x.items()}
    return x
