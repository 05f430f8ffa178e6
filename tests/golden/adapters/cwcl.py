"""Adapter of CWCL (``cwcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.crossmodal.cwcl import cwcl_terms, intra_modal_weights


def cwcl(quantity, inputs, params):
    if quantity != "cwcl_loss":
        raise UnknownQuantity(quantity)
    p, log_scale = with_grad([inputs["p"], inputs["log_scale"]])
    weights = intra_modal_weights(inputs.get("weight_features", inputs["q"]))
    terms = cwcl_terms(p, inputs["q"], log_scale, weights)
    return {
        "loss": terms.loss,
        "loss_cwcl": terms.weighted,
        "loss_cl": terms.plain,
        "weights": weights,
        **gradients(terms.loss, p=p, log_scale=log_scale),
    }
