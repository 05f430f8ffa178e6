"""Adapter of Constrained RLHF (``constrained-rlhf``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.alignment.constrained_rlhf import mixed_advantages, saturating_reward, value_loss
from cl_teach.core.multipliers import Multipliers, multiplier_loss, squash, violations
from cl_teach.core.policy_gradient import clipped_policy_loss
from cl_teach.core.search import nelder_mead


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
    if quantity == "ppo_sat_reward":
        return {"reward": saturating_reward(inputs["rewards"], inputs["theta"], inputs["coefficients"])}
    raise UnknownQuantity(quantity)
