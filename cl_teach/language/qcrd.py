r"""QCRD: Quality-guided Contrastive Rationale Distillation for Large Language Models. Wei Wang, Zhaowei Li, Qi Xu and
others; EMNLP 2025; https://arxiv.org/abs/2405.13014.

For a question there are good rationales r and bad ones :math:`r^-`. With :math:`\ell(r)` the student's mean token loss,
:math:`s = \sigma(d)` the score that a discriminator gives, the student is pulled to the good rationale that it finds
easiest and pushed from the bad one that it finds hardest, up to a margin :math:`\delta`:

.. math::
    L_{cl} &= s\min_i\ell(r_i) + \beta\,(1-s^-)\max\{0,\ \delta-\max_j\ell(r^-_j)\}, \\
    L_D &= -\log\frac{\sum_i e^{s_i}}{\sum_j e^{s^-_j}}, \qquad
    L = \alpha_1 L_{label} + \alpha_2 L_{cl} + \alpha_3 L_D .

What changes and why: the good rationales come from a teacher and agree with its majority answer. The bad ones are the
teacher's minority, and one sampled hot from the student of some iterations ago: it learns from its own weaknesses, not
from the text that it is writing now. The margin ends the push once one bad rationale is less likely than
:math:`e^{-\delta}` a token; without it all text would be destroyed. The discriminator spares a bad rationale that looks
good.

Paper versus code. No code was found. The equations are those of the *first arXiv version*, read in a public note; the
body and the EMNLP text were not available. Assumed here: (a) the scores in :math:`L_{cl}` are those of the chosen
rationales; (b) they end in a sigmoid; (c) :math:`\ell` is a mean over tokens, the end of the text included; (d) scores
are constants in :math:`L_{cl}`, and a gradient reaches the chosen rationales only, the first of equals; (e) a question
without bad rationales has neither push nor :math:`L_D`; (f) an iteration (age of the snapshot, decay of
:math:`\alpha_3`) is a training step, see ``steps_per_iteration``. (7) The paper writes one total; each network has its
own optimizer here, because :math:`\alpha_3` shrinks to nothing within fifty steps. Adam hides that scale. (8) Copies of
a good rationale, and empty ones, are no bad rationales. (9) :math:`\delta` is in nats a token: a vocabulary of 15 has
:math:`\log 15 = 2.7`, so that the paper's 3 lets go only of what is worse than a guess. (10) A tie goes to the answer
that comes first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision
from ..datasets.rationales import spoil_rationales
from ..models.rationales import Discriminator, Student, check_texts

__all__ = [
    "QCRD",
    "QCRDTerms",
    "Questions",
    "discriminator_loss",
    "qcrd_terms",
    "rationale_loss",
    "rationale_scores",
]


class Questions(NamedTuple):
    """A batch; texts end in zeros, see `Student`.

    Attributes:
        question: ``(n, S)``.
        label: ``(n,)`` integers.
        rationales: ``(n, R, T)`` the teacher's samples; a row of zeros is none.
        positive: ``(n, R)`` boolean, which of them agree with the majority, see `majority_mask`.
    """

    question: Tensor
    label: Tensor
    rationales: Tensor
    positive: Tensor


_SHAPES = (("n S", int), ("n", int), ("n R T", int), ("n R", bool))


class QCRDTerms(NamedTuple):
    """Scalars, means over the questions, and which rationales were chosen.

    Attributes:
        loss: the weighted sum of label, contrast and discriminator.
        label: cross-entropy.
        positive: score times loss of the easiest good rationale.
        negative: at most 0; one minus score, times how much the hardest bad rationale lacks to the margin.
        contrast: positive - beta * negative.
        discriminator: its loss.
        chosen_positive: ``(n,)`` column of the easiest good rationale.
        chosen_negative: ``(n,)`` column of the hardest bad one, -1 where there is none.
    """

    loss: Tensor
    label: Tensor
    positive: Tensor
    negative: Tensor
    contrast: Tensor
    discriminator: Tensor
    chosen_positive: Tensor
    chosen_negative: Tensor


@full_precision
def rationale_loss(logits: Tensor, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean token loss of rationales (a sum would let long bad ones pass the margin by their length).

    Args:
        logits: ``(..., T, V)``, row t predicts token t.
        tokens: ``(..., T)`` integers below V.
        valid: ``(..., T)`` boolean, tokens that count, at least one a rationale; None means all.

    Returns:
        ``(...)``.
    """
    check_shapes(logits=(logits, "... T V"), tokens=(tokens, "... T", int), valid=(valid, "... T?", bool))
    for name, x in (("tokens", tokens), ("valid", valid)):
        if x is not None and x.shape != logits.shape[:-1]:
            raise ValueError(f"logits, {name}: expected shape {tuple(logits.shape[:-1])}, got {tuple(x.shape)}")
    check_entries(0, logits.shape[-1] - 1, open_low=False, **{"logits, tokens": tokens})
    nll = -logits.log_softmax(-1).gather(-1, tokens.long()[..., None]).squeeze(-1)  # (..., T)
    if valid is None:
        return nll.mean(-1)
    if not valid.any(-1).all():
        raise ValueError("valid: expected a token in every rationale, got a rationale without one")
    return (nll * valid).sum(-1) / valid.sum(-1)


