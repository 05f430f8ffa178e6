"""What policy gradients share: how likely an action has become, how much better than expected it was."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_in_range, check_shapes
from .precision import full_precision

__all__ = ["advantages_and_returns", "clipped_policy_loss", "probability_ratio", "reward_to_go"]

# exp(20) = 5e8: no policy that was sampled a moment ago has gone that far, and float32 holds it with room for sums.
LARGEST_LOG_RATIO = 20.0


@full_precision
def probability_ratio(log_p: Tensor, old: Tensor) -> Tensor:
    """How many times as likely an action is now as when it was drawn, ``(...)`` log-probabilities to ``(...)``.

    Beyond exp(20) the ratio is held at that value, with its slope, so that what went wrong can still be pushed back;
    the exponential itself would overflow.
    """
    check_shapes(log_p=(log_p, "..."), old=(old, "..."))
    if log_p.shape != old.shape:
        raise ValueError(f"old: expected shape {tuple(log_p.shape)} as log_p, got {tuple(old.shape)}")
    difference = log_p - old
    return (difference - (difference - LARGEST_LOG_RATIO).clamp(min=0).detach()).exp()


@full_precision
def clipped_policy_loss(log_p: Tensor, old: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's loss of ``(B,)`` tokens; a token whose ratio has already gone too far in its direction has no gradient.

    Args:
        log_p: ``(B,)`` log-probabilities now.
        old: ``(B,)`` the same when the tokens were drawn.
        advantages: ``(B,)``, no gradient flows through them.
        clip: in [0, 1], how far the ratio may go.

    Source: Schulman et al., Proximal Policy Optimization Algorithms (2017), equation 7.
    """
    check_shapes(log_p=(log_p, "b"), old=(old, "b"), advantages=(advantages, "b"))
    check_in_range(0, 1, clip=clip)
    ratio, gain = probability_ratio(log_p, old), advantages.detach()
    return -torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain).mean()


@full_precision
def reward_to_go(rewards: Tensor) -> Tensor:
    """Undiscounted sum from each step to the end, ``(n, T, N)`` to the same shape."""
    check_shapes(rewards=(rewards, "n T N"))
    return rewards.flip(1).cumsum(1).flip(1)


@full_precision
def advantages_and_returns(
    rewards: Tensor, values: Tensor, gamma: float = 0.99, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalized advantages and their returns for whole episodes, ``(n, T, C)`` each, channel by channel.

    Args:
        rewards: ``(n, T, C)``.
        values: ``(n, T, C)`` of the baseline, detached here.
        gamma: discount in [0, 1].
        smoothing: lambda in [0, 1]: 0 looks one step ahead, 1 to the end.

    Source: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation (2016).
    """
    check_shapes(rewards=(rewards, "n T C"), values=(values, "n T C"))
    check_in_range(0, 1, gamma=gamma, smoothing=smoothing)
    values = values.detach()
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)  # nothing comes after the end
    surprise, running, found = rewards + gamma * following - values, torch.zeros_like(values[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        running = surprise[:, t] + gamma * smoothing * running
        found.append(running)
    advantages = torch.stack(found[::-1], dim=1)
    return advantages, advantages + values
