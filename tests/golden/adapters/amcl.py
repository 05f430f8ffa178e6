"""Adapter of AMCL (``amcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.amcl import PairTemperature, optimal_positive_temperature, pair_temperature
from cl_teach.losses.amcl import amcl as amcl_loss


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
