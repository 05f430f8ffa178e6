"""Adapter of CustomContrast (``customcontrast``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.views.customcontrast import cscl, cscl_directions, macl, macl_by_layer


def customcontrast(quantity, inputs, params):
    if quantity == "cscl":
        visual, textual = with_grad(inputs["V"]), with_grad(inputs["T"])
        loss = cscl(visual, textual, params["tau"])
        image_to_text, text_to_image = cscl_directions(visual, textual, params["tau"])
        result = {"loss": loss, "image_to_text": image_to_text, "text_to_image": text_to_image}
        return result | gradients(loss, V=visual, T=textual)
    if quantity in ("macl_plain", "macl_weighted"):
        layers = with_grad(inputs["S"])
        arguments = (layers, inputs["ids"], params["tau"])
        similarity = inputs.get("R")
        loss = macl(*arguments, similarity=similarity)
        return {
            "loss": loss,
            "per_layer": macl_by_layer(*arguments, similarity=similarity),
            **gradients(loss, S=layers),
        }
    raise UnknownQuantity(quantity)
