r"""Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data. Fahim Tajwar, Anikait Singh, Archit
Sharma, Rafael Rafailov, Jeff Schneider, Tengyang Xie, Stefano Ermon, Chelsea Finn, Aviral Kumar; ICML 2024;
https://arxiv.org/abs/2404.14367.

A controlled comparison of losses on N sampled actions of each of S states, with rewards R, log-probabilities l of the
policy and :math:`l_{ref}` of a frozen reference, and, for pairs, :math:`h = (l_w-l_{ref,w})-(l_l-l_{ref,l})`:

.. math::
    \text{best of N: } -l_{n^*},\quad \text{RWR: } -l\,e^{R/\beta},\quad
    \text{REINFORCE: } -l\hat R+\beta_{kl}(l-l_{ref}),\quad
    \text{DPO: } -\log\sigma(\beta h),\quad \text{IPO: } (h-\tau)^2 .

What changes and why: two properties are varied. On-policy sampling draws fresh actions from the current policy; a
negative gradient pushes the likelihood of bad actions down. Both are said to help most where the reward's peak lies at
actions that the reference rarely takes. The paper's picture is that such methods behave like the mode-seeking
:math:`KL(\pi\|q)`, and maximum likelihood like the mode-covering :math:`KL(q\|\pi)`. On logits their gradients are
:math:`\pi_j(\log(\pi_j/q_j) - KL(\pi\|q))` and :math:`\pi_j - q_j`.

Paper versus code. (1) The parameter called beta in the released IPO loss is the target margin :math:`\tau` itself,
1 / (2 beta) of the IPO paper. (2) On a tie the released code takes the second action as winner; here ties are no pairs.
(3) The bandit's REINFORCE in the code adds an entropy bonus; here, as in the code for transformers, a reference
penalty. (4) Rewards are standardized in each state; the running statistics of the released transformer learner are
wrong after the first round. (5) The weight :math:`e^{R/\beta}` is not normalized. (6) Pinned here: the policy starts
exactly at the reference instead of being fitted to it. The released code was read, not the body of the paper. Policies
are in `cl_teach.models`, the bandit's world is `cl_teach.datasets.peaked_bandit`, both divergences are in
`cl_teach.core.divergences`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_callable,
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.frozen import FrozenCopy
from ..core.policy_gradient import probability_ratio
from ..core.precision import full_precision
from ..core.preference import preference_loss
from ..models.policies import ActionPolicy, TokenPolicy

__all__ = [
    "Draws",
    "PreferenceTuning",
    "advantages",
    "best_of_n",
    "dpo",
    "ipo",
    "margins",
    "policy_gradient",
    "ppo",
    "rwr",
]

# Below it a deviation counts as none; the release's.
SMALLEST = 1e-12
# The square of a larger number leaves the range of float32.
LARGEST = 1e15


@full_precision
def advantages(rewards: Tensor) -> Tensor:
    """Rewards standardized in each state, ``(S, N)`` to ``(S, N)``, with the population's standard deviation."""
    check_shapes(rewards=(rewards, "S N"))
    check_entries(-LARGEST, LARGEST, rewards=rewards)
    centered = rewards - rewards.mean(1, keepdim=True)
    return (centered / (rewards.std(1, correction=0, keepdim=True) + SMALLEST)).detach()


@full_precision
def best_of_n(log_p: Tensor, rewards: Tensor, *, negative_weight: float = 0.0, against: str = "worst") -> Tensor:
    """Maximum likelihood of the best action of every state; with ``negative_weight`` also less of the others.

    Args:
        log_p: ``(S, N)`` log-probabilities of the sampled actions.
        rewards: ``(S, N)``.
        negative_weight: at least 0; 0 is plain supervised fine-tuning on the best.
        against: ``"worst"``: the action with the lowest reward; ``"rest"``: the mean of all but the best.
    """
    check_shapes(log_p=(log_p, "S N"), rewards=(rewards, "S N"))
    check_in_range(0, LARGEST, negative_weight=negative_weight)
    check_choice(("worst", "rest"), against=against)
    best = log_p.gather(1, rewards.argmax(1, keepdim=True)).squeeze(1)  # (S,)
    if negative_weight == 0:
        return -best.mean()
    check_batch(log_p.shape[1], 2, name="log_p", why="in each state to have a worse action")
    worst = log_p.gather(1, rewards.argmin(1, keepdim=True)).squeeze(1)
    pushed = worst if against == "worst" else (log_p.sum(1) - best) / (log_p.shape[1] - 1)
    return (negative_weight * pushed - best).mean()


