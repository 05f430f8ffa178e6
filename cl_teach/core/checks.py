"""Argument checks shared by every loss and method: one line at the top of a function, one sentence when it fails.

The line documents at the same time, because it says the shapes:

    check_shapes(query=(query, "n d"), positive=(positive, "n d"), negatives=(negatives, "k d"))

The general rule, so that no docstring has to repeat it: what is not of the right *kind* raises `TypeError` (not a
tensor, not floating, not whole, not a module), what has a wrong *value* raises `ValueError` (shapes that do not fit,
nothing in it, NaN or infinity, another device, out of range). Every message names the argument, says what came and what
is needed.

The checks read values (is it finite, is it positive?), so on a GPU each costs one small transfer; inside
``torch.compile`` the value checks are left out, because they would break the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "check_batch",
    "check_callable",
    "check_choice",
    "check_count",
    "check_device",
    "check_embeddings",
    "check_entries",
    "check_flag",
    "check_floating",
    "check_generator",
    "check_in_range",
    "check_labels",
    "check_mask",
    "check_module",
    "check_number",
    "check_numbers",
    "check_positive",
    "check_same_device",
    "check_same_length",
    "check_same_shape",
    "check_same_width",
    "check_shapes",
    "check_sizes",
    "check_square",
    "check_type",
    "finite_result",
]

# The floating types that torch computes with; float8 tensors exist, but hardly an operation does.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)


# --- tensors ----------------------------------------------------------------------------------------------------------


def check_shapes(**specs: tuple[Any, ...]) -> dict[str, int]:
    """Check tensors against shapes with named sizes: equal names, equal sizes.

    Each argument is ``(tensor, shape)`` for a floating tensor, which must be finite, or ``(tensor, shape, int)`` or
    ``(tensor, shape, bool)``. A shape is a string of sizes: a name, a number, or a leading ``...`` for any dimensions.
    ``(tensor, "n d?")`` is optional: ``None`` passes. Empty tensors are refused, and so are tensors on different
    devices. Floating tensors may differ in dtype: see `cl_teach.core.precision`.

    Returns:
        The size of each name.

    Example:
        >>> check_shapes(query=(torch.ones(4, 8), "n d"), labels=(torch.arange(4), "n", int))
        {'n': 4, 'd': 8}
        >>> check_shapes(query=(torch.ones(4, 8), "n d"), positive=(torch.ones(3, 8), "n d"))
        Traceback (most recent call last):
        ValueError: positive: expected shape (n, d) with n = 4 as in query, got (3, 8)
    """
    return _check_specs(specs, _check_filled)


def check_sizes(**specs: tuple[Any, ...]) -> dict[str, int]:
    """`check_shapes` that reads no values, for a function that reads them itself (`cl_teach.core.tiled_contrast`)."""
    return _check_specs(specs, _check_not_empty)


def _check_specs(specs: dict[str, tuple[Any, ...]], check_values: Callable[[str, Tensor], None]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    device: torch.device | None = None
    first = ""
    for name, spec in specs.items():
        x, shape = spec[0], spec[1]
        if shape[-1:] == "?":
            if x is None:
                continue
            shape = shape[:-1]
        _check_kind(name, x, spec[2] if len(spec) > 2 else float)
        dims = _dims(shape)
        if dims and dims[0] == "...":
            dims, came = dims[1:], x.shape[x.ndim - len(dims) + 1 :] if x.ndim >= len(dims) - 1 else None
        else:
            came = x.shape if x.ndim == len(dims) else None
        if came is None:
            raise ValueError(f"{name}: expected shape {_spell(shape)}, got {tuple(x.shape)}")
        for dim, size in zip(dims, came, strict=True):
            if dim not in sizes and not dim.isdigit():
                sizes[dim], source[dim] = size, name
                continue
            want = int(dim) if dim.isdigit() else sizes[dim]
            if size != want:
                why = "" if dim.isdigit() or source[dim] == name else f" as in {source[dim]}"
                equal = "" if dim.isdigit() else f" with {dim} = {want}{why}"
                raise ValueError(f"{name}: expected shape {_spell(shape)}{equal}, got {tuple(x.shape)}")
        check_values(name, x)
        if device is None:
            device, first = x.device, name
        elif x.device != device:
            raise ValueError(f"{name}: expected a tensor on {device} as {first}, got one on {x.device}")
    return sizes


def check_embeddings(*, ndim: int = 2, **tensors: Tensor) -> None:
    """Check that each tensor is floating, has ``ndim`` dimensions, is not empty and holds only finite numbers."""
    for name, x in tensors.items():
        _check_kind(name, x, float)
        if x.ndim != ndim:
            raise ValueError(f"{name}: expected {ndim} dimensions, got shape {tuple(x.shape)}")
        _check_filled(name, x)
    check_same_device(**tensors)


def check_floating(**tensors: Tensor) -> None:
    """Check that each is a tensor of a floating dtype, whatever its shape and its values."""
    for name, x in tensors.items():
        _check_kind(name, x, float)


def check_same_shape(**tensors: Tensor) -> None:
    """Check that all tensors have one shape, and one device."""
    _check_tensors(tensors)
    if len({tuple(x.shape) for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equal shapes, got {_shapes(tensors)}")
    check_same_device(**tensors)


def check_same_length(**tensors: Tensor) -> None:
    """Check that all tensors have the same first dimension (one row a sample), and one device."""
    _check_tensors(tensors, ndim=1)
    if len({x.shape[0] for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equally many rows, got {_shapes(tensors)}")
    check_same_device(**tensors)


def check_same_width(**tensors: Tensor) -> None:
    """Check that all tensors have the same last dimension (they live in one space), and one device."""
    _check_tensors(tensors, ndim=1)
    if len({x.shape[-1] for x in tensors.values()}) > 1:
        raise ValueError(f"{_names(tensors)}: expected equal last dimensions, got {_shapes(tensors)}")
    check_same_device(**tensors)


def check_same_device(**tensors: Tensor) -> None:
    """Check that all tensors are on one device."""
    devices = {x.device for x in tensors.values()}
    if len(devices) > 1:
        came = ", ".join(f"{name} on {x.device}" for name, x in tensors.items())
        raise ValueError(f"{_names(tensors)}: expected one device, got {came}")


def check_square(minimum: int = 1, **matrices: Tensor) -> None:
    """Check that every tensor is a square matrix (one row and one column a sample), finite and floating."""
    check_embeddings(ndim=2, **matrices)
    for name, x in matrices.items():
        if x.shape[0] != x.shape[1] or len(x) < minimum:
            least = f" of at least {minimum} rows" if minimum > 1 else ""
            raise ValueError(f"{name}: expected a square matrix{least}, got shape {tuple(x.shape)}")


def check_entries(low: float, high: float, *, open_low: bool = False, **tensors: Tensor) -> None:
    """Check that every entry of each tensor of numbers lies in [low, high], or with ``open_low`` in (low, high].

    Infinite bounds mean "no bound": the entries must be finite all the same.
    """
    for name, x in tensors.items():
        _check_kind(name, x, int if isinstance(x, Tensor) and x.dtype in WHOLE else float)
        _check_filled(name, x)
        if torch.compiler.is_compiling():
            continue
        if x.is_floating_point():  # one pass; which entry it is, is looked for only where there is one
            least, most = (bound.item() for bound in x.detach().aminmax())
            if (low < least if open_low else low <= least) and most <= high:
                continue
        outside = (x <= low if open_low else x < low) | (x > high)
        if outside.any():
            wanted = f"greater than {low:g}" if open_low else f"in [{low:g}, {high:g}]"
            raise ValueError(f"{name}: expected entries {wanted}, got {x[outside][0].item():g}")


def check_labels(
    labels: Tensor, n: int | None = None, *, name: str = "labels", num_classes: int | None = None
) -> Tensor:
    """Check integer labels of any width, shape ``(n,)``, at least 0 and, where ``num_classes`` is given, below it.

    Returns:
        The labels as int64, the one type that torch indexes and counts with. Use it instead of what came in: NumPy
        makes int32 on Windows, image files hold uint8.
    """
    _check_kind(name, labels, int)
    if labels.ndim != 1 or (n is not None and len(labels) != n):
        wanted = "one dimension" if n is None else f"shape ({n},), one label a row"
        raise ValueError(f"{name}: expected {wanted}, got shape {tuple(labels.shape)}")
    labels = labels.long()
    if len(labels) == 0 or torch.compiler.is_compiling():
        return labels
    _check_has_values(name, labels)
    low, high = (int(x) for x in labels.aminmax())
    if low < 0:
        raise ValueError(f"{name}: expected labels of at least 0, got {low}")
    if num_classes is not None and high >= num_classes:
        raise ValueError(f"{name}: expected labels below num_classes={num_classes}, got {high}")
    return labels


def check_mask(mask: Tensor, shape: tuple[int, ...], *, name: str) -> None:
    """Check a boolean mask of the given shape."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name}: expected a boolean tensor, got {came}")
    if tuple(mask.shape) != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(mask.shape)}")
    _check_has_values(name, mask)


