"""Adapter of CHES (``likelihood-displacement``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity

from cl_teach.alignment.likelihood_displacement import ches, pair_velocity, token_velocity
from cl_teach.models.sequence import predicting_states


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
