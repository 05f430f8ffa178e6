"""Adapter of BaCon (``bacon``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import nt_xent
from cl_teach.core.pseudo_labels import estimate_counts, sampling_rates
from cl_teach.labels.bacon import (
    debiased_probabilities,
    distribution_regularizer,
    pair_weights,
    self_distillation,
    soft_contrast,
)


def bacon(quantity, inputs, params):
    if quantity == "bacon_soft_contrastive_loss":
        x, weights = with_grad(inputs["x"]), pair_weights(inputs["probs"])
        loss = soft_contrast(x.transpose(0, 1).flatten(0, 1), weights, params["temperature"])
        return {"loss": loss, **gradients(loss, x=x), "weights": weights}
    if quantity == "bacon_unsupervised_nce":
        x = with_grad(inputs["x"])
        loss = nt_xent(*x.chunk(2), temperature=params["temperature"])
        return {"loss": loss, **gradients(loss, x=x)}
    if quantity == "bacon_distribution_estimate":
        given = (inputs["cluster_ids"], inputs["labels"], inputs["labelled_mask"].bool())
        return {"class_counts": estimate_counts(*given, params["num_classes"], params["num_known"])}

    logits = with_grad(inputs["logits"])
    if quantity == "bacon_distribution_regulariser":
        settings = {"power": params["power"], "temperature": params["logit_temperature"]}
        loss = distribution_regularizer(logits, inputs["class_counts"], **settings)
        plain = distribution_regularizer(logits, inputs["class_counts"], form="kl", **settings)
        result = {"loss": loss, **gradients(loss, logits=logits)}
        return result | {"loss_kl_form": plain, **gradients(plain, grad_logits_kl_form=logits)}
    if quantity == "bacon_debiased_probs_and_sampling_rates":
        counts, settings = inputs["class_counts"], {name: params[name] for name in ("alpha", "beta")}
        temperature = params["logit_temperature"]
        probs = debiased_probabilities(logits, counts, kappa=params["kappa"], temperature=temperature)
        return {
            "probs": probs,
            "sampling_rates": sampling_rates(counts, inputs["labelled_classes_in_batch"], **settings),
        }
    if quantity == "bacon_self_distillation_loss":
        settings = {name: params[name] for name in ("student_temperature", "teacher_temperature")}
        loss = self_distillation(logits, **settings)
        return {"loss": loss, **gradients(loss, logits=logits)}
    raise UnknownQuantity(quantity)
