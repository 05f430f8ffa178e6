r"""Confronting Reward Model Overoptimization with Constrained RLHF. Ted Moskovitz, Aaditya K. Singh, DJ Strouse, Tuomas
Sandholm, Ruslan Salakhutdinov, Anca D. Dragan, Stephen McAleer; ICLR 2024; https://arxiv.org/abs/2310.04373.

A reward model is a useful proxy up to some point; beyond it more reward means worse text. With thresholds
:math:`\theta_i` at these points, expected episode rewards :math:`J_i` of N reward models, and a reward
:math:`-c(\log\pi-\log\pi_{ref})` for staying near the reference, the policy climbs the mixed advantage

.. math::
    A = \Big(N-\sum_i w_i\Big)A_0+\sum_i w_iA_i,\qquad w_i = \sigma(\lambda_i)\ \text{or}\ \tanh(\lambda_i),

and the multipliers descend :math:`\sum_i w_i(\lambda_i)(J_i-\theta_i)`.

What changes and why: fixed weights of several rewards become Lagrange multipliers. A weight grows while its reward is
below the threshold and falls above it. The sigmoid belongs to inequalities (mu-PPO), the tanh to equalities (xi-PPO),
where a negative weight pulls a reward down that has overshot. The thresholds themselves can be found within one run by
Nelder-Mead search (`cl_teach.core.search`) on a few evaluations of a gold score; policy and multipliers go on where the
last point left them.

Paper versus code. (1) The factor of :math:`A_0`, which keeps the sum of weights at N, is the released code's. (2) The
release stores one baseline for all constraints; here each has its own. (3) Its branch without squashing cannot run and
is left out. (4) The search stops on agreement only directly after a shrink, and reads values of nearby points from a
cache, as released. (5) Pinned here: multipliers are kept in [-5, 5], since both squashings are flat beyond; the gold
score of a set of thresholds is the last one measured. The released code was read, not the body of the paper; its
variants All-PPO and PPO-SAT are not in the code and not here. `ProxyBandit` is this book's example.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..models.sequence import token_log_probability

__all__ = [
    "ConstrainedPPO",
    "Multipliers",
    "ProxyBandit",
    "Round",
    "advantages_and_returns",
    "clipped_policy_loss",
    "mixed_advantages",
    "multiplier_loss",
    "reward_to_go",
    "score_thresholds",
    "squash",
    "value_loss",
    "violations",
]

KINDS = ("equality", "inequality")


class Round(NamedTuple):
    """What one round measured: ``loss``, mean episode ``rewards (N,)``, ``divergence`` and ``weights (N,)``."""

    loss: float
    rewards: Tensor
    divergence: float
    weights: Tensor


class Learner(Protocol):
    """What `score_thresholds` needs: a step that returns a `Round`, and a gold score of the policy."""

    def step(self) -> Round: ...  # noqa: D102

    def gold(self) -> float: ...  # noqa: D102


def squash(raw: Tensor, kind: str) -> Tensor:
    """Weights ``(N,)`` of raw multipliers: tanh in (-1, 1) for "equality", sigmoid in (0, 1) for "inequality"."""
    check_embeddings(ndim=1, raw=raw)
    check_choice(KINDS, kind=kind)
    return raw.tanh() if kind == "equality" else raw.sigmoid()


def mixed_advantages(constraints: Tensor, kl: Tensor, weights: Tensor) -> Tensor:
    """Standardize each channel over the batch and mix: ``(B, N)`` and ``(B,)`` with weights ``(N,)`` to ``(B,)``.

    Raises:
        TypeError, ValueError: wrong dtype; shapes do not fit, fewer than two rows, NaN.

    Source: Moskovitz et al. (2024), mixed advantages, as released.
    """
    check_embeddings(constraints=constraints)
    check_embeddings(ndim=1, kl=kl, weights=weights)
    check_same_length(constraints=constraints, kl=kl)
    check_same_shape(weights=weights, constraints=constraints[0])
    check_batch(len(kl), 2, name="kl", why="to have a deviation")

    def standardize(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.std(0) + 1e-8)

    weights = weights.detach()
    return (len(weights) - weights.sum()) * standardize(kl) + standardize(constraints) @ weights


def clipped_policy_loss(log_p: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's loss of ``(B,)`` tokens; a token whose ratio has already gone too far in its direction has no gradient.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, clip outside [0, 1].
    """
    check_embeddings(ndim=1, log_p=log_p, old=old, advantages=advantages)
    check_same_shape(log_p=log_p, old=old, advantages=advantages)
    check_in_range(0, 1, clip=clip)
    ratio, gain = (log_p - old).exp(), advantages.detach()
    return -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()


