"""Adapter of SwAV (``swav``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import normalize, sinkhorn
from cl_teach.losses.swav import push_front
from cl_teach.losses.swav import swav as swav_loss


def swav(quantity, inputs, params):
    settings = {"epsilon": params["epsilon"], "iterations": params["iterations"]}
    if quantity == "sinkhorn_codes":
        codes = sinkhorn(inputs["scores"], **settings)
        return {"Q": codes, "row_sum_max_err": (codes.sum(1) - 1).abs().max(), "column_sum": codes.sum(0)}
    if quantity == "swav_loss":
        z, prototypes, queue = with_grad(inputs["z"]), with_grad(inputs["C"]), inputs.get("queue")
        assign = params["assign"]
        loss, codes = swav_loss(
            z, prototypes, temperature=params["temperature"], assign=assign, queue=queue, **settings
        )
        result = {"loss": loss, "Q": codes, **gradients(loss, z=z, C=prototypes)}
        if queue is not None:
            pushed = [push_front(old, normalize(z[a])) for old, a in zip(queue, assign, strict=True)]
            result["new_queue"] = torch.stack(pushed)
        return result
    raise UnknownQuantity(quantity)
