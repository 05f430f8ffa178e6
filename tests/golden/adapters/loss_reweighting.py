"""Adapter of Loss reweighting (``loss-reweighting``)."""

from __future__ import annotations

from helpers import UnknownQuantity

from cl_teach.alignment.loss_reweighting import effective_sample_size, place_in_range, reweighted_loss


def loss_reweighting(quantity, inputs, params):
    if quantity == "sample_weights":
        result = {"h": place_in_range(inputs["losses"])}
        for strategy in params["strategies"]:
            for temperature in params["r"]:
                found = reweighted_loss(inputs["losses"], temperature, strategy=strategy)
                result[f"{strategy}_r{float(temperature)}"] = {
                    "weights": found.weights,
                    "loss": found.loss,
                    "ess": effective_sample_size(found.weights),
                }
        return result
    raise UnknownQuantity(quantity)