def check_batch(n: int, minimum: int, *, name: str, why: str) -> None:
    """Check that a batch has at least ``minimum`` rows; ``why`` completes "needs at least k rows ..."."""
    if n < minimum:
        raise ValueError(f"{name}: needs at least {minimum} rows {why}, got {n}")


# --- numbers and everything else --------------------------------------------------------------------------------------


def check_number(name: str, value: Any) -> float | None:
    """The number that a setting or a 0-d tensor is; None inside ``torch.compile``, where no value is to be read."""
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        if value.dtype not in FLOATING and value.dtype not in WHOLE:
            raise TypeError(f"{name}: expected a number, got a tensor of {value.dtype}")
        if value.ndim > 0:
            _check_filled(name, value)
            low, high = (x.item() for x in value.aminmax())
            shape = tuple(value.shape)
            raise ValueError(f"{name}: expected one number, got a tensor of shape {shape}, entries {low:g} to {high:g}")
        if torch.compiler.is_compiling():
            return None
        _check_has_values(name, value)
        return float(value.detach())
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def check_positive(**scalars: float | Tensor) -> None:
    """Check that each number (or 0-d tensor) is finite and greater than zero."""
    for name, value in scalars.items():
        number = check_number(name, value)
        if number is not None and not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name}: expected a finite number greater than 0, got {number:g}")