@full_precision
def rationale_scores(logits: Tensor) -> Tensor:
    """Scores in [0, 1] of the discriminator's logits, any shape."""
    check_shapes(logits=(logits, "..."))
    return logits.sigmoid()


@full_precision
def discriminator_loss(
    positive: Tensor, negative: Tensor, positive_mask: Tensor | None = None, negative_mask: Tensor | None = None
) -> Tensor:
    """Minus the logarithm of the ratio of the sums of exp(score), mean over the questions.

    Args:
        positive: ``(n, P)`` scores of good rationales.
        negative: ``(n, Q)`` scores of bad ones, Q may be 0.
        positive_mask: ``(n, P)`` boolean, which of them exist, at least one a row; None means all.
        negative_mask: ``(n, Q)`` boolean; a question without any counts 0.

    Returns:
        Scalar, between -1 and 1 around log(Q / P) for scores in [0, 1].
    """
    positive_mask, negative, negative_mask = _check_lists(positive, negative, positive_mask, negative_mask)
    some = negative_mask.any(1, keepdim=True)
    good = positive.masked_fill(~positive_mask, -math.inf).logsumexp(1)
    bad = negative.masked_fill(~negative_mask & some, -math.inf).logsumexp(1)  # finite in rows without any
    return torch.where(some[:, 0], bad - good, 0.0).mean()


