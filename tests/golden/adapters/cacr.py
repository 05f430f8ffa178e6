"""Adapter of CACR (``cacr``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import self_mask
from cl_teach.losses.cacr import cacr_momentum, cacr_terms


def cacr(quantity, inputs, params):
    if quantity == "cacr_loss":
        views = with_grad(inputs["views"])
        terms = cacr_terms(
            views,
            positive_sharpness=params["t_pos"],
            negative_sharpness=params["t_neg"],
            alpha=params["alpha"],
            beta=params["beta"],
        )
        loss = terms.attraction + terms.repulsion
        n = views.shape[1]
        others = ~self_mask(n)
        return {
            "loss": loss,
            "loss_attraction": terms.attraction,
            "loss_repulsion": terms.repulsion,
            **gradients(loss, views=views),
            "weights_pos_anchor_view0": terms.positive_weights[0, :, 1:],
            "weights_neg_views01": terms.negative_weights[0, 1][others].view(n, n - 1),
        }
    if quantity == "cacr_rbf_momentum_loss":
        q = with_grad(inputs["q"])
        loss, weights = cacr_momentum(q, inputs["k"], params["T"])
        return {"loss": loss, "weights_pos": weights, **gradients(loss, q=q)}
    raise UnknownQuantity(quantity)
