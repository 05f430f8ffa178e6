"""Adapter of COMET (``comet``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.signals.comet import LEVELS, comet_loss, identity_loss, observation_loss, over_pooled_time, sample_loss


def comet(quantity, inputs, params):
    if quantity == "comet_total_loss":
        views = {level: (inputs[f"{level}_z1"], inputs[f"{level}_z2"]) for level in LEVELS}
        given = (views, inputs["patient_ids"], inputs["trial_ids"])
        factors = tuple(params["factors_patient_trial_sample_observation"])
        released = comet_loss(*given, factors, released=True)
        return {"loss": comet_loss(*given, factors), "loss_released_code": released}
    z1, z2 = with_grad(inputs["z1"]), with_grad(inputs["z2"])
    if quantity == "comet_id_loss":
        loss = identity_loss(z1, z2, inputs["ids"], params["temperature"])
    elif quantity == "comet_sample_loss":
        loss = sample_loss(z1, z2)
    elif quantity == "comet_observation_loss":
        loss = observation_loss(z1, z2)
    elif quantity == "comet_sample_loss_hierarchical":
        loss = over_pooled_time(sample_loss, z1, z2)
    elif quantity == "comet_observation_loss_hierarchical":
        loss = over_pooled_time(observation_loss, z1, z2)
    else:
        raise UnknownQuantity(quantity)
    return {"loss": loss, **gradients(loss, z1=z1, z2=z2)}