@full_precision
def qcrd_terms(
    label_logits: Tensor,
    label: Tensor,
    positive: Tensor,
    negative: Tensor,
    positive_logits: Tensor,
    negative_logits: Tensor,
    *,
    positive_mask: Tensor | None = None,
    negative_mask: Tensor | None = None,
    beta: float = 0.2,
    margin: float = 3.0,
    label_weight: float = 0.5,
    contrast_weight: float = 0.5,
    discriminator_weight: float = 0.5,
) -> QCRDTerms:
    r"""Label, contrast and discriminator of n questions.

    Args:
        label_logits: ``(n, K)``.
        label: ``(n,)`` integers.
        positive: ``(n, P)`` losses of the good rationales, see `rationale_loss`.
        negative: ``(n, Q)`` losses of the bad ones, Q may be 0.
        positive_logits: ``(n, P)`` of the discriminator; constants in the contrast.
        negative_logits: ``(n, Q)``.
        positive_mask: ``(n, P)`` boolean, which of them exist, at least one a row; None means all.
        negative_mask: ``(n, Q)`` boolean.
        beta: weight of the push.
        margin: :math:`\delta`, in nats a token.
        label_weight: :math:`\alpha_1`.
        contrast_weight: :math:`\alpha_2`.
        discriminator_weight: :math:`\alpha_3`.

    Source: Wang et al., first arXiv version (2024), equations 2, 3 and 6 to 8.

    Example:
        >>> pull, push = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 2.5]])  # an easy good one, a hard bad one
        >>> terms = qcrd_terms(torch.zeros(1, 2), torch.tensor([0]), pull, push, torch.zeros(1, 2), torch.zeros(1, 2))
        >>> terms.chosen_positive.item(), terms.chosen_negative.item(), terms.positive.item(), terms.negative.item()
        (0, 1, 0.25, -0.25)
    """
    check_shapes(label_logits=(label_logits, "n K"), label=(label, "n", int), positive=(positive, "n P"))
    label = check_labels(label, name="label_logits, label", num_classes=label_logits.shape[1])
    check_shapes(positive=(positive, "n P"), positive_logits=(positive_logits, "n P"))
    weights = {"label_weight": label_weight, "contrast_weight": contrast_weight}
    check_in_range(0, 1e6, beta=beta, margin=margin, **weights, discriminator_weight=discriminator_weight)
    masks = (positive_mask, negative_mask)
    _, negative_logits, _ = _check_lists(positive, negative_logits, *masks, name="negative_logits")
    positive_mask, negative, negative_mask = _check_lists(positive, negative, *masks)
    check_shapes(negative=(negative, "n Q"), negative_logits=(negative_logits, "n Q"))

    good, bad = rationale_scores(positive_logits), rationale_scores(negative_logits)
    easiest = positive.masked_fill(~positive_mask, math.inf).argmin(1, keepdim=True)  # (n, 1)
    hardest = negative.masked_fill(~negative_mask, -math.inf).argmax(1, keepdim=True)
    some = negative_mask.any(1)
    pull = (good.detach() * positive).gather(1, easiest)[:, 0]
    lacks = (margin - negative.gather(1, hardest)[:, 0]).relu()
    push = torch.where(some, -(1 - bad.detach()).gather(1, hardest)[:, 0] * lacks, 0.0)  # at most 0
    contrast = (pull - beta * push).mean()
    by_label = F.cross_entropy(label_logits, label)
    judge = discriminator_loss(good, bad, positive_mask, negative_mask)
    loss = label_weight * by_label + contrast_weight * contrast + discriminator_weight * judge
    chosen = torch.where(some, hardest[:, 0], -1)
    return QCRDTerms(loss, by_label, pull.mean(), push.mean(), contrast, judge, easiest[:, 0], chosen)


