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

Baselines. PPO: fixed weights. PPO-SAT: fixed weights on rewards that saturate at their thresholds,
:math:`-\sum_i\alpha_i(r_i-\theta_i)^2`. All-PPO: the sum of the rewards stays the objective, the thresholds bound it
from above; here ``kind="upper"``, weights :math:`1-\mathrm{softplus}(\lambda_i)`.

Paper versus code. (1) The factor of :math:`A_0`, which keeps the sum of weights at N, is equation 4.4 of the paper and
in the released code. (2) The release stores one baseline for all constraints; here each has its own. (3) Its branch
without squashing cannot run and is left out. (4) The release's PPO-SAT has the coefficient inside the square. (5)
All-PPO was not released, and how its multipliers enter the mixed advantage could not be read: the plain Lagrangian,
derived here, gives :math:`\sum_i(\alpha_i-\mu_i)A_i` with :math:`\mu_i\ge0`. (6) Pinned here: multipliers are kept in
[-5, 5], since both squashings are flat beyond; the gold score of a set of thresholds is the last one measured. Of the
paper its equations and baselines were read as reported, not its body.
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
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.frozen import FrozenCopy, evaluating
from ..core.multipliers import Multipliers
from ..core.policy_gradient import advantages_and_returns, clipped_policy_loss, reward_to_go
from ..core.precision import full_precision
from ..datasets.bandits import ProxyBandit
from ..models.sequence import continue_tokens, read_tokens, token_log_probability

__all__ = [
    "ConstrainedBandit",
    "ConstrainedPPO",
    "Measured",
    "RatedTexts",
    "mixed_advantages",
    "saturating_reward",
    "score_thresholds",
    "value_loss",
]

# Below it a deviation counts as none; the release's.
SMALLEST = 1e-8
# The square of a larger number, times a weight of that size, leaves the range of float32.
LARGEST = 1e12
# The release clips the gradients of policy and baselines to this norm.
MAX_NORM = 0.5
# A threshold counts as reached within this share of it.
CLOSE = 0.05


class Measured(NamedTuple):
    """The scalar ``loss`` and what was measured: mean ``rewards (N,)``, ``divergence`` and ``weights (N,)``."""

    loss: Tensor
    rewards: Tensor
    divergence: Tensor
    weights: Tensor


class RatedTexts(NamedTuple):
    """Texts with what `ConstrainedPPO.rate` found out about them; nothing of it changes while the policy learns.

    ``tokens (n, T + 1)``, the first one only read. Of each token: ``old (n, T)`` log-probabilities when it was written,
    ``advantages`` and ``returns (n, T, N + 1)``, the last channel for staying near the reference, and rewards
    ``to_go (n, T, N)``. Of each text: ``rewards (n, N)`` and ``divergence (n,)`` from the reference. ``picked (b,)``
    are the tokens that a descent step is about, numbered through all texts; None for all.
    """

    tokens: Tensor
    old: Tensor
    advantages: Tensor
    returns: Tensor
    to_go: Tensor
    rewards: Tensor
    divergence: Tensor
    picked: Tensor | None = None


@full_precision
def mixed_advantages(constraints: Tensor, kl: Tensor, weights: Tensor, *, near: float | Tensor | None = None) -> Tensor:
    """Standardize each channel over the batch and mix.

    Args:
        constraints: ``(B, N)`` advantages of the rewards.
        kl: ``(B,)`` advantages of staying near the reference.
        weights: ``(N,)``, detached here.
        near: weight of ``kl``; None for N minus the sum of the weights.

    Returns:
        ``(B,)``.

    Source: Moskovitz et al. (2024), equation 4.4.

    Example:
        >>> constraints, kl = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([1.0, 0.0, -1.0])
        >>> mixed_advantages(constraints, kl, torch.ones(1)).round(decimals=3).tolist()  # no reference
        [-1.0, 0.0, 1.0]
        >>> mixed_advantages(constraints, kl, torch.zeros(1)).round(decimals=3).tolist()  # no reward
        [1.0, 0.0, -1.0]
    """
    check_shapes(constraints=(constraints, "B N"), kl=(kl, "B"), weights=(weights, "N"))
    check_batch(len(kl), 2, name="kl", why="to have a deviation")
    weights = weights.detach()
    if near is not None:
        check_in_range(0, math.inf, near=near)
    factor = len(weights) - weights.sum() if near is None else near
    return factor * _standardize(kl) + _standardize(constraints) @ weights


def _standardize(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + SMALLEST)


