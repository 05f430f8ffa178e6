"""Adapter of GroCo (``groco``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.groco import groco as groco_loss
from cl_teach.losses.groco import group_order


def groco(quantity, inputs, params):
    if quantity != "groco_loss":
        raise UnknownQuantity(quantity)
    views, count = with_grad(inputs["views"]), params["n_pos_views"]
    settings = {"top_negatives": params["topk_neg"], "steepness": params["steepness"]}
    losses = groco_loss(views, positive_views=count, stop_gradient=params["stop_grad"], **settings)
    first = group_order(views[0], views[1:count], views[0], **settings)
    return {
        "loss": losses.mean(),
        **gradients(losses.mean(), views=views),
        "loss_per_anchor_view": losses,
        "scores_view0": first.scores,
        "prob_positive_rank_view0": first.positive_rank,
    }
