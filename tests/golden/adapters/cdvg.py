"""Adapter of CDvG (``cdvg``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.views.cdvg import bias_share, cdvg_loss, minimal_change


def cdvg(quantity, inputs, params):
    if quantity == "cdvg_loss":
        x = with_grad({name: inputs[name] for name in ("z1", "z2", "o1", "o2")})
        terms = cdvg_loss(*x.values(), inputs["y"], params["tau"], weight=params["lambda"])
        result = {"loss": terms.loss, "ce": terms.cross_entropy, "contrastive": terms.contrastive}
        return result | gradients(terms.loss, **x)
    if quantity == "minimal_change_translation":
        return {
            "x_translated": minimal_change(inputs["x"], inputs["w"], params["b"], inputs["target_score"]),
            "bias_energy_fraction": bias_share(inputs["w"], params["d_signal"]),
        }
    raise UnknownQuantity(quantity)
