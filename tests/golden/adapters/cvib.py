"""Adapter of CVIB (``cvib``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.language.cvib import (
    VIBMask,
    cvib_objectives,
    kept_channels,
    mask_divergence,
    noise_ratio,
    noisy_mask,
    self_pruning_contrast,
)


def cvib(quantity, inputs, params):
    if quantity == "vib_mask_layer":
        x, mean, log_variance = with_grad([inputs["x"], inputs["mu"], inputs["logvar"]])
        tiny, threshold = params["eps"], params["threshold"]
        out = noisy_mask(x, mean, log_variance, inputs["noise"])
        kld = mask_divergence(mean, log_variance, x.shape[1], multiplier=params["kl_mult"], tiny=tiny)
        total = torch.sum(out * inputs["cotangent"]) + kld
        layer = VIBMask(len(mean), threshold=threshold).double().eval()
        layer.load_state_dict({"mean": inputs["mu"], "log_variance": inputs["logvar"]})
        return {
            "out_train": out,
            "kld": kld,
            "out_eval": layer(inputs["x"]),
            "hard_mask": kept_channels(mean, log_variance, threshold, tiny=tiny).double(),
            "log_alpha": noise_ratio(mean, log_variance, tiny=tiny),
            **gradients(total, x=x, mu=mean, logvar=log_variance),
        }
    if quantity == "self_pruning_contrastive_loss":
        pruned, original = with_grad([inputs["h_sub"], inputs["h_main"]])
        main = self_pruning_contrast(pruned.detach(), original, params["temperature"])
        sub = self_pruning_contrast(pruned, original.detach(), params["temperature"])
        return {"loss": main, **gradients(main, grad_main=original), **gradients(sub, grad_sub=pruned)}
    if quantity == "cvib_objectives":
        names = ("logits_main", "logits_sub", "labels", "h_main", "h_sub", "kl")
        losses = cvib_objectives(
            *(inputs[name] for name in names),
            temperature=params["temperature"],
            contrast_weight=params["scl_weight"],
            divergence_weight=params["kl_weight"],
        )
        return {"loss_main": losses.original, "loss_sub": losses.pruned}
    raise UnknownQuantity(quantity)
