"""Adapter of Contrastive UCB (``contrastive-ucb``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core.bonus import RunningBonus, exploration_bonus
from cl_teach.core.planning import matrix_game_value, plan, plan_game
from cl_teach.signals.contrastive_ucb import contrastive_loss, density_ratio, expected_contrastive_loss, low_rank_model


def contrastive_ucb(quantity, inputs, params):
    if quantity == "cucb_contrastive_loss":
        phi, psi = with_grad(inputs["phi"]), with_grad(inputs["psi_next"])
        loss = contrastive_loss(phi, psi, inputs["y"])
        return {"loss": loss, **gradients(loss, phi=phi, psi_next=psi)}
    if quantity == "cucb_population_optimum":
        best = density_ratio(inputs["P"], inputs["negative_dist"])
        known = (inputs["P"], inputs["negative_dist"], inputs["data_dist"])
        perturbed = expected_contrastive_loss(inputs["U_perturbed"], *known)
        return {"U_star": best, "loss_star": expected_contrastive_loss(best, *known), "loss_perturbed": perturbed}
    if quantity == "cucb_running_bonus":
        bonus = RunningBonus(inputs["features"].shape[-1], params["ridge"], params["bonus_factor"])
        return {"bonus": torch.stack([bonus(batch) for batch in inputs["features"]])}
    constants = (params.get("ridge"), params.get("bonus_scale"), params.get("bonus_cap"))
    if quantity == "cucb_optimistic_planning":
        model = low_rank_model(inputs["phi"], inputs["psi"], inputs["negative_dist"])
        bonus = exploration_bonus(model.features, inputs["data_sa"], *constants)
        found = plan(inputs["reward"], model.transition, bonus, params["value_cap"])
        return {"P_hat": model.transition, "bonus": bonus, "Q": found.q, "V": found.v, "policy": found.policy}
    if quantity == "cucb_markov_game_backup":
        model = low_rank_model(inputs["phi"], inputs["psi"], inputs["negative_dist"])
        bonus = exploration_bonus(model.features, inputs["data_sab"], *constants)
        found = plan_game(inputs["reward"], model.transition, bonus, params["value_cap"], inputs["joint_policy"])
        value = matrix_game_value(inputs["reward"][0, 0])
        bounds = {"V_upper": found.v_upper, "V_lower": found.v_lower, "matrix_game_value_r00": value}
        return {"Q_upper": found.q_upper, "Q_lower": found.q_lower, **bounds}
    raise UnknownQuantity(quantity)
