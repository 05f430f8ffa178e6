"""Adapter of GenView (``genview``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.models.foreground import (
    principal_direction,
    project,
)
from cl_teach.views.genview import (
    noise_level,
    pair_quality,
    pool_patches,
    quality_weights,
    soft_masks,
    weighted_moco_loss,
    weighted_simsiam_loss,
)


def genview(quantity, inputs, params):
    if quantity == "pair_quality_weights":
        tokens, direction = inputs["F1"], inputs["v"]
        front, back = soft_masks(tokens, direction, eps=params["eps"])
        quality = pair_quality(tokens, inputs["F2"], direction, eps=params["eps"])
        result = {"mf1": front, "mb1": back, "zf1": pool_patches(tokens, front), "zb1": pool_patches(tokens, back)}
        result |= {"sf": quality.foreground, "sb": quality.background, "q": quality.quality}
        return result | {"w": quality_weights(quality.quality, params["gamma"])}
    if quantity == "weighted_mocov3_infonce":
        q1, q2 = with_grad(inputs["q1"]), with_grad(inputs["q2"])
        arguments = (q1, q2, inputs["k1"], inputs["k2"], inputs["w"], params["T"])
        loss = weighted_moco_loss(*arguments, scale=params["loss_weight"])
        return {"loss": loss, **gradients(loss, q1=q1, q2=q2)}
    if quantity == "weighted_simsiam":
        p1, p2 = with_grad(inputs["p1"]), with_grad(inputs["p2"])
        loss = weighted_simsiam_loss(p1, p2, inputs["z1"], inputs["z2"], inputs["w"])
        return {"loss": loss, **gradients(loss, p1=p1, p2=p2)}
    if quantity == "adaptive_noise_level":
        return {"level": noise_level(inputs["r"], tuple(params["edges"]), tuple(params["levels"]))}
    if quantity == "pca_direction":
        direction, mean = principal_direction(inputs["tokens"])
        return {"v_up_to_sign": direction, "mean": mean, "projection_uncentred": project(inputs["tokens"], direction)}
    raise UnknownQuantity(quantity)
