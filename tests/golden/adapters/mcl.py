"""Adapter of MCL (``mcl``)."""

from __future__ import annotations

import math

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import cosine_similarity
from cl_teach.core.clusters import (
    pure_batches,
)
from cl_teach.views.mcl import (
    combine_labels,
    group_means,
    integrate,
    mcl_clip,
    mcl_nt_xent,
)


def mcl(quantity, inputs, params):
    if quantity == "pseudo_labels":
        combined = combine_labels(inputs["stage_labels"], params["K"])
        return {"pseudo_labels_by_stage": combined, "n_groups_by_stage": [len(row.unique()) for row in combined]}
    if quantity == "ntxent_same_cluster_negatives":
        z1, z2 = with_grad(inputs["z1"]), with_grad(inputs["z2"])
        loss = mcl_nt_xent(z1, z2, inputs["pseudo_labels"], params["tau"])
        return {"loss": loss, **gradients(loss, z1=z1, z2=z2)}
    if quantity == "clip_same_cluster_negatives":
        u, v, labels = with_grad(inputs["u"]), with_grad(inputs["v"]), inputs["pseudo_labels"]
        log_scale = math.log(params["logit_scale"])
        loss = mcl_clip(u, v, labels, log_scale)
        pairs = mcl_clip(u, v, labels, log_scale, reduction="none")
        return {"loss": loss, "per_cluster_loss": group_means(pairs, labels), **gradients(loss, u=u, v=v)}
    if quantity == "cluster_pure_batches":
        batches = pure_batches(inputs["pseudo_labels"], params["batch"])
        counts = batches.labels.bincount()
        result = {"batches_per_cluster": counts, "cluster_of_each_batch": batches.labels}
        return result | {"n_dropped": len(batches.dropped)}
    if quantity == "cross_stage_integration":
        h = integrate([inputs[name] for name in sorted(inputs)])
        return {"cosine_matrix": cosine_similarity(h, h)}
    raise UnknownQuantity(quantity)
