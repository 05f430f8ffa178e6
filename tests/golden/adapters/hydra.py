"""Adapter of Hydra (``hydra``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.models import ClassPairGate
from cl_teach.views.hydra import gated_cosine, gated_product, partner_contrast


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
    loss = partner_contrast(similarity, labels, partners, params["temperature"], average=average)
    return {"loss": loss, **gradients(loss, z=z, gate=gate)}
