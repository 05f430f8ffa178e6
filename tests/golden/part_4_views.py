"""Adapters of Part 4: pixpro, sepclr, mcl."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.nn import functional as F

from cl_teach.core import cosine_similarity
from cl_teach.views.mcl import combine_labels, group_means, integrate, mcl_clip, mcl_nt_xent, pure_batches
from cl_teach.views.pixpro import pix_contrast, positive_cells, propagate
from cl_teach.views.pixpro import pixpro as pixpro_loss
from cl_teach.views.sepclr import attribute_alignment, gaussian_uniformity, joint_concentration, sepclr_terms
from cl_teach.views.sepclr import sepclr as sepclr_loss

__all__ = ["mcl", "pixpro", "sepclr"]


def pixpro(quantity, inputs, params):
    if quantity not in ("pixpro_loss", "pixcontrast_loss"):
        raise UnknownQuantity(quantity)
    x1, x2 = with_grad(inputs["x1"]), with_grad(inputs["x2"])
    k1, k2 = inputs["k1"], inputs["k2"]
    positives = positive_cells(inputs["coord1"], inputs["coord2"], *x1.shape[2:], params["threshold"])
    if quantity == "pixcontrast_loss":
        loss = pix_contrast(x1, x2, k1, k2, positives, params["temperature"])
        return {"loss": loss, **gradients(loss, x1=x1, x2=x2)}

    def smooth(x):
        g = F.conv2d(x, inputs["Wg"][:, :, None, None], inputs["bg"]) if params["g_layers"] else x
        return propagate(x, g, gamma=params["gamma"], clamp=params["clamp"])

    y1, y2 = smooth(x1), smooth(x2)
    loss = pixpro_loss(y1, y2, k1, k2, positives)
    result = {"loss": loss, "y1": y1, "positive_mask": positives.int(), "positive_count": positives.sum((1, 2))}
    return result | gradients(loss, x1=x1, x2=x2)


def sepclr(quantity, inputs, params):
    if quantity == "total_loss":
        codes = {name: with_grad(inputs[name]) for name in ("c1", "c2", "s1", "s2")}
        labels, temperature = inputs["y"], params["tau"]
        weights = {
            "salient_weight": params["beta_s"],
            "infoless_weight": params["beta_reg"],
            "joint_weight": params["lambda_jem"],
        }
        loss = sepclr_loss(**codes, labels=labels, temperature=temperature, **weights)
        terms = sepclr_terms(**codes, labels=labels, temperature=temperature)
        result = {"term_common": terms.common, "term_salient": terms.salient}
        result |= {"term_infoless": terms.infoless, "term_jem": terms.joint}
        return {"loss": loss, **result, **gradients(loss, **codes)}
    if quantity == "k_jem_and_uniformity":
        c, s = with_grad(inputs["c"]), with_grad(inputs["s"])
        jem = joint_concentration(c, s, params["tau"])
        found = gradients(jem, grad_c_of_jem=c, grad_s_of_jem=s)
        return {"jem": jem, "uniformity_c": gaussian_uniformity(c, params["tau"]), **found}
    if quantity == "supervised_attribute_alignment":
        s = with_grad(inputs["s_dim"])
        loss = attribute_alignment(s, inputs["attr"], params["tau"])
        return {"loss": loss, **gradients(loss, s_dim=s)}
    raise UnknownQuantity(quantity)


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
        loss = mcl_clip(u, v, labels, params["logit_scale"])
        pairs = mcl_clip(u, v, labels, params["logit_scale"], reduction="none")
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
