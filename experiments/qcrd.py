"""QCRD on arithmetic: does a student that also learns from bad rationales answer better than by plain distillation?

A question is (a + b) * c for three digits, the answer its last digit. A teacher works it out five times and gets the
sum wrong in a quarter of its rationales. A recurrent student of width 48 learns the right answer with one head and the
teacher's rationale with another: 650 questions, 300 steps of 32; 250 other questions are asked. Arms: the answer alone;
one rationale, as it comes (plain distillation); the rationales of the majority; these and bad ones (the teacher's
minority, and what the student of five epochs ago wrote at temperature 1.5) with all scores known to be 1 and 0; the
same with a discriminator's scores, which is QCRD; and known scores without a margin.

The learning rate is tuned for plain distillation and for QCRD, on 100 questions of seeds of their own; the other arms
take QCRD's, the answer alone takes that of plain distillation. The margin is 2 nats a token, where the paper has 3:
with 15 tokens even a uniform guess costs 2.7.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core.voting import majority_mask
from cl_teach.datasets import Rationales, arithmetic_rationales
from cl_teach.language.qcrd import QCRD, QCRDTerms, Questions, qcrd_terms, rationale_loss
from cl_teach.models.rationales import Discriminator, Student
from cl_teach.training import at_scale, seed_everything

TOKENS, WIDTH, BATCH, EPOCH, MARGIN, SURE = 15, 48, 32, 20, 2.0, 30.0
STEPS, PRETRAIN = at_scale(300, 2000, smoke=5), at_scale(60, 500, smoke=2)
TRAIN, VALID = 650, 100


def world(seed: int) -> tuple[Rationales, Tensor, Tensor, Tensor]:
    """Every question once, and which are learned, tuned on and asked."""
    data = arithmetic_rationales(9000, seed=seed)
    code = (data.question - 1) @ torch.tensor([100, 10, 1])
    first = {c: i for i, c in reversed(list(enumerate(code.tolist())))}
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))
    rows = torch.tensor(sorted(first.values()))[order]
    return data, rows[:TRAIN], rows[TRAIN : TRAIN + VALID], rows[TRAIN + VALID :]


def token_losses(student: Student, question: Tensor, rationales: Tensor) -> Tensor:
    """Mean token loss ``(n, R)``, the end of the text included."""
    end = F.pad(rationales, (0, 1))
    valid = torch.arange(end.shape[2]) <= rationales.ne(0).sum(-1)[..., None]
    return rationale_loss(student(question, rationales), end, valid)


def known_step(method: QCRD, batch: Questions, *, push: bool, explain: float, generator: torch.Generator) -> QCRDTerms:
    """A step of the student alone, with scores 1 for good rationales and 0 for bad ones."""
    question, label, rationales, positive = batch
    negative = torch.zeros_like(positive)
    if push:
        if method.steps % EPOCH == 0:
            snapshot = copy.deepcopy(method.student).requires_grad_(False)
            method.ring = nn.ModuleList([*method.ring, snapshot][-method.age - 1 :])
        rationales, negative = method.negatives(question, rationales, positive, generator=generator)
        positive = F.pad(positive, (0, 1))
    losses = token_losses(method.student, question, rationales)
    sure = torch.full_like(losses, SURE)
    numbers = method.numbers | {"contrast_weight": explain}
    masks = {"positive_mask": positive, "negative_mask": negative}
    answers = method.student.label(question)
    terms = qcrd_terms(answers, label, losses, losses, sure, -sure, **masks, **numbers, discriminator_weight=0.0)
    method.optimizers[0].zero_grad()
    terms.loss.backward()
    method.optimizers[0].step()
    method.steps += 1
    return terms


def train(
    seed: int, learning_rate: float, samples: int, push: bool, judge: bool, margin: float, explain: float
) -> tuple[QCRD, float]:
    """The method after training, and in how many of the last hundred steps bad rationales were pushed at all."""
    data, rows, _, _ = world(seed)
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    student, discriminator = Student(TOKENS, 10, WIDTH), Discriminator(TOKENS, WIDTH)
    rates = {"learning_rate": learning_rate, "steps_per_iteration": EPOCH}
    method = QCRD(student, discriminator, margin=margin, **rates)
    rationales = data.rationales[:, :samples]
    # Of a single rationale there is no majority: it counts as good, whatever it says.
    positive = majority_mask(data.answers) if samples > 1 else torch.ones(len(rationales), 1, dtype=torch.bool)
    pushed = 0

    def batch() -> Questions:
        i = rows[torch.randint(len(rows), (BATCH,), generator=draws)]
        return Questions(data.question[i], data.label[i], rationales[i], positive[i])

    for _ in range(PRETRAIN if judge else 0):
        method.pretrain(batch(), generator=draws)
    for step in range(STEPS):
        if judge:
            terms = method.step(batch(), generator=draws)
        else:
            terms = known_step(method, batch(), push=push, explain=explain, generator=draws)
        pushed += step >= STEPS - 100 and terms.negative.item() < -0.01
    return method.eval(), 100 * pushed / min(100, STEPS)


@torch.no_grad()
def judged(method: QCRD, data: Rationales, rows: Tensor) -> float:
    """How often the discriminator scores a right rationale above a wrong one of the same teacher (AUC)."""
    scores = method.discriminator(data.question[rows], data.rationales[rows])
    right = (data.rationales[rows] == data.truth[rows][:, None]).all(-1)
    above = scores[right][:, None] - scores[~right]
    return ((above > 0).double() + 0.5 * (above == 0)).mean().item()


@torch.no_grad()
def answered(method: QCRD, data: Rationales, rows: Tensor) -> float:
    """Percent of right answers."""
    return 100 * (method(data.question[rows]).argmax(1) == data.label[rows]).double().mean().item()


def score(seed: int, **settings: Any) -> float:
    """What the tuning looks at: right answers to questions that no record asks."""
    data, _, rows, _ = world(seed)
    return answered(train(seed, **settings)[0], data, rows)


def trial(seed: int, **settings: Any) -> dict[str, float]:
    """Train one arm, ask new questions, read what it writes."""
    return measured(*train(seed, **settings), seed)


@torch.no_grad()
def measured(method: QCRD, pushed: float, seed: int) -> dict[str, float]:
    """All that the records need of a trained method."""
    data, _, _, rows = world(seed)
    question, truth = data.question[rows], data.truth[rows]
    written = method.student.write(question, truth.shape[1])
    length = written.ne(0).sum(1)
    last = written.gather(1, (length - 1).clamp_min(0)[:, None])[:, 0] - 1
    losses = token_losses(method.student, question, data.rationales[rows])
    right = (data.rationales[rows] == truth[:, None]).all(-1)
    return {
        "answer": answered(method, data, rows),
        "written": 100 * ((last == data.label[rows]) & (length > 0)).double().mean().item(),
        "right": 100 * (written == truth).all(1).double().mean().item(),
        "good": losses[right].mean().item(),
        "bad": losses[~right].mean().item(),
        "auc": judged(method, data, rows),
        "chance": 0.5,
        "pushed": pushed,
    }


def arm(
    samples: int = 5, *, push: bool = False, judge: bool = False, margin: float = MARGIN, explain: float = 0.5
) -> dict[str, float]:
    """Settings of an arm."""
    return {"samples": samples, "push": push, "judge": judge, "margin": margin, "explain": explain}


ARMS = {
    "answer": arm(1, explain=0.0),
    "one": arm(1),
    "majority": arm(),
    "known": arm(push=True),
    "qcrd": arm(push=True, judge=True),
    "no margin": arm(push=True, margin=1000.0),
}
ANSWER = Metric("Right answers to new questions", "answer", "points", 2.0, "Five of 250 questions.")
WRITTEN = Metric("Written rationales that end in the right answer", "written", "points", 2.0, "Five of 250 questions.")
GOOD = Metric("Mean token loss of right rationales", "good", "nats", 0.1, "A factor of 1.1 in a token's probability.")
JUDGE = Metric("Right rationales that score above wrong ones", "auc", "", 0.05, "A twentieth of all pairs.")
EXPERIMENTS = (
    Experiment(
        "qcrd",
        ARMS,
        trial,
        [
            Claim(
                "accuracy",
                "A student taught by QCRD answers more new questions than one taught by plain distillation.",
                ANSWER,
                "one",
                "qcrd",
                headline=True,
            ),
            Claim("majority", "Rationales of the majority teach more than one as it comes.", ANSWER, "one", "majority"),
            Claim("negatives", "Bad rationales with known scores add to that.", ANSWER, "majority", "known"),
            Claim("discriminator", "A discriminator's scores add to that.", ANSWER, "known", "qcrd"),
            Claim(
                "answer-alone",
                "QCRD answers more new questions than a student that learns answers alone.",
                ANSWER,
                "answer",
                "qcrd",
                origin="ours",
            ),
            Claim("written", "What QCRD writes ends in the right answer more often.", WRITTEN, "one", "qcrd"),
            Claim(
                "written-majority",
                "Of a student of the majority's rationales, too, more end in the right answer.",
                WRITTEN,
                "one",
                "majority",
            ),
            Claim(
                "margin",
                "Without a margin the right rationales become less likely, too.",
                GOOD,
                "known",
                "no margin",
                origin="ours",
            ),
            Claim(
                "judge",
                "The discriminator tells the teacher's right rationales from its wrong ones.",
                JUDGE,
                "qcrd:chance",
                "qcrd:auc",
                origin="ours",
                names=("chance", "discriminator of QCRD"),
            ),
        ],
        {
            "answer": "answers alone",
            "one": "plain distillation, one rationale",
            "majority": "rationales of the majority",
            "known": "bad rationales, known scores",
            "qcrd": "QCRD",
            "no margin": "bad rationales, known scores, no margin",
        },
        "Arithmetic with three digits, a teacher with 25 % wrong sums, recurrent student of width 48, 300 steps of 32.",
        seeds=range(20),
        looks=LOOKS,
        tuning=Tuning(
            {"learning_rate": (3e-3, 7e-3, 1.5e-2)},
            score,
            like={"answer": "one", "majority": "qcrd", "known": "qcrd", "no margin": "qcrd"},
            widen=1,
        ),
    ),
)
assert math.log(TOKENS) > MARGIN

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