@full_precision
def rwr(log_p: Tensor, rewards: Tensor, beta: float = 0.1) -> Tensor:
    """Reward-weighted regression: likelihood weighted with exp(reward / beta), for ``(S, N)`` actions.

    Raises:
        ValueError: beta so small that a weight overflows.
    """
    check_shapes(log_p=(log_p, "S N"), rewards=(rewards, "S N"))
    check_positive(beta=beta)
    weights = (rewards / beta).exp().detach()
    value = -(log_p * weights).mean()
    if not bool(value.isfinite()):
        raise ValueError(f"beta, rewards: expected values at which log_p * exp(rewards / beta) is finite, got {beta:g}")
    return value


@full_precision
def policy_gradient(log_p: Tensor, reference: Tensor, rewards: Tensor, *, beta_kl: float = 0.0) -> Tensor:
    """REINFORCE with a penalty for leaving the reference; all tensors ``(S, N)``, ``beta_kl`` at least 0.

    On a table of logits the advantages of a state cancel for every action that was not sampled; the penalty does not,
    and raises it a little. Adam turns small, steady gradients into full steps, so that even a small ``beta_kl`` can
    spread the policy over actions nobody tried.
    """
    check_shapes(log_p=(log_p, "S N"), reference=(reference, "S N"), rewards=(rewards, "S N"))
    check_in_range(0, LARGEST, beta_kl=beta_kl)
    return (beta_kl * (log_p - reference) - log_p * advantages(rewards)).mean()


@full_precision
def ppo(
    log_p: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, *, beta_kl: float = 0.0, clip: float = 0.2
) -> Tensor:
    """Clipped policy gradient for reused samples.

    Args:
        log_p: ``(S, N)`` log-probabilities of the sampled actions.
        old: ``(S, N)`` the same when they were drawn.
        reference: ``(S, N)``.
        rewards: ``(S, N)``.
        beta_kl: price of leaving the reference, at least 0.
        clip: in [0, 1], how far a ratio may go.
    """
    check_shapes(log_p=(log_p, "S N"), old=(old, "S N"), reference=(reference, "S N"), rewards=(rewards, "S N"))
    check_in_range(0, LARGEST, beta_kl=beta_kl)
    check_in_range(0, 1, clip=clip)
    ratio, gain = probability_ratio(log_p, old), advantages(rewards)
    clipped = torch.maximum(-gain * ratio, -gain * ratio.clamp(1 - clip, 1 + clip))
    return (clipped + beta_kl * (log_p - reference)).mean()


@full_precision
def margins(log_p: Tensor, reference: Tensor, rewards: Tensor, *, minimum_gap: float = 0.0) -> Tensor:
    """Margins h of all pairs of actions of one state; the winner is the one with the larger reward.

    Args:
        log_p: ``(S, N)``.
        reference: ``(S, N)``.
        rewards: ``(S, N)``.
        minimum_gap: pairs count only if their rewards differ by more; 0 leaves out ties.

    Returns:
        ``(M,)``, M at most S N (N - 1) / 2.

    Raises:
        ValueError: no pair is left.
    """
    check_shapes(log_p=(log_p, "S N"), reference=(reference, "S N"), rewards=(rewards, "S N"))
    check_in_range(0, math.inf, minimum_gap=minimum_gap)
    ratio = log_p - reference
    pairs = rewards[:, :, None] - rewards[:, None, :] > minimum_gap  # (S, N, N), first beats second
    if not bool(pairs.any()):
        raise ValueError(f"rewards: expected two in a state further apart than minimum_gap={minimum_gap:g}, got none")
    return (ratio[:, :, None] - ratio[:, None, :])[pairs]


@full_precision
def dpo(margin: Tensor, beta: float = 0.05) -> Tensor:
    """Mean of -log sigmoid(beta * margin) over ``(M,)`` pairs.

    Example:
        >>> log_p, rewards = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[0.0, 1.0, 2.0]])
        >>> margins(log_p, torch.full((1, 3), -2.0), rewards).tolist()  # the policy prefers what is worse
        [-1.0, -2.0, -1.0]
        >>> round(dpo(margins(log_p, log_p, rewards)).exp().item(), 3)  # at the reference the loss is log 2
        2.0
    """
    check_shapes(margin=(margin, "M"))
    check_entries(-LARGEST, LARGEST, margin=margin)
    check_in_range(0, LARGEST, beta=beta)
    return preference_loss(margin, 0.0, beta).mean()


@full_precision
def ipo(margin: Tensor, target: float = 10.0) -> Tensor:
    """Mean of (margin - target)^2 over ``(M,)`` pairs; the push turns around once a margin is beyond the target."""
    check_shapes(margin=(margin, "M"))
    check_positive(target=target)
    check_in_range(0, LARGEST, target=target)
    check_entries(-LARGEST, LARGEST, margin=margin)
    return (margin - target).square().mean()


