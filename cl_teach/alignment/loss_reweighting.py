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
`redundant_regression` is this book's example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_batch, check_choice, check_embeddings, check_in_range, check_mask, check_positive
from ..models.sequence import token_log_probability

__all__ = [
    "STRATEGIES",
    "Redundant",
    "Reweighted",
    "ReweightedTraining",
    "device_loss",
    "effective_sample_size",
    "place_in_range",
    "redundant_regression",
    "reweighted_loss",
    "sample_weights",
    "scores",
    "sequence_losses",
    "temperature_at",
]

STRATEGIES = ("uniform", "linupper", "quadratic", "extremes", "upper")


class Reweighted(NamedTuple):
    """The scalar ``loss``, and ``weights (M,)``, detached."""

    loss: Tensor
    weights: Tensor


class Redundant(NamedTuple):
    """``inputs (n, d)``, ``targets (n,)``, which rows are ``informative`` or ``corrupted``, and ``truth (d,)``."""

    inputs: Tensor
    targets: Tensor
    informative: Tensor
    corrupted: Tensor
    truth: Tensor


def place_in_range(losses: Tensor) -> Tensor:
    """Place h ``(M,)`` in [-1, 1] of each loss between the smallest and the largest, detached.

    A range below 1e-6 counts as 1e-6.

    Raises:
        TypeError, ValueError: not a floating vector, NaN.
    """
    check_embeddings(ndim=1, losses=losses)
    losses = losses.detach()
    low, high = losses.aminmax()
    # both distances are exact zeros for equal losses; 2 loss - (high + low) would leave rounding
    return ((losses - low) - (high - losses)) / (high - low).clamp(min=1e-6)


def scores(place: Tensor, strategy: str = "linupper") -> Tensor:
    """Scores f(h) ``(M,)``, all within an interval of length 1.

    Args:
        place: ``(M,)`` h in [-1, 1], see `place_in_range`.
        strategy: "uniform": 0; "linupper": min(h + 1, 1); "quadratic": 1 - h^2, for middle losses; "extremes": abs(h),
            for both ends; "upper": (h + 1) / 2, without a cap.

    Raises:
        TypeError, ValueError: wrong dtype; another strategy, a place out of range.

    Source: Sow et al. (2025), strategies; "upper" from the released code.
    """
    check_choice(STRATEGIES, strategy=strategy)
    check_embeddings(ndim=1, place=place)
    check_in_range(-1 - 1e-6, 1 + 1e-6, place=place)
    if strategy == "linupper":
        return (place + 1).clamp(max=1)
    if strategy == "quadratic":
        return 1 - place.square()
    if strategy == "extremes":
        return place.abs()
    return (place + 1) / 2 if strategy == "upper" else torch.zeros_like(place)


def sample_weights(losses: Tensor, temperature: float = 0.4, strategy: str = "linupper") -> Tensor:
    """Weights p ``(M,)`` that sum to 1; the largest is at most exp(1 / temperature) times the smallest.

    Args:
        losses: ``(M,)`` of the whole batch, over all devices.
        temperature: r, greater than 0.
        strategy: see `scores`.

    Raises:
        TypeError, ValueError: wrong dtype; temperature not positive, another strategy, NaN.

    Source: Sow et al. (2025), weights.
    """
    check_positive(temperature=temperature)
    return (scores(place_in_range(losses), strategy) / temperature).softmax(0)


def reweighted_loss(losses: Tensor, temperature: float = 0.4, strategy: str = "linupper") -> Reweighted:
    """Weighted sum of ``(M,)`` losses; its derivative in loss i is weight i.

    Raises:
        TypeError, ValueError: as `sample_weights`.
    """
    weights = sample_weights(losses, temperature, strategy)
    return Reweighted(weights @ losses, weights)


def device_loss(losses: Tensor, weights: Tensor, device: int, devices: int) -> Tensor:
    """What one of several devices minimizes, so that the mean of their gradients is the gradient of the whole loss.

    Args:
        losses: ``(M / devices,)`` of this device's slice.
        weights: ``(M,)`` of the whole batch.
        device: global index of this device; with several machines the index within one would be wrong.
        devices: how many there are.

    Raises:
        TypeError, ValueError: wrong dtype; the slices do not fit, the index out of range.
    """
    check_embeddings(ndim=1, losses=losses, weights=weights)
    check_positive(devices=devices)
    check_in_range(0, devices - 1, device=device)
    if len(losses) * devices != len(weights):
        raise ValueError(f"losses: expected {len(weights)} / {devices} of them, got {len(losses)}")
    start = device * len(losses)
    return devices * (weights[start : start + len(losses)].detach() @ losses)


