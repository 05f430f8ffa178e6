"""Unlearning facts about some people: does it matter which weights may move?

A GRU learns facts (60 people, two relations, six colors) and then unlearns those of twelve people. Of the others' facts
half are in the retain loss; the other half are in no loss and are what is measured. All arms are compared at equal
forgetting: at the first step at which the mean loss of the forgotten facts has reached log 6, that of a guess among the
colors. (A mask that moves little keeps everything and forgets nothing; without equal forgetting it would win.) An arm
that does not get there within the steps counts with what it has lost at the end; how many did is in the runs.

Masks let the same share of weights move: drawn at random, the largest weights, the largest forget gradients, SNIP
(weight times forget gradient), WAGLE. Without a mask all move. After that the forgotten facts are learned again, by a
fresh Adam, and as a control new facts about the same people.
"""

from __future__ import annotations

import copy
import functools
import math

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.alignment.wagle import Unlearning, answer_accuracy, keep_largest
from cl_teach.core.gradients import loss_gradients
from cl_teach.datasets import Facts, named_facts
from cl_teach.models import LanguageModel
from cl_teach.models.sequence import token_log_probability
from cl_teach.training import at_scale, seed_everything

PEOPLE, COLORS, WIDTH = 60, 6, 32
STEPS, RATE, PATIENCE = at_scale(200, 200, smoke=5), 2e-3, at_scale(100, 100, smoke=5)
FORGOTTEN, KNOWN = math.log(COLORS), 0.1


def answer_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Mean loss of the answers."""
    return -token_log_probability(model(tokens[:, :-1])[1][:, -1:], tokens[:, -1:]).mean()


@functools.lru_cache(maxsize=1)
def learned(seed: int) -> tuple[Facts, LanguageModel]:
    """Facts, and a model that knows them all."""
    facts = named_facts(PEOPLE, 2, COLORS, seed=seed)
    seed_everything(seed)
    model = LanguageModel(facts.refusal + 1, WIDTH)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(at_scale(200, 200, smoke=5)):
        loss = answer_loss(model, facts.tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return facts, model


def steps_to_learn(model: nn.Module, tokens: Tensor) -> int:
    """Steps of Adam until these facts are known."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for step in range(PATIENCE):
        loss = answer_loss(model, tokens)
        if loss.item() < KNOWN:
            return step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return PATIENCE


def trial(seed: int, mask: str, ratio: float, objective: str, gamma: float = 1e-3) -> dict[str, float]:
    """Unlearn until it is forgotten, and measure."""
    facts, known = learned(seed)
    model = copy.deepcopy(known)
    forget, others = facts.tokens[facts.forget], facts.tokens[~facts.forget]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    retain, unseen = others[order].chunk(2)
    method = Unlearning(model, forget, retain, ratio=ratio, gamma=gamma, objective=objective)
    parameters = dict(model.named_parameters())
    if mask in ("random", "magnitude", "gradient", "snip"):
        slopes, draws = loss_gradients(method.answer_loss, parameters, [forget]), torch.Generator().manual_seed(seed)
        scores = {
            "random": {name: torch.rand(p.shape, generator=draws) for name, p in parameters.items()},
            "magnitude": {name: p.detach() for name, p in parameters.items()},
            "gradient": slopes,
            "snip": {name: p.detach() * slopes[name] for name, p in parameters.items()},
        }[mask]
        method.use_masks(keep_largest(scores, ratio))
    optimizer, steps = torch.optim.Adam(model.parameters(), lr=RATE), 0
    while steps < STEPS and method.answer_loss(forget).item() < FORGOTTEN:
        loss = method.loss(forget, retain)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        steps += 1
    with torch.no_grad():
        new = forget.clone()
        new[:, -1] = PEOPLE + 2 + (forget[:, -1] - PEOPLE - 2 + 1 + seed % (COLORS - 1)) % COLORS  # another color
        found = {
            "unseen": method.answer_loss(unseen).item(),
            "retain": method.answer_loss(retain).item(),
            "forget": method.answer_loss(forget).item(),
        }
    found |= {"unseen_accuracy": 100 * answer_accuracy(model, unseen), "steps": steps}
    found |= {"forget_accuracy": 100 * answer_accuracy(model, forget), "reached": float(steps < STEPS)}
    return found | {"relearn": steps_to_learn(model, forget), "new": steps_to_learn(model, new)}


