"""Adapter of Point-CMAE (``point-cmae``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.models.point_transformer import to_token_order
from cl_teach.signals.point_cmae import chamfer_distance, comask_contrast, comasked


def point_cmae(quantity, inputs, params):
    if quantity == "chamfer_l2":
        drawn = with_grad(inputs["P"])
        loss = chamfer_distance(drawn, inputs["Q"])
        return {"loss": loss, **gradients(loss, P=drawn)}
    d1, d2 = with_grad(inputs["d1"]), with_grad(inputs["d2"])
    masks = inputs["mask1"].bool(), inputs["mask2"].bool()
    tokens = to_token_order(d1, masks[0]), to_token_order(d2, masks[1])
    loss = comask_contrast(*tokens, *masks, pairing=params["pairing"], eps=params["eps"])
    if quantity == "comask_contrastive_same_token":
        return {"loss": loss, "n_comasked": comasked(*masks).sum(), **gradients(loss, d1=d1, d2=d2)}
    if quantity == "comask_contrastive_all_pairs":
        return {"loss": loss, **gradients(loss, d1=d1, d2=d2)}
    raise UnknownQuantity(quantity)
