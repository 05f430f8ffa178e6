"""Adapter of Cold-start CL (``cold-start``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.cold_start import cold_start as cold_start_terms
from cl_teach.models.fields import FusionGate


def cold_start(quantity, inputs, params):
    if quantity != "coldstart_gate_fusion_and_losses":
        raise UnknownQuantity(quantity)
    users, items, unseen = (with_grad(inputs[name]) for name in ("user_fields", "item_fields", "neg_item_fields"))
    gate = FusionGate(users.shape[2], len(inputs["b1"]), temperature=params["gate_temperature"]).to(users)
    gate.load_state_dict(
        {"first.weight": inputs["W1"], "first.bias": inputs["b1"], "second.weight": inputs["w2"][None, :]}
    )
    user, item, other = (
        gate(fields, inputs[name].bool())
        for fields, name in ((users, "user_present"), (items, "item_present"), (unseen, "neg_present"))
    )
    known = inputs["known_positive"].bool()
    terms = cold_start_terms(user.z, item.z, other.z, known, params["tau"], weight=params["lam"])
    found = gradients(
        terms.loss,
        user_fields=users,
        item_fields=items,
        neg_item_fields=unseen,
        W1=gate.first.weight,
        b1=gate.first.bias,
        w2=gate.second.weight,
    )
    return {
        "gate_user": user.gate,
        "gate_item": item.gate,
        "z_user": user.z,
        "z_item": item.z,
        "loss_cl": terms.contrast,
        "loss_bpr": terms.ranking,
        "loss": terms.loss,
        **found,
        "grad_w2": found["grad_w2"][0],
    }
