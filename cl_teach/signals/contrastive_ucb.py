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
(`RunningBonus`). (2) Reconstructed, from the abstract and from related work on low-rank MDPs: collection, loss,
normalization, bonus and planning. (3) Pinned here: :math:`b_{max} = 2H`, :math:`v_{max} = H`, the constants
:math:`\lambda, \gamma`, ties to the first action, one negative for each positive instead of a coin (the same in
expectation, with less variance), and an equilibrium without a second criterion (it is not unique). (4) Features are
known up to an invertible matrix only; compare :math:`\hat P`. Because of :math:`\lambda I` the bonus does depend on
that matrix, so the agent scales the features of every step to a largest norm of 1 first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_shape,
    check_same_width,
)
from ..core.contrast import reduce
from ..core.planning import GamePlan, Plan, plan, plan_game
from ..datasets.decisions import Decisions

__all__ = [
    "ContrastiveUCB",
    "LowRankFeatures",
    "LowRankModel",
    "RunningBonus",
    "collect",
    "contrastive_loss",
    "density_ratio",
    "exploration_bonus",
    "low_rank_model",
    "population_loss",
    "transition_loss",
]


class LowRankModel(NamedTuple):
    r"""``features (H, S, *A, d)`` :math:`\hat\phi`, ``next_features (H, S, d)``, ``transition (H, S, *A, S)``."""

    features: Tensor
    next_features: Tensor
    transition: Tensor


