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
gamma of 1e-6 makes the second term dominate unless the retain gradient is tiny. (4) For a curvature per weight
(`cl_teach.core.gradients`) the code squares a sum of gradients; here it is the mean of squares. (5) The released NPO
takes one ratio for a whole batch from mean token losses; here each sequence has its own, from sums. (6) The code masks
gradients, so that weight decay still moves masked weights; here they are put back after each step, whatever the
optimizer did. (7) Pinned here: `forget_bound` stops GradDiff's push once the forget loss has reached it. The example is
`cl_teach.datasets.named_facts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.frozen import FrozenCopy, evaluating
from ..core.gradients import Named, check_named, loss_gradients
from ..core.precision import full_precision
from ..datasets.facts import named_facts  # noqa: F401 - the example begins with it
from ..models.sequence import read_tokens, token_log_probability

__all__ = [
    "OBJECTIVES",
    "Unlearning",
    "answer_accuracy",
    "attribution",
    "grad_diff",
    "keep_largest",
    "mean_token_loss",
    "npo",
    "with_retain",
]

OBJECTIVES = ("grad_diff", "npo", "po")
# The product of two such numbers stays in the range of float32.
LARGEST = 1e18


@full_precision
def attribution(parameters: Named, forget: Named, retain: Named, gamma: float | Named = 1e-3) -> dict[str, Tensor]:
    """Signed score S of every weight.

    Args:
        parameters: theta by name.
        forget: gradients of the forget loss (of the loss itself, not of minus the loss).
        retain: gradients of the retain loss.
        gamma: curvature of the retain loss, greater than 0; one number, or one a weight by name. An infinite number
            leaves the first term alone.

    Source: Jia et al. (2024), weight attribution, derived anew.

    Example:
        >>> theta, forget, retain = ({"w": torch.tensor(x)} for x in ([1.0, 2.0], [3.0, -1.0], [0.5, 0.0]))
        >>> attribution(theta, forget, retain, gamma=1.0)["w"].tolist()
        [1.5, -2.0]
        >>> keep_largest(attribution(theta, forget, retain, gamma=1.0), 0.5)["w"].tolist()
        [False, True]
    """
    check_named("parameters", parameters)
    for name, given in (("forget", forget), ("retain", retain)):
        check_named(name, given, parameters)
    if isinstance(gamma, Mapping):
        check_named("gamma", gamma, parameters)
        check_entries(0, math.inf, open_low=True, **{f"gamma[{key!r}]": value for key, value in gamma.items()})
    elif not (isinstance(gamma, float) and gamma == math.inf):
        check_positive(gamma=gamma)
    result = {}
    for name, theta in parameters.items():
        curvature = gamma[name] if isinstance(gamma, Mapping) else gamma
        result[name] = (theta.detach() - retain[name] / curvature) * forget[name]
        if not bool(result[name].isfinite().all()):
            raise ValueError(f"gamma: expected a curvature at which all scores are finite, those of {name!r} are not")
    return result


def keep_largest(scores: Named, ratio: float) -> dict[str, Tensor]:
    """Boolean masks with True at the share ``ratio`` of weights of largest absolute score, ranked over all tensors.

    Args:
        scores: by name; of equal ones the first in order comes first.
        ratio: in [0, 1]; floor(ratio P) of P weights are kept.
    """
    check_named("scores", scores)
    check_in_range(0, 1, ratio=ratio)
    kept = _largest(torch.cat([score.flatten() for score in scores.values()]), ratio)
    return _split(kept, scores)


def _largest(scores: Tensor, ratio: float) -> Tensor:
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    count = int(ratio * len(scores) + 1e-9)  # 0.29 * 100 is 28.99...
    kept[scores.abs().argsort(descending=True, stable=True)[:count]] = True
    return kept


def _split(flat: Tensor, like: Named) -> dict[str, Tensor]:
    parts = flat.split([x.numel() for x in like.values()])
    return {name: part.view(x.shape) for (name, x), part in zip(like.items(), parts, strict=True)}


@full_precision
def mean_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy averaged over all tokens of a batch: logits ``(n, T, V)`` aligned with labels ``(n, T)``."""
    return -token_log_probability(logits, labels).mean()


@full_precision
def with_retain(forget_term: Tensor, retain_loss: Tensor, retain_weight: float = 1.0) -> Tensor:
    """What all objectives have in common: a term that unlearns, plus the weighted retain loss (weight at least 0)."""
    check_shapes(forget_term=(forget_term, ""), retain_loss=(retain_loss, ""))
    check_in_range(0, LARGEST, retain_weight=retain_weight)
    check_in_range(-LARGEST, LARGEST, forget_term=forget_term, retain_loss=retain_loss)
    return forget_term + retain_weight * retain_loss


@full_precision
def grad_diff(forget_loss: Tensor, retain_loss: Tensor, retain_weight: float = 1.0) -> Tensor:
    """Weighted retain loss minus forget loss; it has no lower bound, and the weight is at least 0."""
    check_shapes(forget_loss=(forget_loss, ""), retain_loss=(retain_loss, ""))
    check_in_range(-LARGEST, LARGEST, forget_loss=forget_loss)
    return with_retain(-forget_loss, retain_loss, retain_weight)


@full_precision
def npo(log_p: Tensor, reference: Tensor, beta: float = 0.1) -> Tensor:
    """Forget term of negative preference optimization, a mean over n sequences.

    The derivative in the log-probability of a sequence is 2 sigma(beta (log_p - reference)) / n, always below 2 / n.

    Args:
        log_p: ``(n,)`` sums over tokens. With minus a mean token loss, ``(1,)``, this is the released form.
        reference: ``(n,)``, the same before unlearning.
        beta: greater than 0.

    Source: Jia et al. (2024), objectives; the loss is that of negative preference optimization.
    """
    check_shapes(log_p=(log_p, "n"), reference=(reference, "n"))
    check_positive(beta=beta)
    check_in_range(1 / LARGEST, LARGEST, beta=beta)
    check_entries(-LARGEST, LARGEST, log_p=log_p, reference=reference)
    return -(2 / beta) * nn.functional.logsigmoid(-beta * (log_p - reference.detach())).mean()


class Unlearning(nn.Module):
    """A language model that unlearns sequences, with a mask made once at the start; a call gives the objective.

    ``model(tokens)`` returns states and logits ``(n, T, V)``. Train with ``loss`` and any optimizer of the model, and
    call ``after_step`` after each step. State: the model, ``reference`` (a frozen copy), and of all weights in one
    vector ``score (P,)`` and ``kept (P,)``; the properties ``scores`` and ``masks`` give them by name.

    Source: Jia et al. (2024), mask before unlearning.

    Example:
        >>> from cl_teach.models import LanguageModel
        >>> facts, model = named_facts(10, 2, 3), LanguageModel(16, 8)
        >>> method = Unlearning(model, facts.tokens[facts.forget], facts.tokens[~facts.forget], ratio=0.2)
        >>> int(method.kept.sum()) == int(0.2 * sum(p.numel() for p in model.parameters()))
        True
    """

    score: Tensor
    kept: Tensor

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
        """Score the weights, without dropout, and make the mask.

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
        """
        super().__init__()
        check_module(model=model)
        check_choice(OBJECTIVES, objective=objective)
        check_in_range(0, LARGEST, retain_weight=retain_weight)
        check_in_range(0, 1, ratio=ratio)
        check_positive(beta=beta, forget_bound=forget_bound)
        if refusal is not None:
            check_count(0, refusal=refusal)
        elif objective == "po":
            raise ValueError("refusal: expected a token for the objective 'po', got None")
        self.model, self.reference = model, FrozenCopy(model)
        self.objective, self.retain_weight, self.beta = objective, retain_weight, beta
        self.forget_bound, self.refusal = forget_bound, refusal
        parameters = dict(model.named_parameters())
        with evaluating(model):
            to_forget = loss_gradients(lambda x: -_answers(model, "forget", x).mean(), parameters, [forget])
            to_retain = loss_gradients(lambda x: -_answers(model, "retain", x).mean(), parameters, [retain])
        scores = attribution(parameters, to_forget, to_retain, gamma)
        self.register_buffer("score", torch.cat([x.flatten() for x in scores.values()]))
        self.register_buffer("kept", _largest(self.score, ratio))

    @property
    def scores(self) -> dict[str, Tensor]:
        """Score of every weight, by name."""
        return _split(self.score, dict(self.model.named_parameters()))

    @property
    def masks(self) -> dict[str, Tensor]:
        """Which weights may move, by name."""
        return _split(self.kept, dict(self.model.named_parameters()))

    def use_masks(self, masks: Named) -> None:
        """Take other masks, boolean tensors by name, for comparison with those of the method."""
        parameters = dict(self.model.named_parameters())
        check_type(Mapping, masks=masks)
        if set(masks) != set(parameters):
            raise ValueError("masks: expected one under every name of the model's parameters, got other names")
        for name, x in parameters.items():
            shape = " ".join(map(str, x.shape))
            check_shapes(**{f"masks[{name!r}]": (masks[name], shape, bool)})
        self.kept.copy_(torch.cat([masks[name].flatten() for name in parameters]))

    def answer_loss(self, tokens: Tensor) -> Tensor:
        """Mean cross-entropy of the last tokens of sequences ``(n, T + 1)``."""
        return -_answers(self.model, "tokens", tokens).mean()

    def loss(self, forget: Tensor, retain: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The objective on two batches of sequences ``(n, T + 1)`` and ``(m, T + 1)``."""
        forget, retain = _check_tokens("forget", forget), _check_tokens("retain", retain)
        retain_loss = -_answers(self.model, "retain", retain).mean()
        if self.objective == "grad_diff":
            forget_loss = -_answers(self.model, "forget", forget).mean()
            return grad_diff(forget_loss.clamp(max=self.forget_bound), retain_loss, self.retain_weight)
        if self.objective == "po":
            refusals = torch.cat([forget[:, :-1], torch.full_like(forget[:, -1:], self.refusal or 0)], dim=1)
            return with_retain(-_answers(self.model, "forget", refusals).mean(), retain_loss, self.retain_weight)
        log_p, reference = (_answers(m, "forget", forget) for m in (self.model, self.reference))
        return with_retain(npo(log_p, reference, self.beta), retain_loss, self.retain_weight)

    def forward(self, forget: Tensor, retain: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As a criterion: the loss."""
        return self.loss(forget, retain, generator=generator)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put back every weight that may not move; not even weight decay or momentum moves it."""
        start = dict(self.reference.network.named_parameters())
        for (name, parameter), mask in zip(self.model.named_parameters(), self.masks.values(), strict=True):
            parameter.copy_(torch.where(mask, parameter, start[name]))


def _check_tokens(name: str, tokens: Tensor) -> Tensor:
    check_shapes(**{name: (tokens, "n T", int)})
    if tokens.shape[1] < 2:
        raise ValueError(
            f"{name}: expected at least 2 tokens a sequence, the last is the answer, got {tokens.shape[1]}"
        )
    return check_labels(tokens.flatten(), name=name).view_as(tokens)


def _answers(model: nn.Module, name: str, tokens: Tensor) -> Tensor:
    """Log-probability ``(n,)`` of the last token of each sequence."""
    tokens = _check_tokens(name, tokens)
    logits = read_tokens(model, tokens[:, :-1], name=name)[1][:, -1:]
    check_labels(tokens[:, -1], name=name, num_classes=logits.shape[-1])
    return token_log_probability(logits, tokens[:, -1:]).squeeze(1)


@torch.no_grad()
def answer_accuracy(model: nn.Module, tokens: Tensor) -> float:
    """Share of sequences ``(n, T + 1)`` whose last token the model, without dropout, finds most likely."""
    check_module(model=model)
    tokens = _check_tokens("tokens", tokens)
    with evaluating(model):
        return (read_tokens(model, tokens[:, :-1])[1][:, -1].argmax(-1) == tokens[:, -1]).double().mean().item()
