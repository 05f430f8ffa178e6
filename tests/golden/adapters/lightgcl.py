"""Adapter of LightGCL (``lightgcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.lightgcl import LowRank, Sides, layerwise_contrast, propagate
from cl_teach.graphs.lightgcl import lightgcl as lightgcl_terms


def lightgcl(quantity, inputs, params):
    users, items = with_grad(inputs["E_u0"]), with_grad(inputs["E_i0"])
    view = LowRank(inputs["svd_u"], inputs["svd_s"], inputs["svd_v"])
    if quantity == "lightgcl_total_loss":
        layers = propagate(Sides(users, items), inputs["A_norm"], view, params["layers"])
        batch = inputs["users"], inputs["pos_items"], inputs["neg_items"]
        settings = {"weight": params["lambda1"], "decay": params["lambda2"], "form": "inner product"}
        terms = lightgcl_terms(layers, batch, params["temperature"], **settings)
        local, low_rank = layers.local_sum(), layers.global_sum()
        return {
            "loss": terms.loss,
            "loss_bpr": terms.recommendation,
            "loss_cl": terms.contrast,
            "E_u": local.users,
            "E_i": local.items,
            "G_u": low_rank.users,
            "G_i": low_rank.items,
            **gradients(terms.loss, grad_Eu=users, grad_Ei=items),
            **gradients(terms.contrast, grad_cl_Eu=users, grad_cl_Ei=items),
        }
    if quantity == "lightgcl_layerwise_infonce":
        settings = {"slope": params["leaky_slope"], "residual": params["residual"]}
        layers = propagate(Sides(users, items), inputs["A_norm"], view, params["layers"], **settings)
        sides = layerwise_contrast(layers, inputs["user_ids"], inputs["item_ids"], params["temperature"])
        loss = sides.users + sides.items
        found = gradients(loss, grad_Eu=users, grad_Ei=items)
        return {"loss_users": sides.users, "loss_items": sides.items, "loss": loss, **found}
    raise UnknownQuantity(quantity)
