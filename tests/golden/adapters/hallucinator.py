"""Adapter of Hallucinator (``hallucinator``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.losses.hallucinator import Hallucinator, hallucinated_moco, hallucinated_simclr, hallucinated_simsiam


def hallucinator(quantity, inputs, params):
    first = inputs["A1"]
    network = Hallucinator(first.shape[1] // 2, first.shape[0]).to(first.dtype)
    names = {"0": "1", "2": "2", "4": "3"}
    weights = {f"{ours}.weight": inputs[f"A{theirs}"] for ours, theirs in names.items()}
    biases = {f"{ours}.bias": inputs[f"a{theirs}"] for ours, theirs in names.items()}
    network.network.load_state_dict(weights | biases)
    if quantity == "hallucinator_moco":
        q = with_grad(inputs["q"])
        loss, queries = hallucinated_moco(
            network, q, inputs["k"], inputs["queue"].mT, params["ratio"], params["temperature"]
        )
        return {"loss": loss, "q_all": queries, **gradients(loss, q=q, A1=network.network[0].weight)}
    if quantity == "hallucinator_simclr":
        q, k = with_grad(inputs["q"]), with_grad(inputs["k"])
        loss = hallucinated_simclr(network, q, k, params["ratio"], params["temperature"])
        return {"loss": loss, **gradients(loss, q=q, k=k)}
    if quantity == "hallucinator_simsiam":
        p1, p2 = with_grad(inputs["p1"]), with_grad(inputs["p2"])
        loss = hallucinated_simsiam(network, p1, p2, inputs["z1"], inputs["z2"], params["ratio1"], params["ratio2"])
        return {"loss": loss, **gradients(loss, p1=p1, p2=p2)}
    raise UnknownQuantity(quantity)