def contrastive_loss(anchor: Tensor, candidate: Tensor, real: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Is this the next state? The logistic loss with logit :math:`\ln u`, u the inner product of the features.

    Args:
        anchor: ``(n, d)`` features of state and action.
        candidate: ``(n, d)`` features of the next state, or of a negative.
        real: ``(n,)`` integers, 1 for a true next state, 0 for a negative.
        reduction: over the n points.

    Returns:
        Scalar, or ``(n,)``.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, an inner product that is not positive.
    """
    check_embeddings(anchor=anchor, candidate=candidate)
    check_same_shape(anchor=anchor, candidate=candidate)
    check_labels(real, len(anchor), name="real", num_classes=2)
    u = (anchor * candidate).sum(1)
    check_positive(**{"inner products of anchor and candidate": u})
    return reduce(F.binary_cross_entropy_with_logits(u.log(), real.to(u), reduction="none"), reduction)


def density_ratio(transition: Tensor, negatives: Tensor) -> Tensor:
    """Where the loss is smallest: ``(..., S)`` transition probabilities over those of the negatives ``(S,)``."""
    check_embeddings(ndim=1, negatives=negatives)
    check_positive(negatives=negatives)
    check_same_width(transition=transition, negatives=negatives)
    return transition / negatives


def population_loss(u: Tensor, transition: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """Expected `contrastive_loss` of a table of scores.

    Args:
        u: ``(S, A, S)`` scores, at least 0; 0 only where the transition is 0 (elsewhere the loss is infinite).
        transition: ``(S, A, S)``.
        negatives: ``(S,)`` probabilities of the negatives.
        weights: ``(S, A)`` probabilities of state and action in the data.
    """
    check_embeddings(ndim=3, u=u, transition=transition)
    check_same_shape(u=u, transition=transition)
    check_in_range(0, math.inf, u=u)
    check_same_shape(weights=weights, transition=transition[..., 0])
    check_same_width(u=u, negatives=negatives)
    possible = transition > 0
    positive = transition * torch.log1p(1 / u.masked_fill(~possible, 1.0))
    return (weights * (positive + negatives * torch.log1p(u)).sum(-1)).sum() / 2


def low_rank_model(phi: Tensor, psi: Tensor, negatives: Tensor) -> LowRankModel:
    """Turn minimizers of the loss into transition probabilities, whatever the scale of each ``phi``.

    Args:
        phi: ``(H, S, *A, d)`` positive features of state and action(s).
        psi: ``(H, S, d)`` positive features of the next state.
        negatives: ``(S,)`` probabilities of the negatives.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, an inner product that is not positive.
    """
    check_embeddings(ndim=max(phi.ndim, 4), phi=phi)
    check_embeddings(ndim=3, psi=psi)
    check_same_width(phi=phi, psi=psi)
    check_same_width(**{"psi.mT": psi.mT, "negatives": negatives})
    next_features = negatives[:, None] * psi  # (H, S, d)
    total = torch.einsum("h...d,hd->h...", phi, next_features.sum(1))
    check_positive(**{"inner products of phi and psi": total})
    features = phi / total[..., None]
    return LowRankModel(features, next_features, torch.einsum("h...d,htd->h...t", features, next_features))


def exploration_bonus(
    features: Tensor, visits: Sequence[Tensor] | Tensor, ridge: float = 0.1, scale: float = 1.0, cap: float = math.inf
) -> Tensor:
    r"""How little is known: large where the features point away from those that were visited.

    Args:
        features: ``(H, S, *A, d)``.
        visits: for each step ``(n, 1 + number of players)`` integers, states and actions; n may be 0.
        ridge: :math:`\lambda > 0`.
        scale: :math:`\gamma \ge 0`.
        cap: :math:`b_{max} > 0`.

    Returns:
        ``(H, S, *A)``.

    Raises:
        TypeError: features not floating.
        ValueError: visits that do not fit, constants out of range.
    """
    check_embeddings(ndim=max(features.ndim, 4), features=features)
    check_positive(ridge=ridge)
    check_in_range(0, math.inf, scale=scale, cap=cap)
    if len(visits) != len(features):
        raise ValueError(f"visits: expected one tensor for each of {len(features)} steps, got {len(visits)}")
    bonus = []
    for f, visited in zip(features, visits, strict=True):
        check_same_width(visits=visited, state_and_actions=f[..., 0].nonzero())
        seen = f[visited.unbind(1)]  # (n, d)
        covariance = seen.mT @ seen + ridge * torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
        bonus.append(scale * _length(f, covariance))
    return torch.stack(bonus).clamp(max=cap)


class RunningBonus(nn.Module):
    """The released agent's bonus: one covariance over all batches so far, the current one included, never reset."""

    def __init__(self, dim: int, ridge: float = 1e-5, factor: float = 1.0) -> None:
        """Start at ``ridge`` times the identity."""
        super().__init__()
        check_positive(dim=dim, ridge=ridge, factor=factor)
        self.factor = factor
        self.covariance: Tensor
        self.register_buffer("covariance", ridge * torch.eye(dim, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Take in a batch ``(n, dim)`` and return its bonus ``(n,)``; in float64, as the ridge is tiny."""
        check_embeddings(features=features)
        check_same_width(features=features, covariance=self.covariance)
        f = features.to(self.covariance)
        self.covariance += f.mT @ f
        return (self.factor * _length(f, self.covariance)).to(features)


class LowRankFeatures(nn.Module):
    """Free positive tables, through a softplus: ``phi (H, S, N, d)`` and ``psi (H, S, d)``; N counts joint actions."""

    def __init__(self, horizon: int, states: int, actions: int, dim: int) -> None:
        """Draw the tables from the global state of torch, in float64."""
        super().__init__()
        check_positive(horizon=horizon, states=states, actions=actions, dim=dim)
        self.raw_phi = nn.Parameter(torch.randn(horizon, states, actions, dim, dtype=torch.float64))
        self.raw_psi = nn.Parameter(torch.randn(horizon, states, dim, dtype=torch.float64))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Both tables; the small constant keeps every logarithm finite."""
        return F.softplus(self.raw_phi) + 1e-6, F.softplus(self.raw_psi) + 1e-6

    def fit(self, points: Tensor, steps: int = 400, learning_rate: float = 0.05) -> list[float]:
        """Minimize `transition_loss` by Adam, from where the tables are (a warm start); the loss of every step."""
        optimizer, losses = torch.optim.Adam(self.parameters(), lr=learning_rate), []
        for _ in range(steps):
            phi, psi = self()
            loss = transition_loss(phi, psi, points)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


def transition_loss(phi: Tensor, psi: Tensor, points: Tensor) -> Tensor:
    """`contrastive_loss` of points ``(n, 5)``: step, state, action, next state, and a negative in its place."""
    check_embeddings(ndim=4, phi=phi)
    check_embeddings(ndim=3, psi=psi)
    step, state, action, after, negative = points.unbind(1)
    anchor, yes = phi[step, state, action], torch.ones_like(step)
    real, fake = contrastive_loss(anchor, psi[step, after], yes), contrastive_loss(anchor, psi[step, negative], 0 * yes)
    return (real + fake) / 2


def collect(process: Decisions, policy: Tensor, negatives: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Two fresh points for every step (one for the first), each from a run of its own.

    For step h, one run follows the policy and then acts once at random; the other acts at random at h - 1 already.

    Args:
        process: the true process; only sampled from. Joint actions of a game are numbered row by row.
        policy: ``(H, S, N)`` probabilities.
        negatives: ``(S,)`` probabilities.
        generator: on the CPU.

    Returns:
        ``(2H - 1, 5)`` int64, see `transition_loss`.
    """
    transition = process.transition.flatten(2, -2)  # (H, S, N, S)
    check_embeddings(ndim=3, policy=policy)
    check_same_shape(policy=policy, transition=transition[..., 0])
    uniform, points = torch.ones_like(policy[0, 0]), []

    def draw(weights: Tensor) -> int:
        return int(weights.multinomial(1, generator=generator))

    for step in range(len(policy)):
        for random_actions in (1, 2)[: step + 1]:
            after, state, action = draw(process.start), 0, 0
            for h in range(step + 1):
                state = after
                action = draw(policy[h, state] if h <= step - random_actions else uniform)
                after = draw(transition[h, state, action])
            points.append([step, state, action, after, draw(negatives)])
    return torch.tensor(points)


class ContrastiveUCB:
    """The loop of episodes: collect, contrast, normalize, bonus, plan; for an MDP or a zero-sum game."""

    def __init__(
        self,
        process: Decisions,
        dim: int = 3,
        *,
        ridge: float = 0.1,
        bonus_scale: float = 1.0,
        bonus_cap: float | None = None,
        fit_steps: int = 100,
        refit_every: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        r"""Start with the uniform policy and without data.

        Args:
            process: sampled from; of its tables only the reward is known to the agent.
            dim: d, the rank or a little more.
            ridge: :math:`\lambda`.
            bonus_scale: :math:`\gamma`; 0 for greedy planning.
            bonus_cap: 2H if None.
            fit_steps: of Adam in every fit.
            refit_every: episodes between two fits (and plans).
            generator: of all draws but the initial features, on the CPU.
        """
        check_positive(fit_steps=fit_steps, refit_every=refit_every)
        self.process, self.generator = process, generator
        horizon, states, self.players = *process.reward.shape[:2], process.reward.shape[2:]
        self.features = LowRankFeatures(horizon, states, math.prod(self.players), dim)
        self.bonus = {"ridge": ridge, "scale": bonus_scale, "cap": 2.0 * horizon if bonus_cap is None else bonus_cap}
        self.fit_steps, self.refit_every, self.episodes = fit_steps, refit_every, 0
        self.negatives = torch.full((states,), 1 / states, dtype=torch.float64)
        self.policy = torch.full((horizon, states, math.prod(self.players)), 1 / math.prod(self.players)).double()
        self.points = torch.empty(0, 5, dtype=torch.int64)
        self.plan: Plan | GamePlan | None = None

    def episode(self) -> Tensor:
        """One round; returns the policy ``(H, S, *A)`` (in a game the product of the players' marginals)."""
        self.points = torch.cat([self.points, collect(self.process, self.policy, self.negatives, self.generator)])
        self.episodes += 1
        if self.episodes % self.refit_every == 0:
            self.features.fit(self.points, self.fit_steps)
            self.plan = self.replan()
            self.policy = self._play(self.plan).flatten(2)
        return self.policy.view_as(self.process.reward)

    @torch.no_grad()
    def replan(self) -> Plan | GamePlan:
        """Model, bonus and plan from the present features and data."""
        phi, psi = self.features()
        model = low_rank_model(phi, psi, self.negatives)
        norm = torch.linalg.vector_norm(model.features, dim=-1).amax((1, 2))  # (H,)
        visits = [self.points[self.points[:, 0] == h, 1:3] for h in range(len(norm))]
        bonus = exploration_bonus(model.features / norm[:, None, None, None], visits, **self.bonus)
        reward = self.process.reward
        shaped = (model.transition.view_as(self.process.transition), bonus.view_as(reward), float(len(reward)))
        return plan(reward, *shaped) if len(self.players) == 1 else plan_game(reward, *shaped)

    def _play(self, found: Plan | GamePlan) -> Tensor:
        if isinstance(found, Plan):
            return F.one_hot(found.policy, self.players[0]).double()
        return found.joint.sum(3, keepdim=True) * found.joint.sum(2, keepdim=True)


def _length(f: Tensor, covariance: Tensor) -> Tensor:
    """Norm of vectors ``(..., d)`` in the metric of the inverse covariance."""
    root = torch.linalg.cholesky(covariance)
    solved = torch.linalg.solve_triangular(root, f.reshape(-1, f.shape[-1]).mT, upper=False)  # (d, n)
    return torch.linalg.vector_norm(solved, dim=0).view(f.shape[:-1])
