"""Adapter of Loss behavior (``contrastive-loss-behaviour``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import cosine_similarity
from cl_teach.evaluation import tolerance, uniformity
from cl_teach.theory.contrastive_loss_behaviour import contrast_terms, literal_tolerance, penalty_entropy, simple_terms


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