class QCRD(nn.Module):
    """Student, discriminator and the student's last snapshots; afterward only the student is kept.

    The snapshots, the optimizers and the number of steps are part of its state.
    """

    def __init__(
        self,
        student: Student,
        discriminator: Discriminator,
        *,
        age: int = 5,
        steps_per_iteration: int = 1,
        hot: float = 1.5,
        decay: float = 0.9,
        learning_rate: float = 1e-3,
        beta: float = 0.2,
        margin: float = 3.0,
        label_weight: float = 0.5,
        contrast_weight: float = 0.5,
        discriminator_weight: float = 0.5,
    ) -> None:
        """Take both networks.

        Args:
            student: learns to answer and to explain.
            discriminator: judges rationales.
            age: bad rationales come from the student of so many iterations ago (or from the oldest there is).
            steps_per_iteration: training steps of an iteration.
            hot: temperature at which it writes.
            decay: of the discriminator's weight, an iteration.
            learning_rate: of both optimizers (Adam); the paper's is not known.
            beta: as all that follows, see `qcrd_terms`.
            margin: fit it to the vocabulary.
            label_weight: of the label.
            contrast_weight: of the contrast.
            discriminator_weight: its first value.
        """
        super().__init__()
        check_type(Student, student=student)
        check_type(Discriminator, discriminator=discriminator)
        check_count(age=age, steps_per_iteration=steps_per_iteration)
        check_positive(hot=hot, learning_rate=learning_rate)
        check_in_range(0, 1, decay=decay)
        check_in_range(0, 1e6, beta=beta, margin=margin, label_weight=label_weight, contrast_weight=contrast_weight)
        check_in_range(0, 1e6, discriminator_weight=discriminator_weight)
        self.student, self.discriminator = student, discriminator
        self.age, self.steps_per_iteration, self.hot = age, steps_per_iteration, hot
        self.decay, self.first_weight = decay, discriminator_weight
        weights = {"label_weight": label_weight, "contrast_weight": contrast_weight}
        self.numbers: dict[str, Any] = {"beta": beta, "margin": margin, **weights}
        self.steps = 0
        self.ring = nn.ModuleList()  # the oldest snapshot first
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=learning_rate) for net in (student, discriminator)]

    @property
    def discriminator_weight(self) -> float:
        """What the discriminator's loss weighs in this iteration."""
        return self.first_weight * self.decay ** (self.steps // self.steps_per_iteration)

    def forward(self, question: Tensor) -> Tensor:
        """``(n, K)`` logits of the labels of questions ``(n, S)``."""
        return self.student.label(question)

    def negatives(
        self, question: Tensor, rationales: Tensor, positive: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """All rationales with one more by the old student, ``(n, R + 1, T)``, and which are bad, ``(n, R + 1)``."""
        shapes = {"rationales": (rationales, "n R T", int), "positive": (positive, "n R", bool)}
        check_shapes(question=(question, "n S", int), **shapes)
        old = cast(Student, self.ring[0]) if len(self.ring) else self.student
        written = old.write(question, rationales.shape[2], self.hot, generator=generator)
        shown = torch.cat([rationales, written[:, None].to(rationales)], 1)
        good = F.pad(positive, (0, 1))  # the new one is not
        copies = ((shown[:, :, None] == shown[:, None]).all(-1) & good[:, None]).any(-1)
        return shown, shown.any(-1) & ~good & ~copies

    def loss(
        self,
        question: Tensor,
        label: Tensor,
        rationales: Tensor,
        positive: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> QCRDTerms:
        """The terms of a batch, see `Questions`; the old student writes with ``generator``."""
        return self._terms(self._checked(Questions(question, label, rationales, positive)), generator)

    def step(self, batch: Questions, *, generator: torch.Generator | None = None) -> QCRDTerms:
        """Take a snapshot where an iteration begins, then a step of both optimizers; the terms from before it.

        The method owns this loop because two networks with an optimizer each learn from one batch, and the negatives
        come from an earlier student.
        """
        batch = self._checked(batch, "batch.")
        check_generator(generator)
        self.train()
        if self.steps % self.steps_per_iteration == 0:
            snapshot = copy.deepcopy(self.student).requires_grad_(False).eval()
            self.ring = nn.ModuleList([*self.ring, snapshot][-self.age - 1 :])
        terms = self._terms(batch, generator)
        self._optimize(self.optimizers, terms.loss)
        self.steps += 1
        return QCRDTerms(*(term.detach() for term in terms))

    def pretrain(self, batch: Questions, rate: float = 0.3, *, generator: torch.Generator | None = None) -> Tensor:
        """One step of the discriminator alone, before training: the teacher's good rationales against spoiled copies.

        The paper's discriminator sees up to 500 such batches, with words masked and replaced; here they are replaced,
        see `spoil_rationales`. Returns its loss from before the step.
        """
        question, _, rationales, positive = self._checked(batch, "batch.")
        spoiled = spoil_rationales(rationales, self.student.vocabulary, rate, generator=generator)
        changed = positive & (spoiled != rationales).any(-1)
        good, bad = (rationale_scores(self.discriminator(question, x)) for x in (rationales, spoiled))
        loss = discriminator_loss(good, bad, positive, changed)
        self._optimize(self.optimizers[1:], loss)
        return loss.detach()

    def _checked(self, batch: Questions, of: str = "") -> Questions:
        """The batch as int64, under the names of the caller's arguments."""
        check_type(tuple, batch=batch)
        if len(batch) != len(Questions._fields):
            raise ValueError(f"batch: expected {', '.join(Questions._fields)}, got {len(batch)} tensors")
        names = [of + name for name in Questions._fields]
        check_shapes(**{name: (x, s, k) for name, x, (s, k) in zip(names, batch, _SHAPES, strict=True)})
        texts = {names[0]: "n S", names[2]: "n R T"}
        question, rationales = (
            check_texts(self.student.vocabulary, shape, **{name: x})[name]
            for (name, shape), x in zip(texts.items(), (batch[0], batch[2]), strict=True)
        )
        label = check_labels(batch[1], name=names[1], num_classes=self.student.classes)
        if not (batch[3] & rationales.any(-1)).any(1).all():
            raise ValueError(
                f"{names[2]}, {names[3]}: expected a good rationale with a token in every row, got a row without"
            )
        return Questions(question, label, rationales, batch[3] & rationales.any(-1))

    def _terms(self, batch: Questions, generator: torch.Generator | None) -> QCRDTerms:
        question, label, rationales, positive = batch
        shown, bad = self.negatives(question, rationales, positive, generator=generator)
        end = F.pad(shown, (0, 1))  # (n, R + 1, T + 1), the 0 behind a text is part of it
        valid = torch.arange(end.shape[2], device=end.device) <= shown.ne(0).sum(-1)[..., None]
        losses = rationale_loss(self.student(question, shown), end, valid)  # (n, R + 1)
        logits = self.discriminator(question, shown)
        return qcrd_terms(
            self(question),
            label,
            losses,
            losses,
            logits,
            logits,
            positive_mask=F.pad(positive, (0, 1)),
            negative_mask=bad,
            discriminator_weight=self.discriminator_weight,
            **self.numbers,
        )

    def _optimize(self, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    def train(self, mode: bool = True) -> QCRD:
        """As usual, but the snapshots stay in evaluation mode."""
        super().train(mode)
        self.ring.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The number of steps and both optimizers."""
        return {"steps": self.steps, "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self.steps = state["steps"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(saved))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make as many snapshots as are to be loaded."""
        start = f"{prefix}ring."
        count = len({key.removeprefix(start).split(".")[0] for key in state_dict if key.startswith(start)})
        copies = (copy.deepcopy(self.student).requires_grad_(False).eval() for _ in range(count))
        self.ring = nn.ModuleList(copies)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check_lists(
    positive: Tensor,
    negative: Tensor,
    positive_mask: Tensor | None,
    negative_mask: Tensor | None,
    *,
    name: str = "negative",
) -> tuple[Tensor, Tensor, Tensor]:
    """Check two lists a question; the mask of the first, the second, which may be empty, and its mask."""
    check_shapes(positive=(positive, "n P"), positive_mask=(positive_mask, "n P?", bool))
    check_type(Tensor, **{name: negative})
    if negative.ndim == 2 and negative.shape[1] == 0:  # no bad rationale at all: a column that counts for nobody
        check_shapes(**{name: (F.pad(negative, (0, 1)), "n Q"), "positive": (positive, "n P")})
        negative = F.pad(negative, (0, 1))
        negative_mask = torch.zeros_like(negative, dtype=torch.bool)
    shapes = {"positive": (positive, "n P"), name: (negative, "n Q"), "negative_mask": (negative_mask, "n Q?", bool)}
    check_shapes(**shapes)
    if positive_mask is None:
        positive_mask = torch.ones_like(positive, dtype=torch.bool)
    if negative_mask is None:
        negative_mask = torch.ones_like(negative, dtype=torch.bool)
    if not positive_mask.any(1).all():
        raise ValueError("positive_mask: expected a good rationale in every row, got a row without one")
    return positive_mask, negative, negative_mask