@full_precision
def saturating_reward(rewards: Tensor, thresholds: Tensor, coefficients: Tensor | None = None) -> Tensor:
    """PPO-SAT's reward of each episode: minus the weighted squared distances from the thresholds, 0 exactly there.

    Args:
        rewards: ``(B, N)`` of the reward models.
        thresholds: ``(N,)``.
        coefficients: ``(N,)``; None for all 1.

    Returns:
        ``(B,)``.

    Source: Moskovitz et al. (2024), baseline PPO-SAT; the release has the coefficient inside the square.
    """
    check_shapes(rewards=(rewards, "B N"), thresholds=(thresholds, "N"), coefficients=(coefficients, "N?"))
    check_entries(-LARGEST, LARGEST, rewards=rewards, thresholds=thresholds)
    squares = (rewards - thresholds).square()
    return -(squares if coefficients is None else squares * coefficients).sum(1)


@full_precision
def value_loss(
    values: Tensor, returns_constraint: Tensor, returns_kl: Tensor, *, constraint: float = 0.5, kl: float = 0.2
) -> Tensor:
    """Squared errors of the baselines, weighted and averaged.

    Args:
        values: ``(B, N + 1)``, the last column for the reward of staying near the reference.
        returns_constraint: ``(B, N)``.
        returns_kl: ``(B,)``.
        constraint: weight of the first, at least 0.
        kl: weight of the last, at least 0.
    """
    check_shapes(values=(values, "B M"), returns_constraint=(returns_constraint, "B N"), returns_kl=(returns_kl, "B"))
    if values.shape[1] != returns_constraint.shape[1] + 1:
        wanted = f"{returns_constraint.shape[1]} + 1"
        raise ValueError(f"values, returns_constraint: expected {wanted} columns of values, got {values.shape[1]}")
    check_in_range(0, LARGEST, constraint=constraint, kl=kl)
    check_entries(-LARGEST, LARGEST, values=values, returns_constraint=returns_constraint, returns_kl=returns_kl)
    errors = constraint * (returns_constraint - values[:, :-1]).square().mean()
    return errors + kl * (returns_kl - values[:, -1]).square().mean()


