"""Adapter of DebCSE (``debcse``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import cosine_similarity
from cl_teach.core.surface import surface_similarity
from cl_teach.language.debcse import debcse_loss, effective_choices, pair_probabilities


def debcse(quantity, inputs, params):
    if quantity == "debcse_sampling_probabilities":
        surface = surface_similarity([sentence.tolist() for sentence in inputs["tokens"]])
        semantic = cosine_similarity(inputs["embeddings"], inputs["embeddings"])
        tables = pair_probabilities(
            surface,
            semantic,
            sharpness=params["lam"],
            power=params["nu"],
            smallest_propensity=params["p_min"],
            largest_weight=params["w_cap"],
        )
        return {
            "surface": surface,
            "semantic": semantic,
            "q_pos": tables.positives,
            "q_neg": tables.negatives,
            "ess_pos": effective_choices(tables.positives),
            "ess_neg": effective_choices(tables.negatives),
        }
    if quantity == "debcse_hard_negative_infonce":
        leaves = with_grad({name: inputs[name] for name in ("h", "h_pos", "h_neg")})
        loss = debcse_loss(leaves["h"], leaves["h_pos"], leaves["h_neg"], params["tau"])
        return {"loss": loss, **gradients(loss, **leaves)}
    raise UnknownQuantity(quantity)
