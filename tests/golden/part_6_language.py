"""Adapters of Part 6: whitenedcse, debcse, cocosoda."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad
from torch import nn

from cl_teach.core import cosine_similarity
from cl_teach.language.cocosoda import CoCoSoDa, Queues, SoftDraws, augment_tokens, cocosoda_terms
from cl_teach.language.debcse import debcse_loss, effective_sample_size, pair_probabilities, surface_similarity
from cl_teach.language.whitenedcse import WhitenedCSE, group_whiten

__all__ = ["cocosoda", "debcse", "whitenedcse"]


def whitenedcse(quantity, inputs, params):
    if quantity != "whitenedcse_sgw_and_loss":
        raise UnknownQuantity(quantity)
    views = with_grad([inputs["h1"], inputs["h2"], inputs["h3"]])
    shuffles = torch.stack([inputs["perm1"], inputs["perm2"], inputs["perm3"]])
    groups, ridge = params["groups"], params["eps"]
    result = {f"y{v + 1}": group_whiten(views[v], groups, shuffles[v], ridge=ridge) for v in range(3)}
    for detach, name in ((True, "detached"), (False, "full")):
        method = WhitenedCSE(
            views[0].shape[1], groups, temperature=params["temperature"], ridge=ridge, detach=detach
        ).double()
        method.load_state_dict({"head.weight": inputs["proj_W"], "head.bias": inputs["proj_b"]})
        terms = method.terms(views, shuffles)
        loss = terms.sum()
        result |= {"loss12": terms[0], "loss13": terms[1], "loss": loss}
        result |= gradients(loss, **{f"grad_h{v + 1}_{name}": view for v, view in enumerate(views)})
    return result


def debcse(quantity, inputs, params):
    if quantity == "debcse_sampling_probabilities":
        surface = surface_similarity([sentence.tolist() for sentence in inputs["tokens"]])
        semantic = cosine_similarity(inputs["embeddings"], inputs["embeddings"])
        tables = pair_probabilities(
            surface,
            semantic,
            sharpness=params["lam"],
            power=params["nu"],
            smallest_propensity=params["p_min"],
            largest_weight=params["w_cap"],
        )
        return {
            "surface": surface,
            "semantic": semantic,
            "q_pos": tables.positives,
            "q_neg": tables.negatives,
            "ess_pos": effective_sample_size(tables.positives),
            "ess_neg": effective_sample_size(tables.negatives),
        }
    if quantity == "debcse_hard_negative_infonce":
        leaves = with_grad({name: inputs[name] for name in ("h", "h_pos", "h_neg")})
        loss = debcse_loss(leaves["h"], leaves["h_pos"], leaves["h_neg"], params["tau"])
        return {"loss": loss, **gradients(loss, **leaves)}
    raise UnknownQuantity(quantity)


_KINDS = {
    "soft_augmentation_DM": "mask",
    "soft_augmentation_DR": "replace",
    "soft_augmentation_DMST": "mask_type",
}


def cocosoda(quantity, inputs, params):
    if quantity == "cocosoda_loss":
        code, query = with_grad(inputs["code"]), with_grad(inputs["query"])
        keys = inputs["code_key"], inputs["query_key"]
        names = ("code_queue", "query_queue", "masked_code_queue", "masked_query_queue")
        queues = Queues(*(inputs[name] for name in names))
        settings = {"scale": params["scale"], "intra_modal": params["intra_modal"]}
        terms = cocosoda_terms(code, query, *keys, queues, params["temperature"], **settings)
        loss = terms.mean()
        rows, dim = queues.code.shape
        method = CoCoSoDa(nn.Identity(), dim, queue_size=rows, momentum=params["momentum"]).double()
        method.push(*queues)
        for queue in method.memory.values():
            queue.cursor.fill_(params["queue_ptr"])
        method.push(code, query, *keys)
        result = {"loss": loss, "loss_terms": terms, **gradients(loss, code=code, query=query)}
        result |= {f"new_{name}": queue for name, queue in zip(names, method.queues, strict=True)}
        return result | {"ptr": method.memory["code"].cursor}
    if quantity in ("soft_augmentation_DM", "soft_augmentation_DR", "soft_augmentation_DMST"):
        uniforms = (inputs[name] for name in ("u_select", "u_replace", "u_random", "random_words"))
        ids = augment_tokens(
            inputs["ids"],
            inputs["type_ids"],
            SoftDraws(*uniforms),
            kind=_KINDS[quantity],
            rate=params["p"],
            mask_id=params["mask_id"],
            special_ids=[*params["special_ids"], params["pad_id"]],
            target_type=params["target_id"],
            protect_first=params["protect_first"],
            match_ids=params.get("match_on") == "ids",
        )
        return {"ids": ids}
    raise UnknownQuantity(quantity)
