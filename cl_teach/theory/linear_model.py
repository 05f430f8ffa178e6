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
    check_count,
    check_entries,
    check_in_range,
    check_positive,
    check_same_shape,
    check_shapes,
    finite_result,
)
from ..core.precision import full_precision

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


@full_precision
def spectral_loss(z1: Tensor, z2: Tensor) -> Tensor:
    r"""Spectral contrastive loss of a batch: attraction linear, repulsion quadratic, nothing normalized.

    .. math:: -\frac2N\sum_i z_i^{(1)\top} z_i^{(2)} + \frac{1}{N(N-1)}\sum_{i\ne j}\big(z_i^{(1)\top} z_j^{(2)}\big)^2

    Leaving out the pairs :math:`i=j` makes it an unbiased estimate of the population loss.

    Args:
        z1: ``(N, d)`` embeddings of the first views.
        z2: ``(N, d)`` embeddings of the second views.

    Returns:
        Scalar.

    Source: HaoChen et al. (2021), equation 6.

    Example:
        >>> spectral_loss(torch.eye(3), torch.eye(3)).item()  # aligned, and orthogonal to all others
        -2.0
    """
    check_shapes(z1=(z1, "N d"), z2=(z2, "N d"))
    n = len(z1)
    check_batch(n, 2, name="z1, z2", why="to have a negative")
    products = z1 @ z2.mT  # (N, N)
    same = products.diagonal()
    loss = -2 * same.mean() + (products.square().sum() - same.square().sum()) / (n * (n - 1))
    return finite_result(loss, z1=z1, z2=z2)


