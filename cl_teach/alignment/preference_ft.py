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
exactly at the reference instead of being fitted to it, and every bin of the reference counts one draw more, so that
none is empty. The released code was read, not the body of the paper.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_batch, check_choice, check_embeddings, check_in_range, check_positive, check_same_shape
from ..core.preference import preference_loss

__all__ = [
    "LOSSES",
    "Bandit",
    "advantages",
    "best_of_n",
    "descend",
    "divergence",
    "divergence_gradient",
    "dpo",
    "ipo",
    "margins",
    "peaked_reward",
    "policy_gradient",
    "ppo",
    "reference_draws",
    "reference_policy",
    "rwr",
]

LOSSES = ("best_of_n", "rwr", "reinforce", "ppo", "dpo", "ipo")


def _check(**tensors: Tensor) -> None:
    check_embeddings(ndim=2, **tensors)
    check_same_shape(**tensors)


def advantages(rewards: Tensor) -> Tensor:
    """Rewards standardized in each state, ``(S, N)`` to ``(S, N)``, with the population's standard deviation.

    Raises:
        TypeError, ValueError: not a floating matrix, NaN.
    """
    _check(rewards=rewards)
    centered = rewards - rewards.mean(1, keepdim=True)
    return (centered / (rewards.std(1, correction=0, keepdim=True) + 1e-12)).detach()


def best_of_n(log_p: Tensor, rewards: Tensor, negative_weight: float = 0.0, *, against: str = "worst") -> Tensor:
    """Maximum likelihood of the best action of every state; with ``negative_weight`` also less of the others.

    Args:
        log_p: ``(S, N)`` log-probabilities of the sampled actions.
        rewards: ``(S, N)``.
        negative_weight: at least 0; 0 is plain supervised fine-tuning on the best.
        against: ``"worst"``: the action with the lowest reward; ``"rest"``: the mean of all but the best.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, a setting out of range.
    """
    _check(log_p=log_p, rewards=rewards)
    check_in_range(0, float("inf"), negative_weight=negative_weight)
    check_choice(("worst", "rest"), against=against)
    best = log_p.gather(1, rewards.argmax(1, keepdim=True)).squeeze(1)  # (S,)
    if negative_weight == 0:
        return -best.mean()
    check_batch(log_p.shape[1], 2, name="log_p", why="in each state to have a worse action")
    worst = log_p.gather(1, rewards.argmin(1, keepdim=True)).squeeze(1)
    pushed = worst if against == "worst" else (log_p.sum(1) - best) / (log_p.shape[1] - 1)
    return (negative_weight * pushed - best).mean()


def rwr(log_p: Tensor, rewards: Tensor, beta: float = 0.1) -> Tensor:
    """Reward-weighted regression: likelihood weighted with exp(reward / beta), for ``(S, N)`` actions.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, beta not positive or so small that a weight overflows.
    """
    _check(log_p=log_p, rewards=rewards)
    check_positive(beta=beta)
    weights = (rewards / beta).exp().detach()
    if not bool(torch.isfinite(weights).all()):
        raise ValueError(f"beta: expected a value at which exp(rewards / beta) is finite, got {beta:g}")
    return -(log_p * weights).mean()


def policy_gradient(log_p: Tensor, reference: Tensor, rewards: Tensor, beta_kl: float = 0.0) -> Tensor:
    """REINFORCE with a penalty for leaving the reference; all arguments ``(S, N)``.

    On a table of logits the advantages of a state cancel for every action that was not sampled; the penalty does not,
    and raises it a little. Adam turns small, steady gradients into full steps, so that even a small ``beta_kl`` can
    spread the policy over actions nobody tried.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, beta_kl negative.
    """
    _check(log_p=log_p, reference=reference, rewards=rewards)
    check_in_range(0, float("inf"), beta_kl=beta_kl)
    return (beta_kl * (log_p - reference) - log_p * advantages(rewards)).mean()