class ConstrainedPPO(nn.Module):
    """A language model that writes, is rewarded at the end of each text, and keeps every reward at its threshold.

    ``model(tokens)`` returns states ``(n, T, d)`` and logits. The loop is its own, because there are two phases (write,
    then several passes over what was written) and two descents (policy and baselines, multipliers). State: ``policy``,
    ``reference`` (a frozen copy), ``values`` (a linear head a channel), ``multipliers``, and the policy's optimizer.

    Source: Moskovitz et al. (2024), as released, with one baseline a constraint.
    """

    def __init__(
        self,
        model: nn.Module,
        width: int,
        reward_models: Callable[[Tensor], Tensor],
        multipliers: Multipliers,
        *,
        length: int = 8,
        kl_coefficient: float = 0.2,
        learning_rate: float = 3e-3,
        epochs: int = 2,
        minibatch: int = 256,
    ) -> None:
        """Copy the reference.

        Args:
            model: the initial policy; it is trained in place.
            width: d of its states.
            reward_models: tokens ``(n, length)`` to rewards ``(n, N)``; for PPO-SAT `saturating_reward` of them.
            multipliers: with N thresholds; of kind "fixed" for the baselines.
            length: tokens of a text.
            kl_coefficient: c.
            learning_rate: of policy and baselines.
            epochs: passes over a batch of texts.
            minibatch: tokens of a descent step, at least 2.
        """
        super().__init__()
        check_module(model=model)
        check_callable(reward_models=reward_models)
        check_count(width=width, length=length, epochs=epochs)
        check_count(2, minibatch=minibatch)
        check_positive(kl_coefficient=kl_coefficient, learning_rate=learning_rate)
        check_type(Multipliers, multipliers=multipliers)
        self.policy, self.reference, self.multipliers = model, FrozenCopy(model), multipliers
        self.values = nn.Linear(width, len(multipliers.raw) + 1)
        self.reward_models, self.length, self.kl_coefficient = reward_models, length, kl_coefficient
        self.epochs, self.minibatch = epochs, minibatch
        self.trained = [*self.policy.parameters(), *self.values.parameters()]
        self.optimizer = torch.optim.Adam(self.trained, lr=learning_rate)

    def get_extra_state(self) -> dict[str, Any]:
        """What the optimizer remembers."""
        return copy.deepcopy(self.optimizer.state_dict())

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with what the optimizer remembered."""
        self.optimizer.load_state_dict(copy.deepcopy(state))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States and logits of the policy for tokens ``(n, T)``."""
        return read_tokens(self.policy, tokens)

    def write(self, texts: int = 64, *, generator: torch.Generator | None = None) -> Tensor:
        """``(texts, length + 1)`` tokens drawn from the policy (without dropout), after the start token 0."""
        check_count(texts=texts)
        start = torch.zeros(texts, 1, dtype=torch.int64, device=self.values.weight.device)
        with evaluating(self.policy):
            return continue_tokens(self.policy, start, self.length, generator=generator)

    @torch.no_grad()
    def rate(self, tokens: Tensor) -> RatedTexts:
        """Rewards of texts ``(n, length + 1)`` from `write`, and the advantages of their tokens."""
        return self._rate("tokens", tokens)

    def _rate(self, name: str, tokens: Tensor) -> RatedTexts:
        check_shapes(**{name: (tokens, f"n {self.length + 1}", int)})
        tokens = check_labels(tokens.flatten(), name=name).view_as(tokens)
        read, written = tokens[:, :-1], tokens[:, 1:]
        with evaluating(self.policy):
            states, logits = read_tokens(self.policy, read, name=name)
        check_labels(written.flatten(), name=name, num_classes=logits.shape[-1])
        old = token_log_probability(logits, written)  # (n, T)
        leaving = old - token_log_probability(read_tokens(self.reference, read, name=name)[1], written)
        episode = self.reward_models(written)
        check_shapes(**{f"reward_models({name})": (episode, f"{len(tokens)} {len(self.multipliers.raw)}")})  # (n, N)
        rewards = old.new_zeros(*written.shape, episode.shape[1] + 1)  # (n, T, N + 1)
        rewards[:, -1, :-1] = episode.to(rewards)
        rewards[..., -1] = -self.kl_coefficient * leaving
        advantages, returns = advantages_and_returns(rewards, self.values(states))  # (n, T, N + 1)
        to_go = reward_to_go(rewards[..., :-1])
        return RatedTexts(tokens, old, advantages, returns, to_go, episode, leaving.sum(1))

    def loss(self, batch: RatedTexts, *, generator: torch.Generator | None = None) -> Measured:
        """What policy and baselines descend on the tokens ``batch.picked``: the clipped mixed advantage, and errors.

        The multipliers only weigh here; their own descent is in ``step``.
        """
        check_type(RatedTexts, batch=batch)
        channels = len(self.multipliers.raw)
        check_shapes(**{"batch.tokens": (batch.tokens, f"n {self.length + 1}", int)})
        n = len(batch.tokens)
        check_shapes(
            **{
                "batch.old": (batch.old, f"{n} {self.length}"),
                "batch.advantages": (batch.advantages, f"{n} {self.length} {channels + 1}"),
                "batch.returns": (batch.returns, f"{n} {self.length} {channels + 1}"),
                "batch.to_go": (batch.to_go, f"{n} {self.length} {channels}"),
                "batch.rewards": (batch.rewards, f"{n} {channels}"),
                "batch.divergence": (batch.divergence, f"{n}"),
                "batch.picked": (batch.picked, "b?", int),
            }
        )
        estimates: dict[str, Any] = {"batch.advantages": batch.advantages, "batch.returns": batch.returns}
        check_entries(-LARGEST, LARGEST, **estimates)
        tokens = check_labels(batch.tokens.flatten(), name="batch.tokens").view_as(batch.tokens)
        index = torch.arange(batch.old.numel(), device=tokens.device) if batch.picked is None else batch.picked
        index = check_labels(index, name="batch.picked", num_classes=batch.old.numel())
        check_batch(len(index), 2, name="batch.picked", why="to have a deviation")

        states, logits = read_tokens(self.policy, tokens[:, :-1], name="batch.tokens")
        check_labels(tokens.flatten(), name="batch.tokens", num_classes=logits.shape[-1])
        log_p = token_log_probability(logits, tokens[:, 1:]).flatten()[index]
        advantages, returns = (x.flatten(0, 1)[index] for x in (batch.advantages, batch.returns))  # (b, N + 1)
        weights = self.multipliers()
        mixed = mixed_advantages(advantages[:, :-1], advantages[:, -1], weights, near=self.multipliers.near())
        loss = clipped_policy_loss(log_p, batch.old.flatten()[index], mixed)
        loss = loss + value_loss(self.values(states).flatten(0, 1)[index], returns[:, :-1], returns[:, -1])
        return Measured(loss, batch.rewards.mean(0), batch.divergence.mean(), weights)

    def step(self, batch: Tensor, *, generator: torch.Generator | None = None) -> Measured:
        """Look at the rewards of texts from `write`, then move policy, baselines and multipliers in a few passes.

        The method owns this loop because there are two players, each with an optimizer: after every descent of policy
        and baselines the multipliers descend on the same tokens, in the other direction; and because the texts are the
        policy's own and serve for several passes, with the log-probabilities that they had when they were written.

        Args:
            batch: texts ``(n, length + 1)``.
            generator: of the order of the tokens.

        Returns:
            The mean loss of all descents, what was measured before the first, and the weights after the last.
        """
        check_shapes(batch=(batch, f"n {self.length + 1}", int))
        check_batch(len(batch) * self.length, 2, name="batch", why="to have a deviation")
        check_generator(generator)
        with torch.no_grad():
            texts = self._rate("batch", batch)
        to_go, losses = texts.to_go.flatten(0, 1), []
        for _ in range(self.epochs):
            for index in torch.randperm(len(to_go), generator=generator).to(to_go.device).split(self.minibatch):
                if len(index) < 2:
                    continue  # nothing to standardize over
                loss = self.loss(texts._replace(picked=index)).loss
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
                self.optimizer.step()
                self.multipliers.update(to_go[index])
                losses.append(loss.detach())
        return Measured(torch.stack(losses).mean(), texts.rewards.mean(0), texts.divergence.mean(), self.multipliers())