def check_in_range(low: float, high: float, **scalars: float | Tensor) -> None:
    """Check that each number (or 0-d tensor) is finite and in the closed interval [low, high]."""
    for name, value in scalars.items():
        number = check_number(name, value)
        if number is not None and not (math.isfinite(number) and low <= number <= high):
            if math.isfinite(low) and math.isfinite(high):
                wanted = f"a number in [{low:g}, {high:g}]"
            elif math.isfinite(low):
                wanted = f"a finite number of at least {low:g}"
            else:
                wanted = "a finite number" + (f" of at most {high:g}" if math.isfinite(high) else "")
            raise ValueError(f"{name}: expected {wanted}, got {number:g}")


def check_count(minimum: int = 1, maximum: int | None = None, **counts: int) -> None:
    """Check that each is a whole number (Python's or NumPy's, no 2.5 and no truth value) from ``minimum`` on."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            came = f"{value:g}" if isinstance(value, float) else type(value).__name__
            raise TypeError(f"{name}: expected a whole number, got {came}")
        if value < minimum or (maximum is not None and value > maximum):
            wanted = f"of at least {minimum}" if maximum is None else f"in [{minimum}, {maximum}]"
            raise ValueError(f"{name}: expected a whole number {wanted}, got {value}")


def check_numbers(name: str, values: Any) -> Tensor:
    """Check a sequence of numbers, a list, a tuple or a floating tensor ``(k,)``, and make it a float64 tensor."""
    if isinstance(values, Tensor):
        check_shapes(**{name: (values, "k", int if values.dtype in WHOLE else float)})
        return values.to("cpu", torch.float64)
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name}: expected numbers in a list, a tuple or a tensor, got {type(values).__name__}")
    if not values:
        raise ValueError(f"{name}: expected at least one number, got none")
    check_in_range(-math.inf, math.inf, **{f"{name}[{i}]": x for i, x in enumerate(values)})
    return torch.tensor([float(x) for x in values], dtype=torch.float64)


def check_choice(options: Collection[str], **choices: str) -> None:
    """Check that each string is one of ``options``."""
    for name, value in choices.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected one of {', '.join(map(repr, options))}, got {type(value).__name__}")
        if value not in options:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")


def check_type(kind: type | tuple[type, ...], **values: Any) -> None:
    """Check that each is an instance of ``kind``."""
    for name, value in values.items():
        if not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            names = " or ".join("None" if k is type(None) else k.__name__ for k in kinds)
            raise TypeError(f"{name}: expected {names}, got {type(value).__name__}")


def check_device(device: torch.device | str | None, *, name: str = "device") -> None:
    """Check that it is a device, the name of one, or None for the default."""
    check_type((torch.device, str, type(None)), **{name: device})
    try:
        torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ValueError(f"{name}: expected a device such as 'cpu' or 'cuda:0', got {device!r}") from error


def finite_result(result: Tensor, **arguments: Any) -> Tensor:
    """The result, if it is finite: the last line of a formula that overflows for finite arguments.

    Example:
        >>> finite_result(torch.tensor(1e30) ** 2, gap=torch.tensor(1e30))
        Traceback (most recent call last):
        ValueError: gap: expected numbers whose result is finite in torch.float32, got gap up to 1e+30
    """
    if not torch.compiler.is_compiling() and not _is_finite(result):
        came = ", ".join(
            f"{name} up to {x.abs().max().item():g}" if isinstance(x, Tensor) else f"{name} {x}"
            for name, x in arguments.items()
        )
        names = ", ".join(arguments)
        raise ValueError(f"{names}: expected numbers whose result is finite in {result.dtype}, got {came}")
    return result


def check_flag(**flags: bool) -> None:
    """Check that each is True or False."""
    check_type(bool, **flags)


def check_module(**modules: nn.Module) -> None:
    """Check that each is a network."""
    for name, value in modules.items():
        if not isinstance(value, nn.Module):
            raise TypeError(f"{name}: expected a torch.nn.Module, got {type(value).__name__}")


def check_callable(**functions: Callable[..., Any]) -> None:
    """Check that each can be called."""
    for name, value in functions.items():
        if not callable(value):
            raise TypeError(f"{name}: expected a function, got {type(value).__name__}")


def check_generator(generator: torch.Generator | None, *, name: str = "generator") -> None:
    """Check that it is a generator, or None for torch's own."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"{name}: expected a torch.Generator or None, got {type(generator).__name__}")


