r"""QCRD: Quality-guided Contrastive Rationale Distillation for Large Language Models. Wei Wang, Zhaowei Li, Qi Xu and
others; EMNLP 2025; https://arxiv.org/abs/2405.13014.

**A reconstruction.** Only abstracts and summaries could be read and no code was found. They name the components; every
formula, the margin and the weights of the losses below are the book's choice and not verified against the paper.

For a question there are P good rationales r and Q bad ones. With :math:`\ell(r)` the student's mean token loss and
:math:`D = \sigma(d)` the quality that a discriminator gives (a constant here),

.. math::
    L_{pos} &= \sum_i \frac{D(r_i)}{\sum_{i'} D(r_{i'})}\,\ell(r_i), \qquad
    L_{con} = \frac1Q\sum_j (1-D(r^-_j))\max\{0, m + L_{pos} - \ell(r^-_j)\}, \\
    L &= L_{label} + \lambda_1 L_{pos} + \lambda_2 L_{con}, \\
    L_D &= \tfrac1{P+Q}\Big[\sum_i\mathrm{softplus}(-d(r_i)) + \sum_j\mathrm{softplus}(d(r^-_j))\Big].

What changes and why: the good rationales come from a teacher and agree with its majority answer. The bad ones are
sampled hot from an earlier snapshot of the student, so it learns from its own weaknesses, not from the text it is
writing now. The hinge stops pushing once a bad rationale is m worse; without a bound all text would be destroyed. The
discriminator, trained along, spares a sampled rationale that looks good.

Paper versus code. No code, so nothing can be compared. Open: the form of the contrast, the margin, whether weights are
detached, the discriminator, the age of a snapshot, the fate of rejected teacher samples (dropped here).
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_embeddings, check_in_range, check_labels, check_positive, check_same_shape

__all__ = [
    "QCRD",
    "Discriminator",
    "Split",
    "Student",
    "StudentTerms",
    "discriminator_loss",
    "quality_weights",
    "rationale_loss",
    "self_consistency_split",
    "student_loss",
]


class Split(NamedTuple):
    """The majority answer of a question, the indices of the samples that give it, and all other indices."""

    majority: Hashable
    positive: list[int]
    discarded: list[int]


class StudentTerms(NamedTuple):
    """Four scalars: the whole loss and its parts."""

    total: Tensor
    label: Tensor
    positive: Tensor
    contrast: Tensor


def self_consistency_split(answers: Sequence[Hashable]) -> Split:
    """Keep the teacher's samples that agree with the majority; a tie goes to the answer that comes first.

    Raises:
        ValueError: no answers.
    """
    if not len(answers):
        raise ValueError("answers: expected at least one, got none")
    majority = Counter(answers).most_common(1)[0][0]  # equal counts keep their order
    positive = [i for i, answer in enumerate(answers) if answer == majority]
    return Split(majority, positive, [i for i in range(len(answers)) if i not in positive])


def rationale_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean token loss of one rationale (a sum would let long negatives win by length).

    Args:
        logits: ``(T, V)``, row t predicts ``tokens[t]``.
        tokens: ``(T,)`` integers.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, no token.
    """
    check_embeddings(logits=logits)
    check_labels(tokens, len(logits), name="tokens", num_classes=logits.shape[1])
    return F.cross_entropy(logits, tokens)


def quality_weights(good: Tensor, bad: Tensor) -> tuple[Tensor, Tensor]:
    """Weights from the discriminator's logits, constants for the gradient.

    Args:
        good: ``(P,)`` logits of the positives.
        bad: ``(Q,)`` logits of the negatives, Q may be 0.

    Returns:
        ``(P,)`` summing to 1, and ``(Q,)`` in [0, 1].

    Raises:
        TypeError: not floating.
        ValueError: no positive, NaN.
    """
    check_embeddings(ndim=1, good=good)
    if len(bad):
        check_embeddings(ndim=1, bad=bad)
    return F.logsigmoid(good.detach()).softmax(0), torch.sigmoid(-bad.detach())


def student_loss(
    label_logits: Tensor,
    label: Tensor,
    positive: Tensor,
    negative: Tensor,
    positive_weights: Tensor,
    negative_weights: Tensor,
    *,
    margin: float = 0.5,
    rationale_weight: float = 1.0,
    contrast_weight: float = 0.5,
) -> StudentTerms:
    """Label, rationales and contrast of one question.

    Args:
        label_logits: ``(K,)``.
        label: 0-d integer.
        positive: ``(P,)`` losses of the good rationales.
        negative: ``(Q,)`` losses of the bad ones; the contrast is 0 if there are none.
        positive_weights: ``(P,)`` from `quality_weights`.
        negative_weights: ``(Q,)``.
        margin: m, greater than 0.
        rationale_weight: at least 0.
        contrast_weight: at least 0.

    Returns:
        Four scalars.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a number out of range.
    """
    check_embeddings(ndim=1, label_logits=label_logits, positive=positive)
    check_labels(label.reshape(-1), 1, name="label", num_classes=len(label_logits))
    check_same_shape(positive=positive, positive_weights=positive_weights)
    check_same_shape(negative=negative, negative_weights=negative_weights)
    check_positive(margin=margin)
    check_in_range(0, float("inf"), rationale_weight=rationale_weight, contrast_weight=contrast_weight)
    loss_label = F.cross_entropy(label_logits, label)
    loss_positive = (positive_weights * positive).sum()
    hinge = negative_weights * (margin + loss_positive - negative).relu()  # (Q,)
    contrast = hinge.mean() if len(hinge) else torch.zeros_like(loss_label)
    total = loss_label + rationale_weight * loss_positive + contrast_weight * contrast
    return StudentTerms(total, loss_label, loss_positive, contrast)


