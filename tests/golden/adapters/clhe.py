"""Adapter of CLHE (``clhe``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.clhe import clhe_terms, drop_descriptions, released_part
from cl_teach.models.bundles import BundleEncoder, StackEncoder


def clhe(quantity, inputs, params):
    if quantity != "clhe_losses":
        raise UnknownQuantity(quantity)
    stacks, again = with_grad(inputs["modal_enc"]), with_grad(inputs["modal_dec"])
    dim = stacks.shape[2]
    encoder, decoder, bundle_encoder = (
        StackEncoder(dim),
        StackEncoder(dim),
        BundleEncoder(dim, epsilon=params["layernorm_eps"]),
    )
    for part, name in ((encoder, "enc"), (decoder, "dec"), (bundle_encoder, "bundle")):
        part.to(stacks).load_state_dict({"query.weight": inputs[f"Wq_{name}"], "key.weight": inputs[f"Wk_{name}"]})
    bundles, kept = list(inputs["bundles_full"]), list(inputs["bundles_kept"])
    masks = (inputs[name].bool() for name in ("item_drop_mask1", "item_drop_mask2"))
    views = [encoder(drop_descriptions(stacks, mask)) for mask in masks]
    encoded, decoded = encoder(stacks), decoder(again)
    corrected, released = (
        clhe_terms(
            encoded,
            decoded,
            views,
            bundles,
            parts,
            bundle_encoder,
            temperatures=(params["tau_item"], params["tau_bundle"]),
            weights=(params["alpha_item"], params["alpha_bundle"]),
        )
        for parts in (kept, [released_part(bundle, part) for bundle, part in zip(bundles, kept, strict=True)])
    )
    return {
        "items_encoder": encoded,
        "items_decoder": decoded,
        "bundle_repr": corrected.vectors,
        "logits": corrected.scores,
        "loss_recon": corrected.reconstruction,
        "loss_item_cl": corrected.items,
        "loss_bundle_cl": corrected.bundles,
        "loss_total": corrected.loss,
        **gradients(corrected.loss, modal_enc=stacks, modal_dec=again),
        "loss_bundle_cl_code": released.bundles,
        "loss_total_code": released.loss,
        **gradients(released.loss, grad_modal_enc_code=stacks),
    }
