r"""SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks. Fenia Christopoulou, Ronald Cardenas et
al.; Findings of EMNLP 2025; https://arxiv.org/abs/2410.05102.

Direct preference optimization (DPO) adds up the log-ratios of all tokens of a response, so each counts the same. Here
token t has two weights, :math:`m_u^t` for its log-ratio and :math:`m_d^t` for its divergence from the reference:

.. math::
    U(y) = \sum_t m_u^t\ln\frac{\pi(y^t)}{\pi_{ref}(y^t)},\qquad
    K(y) = \sum_t m_d^t\,\mathrm{KL}(\pi_{ref}^t\|\pi^t),\qquad
    L = -\ln\sigma(\beta(u-\delta)) + \lambda_u\|m_u\|_1 + \lambda_d\|m_d\|_1,

with :math:`u = U(y_c) - U(y_r)` for chosen c and rejected r, :math:`\delta = K(y_r) - K(y_c)`, and norms that are sums
over the tokens of both responses.

What changes and why: a preference often rests on a few words. A weight of zero on the log-ratio takes away a token's
push; a weight of zero on the divergence lets the policy move there for free. The weights come from the reference model
alone: either from sizes of its activations (MaPO, no parameters), or from a small network with ReLUs on its hidden
states, learned together with the policy (SPO). ReLU and the norm make them sparse. Both know the tokens before t, not
token t itself. Weights 1 and 0 give DPO; 1 and 1 give token-level DPO (TDPO1).

Paper versus code. (1) The sign of :math:`\delta` is the released code's: rejected minus chosen, as in TDPO1; how the
paper prints it could not be verified, since its body was not read. (2) Beta multiplies log-ratios and divergences
alike; a second coefficient of the released configuration is never used. (3) No gradient is stopped in the divergences.
(4) Weights may exceed 1. (5) The release rounds MaPO's statistics to half precision; here nothing is rounded, and its
z-scoring before the rescaling, which changes nothing, is left out. (6) Pinned here: a sequence whose activations have
equal means (one valid token, say) gets MaPO weights of 1, and means that differ by rounding only count as equal: behind
a layer normalization every mean is the same, so MaPO reads activations before it. (7) Pinned here: the network starts
with positive mixing weights, biases of 1 and small slopes, so that every token weighs about 1. A token whose score
starts below 0 has weight 0 and no gradient, and stays so for good unless another token lifts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_entries,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.frozen import FrozenCopy
from ..core.precision import full_precision
from ..core.preference import preference_loss
from ..models.activations import check_layers, recorded
from ..models.sequence import read_tokens
from ..models.token_mask import TokenMask

__all__ = [
    "SparsePO",
    "SparsePreference",
    "TokenTerms",
    "TokenWeights",
    "activation_mask",
    "sparse_preference_loss",
    "token_terms",
]

KINDS = ("common", "independent", "activation", "ones", "dpo")
# Products of two such numbers, summed over tokens, stay in the range of float32.
LARGEST = 1e15
# Means over units that differ by less than this share of the activations differ by rounding.
ROUNDING = 1e-6


class TokenTerms(NamedTuple):
    """Of every token, ``(n, T)``: ``log_ratio`` and ``divergence`` from the reference, 0 where ``valid`` is False."""

    log_ratio: Tensor
    divergence: Tensor
    valid: Tensor


class TokenWeights(NamedTuple):
    """Of every token, ``(n, T)``: weights of the log-ratio and of the divergence."""

    reward: Tensor
    divergence: Tensor


class SparsePreference(NamedTuple):
    """The scalar ``loss`` and, of each pair, ``(n,)``: ``u``, ``delta`` and ``per_pair``, its loss with the norms."""

    loss: Tensor
    u: Tensor
    delta: Tensor
    per_pair: Tensor


@full_precision
def token_terms(logits: Tensor, reference_logits: Tensor, labels: Tensor, valid: Tensor) -> TokenTerms:
    """Log-ratio and full-vocabulary divergence KL(reference || policy) of every token.

    Args:
        logits: ``(n, T, V)`` of the policy; position t predicts position t of the labels.
        reference_logits: ``(n, T, V)``.
        labels: ``(n, T)`` integers.
        valid: ``(n, T)`` boolean, tokens of the response.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0]]])
        >>> terms = token_terms(logits, logits, torch.tensor([[1]]), torch.tensor([[True]]))
        >>> terms.log_ratio.tolist(), terms.divergence.tolist()  # a policy that is the reference
        ([[0.0]], [[0.0]])
    """
    check_shapes(
        logits=(logits, "n T V"),
        reference_logits=(reference_logits, "n T V"),
        labels=(labels, "n T", int),
        valid=(valid, "n T", bool),
    )
    labels = check_labels(labels.flatten(), num_classes=logits.shape[-1]).view_as(labels)
    log_p, log_q = logits.log_softmax(-1), reference_logits.detach().log_softmax(-1)  # (n, T, V)
    log_ratio = (log_p - log_q).gather(2, labels[..., None]).squeeze(2)  # (n, T)
    divergence = (log_q.exp() * (log_q - log_p)).sum(-1)  # (n, T)
    return TokenTerms(log_ratio * valid, divergence * valid, valid)


@full_precision
def sparse_preference_loss(
    chosen: TokenTerms,
    rejected: TokenTerms,
    weights_chosen: TokenWeights,
    weights_rejected: TokenWeights,
    beta: float = 0.8,
    *,
    lambda_u: float = 0.0,
    lambda_d: float = 0.0,
) -> SparsePreference:
    """The objective for n pairs; chosen and rejected responses may be padded to different lengths.

    Args:
        chosen: `token_terms` ``(n, T)`` of the chosen responses.
        rejected: ``(n, T')``.
        weights_chosen: ``(n, T)``, at least 0.
        weights_rejected: ``(n, T')``.
        beta: greater than 0.
        lambda_u: price of the log-ratios' weights.
        lambda_d: price of the divergences' weights.

    Source: Christopoulou et al. (2025), objective with masks on rewards and divergences, as released.
    """
    check_positive(beta=beta)
    check_in_range(0, LARGEST, beta=beta, lambda_u=lambda_u, lambda_d=lambda_d)
    check_type(TokenTerms, chosen=chosen, rejected=rejected)
    check_type(TokenWeights, weights_chosen=weights_chosen, weights_rejected=weights_rejected)
    sums = []
    for name, terms, weights in (("chosen", chosen, weights_chosen), ("rejected", rejected, weights_rejected)):
        named: dict[str, Any] = {
            f"weights_{name}.{field}": value for field, value in zip(weights._fields, weights, strict=True)
        }
        measured: dict[str, Any] = {f"{name}.log_ratio": terms.log_ratio, f"{name}.divergence": terms.divergence}
        check_shapes(
            **{key: (value, "n T") for key, value in (named | measured).items()},
            **{f"{name}.valid": (terms.valid, "n T", bool)},
        )
        check_entries(0, LARGEST, **named)
        check_entries(-LARGEST, LARGEST, **measured)
        reward = (weights.reward * terms.log_ratio).sum(1)  # U (n,)
        divergence = (weights.divergence * terms.divergence).sum(1)  # K (n,)
        # abs, not the weights themselves: its derivative at an exact zero is 0, as in the release
        price = ((lambda_u * weights.reward.abs() + lambda_d * weights.divergence.abs()) * terms.valid).sum(1)
        sums.append((reward, divergence, price))
    (reward_c, divergence_c, price_c), (reward_r, divergence_r, price_r) = sums
    if len(reward_c) != len(reward_r):
        raise ValueError(f"chosen, rejected: expected equally many rows, got {len(reward_c)} and {len(reward_r)}")
    u, delta = reward_c - reward_r, divergence_r - divergence_c
    per_pair = preference_loss(u, delta, beta) + price_c + price_r
    return SparsePreference(per_pair.mean(), u, delta, per_pair)


@full_precision
def activation_mask(activations: Sequence[Sequence[Tensor]], valid: Tensor) -> Tensor:
    """MaPO: weights from how active the reference model is at a token, without parameters.

    Of each activation tensor: mean over units, rescaled to [0, 1] within the valid tokens of a sequence. These are
    averaged over the tensors of a type (attention, residual, ...), then over types.

    Args:
        activations: ``activations[type][layer]`` of shape ``(n, T, h)``, raw, not normalized; position t predicts
            label t.
        valid: ``(n, T)`` boolean.

    Returns:
        ``(n, T)`` in [0, 1], detached, 0 at tokens that are not valid.

    Source: Christopoulou et al. (2025), model-based masks; rescaling as released.
    """
    check_type((list, tuple, Tensor), activations=activations)
    groups = [list(layers) if isinstance(layers, list | tuple | Tensor) else [] for layers in activations]
    if not groups or not all(groups):
        raise ValueError("activations: expected at least one type with at least one tensor in each, got none")
    types = []
    for kind, layers in enumerate(groups):
        scaled = []
        for layer, activation in enumerate(layers):
            check_shapes(valid=(valid, "n T", bool), **{f"activations[{kind}][{layer}]": (activation, "n T h")})
            mean, low, span, flat = _activity(activation.detach(), valid)
            scaled.append(torch.where(flat, 1.0, (mean - low) / torch.where(flat, 1.0, span)))
        types.append(torch.stack(scaled).mean(0))
    return torch.stack(types).mean(0).masked_fill(~valid, 0.0)


def _activity(activation: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means over units ``(n, T)``; smallest, range, and whether that is rounding, ``(n, 1)``, within valid tokens."""
    mean = activation.mean(-1)  # (n, T)
    low = mean.masked_fill(~valid, math.inf).amin(1, keepdim=True)  # (n, 1)
    span = mean.masked_fill(~valid, -math.inf).amax(1, keepdim=True) - low
    size = (activation.abs().amax(-1) * valid).amax(1, keepdim=True)
    return mean, low, span, span <= ROUNDING * size  # nothing to rescale: all valid tokens count fully


class SparsePO(nn.Module):
    """A policy, its frozen reference and the weights of tokens; a call gives the loss of a batch of pairs.

    ``model(tokens)`` returns states ``(n, T, d)`` and logits ``(n, T, V)``. State: ``policy``, ``reference`` (a frozen
    copy) and, for learned weights, one `TokenMask` (``masks[0]``) or two.

    Source: Christopoulou et al. (2025); learned masks: "common" and "independent"; activation masks: "activation".
    """

    def __init__(
        self,
        model: nn.Module,
        width: int,
        *,
        kind: str = "common",
        layers: Sequence[str] = (),
        beta: float = 0.8,
        lambda_u: float = 0.0,
        lambda_d: float = 0.0,
        dropout: float = 0.01,
    ) -> None:
        """Copy the reference.

        Args:
            model: the initial policy; it is trained in place.
            width: d of its states.
            kind: ``"common"``: one learned weight a token for both terms; ``"independent"``: two; ``"activation"``:
                MaPO; ``"ones"``: all 1, which is TDPO1; ``"dpo"``: 1 for log-ratios and 0 for divergences.
            layers: names of the model's parts whose outputs the weights are made of; none: the states that it returns.
                MaPO needs names, of parts before a normalization.
            beta: greater than 0.
            lambda_u: price of the log-ratios' weights.
            lambda_d: price of the divergences' weights.
            dropout: of learned weights.
        """
        super().__init__()
        check_module(model=model)
        check_choice(KINDS, kind=kind)
        check_layers(model, layers)
        if kind == "activation" and not layers:
            raise ValueError("layers: expected names of the model's parts for kind 'activation', got none")
        check_positive(beta=beta)
        check_in_range(0, LARGEST, beta=beta, lambda_u=lambda_u, lambda_d=lambda_d)
        self.kind, self.layers, self.beta = kind, tuple(layers), beta
        self.lambda_u, self.lambda_d = lambda_u, lambda_d
        self.policy, self.reference = model, FrozenCopy(model)
        count = {"common": 1, "independent": 2}.get(kind, 0)
        self.masks = nn.ModuleList(TokenMask(max(len(layers), 1), width, dropout=dropout) for _ in range(count))

    def parameter_groups(self, learning_rate: float, weight_decay: float = 0.01) -> list[dict[str, Any]]:
        """Two groups for ``torch.optim.AdamW``: the policy without decay, the masks with a decay of their own."""
        check_positive(learning_rate=learning_rate)
        check_in_range(0, math.inf, weight_decay=weight_decay)
        return [
            {"params": list(self.policy.parameters()), "lr": learning_rate, "weight_decay": 0.0},
            {"params": list(self.masks.parameters()), "lr": learning_rate, "weight_decay": weight_decay},
        ]

    def weights(self, states: Sequence[Tensor], valid: Tensor) -> TokenWeights:
        """Weights ``(n, T)`` of all tokens from states ``(n, T, d)`` of the reference, one tensor a layer."""
        check_type((list, tuple), states=states)
        if len(states) != max(len(self.layers), 1):
            raise ValueError(f"states: expected {max(len(self.layers), 1)}, one a layer, got {len(states)}")
        check_shapes(valid=(valid, "n T", bool), **{f"states[{i}]": (x, "n T d") for i, x in enumerate(states)})
        if self.kind == "activation":
            for name, layer in zip(self.layers, states, strict=True):
                size = layer.detach().float().abs().amax()
                if size > 0 and bool((layer.detach().float().mean(-1).abs() <= ROUNDING * size).all()):
                    raise ValueError(
                        f"layers, states: expected parts before a normalization, all means over units of {name!r} are 0"
                    )
            weight = activation_mask([list(states)], valid)
        elif self.masks:
            found = [mask(torch.stack(list(states))) for mask in self.masks]
            return TokenWeights(found[0], found[-1])
        else:
            weight = valid.to(states[0].dtype)
        return TokenWeights(weight, torch.zeros_like(weight) if self.kind == "dpo" else weight)

    def terms(self, tokens: Tensor, valid: Tensor) -> tuple[TokenTerms, TokenWeights]:
        """What the loss is made of, for sequences ``(n, T + 1)``; ``valid (n, T)`` marks tokens 1 to T that count."""
        return self._terms("tokens", tokens, "valid", valid)

    def _terms(self, name: str, tokens: Tensor, mask: str, valid: Tensor | None) -> tuple[TokenTerms, TokenWeights]:
        check_shapes(**{name: (tokens, "n T", int)})
        if tokens.shape[1] < 2:
            raise ValueError(f"{name}: expected at least 2 tokens, the first is only read, got {tokens.shape[1]}")
        tokens = check_labels(tokens.flatten(), name=name).view_as(tokens)
        read, labels = tokens[:, :-1], tokens[:, 1:]
        if valid is None:
            valid = torch.ones_like(labels, dtype=torch.bool)
        check_shapes(**{name: (labels, "n T", int), mask: (valid, "n T", bool)})
        logits = read_tokens(self.policy, read, name=name)[1]
        check_labels(labels.flatten(), name=name, num_classes=logits.shape[-1])
        with torch.no_grad():
            (states, reference_logits), layers = recorded(self.reference.network, self.layers, [read])
        found = token_terms(logits, reference_logits, labels, valid)
        return found, self.weights(layers or [states], valid)

    def loss(
        self,
        chosen: Tensor,
        rejected: Tensor,
        valid_chosen: Tensor | None = None,
        valid_rejected: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> SparsePreference:
        """The loss of pairs ``(n, T + 1)`` and ``(n, T' + 1)``; without masks all tokens but the first count."""
        check_shapes(chosen=(chosen, "n T", int), rejected=(rejected, "n S", int))
        sides = [
            self._terms("chosen", chosen, "valid_chosen", valid_chosen),
            self._terms("rejected", rejected, "valid_rejected", valid_rejected),
        ]
        (terms_c, weights_c), (terms_r, weights_r) = sides
        prices = {"lambda_u": self.lambda_u, "lambda_d": self.lambda_d}
        return sparse_preference_loss(terms_c, terms_r, weights_c, weights_r, self.beta, **prices)

    def forward(self, *batch: Any, generator: torch.Generator | None = None) -> SparsePreference:
        """As a criterion: the loss."""
        return self.loss(*batch, generator=generator)
