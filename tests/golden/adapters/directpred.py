"""Adapter of DirectPred (``directpred``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.theory.directpred import DirectPredictor, byol_loss
from cl_teach.theory.linear_byol import decoupled_trajectory, fixed_points, linear_flow, matrix_trajectory


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
