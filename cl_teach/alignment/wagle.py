r"""WAGLE: Strategic Weight Attribution for Effective and Modular Unlearning in Large Language Models. Jinghan Jia,
Jiancheng Liu, Yihua Zhang, Parikshit Ram, Nathalie Baracaldo, Sijia Liu; NeurIPS 2024; https://arxiv.org/abs/2410.17509.

Unlearning lowers the likelihood of a forget set (loss f) and keeps that of a retain set (loss r). WAGLE first scores
every weight :math:`\theta_j` once and then lets only the best-scored change:

.. math::
    S_j = \theta_j\,g_{f,j}-\frac1\gamma\,g_{r,j}\,g_{f,j} = (\theta_j - g_{r,j}/\gamma)\,g_{f,j},\qquad
    m_j = 1\ \text{for the}\ \lfloor\rho P\rfloor\ \text{largest}\ |S_j| .

What changes and why: how would the forget loss change if weight j were switched off and the others answered by
minimizing the retain loss again? With :math:`\epsilon_j` the switch, the chain rule gives :math:`\theta_jg_{f,j} +
g_{f,j}\,d\theta_j/d\epsilon_j`, and with a retain loss of constant diagonal curvature gamma the answer is
:math:`d\theta_j/d\epsilon_j = -g_{r,j}/\gamma`. The first term alone is the sensitivity used in pruning (SNIP); the
second says what the weight does for the rest. The mask goes with any unlearning objective:

- GradDiff: :math:`-\ell_f+\lambda\ell_r`, which has no lower bound;
- NPO: :math:`-\frac2\beta\log\sigma(-\beta[\log\pi(y)-\log\pi_{ref}(y)])+\lambda\ell_r`, whose push on a sequence fades
  as its likelihood falls below the reference's;
- PO: the loss of answers that refuse, plus :math:`\lambda\ell_r`.

Paper versus code. (1) The code ranks by :math:`|S|`; whether the paper means the signed score could not be verified, as
its body was not read. The derivation above is our own and gives the code's formula. (2) The code sums gradients over
batches, so the number of batches scales :math:`g_r` against the weights; here a mean is the default. (3) The code's
gamma of 1e-6 makes the second term dominate unless the retain gradient is tiny. (4) For a curvature per weight the code
squares a sum of gradients; here it is the mean of squares. (5) The released NPO takes one ratio for a whole batch from
mean token losses; here each sequence has its own, from sums. (6) The code masks gradients, so that weight decay still
moves masked weights; here they stay as they are. (7) Pinned here: `forget_bound` stops GradDiff's push once the forget
loss has reached it. `named_facts` is this book's example.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_batch, check_choice, check_embeddings, check_in_range, check_positive, check_same_shape
from ..models.sequence import token_log_probability

__all__ = [
    "OBJECTIVES",
    "Facts",
    "Unlearning",
    "answer_accuracy",
    "attribution",
    "grad_diff",
    "keep_largest",
    "loss_gradients",
    "masked_step",
    "mean_token_loss",
    "named_facts",
    "npo",
    "retain_curvature",
    "with_retain",
]

OBJECTIVES = ("grad_diff", "npo", "po")
Named = Mapping[str, Tensor]


class Facts(NamedTuple):
    """Sentences "person relation color", ``tokens (n, 3)``, which to ``forget (n,)``, and the token that refuses."""

    tokens: Tensor
    forget: Tensor
    refusal: int


def loss_gradients(
    loss: Callable[[Any], Tensor], parameters: Named, batches: Iterable[Any], *, reduction: str = "mean"
) -> dict[str, Tensor]:
    """Gradient of a loss over batches, for every named parameter.

    Args:
        loss: batch to scalar, a function of the parameters.
        parameters: by name, see ``nn.Module.named_parameters``.
        batches: at least one.
        reduction: "mean" or "sum" over batches.

    Raises:
        ValueError: no batch, another reduction.
    """
    check_choice(("mean", "sum"), reduction=reduction)
    names, leaves, count = list(parameters), list(parameters.values()), 0
    total = [torch.zeros_like(leaf) for leaf in leaves]
    for batch in batches:
        found = torch.autograd.grad(loss(batch), leaves, allow_unused=True, materialize_grads=True)
        total, count = [a + b for a, b in zip(total, found, strict=True)], count + 1
    check_batch(count, 1, name="batches", why="to have a gradient")
    return {name: x / count if reduction == "mean" else x for name, x in zip(names, total, strict=True)}


def retain_curvature(
    loss: Callable[[Any], Tensor], parameters: Named, batches: Iterable[Any], floor: float = 1e-8
) -> dict[str, Tensor]:
    """Gauss-Newton stand-in for the diagonal curvature: mean over batches of squared gradients, at least ``floor``.

    With batches of one sample this is the empirical Fisher information; its mean over weights helps to choose gamma.

    Raises:
        ValueError: no batch, floor not positive.
    """
    check_positive(floor=floor)
    squares = [{k: g.square() for k, g in loss_gradients(loss, parameters, [b]).items()} for b in batches]
    check_batch(len(squares), 1, name="batches", why="to have a gradient")
    return {name: torch.stack([s[name] for s in squares]).mean(0).clamp(min=floor) for name in parameters}


def attribution(parameters: Named, forget: Named, retain: Named, gamma: float | Named = 1e-3) -> dict[str, Tensor]:
    """Signed score S of every weight.

    Args:
        parameters: theta by name.
        forget: gradients of the forget loss (of the loss itself, not of minus the loss).
        retain: gradients of the retain loss.
        gamma: curvature of the retain loss, greater than 0; one number, or one a weight by name. An infinite number
            leaves the first term alone.

    Raises:
        TypeError, ValueError: names or shapes do not fit, gamma not positive.

    Source: Jia et al. (2024), weight attribution, derived anew.
    """
    if not set(parameters) == set(forget) == set(retain):
        raise ValueError("forget, retain: expected gradients under the names of the parameters, got other names")
    if isinstance(gamma, Mapping):
        if set(gamma) != set(parameters):
            raise ValueError("gamma: expected a tensor under every name of the parameters, got other names")
        check_positive(**{f"gamma[{name!r}]": value for name, value in gamma.items()})
    elif gamma != float("inf"):
        check_positive(gamma=gamma)
    result = {}
    for name, theta in parameters.items():
        check_same_shape(**{name: theta, "forget": forget[name], "retain": retain[name]})
        curvature = gamma[name] if isinstance(gamma, Mapping) else gamma
        result[name] = (theta.detach() - retain[name] / curvature) * forget[name]
    return result


def keep_largest(scores: Named, ratio: float) -> dict[str, Tensor]:
    """Boolean masks with True at the share ``ratio`` of weights of largest absolute score, ranked over all tensors.

    Args:
        scores: by name; of equal ones the first in order comes first.
        ratio: in [0, 1]; floor(ratio P) of P weights are kept.

    Raises:
        ValueError: ratio out of range, NaN among the scores.
    """
    check_in_range(0, 1, ratio=ratio)
    flat = torch.cat([score.flatten() for score in scores.values()]).abs()
    check_embeddings(ndim=1, scores=flat)
    kept = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    kept[flat.argsort(descending=True, stable=True)[: int(ratio * len(flat) + 1e-9)]] = True  # 0.29 * 100 is 28.99...
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


def mean_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy averaged over all tokens of a batch: logits ``(n, T, V)`` aligned with labels ``(n, T)``."""
    return -token_log_probability(logits, labels).mean()


