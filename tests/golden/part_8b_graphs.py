"""Adapters of Part 8, continued: clhe, cold_start, meow."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.graphs.clhe import (
    BundleEncoder,
    StackEncoder,
    clhe_terms,
    drop_descriptions,
    released_part,
)
from cl_teach.graphs.cold_start import FusionGate
from cl_teach.graphs.cold_start import cold_start as cold_start_terms
from cl_teach.graphs.meow import (
    Clusters,
    PairWeights,
    concentration,
    negative_weights,
    prototype_loss,
    weighted_contrast,
)

__all__ = ["clhe", "cold_start", "meow"]


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


def cold_start(quantity, inputs, params):
    if quantity != "coldstart_gate_fusion_and_losses":
        raise UnknownQuantity(quantity)
    users, items, unseen = (with_grad(inputs[name]) for name in ("user_fields", "item_fields", "neg_item_fields"))
    gate = FusionGate(users.shape[2], len(inputs["b1"]), temperature=params["gate_temperature"]).to(users)
    gate.load_state_dict(
        {"first.weight": inputs["W1"], "first.bias": inputs["b1"], "second.weight": inputs["w2"][None, :]}
    )
    user, item, other = (
        gate(fields, inputs[name].bool())
        for fields, name in ((users, "user_present"), (items, "item_present"), (unseen, "neg_present"))
    )
    known = inputs["known_positive"].bool()
    terms = cold_start_terms(user.z, item.z, other.z, known, params["tau"], weight=params["lam"])
    found = gradients(
        terms.loss,
        user_fields=users,
        item_fields=items,
        neg_item_fields=unseen,
        W1=gate.first.weight,
        b1=gate.first.bias,
        w2=gate.second.weight,
    )
    return {
        "gate_user": user.gate,
        "gate_item": item.gate,
        "z_user": user.z,
        "z_item": item.z,
        "loss_cl": terms.contrast,
        "loss_bpr": terms.ranking,
        "loss": terms.loss,
        **found,
        "grad_w2": found["grad_w2"][0],
    }


def meow(quantity, inputs, params):
    temperature = params["tau"]
    if quantity == "meow_weighted_infonce_and_protonce":
        coarse, fine = with_grad(inputs["z_coarse"]), with_grad(inputs["z_fine"])
        clusters = Clusters(inputs["assignments"], inputs["prototypes"], inputs["density"])
        weights = negative_weights(clusters.assignments)
        contrast = weighted_contrast(coarse, fine, weights.to(coarse).log(), temperature)
        prototypes = prototype_loss(coarse, clusters)
        return {
            "weights": weights.to(coarse),
            "loss_info": contrast,
            "loss_proto": prototypes,
            "loss_proto_plain_sum": prototype_loss(coarse, clusters, plain=True),
            **gradients(contrast, grad_info_z_coarse=coarse, grad_info_z_fine=fine),
            **gradients(prototypes, grad_proto_z_coarse=coarse),
        }
    if quantity == "adameow_weighted_infonce":
        fine, coarse = with_grad(inputs["z_fine"]), with_grad(inputs["z_coarse"])
        net = PairWeights(fine.shape[1], len(inputs["b1"])).to(fine)
        names = {"W1": "first.weight", "b1": "first.bias", "W2": "second.weight", "b2": "second.bias"}
        net.load_state_dict({to: inputs[name] for name, to in names.items()})
        log_weights = net(fine, coarse)
        loss = weighted_contrast(fine, coarse, log_weights, temperature)
        weights = {name: net.get_parameter(to) for name, to in names.items()}
        return {
            "weights": log_weights.exp(),
            "loss": loss,
            **gradients(loss, z_fine=fine, z_coarse=coarse, **weights),
        }
    if quantity == "meow_density":
        z, centroids = inputs["z"], inputs["centroids"]
        assignment = (z @ centroids.mT).argmax(1)
        return {"assignment": assignment, "density": concentration(z, assignment, centroids, temperature)}
    raise UnknownQuantity(quantity)
