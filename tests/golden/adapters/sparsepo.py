"""Adapter of SparsePO (``sparsepo``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.alignment.sparsepo import TokenWeights, activation_mask, sparse_preference_loss, token_terms
from cl_teach.core.preference import preference_loss
from cl_teach.models.token_mask import TokenMask


def sparsepo(quantity, inputs, params):
    if quantity == "dpo_loss":
        x = with_grad(inputs)
        gap, reference_gap = x["logp_w"] - x["logp_l"], x["ref_logp_w"] - x["ref_logp_l"]
        result = {}
        for kind, prefix in (("dpo", ""), ("ipo", "ipo_")):
            loss = preference_loss(gap, reference_gap, params["beta"], kind=kind).mean()
            found = gradients(loss, logp_w=x["logp_w"], logp_l=x["logp_l"])
            result |= {f"{prefix}{name}": value for name, value in ({"loss": loss} | found).items()}
        return result
    if quantity == "sparsepo_loss":
        x = with_grad(inputs)
        sides = [
            token_terms(x[f"logits_{s}"], x[f"ref_logits_{s}"], x[f"labels_{s}"], x[f"mask_{s}"]) for s in ("c", "r")
        ]
        weights = [TokenWeights(x[f"mu_{s}"], x[f"md_{s}"]) for s in ("c", "r")]
        prices = {"lambda_u": params["lambda_u"], "lambda_d": params["lambda_d"]}
        found = sparse_preference_loss(*sides, *weights, params["beta"], **prices)
        leaves = {f"{name}_{s}": x[f"{name}_{s}"] for name in ("logits", "mu", "md") for s in ("c", "r")}
        return {
            "loss": found.loss,
            "u": found.u,
            "delta": found.delta,
            "loss_per_pair": found.per_pair,
            **gradients(found.loss, **leaves),
        }
    if quantity == "mapo_mask_and_loss":
        x = with_grad(inputs)
        masks = {s: activation_mask(x[f"activations_{s}"], x[f"mask_{s}"]) for s in ("c", "r")}
        sides = [token_terms(x[f"logits_{s}"], x[f"ref_logits_{s}"], x[f"labels_{s}"], x[f"mask_{s}"]) for s in masks]
        found = sparse_preference_loss(*sides, *(TokenWeights(m, m) for m in masks.values()), params["beta"])
        return {
            "mask_c": masks["c"],
            "mask_r": masks["r"],
            "loss": found.loss,
            "u": found.u,
            "delta": found.delta,
            **gradients(found.loss, logits_c=x["logits_c"], logits_r=x["logits_r"]),
        }
    if quantity == "learned_mask":
        network = TokenMask(*inputs["w"].shape, dropout=0.0).to(inputs["w"].dtype)
        names = {"norm.weight": "ln_weight", "norm.bias": "ln_bias", "weight": "w", "bias": "b", "mixer": "mixer"}
        network.load_state_dict({own: inputs[name] for own, name in names.items()})
        network.norm.eps = params["ln_eps"]
        mask = network(inputs["hidden_states"])
        found = gradients(
            (mask * inputs["cotangent"]).sum(), mixer=network.mixer, w=network.weight, ln_weight=network.norm.weight
        )
        return {
            "mask": mask,
            "sparsity": (mask == 0).double().mean(),
            "grad_mixer": found["grad_mixer"],
            "grad_w0": found["grad_w"][0],
            "grad_ln_weight": found["grad_ln_weight"],
        }
    raise UnknownQuantity(quantity)