MASKS = ("random", "magnitude", "gradient", "snip", "wagle")
ARMS = {
    f"{objective}-none": {"mask": "none", "ratio": 1.0, "objective": objective} for objective in ("npo", "grad_diff")
}
ARMS |= {f"npo-{mask}-5": {"mask": mask, "ratio": 0.05, "objective": "npo"} for mask in MASKS}
ARMS |= {f"npo-{mask}-95": {"mask": mask, "ratio": 0.95, "objective": "npo"} for mask in ("random", "wagle")}
ARMS |= {"grad_diff-wagle-95": {"mask": "wagle", "ratio": 0.95, "objective": "grad_diff"}}
WORDS = {"none": "all weights", "random": "random", "magnitude": "largest weights", "gradient": "largest gradients"}
WORDS |= {"snip": "SNIP", "wagle": "WAGLE"}
LOSS = Metric(
    "Loss of facts that are in no loss, when the others are forgotten",
    "unseen",
    "nats",
    0.05,
    "A twentieth of a nat; a guess costs 1.8.",
)
SPEED = Metric("Steps until the facts are known", "relearn", "steps", 2.0, "Two steps of about ten.")
NOTE = (
    "GRU of width 32, 120 facts, Adam at 0.002, full batches; compared at the first step with a forget loss of log 6."
)


def lower(claim_id: str, sentence: str, baseline: str, method: str, **more: object) -> Claim:
    """A claim about the loss of unseen facts."""
    return Claim(claim_id, sentence, LOSS, baseline, method, "lower", **more)  # type: ignore[arg-type]


EXPERIMENTS = (
    Experiment(
        "wagle",
        ARMS,
        trial,
        [
            lower(
                "against-no-mask",
                "At equal forgetting, NPO with WAGLE's mask on 95 % of the weights keeps other facts better.",
                "npo-none",
                "npo-wagle-95",
                headline=True,
            ),
            lower(
                "against-no-mask-graddiff",
                "The same for GradDiff.",
                "grad_diff-none",
                "grad_diff-wagle-95",
            ),
            *(
                lower(
                    f"against-{mask}-5",
                    f"With 5 % of the weights, WAGLE's keep other facts better than {words}.",
                    f"npo-{mask}-5",
                    "npo-wagle-5",
                )
                for mask, words in (
                    ("random", "random ones"),
                    ("snip", "SNIP's"),
                    ("gradient", "those of the largest forget gradient"),
                )
            ),
            lower(
                "few-weights",
                "Letting 5 % of the weights move, chosen by WAGLE, keeps other facts better than letting all move.",
                "npo-none",
                "npo-wagle-5",
                origin="ours",
            ),
            Claim(
                "relearning",
                "Forgotten facts are learned again faster than new facts about the same people are.",
                SPEED,
                "npo-none:new",
                "npo-none",
                "lower",
                origin="ours",
                names=("new facts", "forgotten facts"),
            ),
            Claim(
                "relearning-mask",
                "After unlearning with 5 % of the weights facts come back faster than after unlearning with all.",
                SPEED,
                "npo-none",
                "npo-wagle-5",
                "lower",
                origin="ours",
            ),
        ],
        {
            arm: (x["objective"].upper() if x["objective"] == "npo" else "GradDiff")
            + f", {WORDS[str(x['mask'])]}"
            + ("" if x["mask"] == "none" else f", {100 * x['ratio']:.0f} %")
            for arm, x in ARMS.items()
        },
        NOTE,
        seeds=range(20),
        looks=LOOKS,
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
