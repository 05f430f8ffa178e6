"""Adapter of CoCoSoDa (``cocosoda``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch import nn

from cl_teach.datasets.soft_changes import SoftDraws, augment_tokens
from cl_teach.language.cocosoda import CoCoSoDa, Queues, cocosoda_terms

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
