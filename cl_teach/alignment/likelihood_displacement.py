r"""Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization. Noam Razin, Sadhika Malladi,
Adithya Bhaskar, Danqi Chen, Sanjeev Arora, Boris Hanin; ICLR 2025; https://arxiv.org/abs/2410.08847.

Direct preference optimization (DPO) only asks that the gap :math:`g = \ln\pi(y^+) - \ln\pi(y^-)` grows,

.. math::
    L = -\ln\sigma(\beta(g - g_{ref})),

so both likelihoods may fall. The probability then goes to a third response, which can mean the opposite. The centered
hidden embedding similarity (CHES) of a pair is, with h the state that predicts a response token,

.. math::
    \mathrm{CHES} = \Big\langle\sum_k h_{x,y^+_{<k}}, \sum_k h_{x,y^-_{<k}}\Big\rangle
    - \Big\|\sum_k h_{x,y^+_{<k}}\Big\|^2 .

What changes and why: under gradient flow the change of :math:`\ln\pi(y^+)` has a closed form in hidden states and
unembeddings. The part that the unembedding's movement causes is a weighted sum of inner products of states; with equal
positive weights it is minus CHES. So one forward pass of the initial model ranks the pairs, and those with the highest
length-normalized score are left out before plain DPO. For one-token responses with a shared prompt state CHES is 0 and
says nothing; there the unembeddings decide: among the other tokens, those that align with :math:`W_{y^+} - W_{y^-}`
gain most.

Paper versus code. (1) The sum ends with the state before the last response token, as in the definition and the released
scoring function; the released ranking script also counts the state after it. (2) The released function relies on left
padding; here a mask says which states count, so either side may be padded. (3) Sums are accumulated in float32 at
least. (4) Log-probabilities of a response are sums over its tokens, not means. (5) The paper's share of pairs to keep
could not be verified: it is an argument without a default. (6) The formulas for velocities were derived anew.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_count,
    check_entries,
    check_flag,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
)
from ..core.frozen import evaluating
from ..core.precision import full_precision
from ..core.preference import preference_loss
from ..models.sequence import predicting_states, read_tokens, response_log_probability  # noqa: F401 - for the example

__all__ = [
    "Ches",
    "FilteredDPO",
    "PairVelocity",
    "TokenVelocity",
    "ches",
    "keep_lowest",
    "pair_velocity",
    "token_velocity",
]

# Products of four such numbers, summed, stay in the range of float32.
LARGEST = 1e8


class Ches(NamedTuple):
    """Scores of ``n`` pairs: ``score (n,)``, ``length_normalized (n,)`` and ``lengths (n, 2)`` of both responses."""

    score: Tensor
    length_normalized: Tensor
    lengths: Tensor


class TokenVelocity(NamedTuple):
    """One-token responses: ``loss``, ``velocity (V,)`` of all log-probabilities, ``probabilities (V,)``, ``slope``."""

    loss: Tensor
    velocity: Tensor
    probabilities: Tensor
    slope: Tensor


class PairVelocity(NamedTuple):
    """Longer responses: ``velocity`` of the preferred one's log-probability, and what it is made of.

    ``from_unembedding`` is the part that the movement of W causes, ``alpha_plus (K, K)`` and ``alpha_minus (K, K')``
    are the weights in it; ``slope`` is minus the derivative of the loss in the gap.
    """

    velocity: Tensor
    from_unembedding: Tensor
    alpha_plus: Tensor
    alpha_minus: Tensor
    slope: Tensor


@full_precision
def ches(states_plus: Tensor, mask_plus: Tensor, states_minus: Tensor, mask_minus: Tensor) -> Ches:
    """Centered hidden embedding similarity of every pair; high scores predict that the preferred response loses.

    Args:
        states_plus: ``(n, T, d)`` last hidden states of prompt and preferred response, as they come (not normalized).
        mask_plus: ``(n, T)`` which of them predict a response token, see `predicting_states`.
        states_minus: ``(n, T', d)`` for the dispreferred response.
        mask_minus: ``(n, T')``.

    Source: Razin et al. (2025), definition 2.

    Example:
        >>> mask = predicting_states(3, torch.tensor([0]))  # a prompt of one token, a response of two
        >>> plus, minus = torch.ones(1, 3, 2), torch.tensor([[[1.0, 1.0], [2.0, 2.0], [9.0, 9.0]]])
        >>> ches(plus, mask, minus, mask).score.tolist()  # <(2, 2), (3, 3)> - |(2, 2)|^2
        [4.0]
    """
    check_shapes(
        states_plus=(states_plus, "n T d"),
        mask_plus=(mask_plus, "n T", bool),
        states_minus=(states_minus, "n S d"),
        mask_minus=(mask_minus, "n S", bool),
    )
    check_entries(-LARGEST, LARGEST, states_plus=states_plus, states_minus=states_minus)
    for name, mask in (("mask_plus", mask_plus), ("mask_minus", mask_minus)):
        if not bool(mask.any(1).all()):
            raise ValueError(f"{name}: expected at least one True in every row, got an empty response")
    plus, minus = (states_plus * mask_plus[..., None]).sum(1), (states_minus * mask_minus[..., None]).sum(1)  # (n, d)
    lengths = torch.stack([mask_plus.sum(1), mask_minus.sum(1)], dim=1)  # (n, 2)
    cross, own = (plus * minus).sum(-1), plus.square().sum(-1)  # (n,)
    normalized = cross / lengths.prod(1) - own / lengths[:, 0].square()
    return Ches(cross - own, normalized, lengths)


def keep_lowest(scores: Tensor, share: float) -> Tensor:
    """Indices of the ``share`` of pairs with the lowest scores, in the order of the data.

    Args:
        scores: ``(n,)``, for filtering the length-normalized CHES.
        share: in (0, 1]; at least one pair is kept.
    """
    check_shapes(scores=(scores, "n"))
    check_positive(share=share)
    check_in_range(0, 1, share=share)
    kept = max(1, round(share * len(scores)))
    return scores.argsort(stable=True)[:kept].sort().values


@full_precision
def token_velocity(
    unembedding: Tensor,
    state: Tensor,
    plus: int,
    minus: int,
    beta: float = 0.1,
    reference_gap: float = 0.0,
    *,
    train_unembedding: bool = True,
) -> TokenVelocity:
    r"""How fast every token's log-probability changes when the responses are one token long.

    .. math:: s\,[\langle W_z-\bar W, W_+-W_-\rangle + \|h\|^2(1_{z=+}-1_{z=-}-\pi_++\pi_-)]

    Args:
        unembedding: ``(V, d)`` rows W.
        state: ``(d,)`` the prompt's state h.
        plus: preferred token.
        minus: dispreferred token.
        beta: of the loss.
        reference_gap: gap of the reference.
        train_unembedding: whether W moves too; without it the second term is missing.

    Source: Razin et al. (2025), analysis of single-token responses, derived anew.
    """
    check_shapes(unembedding=(unembedding, "V d"), state=(state, "d"))
    check_entries(-LARGEST, LARGEST, unembedding=unembedding, state=state)
    check_count(0, plus=plus, minus=minus)
    check_count(0, len(unembedding) - 1, **{"plus, unembedding": plus, "minus, unembedding": minus})
    check_flag(train_unembedding=train_unembedding)
    _check_loss(beta, reference_gap)
    log_p = (unembedding @ state).log_softmax(0)  # (V,)
    p, gap = log_p.exp(), log_p[plus] - log_p[minus]
    loss, slope = preference_loss(gap, reference_gap, beta), beta * torch.sigmoid(-beta * (gap - reference_gap))
    direction = unembedding[plus] - unembedding[minus]  # (d,)
    velocity = (unembedding - p @ unembedding) @ direction
    if train_unembedding:
        one = torch.zeros_like(p)
        one[plus] += 1
        one[minus] -= 1
        velocity = velocity + state.square().sum() * (one - p[plus] + p[minus])
    return TokenVelocity(loss, slope * velocity, p, slope)


@full_precision
def pair_velocity(
    unembedding: Tensor,
    states_plus: Tensor,
    states_minus: Tensor,
    plus: Tensor,
    minus: Tensor,
    beta: float = 0.1,
    reference_gap: float = 0.0,
) -> PairVelocity:
    """How fast the preferred response's log-probability changes, for responses of any length.

    The unembedding and all states are free parameters; the prompt's state is one, shared by both responses.

    Args:
        unembedding: ``(V, d)``.
        states_plus: ``(K, d)``, row k predicts token k.
        states_minus: ``(K', d)``; its first row equals that of ``states_plus``.
        plus: ``(K,)`` tokens of the preferred response.
        minus: ``(K',)`` tokens of the other.
        beta: of the loss.
        reference_gap: gap of the reference.

    Source: Razin et al. (2025), analysis of multi-token responses, derived anew.
    """
    check_shapes(
        unembedding=(unembedding, "V d"),
        states_plus=(states_plus, "K d"),
        states_minus=(states_minus, "J d"),
        plus=(plus, "K", int),
        minus=(minus, "J", int),
    )
    check_entries(-LARGEST, LARGEST, unembedding=unembedding, states_plus=states_plus, states_minus=states_minus)
    plus = check_labels(plus, name="plus, unembedding", num_classes=len(unembedding))
    minus = check_labels(minus, name="minus, unembedding", num_classes=len(unembedding))
    _check_loss(beta, reference_gap)
    if not torch.allclose(states_plus[0], states_minus[0]):
        raise ValueError("states_minus: expected the prompt's state in row 0, as in states_plus, got another")

    def errors(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        log_p = (states @ unembedding.mT).log_softmax(-1)  # (K, V)
        one = nn.functional.one_hot(tokens, len(unembedding)).to(log_p.dtype)
        return (log_p * one).sum(), one - log_p.exp()

    log_plus, error_plus = errors(states_plus, plus)
    log_minus, error_minus = errors(states_minus, minus)
    slope = beta * torch.sigmoid(-beta * (log_plus - log_minus - reference_gap))
    alpha_plus, alpha_minus = error_plus @ error_plus.mT, error_plus @ error_minus.mT
    own = (alpha_plus * (states_plus @ states_plus.mT)).sum()
    from_unembedding = slope * (own - (alpha_minus * (states_plus @ states_minus.mT)).sum())
    pull_plus, pull_minus = error_plus @ unembedding, error_minus @ unembedding  # gradients by the states
    from_states = slope * (pull_plus.square().sum() - pull_plus[0] @ pull_minus[0])
    return PairVelocity(from_unembedding + from_states, from_unembedding, alpha_plus, alpha_minus, slope)


def _check_loss(beta: float, reference_gap: float) -> None:
    check_positive(beta=beta)
    check_in_range(0, LARGEST, beta=beta)
    check_in_range(-math.inf, math.inf, reference_gap=reference_gap)


class FilteredDPO(nn.Module):
    """Score all pairs with the initial model, keep those with low scores, train DPO on them and watch the preferred.

    ``model(tokens)`` returns states ``(n, T, d)`` and logits ``(n, T, V)``. Train with ``loss`` on batches of ``kept``.
    State: the model, the pairs, log-probabilities of the initial model for both responses, ``initial (n, 2)``, the
    scores ``ches (n,)`` and ``length_normalized (n,)``, and ``kept``, indices of the pairs to train on.

    Source: Razin et al. (2025), section on filtering.
    """

    plus: Tensor
    minus: Tensor
    mask_plus: Tensor
    mask_minus: Tensor
    initial: Tensor
    ches: Tensor
    length_normalized: Tensor
    kept: Tensor

    def __init__(
        self,
        model: nn.Module,
        plus: Tensor,
        minus: Tensor,
        mask_plus: Tensor,
        mask_minus: Tensor,
        *,
        share: float,
        beta: float = 0.1,
    ) -> None:
        """Score and filter, without dropout.

        Args:
            model: the initial policy; it is trained in place.
            plus: ``(n, T)`` tokens of prompt and preferred response, with ``mask_plus`` from `predicting_states`.
            minus: ``(n, T')`` the same with the dispreferred response, with ``mask_minus``.
            mask_plus: ``(n, T)``.
            mask_minus: ``(n, T')``.
            share: of the pairs to keep, in (0, 1].
            beta: of the loss.
        """
        super().__init__()
        check_module(model=model)
        check_positive(beta=beta)
        check_shapes(
            plus=(plus, "n T", int),
            minus=(minus, "n S", int),
            mask_plus=(mask_plus, "n T", bool),
            mask_minus=(mask_minus, "n S", bool),
        )
        self.model, self.beta = model, beta
        self.register_buffer("plus", check_labels(plus.flatten(), name="plus").view_as(plus))
        self.register_buffer("minus", check_labels(minus.flatten(), name="minus").view_as(minus))
        self.register_buffer("mask_plus", mask_plus)
        self.register_buffer("mask_minus", mask_minus)
        with torch.no_grad(), evaluating(model):
            states = [read_tokens(model, getattr(self, name), name=name)[0] for name in ("plus", "minus")]
            found = ches(states[0], mask_plus, states[1], mask_minus)
            self.register_buffer("initial", self._log_probabilities(torch.arange(len(plus), device=plus.device)))
        self.register_buffer("ches", found.score)
        self.register_buffer("length_normalized", found.length_normalized)
        self.register_buffer("kept", keep_lowest(found.length_normalized, share))

    def _log_probabilities(self, index: Tensor) -> Tensor:
        """``(len(index), 2)`` log-probabilities of the preferred and the dispreferred response."""
        columns = []
        for tokens, mask in ((self.plus, self.mask_plus), (self.minus, self.mask_minus)):
            columns.append(
                response_log_probability(read_tokens(self.model, tokens[index])[1], tokens[index], mask[index])
            )
        return torch.stack(columns, dim=1)

    def loss(self, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean loss of the pairs ``index (b,)``; training draws them from ``kept``."""
        check_shapes(index=(index, "b", int))
        index = check_labels(index, name="index", num_classes=len(self.plus))
        gap, reference = (x[:, 0] - x[:, 1] for x in (self._log_probabilities(index), self.initial[index]))
        return preference_loss(gap, reference, self.beta).mean()

    def forward(self, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """As a criterion: the loss."""
        return self.loss(index, generator=generator)

    @torch.no_grad()
    def displacement(self, index: Tensor) -> Tensor:
        """``(len(index), 2)`` change of both log-probabilities since the start; a negative first column is the harm."""
        check_shapes(index=(index, "b", int))
        index = check_labels(index, name="index", num_classes=len(self.plus))
        with evaluating(self.model):
            return self._log_probabilities(index) - self.initial[index]
