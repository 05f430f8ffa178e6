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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_embeddings, check_in_range, check_positive, check_same_shape

__all__ = [
    "DiagonalModel",
    "FixedHead",
    "balanced_layers",
    "diagonal_loss",
    "diagonal_model",
    "end_to_end_weight",
    "feature_weights",
]


class FixedHead(nn.Module):
    r"""A head without parameters: :math:`z_k = r_k / \kappa^k` for coordinate k of the representation.

    The encoder adapts to it: coordinates that the head keeps large take what the loss wants large, later ones keep the
    rest. Downstream uses the representation r below it. :math:`\kappa = 1` is the identity.

    Source: Xue et al. (2024), released code (default :math:`\kappa` 1.05 in pre-training).
    """

    scale: Tensor

    def __init__(self, dim: int, kappa: float = 1.05) -> None:
        """Make the head.

        Args:
            dim: width d of the representation.
            kappa: decay from one coordinate to the next, at least 1.

        Raises:
            ValueError: ``dim`` below 1 or ``kappa`` below 1.
        """
        super().__init__()
        check_in_range(1, float("inf"), dim=dim, kappa=kappa)
        self.register_buffer("scale", kappa ** -torch.arange(dim, dtype=torch.float64))

    def forward(self, representation: Tensor) -> Tensor:
        """Scale ``(n, d)`` to ``(n, d)``.

        Raises:
            ValueError: the width differs from ``dim``.
        """
        if representation.shape[-1] != len(self.scale):
            raise ValueError(
                f"representation: expected width {len(self.scale)}, got shape {tuple(representation.shape)}"
            )
        return representation * self.scale.to(representation)


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

    Raises:
        ValueError: values outside these ranges.
    """
    check_in_range(0, float("inf"), strength=strength, noise=noise)
    check_in_range(0, 1, disruption=disruption)
    variance = strength.square() + noise
    return (1 - disruption).sqrt() * strength / torch.where(variance > 0, variance, 1.0)


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
        dtype: floating dtype.

    Returns:
        ``depth`` tensors ``(dim, dim)`` that require gradients, first layer first.

    Raises:
        ValueError: a value below its minimum.
    """
    check_in_range(1, float("inf"), depth=depth, dim=dim)
    check_positive(size=size)
    draws = torch.randn(depth, dim, dim, generator=generator, dtype=dtype)
    return [(size * q).requires_grad_() for q in torch.linalg.qr(draws).Q]


def feature_weights(layers: Sequence[Tensor], features: Tensor) -> Tensor:
    r"""How large each feature is after each layer: :math:`\lVert W_l\cdots W_1 v_i\rVert`.

    Args:
        layers: weights, first layer first; layer l is ``(width_l, width_{l-1})``.
        features: ``(d, n)``, one feature direction a column.

    Returns:
        ``(len(layers), n)``.

    Raises:
        ValueError: no layers, or widths that do not fit.
    """
    if not layers:
        raise ValueError("layers: expected at least one weight matrix, got none")
    weights, x = [], features
    for layer in layers:
        if layer.shape[-1] != x.shape[0]:
            raise ValueError(f"layers: a layer of shape {tuple(layer.shape)} cannot follow {x.shape[0]} coordinates")
        x = layer @ x
        weights.append(torch.linalg.vector_norm(x, dim=0))
    return torch.stack(weights)


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


def diagonal_model(w1: Tensor, w2: Tensor, strength: Tensor, threshold: Tensor | float) -> DiagonalModel:
    r"""A two-layer network with one weight a feature and an odd soft threshold b between the layers.

    The first layer computes :math:`h_i = S_b(w_{1i} x_i)` with :math:`S_b(t) = \mathrm{relu}(t-b) -
    \mathrm{relu}(-t-b)`, the second :math:`z_i = w_{2i} h_i`. For :math:`x_i = \pm\varphi_i` only magnitudes matter.

    Args:
        w1: ``(n,)`` first-layer weights.
        w2: ``(n,)`` second-layer weights.
        strength: ``(n,)``, :math:`\varphi`.
        threshold: :math:`b`, shared.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.
    """
    check_embeddings(ndim=1, w1=w1, w2=w2, strength=strength)
    check_same_shape(w1=w1, w2=w2, strength=strength)
    pre = w1.abs() * strength
    return DiagonalModel(pre, w2 * F.relu(pre - threshold), pre > threshold)


def diagonal_loss(w1: Tensor, w2: Tensor, strength: Tensor, disruption: Tensor, threshold: Tensor | float) -> Tensor:
    r"""Noiseless population loss of `diagonal_model`: :math:`\sum_i -2(1-\alpha_i)z_i^2 + z_i^4`.

    Its gradient is exactly zero for a feature at or below the threshold: a feature that the head deletes stays in the
    layer below, frozen at the size it had.

    Args:
        w1: ``(n,)`` first-layer weights.
        w2: ``(n,)`` second-layer weights.
        strength: ``(n,)``, :math:`\varphi`.
        disruption: ``(n,)``, :math:`\alpha` in [0, 1].
        threshold: :math:`b`.

    Returns:
        Scalar.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, disruption outside [0, 1].
    """
    check_in_range(0, 1, disruption=disruption)
    z = diagonal_model(w1, w2, strength, threshold).output
    return (-2 * (1 - disruption) * z.square() + z.pow(4)).sum()
