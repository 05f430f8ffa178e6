r"""The dynamics of linear BYOL, the theory behind DirectPred.

With online weights :math:`W`, target :math:`W_a` and predictor :math:`W_p`, all linear, gradient descent on
:math:`\tfrac12 E\lVert W_p W x_1 - \mathrm{sg}(W_a x_2)\rVert^2` becomes a closed system of matrix equations
(`linear_flow`). For isotropic data and a symmetric predictor it is a flow of :math:`(W_p, F)` with
:math:`F = WW^\top` (`symmetric_flow`), under which the two come to share their eigenvectors; then every eigenmode goes
its own way (`decoupled_flow`), and under weight decay it has a non-zero stable rest point (`fixed_points`): that is why
it does not collapse.

Source: Tian, Chen, Ganguli, Understanding Self-supervised Learning Dynamics without Contrastive Pairs (2021). The
trajectories are integrated here by SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ..core.checks import check_entries, check_in_range, check_number, check_same_shape, check_shapes, finite_result
from ..core.precision import full_precision

__all__ = [
    "FixedPoints",
    "Flow",
    "decoupled_flow",
    "decoupled_trajectory",
    "fixed_points",
    "linear_flow",
    "matrix_trajectory",
    "symmetric_flow",
]

# A mode of ordinary size takes some hundred or thousand evaluations; from a start of 1e6 they would never end.
EVALUATIONS = 20_000
# Rates and noises beyond this have no use, and their products overflow.
LARGEST = 1e6
# The equations of a mode are written once for both: on arrays of a few numbers NumPy's calls take a fifth of torch's.
Modes = TypeVar("Modes", Tensor, np.ndarray)


class Flow(NamedTuple):
    """Time derivatives of the three weight matrices."""

    online: Tensor
    predictor: Tensor
    target: Tensor


@full_precision
def linear_flow(
    online: Tensor,
    predictor: Tensor,
    target: Tensor,
    signal: Tensor,
    noise: Tensor,
    *,
    predictor_rate: float = 1.0,
    target_rate: float = 0.4,
    weight_decay: float = 0.0,
) -> Flow:
    r"""Gradient flow of linear BYOL.

    .. math::
        \dot W = W_p^\top R - \eta W,\quad \dot W_p = \alpha_p R W^\top - \eta W_p,\quad \dot W_a = \beta(W - W_a),
        \qquad R = W_a X - W_p W (X + X')

    Args:
        online: ``(n2, n1)``, :math:`W`.
        predictor: ``(n2, n2)``, :math:`W_p`.
        target: ``(n2, n1)``, :math:`W_a`.
        signal: ``(n1, n1)``, :math:`X`, second moment of the mean view of a sample.
        noise: ``(n1, n1)``, :math:`X'`, mean covariance of the views around it.
        predictor_rate: :math:`\alpha_p \ge 0`, how much faster the predictor learns.
        target_rate: :math:`\beta \ge 0`, how fast the target follows.
        weight_decay: :math:`\eta \ge 0`.

    Source: Tian et al. (2021), the matrix dynamics of section 2.

    Example:
        >>> W, eye = torch.ones(2, 3), torch.eye(3)
        >>> flow = linear_flow(W, torch.eye(2), W, eye, 0.5 * eye)  # no predictor, the target a copy: only shrinking
        >>> flow.online[0, 0].item()
        -0.5
    """
    check_shapes(
        online=(online, "n2 n1"),
        predictor=(predictor, "n2 n2"),
        target=(target, "n2 n1"),
        signal=(signal, "n1 n1"),
        noise=(noise, "n1 n1"),
    )
    check_in_range(0, math.inf, predictor_rate=predictor_rate, target_rate=target_rate, weight_decay=weight_decay)
    residual = target @ signal - predictor @ online @ (signal + noise)  # (n2, n1), minus dJ/d(W_p W)
    flow = Flow(
        predictor.mT @ residual - weight_decay * online,
        predictor_rate * residual @ online.mT - weight_decay * predictor,
        target_rate * (online - target),
    )
    for derivative in flow:
        finite_result(derivative, online=online, predictor=predictor, target=target, signal=signal, noise=noise)
    return flow


@full_precision
def symmetric_flow(
    predictor: Tensor,
    correlation: Tensor,
    *,
    predictor_rate: float = 1.0,
    noise: float = 0.0,
    weight_decay: float = 0.0,
    target_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""The flow in :math:`(W_p, F)`, :math:`F = WW^\top`, for isotropic data and a symmetric predictor.

    With :math:`X = I,\ X' = \sigma^2 I,\ W_a = \tau W` and :math:`\{A,B\} = AB + BA`:

    .. math::
        \dot W_p = -\tfrac{\alpha_p}2(1+\sigma^2)\{W_p,F\} + \alpha_p\tau F - \eta W_p, \qquad
        \dot F = -(1+\sigma^2)\{W_p^2,F\} + \tau\{W_p,F\} - 2\eta F

    Args:
        predictor: ``(d, d)`` symmetric.
        correlation: ``(d, d)`` symmetric, :math:`F`.
        predictor_rate: :math:`\alpha_p \ge 0`.
        noise: :math:`\sigma^2 \ge 0`, variance that the augmentation adds.
        weight_decay: :math:`\eta \ge 0`.
        target_scale: :math:`\tau`, the target's size relative to the online weights (not a softmax temperature).

    Returns:
        The two derivatives.
    """
    check_shapes(predictor=(predictor, "d d"), correlation=(correlation, "d d"))
    _check_settings(predictor_rate=predictor_rate, noise=noise, weight_decay=weight_decay, target_scale=target_scale)
    flow = _symmetric(predictor, correlation, predictor_rate, noise, weight_decay, target_scale)
    for derivative in flow:
        finite_result(derivative, predictor=predictor, correlation=correlation, predictor_rate=predictor_rate)
    return flow


def _symmetric(p: Tensor, f: Tensor, rate: float, noise: float, decay: float, scale: float) -> tuple[Tensor, Tensor]:
    def both(a: Tensor, b: Tensor) -> Tensor:
        return a @ b + b @ a

    d_predictor = rate * (scale * f - (1 + noise) / 2 * both(p, f))
    d_correlation = scale * both(p, f) - (1 + noise) * both(p @ p, f)
    return d_predictor - decay * p, d_correlation - 2 * decay * f


@full_precision
def decoupled_flow(
    p: Tensor,
    s: Tensor,
    *,
    predictor_rate: float = 1.0,
    noise: float = 0.0,
    weight_decay: float = 0.0,
    target_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""The flow of one eigenmode, once predictor and correlation share their eigenvectors.

    .. math::
        \dot p = \alpha_p s[\tau - (1+\sigma^2)p] - \eta p, \qquad \dot s = 2ps[\tau - (1+\sigma^2)p] - 2\eta s

    Args:
        p: eigenvalues of the predictor, any shape.
        s: eigenvalues of the correlation, same shape.
        predictor_rate: :math:`\alpha_p \ge 0`.
        noise: :math:`\sigma^2 \ge 0`.
        weight_decay: :math:`\eta \ge 0`.
        target_scale: :math:`\tau`.

    Returns:
        The two derivatives.
    """
    check_same_shape(p=p, s=s)
    check_shapes(p=(p, "..."), s=(s, "..."))
    _check_settings(predictor_rate=predictor_rate, noise=noise, weight_decay=weight_decay, target_scale=target_scale)
    flow = _decoupled(p, s, predictor_rate, noise, weight_decay, target_scale)
    for derivative in flow:
        finite_result(derivative, p=p, s=s, predictor_rate=predictor_rate, noise=noise, target_scale=target_scale)
    return flow


def _decoupled(p: Modes, s: Modes, rate: float, noise: float, decay: float, scale: float) -> tuple[Modes, Modes]:
    pull = scale - (1 + noise) * p
    return rate * s * pull - decay * p, 2 * p * s * pull - 2 * decay * s


class FixedPoints(NamedTuple):
    """Non-zero rest points of a mode under weight decay, or None where only collapse remains.

    Attributes:
        stable: the larger one, p_+.
        unstable: the smaller one, p_-; below it a mode collapses.
    """

    stable: float | None
    unstable: float | None


def fixed_points(*, noise: float = 0.0, weight_decay: float, target_scale: float = 1.0) -> FixedPoints:
    r"""Rest points of a mode on the curve :math:`s = p^2/\alpha_p`.

    .. math:: p_\pm = \frac{\tau\pm\sqrt{\tau^2-4\eta(1+\sigma^2)}}{2(1+\sigma^2)}

    Args:
        noise: :math:`\sigma^2 \ge 0`.
        weight_decay: :math:`\eta \ge 0`; beyond :math:`\tau^2/(4(1+\sigma^2))` every mode collapses.
        target_scale: :math:`\tau`.
    """
    _check_settings(noise=noise, weight_decay=weight_decay, target_scale=target_scale)
    noise, weight_decay, target_scale = float(noise), float(weight_decay), float(target_scale)
    discriminant = target_scale**2 - 4 * weight_decay * (1 + noise)
    if discriminant < 0:
        return FixedPoints(None, None)
    root = discriminant**0.5
    return FixedPoints((target_scale + root) / (2 * (1 + noise)), (target_scale - root) / (2 * (1 + noise)))


def decoupled_trajectory(
    p0: Tensor,
    s0: Tensor,
    times: Tensor,
    *,
    predictor_rate: float = 1.0,
    noise: float = 0.0,
    weight_decay: float = 0.0,
    target_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Integrate `decoupled_flow` from the given start (in float64 on the CPU, by SciPy).

    Args:
        p0: ``(n,)``.
        s0: ``(n,)``.
        times: ``(k,)`` increasing, at least 0; the start is at time 0.
        predictor_rate: see `decoupled_flow`.
        noise: see `decoupled_flow`.
        weight_decay: see `decoupled_flow`.
        target_scale: see `decoupled_flow`.

    Returns:
        ``(n, k)`` p and s, float64.

    Raises:
        ValueError: the start is so large or the time so long that 20,000 evaluations of the flow do not reach the end.
    """
    check_shapes(p0=(p0, "n"), s0=(s0, "n"), times=(times, "k"))
    _check_settings(predictor_rate=predictor_rate, noise=noise, weight_decay=weight_decay, target_scale=target_scale)
    settings = float(predictor_rate), float(noise), float(weight_decay), float(target_scale)
    states = _integrate({"p0": p0, "s0": s0}, times, lambda y: np.stack(_decoupled(y[0], y[1], *settings)))
    return states[:, 0].mT, states[:, 1].mT


def matrix_trajectory(
    predictor: Tensor,
    correlation: Tensor,
    times: Tensor,
    *,
    predictor_rate: float = 1.0,
    noise: float = 0.0,
    weight_decay: float = 0.0,
    target_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Integrate `symmetric_flow` from the given start (in float64 on the CPU, by SciPy).

    Args:
        predictor: ``(d, d)`` symmetric.
        correlation: ``(d, d)`` symmetric.
        times: ``(k,)`` increasing, at least 0.
        predictor_rate: see `symmetric_flow`.
        noise: see `symmetric_flow`.
        weight_decay: see `symmetric_flow`.
        target_scale: see `symmetric_flow`.

    Returns:
        ``(k, d, d)`` predictors and correlations, float64.

    Raises:
        ValueError: as in `decoupled_trajectory`.
    """
    check_shapes(predictor=(predictor, "d d"), correlation=(correlation, "d d"), times=(times, "k"))
    _check_settings(predictor_rate=predictor_rate, noise=noise, weight_decay=weight_decay, target_scale=target_scale)
    settings = float(predictor_rate), float(noise), float(weight_decay), float(target_scale)
    start = {"predictor": predictor, "correlation": correlation}

    def flow(y: np.ndarray) -> np.ndarray:
        now = torch.from_numpy(y)
        return torch.stack(_symmetric(now[0], now[1], *settings)).numpy()

    states = _integrate(start, times, flow)
    return states[:, 0], states[:, 1]


def _check_settings(*, target_scale: float, **settings: float) -> None:
    check_in_range(0, math.inf, **settings)
    check_in_range(-math.inf, math.inf, target_scale=target_scale)
    for name, value in {**settings, "target_scale": target_scale}.items():
        if abs(check_number(name, value) or 0.0) > LARGEST:
            raise ValueError(f"{name}: expected at most {LARGEST:g} in size, got {float(value):g}")


def _integrate(start: dict[str, Tensor], times: Tensor, flow: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """States at the given times, ``(k, *shape)``, in float64."""
    check_entries(0, math.inf, times=times)
    if (times.diff() <= 0).any():
        raise ValueError("times: expected increasing numbers")
    state = torch.stack([x.detach().cpu().double() for x in start.values()])
    t = times.detach().cpu().double().numpy()
    left = EVALUATIONS

    def right_hand_side(_: float, y: np.ndarray) -> np.ndarray:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Endless
        return flow(y.reshape(state.shape)).ravel()

    span = (0.0, max(float(t[-1]), 1e-12))
    try:
        with np.errstate(all="ignore"):
            solution = solve_ivp(
                right_hand_side, span, state.flatten().numpy(), t_eval=t, method="DOP853", rtol=1e-10, atol=1e-13
            )
        done = solution.success and np.isfinite(solution.y).all()
    except _Endless:
        done = False
    if not done:
        size = state.abs().max().item()
        raise ValueError(
            f"{', '.join(start)}, times: expected a start and a time that {EVALUATIONS} evaluations of the flow can "
            f"follow, got entries up to {size:g} and {t[-1]:g}"
        )
    return torch.from_numpy(solution.y.T.copy()).view(len(t), *state.shape)


class _Endless(Exception):
    """Too many evaluations."""
