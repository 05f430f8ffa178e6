"""Golden adapters of part 5, Labels."""

from __future__ import annotations

from typing import Any

from helpers import UnknownQuantity, gradients, with_grad
from torch import Tensor

from cl_teach import sup_con

__all__ = ["sbcl"]


def sbcl(quantity: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """SBCL, and the supervised contrastive loss it starts from."""
    variants = {"supcon_out_loss": "out", "supcon_in_loss": "in"}
    if quantity not in variants:
        raise UnknownQuantity(quantity)
    x, labels, temperature = with_grad(inputs["x"]), inputs["labels"], params["temperature"]
    scale = temperature / params["base_temperature"]  # the released loss is rescaled by it, ours is not
    loss = scale * sup_con(_view_major(x), labels.repeat(x.shape[1]), temperature, variant=variants[quantity])
    return {"loss": loss, **gradients(loss, x=x)}


def _view_major(x: Tensor) -> Tensor:
    """``(n, views, d)`` to ``(views * n, d)``, all first views first."""
    return x.transpose(0, 1).flatten(0, 1)
