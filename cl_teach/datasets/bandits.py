"""Two worlds of one decision each, in which everything can be computed exactly.

In the first the reward has a peak, near what the reference does or far from it. In the second two proxies stand for a
gold score that is best at a point between: whoever climbs the proxies passes it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_count,
    check_device,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
)

__all__ = ["PeakedBandit", "ProxyBandit", "peaked_bandit", "proxy_bandit"]

# Where most of the reference's draws lie, and how widely, on the interval [-1, 1] of the actions.
LOCATION, SCALE = -0.7, 0.4


class PeakedBandit(NamedTuple):
    """``reference (K,)`` probabilities of a policy to start from, and ``rewards (K,)`` of the actions."""

    reference: Tensor
    rewards: Tensor

    def reward(self, actions: Tensor) -> Tensor:
        """Rewards of actions ``(n, N)``, or means over the tokens of actions ``(n, N, T)``."""
        check_type(Tensor, actions=actions)
        flat = check_labels(actions.flatten(), name="actions", num_classes=len(self.rewards))
        found = self.rewards[flat].view(actions.shape)
        return found.mean(-1) if actions.ndim == 3 else found


class ProxyBandit(NamedTuple):
    """``proxies (K, 2)``, the log-probabilities of a reference, and the ``point (2,)`` where the gold score is best."""

    proxies: Tensor
    log_reference: Tensor
    point: Tensor
    width: float

    def gold(self, rewards: Tensor) -> Tensor:
        r"""Gold score :math:`\prod_i\exp(-((J_i-\theta_i)/w)^2)` of mean proxies J ``(..., 2)``, at most 1."""
        check_shapes(rewards=(rewards, "... 2"))
        return (-((rewards - self.point.to(rewards)) / self.width).square().sum(-1)).exp()


def peaked_bandit(
    actions: int = 100,
    *,
    center: float = 70.0,
    width: float = 10.0,
    draws: int = 10_000,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> PeakedBandit:
    r"""K actions, a reward of :math:`\exp(-((a-c)/w)^2)` and a reference with most of its mass at low indices.

    The reference is a histogram of tanh of a Cauchy variable on [-1, 1]; every bin counts one draw more, so that none
    is empty.

    Args:
        actions: K.
        center: c, in actions: 70 is far from the reference's mass, 20 near.
        width: w.
        draws: from which the reference is counted.
        seed: of the draws, on the CPU.
        device: where the tensors go.

    Source: Tajwar et al., Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data (2024), released
    bandit experiment.
    """
    check_count(2, actions=actions)
    check_count(draws=draws)
    check_count(0, seed=seed)
    check_device(device)
    check_in_range(-float("inf"), float("inf"), center=center)
    check_positive(width=width)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.histc(torch.empty(draws).cauchy_(LOCATION, SCALE, generator=generator).tanh(), actions, -1, 1) + 1
    rewards = (-((torch.arange(actions) - center) / width).square()).exp()
    return PeakedBandit((counts / counts.sum()).to(device), rewards.to(device))


def proxy_bandit(
    actions: int = 60,
    *,
    shared: float = 1.0,
    noise: float = 0.3,
    steepness: float = 6.0,
    point: tuple[float, float] = (0.6, 0.65),
    width: float = 0.15,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> ProxyBandit:
    r"""K actions a in [0, 1]; the proxies give a and :math:`\min(s\,a+(1-s)\,b+\epsilon U, 1)`, b a shuffled a.

    With s = 1 the second proxy follows the first, and no policy can move one without the other. With s = 0 they are
    independent but for chance. The reference is softmax(-6a): both proxies start low.

    Args:
        actions: K.
        shared: s in [0, 1], how much of the second proxy is the first; a knob for their correlation.
        noise: size of the uniform noise U on the second proxy.
        steepness: of the reference.
        point: mean proxies at which the gold score is 1.
        width: of the gold score's peak.
        seed: of all draws, on the CPU.
        device: where the tensors go.
    """
    check_count(2, actions=actions)
    check_in_range(0, 1, shared=shared, noise=noise)
    check_positive(steepness=steepness, width=width)
    check_count(0, seed=seed)
    check_device(device)
    if not isinstance(point, tuple | list) or len(point) != 2:
        raise ValueError(f"point: expected two numbers, got {point!r}")
    check_in_range(-float("inf"), float("inf"), **{f"point[{i}]": x for i, x in enumerate(point)})
    generator = torch.Generator().manual_seed(seed)
    first = torch.linspace(0, 1, actions)
    above = noise * torch.rand(actions, generator=generator)
    other = first[torch.randperm(actions, generator=generator)]
    second = (shared * first + (1 - shared) * other + above).clamp(max=1)
    proxies, log_reference = torch.stack([first, second], dim=1), (-steepness * first).log_softmax(0)
    return ProxyBandit(proxies.to(device), log_reference.to(device), torch.tensor(point).to(device), width)
