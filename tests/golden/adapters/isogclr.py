"""Adapter of iSogCLR (``isogclr``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.isogclr import ISogCLR, SogCLR, robust_objective


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
