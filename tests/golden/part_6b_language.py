"""More adapters of Part 6: cvib, qcrd."""

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
from cl_teach.language.qcrd import (
    discriminator_loss,
    quality_weights,
    rationale_loss,
    self_consistency_split,
    student_loss,
)

__all__ = ["cvib", "qcrd"]


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


def qcrd(quantity, inputs, params):
    if quantity == "self_consistency_split":
        return {"splits": [self_consistency_split(answers)._asdict() for answers in inputs["answers"]]}
    if quantity != "qcrd_student_and_discriminator_loss":
        raise UnknownQuantity(quantity)
    names = ("logits_pos", "logits_neg", "label_logits", "disc_logit_pos", "disc_logit_neg")
    leaves = with_grad({name: inputs[name] for name in names})
    nll = {
        side: torch.stack([rationale_loss(*pair) for pair in zip(logits, inputs[tokens], strict=True)])
        for side, logits, tokens in (
            ("pos", leaves["logits_pos"], "tokens_pos"),
            ("neg", leaves["logits_neg"], "tokens_neg"),
        )
    }
    good, bad = leaves["disc_logit_pos"], leaves["disc_logit_neg"]
    weights = quality_weights(good, bad)
    terms = student_loss(
        leaves["label_logits"],
        inputs["label"],
        nll["pos"],
        nll["neg"],
        *weights,
        margin=params["margin"],
        rationale_weight=params["lambda_rationale"],
        contrast_weight=params["lambda_contrastive"],
    )
    judge = discriminator_loss(good, bad)
    return {
        "nll_pos": nll["pos"],
        "nll_neg": nll["neg"],
        "weights_pos_normalised": weights[0],
        "weights_neg": weights[1],
        "loss_label": terms.label,
        "loss_pos": terms.positive,
        "loss_contrastive": terms.contrast,
        "loss": terms.total,
        **gradients(terms.total, **{name: leaves[name] for name in names[:3]}),
        "discriminator_loss": judge,
        **gradients(judge, disc_logit_pos=good, disc_logit_neg=bad),
    }