def discriminator_loss(good: Tensor, bad: Tensor) -> Tensor:
    """Binary cross-entropy of ``(P,)`` and ``(Q,)`` logits, positives 1, negatives 0; a scalar.

    Raises:
        TypeError: not floating.
        ValueError: not one dimension, NaN, nothing at all.
    """
    logits = torch.cat([good, -bad])
    check_embeddings(ndim=1, logits=logits)
    return F.softplus(-logits).mean()


class Student(nn.Module):
    """A recurrent reader of a question with two heads: the label, and the rationale token by token."""

    def __init__(self, vocabulary: int, classes: int, dim: int = 32) -> None:
        """Make the layers; token 0 starts a rationale."""
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.reader, self.writer = nn.GRU(dim, dim), nn.GRU(dim, dim)
        self.label_head, self.token_head = nn.Linear(dim, classes), nn.Linear(dim, vocabulary)

    def read(self, question: Tensor) -> Tensor:
        """``(1, dim)`` state after a question ``(S,)``."""
        state: Tensor = self.reader(self.embedding(question))[1]
        return state

    def label(self, question: Tensor) -> Tensor:
        """``(K,)`` logits."""
        logits: Tensor = self.label_head(self.read(question))[0]
        return logits

    def forward(self, question: Tensor, tokens: Tensor) -> Tensor:
        """``(T, V)`` logits of a rationale ``(T,)``; row t has seen the tokens before t."""
        before = torch.cat([tokens.new_zeros(1), tokens[:-1]])
        logits: Tensor = self.token_head(self.writer(self.embedding(before), self.read(question))[0])
        return logits

    @torch.no_grad()
    def sample(self, question: Tensor, length: int, temperature: float, generator: torch.Generator) -> Tensor:
        """``(length,)`` tokens drawn at a temperature."""
        check_positive(length=length, temperature=temperature)
        state, token, tokens = self.read(question), question.new_zeros(1), []
        for _ in range(length):
            hidden, state = self.writer(self.embedding(token), state)
            p = (self.token_head(hidden)[0] / temperature).softmax(0)
            token = torch.multinomial(p, 1, generator=generator)
            tokens.append(token)
        return torch.cat(tokens)


class Discriminator(nn.Module):
    """Reads question and rationale and gives one logit."""

    def __init__(self, vocabulary: int, dim: int = 32) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding, self.reader, self.head = nn.Embedding(vocabulary, dim), nn.GRU(dim, dim), nn.Linear(dim, 1)

    def forward(self, question: Tensor, rationales: Sequence[Tensor]) -> Tensor:
        """``(R,)`` logits of R rationales."""
        states = [self.reader(self.embedding(torch.cat([question, r])))[1] for r in rationales]
        return torch.cat([self.head(s)[0] for s in states]) if states else self.head.weight.new_zeros(0)


class QCRD(nn.Module):
    """Student, discriminator and a ring of snapshots; at test time only the student is kept."""

    def __init__(self, student: Student, discriminator: Discriminator, *, every: int = 5, hot: float = 1.5) -> None:
        """Take a snapshot every few steps; the negatives come from the older of the last two, at temperature ``hot``.

        Raises:
            ValueError: a number not positive.
        """
        super().__init__()
        check_positive(every=every, hot=hot)
        self.student, self.discriminator, self.every, self.hot, self.steps = student, discriminator, every, hot, 0
        self.ring: deque[Student] = deque(maxlen=2)  # in a deque, so not among the parameters

    def negatives(
        self, question: Tensor, good: Sequence[Tensor], count: int, generator: torch.Generator
    ) -> list[Tensor]:
        """Sample from the old snapshot; exact copies of a positive are left out."""
        drawn = [self.ring[0].sample(question, len(good[0]), self.hot, generator) for _ in range(count)]
        return [r for r in drawn if not any(torch.equal(r, g) for g in good)]

    def step(
        self,
        batch: Sequence[tuple[Tensor, Tensor, Sequence[Tensor]]],
        optimizers: Sequence[torch.optim.Optimizer],
        generator: torch.Generator,
        *,
        count: int = 2,
        **numbers: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One batch of (question, label, good rationales): negatives, discriminator, student.

        Args:
            batch: question ``(S,)``, label 0-d, list of ``(T,)``.
            optimizers: of the student and of the discriminator.
            generator: of the samples.
            count: Q, before copies are left out.
            **numbers: those of `student_loss`.

        Returns:
            Student loss, discriminator loss and mean gap between bad and good rationale losses, detached.
        """
        if self.steps % self.every == 0:
            self.ring.append(copy.deepcopy(self.student))
        self.steps += 1
        bad = [self.negatives(question, good, count, generator) for question, _, good in batch]
        pairs = [(self.discriminator(q, g), self.discriminator(q, b)) for (q, _, g), b in zip(batch, bad, strict=True)]
        judge = torch.stack([discriminator_loss(good, wrong) for good, wrong in pairs]).mean()
        losses, gaps = [], []
        for (question, label, good), wrong, logits in zip(batch, bad, pairs, strict=True):
            positive = torch.stack([rationale_loss(self.student(question, r), r) for r in good])
            scores = [rationale_loss(self.student(question, r), r) for r in wrong]
            negative = torch.stack(scores) if scores else positive.new_zeros(0)
            own, other = quality_weights(*logits)
            answer = self.student.label(question)
            losses.append(student_loss(answer, label, positive, negative, own, other, **numbers).total)
            gaps += [(negative.mean() - positive.mean()).detach()] if scores else []
        loss = torch.stack(losses).mean()
        for objective, optimizer in zip((loss, judge), optimizers, strict=True):
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
        return loss.detach(), judge.detach(), torch.stack(gaps).mean() if gaps else torch.zeros(())
