r"""Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining. Daouda Sow, Herbert
Woisetschläger, Saikiran Bulusu, Shiqiang Wang, Hans-Arno Jacobsen, Yingbin Liang; ICLR 2025; https://arxiv.org/abs/2502.06733.

Of M sequences with mean token losses :math:`\ell_i`, each has the place :math:`h_i` between the batch's extremes, a
score :math:`f(h_i)`, and a weight from a softmax of the scores:

.. math::
    h_i = \frac{2\ell_i-(\ell_{max}+\ell_{min})}{\ell_{max}-\ell_{min}},\qquad
    p_i = \frac{e^{f(h_i)/r}}{\sum_j e^{f(h_j)/r}},\qquad L = \sum_i p_i\,\ell_i .

What changes and why: pretraining treats all sequences alike, although many are redundant, with a loss near 0. Weights
come online from the losses of the batch itself, so nothing is stored for a sample. The recommended score, LinUpper, is
:math:`\min(h+1, 1)`: low losses count less, and above the middle of the range all count the same, so that outliers gain
nothing. The weights maximize :math:`\langle p,f\rangle - r\,\mathrm{KL}(p\|\text{uniform})`: a large temperature r
means uniform training, a small one hard selection. No gradient flows through the weights.

Paper versus code. (1) LinUpper is in the paper's text and the small code base; the large one has only the other three,
and which of them gave the largest models could not be verified. (2) The small trainer also multiplies by the share of
tokens of a sequence; for sequences of equal length that is L as above, which is used here for all. (3) Losses are
rescaled by the extremes, not standardized: one outlier pushes all others toward h = -1, and then LinUpper acts like the
uncapped score. (4) With equal losses the code's form rounds to any h; here it is 0 exactly. (5) Two stages of r, with a
hard switch, were seen in the code; a smooth schedule was not. The released code was read, not the body of the paper.
The example is `cl_teach.datasets.redundant_regression`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision
from ..models.sequence import read_tokens, token_log_probability

__all__ = [
    "STRATEGIES",
    "Reweighted",
    "ReweightedTraining",
    "device_loss",
    "effective_sample_size",
    "place_in_range",
    "reweighted_loss",
    "sample_weights",
    "scores",
    "sequence_losses",
    "temperature_at",
]

STRATEGIES = ("uniform", "linupper", "quadratic", "extremes", "upper")
# A smaller range of losses counts as this one, as released.
NARROWEST = 1e-6


class Reweighted(NamedTuple):
    """The scalar ``loss``, and ``weights (M,)``, detached."""

    loss: Tensor
    weights: Tensor


@full_precision
def place_in_range(losses: Tensor) -> Tensor:
    """Place h ``(M,)`` in [-1, 1] of each loss between the smallest and the largest, detached.

    A range below 1e-6 counts as 1e-6.
    """
    check_shapes(losses=(losses, "M"))
    losses = losses.detach()
    low, high = losses.aminmax()
    # both distances are exact zeros for equal losses; 2 loss - (high + low) would leave rounding
    return ((losses - low) - (high - losses)) / (high - low).clamp(min=NARROWEST)


@full_precision
def scores(place: Tensor, strategy: str = "linupper") -> Tensor:
    """Scores f(h) ``(M,)``, all within an interval of length 1.

    Args:
        place: ``(M,)`` h in [-1, 1], see `place_in_range`.
        strategy: "uniform": 0; "linupper": min(h + 1, 1); "quadratic": 1 - h^2, for middle losses; "extremes": abs(h),
            for both ends; "upper": (h + 1) / 2, without a cap.

    Source: Sow et al. (2025), strategies; "upper" from the released code.
    """
    check_choice(STRATEGIES, strategy=strategy)
    check_shapes(place=(place, "M"))
    check_entries(-1 - 1e-6, 1 + 1e-6, place=place)
    if strategy == "linupper":
        return (place + 1).clamp(max=1)
    if strategy == "quadratic":
        return 1 - place.square()
    if strategy == "extremes":
        return place.abs()
    return (place + 1) / 2 if strategy == "upper" else torch.zeros_like(place)


@full_precision
def sample_weights(losses: Tensor, temperature: float = 0.4, *, strategy: str = "linupper") -> Tensor:
    """Weights p ``(M,)`` that sum to 1; the largest is at most exp(1 / temperature) times the smallest.

    Args:
        losses: ``(M,)`` of the whole batch, over all devices.
        temperature: r, greater than 0.
        strategy: see `scores`.

    Source: Sow et al. (2025), weights.
    """
    check_shapes(losses=(losses, "M"))
    check_positive(temperature=temperature)
    f = scores(place_in_range(losses), strategy)
    return ((f - f.max()) / temperature).clamp(min=torch.finfo(f.dtype).min).softmax(0)


@full_precision
def reweighted_loss(losses: Tensor, temperature: float = 0.4, *, strategy: str = "linupper") -> Reweighted:
    """Weighted sum of ``(M,)`` losses; its derivative in loss i is weight i. Arguments as `sample_weights`.

    Example:
        >>> losses = torch.tensor([0.0, 1.0, 2.0, 3.0], requires_grad=True)
        >>> found = reweighted_loss(losses, 0.01)  # a low temperature: the upper half of the range, all alike
        >>> found.weights.round(decimals=3).tolist()
        [0.0, 0.0, 0.5, 0.5]
        >>> bool((torch.autograd.grad(found.loss, losses)[0] == found.weights).all())
        True
    """
    weights = sample_weights(losses, temperature, strategy=strategy)
    return Reweighted(weights @ losses, weights)


@full_precision
def device_loss(losses: Tensor, weights: Tensor, device: int, devices: int) -> Tensor:
    """What one of several devices minimizes, so that the mean of their gradients is the gradient of the whole loss.

    Args:
        losses: ``(M / devices,)`` of this device's slice.
        weights: ``(M,)`` of the whole batch.
        device: global index of this device; with several machines the index within one would be wrong.
        devices: how many there are.
    """
    check_shapes(losses=(losses, "m"), weights=(weights, "M"))
    check_count(devices=devices)
    check_count(0, devices - 1, device=device)
    if len(losses) * devices != len(weights):
        raise ValueError(
            f"losses, weights, devices: expected {devices} equal slices of {len(weights)}, got one of {len(losses)}"
        )
    check_entries(0, 1, weights=weights)
    start = device * len(losses)
    return devices * (weights[start : start + len(losses)].detach() @ losses)


@full_precision
def effective_sample_size(weights: Tensor) -> Tensor:
    """How many equally weighted samples would count the same: 1 / sum of squares of ``(M,)`` weights that sum to 1."""
    check_shapes(weights=(weights, "M"))
    check_entries(0, 1, weights=weights)
    if abs(float(weights.detach().sum()) - 1) > 2e-2:  # half precision leaves so much of 1
        raise ValueError(f"weights: expected a sum of 1, got {float(weights.sum()):g}")
    return 1 / weights.square().sum()


@full_precision
def sequence_losses(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean token cross-entropy ``(M,)`` of every sequence over its tokens that count.

    Args:
        logits: ``(M, T, V)``; position t predicts position t of the labels.
        labels: ``(M, T)`` integers.
        valid: ``(M, T)`` boolean; None for all.
    """
    check_shapes(logits=(logits, "M T V"), labels=(labels, "M T", int), valid=(valid, "M T?", bool))
    log_p = token_log_probability(logits, labels)  # (M, T)
    if valid is None:
        return -log_p.mean(1)
    if not bool(valid.any(1).all()):
        raise ValueError("valid: expected at least one True in every row, got a sequence without one")
    return -(log_p * valid).sum(1) / valid.sum(1)


