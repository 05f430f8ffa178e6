"""Adapters of Part 7: improved-vlp (its base loss), cwcl, one-to-k."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import clip_loss, info_nce
from cl_teach.crossmodal.cwcl import cwcl_terms, intra_modal_weights
from cl_teach.crossmodal.one_to_k import mean_rank_variance, one_to_k_terms, ranks
from cl_teach.crossmodal.one_to_k import one_to_k as one_to_k_loss

__all__ = ["cwcl", "improved_vlp", "one_to_k"]


def improved_vlp(quantity, inputs, params):
    if quantity != "clip_loss":
        raise UnknownQuantity(quantity)
    image, text, log_scale = with_grad([inputs["image"], inputs["text"], inputs["log_scale"]])
    loss = clip_loss(image, text, log_scale)
    return {
        "loss": loss,
        **gradients(loss, image=image, text=text, log_scale=log_scale),
        "loss_i2t": info_nce(image, text, None, (-log_scale).exp()),
        "loss_t2i": info_nce(text, image, None, (-log_scale).exp()),
    }


def cwcl(quantity, inputs, params):
    if quantity != "cwcl_loss":
        raise UnknownQuantity(quantity)
    p, log_scale = with_grad([inputs["p"], inputs["log_scale"]])
    weights = intra_modal_weights(inputs.get("weight_features", inputs["q"]))
    terms = cwcl_terms(p, inputs["q"], log_scale, weights)
    loss = terms.weighted + terms.plain
    return {
        "loss": loss,
        "loss_cwcl": terms.weighted,
        "loss_cl": terms.plain,
        "weights": weights,
        **gradients(loss, p=p, log_scale=log_scale),
    }


def one_to_k(quantity, inputs, params):
    if quantity == "mrv":
        similarity = inputs["sim_t2i"]
        rank = ranks(similarity)
        hits = (rank == 0).to(similarity.dtype).mean(0)
        return {"rank": rank, "mrv": mean_rank_variance(similarity), "recall_at_1_per_language": hits}
    if quantity not in ("one_to_k_loss_balanced", "one_to_k_loss_ccrk"):
        raise UnknownQuantity(quantity)
    image, text, tau = with_grad([inputs["image"], inputs["text"], inputs["tau"]])
    loss = one_to_k_loss(image, text, tau, released=quantity == "one_to_k_loss_ccrk")
    terms = one_to_k_terms(image, text, tau)
    return {
        "loss": loss,
        "loss_i2t": terms.image_to_text,
        "loss_t2i": terms.text_to_image,
        **gradients(loss, image=image, text=text, tau=tau),
    }
