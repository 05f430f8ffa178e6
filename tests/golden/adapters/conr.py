"""Adapter of ConR (``conr``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.labels.conr import conr as conr_loss
from cl_teach.labels.conr import disagreements


def conr(quantity, inputs, params):
    if quantity not in ("conr_loss", "conr_loss_released_code"):
        raise UnknownQuantity(quantity)
    x = with_grad(inputs["x"])
    labels, predictions, weights = (inputs[name].to(x.dtype) for name in ("y", "y_hat", "eta"))
    loss = conr_loss(
        x,
        labels,
        predictions,
        weights,
        params["temperature"],
        window=params["omega"],
        push_scale=params["push_scale"],
        released=quantity == "conr_loss_released_code",
    )
    anchors = disagreements(labels, predictions, params["omega"]).anchors
    return {"loss": loss, **gradients(loss, x=x), "anchor_mask": anchors}