def ppo(
    log_p: Tensor, old: Tensor, reference: Tensor, rewards: Tensor, beta_kl: float = 0.0, clip: float = 0.2
) -> Tensor:
    """Clipped policy gradient for reused samples; ``old`` are log-probabilities when they were drawn. All ``(S, N)``.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, beta_kl negative, clip outside [0, 1].
    """
    _check(log_p=log_p, old=old, reference=reference, rewards=rewards)
    check_in_range(0, float("inf"), beta_kl=beta_kl)
    check_in_range(0, 1, clip=clip)
    ratio, gain = (log_p - old).exp(), advantages(rewards)
    clipped = torch.maximum(-gain * ratio, -gain * ratio.clamp(1 - clip, 1 + clip))
    return (clipped + beta_kl * (log_p - reference)).mean()


def margins(log_p: Tensor, reference: Tensor, rewards: Tensor, minimum_gap: float = 0.0) -> Tensor:
    """Margins h of all pairs of actions of one state; the winner is the one with the larger reward.

    Args:
        log_p: ``(S, N)``.
        reference: ``(S, N)``.
        rewards: ``(S, N)``.
        minimum_gap: pairs count only if their rewards differ by more; 0 leaves out ties.

    Returns:
        ``(M,)``, M at most S N (N - 1) / 2.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, or no pair is left.
    """
    _check(log_p=log_p, reference=reference, rewards=rewards)
    check_in_range(0, float("inf"), minimum_gap=minimum_gap)
    ratio = log_p - reference
    pairs = rewards[:, :, None] - rewards[:, None, :] > minimum_gap  # (S, N, N), first beats second
    if not bool(pairs.any()):
        raise ValueError("rewards: expected at least one pair with different rewards in a state, got none")
    return (ratio[:, :, None] - ratio[:, None, :])[pairs]


def dpo(margin: Tensor, beta: float = 0.05) -> Tensor:
    """Mean of -log sigmoid(beta * margin) over ``(M,)`` pairs.

    Raises:
        TypeError, ValueError: wrong dtype or shape; beta not positive.
    """
    check_embeddings(ndim=1, margin=margin)
    check_positive(beta=beta)
    return preference_loss(margin, 0.0, beta).mean()


def ipo(margin: Tensor, target: float = 10.0) -> Tensor:
    """Mean of (margin - target)^2 over ``(M,)`` pairs; the push turns around once a margin is beyond the target.

    Raises:
        TypeError, ValueError: wrong dtype or shape; target not positive.
    """
    check_embeddings(ndim=1, margin=margin)
    check_positive(target=target)
    return (margin - target).square().mean()


def divergence(logits: Tensor, target: Tensor, kind: str = "forward") -> Tensor:
    """KL(target || pi) for ``"forward"``, mode-covering, or KL(pi || target) for ``"reverse"``, mode-seeking.

    Args:
        logits: ``(K,)`` of pi.
        target: ``(K,)`` probabilities, all positive.
        kind: which of the two.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, target no distribution, another kind.
    """
    check_embeddings(ndim=1, logits=logits, target=target)
    check_same_shape(logits=logits, target=target)
    check_positive(target=target)
    check_choice(("forward", "reverse"), kind=kind)
    if abs(float(target.sum()) - 1) > 1e-4:
        raise ValueError(f"target: expected probabilities that sum to 1, got {float(target.sum()):g}")
    log_p, log_q = logits.log_softmax(0), target.log()
    return (target * (log_q - log_p)).sum() if kind == "forward" else (log_p.exp() * (log_p - log_q)).sum()


def divergence_gradient(logits: Tensor, target: Tensor, kind: str = "forward") -> Tensor:
    """Gradient ``(K,)`` of `divergence` in the logits, in closed form; arguments and errors as there."""
    value = divergence(logits, target, kind)
    p = logits.softmax(0)
    return p - target if kind == "forward" else p * (logits.log_softmax(0) - target.log() - value)


def descend(logits: Tensor, target: Tensor, kind: str, step_size: float, steps: int) -> Tensor:
    """Probabilities ``(steps + 1, K)`` along plain gradient descent on the logits, the start first.

    Raises:
        TypeError, ValueError: as `divergence`; step_size or steps not positive.
    """
    check_positive(step_size=step_size, steps=steps)
    path = [logits.softmax(0)]
    for _ in range(steps):
        logits = logits - step_size * divergence_gradient(logits, target, kind)
        path.append(logits.softmax(0))
    return torch.stack(path)


