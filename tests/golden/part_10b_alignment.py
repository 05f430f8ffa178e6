"""Adapters of Part 10: sparsepo, constrained-rlhf, loss-reweighting, wagle."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.nn.functional import cross_entropy

from cl_teach.alignment.constrained_rlhf import (
    Multipliers,
    clipped_policy_loss,
    mixed_advantages,
    multiplier_loss,
    squash,
    value_loss,
    violations,
)
from cl_teach.alignment.loss_reweighting import effective_sample_size, place_in_range, reweighted_loss
from cl_teach.alignment.sparsepo import TokenMask, TokenWeights, activation_mask, sparse_preference_loss, token_terms
from cl_teach.alignment.wagle import (
    attribution,
    grad_diff,
    keep_largest,
    loss_gradients,
    mean_token_loss,
    npo,
    with_retain,
)
from cl_teach.core.preference import preference_loss
from cl_teach.core.search import nelder_mead
from cl_teach.models.sequence import token_log_probability

__all__ = ["constrained_rlhf", "loss_reweighting", "sparsepo", "wagle"]


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


def constrained_rlhf(quantity, inputs, params):
    if quantity == "constrained_ppo_step":
        x = with_grad(inputs)
        kind = {"tanh": "equality", "sigmoid": "inequality"}[params["squash"]]
        weights = squash(x["lam"], kind)
        mixed = mixed_advantages(inputs["A_constraint"], inputs["A_kl"], weights)
        policy = clipped_policy_loss(x["log_prob"], inputs["old_log_prob"], mixed, params["clip"])
        baselines = value_loss(
            x["values"],
            inputs["returns_constraint"],
            inputs["returns_kl"],
            constraint=params["vf_constraint"],
            kl=params["vf_kl"],
        )
        violation = violations(inputs["reward_to_go"], inputs["theta"])
        multipliers = Multipliers(
            inputs["theta"],
            kind,
            initial=inputs["lam"],
            learning_rate=params["lagrange_lr"],
            momentum=params["lagrange_momentum"],
            max_norm=params["max_grad_norm"],
        )
        for _ in range(params["n_updates"]):
            multipliers.update(inputs["reward_to_go"])
        return {
            "squashed": weights,
            "mixed_advantages": mixed,
            "policy_loss": policy,
            "value_loss": baselines,
            **gradients(policy, log_prob=x["log_prob"]),
            **gradients(baselines, values=x["values"]),
            "violations": violation,
            **gradients(multiplier_loss(x["lam"], violation, kind), lam=x["lam"]),
            "lam_after": multipliers.raw,
        }
    if quantity == "nelder_mead_trace":
        scales, center = inputs["scales"], inputs["center"]

        def objective(point):
            u = point - center
            bowl = (scales * u**2 + params["quartic"] * u**4).sum()
            return (bowl + params["cross"] * (scales[0] * scales[1]).sqrt() * u[0] * u[1]).item()

        found = nelder_mead(
            objective,
            inputs["simplex0"],
            max_evaluations=params["max_evals"],
            reflection=params["alpha"],
            expansion=params["gamma"],
            contraction=params["rho"],
            shrink=params["sigma"],
            cache_tolerance=params["cache_tol"],
            tolerance=params["f_tol"],
        )
        return {
            "sorted_simplex_per_iteration": found.simplices,
            "n_evals": found.evaluations,
            "best": found.best,
            "best_value": found.best_value,
        }
    raise UnknownQuantity(quantity)


def loss_reweighting(quantity, inputs, params):
    if quantity == "sample_weights":
        result = {"h": place_in_range(inputs["losses"])}
        for strategy in params["strategies"]:
            for temperature in params["r"]:
                found = reweighted_loss(inputs["losses"], temperature, strategy)
                result[f"{strategy}_r{float(temperature)}"] = {
                    "weights": found.weights,
                    "loss": found.loss,
                    "ess": effective_sample_size(found.weights),
                }
        return result
    raise UnknownQuantity(quantity)


def wagle(quantity, inputs, params):
    if quantity == "weight_attribution":
        parameters = {name: with_grad(inputs[name]) for name in ("W", "b")}

        def loss(batch):
            return cross_entropy(batch[0] @ parameters["W"].mT + parameters["b"], batch[1])

        forget, retain = (
            loss_gradients(loss, parameters, zip(inputs[f"X_{s}"], inputs[f"y_{s}"], strict=True), reduction="sum")
            for s in ("forget", "retain")
        )
        scores = attribution(parameters, forget, retain, params["gamma"])
        first = attribution(parameters, forget, retain, float("inf"))
        return {
            "attribution_W": scores["W"],
            "attribution_b": scores["b"],
            "grad_forget_W": forget["W"],
            "grad_forget_b": forget["b"],
            "grad_retain_W": retain["W"],
            "grad_retain_b": retain["b"],
            "first_term_W": first["W"],
            "masks": {str(ratio): keep_largest(scores, ratio) for ratio in params["ratios"]},
        }
    if quantity == "unlearning_objectives":
        x, labels = with_grad(inputs), inputs["labels_forget"]
        forget, retain = (mean_token_loss(x[f"logits_{s}"], x[f"labels_{s}"]) for s in ("forget", "retain"))
        before = x["ref_logits_forget"]
        log_p, reference = (token_log_probability(logits, labels).sum(1) for logits in (x["logits_forget"], before))
        weight = params["lam"]
        difference = grad_diff(forget, retain, weight)
        negative = with_retain(npo(log_p, reference, params["beta"]), retain, weight)
        released = with_retain(npo(-forget[None], -mean_token_loss(before, labels)[None], 0.1), retain, weight)
        refused = with_retain(mean_token_loss(x["logits_forget"], inputs["labels_refusal"]), retain, weight)
        logits = {"logits_forget": x["logits_forget"], "logits_retain": x["logits_retain"]}
        return {
            "graddiff": difference,
            **gradients(difference, **{f"grad_graddiff_{name}": leaf for name, leaf in logits.items()}),
            "npo": negative,
            **gradients(negative, grad_npo_logits_forget=x["logits_forget"]),
            "npo_code_batchmean_beta01": released,
            "po": refused,
            **gradients(refused, grad_po_logits_forget=x["logits_forget"]),
        }
    raise UnknownQuantity(quantity)
