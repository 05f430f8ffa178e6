r"""Adaptive Multi-head Contrastive Learning. Lei Wang, Piotr Koniusz, Tom Gedeon, Liang Zheng; ECCV 2024;
https://arxiv.org/abs/2310.05615.

C projection heads give C similarities :math:`s^c_{ij}` of a pair, and every pair has a temperature
:math:`\tau^c_{ij}` in every head. Reading a head as a Gaussian of variance :math:`\tau` gives the regularizer
:math:`\Omega(\tau) = \tfrac{d'}2\log\tau + \tfrac1\tau` and, per anchor,

.. math::
    \ell_i = \sum_{c=1}^C \Big(-\frac{s_i^{c+}}{\tau_i^{c+}} + \beta\,\Omega(\tau_i^{c+})
             + \log\sum_n \exp\big(\tfrac{s_{in}^{c-}}{\tau_{in}^{c-}} - \beta\,\Omega(\tau_{in}^{c-})\big)\Big).

The printed loss replaces the log-sum-exp by its largest term in similarity. What changes and why: strong augmentations
make some positives unlike and some negatives alike; an uncertain pair gets a larger temperature and is pulled or pushed
less, and several heads need not agree on what "alike" means.

Paper versus code. The released code cannot be executed. (1) The loss here is the printed one; the released SimCLR
variant has no negatives and can be minimized by collapse. (2) ``form="max"`` picks the hardest negative by
similarity, as printed, not by scaled similarity. (3) The temperature network is the shared two-layer perceptron of
the README, :math:`\tau = lo + (hi-lo)\,\sigma(\phi(z_i)^\top\phi(z_j))`, symmetric in the pair; the code's module
takes the concatenation of the two. (4) The loss is unbounded below without bounds on the temperature; the code's
lower bound of 1e-5 makes terms of size 1e5, so the default here is 0.05.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_positive,
    check_same_shape,
    check_same_width,
)
from ..core.contrast import reduce
from ..core.similarity import normalize, other_view_mask, self_mask

__all__ = ["AMCL", "PairTemperature", "amcl", "optimal_positive_temperature", "pair_temperature", "regularizer"]

FORMS = ("lse", "max")


def regularizer(temperature: Tensor, dim: int) -> Tensor:
    r""":math:`\Omega(\tau) = \tfrac{d'}2\log\tau + \tfrac1\tau`, what keeps a temperature from running away.

    Args:
        temperature: any shape, greater than 0.
        dim: d', width of the embeddings.
    """
    return dim / 2 * temperature.log() + 1 / temperature


def optimal_positive_temperature(similarity: Tensor, dim: int, beta: float = 1.0) -> Tensor:
    r"""The temperature at rest of a positive pair, :math:`\tau^* = 2(\beta - s)/(\beta d')`: unlike pairs get a large
    one.

    Args:
        similarity: any shape, cosines.
        dim: d', width of the embeddings.
        beta: weight of the regularizer, greater than 0.

    Returns:
        Same shape; NaN where s >= beta, because there is no minimum and the temperature runs to its lower bound.

    Raises:
        ValueError: ``dim`` or ``beta`` not positive.

    Derived here from the positive term of the loss.
    """
    check_positive(dim=dim, beta=beta)
    rest = 2 * (beta - similarity) / (beta * dim)
    return torch.where(similarity < beta, rest, torch.nan)


def amcl(
    heads: Tensor, temperatures: Tensor, *, beta: float = 1.0, form: str = "lse", reduction: str = "mean"
) -> Tensor:
    """Multi-head contrastive loss with a temperature for every pair and head.

    Args:
        heads: ``(C, 2N, d)`` outputs of the heads, rows i and i + N are the two views of a sample; any scale.
        temperatures: ``(C, 2N, 2N)``, greater than 0; the diagonal is not used.
        beta: weight of the regularizer, at least 0.
        form: ``"lse"`` (every negative gets gradient) or ``"max"`` (the printed loss, hardest negative only).
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors, summed over heads.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, an odd number of rows, fewer than two samples, NaN, a temperature not positive,
            unknown form.

    Source: Wang et al. (2024), README of the official repository, equations 1.1 and 2.1.
    """
    check_embeddings(ndim=3, heads=heads, temperatures=temperatures)
    check_choice(FORMS, form=form)
    check_in_range(0, math.inf, beta=beta)
    check_positive(temperatures=temperatures)
    c, rows, dim = heads.shape
    if rows % 2:
        raise ValueError(f"heads: expected two views of every sample, an even number of rows, got {rows}")
    check_batch(rows // 2, 2, name="heads (samples)", why="to have a negative")
    if temperatures.shape != (c, rows, rows):
        raise ValueError(f"temperatures: expected shape {(c, rows, rows)}, got {tuple(temperatures.shape)}")
    z = normalize(heads)
    similarity = z @ z.mT  # (C, 2N, 2N)
    scores = similarity / temperatures - beta * regularizer(temperatures, dim)
    positive = other_view_mask(rows // 2, z.device)
    negative = ~(positive | self_mask(rows, z.device))
    attraction = scores[:, positive].view(c, rows)
    if form == "lse":
        repulsion = scores.masked_fill(~negative, -math.inf).logsumexp(-1)
    else:
        hardest = similarity.detach().masked_fill(~negative, -math.inf).argmax(-1, keepdim=True)
        repulsion = scores.gather(-1, hardest).squeeze(-1)
    return reduce((repulsion - attraction).sum(0), reduction)


def pair_temperature(phi1: Tensor, phi2: Tensor, *, low: float = 0.05, high: float = 2.0) -> Tensor:
    r"""Temperatures of pairs from what the shared network says of both sides, row by row.

    .. math:: \tau = lo + (hi - lo)\,\sigma\big(\phi_1^\top\phi_2\big)

    Args:
        phi1: ``(..., k)``.
        phi2: ``(..., k)``.
        low: lower bound, greater than 0.
        high: upper bound, above ``low``.

    Returns:
        ``(...)``, strictly between the bounds up to round-off.

    Raises:
        ValueError: bounds not 0 < low < high, widths differ.
    """
    check_positive(low=low, **{"high - low": high - low})
    check_same_width(phi1=phi1, phi2=phi2)
    return low + (high - low) * torch.sigmoid((phi1 * phi2).sum(-1))


class PairTemperature(nn.Module):
    """One two-layer perceptron for all heads that turns pairs of embeddings into temperatures."""

    def __init__(self, dim: int, *, hidden: int = 128, width: int = 16, low: float = 0.05, high: float = 2.0) -> None:
        """Make the network.

        Args:
            dim: width of the embeddings.
            hidden: width of the hidden layer.
            width: width of phi.
            low: smallest temperature.
            high: largest temperature.
        """
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.low, self.high = low, high

    def forward(self, heads: Tensor) -> Tensor:
        """Temperatures ``(C, m, m)`` of all pairs of ``(C, m, dim)`` embeddings, symmetric."""
        phi = self.phi(heads)  # (C, m, width)
        return pair_temperature(phi[:, :, None], phi[:, None], low=self.low, high=self.high)


class AMCL(nn.Module):
    """The whole method on top of an encoder: several heads and their temperature network; both dropped downstream."""

    def __init__(
        self,
        heads: list[nn.Module],
        dim: int,
        *,
        beta: float = 1.0,
        form: str = "lse",
        low: float = 0.05,
        high: float = 2.0,
    ) -> None:
        """Collect the parts.

        Args:
            heads: C projection heads, features to ``(n, dim)``.
            dim: width of their outputs.
            beta: weight of the regularizer.
            form: see `amcl`.
            low: smallest temperature.
            high: largest temperature.

        Raises:
            ValueError: no heads.
        """
        super().__init__()
        check_batch(len(heads), 1, name="heads", why="to compare anything")
        self.heads = nn.ModuleList(heads)
        self.temperature = PairTemperature(dim, low=low, high=high)
        self.beta, self.form = beta, form

    def forward(self, features1: Tensor, features2: Tensor) -> Tensor:
        """The loss of the encoder's features ``(N, f)`` of two views."""
        check_same_shape(features1=features1, features2=features2)
        features = torch.cat([features1, features2])  # (2N, f)
        z = torch.stack([head(features) for head in self.heads])  # (C, 2N, dim)
        return amcl(z, self.temperature(normalize(z)), beta=self.beta, form=self.form)
