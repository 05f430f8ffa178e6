"""Adapter of Projection head (``projection-head``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import sup_con
from cl_teach.theory.linear_model import (
    minimizer,
    one_layer_weight,
    population_loss,
    spectral_loss,
    two_layer_weight,
    weight_decay_fixed_point,
)
from cl_teach.theory.projection_head import FixedHead, diagonal_loss, diagonal_model


def projection_head(quantity, inputs, params):
    if quantity == "linear_population":
        w1, w2 = with_grad(inputs["W1"]), with_grad(inputs["W2"])
        loss = population_loss(w2 @ w1, inputs["M"], inputs["C"])
        best = minimizer(inputs["M"], inputs["C"], params["rank"])
        return {
            "loss": loss,
            **gradients(loss, W1=w1, W2=w2),
            "WtW_star": best.gram,
            "pre_gram_star": best.pre_gram,
            "loss_star": best.loss,
        }
    if quantity == "feature_flow":
        c, m, times, start = inputs["c"], inputs["m"], inputs["times"], params["s0"]
        return {
            "s_two_layer": two_layer_weight(times, c, m, start),
            "w2_one_layer": one_layer_weight(times, c, m, start**2),
            "s_star": weight_decay_fixed_point(c, m, 0.0),
        }
    if quantity == "fixed_head_supcon":
        r = with_grad(inputs["r"])
        z = FixedHead(r.shape[1], params["kappa"])(r)
        loss = sup_con(z, inputs["labels"], params["temperature"])
        return {"z": z, "loss": loss, **gradients(loss, r=r)}
    if quantity == "spectral_batch_loss":
        w1, w2 = with_grad(inputs["W1"]), with_grad(inputs["W2"])
        loss = spectral_loss(inputs["xa"] @ w1.mT @ w2.mT, inputs["xb"] @ w1.mT @ w2.mT)
        return {"loss": loss, **gradients(loss, W1=w1, W2=w2)}
    if quantity == "diagonal_nonlinear":
        w1, w2 = with_grad(inputs["w1"]), with_grad(inputs["w2"])
        threshold = with_grad(torch.tensor(params["b"], dtype=w1.dtype))
        model = diagonal_model(w1, w2, inputs["phi"], threshold)
        loss = diagonal_loss(w1, w2, inputs["phi"], inputs["alpha"], threshold)
        return {
            "loss": loss,
            **gradients(loss, w1=w1, w2=w2, b=threshold),
            "z": model.output,
            "pre": model.pre,
            "active": model.active,
        }
    if quantity == "weight_decay_fixed_point":
        return {"s_star": weight_decay_fixed_point(inputs["c"], inputs["m"], params["lam"])}
    raise UnknownQuantity(quantity)
