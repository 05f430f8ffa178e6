"""Adapter of Contrastive search (``contrastive-search``)."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad
from torch import nn

from cl_teach.language.contrastive_search import (
    contrastive_choice,
    diversity,
    isotropy,
    repetition,
    simctg_contrast,
    valid_tokens,
)
from cl_teach.language.contrastive_search import contrastive_search as search
from cl_teach.models import LanguageModel
from cl_teach.models.reading import reader


def toy_model(A, E, U):
    """The case's recurrent model in our clothes: h_t = tanh(A h_{t-1} + E[x_t]), logits = U h_t."""
    model = LanguageModel(*E.shape).double()
    model.recurrence = nn.RNN(E.shape[1], E.shape[1], bias=False, batch_first=True).double()
    model.norm = nn.Identity()
    weights = {
        "embedding.weight": E,
        "recurrence.weight_ih_l0": torch.eye(E.shape[1], dtype=E.dtype),
        "recurrence.weight_hh_l0": A,
        "output.weight": U,
    }
    model.load_state_dict(weights)
    return model


def contrastive_search(quantity, inputs, params):
    if quantity == "contrastive_search_selection":
        names = ("context_hidden", "candidate_hidden", "candidate_probs")
        choice = contrastive_choice(*(inputs[name] for name in names), params["alpha"])
        return {"scores": choice.scores, "degeneration_penalty": choice.penalty, "selected": choice.chosen}
    if quantity == "contrastive_search_decode":
        read = reader(toy_model(inputs["A"], inputs["E"], inputs["U"]))
        prefix, steps = inputs["prefix"][None], params["steps"]
        decoded = search(read, prefix, steps, k=params["k"], alpha=params["alpha"])
        greedy = search(read, prefix, steps, k=1)
        return {"ids": decoded.ids[0], "scores": decoded.scores[0], "greedy_ids": greedy.ids[0]}
    if quantity == "simctg_contrastive_loss_and_isotropy":
        hidden = with_grad(inputs["hidden"])
        valid = valid_tokens(inputs["ids"], params["pad_id"])
        loss = simctg_contrast(hidden, valid, params["rho"])
        return {"loss": loss, **gradients(loss, hidden=hidden), "isotropy": isotropy(hidden, valid)}
    if quantity == "diversity":
        texts = [text.split() for text in inputs["texts"]]
        return {
            "rep_2": repetition(texts, 2),
            "rep_2_code": repetition(texts, 2, released=True),
            "rep_3": repetition(texts, 3),
            "rep_3_code": repetition(texts, 3, released=True),
            "rep_4": repetition(texts, 4),
            "rep_4_code": repetition(texts, 4, released=True),
            "diversity": diversity(texts),
            "diversity_code": diversity(texts, released=True),
        }
    raise UnknownQuantity(quantity)
