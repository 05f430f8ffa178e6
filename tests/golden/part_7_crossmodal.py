"""Adapters of Part 7: improved-vlp, cwcl, one-to-k."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import clip_loss, cosine_similarity, sinkhorn
from cl_teach.crossmodal.cwcl import cwcl_terms, intra_modal_weights
from cl_teach.crossmodal.improved_vlp import Views, barlip, clip_rocket, directed_contrast, siamlip, swalip
from cl_teach.crossmodal.one_to_k import mean_rank_variance, one_to_k_terms, ranks
from cl_teach.crossmodal.one_to_k import one_to_k as one_to_k_loss

__all__ = ["cwcl", "improved_vlp", "one_to_k"]


def improved_vlp(quantity, inputs, params):
    if quantity == "clip_loss":
        image, text, log_scale = with_grad([inputs["image"], inputs["text"], inputs["log_scale"]])
        loss = clip_loss(image, text, log_scale)
        return {
            "loss": loss,
            **gradients(loss, image=image, text=text, log_scale=log_scale),
            "loss_i2t": directed_contrast(image, text, log_scale),
            "loss_t2i": directed_contrast(text, image, log_scale),
        }
    x = {name: with_grad(value) for name, value in inputs.items()}

    def local(prefix):
        return [x[f"{prefix}_{k}"] for k in range(params["num_augs"])]

    if quantity == "clip_rocket_loss":
        image, text = Views(x["z_image"], local("h_image")), Views(x["z_text"], local("h_text"))
        smoothing, doubled = params["label_smoothing"], params["reduction"] == "sum"
        terms = clip_rocket(image, text, x["log_scale"], x["log_scale_h"], smoothing, doubled=doubled)
        return {
            "loss": terms.loss,
            "loss_image_global": terms.image_global,
            "loss_text_global": terms.text_global,
            "loss_image_local": terms.image_local,
            "loss_text_local": terms.text_local,
            **gradients(terms.loss, **x),
        }
    if quantity == "siamlip_loss":
        names = ("p_image", "p_text", "v_image", "v_text")
        loss = siamlip(*(Views(x[name], local(name)) for name in names))
        return {"loss": loss, **gradients(loss, **x)}
    if quantity == "barlip_loss":
        loss = barlip(x["v_image"], x["v_text"], params["lambd"], params["scale"])
        return {"loss": loss, **gradients(loss, **x)}
    if quantity == "swalip_loss":
        image, text = ([x[f"h_{kind}_0"], x[f"h_{kind}_1"]] for kind in ("image", "text"))
        settings = {"epsilon": params["sinkhorn_eps"], "iterations": params["sinkhorn_iters"]}
        loss = swalip(image, text, x["log_scale_h"], **settings)
        target = sinkhorn(cosine_similarity(image[0], text[0]), **settings)
        return {"loss": loss, "sinkhorn_target_00": target, **gradients(loss, **x)}
    raise UnknownQuantity(quantity)


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
