"""Adapter of SupReMix (``supremix``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.labels.supremix import mixed_positives
from cl_teach.labels.supremix import supremix as supremix_loss


def _rows(x):
    """``(N, views, d)`` to ``(views * N, d)``, first views first."""
    return x.transpose(0, 1).flatten(0, 1)


def supremix(quantity, inputs, params):
    if quantity not in ("supremix_loss", "weighted_supcon_loss"):
        raise UnknownQuantity(quantity)
    x = with_grad(inputs["x"])
    labels = inputs["y"].to(x.dtype).repeat(2)
    shares = inputs["lam"] if params["mix_neg"] else None
    window = params["window"] if params["mix_pos"] else None
    loss = supremix_loss(_rows(x), labels, shares, params["temperature"], window=window)
    unequal = labels[:, None] != labels[None, :]
    return {
        "loss": loss,
        **gradients(loss, x=x),
        "num_mix_neg": int(unequal.sum()) if params["mix_neg"] else 0,
        "num_mix_pos": len(mixed_positives(labels, window).anchor) if params["mix_pos"] else 0,
    }
