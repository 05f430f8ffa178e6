"""Call a network that somebody else brought, and answer in a sentence when it does not fit its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..core.checks import check_callable, check_module, check_same_length, check_shapes, check_type

__all__ = ["apply_network", "weight_dtype"]


def apply_network(network: Callable[..., Any], shape: str, **inputs: Tensor) -> Tensor:
    """Run a network on named inputs and check what it gives: a finite floating tensor, as many rows as the first input.

    Methods hold encoders that they have not made. When such a network does not take its input, the error is about a
    matrix product somewhere inside; here it becomes a sentence about the argument that the caller knows. Floating
    inputs are converted to the dtype of the network's weights (NumPy's float64 is no mistake of the reader's).

    Args:
        network: a module, or any function of tensors.
        shape: its output, for example ``"n d"`` or ``"n c h w"``; the first size is the number of rows of the first
            input.
        **inputs: in the order of the network's arguments, under the names that the caller knows.

    Returns:
        The output of the network.

    Raises:
        ValueError: the network does not take these inputs, or gives something else than was asked for.

    Example:
        >>> apply_network(nn.Linear(3, 2), "n d", images=torch.ones(4, 3)).shape
        torch.Size([4, 2])
        >>> apply_network(nn.Linear(3, 2), "n d", images=torch.ones(4, 5))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: images: Linear does not take shape (4, 5): ...
    """
    check_callable(network=network)
    check_type(str, shape=shape)
    if not shape.split():
        raise ValueError("shape: expected sizes, for example 'n d', got none")
    for name, x in inputs.items():
        check_type(Tensor, **{name: x})
        check_shapes(**{name: (x, "...") if x.is_floating_point() else (x, "...", int)})
    check_same_length(**inputs)
    names, kind = ", ".join(inputs), getattr(network, "__name__", type(network).__name__)
    dtype = weight_dtype(network) if isinstance(network, nn.Module) else None
    values = [x.to(dtype) if dtype is not None and x.is_floating_point() else x for x in inputs.values()]
    try:
        result = network(*values)
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in values)
        says = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{names}: {kind} does not take shape {shapes}: {says}") from error
    ndim, rows = len(shape.split()), len(values[0])
    if not isinstance(result, Tensor) or not result.is_floating_point():
        raise ValueError(f"{names}: {kind} was to give a floating tensor, it gives {type(result).__name__}")
    if result.ndim != ndim or len(result) != rows or result.numel() == 0:
        wanted = f"({', '.join(shape.split())}) with {shape.split()[0]} = {rows}"
        raise ValueError(f"{names}: {kind} was to give shape {wanted}, it gives {tuple(result.shape)}")
    if not torch.compiler.is_compiling() and not torch.isfinite(result).all():
        raise ValueError(f"{names}: {kind} gives NaN or infinite numbers; its weights or its input are too large")
    return result


def weight_dtype(network: nn.Module) -> torch.dtype | None:
    """The dtype of a network's weights, which its input is to have; None where it has none."""
    check_module(network=network)
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
