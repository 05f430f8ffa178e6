"""Adapters of Part 2: contrastive-loss-behaviour, directpred, projection-head."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import cosine_similarity, sup_con
from cl_teach.evaluation import tolerance, uniformity
from cl_teach.theory.contrastive_loss_behaviour import (
    contrast_terms,
    literal_tolerance,
    penalty_entropy,
    simple_terms,
)
from cl_teach.theory.directpred import (
    DirectPredictor,
    byol_loss,
    decoupled_trajectory,
    fixed_points,
    linear_flow,
    matrix_trajectory,
)
from cl_teach.theory.linear_model import (
    minimizer,
    one_layer_weight,
    population_loss,
    spectral_loss,
    two_layer_weight,
    weight_decay_fixed_point,
)
from cl_teach.theory.projection_head import FixedHead, diagonal_loss, diagonal_model

__all__ = ["contrastive_loss_behaviour", "directpred", "projection_head"]


def contrastive_loss_behaviour(quantity, inputs, params):
    if quantity == "uniformity_tolerance":
        f, labels = inputs["f"], inputs["labels"]
        return {
            "uniformity": uniformity(f, t=params["t"]),
            "tolerance": tolerance(f, labels),
            "tolerance_literal": literal_tolerance(f, labels),
        }

    f, g = with_grad(inputs["f"]), with_grad(inputs["g"])
    s = cosine_similarity(f, g)
    alpha = params.get("alpha", 1.0)
    if quantity in ("contrastive_loss", "hard_contrastive_loss"):
        terms = contrast_terms(s, params["tau"], alpha=alpha)
        extra = {"P": terms.probability, "entropy_r": penalty_entropy(terms.penalty)}
    elif quantity in ("simple_loss", "hard_simple_loss"):
        terms = simple_terms(s, negative_weight=params["lambda"], alpha=alpha)
        extra = {}
    else:
        raise UnknownQuantity(quantity)
    loss = terms.loss.mean()
    return {
        "loss": loss,
        "loss_anchor": terms.loss,
        "r": terms.penalty,
        "s_alpha": terms.threshold,
        **extra,
        **gradients(loss, s=s, f=f, g=g),
    }


def directpred(quantity, inputs, params):
    if quantity == "directpred_predictor":
        result = {}
        for form, name in (("code", "Wp"), ("paper", "Wp_paper")):
            width = inputs["f1"].shape[-1]
            predictor = DirectPredictor(width, decay=params["rho"], epsilon=params["eps"], form=form).to(
                inputs["f1"].dtype
            )
            for z1, z2 in zip(inputs["f1"], inputs["f2"], strict=True):
                predictor.update(z1, z2)
            result |= {"F": predictor.correlation, name: predictor.weight}
        return result
    if quantity == "byol_regression_loss":
        z1, z2, weight = with_grad([inputs["z1"], inputs["z2"], inputs["Wp"]])
        loss = byol_loss(z1 @ weight.mT, z2 @ weight.mT, inputs["t1"], inputs["t2"])
        return {"loss": loss, **gradients(loss, z1=z1, z2=z2, Wp=weight)}
    if quantity == "linear_byol_rhs":
        flow = linear_flow(
            inputs["W"],
            inputs["Wp"],
            inputs["Wa"],
            inputs["X"],
            inputs["Xprime"],
            predictor_rate=params["alpha_p"],
            target_rate=params["beta"],
            weight_decay=params["eta"],
        )
        return {"dW": flow.online, "dWp": flow.predictor, "dWa": flow.target}

    if quantity not in ("decoupled_trajectory", "matrix_trajectory"):
        raise UnknownQuantity(quantity)
    settings = {
        "predictor_rate": params["alpha_p"],
        "noise": params["sigma2"],
        "weight_decay": params["eta"],
        "target_scale": params["tau"],
    }
    if quantity == "decoupled_trajectory":
        p, s = decoupled_trajectory(inputs["p0"], inputs["s0"], inputs["times"], **settings)
        rest = fixed_points(noise=params["sigma2"], weight_decay=params["eta"], target_scale=params["tau"])
        return {"p": p, "s": s, "p_plus": rest.stable, "p_minus": rest.unstable}
    predictors, correlations = matrix_trajectory(inputs["Wp0"], inputs["F0"], inputs["times"], **settings)
    commutator = correlations @ predictors - predictors @ correlations
    return {
        "commutator_fro": torch.linalg.matrix_norm(commutator),
        "eig_Wp": torch.linalg.eigvalsh(predictors),
        "eig_F": torch.linalg.eigvalsh(correlations),
    }


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
