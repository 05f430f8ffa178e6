"""Adapter of CSGCL (``csgcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.csgcl import (
    attribute_drop_probability,
    bonus_weight,
    community_strength,
    edge_keep_probability,
    edge_weights,
    team_up,
)


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
