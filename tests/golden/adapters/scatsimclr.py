"""Adapter of ScatSimCLR (``scatsimclr``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.models import Scattering
from cl_teach.views.scatsimclr import scatsimclr_terms


def scatsimclr(quantity, inputs, params):
    if quantity == "scattering2d":
        x = inputs["x"]
        scattering = Scattering(tuple(x.shape), scales=params["J"], angles=params["L"], dtype=x.dtype)
        return {"S": scattering(x[None, None])[0]}
    if quantity == "scatsimclr_total_loss":
        z1, z2, logits = (with_grad(inputs[name]) for name in ("z1", "z2", "pretext_logits"))
        labels, weight = inputs["pretext_labels"], params["lam"]
        terms = scatsimclr_terms(z1, z2, logits, labels, params["temperature"], pretext_weight=weight)
        found = gradients(terms.loss, z1=z1, z2=z2, logits=logits)
        return {"loss": terms.loss, "contrastive": terms.contrastive, "pretext": terms.pretext, **found}
    raise UnknownQuantity(quantity)
