"""Adapter of AMCL (``amcl``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import normalize
from cl_teach.losses.amcl import (
    PairTemperature,
    amcl_barlow_twins,
    amcl_moco,
    amcl_simsiam,
    optimal_positive_temperature,
    regularizer,
)
from cl_teach.losses.amcl import amcl as amcl_loss

WEIGHTS = {"0.weight": "V1", "0.bias": "v1", "2.weight": "V2", "2.bias": "v2"}


def network(inputs, params):
    """The temperature network with the case's weights, and these by their golden names."""
    hidden, dim = inputs["V1"].shape
    module = PairTemperature(dim, hidden=hidden, low=params["lower"], high=params["upper"]).to(inputs["V1"].dtype)
    module.phi.load_state_dict({ours: inputs[theirs] for ours, theirs in WEIGHTS.items()})
    return module, {theirs: module.phi.get_parameter(ours) for ours, theirs in WEIGHTS.items()}


def amcl(quantity, inputs, params):
    beta = params.get("beta")
    if quantity == "amcl_ntxent":
        heads, tau = with_grad(inputs["Z"]), with_grad(inputs["tau"])
        result = {}
        for form in ("max", "lse"):
            loss = amcl_loss(heads, tau, beta=beta, form=form)
            found = gradients(loss, **{f"grad_Z_{form}": heads, f"grad_tau_{form}": tau})
            result |= {f"loss_{form}": loss, **found}
        return result
    if quantity == "optimal_positive_temperature":
        return {"tau_star": optimal_positive_temperature(inputs["sim"], params["d"], beta)}
    if quantity == "omega":
        tau = with_grad(inputs["tau"])
        omega = regularizer(tau, params["d"])
        return {"omega": omega, **gradients(omega.sum(), tau=tau)}
    if quantity not in ("pair_temperature", "amcl_simclr_topk", "amcl_moco_topk", "amcl_simsiam", "amcl_barlow"):
        raise UnknownQuantity(quantity)

    tau, weights = network(inputs, params)
    if quantity == "pair_temperature":
        return {"tau": tau.of_pairs(inputs["zi"][None], inputs["zj"][None])[0]}
    if quantity == "amcl_simsiam":
        p1, z2, p2, z1 = views = [with_grad(inputs[name]) for name in ("p1", "z2", "p2", "z1")]
        u1, v2, u2, v1 = (normalize(x) for x in (p1, z2.detach(), p2, z1.detach()))
        loss = amcl_simsiam(*views, tau.of_pairs(u1, v2), tau.of_pairs(u2, v1), beta=beta)
        return {"loss": loss, **gradients(loss, p1=p1, z2=z2, p2=p2, z1=z1, **weights)}
    if quantity == "amcl_barlow":
        z1, z2 = with_grad(inputs["z1"]), with_grad(inputs["z2"])
        loss = amcl_barlow_twins(z1, z2, tau(z1.mT, z2.mT), beta=beta, off_diagonal=params["lam"])
        return {"loss": loss, **gradients(loss, z1=z1, z2=z2, **weights)}

    result = {}
    for name, form in (("released", "released"), ("book", "topk")):
        if quantity == "amcl_simclr_topk":
            leaves = {"z1": with_grad(inputs["z1"]), "z2": with_grad(inputs["z2"])}
            heads = torch.cat(list(leaves.values()), 1)
            loss = amcl_loss(heads, tau(normalize(heads)), beta=beta, form=form, topk=params["topk"])
        else:
            leaves = {"q": with_grad(inputs["q"])}
            rows = leaves["q"], inputs["k"], inputs["queue"]
            q, k, queue = (normalize(x) for x in rows)
            warm = tau.of_pairs(q, k), tau(q, queue), tau(k, queue) if form == "released" else None
            loss = amcl_moco(*rows, *warm, beta=beta, form=form, topk=params["topk"])
        found = gradients(loss, **leaves, **weights)
        result |= {f"loss_{name}": loss, **{f"{key}_{name}": value for key, value in found.items()}}
    return result
