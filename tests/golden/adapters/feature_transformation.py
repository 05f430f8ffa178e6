"""Adapter of FT (``feature-transformation``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.feature_transformation import feature_transformation as ft_loss
from cl_teach.losses.feature_transformation import transformed_scores


def feature_transformation(quantity, inputs, params):
    if quantity != "ft_moco_loss":
        raise UnknownQuantity(quantity)
    q = with_grad(inputs["q"])
    settings = {
        "extrapolation": inputs.get("lambda_ex", 1.0),
        "interpolation": inputs.get("lambda_in", 1.0),
        "permutation": inputs["perm"].long() if "perm" in inputs else None,
    }
    loss = ft_loss(q, inputs["k"], inputs["queue"], params["tau"], **settings)
    scores = transformed_scores(q, inputs["k"], inputs["queue"], **settings)
    return {
        "loss": loss,
        **gradients(loss, q=q),
        "scores": torch.cat([scores.positive[:, None], scores.negatives], 1),
        "pos_score_before": scores.before,
        "pos_score_after": scores.positive,
    }
