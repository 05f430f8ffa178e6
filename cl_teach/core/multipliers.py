"""Lagrange multipliers of expected rewards: weights that grow while a reward is below its threshold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import check_choice, check_generator, check_in_range, check_positive, check_shapes
from .precision import full_precision

__all__ = ["Multipliers", "multiplier_loss", "squash", "violations"]

KINDS = ("equality", "inequality", "upper", "fixed")


@full_precision
def squash(raw: Tensor, kind: str) -> Tensor:
    """Weights ``(N,)`` of raw multipliers.

    Args:
        raw: ``(N,)``.
        kind: "equality": tanh, in (-1, 1); "inequality": sigmoid, in (0, 1); "upper": 1 - softplus, below 1;
            "fixed": as they are.
    """
    check_shapes(raw=(raw, "N"))
    check_choice(KINDS, kind=kind)
    if kind == "fixed":
        return raw
    if kind == "upper":
        return 1 - nn.functional.softplus(raw)
    return raw.tanh() if kind == "equality" else raw.sigmoid()


@full_precision
def violations(to_go: Tensor, thresholds: Tensor) -> Tensor:
    """Mean reward-to-go ``(B, N)`` minus threshold, ``(N,)``; biased low unless rewards come at the end only."""
    check_shapes(to_go=(to_go, "B N"), thresholds=(thresholds, "N"))
    return (to_go.mean(0) - thresholds).detach()


@full_precision
def multiplier_loss(raw: Tensor, violation: Tensor, kind: str) -> Tensor:
    """Sum of weight times violation ``(N,)``; descending it raises the weight of a reward below its threshold."""
    check_shapes(raw=(raw, "N"), violation=(violation, "N"))
    return squash(raw, kind) @ violation.detach()


class Multipliers(nn.Module):
    """Lagrange multipliers with their own gradient descent with momentum.

    State: ``raw (N,)``, ``velocity (N,)`` (its momentum) and ``thresholds (N,)``.

    Source: Moskovitz et al., Confronting Reward Model Overoptimization with Constrained RLHF (2024), as released;
    the bound on ``raw`` is pinned here.
    """

    raw: Tensor
    velocity: Tensor
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
        generator: torch.Generator | None = None,
    ) -> None:
        """Start.

        Args:
            thresholds: ``(N,)``.
            kind: "equality" (xi-PPO), "inequality" (mu-PPO), "upper" (All-PPO) or "fixed" (PPO), see `squash`.
            initial: ``(N,)``, for "fixed" the weights; None for one draw of N(0, 0.01^2) shared by all, for "fixed" 1.
            learning_rate: of the multipliers.
            momentum: of their descent, at least 0.
            max_norm: to which their gradient is clipped.
            bound: of their size.
            generator: of the draw.
        """
        super().__init__()
        check_shapes(thresholds=(thresholds, "N"), initial=(initial, "N?"))
        check_choice(KINDS, kind=kind)
        check_positive(learning_rate=learning_rate, max_norm=max_norm, bound=bound)
        check_in_range(0, 1, momentum=momentum)
        check_generator(generator)
        if initial is None and kind == "fixed":
            initial = torch.ones_like(thresholds)
        elif initial is None:
            initial = 0.01 * torch.randn(1, generator=generator).to(thresholds).expand_as(thresholds)
        self.kind, self.learning_rate, self.momentum = kind, learning_rate, momentum
        self.max_norm, self.bound = max_norm, bound
        self.register_buffer("thresholds", thresholds.detach().clone())
        self.register_buffer("raw", initial.detach().clone())
        self.register_buffer("velocity", torch.zeros_like(self.raw))

    def forward(self) -> Tensor:
        """Weights ``(N,)`` as they are."""
        return squash(self.raw, self.kind)

    def near(self) -> Tensor:
        """Weight of staying near the reference: what the weights leave of N; 1 where the rewards are the objective."""
        return self.raw.new_ones(()) if self.kind in ("upper", "fixed") else len(self.raw) - self().sum()

    def update(self, to_go: Tensor) -> Tensor:
        """One step for rewards-to-go ``(B, N)``; returns the violations ``(N,)``."""
        violation = violations(to_go, self.thresholds)
        if self.kind == "fixed":
            return violation
        raw = self.raw.detach().clone().requires_grad_()
        multiplier_loss(raw, violation.to(raw), self.kind).backward()
        nn.utils.clip_grad_norm_([raw], self.max_norm)
        assert raw.grad is not None
        self.velocity = self.momentum * self.velocity + raw.grad
        self.raw = (self.raw - self.learning_rate * self.velocity).clamp(-self.bound, self.bound)
        return violation
