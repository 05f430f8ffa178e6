"""Adapter of MoCHi (``mochi``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import normalize
from cl_teach.losses.mochi import Mixture, hardest_rows, mix
from cl_teach.losses.mochi import mochi as mochi_loss


def mochi(quantity, inputs, params):
    if quantity != "mochi_loss":
        raise UnknownQuantity(quantity)
    q, queue = with_grad(inputs["q"]), inputs["queue"]
    mixture = Mixture(
        inputs["mix_i"].long(), inputs["mix_j"].long(), inputs["alpha"], inputs["mix_q"].long(), inputs["beta"]
    )
    loss = mochi_loss(q, inputs["k"], queue, mixture, params["tau"])
    pairs, with_query = mix(q, queue, mixture)
    unit = normalize(q)[..., None]
    return {
        "loss": loss,
        **gradients(loss, q=q),
        "hard_sets": hardest_rows(q, queue, params["N"]),
        "sim_mixed": (pairs @ unit).squeeze(-1),
        "sim_mixed_with_query": (with_query @ unit).squeeze(-1),
    }
