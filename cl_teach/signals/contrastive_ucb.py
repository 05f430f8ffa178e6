r"""Contrastive UCB: Provably Efficient Contrastive Self-Supervised Learning in Online Reinforcement Learning.
Shuang Qiu, Lingxiao Wang, Chenjia Bai, Zhuoran Yang, Zhaoran Wang; ICML 2022; https://arxiv.org/abs/2207.14800.

In a low-rank MDP the transition is an inner product of unknown features, :math:`P_h(s'|s,a) = \psi_h(s')\cdot
\phi_h(s,a)`. Tell true next states (y = 1) from states drawn from a known :math:`P^-` (y = 0): with
:math:`u = \psi(s')\cdot\phi(s,a) > 0`,

.. math::
    L_h = \frac1n\sum_i\big[y_i\ln(1 + 1/u_i) + (1-y_i)\ln(1+u_i)\big], \qquad
    u^* = \frac{P_h(s'|s,a)}{P^-(s')}, \quad L^* = \ln2 - E_{s,a}\,\mathrm{JS}(P_h\Vert P^-) .

So the minimizer holds the transition: :math:`\hat\psi = P^-\tilde\psi`, :math:`\hat\phi = \tilde\phi/\sum_{s'}
\hat\psi(s')\cdot\tilde\phi`, :math:`\hat P = \hat\psi\cdot\hat\phi`. The same features say where data are missing,

.. math::
    \beta_h(s,a) = \min\Big\{\gamma\sqrt{\hat\phi^\top\hat\Sigma_h^{-1}\hat\phi},\ b_{max}\Big\}, \quad
    \hat\Sigma_h = \lambda I + \sum_{D_h}\hat\phi\hat\phi^\top, \qquad
    Q_h = r_h + \beta_h + \hat P_hV_{h+1}, \quad V_h = \min\{\max_aQ_h, v_{max}\} .

In a zero-sum Markov game two such backups, with plus and with minus :math:`\beta`, give an upper and a lower bound, and
in every state both players follow a coarse correlated equilibrium of the two (`core.planning`).

What changes and why: contrast usually learns features and leaves it open what for. Here the score *is* the model, so a
planner can use it, and what the model does not know is paid as a bonus that makes the agent go and look.

Paper versus code. The paper's body was not accessible to us. (1) The released code is another algorithm: an Atari agent
that predicts its own latent states, without negatives, low-rank model or planning. Only its bonus is here
(`core.bonus.RunningBonus`). (2) Reconstructed, from the abstract and from related work on low-rank MDPs: collection,
loss, normalization, bonus and planning. (3) Pinned here: :math:`b_{max} = 2H`, :math:`v_{max} = H`, the constants
:math:`\lambda, \gamma`, ties to the first action, one negative for each positive instead of a coin (the same in
expectation, with less variance), and an equilibrium without a second criterion (it is not unique). (4) Features are
known up to an invertible matrix only; compare :math:`\hat P`. Because of :math:`\lambda I` the bonus does depend on
that matrix, so the agent scales the features of every step to a largest norm of 1 first.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.bonus import check_indices, exploration_bonus
from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    finite_result,
)
from ..core.contrast import reduce
from ..core.planning import GamePlan, Plan, plan, plan_game
from ..core.precision import full_precision
from ..datasets.decisions import Decisions, check_decisions
from ..models.low_rank import FactoredFeatures, LowRankFeatures

__all__ = [
    "ContrastiveUCB",
    "LowRankModel",
    "collect",
    "contrastive_loss",
    "density_ratio",
    "low_rank_model",
    "expected_contrastive_loss",
    "transition_loss",
]


class LowRankModel(NamedTuple):
    r"""``features (H, S, *A, d)`` :math:`\hat\phi`, ``next_features (H, S, d)``, ``transition (H, S, *A, S)``."""

    features: Tensor
    next_features: Tensor
    transition: Tensor


@full_precision
def contrastive_loss(anchor: Tensor, candidate: Tensor, real: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Is this the next state? The logistic loss with logit :math:`\ln u`, u the inner product of the features.

    Args:
        anchor: ``(n, d)`` features of state and action.
        candidate: ``(n, d)`` features of the next state, or of a negative; every inner product must be above 0.
        real: ``(n,)`` integers, 1 for a true next state, 0 for a negative.
        reduction: over the n points.

    Returns:
        Scalar, or ``(n,)``.

    Example:
        >>> one = torch.ones(2, 1)  # a score of 1: nothing to tell apart
        >>> round(contrastive_loss(one, one, torch.tensor([1, 0])).exp().item(), 3)
        2.0
    """
    check_shapes(anchor=(anchor, "n d"), candidate=(candidate, "n d"), real=(real, "n", int))
    real = check_labels(real, name="real", num_classes=2)
    u = _check_products((anchor * candidate).sum(1), "anchor, candidate")
    return reduce(F.binary_cross_entropy_with_logits(u.log(), real.to(u), reduction="none"), reduction)


