"""Part 10."""

from __future__ import annotations

import torch
from torch import Tensor

from cl_teach.alignment.constrained_rlhf import ConstrainedPPO
from cl_teach.alignment.likelihood_displacement import FilteredDPO
from cl_teach.alignment.loss_reweighting import ReweightedTraining
from cl_teach.alignment.preference_ft import PreferenceTuning
from cl_teach.alignment.sparsepo import SparsePO
from cl_teach.alignment.wagle import Unlearning
from cl_teach.core.frozen import FrozenCopy
from cl_teach.core.multipliers import Multipliers
from cl_teach.core.preference import preference_loss
from cl_teach.models.policies import ActionPolicy
from cl_teach.models.sequence import token_log_probability

from . import DIM, Bigram, Case, Trained, descend, own, whole

TOKENS = 8


def log_p(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Log-probability ``(n,)`` of texts behind their first token."""
    return token_log_probability(model(tokens)[1][:, :-1], tokens[:, 1:]).sum(1)


def dpo(model: torch.nn.Module, chosen: Tensor, rejected: Tensor) -> Trained:
    """DPO with a frozen reference that reads in every step."""
    reference = FrozenCopy(model)

    def loss() -> Tensor:
        with torch.no_grad():
            known = log_p(reference, chosen) - log_p(reference, rejected)
        return preference_loss(log_p(model, chosen) - log_p(model, rejected), known).mean()

    return descend(loss, model.parameters())


def pairs(n: int) -> tuple[Tensor, Tensor]:
    """Texts of eight tokens."""
    return whole(256, n, TOKENS), whole(256, n, TOKENS, seed=1)


def on_policy(n: int) -> tuple[Trained, Trained]:
    """PPO on ten fresh actions of every state; the baseline is DPO on actions that are given."""
    states = torch.arange(n)
    tunings = [
        PreferenceTuning(ActionPolicy(torch.ones(100), n), lambda actions: actions.float() / 100, name)
        for name in ("ppo", "dpo")
    ]
    draws = tunings[1].collect(states)
    return (
        own(lambda: tunings[0].step(tunings[0].collect(states)), tunings[0].policy),
        own(lambda: tunings[1].step(draws), tunings[1].policy),
    )


def filtered(n: int) -> tuple[Trained, Trained]:
    """All pairs were scored before."""
    (chosen, rejected), model = pairs(n), Bigram()
    mask = (torch.arange(TOKENS) < TOKENS - 1).expand(n, -1)
    method = FilteredDPO(model, chosen, rejected, mask, mask, share=1.0)
    return descend(lambda: method.loss(method.kept), model.parameters()), dpo(Bigram(), chosen, rejected)


def sparse(n: int) -> tuple[Trained, Trained]:
    """One mask for both terms."""
    (chosen, rejected), method = pairs(n), SparsePO(Bigram(), DIM)
    return descend(lambda: method.loss(chosen, rejected), method.parameters()), dpo(Bigram(), chosen, rejected)


def constrained(n: int) -> tuple[Trained, Trained]:
    """Texts are written and rewarded by two models; the baseline holds the weights of the rewards fixed."""
    made = []
    for kind in ("equality", "fixed"):
        held = Multipliers(torch.tensor([0.5, 0.6]), kind, initial=torch.tensor([0.5, 0.5]))
        method = ConstrainedPPO(
            Bigram(), DIM, lambda x: torch.stack([x, -x], 2).float().mean(1) / 256, held, length=TOKENS, epochs=1
        )
        method.minibatch = n * TOKENS
        made.append(own(lambda method=method: method.step(method.write(n)), method.policy))
    return made[0], made[1]


def reweighted(n: int) -> tuple[Trained, Trained]:
    """Texts of eight tokens."""
    tokens, model = whole(256, n, TOKENS), Bigram()
    method = ReweightedTraining(model)
    weighted = descend(lambda: method.loss(tokens), model.parameters(), method.after_step)
    return weighted, descend(lambda: -log_p(model, tokens).mean() / (TOKENS - 1), model.parameters())


def unlearning(n: int) -> tuple[Trained, Trained]:
    """A fifth of the weights may move; the baseline moves all."""
    (forget, retain), model = pairs(n), Bigram()
    method = Unlearning(model, forget, retain, ratio=0.2)
    masked = descend(lambda: method.loss(forget, retain), model.parameters(), method.after_step)

    def plain() -> Tensor:
        answers = (token_log_probability(model(x)[1][:, -2:-1], x[:, -1:]).mean() for x in (forget, retain))
        return next(answers) - next(answers)

    return masked, descend(plain, model.parameters())


CASES = {
    "preference-ft": Case("states", "DPO on given actions", on_policy, note="PPO, ten fresh actions of 100 a state"),
    "likelihood-displacement": Case(
        "pairs", "DPO", filtered, note="scores and the reference's probabilities are kept from the start"
    ),
    "sparsepo": Case("pairs", "DPO", sparse, note="the divergence of every token is over the whole vocabulary"),
    "constrained-rlhf": Case("texts", "PPO with fixed weights", constrained, note="eight tokens are written a text"),
    "loss-reweighting": Case("texts", "next-token loss", reweighted),
    "wagle": Case("texts", "gradient ascent and descent", unlearning, note="weights that may not move are put back"),
}
