r"""Optimistic planning in tables, for one agent and for two players with opposite interests.

Value iteration runs from the last step back and adds a bonus where little is known,

.. math:: Q_h = r_h + \beta_h + P_hV_{h+1}, \qquad V_h = \min\{\max_aQ_h, v_{max}\} .

In a zero-sum game it runs twice, with plus and with minus the bonus, which gives an upper bound :math:`\bar Q` (what
the row player, who maximizes, may hope for) and a lower bound :math:`\underline Q` (what the column player, who
minimizes, may hope for). In each state both are averaged over a *coarse correlated equilibrium*: a distribution
:math:`\sigma` over joint actions from which no player gains by leaving it for one fixed action,

.. math::
    \langle\sigma, \bar Q\rangle \ge \sum_{ab}\sigma_{ab}\bar Q_{a'b}\ \text{for all}\ a', \qquad
    \langle\sigma, \underline Q\rangle \le \sum_{ab}\sigma_{ab}\underline Q_{ab'}\ \text{for all}\ b' .

A linear program finds one. The two players look at different tables, so an equilibrium of independent players would be
that of a general-sum game, which is hard to compute.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linprog
from torch import Tensor

from .checks import check_embeddings, check_positive, check_same_length, check_same_shape

__all__ = ["GamePlan", "Plan", "correlated_equilibrium", "matrix_game_value", "plan", "plan_game"]


class Plan(NamedTuple):
    """``q (H, S, A)`` unclipped, ``v (H, S)``, ``policy (H, S)`` the best actions."""

    q: Tensor
    v: Tensor
    policy: Tensor


class GamePlan(NamedTuple):
    """Bounds ``(H, S, A, B)`` and ``(H, S)``, and the equilibrium ``joint (H, S, A, B)``."""

    q_upper: Tensor
    q_lower: Tensor
    v_upper: Tensor
    v_lower: Tensor
    joint: Tensor


def plan(reward: Tensor, transition: Tensor, bonus: Tensor, value_cap: float) -> Plan:
    """Optimistic value iteration from the last step back.

    Args:
        reward: ``(H, S, A)``.
        transition: ``(H, S, A, S)``, learned or true.
        bonus: ``(H, S, A)``; zeros for plain value iteration.
        value_cap: what no value can exceed; H for rewards in [0, 1].

    Raises:
        TypeError, ValueError: not floating, shapes do not fit, a cap that is not positive.
    """
    check_embeddings(ndim=3, reward=reward, bonus=bonus)
    _check_tables(reward, transition, bonus, value_cap)
    v, qs, vs = torch.zeros_like(reward[0, :, 0]), [], []
    for r, p, b in reversed(list(zip(reward, transition, bonus, strict=True))):
        q = r + b + p @ v  # (S, A)
        v = q.amax(1).clamp(max=value_cap)
        qs.append(q)
        vs.append(v)
    q = torch.stack(qs[::-1])
    return Plan(q, torch.stack(vs[::-1]), q.argmax(2))


def plan_game(
    reward: Tensor, transition: Tensor, bonus: Tensor, value_cap: float, joint: Tensor | None = None
) -> GamePlan:
    """Upper and lower bound of a zero-sum game's value from the last step back; arguments as in `plan`.

    Args:
        reward: ``(H, S, A, B)``.
        transition: ``(H, S, A, B, S)``.
        bonus: ``(H, S, A, B)``.
        value_cap: of the upper bound; the lower one is at least 0.
        joint: ``(H, S, A, B)`` distributions of joint actions; an equilibrium of the two bounds if None.
    """
    check_embeddings(ndim=4, reward=reward, bonus=bonus)
    _check_tables(reward, transition, bonus, value_cap)
    if joint is not None:
        check_same_shape(joint=joint, reward=reward)
    upper, lower, rows = torch.zeros_like(reward[0, :, 0, 0]), torch.zeros_like(reward[0, :, 0, 0]), []
    for h in reversed(range(len(reward))):
        q_upper = reward[h] + transition[h] @ upper + bonus[h]  # (S, A, B)
        q_lower = reward[h] + transition[h] @ lower - bonus[h]
        pairs = zip(q_upper, q_lower, strict=True)
        sigma = joint[h] if joint is not None else torch.stack([correlated_equilibrium(*pair) for pair in pairs])
        upper = (sigma * q_upper).sum((1, 2)).clamp(max=value_cap)
        lower = (sigma * q_lower).sum((1, 2)).clamp(min=0)
        rows.append((q_upper, q_lower, upper, lower, sigma))
    return GamePlan(*(torch.stack(x) for x in zip(*reversed(rows), strict=True)))


def correlated_equilibrium(upper: Tensor, lower: Tensor) -> Tensor:
    """A coarse correlated equilibrium ``(A, B)``; the row player maximizes ``upper``, the column player minimizes
    ``lower``.

    Any one is returned; there may be many.

    Raises:
        TypeError, ValueError: not two finite matrices of one shape.
    """
    check_embeddings(upper=upper, lower=lower)
    check_same_shape(upper=upper, lower=lower)
    row = upper[:, None, :] - upper  # (A, A, B): gain of a' over the play that was agreed on
    column = (lower[:, :, None] - lower[:, None, :]).permute(2, 0, 1)  # (B, A, B)
    gains = torch.cat([row.flatten(1), column.flatten(1)]).detach().cpu().numpy()
    ones, size = [[1.0] * upper.numel()], upper.numel()
    found = linprog([0.0] * size, A_ub=gains, b_ub=[0.0] * len(gains), A_eq=ones, b_eq=[1.0])
    sigma = torch.from_numpy(found.x).to(upper).clamp_min(0).view_as(upper)
    return sigma / sigma.sum()


def matrix_game_value(payoff: Tensor) -> Tensor:
    """Scalar: what the row player of ``payoff (A, B)`` can secure with a mixed strategy.

    Raises:
        TypeError, ValueError: not a finite matrix.
    """
    check_embeddings(payoff=payoff)
    secured = torch.cat([-payoff.mT, torch.ones_like(payoff[:1].mT[:, :1])], 1)  # value - sum_a x_a payoff_ab <= 0
    cost, total = [0.0] * len(payoff) + [-1.0], [[1.0] * len(payoff) + [0.0]]
    bounds: list[tuple[float | None, float | None]] = [(0, None)] * len(payoff) + [(None, None)]
    table = secured.detach().cpu().numpy()
    found = linprog(cost, A_ub=table, b_ub=[0.0] * len(table), A_eq=total, b_eq=[1.0], bounds=bounds)
    return torch.as_tensor(-found.fun).to(payoff)


def _check_tables(reward: Tensor, transition: Tensor, bonus: Tensor, value_cap: float) -> None:
    check_embeddings(ndim=reward.ndim + 1, transition=transition)
    check_same_shape(reward=reward, bonus=bonus, transition=transition[..., 0])
    check_same_length(**{"reward[0]": reward[0], "transition.T": transition.movedim(-1, 0)})
    check_positive(value_cap=value_cap)
