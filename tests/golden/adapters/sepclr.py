"""Adapter of SepCLR (``sepclr``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.views.sepclr import attribute_alignment, gaussian_uniformity, joint_concentration
from cl_teach.views.sepclr import sepclr as sepclr_loss


def sepclr(quantity, inputs, params):
    if quantity == "total_loss":
        codes = {name: with_grad(inputs[name]) for name in ("c1", "c2", "s1", "s2")}
        labels, temperature = inputs["y"], params["tau"]
        weights = {
            "salient_weight": params["beta_s"],
            "infoless_weight": params["beta_reg"],
            "joint_weight": params["lambda_jem"],
        }
        terms = sepclr_loss(**codes, labels=labels, temperature=temperature, **weights)
        result = {"term_common": terms.common, "term_salient": terms.salient}
        result |= {"term_infoless": terms.infoless, "term_jem": terms.joint}
        return {"loss": terms.loss, **result, **gradients(terms.loss, **codes)}
    if quantity == "k_jem_and_uniformity":
        c, s = with_grad(inputs["c"]), with_grad(inputs["s"])
        jem = joint_concentration(c, s, params["tau"])
        found = gradients(jem, grad_c_of_jem=c, grad_s_of_jem=s)
        return {"jem": jem, "uniformity_c": gaussian_uniformity(c, params["tau"]), **found}
    if quantity == "supervised_attribute_alignment":
        s = with_grad(inputs["s_dim"])
        loss = attribute_alignment(s, inputs["attr"], params["tau"])
        return {"loss": loss, **gradients(loss, s_dim=s)}
    raise UnknownQuantity(quantity)
