r"""Small decision processes with known tables: random low-rank MDPs and zero-sum games, and a combination lock.

In a low-rank process of rank d the next state is drawn through one of d hidden causes,

.. math:: P_h(s' \mid s, a) = \sum_{k=1}^d \phi_{h,k}(s, a)\,\psi_{h,k}(s'),

with both factors distributions. The tables are small enough that the exact value of any policy is one loop over the
steps, so what an agent learned can be compared with the truth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import (
    check_count,
    check_device,
    check_entries,
    check_in_range,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision

__all__ = [
    "Decisions",
    "check_decisions",
    "combination_lock",
    "exploitability",
    "lock_factors",
    "low_rank_game",
    "low_rank_mdp",
    "optimal_value",
    "policy_value",
]


class Decisions(NamedTuple):
    """H steps with S states; ``A`` stands for one action, or for two (row player, column player) in a game.

    Attributes:
        transition: ``(H, S, *A, S)`` float64 probabilities of the next state.
        reward: ``(H, S, *A)`` float64 in [0, 1]; in a game the row player gets it and the column player pays it.
        start: ``(S,)`` float64 probabilities of the first state.
    """

    transition: Tensor
    reward: Tensor
    start: Tensor


def check_decisions(process: Decisions, *, name: str = "process") -> None:
    """Check the tables of a process: shapes that fit, and probabilities."""
    check_type(Decisions, **{name: process})
    actions = "a b" if isinstance(process.reward, Tensor) and process.reward.ndim == 4 else "a"
    shapes = {"transition": f"h s {actions} s", "reward": f"h s {actions}", "start": "s"}
    check_shapes(**{f"{name}.{field}": (getattr(process, field), shape) for field, shape in shapes.items()})
    for field in ("transition", "start"):
        table = getattr(process, field)
        check_entries(0, 1 + 1e-4, **{f"{name}.{field}": table})
        if ((table.sum(-1) - 1).abs() > 1e-2).any():
            raise ValueError(f"{name}.{field}: expected probabilities that sum to 1 in the last dimension")


def low_rank_mdp(
    states: int = 8,
    actions: int = 3,
    horizon: int = 1,
    rank: int = 2,
    *,
    concentration: float = 0.5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Decisions:
    """Draw both factors of every step from Dirichlet distributions, rewards uniformly; the start is uniform.

    Args:
        states: S.
        actions: A.
        horizon: H.
        rank: hidden causes d.
        concentration: of the Dirichlet distributions; small values make distinct actions.
        seed: of all draws.
        device: where the tensors go; they are drawn on the CPU.
    """
    return _low_rank(states, (actions,), horizon, rank, concentration, seed, device)


def low_rank_game(
    states: int = 3,
    actions: tuple[int, int] = (2, 3),
    horizon: int = 2,
    rank: int = 2,
    *,
    concentration: float = 0.5,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Decisions:
    """A zero-sum game of two players who act at the same time; drawn as in `low_rank_mdp`."""
    check_type(tuple, actions=actions)
    if len(actions) != 2:
        raise ValueError(f"actions: expected two numbers, for row and column player, got {actions}")
    return _low_rank(states, tuple(actions), horizon, rank, concentration, seed, device)


def combination_lock(
    actions: int = 4,
    horizon: int = 4,
    copies: int = 3,
    *,
    consolation: float = 0.02,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Decisions:
    """A lock that opens after H secret actions in a row; one mistake leads to bad states for good.

    States 0 to copies - 1 are good, as many further ones bad; which copy comes next is pure chance, so the rank is 2.
    The last secret action pays 1, a bad state pays a little in every step, all else nothing.

    Args:
        actions: A, at least 2.
        horizon: H, the length of the secret.
        copies: states that look different and mean the same.
        consolation: reward in a bad state, in [0, 1]; its sum is what an agent gets that gives up.
        seed: of the secret.
        device: where the tensors go.
    """
    check_count(horizon=horizon, copies=copies)
    check_count(2, actions=actions)
    check_in_range(0, 1, consolation=consolation)
    check_count(0, seed=seed)
    check_device(device)
    secret = torch.randint(actions, (horizon,), generator=torch.Generator().manual_seed(seed))
    transition = torch.zeros(horizon, 2 * copies, actions, 2 * copies, dtype=torch.float64)
    transition[..., copies:] = 1 / copies
    steps = torch.arange(horizon)
    transition[steps, :copies, secret] = torch.tensor([1 / copies] * copies + [0.0] * copies, dtype=torch.float64)
    reward = torch.zeros(horizon, 2 * copies, actions, dtype=torch.float64)
    reward[:, copies:] = consolation
    reward[-1, :copies, secret[-1]] = 1
    start = torch.tensor([1 / copies] * copies + [0.0] * copies, dtype=torch.float64)
    return Decisions(transition.to(device), reward.to(device), start.to(device))


def lock_factors(copies: int = 3) -> Tensor:
    """What one sees of the states of a `combination_lock` in parts: good or bad, and the binary digits of the copy.

    Args:
        copies: as in the lock.

    Returns:
        ``(2 * copies, 1 + digits)`` int64, the first column 0 in good states.

    Example:
        >>> lock_factors(2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    check_count(copies=copies)
    state = torch.arange(2 * copies)
    digits = torch.arange((copies - 1).bit_length())
    return torch.cat([(state // copies)[:, None], (state % copies)[:, None] >> digits & 1], 1)


@full_precision
def policy_value(process: Decisions, policy: Tensor) -> Tensor:
    """Exact expected sum of rewards.

    Args:
        process: MDP or game.
        policy: ``(H, S, *A)`` probabilities of the actions; in a game, of the joint actions.

    Returns:
        Scalar.
    """
    check_decisions(process)
    shape = process.reward.shape
    check_shapes(policy=(policy, " ".join(map(str, shape))))
    check_entries(0, 1 + 1e-4, policy=policy)
    value = torch.zeros_like(process.start)
    for p, r, pi in reversed(list(zip(process.transition, process.reward, policy, strict=True))):
        value = (pi * (r + p @ value)).flatten(1).sum(1)  # (S,)
    return process.start @ value


@full_precision
def optimal_value(process: Decisions) -> Tensor:
    """Exact value of the best policy of an MDP, a scalar."""
    check_decisions(process)
    if process.reward.ndim != 3:
        raise ValueError(f"process: expected one action, got rewards of shape {tuple(process.reward.shape)}")
    value = torch.zeros_like(process.start)
    for p, r in reversed(list(zip(process.transition, process.reward, strict=True))):
        value = (r + p @ value).amax(1)
    return process.start @ value


@full_precision
def exploitability(game: Decisions, row: Tensor, column: Tensor) -> Tensor:
    """What both players could gain together by answering the other one best; 0 in equilibrium only.

    Args:
        game: a zero-sum game.
        row: ``(H, S, A)`` probabilities.
        column: ``(H, S, B)`` probabilities.

    Returns:
        Scalar, at least 0.
    """
    check_decisions(game, name="game")
    if game.reward.ndim != 4:
        raise ValueError(f"game: expected two players, got rewards of shape {tuple(game.reward.shape)}")
    horizon, states, *actions = game.reward.shape
    shapes = [f"{horizon} {states} {n}" for n in actions]
    check_shapes(row=(row, shapes[0]), column=(column, shapes[1]))
    check_entries(0, 1 + 1e-4, row=row, column=column)
    for name, policy in (("row", row), ("column", column)):
        if ((policy.sum(-1) - 1).abs() > 1e-2).any():
            raise ValueError(f"{name}: expected probabilities that sum to 1 in the last dimension")
    against_column = Decisions(
        torch.einsum("zsijt,zsj->zsit", game.transition, column),
        torch.einsum("zsij,zsj->zsi", game.reward, column),
        game.start,
    )
    against_row = Decisions(
        torch.einsum("zsijt,zsi->zsjt", game.transition, row),
        -torch.einsum("zsij,zsi->zsj", game.reward, row),
        game.start,
    )
    return optimal_value(against_column) + optimal_value(against_row)


def _low_rank(
    states: int,
    actions: tuple[int, ...],
    horizon: int,
    rank: int,
    concentration: float,
    seed: int,
    device: torch.device | str | None,
) -> Decisions:
    check_count(states=states, horizon=horizon, rank=rank)
    check_count(**{"actions" if len(actions) == 1 else f"actions[{i}]": a for i, a in enumerate(actions)})
    check_positive(concentration=concentration)
    check_count(0, seed=seed)
    check_device(device)
    rng = np.random.default_rng(seed)
    phi = rng.dirichlet([concentration] * rank, (horizon, states, *actions))  # (H, S, *A, d)
    psi = rng.dirichlet([concentration] * states, (horizon, rank))  # (H, d, S)
    if not (np.isfinite(phi).all() and np.isfinite(psi).all()):
        raise ValueError(
            f"concentration: expected one that the Dirichlet distribution can draw with, got {concentration:g}"
        )
    transition = torch.from_numpy(np.einsum("h...d,hdt->h...t", phi, psi))
    reward = torch.from_numpy(rng.random((horizon, states, *actions)))
    start = torch.full((states,), 1 / states, dtype=torch.float64)
    return Decisions(transition.to(device), reward.to(device), start.to(device))
