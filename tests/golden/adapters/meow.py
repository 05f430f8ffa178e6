"""Adapter of MEOW (``meow``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.meow import (
    Clusters,
    concentration,
    negative_weights,
    prototype_loss,
    weighted_info_nce,
)
from cl_teach.models.pair_weights import PairWeights


def meow(quantity, inputs, params):
    temperature = params["tau"]
    if quantity == "meow_weighted_infonce_and_protonce":
        coarse, fine = with_grad(inputs["z_coarse"]), with_grad(inputs["z_fine"])
        clusters = Clusters(inputs["assignments"], inputs["prototypes"], inputs["density"])
        weights = negative_weights(clusters.assignments)
        contrast = weighted_info_nce(coarse, fine, weights.to(coarse).log(), temperature)
        prototypes = prototype_loss(coarse, clusters)
        return {
            "weights": weights.to(coarse),
            "loss_info": contrast,
            "loss_proto": prototypes,
            "loss_proto_plain_sum": prototype_loss(coarse, clusters, plain=True),
            **gradients(contrast, grad_info_z_coarse=coarse, grad_info_z_fine=fine),
            **gradients(prototypes, grad_proto_z_coarse=coarse),
        }
    if quantity == "adameow_weighted_infonce":
        fine, coarse = with_grad(inputs["z_fine"]), with_grad(inputs["z_coarse"])
        net = PairWeights(fine.shape[1], len(inputs["b1"])).to(fine)
        names = {"W1": "first.weight", "b1": "first.bias", "W2": "second.weight", "b2": "second.bias"}
        net.load_state_dict({to: inputs[name] for name, to in names.items()})
        log_weights = net(fine, coarse)
        loss = weighted_info_nce(fine, coarse, log_weights, temperature)
        weights = {name: net.get_parameter(to) for name, to in names.items()}
        return {
            "weights": log_weights.exp(),
            "loss": loss,
            **gradients(loss, z_fine=fine, z_coarse=coarse, **weights),
        }
    if quantity == "meow_density":
        z, centroids = inputs["z"], inputs["centroids"]
        assignment = (z @ centroids.mT).argmax(1)
        return {"assignment": assignment, "density": concentration(z, assignment, centroids, temperature)}
    raise UnknownQuantity(quantity)
