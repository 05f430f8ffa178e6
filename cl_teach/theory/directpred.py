r"""Understanding Self-supervised Learning Dynamics without Contrastive Pairs. Yuandong Tian, Xinlei Chen, Surya
Ganguli; ICML 2021; https://arxiv.org/abs/2102.06810.

In a linear BYOL with online weights :math:`W`, target :math:`W_a` and predictor :math:`W_p` the objective

.. math:: J = \tfrac12 E\lVert W_p W x_1 - \mathrm{sg}(W_a x_2)\rVert^2

gives a closed system of matrix equations (`linear_flow`). Its predictor and the feature correlation :math:`F =
E[ff^\top]` come to share their eigenvectors, and then each eigenmode has a non-zero stable fixed point: that is why
it does not collapse. What changes and why: if the predictor always ends up with the eigenvectors of F, there is no
need to train it. DirectPred estimates F by a running average and sets the predictor from its eigenvalues :math:`s_j`:

.. math:: p_j = \sqrt{s_j} + \epsilon\max_i s_i, \qquad W_p = U\,\mathrm{diag}(p)\,U^\top .

Paper versus code. (1) The released code uses :math:`p_j = \max(\sqrt{s_j/\max_i s_i} + \epsilon,\ 10^{-4})`. Under
the cosine loss the scale of the predictor does not matter and both forms work; under the Euclidean loss the code's
form makes the largest eigenvalue :math:`1+\epsilon`, above what the dynamics can sustain, and everything shrinks to
zero. The linear chapter therefore uses ``form="paper"``, the image experiments ``form="code"``. (2) F is not centered
and accumulates both views. (3) Negative eigenvalues of round-off are clamped before the square root. (4) The released
trainer starts target and online network from different random weights; here the target starts as a copy. (5)
``form="copy"`` is the later DirectCopy rule :math:`W_p = F + \epsilon I`, which needs no eigen-decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_embeddings,
    check_in_range,
    check_same_shape,
    check_same_width,
)
from ..core.regression import regression_loss
from ..core.teacher import MomentumTeacher

__all__ = [
    "DirectPred",
    "DirectPredictor",
    "FixedPoints",
    "Flow",
    "byol_loss",
    "decoupled_flow",
    "decoupled_trajectory",
    "fixed_points",
    "linear_flow",
    "matrix_trajectory",
    "predictor_weights",
    "symmetric_flow",
]

FORMS = ("code", "paper", "copy")
_FLOOR = 1e-4  # smallest eigenvalue of the predictor in the released code


# --- the method -------------------------------------------------------------------------------------------------------


def predictor_weights(correlation: Tensor, *, epsilon: float = 0.01, form: str = "code") -> Tensor:
    r"""The predictor as a function of the feature correlation, by one of three rules.

    Args:
        correlation: ``(d, d)`` symmetric, positive semi-definite up to round-off.
        epsilon: :math:`\epsilon \ge 0`, lifts the weak modes.
        form: ``"paper"``, ``"code"`` or ``"copy"``; see the module docstring.

    Returns:
        ``(d, d)`` symmetric.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not square, NaN, all zero with ``form="code"``, negative ``epsilon``, unknown form.

    Source: Tian et al. (2021), equations 18 and 19; DirectCopy: released code, ``balance_type=direct``.
    """
    check_embeddings(correlation=correlation)
    check_choice(FORMS, form=form)
    check_in_range(0, float("inf"), epsilon=epsilon)
    d, width = correlation.shape
    if d != width:
        raise ValueError(f"correlation: expected a square matrix, got {(d, width)}")
    correlation = (correlation + correlation.mT) / 2
    if form == "copy":
        return correlation + epsilon * torch.eye(d, dtype=correlation.dtype, device=correlation.device)
    s, vectors = torch.linalg.eigh(correlation)
    s = s.clamp_min(0)  # round-off can leave a zero eigenvalue slightly negative
    if form == "paper":
        p = s.sqrt() + epsilon * s.amax()
    else:
        if not s.amax() > 0:
            raise ValueError("correlation: expected at least one positive eigenvalue, got a zero matrix")
        p = ((s / s.amax()).sqrt() + epsilon).clamp_min(_FLOOR)
    return vectors * p @ vectors.mT


class DirectPredictor(nn.Module):
    r"""A linear predictor that is computed, not trained.

    State: the running correlation :math:`\hat F \leftarrow \rho \hat F + (1-\rho)\,E[ff^\top]` (the first batch sets
    it) and the weights :math:`W_p` that follow from it.
    """

    correlation: Tensor
    weight: Tensor
    updates: Tensor

    def __init__(self, dim: int, *, decay: float = 0.3, epsilon: float = 0.01, form: str = "code") -> None:
        r"""Start as the identity.

        Args:
            dim: width d of the embeddings.
            decay: :math:`\rho` in [0, 1].
            epsilon: lifts the weak modes.
            form: rule of `predictor_weights`.

        Raises:
            ValueError: a value outside its range.
        """
        super().__init__()
        check_in_range(1, float("inf"), dim=dim)
        check_in_range(0, 1, decay=decay)
        check_choice(FORMS, form=form)
        self.decay, self.epsilon, self.form = decay, epsilon, form
        self.register_buffer("correlation", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.eye(dim))
        self.register_buffer("updates", torch.tensor(0))

    @torch.no_grad()
    def update(self, z1: Tensor, z2: Tensor) -> None:
        """Fold a batch of both views into the correlation and set the weights from it.

        Args:
            z1: ``(n, d)`` online embeddings of the first views; detached here.
            z2: ``(n, d)`` of the second views.

        Raises:
            TypeError: not floating tensors.
            ValueError: shapes do not fit, NaN.
        """
        check_embeddings(z1=z1, z2=z2)
        check_same_width(z1=z1, z2=z2, correlation=self.correlation)
        features = torch.cat([z1, z2]).detach().to(self.correlation)  # (2n, d)
        now = features.mT @ features / len(features)
        self.correlation.copy_(now if self.updates == 0 else self.decay * self.correlation + (1 - self.decay) * now)
        self.weight.copy_(predictor_weights(self.correlation, epsilon=self.epsilon, form=self.form))
        self.updates.add_(1)

    def forward(self, z: Tensor) -> Tensor:
        """Predict ``(n, d)`` from ``(n, d)``."""
        return z @ self.weight.to(z).mT


def byol_loss(prediction1: Tensor, prediction2: Tensor, target1: Tensor, target2: Tensor) -> Tensor:
    r"""The cosine form of BYOL's loss as the released code has it: mean of :math:`-2\cos`, both directions added.

    Args:
        prediction1: ``(n, d)`` predictions from the first views.
        prediction2: ``(n, d)`` from the second views.
        target1: ``(n, d)`` target of ``prediction1``, i.e. the teacher's embedding of the *second* views; detached.
        target2: ``(n, d)`` target of ``prediction2``.

    Returns:
        Scalar in [-4, 4]; 4 less than the sum of the two regression losses.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.
    """
    return regression_loss(prediction1, target1) + regression_loss(prediction2, target2) - 4


class DirectPred(nn.Module):
    """The whole method: an online network, its slow teacher, and a predictor set from the features' correlation.

    One training step is ``loss = method(view1, view2)``, backward, optimizer step on ``method.online``, then
    ``method.after_step()``.
    """

    def __init__(
        self,
        online: nn.Module,
        dim: int,
        *,
        momentum: float = 0.996,
        decay: float = 0.3,
        epsilon: float = 0.01,
        form: str = "code",
    ) -> None:
        """Build teacher and predictor around an online network.

        Args:
            online: encoder with projection head, maps a batch of views to ``(n, dim)``.
            dim: width of its output.
            momentum: of the teacher.
            decay: of the running correlation.
            epsilon: see `predictor_weights`.
            form: see `predictor_weights`.
        """
        super().__init__()
        self.online = online
        self.teacher = MomentumTeacher(online, momentum)
        self.predictor = DirectPredictor(dim, decay=decay, epsilon=epsilon, form=form)

    def forward(self, view1: Tensor, view2: Tensor) -> Tensor:
        """The loss of two batches of views; also updates the predictor, from the detached features of this batch."""
        z1, z2 = self.online(torch.cat([view1, view2])).chunk(2)
        target2, target1 = self.teacher(torch.cat([view1, view2])).chunk(2)  # each predicts the other view
        self.predictor.update(z1, z2)
        return byol_loss(self.predictor(z1), self.predictor(z2), target1, target2)

    def after_step(self) -> None:
        """Let the teacher follow; call it after the optimizer step."""
        self.teacher.update(self.online)


# --- the theory -------------------------------------------------------------------------------------------------------


class Flow(NamedTuple):
    """Time derivatives of the three weight matrices."""

    online: Tensor
    predictor: Tensor
    target: Tensor


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
        predictor_rate: :math:`\alpha_p`, how much faster the predictor learns.
        target_rate: :math:`\beta`, how fast the target follows.
        weight_decay: :math:`\eta`.

    Returns:
        `Flow`.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN.

    Source: Tian et al. (2021), the matrix dynamics of section 2.
    """
    check_embeddings(online=online, predictor=predictor, target=target, signal=signal, noise=noise)
    check_same_shape(online=online, target=target)
    check_same_shape(signal=signal, noise=noise)
    residual = target @ signal - predictor @ online @ (signal + noise)  # (n2, n1), minus dJ/d(W_p W)
    return Flow(
        predictor.mT @ residual - weight_decay * online,
        predictor_rate * residual @ online.mT - weight_decay * predictor,
        target_rate * (online - target),
    )


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
        predictor_rate: :math:`\alpha_p`.
        noise: :math:`\sigma^2`, variance that the augmentation adds.
        weight_decay: :math:`\eta`.
        target_scale: :math:`\tau`, the target's size relative to the online weights (not a softmax temperature).

    Returns:
        The two derivatives.
    """

    def both(a: Tensor, b: Tensor) -> Tensor:
        return a @ b + b @ a

    grow = 1 + noise
    d_predictor = predictor_rate * (target_scale * correlation - grow / 2 * both(predictor, correlation))
    d_correlation = target_scale * both(predictor, correlation) - grow * both(predictor @ predictor, correlation)
    return d_predictor - weight_decay * predictor, d_correlation - 2 * weight_decay * correlation


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
        predictor_rate: :math:`\alpha_p`.
        noise: :math:`\sigma^2`.
        weight_decay: :math:`\eta`.
        target_scale: :math:`\tau`.

    Returns:
        The two derivatives.
    """
    pull = target_scale - (1 + noise) * p
    return predictor_rate * s * pull - weight_decay * p, 2 * p * s * pull - 2 * weight_decay * s


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

    Returns:
        `FixedPoints`.

    Raises:
        ValueError: a negative value.
    """
    check_in_range(0, float("inf"), noise=noise, weight_decay=weight_decay)
    discriminant = target_scale**2 - 4 * weight_decay * (1 + noise)
    if discriminant < 0:
        return FixedPoints(None, None)
    root = discriminant**0.5
    return FixedPoints((target_scale + root) / (2 * (1 + noise)), (target_scale - root) / (2 * (1 + noise)))


def decoupled_trajectory(p0: Tensor, s0: Tensor, times: Tensor, **settings: float) -> tuple[Tensor, Tensor]:
    """Integrate `decoupled_flow` from the given start (on the CPU, by SciPy).

    Args:
        p0: ``(n,)``.
        s0: ``(n,)``.
        times: ``(k,)`` increasing, at least 0; the start is at time 0.
        **settings: of `decoupled_flow`.

    Returns:
        ``(n, k)`` p and s.

    Raises:
        ValueError: shapes differ, times not increasing.
    """
    check_embeddings(ndim=1, p0=p0, s0=s0, times=times)
    check_same_shape(p0=p0, s0=s0)
    states = _integrate(torch.stack([p0, s0]), times, lambda y: torch.stack(decoupled_flow(y[0], y[1], **settings)))
    return states[:, 0].mT, states[:, 1].mT


def matrix_trajectory(
    predictor: Tensor, correlation: Tensor, times: Tensor, **settings: float
) -> tuple[Tensor, Tensor]:
    """Integrate `symmetric_flow` from the given start (on the CPU, by SciPy).

    Args:
        predictor: ``(d, d)`` symmetric.
        correlation: ``(d, d)`` symmetric.
        times: ``(k,)`` increasing, at least 0.
        **settings: of `symmetric_flow`.

    Returns:
        ``(k, d, d)`` predictors and correlations.

    Raises:
        ValueError: shapes differ, times not increasing.
    """
    check_embeddings(predictor=predictor, correlation=correlation)
    check_same_shape(predictor=predictor, correlation=correlation)
    check_embeddings(ndim=1, times=times)
    start = torch.stack([predictor, correlation])
    states = _integrate(start, times, lambda y: torch.stack(symmetric_flow(y[0], y[1], **settings)))
    return states[:, 0], states[:, 1]


def _integrate(start: Tensor, times: Tensor, flow: Callable[[Tensor], Tensor]) -> Tensor:
    """States at the given times, ``(k, *start.shape)``, in float64."""
    if (times < 0).any() or (times.diff() <= 0).any():
        raise ValueError("times: expected increasing numbers of at least 0")
    shape = start.shape

    def right_hand_side(_: float, y: np.ndarray) -> np.ndarray:
        return flow(torch.from_numpy(y).view(shape)).flatten().numpy()

    y0 = start.detach().cpu().double().flatten().numpy()
    t = times.detach().cpu().double().numpy()
    span = (0.0, max(float(t[-1]), 1e-12))
    solution = solve_ivp(right_hand_side, span, y0, t_eval=t, method="DOP853", rtol=1e-10, atol=1e-13)
    return torch.from_numpy(solution.y.T.copy()).view(len(t), *shape)
