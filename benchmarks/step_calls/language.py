"""Part 6."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import info_nce
from cl_teach.core.voting import majority_mask
from cl_teach.datasets.rationales import arithmetic_rationales
from cl_teach.language.cocosoda import CoCoSoDa
from cl_teach.language.contrastive_search import simctg_terms
from cl_teach.language.cvib import CVIB, VIBMask
from cl_teach.language.debcse import debcse_loss, draw_pairs
from cl_teach.language.qcrd import QCRD, Questions, rationale_loss
from cl_teach.language.whitenedcse import WhitenedCSE
from cl_teach.models.rationales import Discriminator, Student
from cl_teach.models.sequence import token_log_probability
from cl_teach.models.token_classifier import TokenClassifier

from . import DIM, Bigram, Case, Trained, descend, in_classes, in_views, own, rows, whole

CORPUS = 1024


def with_debcse(n: int) -> tuple[Trained, Trained]:
    """Positive and hard negative of each anchor are drawn from tables of a corpus of 1,024 sentences."""
    encoder, index = nn.Embedding(CORPUS, DIM), torch.arange(n)
    likely = [rows(CORPUS, CORPUS, seed=k).softmax(1) for k in range(2)]

    def loss() -> Tensor:
        positive, negative = draw_pairs(likely[0][index])[:, 0], draw_pairs(likely[1][index])
        h = encoder(torch.cat([index, positive, negative[:, 0]])).unflatten(0, (3, n))
        return debcse_loss(h[0], h[1], h[2][:, None], index=(index, positive, negative))

    def plain() -> Tensor:
        return info_nce(encoder(index), encoder(index.flip(0)), temperature=0.05)

    return descend(loss, encoder.parameters()), descend(plain, encoder.parameters())


def with_whitening(n: int) -> tuple[Trained, Trained]:
    """Three views, eight groups of 16 channels; the baseline compares two views."""
    given, method = in_views(n, 3), WhitenedCSE(DIM, 8, ridge=1e-3)
    whitened = descend(lambda: method.loss(given), [*given, *method.parameters()])
    return whitened, descend(lambda: info_nce(given[0], given[1], temperature=0.05), given)


def with_cvib(n: int) -> tuple[Trained, Trained]:
    """Networks of one layer."""
    x, y = rows(n), in_classes(n, 2)
    original, pruned = TokenClassifier([DIM, DIM], 2), TokenClassifier([DIM, DIM], 2, mask=VIBMask)
    method, alone = CVIB(original, pruned), TokenClassifier([DIM, DIM], 2)
    optimizer = torch.optim.AdamW(alone.parameters())
    plain = descend(lambda: F.cross_entropy(alone(x)[1], y), alone.parameters(), optimizer.step)
    return own(lambda: method.step((x, y)), method), plain


def with_cocosoda(n: int) -> tuple[Trained, Trained]:
    """Four queues of 4,096; the baseline has one."""
    encoder, batch, queue = nn.Linear(DIM, DIM), [rows(n, seed=k) for k in range(4)], rows(4096, seed=4)
    method = CoCoSoDa(encoder, DIM, queue_size=4096)
    queued = descend(lambda: method.loss(encoder, *batch), encoder.parameters(), method.after_step)

    def plain() -> Tensor:
        return info_nce(encoder(batch[0]), encoder(batch[1]), queue, 0.07, in_batch=True)

    return queued, descend(plain, encoder.parameters())


def with_simctg(n: int) -> tuple[Trained, Trained]:
    """Texts of 16 tokens."""
    model, tokens = Bigram(), whole(256, n, 16)

    def plain() -> Tensor:
        return -token_log_probability(model(tokens)[1][:, :-1], tokens[:, 1:]).mean()

    return descend(lambda: simctg_terms(model, tokens), model.parameters()), descend(plain, model.parameters())


def with_qcrd(n: int) -> tuple[Trained, Trained]:
    """Five rationales a question, recurrent networks of width 32."""
    data = arithmetic_rationales(n)
    good = majority_mask(data.answers)
    batch = Questions(data.question, data.label, data.rationales, good)
    student = Student(15, 10, 32)
    method = QCRD(student, Discriminator(15, 32), steps_per_iteration=1000)
    end = F.pad(data.rationales, (0, 1))

    def plain() -> Tensor:
        nll = rationale_loss(student(data.question, data.rationales), end)  # (n, 5)
        return F.cross_entropy(student.label(data.question), data.label) + (nll * good).sum() / good.sum()

    return own(lambda: method.step(batch), method), descend(plain, student.parameters())


CASES = {
    "debcse": Case(
        "sentences", "InfoNCE", with_debcse, "every pair is compared, and repeated sentences are taken out pair by pair"
    ),
    "whitenedcse": Case("sentences", "InfoNCE", with_whitening, "every pair is compared", note="3 views, 8 groups"),
    "cvib": Case(
        "samples", "cross-entropy of one network", with_cvib, "every pair is compared", note="two networks, AdamW"
    ),
    "cocosoda": Case("pairs", "InfoNCE with one queue", with_cocosoda, note="four queues of 4,096, six contrasts"),
    "contrastive-search": Case(
        "texts", "next-token loss", with_simctg, note="16 tokens a text; grows with their square"
    ),
    "qcrd": Case(
        "questions",
        "label and good rationales",
        with_qcrd,
        note="an old copy of the student writes in every step",
        sizes=(16, 64, 256),
    ),
}