@full_precision
def density_ratio(transition: Tensor, negatives: Tensor) -> Tensor:
    """Where the loss is smallest: ``(..., S)`` transition probabilities over those of the negatives ``(S,)``."""
    check_shapes(transition=(transition, "... s"), negatives=(negatives, "s"))
    check_entries(0, math.inf, open_low=True, negatives=negatives)
    return finite_result(transition / negatives, transition=transition, negatives=negatives)


@full_precision
def expected_contrastive_loss(u: Tensor, transition: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """Expected `contrastive_loss` of a table of scores.

    Args:
        u: ``(S, A, S)`` scores, at least 0; 0 only where the transition is 0 (elsewhere the loss would be infinite).
        transition: ``(S, A, S)``.
        negatives: ``(S,)`` probabilities of the negatives.
        weights: ``(S, A)`` probabilities of state and action in the data.
    """
    tables = {"u": (u, "s a s"), "transition": (transition, "s a s")}
    check_shapes(**tables, negatives=(negatives, "s"), weights=(weights, "s a"))
    check_entries(0, math.inf, u=u, transition=transition, negatives=negatives, weights=weights)
    possible = transition > 0
    if ((u == 0) & possible).any():
        raise ValueError("u, transition: expected scores above 0 wherever the transition is")
    positive = transition * F.softplus(-u.masked_fill(~possible, 1.0).log())  # ln(1 + 1 / u)
    loss = (weights * (positive + negatives * torch.log1p(u)).sum(-1)).sum() / 2
    return finite_result(loss, u=u, transition=transition, negatives=negatives, weights=weights)


@full_precision
def low_rank_model(phi: Tensor, psi: Tensor, negatives: Tensor) -> LowRankModel:
    """Turn minimizers of the loss into transition probabilities, whatever the scale of each ``phi``.

    Args:
        phi: ``(H, S, *A, d)`` positive features of state and action(s).
        psi: ``(H, S, d)`` positive features of the next state.
        negatives: ``(S,)`` probabilities of the negatives.
    """
    shape = "h s a b d" if isinstance(phi, Tensor) and phi.ndim == 5 else "h s a d"
    check_shapes(phi=(phi, shape), psi=(psi, "h s d"), negatives=(negatives, "s"))
    check_entries(0, math.inf, negatives=negatives)
    next_features = negatives[:, None] * psi  # (H, S, d)
    total = _check_products(torch.einsum("h...d,hd->h...", phi, next_features.sum(1)), "phi, psi, negatives")
    features = finite_result(phi / total[..., None], phi=phi, psi=psi, negatives=negatives)
    transition = torch.einsum("h...d,htd->h...t", features, next_features)
    return LowRankModel(features, next_features, finite_result(transition, phi=phi, psi=psi, negatives=negatives))


@full_precision
def transition_loss(phi: Tensor, psi: Tensor, points: Tensor) -> Tensor:
    """`contrastive_loss` of points ``(n, 5)``: step, state, action, next state, and a negative in its place.

    The features are ``phi (H, S, N, d)`` and ``psi (H, S, d)``.
    """
    check_shapes(phi=(phi, "h s n d"), psi=(psi, "h s d"), points=(points, "p 5", int))
    horizon, states, actions, _ = phi.shape
    points = check_indices("points", points, (horizon, states, actions, states, states))
    step, state, action, after, negative = points.unbind(1)
    anchor, yes = phi[step, state, action], torch.ones_like(step)
    named = "phi, psi"
    _check_products((anchor * psi[step, after]).sum(1), named)
    _check_products((anchor * psi[step, negative]).sum(1), named)
    real, fake = contrastive_loss(anchor, psi[step, after], yes), contrastive_loss(anchor, psi[step, negative], 0 * yes)
    return (real + fake) / 2


def collect(
    process: Decisions,
    policy: Tensor,
    negatives: Tensor,
    *,
    episodes: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Two fresh points for every step (one for the first), each from a run of its own.

    For step h, one run follows the policy and then acts once at random; the other acts at random at h - 1 already.

    Args:
        process: the true process; only sampled from. Joint actions of a game are numbered row by row.
        policy: ``(H, S, N)`` probabilities.
        negatives: ``(S,)`` probabilities.
        episodes: how often, with the same policy.
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(episodes * (2H - 1), 5)`` int64, see `transition_loss`.
    """
    check_decisions(process)
    transition = process.transition.flatten(2, -2)  # (H, S, N, S)
    horizon, states, actions, _ = transition.shape
    check_shapes(policy=(policy, f"{horizon} {states} {actions}"), negatives=(negatives, f"{states}"))
    check_entries(0, math.inf, policy=policy, negatives=negatives)
    check_count(episodes=episodes)
    check_generator(generator)
    for name, weights in (("policy", policy), ("negatives", negatives)):
        if not (weights.sum(-1) > 0).all():
            raise ValueError(f"{name}: expected probabilities, a row is all 0")
    points = []

    def draw(weights: Tensor) -> Tensor:
        """One index for each episode, by weights ``(episodes, k)``."""
        return weights.double().multinomial(1, generator=generator)[:, 0]

    start, fakes = (weights.expand(episodes, -1) for weights in (process.start, negatives))
    for step in range(len(policy)):
        for random_actions in (1, 2)[: step + 1]:
            after = draw(start)
            for h in range(step + 1):
                state = after
                chances = policy[h, state]
                action = draw(chances if h <= step - random_actions else torch.ones_like(chances))
                after = draw(transition[h, state, action])
            points.append(torch.stack([torch.full_like(after, step), state, action, after, draw(fakes)], 1))
    return torch.cat(points)


class ContrastiveUCB(nn.Module):
    """The agent: from points it contrasts, normalizes, makes a bonus and plans; for an MDP or a zero-sum game.

    An episode is ``agent.step(collect(process, agent.policy, agent.negatives))``. Its state, points and plan included,
    is in ``state_dict``.

    Example:
        >>> from cl_teach.datasets import combination_lock
        >>> lock = combination_lock(actions=3, horizon=2, copies=2)
        >>> agent = ContrastiveUCB(lock.reward)
        >>> agent.step(collect(lock, agent.policy, agent.negatives)).shape  # steps, states, actions
        torch.Size([2, 4, 3])
        >>> agent.plan.v.shape, len(agent.points)
        (torch.Size([2, 4]), 3)
    """

    reward: Tensor
    negatives: Tensor
    policy: Tensor
    points: Tensor

    def __init__(
        self,
        reward: Tensor,
        dim: int = 3,
        *,
        factors: Tensor | None = None,
        ridge: float = 0.1,
        bonus_scale: float = 1.0,
        bonus_cap: float | None = None,
        fit_steps: int = 100,
        learning_rate: float = 0.05,
        refit_every: int = 1,
    ) -> None:
        r"""Start with the uniform policy and without data; the first features are random.

        Args:
            reward: ``(H, S, *A)``, all that the agent knows of the process.
            dim: d, the rank or a little more.
            factors: ``(S, F)`` integers, what one sees of each state in parts; features that share the numbers of a
                part (`FactoredFeatures`). Free tables if None.
            ridge: :math:`\lambda`.
            bonus_scale: :math:`\gamma`; 0 for greedy planning.
            bonus_cap: 2H if None.
            fit_steps: of Adam in every fit.
            learning_rate: of Adam.
            refit_every: episodes between two fits (and plans).
        """
        super().__init__()
        check_shapes(reward=(reward, "h s a b" if isinstance(reward, Tensor) and reward.ndim == 4 else "h s a"))
        check_positive(ridge=ridge, learning_rate=learning_rate)
        check_in_range(0, math.inf, bonus_scale=bonus_scale)
        check_count(fit_steps=fit_steps, refit_every=refit_every)
        if bonus_cap is not None:
            check_positive(bonus_cap=bonus_cap)
        horizon, states, *players = reward.shape
        actions = math.prod(players)
        check_shapes(factors=(factors, "s f?", int))
        if factors is not None and len(factors) != states:
            raise ValueError(f"reward, factors: expected a row for each of {states} states, got {len(factors)}")
        self.features = (
            LowRankFeatures(horizon, states, actions, dim)
            if factors is None
            else FactoredFeatures(horizon, factors, actions, dim)
        )
        self.bonus = {"ridge": ridge, "scale": bonus_scale, "cap": 2.0 * horizon if bonus_cap is None else bonus_cap}
        self.fit_steps, self.learning_rate, self.refit_every, self.episodes = fit_steps, learning_rate, refit_every, 0
        self.register_buffer("reward", reward.double())
        self.register_buffer("negatives", torch.full((states,), 1 / states, dtype=torch.float64))
        self.register_buffer("policy", torch.full((horizon, states, actions), 1 / actions, dtype=torch.float64))
        self.register_buffer("points", torch.empty(0, 5, dtype=torch.int64), persistent=False)  # it grows
        self.plan: Plan | GamePlan | None = None

    def forward(self, steps: Tensor, states: Tensor) -> Tensor:
        """Probabilities ``(n, N)`` of the joint actions at ``steps (n,)`` in ``states (n,)``."""
        check_shapes(steps=(steps, "n", int), states=(states, "n", int))
        steps = check_labels(steps, name="steps", num_classes=self.policy.shape[0])
        return self.policy[steps, check_labels(states, name="states", num_classes=self.policy.shape[1])]

    def loss(self, points: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """`transition_loss` of the present features. Nothing is drawn here."""
        check_generator(generator)
        phi, psi = self.features()
        return transition_loss(phi, psi, points)

    def step(self, batch: Tensor) -> Tensor:
        """One episode: take in points ``(n, 5)``, fit, plan.

        The agent owns this loop because each episode poses a new problem: Adam starts anew on all points so far, from
        the features of the last fit.

        Returns:
            The policy ``(H, S, *A)`` (in a game the product of the players' marginals).
        """
        horizon, states, actions = self.policy.shape
        check_shapes(batch=(batch, "n 5", int))
        batch = check_indices("batch", batch, (horizon, states, actions, states, states))
        self.points = torch.cat([self.points, batch.to(self.points.device)])
        self.episodes += 1
        if self.episodes % self.refit_every == 0:
            optimizer = torch.optim.Adam(self.features.parameters(), lr=self.learning_rate)
            for _ in range(self.fit_steps):
                loss = self.loss(self.points)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            self.plan = self.replan()
            self.policy.copy_(self._play(self.plan).flatten(2))
        return self.policy.view_as(self.reward).clone()

    @torch.no_grad()
    def replan(self) -> Plan | GamePlan:
        """Model, bonus and plan from the present features and data."""
        phi, psi = self.features()
        model = low_rank_model(phi, psi, self.negatives)
        norm = torch.linalg.vector_norm(model.features, dim=-1).amax((1, 2))  # (H,)
        visits = [self.points[self.points[:, 0] == h, 1:3] for h in range(len(norm))]
        bonus = exploration_bonus(model.features / norm[:, None, None, None], visits, **self.bonus)
        transition = model.transition.view(*self.reward.shape, -1)
        shaped = (transition, bonus.view_as(self.reward), float(len(self.reward)))
        return plan(self.reward, *shaped) if self.reward.ndim == 3 else plan_game(self.reward, *shaped)

    def _play(self, found: Plan | GamePlan) -> Tensor:
        if isinstance(found, Plan):
            return F.one_hot(found.policy, self.reward.shape[2]).double()
        return found.joint.sum(3, keepdim=True) * found.joint.sum(2, keepdim=True)

    def get_extra_state(self) -> dict[str, Any]:
        """Points, number of episodes and the last plan, for ``state_dict``."""
        found = None if self.plan is None else tuple(self.plan)
        return {"points": self.points, "episodes": self.episodes, "plan": found}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.points, self.episodes = state["points"].to(self.points), state["episodes"]
        kind = Plan if self.reward.ndim == 3 else GamePlan
        self.plan = None if state["plan"] is None else kind(*state["plan"])


def _check_products(u: Tensor, name: str) -> Tensor:
    """Inner products that can be scores: above 0 and finite."""
    if not torch.compiler.is_compiling() and not ((u > 0) & (u < math.inf)).all():
        bad = u[~((u > 0) & (u < math.inf))]
        raise ValueError(f"{name}: expected finite inner products above 0, got {bad.flatten()[0].item():g}")
    return u
