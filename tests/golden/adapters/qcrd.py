"""Adapter of QCRD (``qcrd``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core.voting import self_consistency_split
from cl_teach.language.qcrd import qcrd_terms, rationale_loss, rationale_scores


def qcrd(quantity, inputs, params):
    if quantity == "self_consistency_split":
        return {"splits": [self_consistency_split(answers)._asdict() for answers in inputs["answers"]]}
    if quantity != "qcrd_minmax_loss":
        raise UnknownQuantity(quantity)
    names = ("label_logits", "logits_pos", "logits_neg", "disc_logit_pos", "disc_logit_neg")
    leaves = with_grad({name: inputs[name] for name in names})
    good, bad = leaves["disc_logit_pos"], leaves["disc_logit_neg"]
    nll = {
        side: torch.stack([rationale_loss(*pair) for pair in zip(logits, inputs[tokens], strict=True)] or [bad])
        for side, logits, tokens in (
            ("pos", list(leaves["logits_pos"]), "tokens_pos"),
            ("neg", list(leaves["logits_neg"]), "tokens_neg"),
        )
    }
    terms = qcrd_terms(
        leaves["label_logits"][None],
        inputs["label"][None],
        nll["pos"][None],
        nll["neg"].view(1, -1),
        good[None],
        bad[None],
        beta=params["beta"],
        margin=params["delta"],
        label_weight=params["alpha_label"],
        contrast_weight=params["alpha_contrastive"],
        discriminator_weight=params["alpha_discriminator"],
    )
    return {
        "nll_pos": nll["pos"],
        "nll_neg": nll["neg"].flatten(),
        "score_pos": rationale_scores(good),
        "score_neg": rationale_scores(bad) if len(bad) else bad,
        "chosen_pos": terms.chosen_positive[0],
        "chosen_neg": terms.chosen_negative[0],
        "loss_label": terms.label,
        "loss_positive": terms.positive,
        "loss_negative": terms.negative,
        "loss_contrastive": terms.contrast,
        "loss_discriminator": terms.discriminator,
        "loss": terms.loss,
        **gradients(terms.loss, **{name: leaf for name, leaf in leaves.items() if len(leaf)}),
        **{f"grad_{name}": leaf for name, leaf in leaves.items() if not len(leaf)},
    }
