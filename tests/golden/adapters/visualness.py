"""Adapter of TIP-CLIP (``visualness``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.crossmodal.visualness import tip_clip, tip_clip_terms
from cl_teach.crossmodal.visualness import visualness as scores


def visualness(quantity, inputs, params):
    if quantity != "tip_clip_loss":
        raise UnknownQuantity(quantity)
    names = ("image", "text", "null_image", "log_scale")
    image, text, null_image, log_scale = with_grad([inputs[name] for name in names])
    arguments = (image, text, null_image, inputs["is_visual"].bool(), log_scale)
    loss, terms = tip_clip(*arguments), tip_clip_terms(*arguments)
    return {
        "loss": loss,
        "loss_i2t": terms.image_to_text,
        "loss_t2i": terms.text_to_image,
        "visualness": scores(text, null_image),
        **gradients(loss, image=image, text=text, null_image=null_image, log_scale=log_scale),
    }
