"""What adapters share. An adapter renames, calls ``cl_teach`` and differentiates; it computes nothing itself.

``adapters/sbcl.py``, one file a method with one function of its name (hyphens become underscores)::

    from helpers import UnknownQuantity, gradients, with_grad

    def sbcl(quantity, inputs, params):
        if quantity == "supcon_out_loss":
            x = with_grad(inputs["x"])
            loss = ...
            return {"loss": loss, **gradients(loss, x=x)}
        raise UnknownQuantity(quantity)

``python -m cl_teach.survey`` counts the quantities that the file names as strings, so write each of them out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["UnknownQuantity", "gradients", "with_grad"]


class UnknownQuantity(NotImplementedError):
    """Raised by an adapter for a quantity that it does not know; the harness reports it as missing."""


def with_grad(inputs: Any) -> Any:
    """Fresh leaves that ask for gradients, for every floating tensor in ``inputs`` (tensor, list, dict)."""
    if isinstance(inputs, Tensor):
        return inputs.detach().clone().requires_grad_(inputs.is_floating_point())
    if isinstance(inputs, dict):
        return {name: with_grad(value) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [with_grad(value) for value in inputs]
    return inputs


def gradients(scalar: Tensor, **tensors: Any) -> dict[str, Any]:
    """Gradients of ``scalar`` by autograd, under the names that the golden files use.

    ``gradients(loss, x=x)`` gives ``{"grad_x": ...}``; a keyword that already starts with ``grad_`` is the
    whole name. A list of tensors gives a list of gradients. What the scalar does not depend on has gradient
    0. The graph is kept, so that several scalars can be differentiated one after the other.
    """
    result: dict[str, Any] = {}
    for name, value in tensors.items():
        leaves = [value] if isinstance(value, Tensor) else list(value)
        if scalar.requires_grad:
            found = list(
                torch.autograd.grad(scalar, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
            )
        else:
            found = [torch.zeros_like(leaf) for leaf in leaves]
        result[name if name.startswith("grad_") else f"grad_{name}"] = found[0] if isinstance(value, Tensor) else found
    return result