def value_loss(
    values: Tensor, returns_constraint: Tensor, returns_kl: Tensor, *, constraint: float = 0.5, kl: float = 0.2
) -> Tensor:
    """Squared errors of the baselines ``(B, N + 1)``, the last for the reward of staying near the reference.

    Raises:
        TypeError, ValueError: wrong dtype; shapes do not fit, a coefficient negative.
    """
    check_embeddings(values=values, returns_constraint=returns_constraint)
    check_in_range(0, float("inf"), constraint=constraint, kl=kl)
    check_same_shape(**{"values[:, :-1]": values[:, :-1], "returns_constraint": returns_constraint})
    check_same_shape(**{"values[:, -1]": values[:, -1], "returns_kl": returns_kl})
    errors = constraint * (returns_constraint - values[:, :-1]).square().mean()
    return errors + kl * (returns_kl - values[:, -1]).square().mean()


def reward_to_go(rewards: Tensor) -> Tensor:
    """Undiscounted sum from each step to the end, ``(n, T, N)`` to the same shape."""
    check_embeddings(ndim=3, rewards=rewards)
    return rewards.flip(1).cumsum(1).flip(1)


def advantages_and_returns(
    rewards: Tensor, values: Tensor, gamma: float = 0.99, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalized advantages and their returns for whole episodes, ``(n, T, C)`` each, channel by channel.

    Raises:
        TypeError, ValueError: wrong dtype; shapes differ, a factor outside [0, 1].
    """
    check_embeddings(ndim=3, rewards=rewards, values=values)
    check_same_shape(rewards=rewards, values=values)
    check_in_range(0, 1, gamma=gamma, smoothing=smoothing)
    values = values.detach()
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)  # nothing comes after the end
    surprise, running, found = rewards + gamma * following - values, torch.zeros_like(values[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        running = surprise[:, t] + gamma * smoothing * running
        found.append(running)
    advantages = torch.stack(found[::-1], dim=1)
    return advantages, advantages + values


def violations(to_go: Tensor, thresholds: Tensor) -> Tensor:
    """Mean reward-to-go ``(B, N)`` minus threshold, ``(N,)``; biased low unless rewards come at the end only."""
    check_embeddings(to_go=to_go)
    check_embeddings(ndim=1, thresholds=thresholds)
    check_same_shape(thresholds=thresholds, to_go=to_go[0])
    return (to_go.mean(0) - thresholds).detach()


def multiplier_loss(raw: Tensor, violation: Tensor, kind: str) -> Tensor:
    """Sum of weight times violation; descending it raises the weight of a reward below its threshold."""
    check_same_shape(raw=raw, violation=violation)
    return squash(raw, kind) @ violation.detach()


class Multipliers(nn.Module):
    """Lagrange multipliers with their own stochastic gradient descent.

    State: ``raw (N,)``, ``thresholds (N,)`` and the optimizer's momentum.

    Source: Moskovitz et al. (2024), as released; the bound on ``raw`` is pinned here.
    """

    thresholds: Tensor

    def __init__(
        self,
        thresholds: Tensor,
        kind: str = "equality",
        *,
        initial: Tensor | None = None,
        learning_rate: float = 0.1,
        momentum: float = 0.1,
        max_norm: float = 0.5,
        bound: float = 5.0,
    ) -> None:
        """Start.

        Args:
            thresholds: ``(N,)``.
            kind: "equality" (xi-PPO) or "inequality" (mu-PPO).
            initial: ``(N,)``; None for one draw of N(0, 0.01^2) shared by all.
            learning_rate: of the multipliers.
            momentum: of their descent.
            max_norm: to which their gradient is clipped.
            bound: of their size.

        Raises:
            TypeError, ValueError: wrong dtype or kind; shapes differ, a setting out of range.
        """
        super().__init__()
        check_embeddings(ndim=1, thresholds=thresholds)
        check_choice(KINDS, kind=kind)
        check_positive(learning_rate=learning_rate, max_norm=max_norm, bound=bound)
        raw = 0.01 * torch.randn(1).to(thresholds).expand_as(thresholds) if initial is None else initial
        check_same_shape(initial=raw, thresholds=thresholds)
        self.kind, self.max_norm, self.bound = kind, max_norm, bound
        self.register_buffer("thresholds", thresholds.clone())
        self.raw = nn.Parameter(raw.detach().clone())
        self.optimizer = torch.optim.SGD([self.raw], lr=learning_rate, momentum=momentum)

    def forward(self) -> Tensor:
        """Weights ``(N,)`` as they are, detached."""
        return squash(self.raw, self.kind).detach()

    def update(self, to_go: Tensor) -> Tensor:
        """One step for rewards-to-go ``(B, N)``; returns the violations ``(N,)``."""
        violation = violations(to_go, self.thresholds)
        self.optimizer.zero_grad()
        multiplier_loss(self.raw, violation, self.kind).backward()
        nn.utils.clip_grad_norm_([self.raw], self.max_norm)
        self.optimizer.step()
        with torch.no_grad():
            self.raw.clamp_(-self.bound, self.bound)
        return violation


class ConstrainedPPO(nn.Module):
    """A language model that writes, is rewarded at the end of each text, and keeps every reward at its threshold.

    ``model(tokens)`` returns states ``(n, T, d)`` and logits. State: ``policy``, ``reference`` (a frozen copy),
    ``values`` (a linear head a channel), ``multipliers``, and the policy's optimizer.

    Source: Moskovitz et al. (2024), as released, with one baseline a constraint.
    """

    def __init__(
        self,
        model: nn.Module,
        width: int,
        reward_models: Callable[[Tensor], Tensor],
        multipliers: Multipliers,
        *,
        gold_score: Callable[[Tensor], float] | None = None,
        length: int = 8,
        texts: int = 64,
        kl_coefficient: float = 0.2,
        learning_rate: float = 3e-3,
        epochs: int = 2,
        minibatch: int = 256,
        generator: torch.Generator | None = None,
    ) -> None:
        """Copy the reference.

        Args:
            model: the initial policy; it is trained in place.
            width: d of its states.
            reward_models: tokens ``(n, length)`` to rewards ``(n, N)``.
            multipliers: with N thresholds.
            gold_score: of mean rewards ``(N,)``, what the proxies stand for; only measured.
            length: tokens of a text.
            texts: of one round.
            kl_coefficient: c.
            learning_rate: of policy and baselines.
            epochs: passes over a round.
            minibatch: tokens a step.
            generator: of all draws.

        Raises:
            ValueError: a setting not positive.
        """
        super().__init__()
        check_positive(
            width=width, length=length, texts=texts, kl_coefficient=kl_coefficient, learning_rate=learning_rate
        )
        check_positive(epochs=epochs, minibatch=minibatch)
        self.policy, self.reference = model, copy.deepcopy(model).requires_grad_(False)
        self.values = nn.Linear(width, len(multipliers.thresholds) + 1)
        self.multipliers, self.reward_models, self.gold_score = multipliers, reward_models, gold_score
        self.length, self.texts, self.kl_coefficient = length, texts, kl_coefficient
        self.epochs, self.minibatch, self.generator = epochs, minibatch, generator
        self.trained = [*self.policy.parameters(), *self.values.parameters()]
        self.optimizer = torch.optim.Adam(self.trained, lr=learning_rate)

    @torch.no_grad()
    def write(self, texts: int) -> Tensor:
        """``(texts, length + 1)`` tokens drawn from the policy, after the start token 0."""
        tokens = torch.zeros(texts, 1, dtype=torch.int64, device=self.values.weight.device)
        for _ in range(self.length):
            chances = self.policy(tokens)[1][:, -1].softmax(-1)
            tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=self.generator)], dim=1)
        return tokens

    def step(self) -> Round:
        """Write, look at the rewards, then a few passes that move the policy, the baselines and the multipliers."""
        tokens = self.write(self.texts)
        read, written = tokens[:, :-1], tokens[:, 1:]
        with torch.no_grad():
            states, logits = self.policy(read)
            old = token_log_probability(logits, written)  # (n, T)
            leaving = old - token_log_probability(self.reference(read)[1], written)
            episode = self.reward_models(written)  # (n, N)
            rewards = torch.zeros(*written.shape, episode.shape[1] + 1, device=episode.device)  # (n, T, N + 1)
            rewards[:, -1, :-1] = episode
            rewards[..., -1] = -self.kl_coefficient * leaving
            advantages, returns = (
                x.flatten(0, 1) for x in advantages_and_returns(rewards, self.values(states))
            )  # (n T, N + 1)
            to_go = reward_to_go(rewards[..., :-1]).flatten(0, 1)
        losses = []
        for _ in range(self.epochs):
            for index in torch.randperm(len(to_go), generator=self.generator).split(self.minibatch):
                if len(index) < 2:
                    continue  # nothing to standardize over
                states, logits = self.policy(read)
                log_p = token_log_probability(logits, written).flatten()[index]
                mixed = mixed_advantages(advantages[index, :-1], advantages[index, -1], self.multipliers())
                loss = clipped_policy_loss(log_p, old.flatten()[index], mixed)
                baseline = self.values(states).flatten(0, 1)[index]
                loss = loss + value_loss(baseline, returns[index, :-1], returns[index, -1])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.trained, 0.5)
                self.optimizer.step()
                self.multipliers.update(to_go[index])
                losses.append(loss.item())
        divergence = leaving.sum(1).mean().item()
        return Round(sum(losses) / len(losses), episode.mean(0), divergence, self.multipliers())

    def gold(self) -> float:
        """Gold score of the mean rewards of fresh texts."""
        if self.gold_score is None:
            raise ValueError("gold_score: expected a function of the mean rewards at construction, got None")
        return self.gold_score(self.reward_models(self.write(self.texts)[:, 1:]).mean(0))


class ProxyBandit(nn.Module):
    r"""Two correlated proxies and a gold score that is best at a point between; all expectations are exact.

    Of K actions a in [0, 1] the proxies give a and :math:`\min(a + 0.3U, 1)`; the reference is softmax(-6a), and the
    gold score of mean rewards J is :math:`\prod_i\exp(-((J_i-\theta_i)/0.15)^2)` with :math:`\theta = (0.6, 0.65)`.
    State: ``logits (K,)``, ``multipliers`` (None for fixed weights of 1, with as much weight on the divergence).
    """

    proxies: Tensor
    log_reference: Tensor
    point: Tensor

    def __init__(
        self,
        noise: Tensor,
        multipliers: Multipliers | None,
        *,
        kl_coefficient: float = 0.05,
        learning_rate: float = 0.05,
    ) -> None:
        """Start at the reference.

        Args:
            noise: ``(K,)`` U in [0, 1], drawn once.
            multipliers: of two thresholds, or None.
            kl_coefficient: c.
            learning_rate: of Adam.

        Raises:
            TypeError, ValueError: wrong dtype; noise out of range, a setting not positive.
        """
        super().__init__()
        check_embeddings(ndim=1, noise=noise)
        check_in_range(0, 1, noise=noise)
        check_positive(kl_coefficient=kl_coefficient, learning_rate=learning_rate)
        actions = torch.linspace(0, 1, len(noise), dtype=noise.dtype)
        self.register_buffer("proxies", torch.stack([actions, (actions + 0.3 * noise).clamp(max=1)], dim=1))  # (K, 2)
        self.register_buffer("log_reference", (-6 * actions).log_softmax(0))
        self.register_buffer("point", torch.tensor([0.6, 0.65], dtype=noise.dtype))
        self.logits, self.kl_coefficient = nn.Parameter(self.log_reference.clone()), kl_coefficient
        self.multipliers = multipliers
        self.optimizer = torch.optim.Adam([self.logits], lr=learning_rate)

    def step(self) -> Round:
        """One exact gradient step on the policy, then one on the multipliers."""
        log_p = self.logits.log_softmax(0)
        rewards = log_p.exp() @ self.proxies  # (2,)
        divergence = (log_p.exp() * (log_p - self.log_reference)).sum()
        weights = torch.ones_like(rewards) if self.multipliers is None else self.multipliers()
        near = 1.0 if self.multipliers is None else len(rewards) - weights.sum()
        loss = near * self.kl_coefficient * divergence - weights @ rewards
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.multipliers is not None:
            self.multipliers.update(rewards[None])
        return Round(loss.item(), rewards.detach(), divergence.item(), weights)

    @torch.no_grad()
    def gold(self) -> float:
        """Gold score of the policy."""
        rewards = self.logits.softmax(0) @ self.proxies
        return (-((rewards - self.point) / 0.15).square().sum()).exp().item()


def score_thresholds(
    learner: Learner, multipliers: Multipliers, thresholds: Tensor, steps: int = 10, every: int = 5
) -> float:
    """Train on toward new thresholds and return minus the gold score; stops early when all rewards are within 5 %.

    This is what `cl_teach.core.search.nelder_mead` minimizes; the multipliers are those of the learner.

    Raises:
        ValueError: thresholds of another shape, steps or every not positive.
    """
    check_positive(steps=steps, every=every)
    check_same_shape(thresholds=thresholds, **{"multipliers.thresholds": multipliers.thresholds})
    multipliers.thresholds.copy_(thresholds)
    for step in range(1, steps + 1):
        rewards = learner.step().rewards
        if step % every == 0 and bool(((rewards - thresholds).abs() <= 0.05 * thresholds.abs()).all()):
            break
    return -learner.gold()
