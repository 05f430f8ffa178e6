"""Gradients of a loss over many batches, for every parameter by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .checks import (
    check_batch,
    check_callable,
    check_choice,
    check_entries,
    check_positive,
    check_shapes,
    check_type,
    finite_result,
)

__all__ = ["loss_gradients", "squared_gradients"]

# The product of two such numbers stays in the range of float32.
LARGEST = 1e18
Named = Mapping[str, Tensor]


def loss_gradients(
    loss: Callable[[Any], Tensor], parameters: Named, batches: Iterable[Any], *, reduction: str = "mean"
) -> dict[str, Tensor]:
    """Gradient of a loss over batches, for every named parameter.

    Args:
        loss: batch to scalar, a function of the parameters.
        parameters: by name, see ``nn.Module.named_parameters``.
        batches: at least one.
        reduction: "mean" or "sum" over batches.
    """
    check_callable(loss=loss)
    check_named("parameters", parameters)
    check_choice(("mean", "sum"), reduction=reduction)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: expected something to go through, got {type(batches).__name__}")
    for name, leaf in parameters.items():
        if not leaf.requires_grad:
            raise ValueError(f"parameters[{name!r}]: expected a tensor that requires a gradient, got one that does not")
    names, leaves, count = list(parameters), list(parameters.values()), 0
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for batch in batches:
        found = torch.autograd.grad(loss(batch), leaves, allow_unused=True, materialize_grads=True)
        total, count = [a + b for a, b in zip(total, found, strict=True)], count + 1
    check_batch(count, 1, name="batches", why="to have a gradient")
    for name, x in zip(names, total, strict=True):
        finite_result(x, loss="its gradient", batches=count, **{f"parameters[{name!r}]": parameters[name]})
    return {name: x / count if reduction == "mean" else x for name, x in zip(names, total, strict=True)}


def squared_gradients(
    loss: Callable[[Any], Tensor], parameters: Named, batches: Iterable[Any], *, floor: float = 1e-8
) -> dict[str, Tensor]:
    """Mean over batches of squared gradients, at least ``floor``: a Gauss-Newton stand-in for the diagonal curvature.

    With batches of one sample this is the empirical Fisher information.
    """
    check_positive(floor=floor)
    check_named("parameters", parameters)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches: expected something to go through, got {type(batches).__name__}")
    squares = [{k: g.square() for k, g in loss_gradients(loss, parameters, [b]).items()} for b in batches]
    check_batch(len(squares), 1, name="batches", why="to have a gradient")
    return {name: torch.stack([s[name] for s in squares]).mean(0).clamp(min=floor) for name in parameters}


def check_named(name: str, tensors: Named, like: Named | None = None) -> None:
    """Check tensors by name: floating, finite, of moderate size, and as those they belong to."""
    check_type(Mapping, **{name: tensors})
    if not tensors or (like is not None and set(tensors) != set(like)):
        wanted = "at least one tensor" if like is None else "a tensor under every name of the parameters"
        raise ValueError(f"{name}: expected {wanted}, got {sorted(map(str, tensors))}")
    named: dict[str, Any] = {f"{name}[{key!r}]": x for key, x in tensors.items()}
    check_shapes(**{key: (x, "...") for key, x in named.items()})
    check_entries(-LARGEST, LARGEST, **named)
    for key, x in (like or {}).items():
        if tensors[key].shape != x.shape:
            both = f"parameters[{key!r}], {name}[{key!r}]"
            raise ValueError(f"{both}: expected equal shapes, got {tuple(x.shape)} and {tuple(tensors[key].shape)}")
