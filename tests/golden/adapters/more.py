"""Adapter of MoRE (``more``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.crossmodal.more import more_loss
from cl_teach.models.signal_tower import DropKeyAttention, NormalizedHead


def more(quantity, inputs, params):
    if quantity == "more_loss":
        names = ("note", "xray", "ecg", "tau")
        leaves = dict(zip(names, with_grad([inputs[name] for name in names]), strict=True))
        terms = more_loss(*leaves.values())
        result = {"loss": terms.loss, "loss_xray": terms.xray, "loss_ecg": terms.ecg}
        return result | gradients(terms.loss, **leaves)
    if quantity == "more_projection_head":
        x = with_grad(inputs["x"])
        hidden, width = inputs["W1"].shape
        head = NormalizedHead(width, hidden, len(inputs["W2"])).to(x.dtype)
        names = {"0.weight": "W1", "1.weight": "bn1_weight", "1.bias": "bn1_bias"}
        names |= {"3.weight": "W2", "4.weight": "bn2_weight", "4.bias": "bn2_bias"}
        head.load_state_dict({own: inputs[name] for own, name in names.items()}, strict=False)
        head[1].eps = head[4].eps = params["bn_eps"]
        out = head(x)
        return {"out": out, **gradients((out * inputs["cotangent"]).sum(), x=x)}
    if quantity == "dropkey_attention":
        x = with_grad(inputs["x"])
        attention = DropKeyAttention(x.shape[-1], params["num_heads"]).to(x.dtype)
        names = {"qkv.weight": "W_qkv", "out.weight": "W_proj", "out.bias": "b_proj"}
        attention.load_state_dict({own: inputs[name] for own, name in names.items()})
        out = attention(x, inputs["drop_mask"].to(torch.bool))
        return {"out": out, **gradients((out * inputs["cotangent"]).sum(), x=x)}
    raise UnknownQuantity(quantity)
