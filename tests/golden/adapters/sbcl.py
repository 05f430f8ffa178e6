"""Adapter of SBCL (``sbcl``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core.subclasses import size_limited_clusters, subclass_counts
from cl_teach.labels.sbcl import (
    class_concentration,
    class_temperatures,
    scaled_sup_con,
    subclass_terms,
    two_level_plain,
)


def _rows(x):
    """``(N, views, d)`` to ``(views * N, d)``, first views first."""
    return x.transpose(0, 1).flatten(0, 1)


def sbcl(quantity, inputs, params):
    if quantity == "sbcl_size_limited_clusters":
        settings = {"max_size": params["max_size"], "updates": params["updates"]}
        found = size_limited_clusters(inputs["z"], inputs["initial_centers"], **settings)
        return {"assignment": found.assignment, "sizes": found.sizes, "centers": found.centers}
    temperature = params["temperature"]
    if quantity == "sbcl_class_temperatures":
        labels = inputs["labels"]
        counts = subclass_counts(labels.bincount(), params["min_subclass_size"], clustering="kmeans")
        concentration = class_concentration(inputs["z"], labels, log_offset=params["log_offset"])
        settings = {"form": params["form"], "clip": tuple(params["clip_percentiles"])}
        found = class_temperatures(concentration, counts, temperature, **settings)
        return {"num_subclasses": counts, "concentration": concentration, "class_temperatures": found}

    x, labels = with_grad(inputs["x"]), inputs["labels"].repeat(2)
    base = params["base_temperature"]
    if quantity in ("supcon_out_loss", "supcon_in_loss"):
        variant = "out" if quantity == "supcon_out_loss" else "in"
        labels = inputs["labels"].repeat(x.shape[1])
        loss = scaled_sup_con(_rows(x), labels, temperature, variant=variant, base_temperature=base)
        return {"loss": loss, **gradients(loss, x=x)}
    subclasses = inputs["subclasses"].repeat(2)
    settings = {"gamma": params["gamma"], "base_temperature": base}
    if quantity == "sbcl_loss":
        terms = subclass_terms(_rows(x), labels, subclasses, inputs["class_temperatures"], temperature, **settings)
        result = {"loss": terms.loss, **gradients(terms.loss, x=x)}
        return result | {"subclass_term": terms.subclass, "class_term": terms.classes}
    if quantity == "sbcl_two_level_plain_loss":
        loss = two_level_plain(_rows(x), labels, subclasses, temperature, **settings)
        return {"loss": loss, **gradients(loss, x=x)}
    raise UnknownQuantity(quantity)
