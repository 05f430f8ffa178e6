"""Adapter of WAGLE (``wagle``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.nn.functional import cross_entropy

from cl_teach.alignment.wagle import (
    attribution,
    grad_diff,
    keep_largest,
    mean_token_loss,
    npo,
    with_retain,
)
from cl_teach.core.gradients import loss_gradients
from cl_teach.models.sequence import token_log_probability


def wagle(quantity, inputs, params):
    if quantity == "weight_attribution":
        parameters = {name: with_grad(inputs[name]) for name in ("W", "b")}

        def loss(batch):
            return cross_entropy(batch[0] @ parameters["W"].mT + parameters["b"], batch[1])

        forget, retain = (
            loss_gradients(loss, parameters, zip(inputs[f"X_{s}"], inputs[f"y_{s}"], strict=True), reduction="sum")
            for s in ("forget", "retain")
        )
        scores = attribution(parameters, forget, retain, params["gamma"])
        first = attribution(parameters, forget, retain, float("inf"))
        return {
            "attribution_W": scores["W"],
            "attribution_b": scores["b"],
            "grad_forget_W": forget["W"],
            "grad_forget_b": forget["b"],
            "grad_retain_W": retain["W"],
            "grad_retain_b": retain["b"],
            "first_term_W": first["W"],
            "masks": {str(ratio): keep_largest(scores, ratio) for ratio in params["ratios"]},
        }
    if quantity == "unlearning_objectives":
        x, labels = with_grad(inputs), inputs["labels_forget"]
        forget, retain = (mean_token_loss(x[f"logits_{s}"], x[f"labels_{s}"]) for s in ("forget", "retain"))
        before = x["ref_logits_forget"]
        log_p, reference = (token_log_probability(logits, labels).sum(1) for logits in (x["logits_forget"], before))
        weight = params["lam"]
        difference = grad_diff(forget, retain, weight)
        negative = with_retain(npo(log_p, reference, params["beta"]), retain, weight)
        released = with_retain(npo(-forget[None], -mean_token_loss(before, labels)[None], 0.1), retain, weight)
        refused = with_retain(mean_token_loss(x["logits_forget"], inputs["labels_refusal"]), retain, weight)
        logits = {"logits_forget": x["logits_forget"], "logits_retain": x["logits_retain"]}
        return {
            "graddiff": difference,
            **gradients(difference, **{f"grad_graddiff_{name}": leaf for name, leaf in logits.items()}),
            "npo": negative,
            **gradients(negative, grad_npo_logits_forget=x["logits_forget"]),
            "npo_code_batchmean_beta01": released,
            "po": refused,
            **gradients(refused, grad_po_logits_forget=x["logits_forget"]),
        }
    raise UnknownQuantity(quantity)
