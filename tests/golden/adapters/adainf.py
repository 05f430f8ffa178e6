"""Adapter of AdaInf (``adainf``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core.augmentation_graph import (
    labeling_error,
    laplacian_eigenvalues,
    natural_weights,
    real_weights,
    total_variation,
)
from cl_teach.views.adainf import (
    copy_pairs_per_batch,
    mix_real_and_generated,
    nt_xent_with_ids,
    real_share,
)


def adainf(quantity, inputs, params):
    if quantity == "ntxent_with_ids":
        z1, z2 = with_grad(inputs["z1"]), with_grad(inputs["z2"])
        loss = nt_xent_with_ids(z1, z2, inputs["ids"], params["tau"])
        return {"loss": loss, **gradients(loss, z1=z1, z2=z2)}
    if quantity == "mixture_bookkeeping":
        n_real, n_generated, copies = int(inputs["n_real"]), int(inputs["n_gen"]), [int(n) for n in inputs["dup"]]
        real, generated = torch.zeros(n_real, 1), torch.zeros(n_generated, 1)
        return {
            "n_total": [len(mix_real_and_generated(real, generated, n).images) for n in copies],
            "beta": [real_share(n_real, n_generated, n) for n in copies],
            "exp_dup_pairs_per_batch": [copy_pairs_per_batch(n_real, n_generated, n, params["batch"]) for n in copies],
        }
    if quantity == "augmentation_graph":
        is_real, graph = inputs["is_real"].bool(), inputs["A"]
        weights = natural_weights(is_real, params["dup"])
        eigenvalues = laplacian_eigenvalues(graph, weights)
        return {
            "P_t": weights,
            "beta": real_share(int(is_real.sum()), int((~is_real).sum()), params["dup"]),
            "tv_real_mix": total_variation(real_weights(is_real), weights),
            "laplacian_eigenvalues": eigenvalues,
            "lambda_k_plus_1": eigenvalues[params["k"]],
            "labelling_error_alpha": labeling_error(graph, weights, inputs["labels"]),
        }
    raise UnknownQuantity(quantity)
