"""Adapter of DCL (``dcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.dcl import dcl as dcl_loss
from cl_teach.losses.dcl import dclw, decoupled_terms, positive_weight


def dcl(quantity, inputs, params):
    z1, z2 = with_grad(inputs["z1"]), with_grad(inputs["z2"])
    temperature = params["tau"]
    if quantity == "dcl_loss":
        each, extra = dcl_loss(z1, z2, temperature, reduction="none"), {}
    elif quantity == "dclw_loss":
        each = dclw(z1, z2, temperature, sigma=params["sigma"], reduction="none")
        attached = dclw(z1, z2, temperature, sigma=params["sigma"], attach_weight=True)
        extra = {
            "weight": positive_weight(z1, z2, params["sigma"]),
            **gradients(attached, grad_z1_weight_attached=z1, grad_z2_weight_attached=z2),
        }
    else:
        raise UnknownQuantity(quantity)
    loss = each.mean()
    first, second = each.chunk(2)
    coupling1, coupling2 = decoupled_terms(z1, z2, temperature).coupling.chunk(2)
    return {
        "loss": loss,
        "loss_anchor_view1": first,
        "loss_anchor_view2": second,
        "npc_multiplier_view1": coupling1,
        "npc_multiplier_view2": coupling2,
        **gradients(loss, z1=z1, z2=z2),
        **extra,
    }
