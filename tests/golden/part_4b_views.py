"""Adapters of Part 4: hydra, scatsimclr."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.views.hydra import ClassPairGate, gated_cosine, gated_product, pair_contrast
from cl_teach.views.scatsimclr import Scattering, scatsimclr_terms

__all__ = ["hydra", "scatsimclr"]


def hydra(quantity, inputs, params):
    labels, partners = inputs["y1"], inputs["y2"]
    if quantity == "hydra_gate":
        (classes, embedding_dim), (width, hidden) = inputs["E"].shape, inputs["A2"].shape
        module = ClassPairGate(classes, width, embedding_dim=embedding_dim, hidden=hidden).double()
        with torch.no_grad():
            module.embedding.weight.copy_(inputs["E"])
            module.first.weight.copy_(inputs["A1"])
            module.first.bias.copy_(inputs["a1"])
            module.second.weight.copy_(inputs["A2"])
            module.second.bias.copy_(inputs["a2"])
        for norm in module.norms:
            norm.eps = params["bn_eps"]
        return {"gate": module(labels, partners)}

    z, gate = with_grad(inputs["z"]), with_grad(inputs["gate"])
    if quantity == "hydra_loss":
        similarity, average = gated_cosine(z, gate), "pair"
    elif quantity == "simlap_loss_product":
        similarity, average = gated_product(z, gate), "pair"
    elif quantity == "simlap_loss_two_view":
        similarity, average = gated_product(z, gate, inputs["zk"]), "anchor"
    else:
        raise UnknownQuantity(quantity)
    loss = pair_contrast(similarity, labels, partners, params["temperature"], average=average)
    return {"loss": loss, **gradients(loss, z=z, gate=gate)}


def scatsimclr(quantity, inputs, params):
    if quantity == "scattering2d":
        x = inputs["x"]
        scattering = Scattering(tuple(x.shape), scales=params["J"], angles=params["L"], dtype=x.dtype)
        return {"S": scattering(x[None, None])[0]}
    if quantity == "scatsimclr_total_loss":
        z1, z2, logits = (with_grad(inputs[name]) for name in ("z1", "z2", "pretext_logits"))
        terms = scatsimclr_terms(z1, z2, logits, inputs["pretext_labels"], params["temperature"], params["lam"])
        found = gradients(terms.loss, z1=z1, z2=z2, logits=logits)
        return {"loss": terms.loss, "contrastive": terms.contrastive, "pretext": terms.pretext, **found}
    raise UnknownQuantity(quantity)