def with_retain(forget_term: Tensor, retain_loss: Tensor, retain_weight: float = 1.0) -> Tensor:
    """What all objectives have in common: a term that unlearns, plus the weighted retain loss (weight at least 0)."""
    check_in_range(0, float("inf"), retain_weight=retain_weight)
    return forget_term + retain_weight * retain_loss


def grad_diff(forget_loss: Tensor, retain_loss: Tensor, retain_weight: float = 1.0) -> Tensor:
    """Weighted retain loss minus forget loss; it has no lower bound, and the weight is at least 0."""
    return with_retain(-forget_loss, retain_loss, retain_weight)


def npo(log_p: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """Forget term of negative preference optimization, a mean over n sequences.

    The derivative in the log-probability of a sequence is 2 sigma(beta (log_p - reference)) / n, always below 2 / n.

    Args:
        log_p: ``(n,)`` sums over tokens. With minus a mean token loss, ``(1,)``, this is the released form.
        reference: ``(n,)``, the same before unlearning.
        beta: greater than 0.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, beta not positive.

    Source: Jia et al. (2024), objectives; the loss is that of negative preference optimization.
    """
    check_embeddings(ndim=1, log_p=log_p, reference=reference)
    check_same_shape(log_p=log_p, reference=reference)
    check_positive(beta=beta)
    return -(2 / beta) * nn.functional.logsigmoid(-beta * (log_p - reference.detach())).mean()


def masked_step(
    loss: Tensor, model: nn.Module, masks: Named, optimizer: torch.optim.Optimizer, max_norm: float = 1.0
) -> None:
    """One optimizer step in which only weights under the mask move; not even weight decay moves the others.

    Args:
        loss: scalar.
        model: whose parameters are trained.
        masks: boolean, by the names of the parameters.
        optimizer: of the parameters.
        max_norm: to which the gradient is clipped before it is masked.

    Raises:
        ValueError: names do not fit, max_norm not positive.
    """
    check_positive(max_norm=max_norm)
    parameters = dict(model.named_parameters())
    if set(masks) != set(parameters):
        raise ValueError("masks: expected one under every name of the model's parameters, got other names")
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters.values(), max_norm)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            parameter.grad.mul_(masks[name])
    optimizer.step()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.where(masks[name], parameter, before[name]))


