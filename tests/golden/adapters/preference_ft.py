"""Adapter of Preference fine-tuning (``preference-ft``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.alignment.preference_ft import (
    advantages,
    best_of_n,
    dpo,
    ipo,
    margins,
    policy_gradient,
    ppo,
    rwr,
)
from cl_teach.core.divergences import descend, divergence, divergence_gradient


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
            "reinforce": policy_gradient(log_p, reference, rewards, beta_kl=params["beta_kl"]),
            "ppo": ppo(log_p, old, reference, rewards, beta_kl=params["beta_kl"], clip=params["clip"]),
        }
        result = losses | {"advantages": advantages(rewards)}
        for name, loss in losses.items():
            result |= gradients(loss, **{f"grad_{name}": theta})
        return result
    if quantity == "mode_seeking_vs_covering":
        theta, target = inputs["theta"], inputs["target"]
        result = {}
        for kind in ("forward", "reverse"):
            path = descend(theta, target, kind, step_size=params["eta"], steps=params["steps"])
            result |= {
                f"{kind}_kl": divergence(theta, target, kind),
                f"{kind}_grad": divergence_gradient(theta, target, kind),
                f"{kind}_pi_after_1": path[1],
                f"{kind}_pi_after_all_steps": path[-1],
            }
        return result
    raise UnknownQuantity(quantity)
