"""Adapter of MCLRec (``mclrec``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.func import functional_call

from cl_teach.graphs.mclrec import Augmenter, margin_regularizer, mclrec_terms

_WEIGHTS = {
    "W1": "first.weight",
    "b1": "first.bias",
    "W2": "second.weight",
    "b2": "second.bias",
    "W3": "third.weight",
    "b3": "third.bias",
}


def _augment(h, weights):
    module = Augmenter(h.shape[1], (len(weights["b1"]), len(weights["b2"])))
    return functional_call(module, {_WEIGHTS[name]: value for name, value in weights.items()}, h)


def mclrec(quantity, inputs, params):
    if quantity != "mclrec_losses":
        raise UnknownQuantity(quantity)
    h1, h2, aug1, aug2 = (with_grad(inputs[name]) for name in ("h1", "h2", "aug1", "aug2"))
    z1, z2 = _augment(h1, aug1), _augment(h2, aug2)
    temperature = params["tau"]
    terms = mclrec_terms(h1, h2, z1, z2, temperature)
    stage2 = terms.augmenter_loss(params["reg_factor"])
    free1, free2 = with_grad(z1), with_grad(z2)
    rows = margin_regularizer(free1, free2, temperature)
    batch = margin_regularizer(free1, free2, temperature, scope="batch")
    by_name = {}
    for name, weights in (("grad_stage2_aug1", aug1), ("grad_stage2_aug2", aug2)):
        found = gradients(stage2, weights=list(weights.values()))["grad_weights"]
        by_name[name] = dict(zip(weights, found, strict=True))
    return {
        "z1": z1,
        "z2": z2,
        "loss_cl1": terms.plain,
        "loss_cl2": terms.learned,
        "R_h1_z2": terms.margins[0],
        "R_h2_z1": terms.margins[1],
        "R_z1_z2": terms.margins[2],
        "R_z1_z2_global": batch,
        "loss_stage2_code": stage2,
        **by_name,
        **gradients(stage2, grad_stage2_h1=h1, grad_stage2_h2=h2),
        **gradients(terms.plain, grad_cl1_h1=h1, grad_cl1_h2=h2),
        **gradients(rows, grad_R_z1=free1, grad_R_z2=free2),
        **gradients(batch, grad_Rglobal_z1=free1, grad_Rglobal_z2=free2),
    }