# --- how it is done ---------------------------------------------------------------------------------------------------


def _check_kind(name: str, x: Any, kind: type) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if kind is float and x.dtype not in FLOATING:
        raise TypeError(f"{name}: expected a floating dtype, got {x.dtype}; convert it with .float()")
    if kind is int and x.dtype not in WHOLE:
        raise TypeError(f"{name}: expected an integer dtype, got {x.dtype}; convert it with .long()")
    if kind is bool and x.dtype != torch.bool:
        raise TypeError(f"{name}: expected a boolean tensor, got {x.dtype}")
    if x.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {x.layout}; convert it with .to_dense()")


def _check_filled(name: str, x: Tensor) -> None:
    """Not empty, with values, and finite where it is floating."""
    _check_not_empty(name, x)
    if torch.compiler.is_compiling():
        return
    if x.is_floating_point() and not _is_finite(x):
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{name}: expected finite numbers, got {bad} NaN or infinite of {x.numel()}")


def _check_not_empty(name: str, x: Tensor) -> None:
    if x.numel() == 0:
        raise ValueError(f"{name}: expected at least one element, got shape {tuple(x.shape)}")
    if not torch.compiler.is_compiling():
        _check_has_values(name, x)


def _check_has_values(name: str, x: Tensor) -> None:
    if x.is_meta:
        raise ValueError(f"{name}: expected a tensor with values, got one on the meta device")


def _is_finite(x: Tensor) -> bool:
    # NaN and infinity survive every sum, so a finite sum proves all numbers finite, in one pass and without a mask.
    return math.isfinite(x.detach().sum()) or bool(torch.isfinite(x).all())


def _check_tensors(tensors: dict[str, Tensor], ndim: int = 0) -> None:
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if x.ndim < ndim:
            raise ValueError(f"{name}: expected at least one dimension, got shape {tuple(x.shape)}")


@cache
def _dims(shape: str) -> tuple[str, ...]:
    return tuple(shape.split())


def _spell(shape: str) -> str:
    """``"n d"`` as ``(n, d)``, ``"n"`` as ``(n,)``."""
    dims = shape.split()
    return f"({dims[0]},)" if len(dims) == 1 else f"({', '.join(dims)})"


def _names(tensors: dict[str, Tensor]) -> str:
    return ", ".join(tensors)


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
