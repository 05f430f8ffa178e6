"""Adapters of Part 3."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import normalize, self_mask, sinkhorn
from cl_teach.losses.amcl import PairTemperature, optimal_positive_temperature, pair_temperature
from cl_teach.losses.amcl import amcl as amcl_loss
from cl_teach.losses.cacr import cacr_momentum, cacr_terms
from cl_teach.losses.dcl import dcl as dcl_loss
from cl_teach.losses.dcl import dclw, decoupled_terms, positive_weight
from cl_teach.losses.feature_transformation import feature_transformation as ft_loss
from cl_teach.losses.feature_transformation import transformed_scores
from cl_teach.losses.groco import groco as groco_loss
from cl_teach.losses.groco import group_order
from cl_teach.losses.hallucinator import (
    Hallucinator,
    hallucinated_moco,
    hallucinated_simclr,
    hallucinated_simsiam,
)
from cl_teach.losses.isogclr import ISogCLR, SogCLR, robust_objective
from cl_teach.losses.mochi import Mixture, hardest_rows, mix
from cl_teach.losses.mochi import mochi as mochi_loss
from cl_teach.losses.swav import push_front
from cl_teach.losses.swav import swav as swav_loss

__all__ = ["amcl", "cacr", "dcl", "feature_transformation", "groco", "hallucinator", "isogclr", "mochi", "swav"]


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


def cacr(quantity, inputs, params):
    if quantity == "cacr_loss":
        views = with_grad(inputs["views"])
        terms = cacr_terms(
            views,
            positive_sharpness=params["t_pos"],
            negative_sharpness=params["t_neg"],
            alpha=params["alpha"],
            beta=params["beta"],
        )
        loss = terms.attraction + terms.repulsion
        n = views.shape[1]
        others = ~self_mask(n)
        return {
            "loss": loss,
            "loss_attraction": terms.attraction,
            "loss_repulsion": terms.repulsion,
            **gradients(loss, views=views),
            "weights_pos_anchor_view0": terms.positive_weights[0, :, 1:],
            "weights_neg_views01": terms.negative_weights[0, 1][others].view(n, n - 1),
        }
    if quantity == "cacr_rbf_momentum_loss":
        q = with_grad(inputs["q"])
        loss, weights = cacr_momentum(q, inputs["k"], params["T"])
        return {"loss": loss, "weights_pos": weights, **gradients(loss, q=q)}
    raise UnknownQuantity(quantity)


def mochi(quantity, inputs, params):
    if quantity != "mochi_loss":
        raise UnknownQuantity(quantity)
    q, queue = with_grad(inputs["q"]), inputs["queue"]
    mixture = Mixture(
        inputs["mix_i"].long(), inputs["mix_j"].long(), inputs["alpha"], inputs["mix_q"].long(), inputs["beta"]
    )
    loss = mochi_loss(q, inputs["k"], queue, mixture, params["tau"])
    pairs, with_query = mix(q, queue, mixture)
    unit = normalize(q)[..., None]
    return {
        "loss": loss,
        **gradients(loss, q=q),
        "hard_sets": hardest_rows(q, queue, params["N"]),
        "sim_mixed": (pairs @ unit).squeeze(-1),
        "sim_mixed_with_query": (with_query @ unit).squeeze(-1),
    }


def isogclr(quantity, inputs, params):
    dtype = inputs["steps"][0]["z1"].dtype
    if quantity == "isogclr_steps":
        method = ISogCLR(
            params["n"],
            temperature=params["tau_init"],
            low=params["tau_min"],
            high=params["tau_max"],
            rho=params["rho"],
            gamma=params["gamma"],
            learning_rate=params["eta"],
            momentum=params["beta"],
            clip=params["grad_tau_clip"],
            dtype=dtype,
        )
    elif quantity == "sogclr_steps":
        method = SogCLR(params["n"], temperature=params["tau"], gamma=params["gamma"], dtype=dtype)
    else:
        raise UnknownQuantity(quantity)
    results = []
    for step in inputs["steps"]:
        z1, z2, index = with_grad(step["z1"]), with_grad(step["z2"]), step["index"]
        before = method.temperatures[index]
        loss = method(z1, z2, index, first_visit=bool(step["first_epoch"]))
        result = {"loss": loss, **gradients(loss, z1=z1, z2=z2), "s": method.average}
        if quantity == "isogclr_steps":
            objective = robust_objective(z1, z2, before, params["rho"])
            result |= {"rgcl_objective_before_tau_update": objective}
            result |= {"tau": method.temperatures.clone(), "u": method.velocity.clone()}
        results.append(result)
    return {"steps": results}


def amcl(quantity, inputs, params):
    if quantity == "amcl_ntxent":
        heads, tau = with_grad(inputs["Z"]), with_grad(inputs["tau"])
        result = {}
        for form in ("max", "lse"):
            loss = amcl_loss(heads, tau, beta=params["beta"], form=form)
            found = gradients(loss, **{f"grad_Z_{form}": heads, f"grad_tau_{form}": tau})
            result |= {f"loss_{form}": loss, **found}
        return result
    if quantity == "optimal_positive_temperature":
        return {"tau_star": optimal_positive_temperature(inputs["sim"], params["d"], params["beta"])}
    if quantity == "pair_temperature":
        dim, hidden, width = inputs["V1"].shape[1], len(inputs["v1"]), len(inputs["v2"])
        network = PairTemperature(dim, hidden=hidden, width=width).to(inputs["V1"].dtype)
        names = {"0.weight": "V1", "0.bias": "v1", "2.weight": "V2", "2.bias": "v2"}
        network.phi.load_state_dict({ours: inputs[theirs] for ours, theirs in names.items()})
        first, second = network.phi(inputs["zi"]), network.phi(inputs["zj"])
        return {"tau": pair_temperature(first, second, low=params["lower"], high=params["upper"])}
    raise UnknownQuantity(quantity)


def feature_transformation(quantity, inputs, params):
    if quantity != "ft_moco_loss":
        raise UnknownQuantity(quantity)
    q = with_grad(inputs["q"])
    settings = {
        "extrapolation": inputs.get("lambda_ex", 1.0),
        "interpolation": inputs.get("lambda_in", 1.0),
        "permutation": inputs["perm"].long() if "perm" in inputs else None,
    }
    loss = ft_loss(q, inputs["k"], inputs["queue"], params["tau"], **settings)
    scores = transformed_scores(q, inputs["k"], inputs["queue"], **settings)
    return {
        "loss": loss,
        **gradients(loss, q=q),
        "scores": torch.cat([scores.positive[:, None], scores.negatives], 1),
        "pos_score_before": scores.before,
        "pos_score_after": scores.positive,
    }


def hallucinator(quantity, inputs, params):
    first = inputs["A1"]
    network = Hallucinator(first.shape[1] // 2, first.shape[0]).to(first.dtype)
    names = {"0": "1", "2": "2", "4": "3"}
    weights = {f"{ours}.weight": inputs[f"A{theirs}"] for ours, theirs in names.items()}
    biases = {f"{ours}.bias": inputs[f"a{theirs}"] for ours, theirs in names.items()}
    network.network.load_state_dict(weights | biases)
    if quantity == "hallucinator_moco":
        q = with_grad(inputs["q"])
        loss, queries = hallucinated_moco(
            network, q, inputs["k"], inputs["queue"].mT, params["ratio"], params["temperature"]
        )
        return {"loss": loss, "q_all": queries, **gradients(loss, q=q, A1=network.network[0].weight)}
    if quantity == "hallucinator_simclr":
        q, k = with_grad(inputs["q"]), with_grad(inputs["k"])
        loss = hallucinated_simclr(network, q, k, params["ratio"], params["temperature"])
        return {"loss": loss, **gradients(loss, q=q, k=k)}
    if quantity == "hallucinator_simsiam":
        p1, p2 = with_grad(inputs["p1"]), with_grad(inputs["p2"])
        loss = hallucinated_simsiam(network, p1, p2, inputs["z1"], inputs["z2"], params["ratio1"], params["ratio2"])
        return {"loss": loss, **gradients(loss, p1=p1, p2=p2)}
    raise UnknownQuantity(quantity)


def groco(quantity, inputs, params):
    if quantity != "groco_loss":
        raise UnknownQuantity(quantity)
    views, count = with_grad(inputs["views"]), params["n_pos_views"]
    settings = {"top_negatives": params["topk_neg"], "steepness": params["steepness"]}
    losses = groco_loss(views, positive_views=count, stop_gradient=params["stop_grad"], **settings)
    first = group_order(views[0], views[1:count], views[0], **settings)
    return {
        "loss": losses.mean(),
        **gradients(losses.mean(), views=views),
        "loss_per_anchor_view": losses,
        "scores_view0": first.scores,
        "prob_positive_rank_view0": first.positive_rank,
    }


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
