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

from ..core.checks import check_embeddings, check_in_range, check_positive, check_same_shape

__all__ = [
    "Decisions",
    "combination_lock",
    "exploitability",
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

    Raises:
        TypeError, ValueError: a size or concentration that is not a positive number.
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

    Raises:
        TypeError, ValueError: a size too small, a consolation outside [0, 1].
    """
    check_positive(horizon=horizon, copies=copies)
    check_in_range(2, float("inf"), actions=actions)
    check_in_range(0, 1, consolation=consolation)
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


def policy_value(process: Decisions, policy: Tensor) -> Tensor:
    """Exact expected sum of rewards.

    Args:
        process: MDP or game.
        policy: ``(H, S, *A)`` probabilities of the actions; in a game, of the joint actions.

    Returns:
        Scalar.

    Raises:
        TypeError, ValueError: not a floating table of that shape.
    """
    check_embeddings(ndim=process.reward.ndim, policy=policy)
    check_same_shape(policy=policy, reward=process.reward)
    value = torch.zeros_like(process.start)
    for p, r, pi in reversed(list(zip(process.transition, process.reward, policy, strict=True))):
        value = (pi * (r + p @ value)).flatten(1).sum(1)  # (S,)
    return process.start @ value


def optimal_value(process: Decisions) -> Tensor:
    """Exact value of the best policy of an MDP, a scalar.

    Raises:
        ValueError: a game.
    """
    if process.reward.ndim != 3:
        raise ValueError(f"process: expected one action, got rewards of shape {tuple(process.reward.shape)}")
    value = torch.zeros_like(process.start)
    for p, r in reversed(list(zip(process.transition, process.reward, strict=True))):
        value = (r + p @ value).amax(1)
    return process.start @ value


def exploitability(game: Decisions, row: Tensor, column: Tensor) -> Tensor:
    """What both players could gain together by answering the other one best; 0 in equilibrium only.

    Args:
        game: a zero-sum game.
        row: ``(H, S, A)`` probabilities.
        column: ``(H, S, B)`` probabilities.

    Returns:
        Scalar, at least 0.

    Raises:
        TypeError, ValueError: policies whose shape does not fit the game.
    """
    check_embeddings(ndim=3, row=row, column=column)
    check_same_shape(row=row, reward=game.reward.select(-1, 0))
    check_same_shape(column=column, reward=game.reward.select(2, 0))
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
    check_positive(states=states, horizon=horizon, rank=rank, concentration=concentration)
    check_positive(**{"actions" if len(actions) == 1 else f"actions[{i}]": a for i, a in enumerate(actions)})
    rng = np.random.default_rng(seed)
    phi = rng.dirichlet([concentration] * rank, (horizon, states, *actions))  # (H, S, *A, d)
    psi = rng.dirichlet([concentration] * states, (horizon, rank))  # (H, d, S)
    transition = torch.from_numpy(np.einsum("h...d,hdt->h...t", phi, psi))
    reward = torch.from_numpy(rng.random((horizon, states, *actions)))
    start = torch.full((states,), 1 / states, dtype=torch.float64)
    return Decisions(transition.to(device), reward.to(device), start.to(device))
