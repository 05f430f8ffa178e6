"""Adapters of Part 8: csgcl, lightgcl, mclrec."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.func import functional_call

from cl_teach.graphs.csgcl import (
    attribute_drop_probability,
    bonus_weight,
    community_strength,
    edge_keep_probability,
    edge_weights,
    team_up,
)
from cl_teach.graphs.lightgcl import LowRank, Sides, layerwise_contrast, propagate
from cl_teach.graphs.lightgcl import lightgcl as lightgcl_terms
from cl_teach.graphs.mclrec import Augmenter, margin_regularizer, mclrec_terms

__all__ = ["csgcl", "lightgcl", "mclrec"]


def csgcl(quantity, inputs, params):
    if quantity == "community_strength_ced_cav":
        edges, communities = inputs["edge_index"], inputs["community_of_node"]
        strength = community_strength(edges, communities)
        nodes = strength[communities]
        weights = edge_weights(edges, communities, strength)
        high, low = (
            [edge_keep_probability(weights, rate, threshold=limit) for rate in params["ced_p"]]
            for limit in params["ced_thresholds"]
        )
        limit = params["cav_threshold"]
        return {
            "community_strength": strength,
            "node_strength": nodes,
            "edge_weight_minmax": weights,
            "ced_keep_prob_thr1": high,
            "ced_keep_prob_thr07": low,
            "cav_drop_prob": [
                attribute_drop_probability(inputs["X"], nodes, rate, threshold=limit) for rate in params["cav_p"]
            ],
        }
    if quantity == "team_up_loss":
        h1, h2, temperature = with_grad(inputs["h1"]), with_grad(inputs["h2"]), params["tau"]
        gamma = bonus_weight(params["epoch"], params["t0"], params["gamma_max"])
        loss = team_up(h1, h2, inputs["cs"], gamma, temperature)
        plain = team_up(h1, h2, inputs["cs"], 0.0, temperature)
        return {"gamma": gamma, "loss": loss, "loss_infonce_gamma0": plain, **gradients(loss, h1=h1, h2=h2)}
    raise UnknownQuantity(quantity)


def lightgcl(quantity, inputs, params):
    users, items = with_grad(inputs["E_u0"]), with_grad(inputs["E_i0"])
    view = LowRank(inputs["svd_u"], inputs["svd_s"], inputs["svd_v"])
    if quantity == "lightgcl_total_loss":
        layers = propagate(Sides(users, items), inputs["A_norm"], view, params["layers"])
        batch = inputs["users"], inputs["pos_items"], inputs["neg_items"]
        settings = {"weight": params["lambda1"], "decay": params["lambda2"]}
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


_WEIGHTS = {
    "W1": "first.weight",
    "b1": "first.bias",
    "W2": "second.weight",
    "b2": "second.bias",
    "W3": "third.weight",
    "b3": "third.bias",
}


def _augment(h, weights):
    module = Augmenter(h.shape[1], (len(weights["b1"]), len(weights["b2"])))
    return functional_call(module, {_WEIGHTS[name]: value for name, value in weights.items()}, h)


def mclrec(quantity, inputs, params):
    if quantity != "mclrec_losses":
        raise UnknownQuantity(quantity)
    h1, h2, aug1, aug2 = (with_grad(inputs[name]) for name in ("h1", "h2", "aug1", "aug2"))
    z1, z2 = _augment(h1, aug1), _augment(h2, aug2)
    temperature = params["tau"]
    terms = mclrec_terms(h1, h2, z1, z2, temperature)
    stage2 = terms.augmenter_loss(params["reg_factor"])
    free1, free2 = with_grad(z1), with_grad(z2)
    rows = margin_regularizer(free1, free2, temperature)
    batch = margin_regularizer(free1, free2, temperature, scope="batch")
    by_name = {}
    for name, weights in (("grad_stage2_aug1", aug1), ("grad_stage2_aug2", aug2)):
        found = gradients(stage2, weights=list(weights.values()))["grad_weights"]
        by_name[name] = dict(zip(weights, found, strict=True))
    return {
        "z1": z1,
        "z2": z2,
        "loss_cl1": terms.plain,
        "loss_cl2": terms.learned,
        "R_h1_z2": terms.margins[0],
        "R_h2_z1": terms.margins[1],
        "R_z1_z2": terms.margins[2],
        "R_z1_z2_global": batch,
        "loss_stage2_code": stage2,
        **by_name,
        **gradients(stage2, grad_stage2_h1=h1, grad_stage2_h2=h2),
        **gradients(terms.plain, grad_cl1_h1=h1, grad_cl1_h2=h2),
        **gradients(rows, grad_R_z1=free1, grad_R_z2=free2),
        **gradients(batch, grad_Rglobal_z1=free1, grad_Rglobal_z2=free2),
    }
