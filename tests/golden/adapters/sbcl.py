"""Adapter of SBCL (``sbcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.labels.sbcl import (
    class_concentration,
    class_temperatures,
    scaled_sup_con,
    subclass_counts,
    subclass_terms,
    two_level_plain,
)
from cl_teach.labels.sbcl import sbcl as sbcl_loss


def _rows(x):
    """``(N, views, d)`` to ``(views * N, d)``, first views first."""
    return x.transpose(0, 1).flatten(0, 1)


def sbcl(quantity, inputs, params):
    temperature = params["temperature"]
    if quantity == "sbcl_class_temperatures":
        labels = inputs["labels"]
        counts = subclass_counts(labels.bincount(), params["min_subclass_size"])
        concentration = class_concentration(inputs["z"], labels, log_offset=params["log_offset"])
        found = class_temperatures(concentration, counts, temperature, clip=tuple(params["clip_percentiles"]))
        return {"num_subclasses": counts, "concentration": concentration, "class_temperatures": found}

    x, labels = with_grad(inputs["x"]), inputs["labels"].repeat(2)
    base = params["base_temperature"]
    if quantity in ("supcon_out_loss", "supcon_in_loss"):
        variant = "out" if quantity == "supcon_out_loss" else "in"
        labels = inputs["labels"].repeat(x.shape[1])
        loss = scaled_sup_con(_rows(x), labels, temperature, variant=variant, base_temperature=base)
        return {"loss": loss, **gradients(loss, x=x)}
    subclasses = inputs["subclasses"].repeat(2)
    if quantity == "sbcl_loss":
        temperatures = inputs["class_temperatures"]
        settings = {"gamma": params["gamma"], "base_temperature": base}
        loss = sbcl_loss(_rows(x), labels, subclasses, temperatures, temperature, **settings)
        terms = subclass_terms(_rows(x), labels, subclasses, temperatures, temperature)
        result = {"loss": loss, **gradients(loss, x=x)}
        return result | {"subclass_term": terms.subclass, "class_term": terms.classes}
    if quantity == "sbcl_two_level_plain_loss":
        loss = two_level_plain(_rows(x), labels, subclasses, temperature, gamma=params["gamma"], base_temperature=base)
        return {"loss": loss, **gradients(loss, x=x)}
    raise UnknownQuantity(quantity)