def reference_draws(n: int, generator: torch.Generator) -> Tensor:
    """``(n,)`` draws of tanh of a Cauchy variable with location -0.7 and scale 0.4."""
    check_positive(n=n)
    return torch.empty(n).cauchy_(-0.7, 0.4, generator=generator).tanh()


def reference_policy(draws: Tensor, actions: int = 100) -> Tensor:
    """Histogram ``(actions,)`` of draws in [-1, 1], one added to every bin; most of the mass is at low indices.

    Raises:
        TypeError, ValueError: draws not floating; outside [-1, 1], or no action.
    """
    check_embeddings(ndim=1, draws=draws)
    check_in_range(-1, 1, draws=draws)
    check_positive(actions=actions)
    counts = torch.histc(draws, actions, -1, 1) + 1
    return counts / counts.sum()


def peaked_reward(actions: Tensor, center: float, width: float = 10.0) -> Tensor:
    """exp(-((a - center) / width)^2): 1 at the center. A center of 70 is far from the reference's mass, 20 near."""
    check_positive(width=width)
    return (-((actions - center) / width).square()).exp()


class Round(NamedTuple):
    """What `Bandit.round` measures at its end: mean over states of expected reward, KL(pi || reference), entropy."""

    reward: float
    divergence: float
    entropy: float


class Bandit(nn.Module):
    """A table of logits, one row a state, trained on samples of its own; offline is one round of many steps.

    State: ``logits (S, K)`` and ``log_reference (K,)``.

    Source: Tajwar et al. (2024), bandit experiment.
    """

    log_reference: Tensor

    def __init__(
        self, reference: Tensor, states: int = 20, *, center: float = 70.0, learning_rate: float = 0.03
    ) -> None:
        """Start at the reference.

        Args:
            reference: ``(K,)`` positive probabilities, see `reference_policy`.
            states: S.
            center: where the reward's peak is.
            learning_rate: of Adam.

        Raises:
            TypeError, ValueError: wrong dtype; reference not positive, a size out of range.
        """
        super().__init__()
        check_embeddings(ndim=1, reference=reference)
        check_positive(reference=reference, states=states, learning_rate=learning_rate)
        self.register_buffer("log_reference", (reference / reference.sum()).log())
        self.center = center
        self.logits = nn.Parameter(self.log_reference.repeat(states, 1))
        self.optimizer = torch.optim.Adam([self.logits], lr=learning_rate)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``(S, n)`` actions of the current policy."""
        return torch.multinomial(self.logits.detach().softmax(1), n, replacement=True, generator=generator)

    def loss(self, name: str, actions: Tensor, old: Tensor, **settings: Any) -> Tensor:
        """One of `LOSSES` on ``(S, N)`` actions that had log-probabilities ``old`` when drawn."""
        check_choice(LOSSES, name=name)
        log_p, reference = self.logits.log_softmax(1).gather(1, actions), self.log_reference[actions]
        rewards = peaked_reward(actions, self.center)
        if name == "best_of_n":
            return best_of_n(log_p, rewards, **settings)
        if name == "rwr":
            return rwr(log_p, rewards, **settings)
        if name == "reinforce":
            return policy_gradient(log_p, reference, rewards, **settings)
        if name == "ppo":
            return ppo(log_p, old, reference, rewards, **settings)
        if bool((rewards == rewards[:, :1]).all()):  # a collapsed policy samples one action: nothing to compare
            return 0.0 * log_p.sum()
        pairs = margins(log_p, reference, rewards)
        return dpo(pairs, **settings) if name == "dpo" else ipo(pairs, **settings)

    def round(self, name: str, actions: Tensor, steps: int, **settings: Any) -> Round:
        """Take ``steps`` gradient steps on one batch of actions and measure the policy."""
        check_positive(steps=steps)
        old = self.logits.detach().log_softmax(1).gather(1, actions)
        for _ in range(steps):
            loss = self.loss(name, actions, old, **settings)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        log_p = self.logits.detach().log_softmax(1)  # (S, K)
        p, every = log_p.exp(), torch.arange(log_p.shape[1], device=log_p.device)
        reward = (p @ peaked_reward(every, self.center)).mean()
        leaving = (p * (log_p - self.log_reference)).sum(1).mean()
        return Round(reward.item(), leaving.item(), -(p * log_p).sum(1).mean().item())