def effective_sample_size(weights: Tensor) -> Tensor:
    """How many equally weighted samples would count the same: 1 / sum of squares of ``(M,)`` weights that sum to 1."""
    check_embeddings(ndim=1, weights=weights)
    check_in_range(0, 1, weights=weights)
    return 1 / weights.square().sum()


def sequence_losses(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean token cross-entropy ``(M,)`` of every sequence over its tokens that count.

    Args:
        logits: ``(M, T, V)``; position t predicts position t of the labels.
        labels: ``(M, T)``.
        valid: ``(M, T)`` boolean; None for all.

    Raises:
        TypeError, ValueError: wrong dtype; shapes do not fit, a sequence without a token that counts, NaN.
    """
    log_p = token_log_probability(logits, labels)  # (M, T)
    if valid is None:
        return -log_p.mean(1)
    check_mask(valid, tuple(labels.shape), name="valid")
    if not bool(valid.any(1).all()):
        raise ValueError("valid: expected at least one True in every row, got a sequence without one")
    return -(log_p * valid).sum(1) / valid.sum(1)


def temperature_at(step: int, stages: Sequence[tuple[int, float]]) -> float:
    """Temperature of a step: that of the last stage ``(first step, temperature)`` that has begun.

    An early stage of a high temperature is the burn-in, in which losses do not tell much yet.

    Raises:
        ValueError: no stage begins at 0, stages out of order, a temperature not positive, a negative step.
    """
    check_in_range(0, float("inf"), step=step)
    starts = [start for start, _ in stages]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"stages: expected first steps that begin at 0 and increase, got {starts}")
    for _, temperature in stages:
        check_positive(temperature=temperature)
    return [temperature for start, temperature in stages if start <= step][-1]


class ReweightedTraining(nn.Module):
    """A language model trained on batches of sequences with weights from their losses.

    ``model(tokens)`` returns states and logits ``(M, T, V)``. State: the model, the optimizer and ``steps``, which
    decides on the temperature.

    Source: Sow et al. (2025), training with a burn-in of uniform weights.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        strategy: str = "linupper",
        stages: Sequence[tuple[int, float]] = ((0, 100.0), (1000, 0.4)),
        max_norm: float = 1.0,
    ) -> None:
        """Start.

        Args:
            model: trained in place.
            optimizer: of its parameters.
            strategy: see `scores`.
            stages: see `temperature_at`; a temperature of 100 is as good as uniform.
            max_norm: to which the gradient is clipped.

        Raises:
            ValueError: another strategy, stages out of order, max_norm not positive.
        """
        super().__init__()
        check_choice(STRATEGIES, strategy=strategy)
        check_positive(max_norm=max_norm)
        temperature_at(0, stages)
        self.model, self.optimizer, self.strategy, self.max_norm = model, optimizer, strategy, max_norm
        self.stages, self.steps = tuple(stages), 0

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Reweighted:
        """The loss of sequences ``(M, T + 1)``; ``valid (M, T)`` marks the tokens from the second on that count."""
        losses = sequence_losses(self.model(tokens[:, :-1])[1], tokens[:, 1:], valid)
        return reweighted_loss(losses, temperature_at(self.steps, self.stages), self.strategy)

    def step(self, tokens: Tensor, valid: Tensor | None = None) -> Reweighted:
        """One step; returns the loss before it and the weights."""
        found = self(tokens, valid)
        self.optimizer.zero_grad()
        found.loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        self.steps += 1
        return Reweighted(found.loss.detach(), found.weights)


def redundant_regression(
    n: int = 2000,
    width: int = 50,
    *,
    informative: float = 0.2,
    scale: float = 0.1,
    corrupted: float = 0.0,
    seed: int = 0,
) -> Redundant:
    """Linear regression in which most rows are short and say next to nothing.

    Args:
        n: number of rows.
        width: d.
        informative: share of rows of norm about 1.
        scale: norm of the others.
        corrupted: share of rows with a target drawn anew, three times as large as usual.
        seed: of all draws, on the CPU.

    Raises:
        ValueError: a count not positive, a share outside [0, 1].
    """
    check_positive(width=width, scale=scale)
    check_batch(n, 2, name="n", why="to have weights")
    check_in_range(0, 1, informative=informative, corrupted=corrupted)
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(width, generator=generator) / width**0.5
    long = torch.rand(n, generator=generator) < informative
    directions = torch.randn(n, width, generator=generator) / width**0.5  # norms of about 1
    inputs = directions * torch.where(long, 1.0, scale)[:, None]
    targets, wrong = inputs @ truth, torch.rand(n, generator=generator) < corrupted
    noise = 3 * torch.randn(n, generator=generator) * truth.norm() / width**0.5
    return Redundant(inputs, torch.where(wrong, noise, targets), long, wrong, truth)