class Unlearning(nn.Module):
    """A language model that unlearns sequences, with a mask made once at the start.

    ``model(tokens)`` returns states and logits ``(n, T, V)``. State: the model, ``reference`` (a frozen copy),
    ``scores`` and ``masks`` of all weights by name.

    Source: Jia et al. (2024), mask before unlearning.
    """

    def __init__(
        self,
        model: nn.Module,
        forget: Tensor,
        retain: Tensor,
        *,
        ratio: float,
        gamma: float = 1e-3,
        objective: str = "npo",
        retain_weight: float = 1.0,
        beta: float = 0.1,
        forget_bound: float = 6.0,
        refusal: int | None = None,
    ) -> None:
        """Score the weights and make the mask.

        Args:
            model: trained on both sets; it unlearns in place.
            forget: ``(n, T + 1)`` sequences; the loss is that of their last token, the answer.
            retain: ``(m, T + 1)``.
            ratio: share of weights that may move, in [0, 1].
            gamma: curvature, see `attribution`.
            objective: one of `OBJECTIVES`.
            retain_weight: lambda, at least 0.
            beta: of NPO.
            forget_bound: forget loss from which GradDiff stops pushing.
            refusal: the token that PO answers with.

        Raises:
            ValueError: another objective, a setting out of range, PO without a refusal.
        """
        super().__init__()
        check_choice(OBJECTIVES, objective=objective)
        check_in_range(0, float("inf"), retain_weight=retain_weight)
        check_positive(beta=beta, forget_bound=forget_bound)
        if objective == "po" and refusal is None:
            raise ValueError("refusal: expected a token for the objective 'po', got None")
        self.model, self.reference = model, copy.deepcopy(model).requires_grad_(False)
        self.objective, self.retain_weight, self.beta = objective, retain_weight, beta
        self.forget_bound, self.refusal = forget_bound, refusal
        parameters = dict(model.named_parameters())
        forget_gradient, retain_gradient = (loss_gradients(self.answer_loss, parameters, [x]) for x in (forget, retain))
        self.scores = attribution(parameters, forget_gradient, retain_gradient, gamma)
        self.masks = keep_largest(self.scores, ratio)

    def answer_loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the last tokens of sequences ``(n, T + 1)``."""
        return mean_token_loss(self.model(tokens[:, :-1])[1][:, -1:], tokens[:, -1:])

    def forward(self, forget: Tensor, retain: Tensor) -> Tensor:
        """The objective on two batches of sequences."""
        retain_loss = self.answer_loss(retain)
        if self.objective == "grad_diff":
            return grad_diff(self.answer_loss(forget).clamp(max=self.forget_bound), retain_loss, self.retain_weight)
        if self.objective == "po":
            refusals = torch.cat([forget[:, :-1], torch.full_like(forget[:, -1:], self.refusal or 0)], dim=1)
            return with_retain(self.answer_loss(refusals), retain_loss, self.retain_weight)
        log_p, reference = (
            token_log_probability(m(forget[:, :-1])[1][:, -1:], forget[:, -1:]).sum(1)
            for m in (self.model, self.reference)
        )
        return with_retain(npo(log_p, reference, self.beta), retain_loss, self.retain_weight)

    def step(self, optimizer: torch.optim.Optimizer, forget: Tensor, retain: Tensor) -> float:
        """One masked step; returns the objective before it."""
        loss = self(forget, retain)
        masked_step(loss, self.model, self.masks, optimizer)
        return loss.item()


@torch.no_grad()
def answer_accuracy(model: nn.Module, tokens: Tensor) -> float:
    """Share of sequences ``(n, T + 1)`` whose last token the model finds most likely."""
    return (model(tokens[:, :-1])[1][:, -1].argmax(-1) == tokens[:, -1]).double().mean().item()


def named_facts(people: int = 40, relations: int = 2, colors: int = 6, *, forget: float = 0.2, seed: int = 0) -> Facts:
    """Every person has one color in every relation; a share of the people is to be forgotten.

    Tokens are people, then relations, then colors, then the refusal: ``people + relations + colors + 1`` in all.

    Args:
        people: how many.
        relations: how many ("likes", "wears", ...).
        colors: how many.
        forget: share of the people, at least one and not all.
        seed: of all draws, on the CPU.

    Raises:
        ValueError: a count too small, nobody to forget or nobody to retain.
    """
    check_positive(people=people, relations=relations)
    check_batch(colors, 2, name="colors", why="to tell facts apart")
    check_in_range(0, 1, forget=forget)
    gone = round(forget * people)
    if not 0 < gone < people:
        raise ValueError(f"forget: expected a share that is between 1 and {people - 1} people, got {gone}")
    generator = torch.Generator().manual_seed(seed)
    person = torch.arange(people).repeat_interleave(relations)
    relation = people + torch.arange(relations).repeat(people)
    color = people + relations + torch.randint(0, colors, (people * relations,), generator=generator)
    chosen = torch.zeros(people, dtype=torch.bool)
    chosen[torch.randperm(people, generator=generator)[:gone]] = True
    return Facts(torch.stack([person, relation, color], dim=1), chosen[person], people + relations + colors)
