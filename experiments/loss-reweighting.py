"""Do weights from losses help a language model whose corpus repeats itself, and what do they do to noise?

A GRU learns a toy language whose entropy is known, from 1,200 texts alone, with four boilerplate texts of another
language repeated 1,200 times each, or with 600 texts of random words. Five strategies give the texts of a batch their
weights; the temperature and the burn-in are the released ones, shortened. Loss on 400 new texts of the language, in
nats a word. A control: uniform weights on the corpus without the copies, which is what removing duplicates gives.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.alignment.loss_reweighting import STRATEGIES, ReweightedTraining, sequence_losses
from cl_teach.datasets import toy_text
from cl_teach.models import LanguageModel
from cl_teach.training import at_scale, seed_everything

TEXTS, LENGTH, VOCABULARY, SUCCESSORS, OTHER = 1200, 17, 60, 8, 1000
STEPS, BURN_IN, BATCH = at_scale(300, 1000, smoke=10), 50, 32
TEMPERATURE, RATE = 0.4, 5e-3


def corpus(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Texts to learn from, and new ones."""
    draws = torch.Generator().manual_seed(seed)

    def texts(n: int, language: int) -> Tensor:
        return toy_text(n, LENGTH, VOCABULARY, SUCCESSORS, language=language, generator=draws)

    learned, new = texts(TEXTS, seed), texts(400, seed)
    if kind == "copies":
        learned = torch.cat([learned, texts(4, seed + OTHER).repeat(TEXTS, 1)])
    if kind == "noise":
        learned = torch.cat([learned, torch.randint(VOCABULARY, (TEXTS // 2, LENGTH), generator=draws)])
    return learned, new


def trial(seed: int, kind: str, strategy: str) -> dict[str, float]:
    """Train one model and test it."""
    learned, new = corpus(kind, seed)
    seed_everything(seed)
    model, draws = LanguageModel(VOCABULARY, 32), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    stages = ((0, 100.0), (BURN_IN, TEMPERATURE))
    method, extra = ReweightedTraining(model, optimizer, strategy=strategy, stages=stages), 0.0
    for step in range(STEPS):
        rows = torch.randint(len(learned), (BATCH,), generator=draws)
        weights = method.step(learned[rows]).weights
        if step >= BURN_IN:
            extra += weights[rows >= TEXTS].sum().item() / (STEPS - BURN_IN)
    with torch.no_grad():
        loss = sequence_losses(model(new[:, :-1])[1], new[:, 1:]).mean().item()
    return {"loss": loss, "extra": extra}


RUN = {"plain": ("uniform", "linupper"), "copies": STRATEGIES, "noise": ("uniform", "linupper", "upper")}
ARMS = {f"{kind}-{strategy}": {"kind": kind, "strategy": strategy} for kind in RUN for strategy in RUN[kind]}
WORDS = {"uniform": "uniform", "linupper": "LinUpper", "quadratic": "Quadratic", "extremes": "Extremes"}
WORDS |= {"upper": "Upper, no cap"}
LOSS = Metric(
    "Loss on new texts of the language", "loss", "nats", 0.02, "A hundredth of what the best model still has to pay."
)


def lower(claim_id: str, sentence: str, baseline: str, method: str, **more: object) -> Claim:
    """A claim about the loss."""
    return Claim(claim_id, sentence, LOSS, baseline, method, "lower", **more)  # type: ignore[arg-type]


EXPERIMENTS = (
    Experiment(
        "loss-reweighting",
        ARMS,
        trial,
        [
            lower(
                "copies",
                "In a corpus full of copies LinUpper ends at a lower loss on new texts than uniform weights.",
                "copies-uniform",
                "copies-linupper",
                headline=True,
            ),
            lower("plain", "The same in a corpus without copies.", "plain-uniform", "plain-linupper"),
            lower("noise", "The same in a corpus with random texts.", "noise-uniform", "noise-linupper"),
            lower("cap", "With random texts the cap of LinUpper limits the damage.", "noise-upper", "noise-linupper"),
            lower(
                "copies-extremes",
                "With copies, weights on both extremes are worse than uniform ones.",
                "copies-extremes",
                "copies-uniform",
            ),
            lower(
                "copies-removed",
                "With copies, LinUpper is as good as uniform weights on the corpus without them.",
                "plain-uniform",
                "copies-linupper",
                origin="ours",
            ),
        ],
        {f"{kind}-{s}": f"{WORDS[s]}, {kind}" for kind in RUN for s in RUN[kind]},
        "GRU of width 32, 300 steps of 32 texts, r = 0.4 after 50 steps, AdamW at 0.005 for all, nothing tuned.",
        seeds=range(20),
        looks=LOOKS,
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