class ConstrainedBandit(nn.Module):
    """A policy over the actions of a `cl_teach.datasets.ProxyBandit`, all of whose expectations are exact.

    ``loss()`` takes no batch, and the multipliers follow in ``after_step()``. State: ``logits (K,)``, ``multipliers``.
    """

    proxies: Tensor
    log_reference: Tensor
    climbed: Tensor

    def __init__(
        self,
        world: ProxyBandit,
        multipliers: Multipliers,
        *,
        saturating: bool = False,
        kl_coefficient: float = 0.05,
    ) -> None:
        """Start at the reference.

        Args:
            world: proxies and reference.
            multipliers: of two thresholds; of kind "fixed" for the baselines.
            saturating: replace each proxy by minus its squared distance from the world's point (PPO-SAT).
            kl_coefficient: c.
        """
        super().__init__()
        check_type(ProxyBandit, world=world)
        named: dict[str, Any] = {
            f"world.{name}": getattr(world, name) for name in ("proxies", "log_reference", "point")
        }
        check_shapes(**{name: (x, shape) for (name, x), shape in zip(named.items(), ("K 2", "K", "2"), strict=True)})
        check_entries(-LARGEST, LARGEST, **named)
        check_flag(saturating=saturating)
        check_positive(kl_coefficient=kl_coefficient)
        check_type(Multipliers, multipliers=multipliers)
        check_shapes(**{"multipliers.thresholds": (multipliers.thresholds, "2")})
        self.multipliers, self.world, self.kl_coefficient = multipliers, world, kl_coefficient
        self.register_buffer("proxies", world.proxies)
        self.register_buffer("log_reference", world.log_reference)
        climbed = -(world.proxies - world.point).square() if saturating else world.proxies
        self.register_buffer("climbed", climbed, persistent=False)
        self.logits = nn.Parameter(world.log_reference.clone())
        self.seen: Tensor | None = None

    def forward(self) -> Tensor:
        """Probabilities ``(K,)`` of the actions."""
        return self.logits.softmax(0)

    def loss(self, *, generator: torch.Generator | None = None) -> Measured:
        """Minus the weighted mean rewards, plus the weighted divergence; nothing is drawn."""
        log_p = self.logits.log_softmax(0)
        p = log_p.exp()
        divergence = (p * (log_p - self.log_reference)).sum()
        weights = self.multipliers()
        loss = self.multipliers.near() * self.kl_coefficient * divergence - weights @ (p @ self.climbed)
        rewards = (p @ self.proxies).detach()
        if self.training:
            self.seen = rewards
        return Measured(loss, rewards, divergence.detach(), weights)

    def after_step(self) -> None:
        """One step of the multipliers, for the rewards of the last loss."""
        if self.seen is not None:
            self.multipliers.update(self.seen[None])
        self.seen = None

    @torch.no_grad()
    def gold(self) -> float:
        """Gold score of the policy."""
        return self.world.gold(self() @ self.proxies).item()


def score_thresholds(
    train: Callable[[], Tensor],
    gold: Callable[[], float],
    multipliers: Multipliers,
    thresholds: Tensor,
    *,
    steps: int = 10,
    every: int = 5,
) -> float:
    """Train on toward new thresholds and return minus the gold score; stops early when all rewards are within 5 %.

    This is what `cl_teach.core.search.nelder_mead` minimizes; policy and multipliers go on where they are.

    Args:
        train: takes one step and returns the mean rewards ``(N,)`` it saw.
        gold: measures the policy.
        multipliers: of the learner, whose thresholds are set.
        thresholds: ``(N,)``.
        steps: at most.
        every: after so many steps the rewards are looked at.
    """
    check_callable(train=train, gold=gold)
    check_type(Multipliers, multipliers=multipliers)
    check_count(steps=steps, every=every)
    check_shapes(**{"multipliers.thresholds": (multipliers.thresholds, "N")}, thresholds=(thresholds, "N"))
    multipliers.thresholds.copy_(thresholds.detach())
    for step in range(1, steps + 1):
        rewards = train()
        close = (rewards - thresholds).abs() <= CLOSE * thresholds.abs()
        if step % every == 0 and bool(close.all()):
            break
    return -float(gold())
