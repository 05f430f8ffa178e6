"""Adapters of Part 10: likelihood-displacement, preference-ft."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.alignment.likelihood_displacement import ches, pair_velocity, predicting_states, token_velocity
from cl_teach.alignment.preference_ft import (
    advantages,
    best_of_n,
    descend,
    divergence,
    divergence_gradient,
    dpo,
    ipo,
    margins,
    policy_gradient,
    ppo,
    rwr,
)

__all__ = ["likelihood_displacement", "preference_ft"]


def likelihood_displacement(quantity, inputs, params):
    if quantity == "ches_score":
        plus, minus = inputs["h_pref"], inputs["h_dispref"]
        mask_plus = predicting_states(plus.shape[1], inputs["last_prompt_idx_pref"])
        mask_minus = predicting_states(minus.shape[1], inputs["last_prompt_idx_dispref"])
        found = ches(plus, mask_plus, minus, mask_minus)
        return {"ches": found.score, "ches_length_normalised": found.length_normalized, "lengths": found.lengths}
    if quantity == "single_token_log_prob_velocity":
        single = token_velocity(
            inputs["W"], inputs["h"], params["y_plus"], params["y_minus"], params["beta"], params["ref_logratio"]
        )
        return {
            "loss": single.loss,
            "velocity": single.velocity,
            "pi": single.probabilities,
            "negative_slope": single.slope,
        }
    if quantity == "multi_token_log_prob_velocity":
        plus, minus = inputs["H_plus"], inputs["H_minus"]
        tokens = inputs["y_plus"], inputs["y_minus"]
        pair = pair_velocity(inputs["W"], plus, minus, *tokens, params["beta"], params["ref_logratio"])
        masks = [torch.ones(1, len(states), dtype=torch.bool) for states in (plus, minus)]
        return {
            "velocity_ln_pi_plus": pair.velocity,
            "velocity_from_W_only": pair.from_unembedding,
            "alpha_plus": pair.alpha_plus,
            "alpha_minus": pair.alpha_minus,
            "negative_slope": pair.slope,
            "ches": ches(plus[None], masks[0], minus[None], masks[1]).score[0],
        }
    raise UnknownQuantity(quantity)


def preference_ft(quantity, inputs, params):
    if quantity == "didactic_losses":
        theta, actions, rewards = with_grad(inputs["theta"]), inputs["actions"], inputs["rewards"]
        log_p = theta.log_softmax(1).gather(1, actions)
        old = inputs["old_theta"].log_softmax(1).gather(1, actions)
        reference = inputs["ref_logits"].log_softmax(0)[actions]
        pairs = margins(log_p, reference, rewards)
        losses = {
            "dpo": dpo(pairs, params["beta_dpo"]),
            "ipo": ipo(pairs, params["ipo_target"]),
            "best_of_n": best_of_n(log_p, rewards),
            "rwr": rwr(log_p, rewards, params["beta_rwr"]),
            "reinforce": policy_gradient(log_p, reference, rewards, params["beta_kl"]),
            "ppo": ppo(log_p, old, reference, rewards, params["beta_kl"], params["clip"]),
        }
        result = losses | {"advantages": advantages(rewards)}
        for name, loss in losses.items():
            result |= gradients(loss, **{f"grad_{name}": theta})
        return result
    if quantity == "mode_seeking_vs_covering":
        theta, target = inputs["theta"], inputs["target"]
        result = {}
        for kind in ("forward", "reverse"):
            path = descend(theta, target, kind, params["eta"], params["steps"])
            result |= {
                f"{kind}_kl": divergence(theta, target, kind),
                f"{kind}_grad": divergence_gradient(theta, target, kind),
                f"{kind}_pi_after_1": path[1],
                f"{kind}_pi_after_all_steps": path[-1],
            }
        return result
    raise UnknownQuantity(quantity)
