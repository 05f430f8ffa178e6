"""Adapter of WhitenedCSE (``whitenedcse``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.language.whitenedcse import WhitenedCSE, group_whiten


def whitenedcse(quantity, inputs, params):
    if quantity != "whitenedcse_sgw_and_loss":
        raise UnknownQuantity(quantity)
    views = with_grad([inputs["h1"], inputs["h2"], inputs["h3"]])
    shuffles = torch.stack([inputs["perm1"], inputs["perm2"], inputs["perm3"]])
    groups, ridge = params["groups"], params["eps"]
    result = {f"y{v + 1}": group_whiten(views[v], groups, shuffles[v], ridge=ridge) for v in range(3)}
    for detach, name in ((True, "detached"), (False, "full")):
        method = WhitenedCSE(
            views[0].shape[1], groups, temperature=params["temperature"], ridge=ridge, detach=detach
        ).double()
        method.load_state_dict({"head.weight": inputs["proj_W"], "head.bias": inputs["proj_b"]})
        terms = method.terms(views, shuffles)
        loss = terms.sum()
        result |= {"loss12": terms[0], "loss13": terms[1], "loss": loss}
        result |= gradients(loss, **{f"grad_h{v + 1}_{name}": view for v, view in enumerate(views)})
    return result