def temperature_at(step: int, stages: Sequence[tuple[int, float]]) -> float:
    """Temperature of a step: that of the last stage ``(first step, temperature)`` that has begun.

    An early stage of a high temperature is the burn-in, in which losses do not tell much yet. The first stage begins
    at 0, and first steps increase.
    """
    check_count(0, step=step)
    check_type((list, tuple), stages=stages)
    for i, stage in enumerate(stages):
        check_type((list, tuple), **{f"stages[{i}]": stage})
        if len(stage) != 2:
            raise ValueError(f"stages[{i}]: expected a first step and a temperature, got {stage!r}")
        check_count(0, **{f"stages[{i}][0]": stage[0]})
        check_positive(**{f"stages[{i}][1]": stage[1]})
    starts = [start for start, _ in stages]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"stages: expected first steps that begin at 0 and increase, got {starts}")
    return [temperature for start, temperature in stages if start <= step][-1]


class ReweightedTraining(nn.Module):
    """A language model trained on batches of sequences with weights from their losses; a call gives the loss.

    ``model(tokens)`` returns states and logits ``(M, T, V)``. Train it with `cl_teach.training.fit` (``loss`` and
    ``after_step``), or give it an optimizer and call ``step``, which also clips the gradient, as released. State: the
    model, the optimizer and ``steps``, which decides on the temperature.

    Source: Sow et al. (2025), training with a burn-in of uniform weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strategy: str = "linupper",
        stages: Sequence[tuple[int, float]] = ((0, 100.0), (1000, 0.4)),
        max_norm: float = 1.0,
    ) -> None:
        """Start.

        Args:
            model: trained in place.
            optimizer: of its parameters, for ``step``.
            strategy: see `scores`.
            stages: see `temperature_at`; a temperature of 100 is as good as uniform.
            max_norm: to which ``step`` clips the gradient.
        """
        super().__init__()
        check_module(model=model)
        check_type((torch.optim.Optimizer, type(None)), optimizer=optimizer)
        check_choice(STRATEGIES, strategy=strategy)
        check_positive(max_norm=max_norm)
        temperature_at(0, stages)
        self.model, self.optimizer, self.strategy, self.max_norm = model, optimizer, strategy, max_norm
        self.stages, self.steps = tuple(stages), 0

    def get_extra_state(self) -> dict[str, Any]:
        """Number of steps, and what the optimizer remembers."""
        optimizer = None if self.optimizer is None else copy.deepcopy(self.optimizer.state_dict())
        return {"steps": self.steps, "optimizer": optimizer}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps = state["steps"]
        if self.optimizer is not None and state["optimizer"] is not None:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def loss(
        self, tokens: Tensor, valid: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Reweighted:
        """The loss of sequences ``(M, T + 1)``; ``valid (M, T)`` marks the tokens from the second on that count."""
        return self._loss("tokens", tokens, valid)

    def _loss(self, name: str, tokens: Tensor, valid: Tensor | None) -> Reweighted:
        check_shapes(**{name: (tokens, "M T", int)})
        if tokens.shape[1] < 2:
            raise ValueError(f"{name}: expected at least 2 a sequence, the first is only read, got {tokens.shape[1]}")
        check_shapes(**{name: (tokens[:, 1:], "M T", int)}, valid=(valid, "M T?", bool))
        tokens = check_labels(tokens.flatten(), name=name).view_as(tokens)
        logits = read_tokens(self.model, tokens[:, :-1], name=name)[1]
        check_labels(tokens.flatten(), name=name, num_classes=logits.shape[-1])
        losses = sequence_losses(logits, tokens[:, 1:], valid)
        return reweighted_loss(losses, temperature_at(self.steps, self.stages), strategy=self.strategy)

    def forward(
        self, tokens: Tensor, valid: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Reweighted:
        """As a criterion: the loss."""
        return self.loss(tokens, valid, generator=generator)

    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1

    def step(self, batch: Tensor, valid: Tensor | None = None) -> Reweighted:
        """One step with the optimizer given at the start; returns the loss before it and the weights.

        The method owns this loop because training has phases: a burn-in of nearly uniform weights, then one
        temperature after another, counted in steps of an optimizer that a checkpoint takes along.

        Args:
            batch: sequences ``(M, T + 1)``.
            valid: ``(M, T)``, see ``loss``.
        """
        if self.optimizer is None:
            raise ValueError("optimizer: expected one at construction to take steps with, got None")
        found = self._loss("batch", batch, valid)
        self.optimizer.zero_grad()
        found.loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        self.after_step()
        return Reweighted(found.loss.detach(), found.weights)
