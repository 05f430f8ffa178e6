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

from .checks import check_entries, check_positive, check_shapes, finite_result
from .precision import full_precision

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


@full_precision
def plan(reward: Tensor, transition: Tensor, bonus: Tensor, value_cap: float) -> Plan:
    """Optimistic value iteration from the last step back.

    Args:
        reward: ``(H, S, A)``.
        transition: ``(H, S, A, S)``, learned or true.
        bonus: ``(H, S, A)``; zeros for plain value iteration.
        value_cap: what no value can exceed, greater than 0; H for rewards in [0, 1].

    Example:
        >>> one_state = torch.ones(2, 1, 2, 1)  # two steps, two actions, the second pays 1
        >>> plan(torch.tensor([0.0, 1.0]).expand(2, 1, 2), one_state, torch.zeros(2, 1, 2), 2.0).v.tolist()
        [[2.0], [1.0]]
    """
    check_shapes(reward=(reward, "h s a"), transition=(transition, "h s a s"), bonus=(bonus, "h s a"))
    check_positive(value_cap=value_cap)
    v, qs, vs = torch.zeros_like(reward[0, :, 0]), [], []
    for r, p, b in reversed(list(zip(reward, transition, bonus, strict=True))):
        q = r + b + p @ v  # (S, A)
        v = q.amax(1).clamp(max=value_cap)
        qs.append(q)
        vs.append(v)
    q = finite_result(torch.stack(qs[::-1]), reward=reward, transition=transition, bonus=bonus)
    return Plan(q, torch.stack(vs[::-1]), q.argmax(2))


@full_precision
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
    tables = {"reward": (reward, "h s a b"), "transition": (transition, "h s a b s"), "bonus": (bonus, "h s a b")}
    check_shapes(**tables, joint=(joint, "h s a b?"))
    check_positive(value_cap=value_cap)
    if joint is not None:
        check_entries(0, 1 + 1e-4, joint=joint)
    upper, lower, rows = torch.zeros_like(reward[0, :, 0, 0]), torch.zeros_like(reward[0, :, 0, 0]), []
    named = {"reward": reward, "transition": transition, "bonus": bonus}
    for h in reversed(range(len(reward))):
        q_upper = finite_result(reward[h] + transition[h] @ upper + bonus[h], **named)  # (S, A, B)
        q_lower = finite_result(reward[h] + transition[h] @ lower - bonus[h], **named)
        pairs = zip(q_upper, q_lower, strict=True)
        sigma = joint[h] if joint is not None else torch.stack([correlated_equilibrium(*pair) for pair in pairs])
        upper = (sigma * q_upper).sum((1, 2)).clamp(max=value_cap)
        lower = (sigma * q_lower).sum((1, 2)).clamp(min=0)
        rows.append((q_upper, q_lower, upper, lower, sigma))
    found = GamePlan(*(torch.stack(x) for x in zip(*reversed(rows), strict=True)))
    finite_result(found.v_lower, **named)
    return found


@torch.no_grad()
@full_precision
def correlated_equilibrium(upper: Tensor, lower: Tensor) -> Tensor:
    """A coarse correlated equilibrium ``(A, B)``; the row player maximizes ``upper``, the column player minimizes
    ``lower``.

    Any one is returned; there may be many.
    """
    check_shapes(upper=(upper, "a b"), lower=(lower, "a b"))
    # A common factor has no part in an equilibrium, but in the solver's tolerance.
    upper, lower = (x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny) for x in (upper, lower))
    row = upper[:, None, :] - upper  # (A, A, B): gain of a' over the play that was agreed on
    column = (lower[:, :, None] - lower[:, None, :]).permute(2, 0, 1)  # (B, A, B)
    gains = torch.cat([row.flatten(1), column.flatten(1)]).double().cpu().numpy()
    ones, size = [[1.0] * upper.numel()], upper.numel()
    found = linprog([0.0] * size, A_ub=gains, b_ub=[0.0] * len(gains), A_eq=ones, b_eq=[1.0])
    if found.x is None:
        raise ValueError(f"upper, lower: the linear program found no equilibrium ({found.message})")
    sigma = torch.from_numpy(found.x).to(upper).clamp_min(0).view_as(upper)
    return sigma / sigma.sum()


@torch.no_grad()
@full_precision
def matrix_game_value(payoff: Tensor) -> Tensor:
    """Scalar: what the row player of ``payoff (A, B)`` can secure with a mixed strategy."""
    check_shapes(payoff=(payoff, "a b"))
    scale = payoff.abs().max().clamp_min(torch.finfo(payoff.dtype).tiny)
    game = payoff / scale
    secured = torch.cat([-game.mT, torch.ones_like(game[:1].mT[:, :1])], 1)  # value - sum_a x_a payoff_ab <= 0
    cost, total = [0.0] * len(game) + [-1.0], [[1.0] * len(game) + [0.0]]
    bounds: list[tuple[float | None, float | None]] = [(0, None)] * len(game) + [(None, None)]
    table = secured.double().cpu().numpy()
    found = linprog(cost, A_ub=table, b_ub=[0.0] * len(table), A_eq=total, b_eq=[1.0], bounds=bounds)
    if found.x is None:
        raise ValueError(f"payoff: the linear program found no value ({found.message})")
    return scale * torch.as_tensor(-found.fun).to(payoff)