@full_precision
def population_loss(W: Tensor, M: Tensor, C: Tensor) -> Tensor:
    r""":math:`L(W) = -2\,\mathrm{Tr}(W C W^\top) + \mathrm{Tr}((W M W^\top)^2)`, the spectral loss on infinitely much
    data.

    Args:
        W: ``(..., p, d)`` end-to-end map, or several.
        M: ``(d, d)`` second moment of a view.
        C: ``(d, d)`` cross moment of two views of one sample, symmetric.

    Returns:
        ``(...)``; a scalar for one map.
    """
    check_shapes(M=(M, "d d"), C=(C, "d d"), W=(W, "... p d"))
    gram = W @ M @ W.mT  # (..., p, p)
    aligned = (W @ C @ W.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    return finite_result(-2 * aligned + gram.square().sum((-2, -1)), W=W, M=M, C=C)


@full_precision
def population_gradient(W: Tensor, M: Tensor, C: Tensor) -> Tensor:
    r""":math:`\partial L/\partial W = -4WC + 4WMW^\top WM`; arguments as in `population_loss`.

    Returns:
        ``(..., p, d)``.
    """
    check_shapes(M=(M, "d d"), C=(C, "d d"), W=(W, "... p d"))
    return finite_result(-4 * W @ C + 4 * W @ M @ W.mT @ W @ M, W=W, M=M, C=C)


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


@full_precision
def minimizer(M: Tensor, C: Tensor, rank: int) -> Minimizer:
    r"""Global minimum of the population loss over maps of at most the given rank.

    With :math:`B = M^{-1/2} C M^{-1/2} = \sum_k b_k q_k q_k^\top`, keep the ``rank`` largest positive :math:`b_k`:

    .. math:: W^\top W = M^{-1/2}\Big(\sum_k b_k q_k q_k^\top\Big) M^{-1/2}, \qquad L^* = -\sum_k b_k^2 .

    Args:
        M: ``(d, d)`` symmetric, positive semi-definite. Directions without variance get weight zero.
        C: ``(d, d)``; the loss sees its symmetric part only.
        rank: at least 1; may exceed the number of positive :math:`b_k`.
    """
    check_shapes(M=(M, "d d"), C=(C, "d d"))
    check_count(rank=rank)
    variance, directions = torch.linalg.eigh((M + M.mT) / 2)
    noise = variance.abs().amax() * len(M) * torch.finfo(M.dtype).eps
    if not torch.compiler.is_compiling() and variance.amin() < -100 * noise:
        raise ValueError(f"M: expected a second moment, without negative eigenvalues, got {variance.amin().item():g}")
    seen = variance > noise
    scale = torch.where(seen, variance, 1.0).rsqrt() * seen
    whiten = directions * scale @ directions.mT  # M^(-1/2) on the directions that have variance
    whitened = finite_result(whiten @ ((C + C.mT) / 2) @ whiten, M=M, C=C)
    b, q = torch.linalg.eigh(whitened)  # ascending
    b = b.clamp_min(0)
    b = torch.where(torch.arange(len(b), device=b.device) >= len(b) - rank, b, 0.0)
    gram = finite_result(whiten @ (q * b) @ q.mT @ whiten, M=M, C=C)
    values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.mT
    return Minimizer(gram, root, finite_result(-b.square().sum(), M=M, C=C))


@full_precision
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
    """
    signal, variance, y0 = _features(c, m, start)
    t = _times(times)
    decay = torch.exp(-8 * signal * t)  # (n, k)
    # y* (1 - decay) / c, written so that c -> 0 is the limit 8 m^2 t and not 0/0
    safe = torch.where(signal > 0, signal, 1.0)
    grown = torch.where(signal > 0, -torch.expm1(-8 * signal * t) / safe, 8 * t)
    weight = y0 / (decay + variance.square() * y0 * grown)
    return finite_result(weight, times=times, c=c, m=m, start=start)


@full_precision
def two_layer_time(s: Tensor, c: Tensor, m: Tensor, start: Tensor | float) -> Tensor:
    r"""When a two-layer balanced encoder reaches the end-to-end weight ``s``: the integral of its gradient flow.

    The flow is :math:`\dot s = 8 s^2 (c - m^2 s^2)`: the factor :math:`s^2`, one :math:`s` more than in a single
    layer, is the head's doing. Its integral is

    .. math:: 8t = \Big[-\frac{1}{cs} + \frac{m}{c^{3/2}}\,\mathrm{artanh}\frac{ms}{\sqrt c}\Big]_{s_0}^{s}.

    Args:
        s: weights of any shape, each on the same side of its fixed point :math:`\sqrt c/m` as its start.
        c: signal, same shape, greater than 0.
        m: variance, same shape, greater than 0.
        start: :math:`s_0 > 0`, a number or of the same shape.

    Returns:
        Same shape, times in units of the flow; negative where the flow has left ``s`` behind.
    """
    check_same_shape(s=s, c=c, m=m)
    check_entries(0, math.inf, open_low=True, s=s, c=c, m=m)
    rest, begin = c.sqrt() / m, _start(start, c)
    if not torch.compiler.is_compiling() and not ((s - rest) * (begin - rest) > 0).all():
        raise ValueError("s: expected weights on the same side of the fixed point sqrt(c) / m as start, got others")
    return finite_result(_time(s, c, m, begin), s=s, c=c, m=m, start=start)


def _time(s: Tensor, c: Tensor, m: Tensor, start: Tensor) -> Tensor:
    root = c.sqrt()

    def antiderivative(x: Tensor) -> Tensor:
        # artanh as a logarithm of absolute values, so that it also serves above the fixed point
        return -1 / (c * x) + m / (2 * c * root) * ((root + m * x) / (root - m * x)).abs().log()

    return (antiderivative(s) - antiderivative(start)) / 8


@torch.no_grad()
@full_precision
def two_layer_weight(times: Tensor, c: Tensor, m: Tensor, start: Tensor | float) -> Tensor:
    """End-to-end weight of a feature in a two-layer linear encoder that starts balanced.

    `two_layer_time` gives time as a function of weight; this inverts it by bisection, to the last bit. A bisection has
    no gradient, so the result is without one.

    Args:
        times: ``(k,)``, at least 0.
        c: ``(n,)`` signal of each feature, at least 0. Where it is 0 the weight decays like a cube root of time.
        m: ``(n,)`` variance of each feature, greater than 0.
        start: initial end-to-end weight, greater than 0, a number or ``(n,)``.

    Returns:
        ``(n, k)``.
    """
    signal, variance, s0 = (x.double() for x in _features(c, m, start))
    t = _times(times).double().expand(len(c), -1)
    lost = s0 / (1 + 24 * variance.square() * t * s0**3) ** (1 / 3)  # c = 0
    safe = torch.where(signal > 0, signal, 1.0)
    near, far = s0.expand_as(t), (signal.sqrt() / variance).expand_as(t)
    for _ in range(200):
        middle = (near + far) / 2
        too_early = _time(middle, safe, variance, s0) < t
        near, far = torch.where(too_early, middle, near), torch.where(too_early, far, middle)
    weight = torch.where(signal > 0, near, lost).to(c.dtype)
    return finite_result(weight, times=times, c=c, m=m, start=start)


@full_precision
def escape_time(c: Tensor, start: Tensor | float) -> Tensor:
    """About how long a two-layer weight lingers near its start, 1/(8 c s_0): the time at which s^2 growth blows up.

    Args:
        c: signal of any shape, greater than 0.
        start: initial weight, greater than 0, a number or of the same shape.
    """
    check_entries(0, math.inf, open_low=True, c=c)
    return finite_result(1 / (8 * c * _start(start, c)), c=c, start=start)


@full_precision
def weight_decay_threshold(c: Tensor, m: Tensor) -> Tensor:
    r"""The weight decay that deletes a feature from both layers, :math:`8c^{3/2}/(3\sqrt3\,m)`.

    Args:
        c: signal of any shape, at least 0.
        m: variance, same shape, greater than 0.
    """
    check_same_shape(c=c, m=m)
    check_entries(0, math.inf, c=c)
    check_entries(0, math.inf, open_low=True, m=m)
    return finite_result(8 * c**1.5 / (3 * math.sqrt(3) * m), c=c, m=m)


@full_precision
def weight_decay_fixed_point(c: Tensor, m: Tensor, weight_decay: float) -> Tensor:
    r"""Stable end-to-end weight under :math:`L + \frac\lambda2(\lVert W_1\rVert^2 + \lVert W_2\rVert^2)`.

    Balanced layers obey :math:`4cs - 4m^2s^3 = \lambda`; the stable one is the largest root (by the trigonometric
    formula), or 0 above `weight_decay_threshold`.

    Args:
        c: signal of any shape, at least 0.
        m: variance, same shape, greater than 0.
        weight_decay: :math:`\lambda \ge 0`.

    Returns:
        Same shape.
    """
    threshold = weight_decay_threshold(c, m)
    check_in_range(0, math.inf, weight_decay=weight_decay)
    p = torch.where(c > 0, c, 1.0) / m.square()
    q = weight_decay / (4 * m.square())
    angle = torch.arccos((-1.5 * q / p * (3 / p).sqrt()).clamp(-1, 1))
    root = 2 * (p / 3).sqrt() * torch.cos(angle / 3)
    alive = (c > 0) & (weight_decay <= threshold)
    return finite_result(torch.where(alive, root, 0.0), c=c, m=m, weight_decay=weight_decay)


def _times(times: Tensor) -> Tensor:
    check_shapes(times=(times, "k"))
    check_entries(0, math.inf, times=times)
    return times[None, :]


def _features(c: Tensor, m: Tensor, start: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Columns ``(n, 1)``."""
    check_shapes(c=(c, "n"), m=(m, "n"))
    check_entries(0, math.inf, c=c)
    check_entries(0, math.inf, open_low=True, m=m)
    return c[:, None], m[:, None], _start(start, c)[:, None]


def _start(start: Tensor | float, c: Tensor) -> Tensor:
    """In the shape of c."""
    if isinstance(start, Tensor) and start.ndim > 0:
        check_entries(0, math.inf, open_low=True, start=start)
        check_same_shape(start=start, c=c)
    else:
        check_positive(start=start)
    return torch.as_tensor(start, dtype=c.dtype, device=c.device).expand(c.shape)
