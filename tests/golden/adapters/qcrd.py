"""Adapter of QCRD (``qcrd``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.language.qcrd import (
    discriminator_loss,
    quality_weights,
    rationale_loss,
    self_consistency_split,
    student_loss,
)


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
