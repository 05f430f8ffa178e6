r"""The toy model of Part 2: linear encoders under the spectral contrastive loss, solved exactly.

Data: :math:`x = \sum_i u_i \varphi_i v_i + \xi` with orthonormal features :math:`v_i`, signs :math:`u_i = \pm 1` and
noise of variance :math:`\nu`; the positive partner :math:`x_+` keeps each sign except that it is drawn anew with
probability :math:`\alpha_i`. Everything the loss can see are two matrices,

.. math:: M = E[x x^\top], \qquad C = E[x x_+^\top],

with eigenvalues :math:`m_i = \varphi_i^2 + \nu` and :math:`c_i = (1-\alpha_i)\varphi_i^2` on the common basis
:math:`v_i` (`cl_teach.datasets.gaussian_views` draws such data). A linear encoder :math:`z = Wx` then has the loss

.. math::
    L(W) = -2\,E[z^\top z_+] + E[(z^\top z_-)^2] = -2\,\mathrm{Tr}(W C W^\top) + \mathrm{Tr}\big((W M W^\top)^2\big).

Source: the loss is that of HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral
Contrastive Loss (2021). The gradient flows, minimizers and fixed points below are derived in the chapters of Part 2
(the setting is the one that Xue et al., 2024, describe) and checked there against autograd, simulation and an ODE
solver.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_in_range,
    check_positive,
    check_same_shape,
    check_same_width,
)

__all__ = [
    "Minimizer",
    "escape_time",
    "minimizer",
    "one_layer_weight",
    "population_gradient",
    "population_loss",
    "spectral_loss",
    "two_layer_time",
    "two_layer_weight",
    "weight_decay_fixed_point",
    "weight_decay_threshold",
]


def spectral_loss(z1: Tensor, z2: Tensor) -> Tensor:
    r"""Spectral contrastive loss of a batch: attraction linear, repulsion quadratic, nothing normalized.

    .. math:: -\frac2N\sum_i z_i^{(1)\top} z_i^{(2)} + \frac{1}{N(N-1)}\sum_{i\ne j}\big(z_i^{(1)\top} z_j^{(2)}\big)^2

    Leaving out the pairs :math:`i=j` makes it an unbiased estimate of the population loss.

    Args:
        z1: ``(N, d)`` embeddings of the first views.
        z2: ``(N, d)`` embeddings of the second views.

    Returns:
        Scalar.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, fewer than two rows, NaN.

    Source: HaoChen et al. (2021), equation 6.
    """
    check_embeddings(z1=z1, z2=z2)
    check_same_shape(z1=z1, z2=z2)
    check_batch(len(z1), 2, name="z1", why="to have a negative")
    products = z1 @ z2.mT  # (N, N)
    same = products.diagonal()
    n = len(z1)
    return -2 * same.mean() + (products.square().sum() - same.square().sum()) / (n * (n - 1))


def population_loss(W: Tensor, M: Tensor, C: Tensor) -> Tensor:
    r""":math:`L(W) = -2\,\mathrm{Tr}(W C W^\top) + \mathrm{Tr}((W M W^\top)^2)`, the spectral loss on infinitely much
    data.

    Args:
        W: ``(p, d)`` end-to-end map.
        M: ``(d, d)`` second moment of a view.
        C: ``(d, d)`` cross moment of two views of one sample, symmetric.

    Returns:
        Scalar.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN.
    """
    _check_moments(M, C)
    check_embeddings(W=W)
    check_same_width(W=W, M=M)
    gram = W @ M @ W.mT  # (p, p)
    return -2 * torch.trace(W @ C @ W.mT) + gram.square().sum()


def population_gradient(W: Tensor, M: Tensor, C: Tensor) -> Tensor:
    r""":math:`\partial L/\partial W = -4WC + 4WMW^\top WM`; arguments as in `population_loss`.

    Returns:
        ``(p, d)``.
    """
    _check_moments(M, C)
    return -4 * W @ C + 4 * W @ M @ W.mT @ W @ M


class Minimizer(NamedTuple):
    """Where the population loss is smallest; only Gram matrices are determined, not the maps themselves.

    Attributes:
        gram: ``(d, d)``, W^T W of the end-to-end map.
        pre_gram: ``(d, d)``, W_1^T W_1 of the first of two balanced layers, the square root of ``gram``.
        loss: scalar, the smallest value.
    """

    gram: Tensor
    pre_gram: Tensor
    loss: Tensor


def minimizer(M: Tensor, C: Tensor, rank: int) -> Minimizer:
    r"""Global minimum of the population loss over maps of at most the given rank.

    With :math:`B = M^{-1/2} C M^{-1/2} = \sum_k b_k q_k q_k^\top`, keep the ``rank`` largest positive :math:`b_k`:

    .. math:: W^\top W = M^{-1/2}\Big(\sum_k b_k q_k q_k^\top\Big) M^{-1/2}, \qquad L^* = -\sum_k b_k^2 .

    Args:
        M: ``(d, d)`` symmetric, positive semi-definite. Directions without variance get weight zero.
        C: ``(d, d)`` symmetric.
        rank: at least 1; may exceed the number of positive :math:`b_k`.

    Raises:
        TypeError: not floating tensors.
        ValueError: not square or of different shape, ``rank`` below 1.
    """
    _check_moments(M, C)
    check_positive(rank=rank)
    variance, directions = torch.linalg.eigh(M)
    seen = variance > variance.amax() * len(M) * torch.finfo(M.dtype).eps
    scale = torch.where(seen, variance, 1.0).rsqrt() * seen
    whiten = directions * scale @ directions.mT  # M^(-1/2) on the directions that have variance
    b, q = torch.linalg.eigh(whiten @ C @ whiten)  # ascending
    b = b.clamp_min(0)
    b = torch.where(torch.arange(len(b), device=b.device) >= len(b) - rank, b, 0.0)
    gram = whiten @ (q * b) @ q.mT @ whiten
    return Minimizer(gram, _psd_sqrt(gram), -b.square().sum())


def one_layer_weight(times: Tensor, c: Tensor, m: Tensor, start: Tensor | float) -> Tensor:
    r"""Squared weight of a feature in a one-layer linear encoder, a logistic curve.

    Gradient flow gives :math:`\dot y = 8y(c - m^2 y)` for :math:`y = w^2`, hence with :math:`y^* = c/m^2`

    .. math:: y(t) = \frac{y^*}{1 + (y^*/y_0 - 1)\,e^{-8ct}}.

    Args:
        times: ``(k,)``, at least 0.
        c: ``(n,)`` signal of each feature, at least 0. Where it is 0 the weight decays, :math:`y_0/(1+8m^2y_0t)`.
        m: ``(n,)`` variance of each feature, greater than 0.
        start: :math:`y_0 > 0`, a number or ``(n,)``.

    Returns:
        ``(n, k)``.

    Raises:
        ValueError: values outside these ranges.
    """
    c, m, y0 = _check_features(c, m, start)
    t = times[None, :]
    decay = torch.exp(-8 * c * t)  # (n, k)
    # y* (1 - decay) / c, written so that c -> 0 is the limit 8 m^2 t and not 0/0
    grown = torch.where(c > 0, -torch.expm1(-8 * c * t) / torch.where(c > 0, c, 1.0), 8 * t)
    return y0 / (decay + m.square() * y0 * grown)


def two_layer_time(s: Tensor, c: Tensor, m: Tensor, start: Tensor | float) -> Tensor:
    r"""When a two-layer balanced encoder reaches the end-to-end weight ``s``: the integral of its gradient flow.

    The flow is :math:`\dot s = 8 s^2 (c - m^2 s^2)`: the factor :math:`s^2`, one :math:`s` more than in a single
    layer, is the head's doing. Its integral is

    .. math:: 8t = \Big[-\frac{1}{cs} + \frac{m}{c^{3/2}}\,\mathrm{artanh}\frac{ms}{\sqrt c}\Big]_{s_0}^{s}.

    Args:
        s: weights, broadcast against ``c``; strictly between ``start`` and the fixed point :math:`\sqrt c/m`.
        c: signal, greater than 0.
        m: variance, greater than 0.
        start: :math:`s_0 > 0`.

    Returns:
        Times, in units of the flow.
    """
    root = c.sqrt()

    def antiderivative(x: Tensor) -> Tensor:
        # artanh as a logarithm of absolute values, so that it also serves above the fixed point
        return -1 / (c * x) + m / (2 * c * root) * ((root + m * x) / (root - m * x)).abs().log()

    return (antiderivative(s) - antiderivative(torch.as_tensor(start, dtype=c.dtype, device=c.device))) / 8


def two_layer_weight(times: Tensor, c: Tensor, m: Tensor, start: Tensor | float) -> Tensor:
    """End-to-end weight of a feature in a two-layer linear encoder that starts balanced.

    `two_layer_time` gives time as a function of weight; this inverts it by bisection, to the last bit.

    Args:
        times: ``(k,)``, at least 0.
        c: ``(n,)`` signal of each feature, at least 0. Where it is 0 the weight decays like a cube root of time.
        m: ``(n,)`` variance of each feature, greater than 0.
        start: initial end-to-end weight, greater than 0, a number or ``(n,)``.

    Returns:
        ``(n, k)``.

    Raises:
        ValueError: values outside these ranges.
    """
    c, m, s0 = _check_features(c, m, start)
    t = times[None, :].expand(len(c), -1)
    target = c.sqrt() / m
    lost = (s0**-3 + 24 * m.square() * t) ** (-1 / 3)  # c = 0
    safe = torch.where(c > 0, c, 1.0)
    near, far = s0.expand_as(t), target.expand_as(t)
    for _ in range(200):
        middle = (near + far) / 2
        too_early = two_layer_time(middle, safe, m, s0) < t
        near, far = torch.where(too_early, middle, near), torch.where(too_early, far, middle)
    return torch.where(c > 0, near, lost)


def escape_time(c: Tensor, start: float) -> Tensor:
    """About how long a two-layer weight lingers near its start, 1/(8 c s_0): the time at which s^2 growth blows up.

    Args:
        c: signal, greater than 0.
        start: initial weight, greater than 0.
    """
    check_positive(start=start)
    return 1 / (8 * c * start)


def weight_decay_threshold(c: Tensor, m: Tensor) -> Tensor:
    r"""The weight decay that deletes a feature from both layers, :math:`8c^{3/2}/(3\sqrt3\,m)`.

    Args:
        c: signal, at least 0.
        m: variance, greater than 0.
    """
    return 8 * c**1.5 / (3 * math.sqrt(3) * m)


def weight_decay_fixed_point(c: Tensor, m: Tensor, weight_decay: float) -> Tensor:
    r"""Stable end-to-end weight under :math:`L + \frac\lambda2(\lVert W_1\rVert^2 + \lVert W_2\rVert^2)`.

    Balanced layers obey :math:`4cs - 4m^2s^3 = \lambda`; the stable one is the largest root (by the trigonometric
    formula), or 0 above `weight_decay_threshold`.

    Args:
        c: ``(n,)`` signal, at least 0.
        m: ``(n,)`` variance, greater than 0.
        weight_decay: :math:`\lambda \ge 0`.

    Returns:
        ``(n,)``.

    Raises:
        ValueError: values outside these ranges.
    """
    check_in_range(0, math.inf, c=c, weight_decay=weight_decay)
    check_positive(m=m)
    p = torch.where(c > 0, c, 1.0) / m.square()
    q = weight_decay / (4 * m.square())
    angle = torch.arccos((-1.5 * q / p * (3 / p).sqrt()).clamp(-1, 1))
    root = 2 * (p / 3).sqrt() * torch.cos(angle / 3)
    alive = (c > 0) & (weight_decay <= weight_decay_threshold(c, m))
    return torch.where(alive, root, 0.0)


def _psd_sqrt(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    return vectors * values.clamp_min(0).sqrt() @ vectors.mT


def _check_moments(M: Tensor, C: Tensor) -> None:
    check_embeddings(M=M, C=C)
    check_same_shape(M=M, C=C)
    if M.shape[0] != M.shape[1]:
        raise ValueError(f"M, C: expected square matrices, got {tuple(M.shape)}")


def _check_features(c: Tensor, m: Tensor, start: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    check_embeddings(ndim=1, c=c, m=m)
    check_same_shape(c=c, m=m)
    check_in_range(0, math.inf, c=c)
    check_positive(m=m, start=start)
    begin = torch.as_tensor(start, dtype=c.dtype, device=c.device).expand(c.shape)
    return c[:, None], m[:, None], begin[:, None]
