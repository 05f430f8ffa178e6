"""Adapter of 1-to-K (``one-to-k``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.crossmodal.one_to_k import mean_rank_variance, one_to_k_terms, ranks
from cl_teach.crossmodal.one_to_k import one_to_k as one_to_k_loss


def one_to_k(quantity, inputs, params):
    if quantity == "mrv":
        similarity = inputs["sim_t2i"]
        rank = ranks(similarity)
        hits = (rank == 0).to(similarity.dtype).mean(0)
        return {"rank": rank, "mrv": mean_rank_variance(similarity), "recall_at_1_per_language": hits}
    if quantity not in ("one_to_k_loss_balanced", "one_to_k_loss_ccrk"):
        raise UnknownQuantity(quantity)
    image, text, tau = with_grad([inputs["image"], inputs["text"], inputs["tau"]])
    loss = one_to_k_loss(image, text, tau, released=quantity == "one_to_k_loss_ccrk")
    terms = one_to_k_terms(image, text, tau)
    return {
        "loss": loss,
        "loss_i2t": terms.image_to_text,
        "loss_t2i": terms.text_to_image,
        **gradients(loss, image=image, text=text, tau=tau),
    }
