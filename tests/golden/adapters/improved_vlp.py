"""Adapter of CLIP-Rocket (``improved-vlp``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import clip_loss, cosine_similarity, sinkhorn
from cl_teach.crossmodal.improved_vlp import Views, barlip, clip_rocket, directed_contrast, siamlip, swalip


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
