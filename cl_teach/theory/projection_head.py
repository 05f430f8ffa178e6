r"""Investigating the Benefits of Projection Head for Representation Learning. Yihao Xue, Eric Gan, Jiayi Ni, Siddharth
Joshi, Baharan Mirzasoleiman; ICLR 2024; https://arxiv.org/abs/2403.11391.

In a linear network the loss fixes only the product of the layers. Balanced layers share each singular value evenly,
so the output of layer :math:`l` of :math:`L` carries a feature whose end-to-end weight is :math:`s` with weight

.. math:: s^{l/L}, \qquad\text{with}\qquad s = \frac{\sqrt{1-\alpha}\,\varphi}{\varphi^2+\nu}

for a feature of strength :math:`\varphi` that the augmentation scrambles with probability :math:`\alpha` under noise
:math:`\nu`. What changes and why: features become more unequal with every layer, so what the loss wants small
(scrambled, weak or strong features) is still larger below the head than above it. With a thresholding non-linearity
the head can delete a feature altogether. And because the effect is only a re-weighting, a *fixed* head can replace
the trained one.

Paper versus code. (1) The authors' repository has the image experiments and the fixed head, not the linear theory;
the theory here (in `linear_model` and below) is derived in the chapter from the setting that the abstract names. (2)
In their last revision the trained MLP head is commented out and the fixed head is always used. (3) The fixed weights
:math:`\kappa^{-k}` underflow for wide layers (float32, :math:`\kappa=1.5`: exactly 0 beyond k = 256); those
coordinates then get no gradient, which is stated rather than repaired. (4) Their SupCon divides by the number of
positives, so an anchor without one is an error here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_positive,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.precision import full_precision
from ..models.fixed_head import FixedHead

__all__ = [
    "DiagonalModel",
    "FixedHead",
    "balanced_layers",
    "diagonal_loss",
    "diagonal_model",
    "end_to_end_weight",
    "feature_weights",
]


@full_precision
def end_to_end_weight(strength: Tensor, disruption: Tensor, noise: float) -> Tensor:
    r"""The weight :math:`s=\sqrt{1-\alpha}\,\varphi/(\varphi^2+\nu)` that the minimizer gives a feature.

    Zero for a fully scrambled feature, for a vanishing one and, slowly, for a very strong one; largest at
    :math:`\varphi = \sqrt\nu`. Below the head of a balanced two-layer network it is the square root of this.

    Args:
        strength: ``(n,)``, :math:`\varphi \ge 0`.
        disruption: ``(n,)``, :math:`\alpha` in [0, 1], the probability that the augmentation redraws the feature.
        noise: variance :math:`\nu \ge 0`.

    Returns:
        ``(n,)``; 0 where strength and noise are both 0.

    Example:
        >>> end_to_end_weight(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0]), noise=0.25).tolist()
        [1.0, 0.0]
    """
    check_shapes(strength=(strength, "n"), disruption=(disruption, "n"))
    check_entries(0, math.inf, strength=strength)
    check_entries(0, 1, disruption=disruption)
    check_in_range(0, math.inf, noise=noise)
    variance = strength.square() + noise
    weight = (1 - disruption).sqrt() * strength / torch.where(variance > 0, variance, 1.0)
    return finite_result(weight, strength=strength, noise=noise)


def balanced_layers(
    depth: int,
    dim: int,
    size: float,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """Square layers ``size`` times a random orthogonal matrix each: exactly balanced, W_{l+1}^T W_{l+1} = W_l W_l^T.

    Args:
        depth: number of layers, at least 1.
        dim: width of all of them.
        size: singular value of each layer, greater than 0.
        generator: source of randomness (CPU).
        dtype: float32 or float64.

    Returns:
        ``depth`` tensors ``(dim, dim)`` that require gradients, first layer first.
    """
    check_count(depth=depth, dim=dim)
    check_positive(size=size)
    check_generator(generator)
    check_type(torch.dtype, dtype=dtype)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    draws = torch.randn(depth, dim, dim, generator=generator, dtype=dtype)
    return [finite_result(size * q, size=size).requires_grad_() for q in torch.linalg.qr(draws).Q]


@full_precision
def feature_weights(layers: Sequence[Tensor], features: Tensor) -> Tensor:
    r"""How large each feature is after each layer: :math:`\lVert W_l\cdots W_1 v_i\rVert`.

    Args:
        layers: weights, first layer first; layer l is ``(width_l, width_{l-1})``.
        features: ``(d, n)``, one feature direction a column.

    Returns:
        ``(len(layers), n)``.
    """
    check_type(Sequence, layers=layers)
    check_batch(len(layers), 1, name="layers", why="(weight matrices)")
    check_shapes(features=(features, "d n"))
    weights, x = [], features
    for i, layer in enumerate(layers):
        check_shapes(features=(features, "d n"), **{f"layers[{i}]": (layer, "out in")})
        if layer.shape[1] != len(x):
            raise ValueError(
                f"layers[{i}], features: a layer of shape {tuple(layer.shape)} cannot follow {len(x)} coordinates"
            )
        x = finite_result(layer @ x, layers=layer, features=features)
        weights.append(torch.linalg.vector_norm(x, dim=0))
    return finite_result(torch.stack(weights), layers=layers[-1], features=features)


class DiagonalModel(NamedTuple):
    """Outputs of the two-layer diagonal network with a threshold.

    Attributes:
        pre: ``(n,)`` size of each feature below the threshold, |w1| phi.
        output: ``(n,)`` size of each feature at the output, w2 max(pre - b, 0).
        active: ``(n,)`` boolean, whether the feature passes the threshold.
    """

    pre: Tensor
    output: Tensor
    active: Tensor


@full_precision
def diagonal_model(w1: Tensor, w2: Tensor, strength: Tensor, threshold: Tensor | float) -> DiagonalModel:
    r"""A two-layer network with one weight a feature and an odd soft threshold b between the layers.

    The first layer computes :math:`h_i = S_b(w_{1i} x_i)` with :math:`S_b(t) = \mathrm{relu}(t-b) -
    \mathrm{relu}(-t-b)`, the second :math:`z_i = w_{2i} h_i`. For :math:`x_i = \pm\varphi_i` only magnitudes matter.

    Args:
        w1: ``(n,)`` first-layer weights.
        w2: ``(n,)`` second-layer weights.
        strength: ``(n,)``, :math:`\varphi \ge 0`.
        threshold: :math:`b \ge 0`, shared; a number or a 0-d tensor.
    """
    check_shapes(w1=(w1, "n"), w2=(w2, "n"), strength=(strength, "n"))
    check_entries(0, math.inf, strength=strength)
    check_in_range(0, math.inf, threshold=threshold)
    pre = w1.abs() * strength
    output = finite_result(w2 * F.relu(pre - threshold), w1=w1, w2=w2, strength=strength)
    return DiagonalModel(finite_result(pre, w1=w1, strength=strength), output, pre > threshold)


@full_precision
def diagonal_loss(w1: Tensor, w2: Tensor, strength: Tensor, disruption: Tensor, threshold: Tensor | float) -> Tensor:
    r"""Noiseless population loss of `diagonal_model`: :math:`\sum_i -2(1-\alpha_i)z_i^2 + z_i^4`.

    Its gradient is exactly zero for a feature at or below the threshold: a feature that the head deletes stays in the
    layer below, frozen at the size it had.

    Args:
        w1: ``(n,)`` first-layer weights.
        w2: ``(n,)`` second-layer weights.
        strength: ``(n,)``, :math:`\varphi \ge 0`.
        disruption: ``(n,)``, :math:`\alpha` in [0, 1].
        threshold: :math:`b \ge 0`.

    Returns:
        Scalar.
    """
    check_shapes(w1=(w1, "n"), w2=(w2, "n"), strength=(strength, "n"), disruption=(disruption, "n"))
    check_entries(0, 1, disruption=disruption)
    z = diagonal_model(w1, w2, strength, threshold).output
    return finite_result((-2 * (1 - disruption) * z.square() + z.pow(4)).sum(), w1=w1, w2=w2, strength=strength)