class Draws(NamedTuple):
    """Sampled actions of n states: ``states (n,)``, ``actions (n, N, ...)``, ``rewards (n, N)``, ``old (n, N)``.

    ``old`` are the actions' log-probabilities when they were drawn.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    old: Tensor


class PreferenceTuning(nn.Module):
    """One of the losses on a policy's own samples; offline is one batch of draws and many steps.

    ``policy(states, actions)`` returns log-probabilities and ``policy.sample(states, n)`` draws, see
    `cl_teach.models.ActionPolicy` and `TokenPolicy`. The loop is its own, because there are two phases: `collect` a
    batch, then take some steps on it with one optimizer that goes on over all batches. State: ``policy``,
    ``reference`` (a frozen copy) and the optimizer.

    Source: Tajwar et al. (2024), bandit experiment.
    """

    LOSSES = ("best_of_n", "rwr", "reinforce", "ppo", "dpo", "ipo")

    def __init__(
        self,
        policy: ActionPolicy | TokenPolicy,
        reward: Callable[[Tensor], Tensor],
        name: str,
        *,
        learning_rate: float = 0.03,
        **settings: Any,
    ) -> None:
        """Copy the reference.

        Args:
            policy: trained in place; at the start it is the reference.
            reward: actions ``(n, N, ...)`` to rewards ``(n, N)``.
            name: one of ``PreferenceTuning.LOSSES``.
            learning_rate: of Adam.
            **settings: of the loss, for example ``beta``.
        """
        super().__init__()
        check_module(policy=policy)
        check_callable(reward=reward)
        if not callable(getattr(policy, "sample", None)):
            raise TypeError(f"policy: expected one with a method `sample`, got {type(policy).__name__}")
        check_choice(self.LOSSES, name=name)
        check_positive(learning_rate=learning_rate)
        self.policy, self.reference = policy, FrozenCopy(policy)
        self.reward, self.name, self.settings = reward, name, settings
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate)

    def get_extra_state(self) -> dict[str, Any]:
        """What the optimizer remembers."""
        return copy.deepcopy(self.optimizer.state_dict())

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with what the optimizer remembered."""
        self.optimizer.load_state_dict(copy.deepcopy(state))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities ``(n, N)`` of actions."""
        return self.policy(states, actions)

    @torch.no_grad()
    def collect(self, states: Tensor, n: int = 10, *, generator: torch.Generator | None = None) -> Draws:
        """Draw ``n`` actions in each of ``states``."""
        check_count(n=n)
        check_generator(generator)
        actions = self.policy.sample(states, n, generator=generator)
        return Draws(states, actions, self.reward(actions), self.policy(states, actions))

    def loss(
        self,
        states: Tensor,
        actions: Tensor,
        rewards: Tensor,
        old: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of a batch of `Draws`; a batch without two different rewards in a state has no pairs and loss 0."""
        log_p, reference = self.policy(states, actions), self.reference(states, actions)
        check_shapes(rewards=(rewards, "n N"), old=(old, "n N"))
        if tuple(actions.shape[:2]) != tuple(rewards.shape):
            raise ValueError(f"actions, rewards: expected one reward an action, got {actions.shape}, {rewards.shape}")
        if self.name == "best_of_n":
            return best_of_n(log_p, rewards, **self.settings)
        if self.name == "rwr":
            return rwr(log_p, rewards, **self.settings)
        if self.name == "reinforce":
            return policy_gradient(log_p, reference, rewards, **self.settings)
        if self.name == "ppo":
            return ppo(log_p, old, reference, rewards, **self.settings)
        if bool((rewards == rewards[:, :1]).all()):  # a collapsed policy samples one action: nothing to compare
            return 0.0 * log_p.sum()
        pairs = margins(log_p, reference, rewards)
        return dpo(pairs, **self.settings) if self.name == "dpo" else ipo(pairs, **self.settings)

    def step(self, batch: Draws, *, steps: int = 1) -> Tensor:
        """Take some steps on one batch of draws; returns the losses ``(steps,)`` before each.

        The method owns this loop because its batches are the policy's own samples: between two calls `collect` draws
        anew, and within one the same draws, with the log-probabilities that they had, serve for several passes.
        """
        check_type(Draws, batch=batch)
        check_count(steps=steps)
        losses = []
        for _ in range(steps):
            try:
                loss = self.loss(*batch)
            except (TypeError, ValueError) as error:  # the field, under the name that the caller knows
                raise type(error)(f"batch.{error}") from error
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)
