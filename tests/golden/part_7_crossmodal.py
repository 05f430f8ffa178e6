"""Golden adapters of part 7, Crossmodal."""

from __future__ import annotations

from typing import Any

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach import clip_loss, info_nce

__all__ = ["improved_vlp"]


def improved_vlp(quantity: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """CLIP-Rocket, and the symmetric CLIP loss it starts from."""
    if quantity != "clip_loss":
        raise UnknownQuantity(quantity)
    leaves = with_grad(inputs)
    image, text, temperature = leaves["image"], leaves["text"], (-leaves["log_scale"]).exp()
    loss = clip_loss(**leaves)
    return {
        "loss": loss,
        "loss_i2t": info_nce(image, text, temperature=temperature),
        "loss_t2i": info_nce(text, image, temperature=temperature),
        **gradients(loss, **leaves),
    }
