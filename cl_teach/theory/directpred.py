r"""Understanding Self-supervised Learning Dynamics without Contrastive Pairs. Yuandong Tian, Xinlei Chen, Surya
Ganguli; ICML 2021; https://arxiv.org/abs/2102.06810.

In a linear BYOL with online weights :math:`W`, target :math:`W_a` and predictor :math:`W_p` the objective

.. math:: J = \tfrac12 E\lVert W_p W x_1 - \mathrm{sg}(W_a x_2)\rVert^2

gives a closed system of matrix equations (`cl_teach.theory.linear_byol`). Its predictor and the feature correlation
:math:`F = E[ff^\top]` come to share their eigenvectors, and then each eigenmode has a non-zero stable fixed point: that
is why it does not collapse. What changes and why: if the predictor always ends up with the eigenvectors of F, there is
no need to train it. DirectPred estimates F by a running average and sets the predictor from its eigenvalues
:math:`s_j`:

.. math:: p_j = \sqrt{s_j} + \epsilon\max_i s_i, \qquad W_p = U\,\mathrm{diag}(p)\,U^\top .

Paper versus code. (1) The released code uses :math:`p_j = \max(\sqrt{s_j/\max_i s_i} + \epsilon,\ 10^{-4})`. Under
the cosine loss the scale of the predictor does not matter and both forms work; under the Euclidean loss the code's
form makes the largest eigenvalue :math:`1+\epsilon`, above what the dynamics can sustain, and everything shrinks to
zero. The linear chapter therefore uses ``form="paper"``, the image experiments ``form="code"``. (2) F is not centered
and accumulates both views. (3) Negative eigenvalues of round-off are clamped before the square root. (4) The released
trainer starts target and online network from different random weights; here the target starts as a copy. (5)
``form="copy"`` is the later DirectCopy rule :math:`W_p = F + \epsilon I`, which needs no eigen-decomposition. (6) As in
the code, the predictor is set after the optimizer step, from the features computed before it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_count,
    check_in_range,
    check_module,
    check_same_shape,
    check_shapes,
    check_square,
    finite_result,
)
from ..core.precision import full_precision
from ..core.regression import regression_loss
from ..core.teacher import MomentumTeacher
from ..models.apply import apply_network

__all__ = ["DirectPred", "DirectPredictor", "byol_loss", "predictor_weights"]

FORMS = ("code", "paper", "copy")
FLOOR = 1e-4  # smallest eigenvalue of the predictor in the released code


@full_precision
def predictor_weights(correlation: Tensor, *, epsilon: float = 0.01, form: str = "code") -> Tensor:
    r"""The predictor as a function of the feature correlation, by one of three rules.

    Args:
        correlation: ``(d, d)`` symmetric, positive semi-definite up to round-off; not zero with ``form="code"``.
        epsilon: :math:`\epsilon \ge 0`, lifts the weak modes.
        form: ``"paper"``, ``"code"`` or ``"copy"``; see the module docstring.

    Returns:
        ``(d, d)`` symmetric.

    Source: Tian et al. (2021), equations 18 and 19; DirectCopy: released code, ``balance_type=direct``.

    Example:
        >>> predictor_weights(torch.diag(torch.tensor([4.0, 1.0])), epsilon=0.25, form="paper").diagonal().tolist()
        [3.0, 2.0]
    """
    check_square(correlation=correlation)
    check_choice(FORMS, form=form)
    check_in_range(0, math.inf, epsilon=epsilon)
    correlation = correlation / 2 + correlation.mT / 2
    if form == "copy":
        eye = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
        return finite_result(correlation + epsilon * eye, correlation=correlation, epsilon=epsilon)
    s, vectors = torch.linalg.eigh(correlation)
    s = s.clamp_min(0)  # round-off can leave a zero eigenvalue slightly negative
    if form == "paper":
        p = s.sqrt() + epsilon * s.amax()
    else:
        if not torch.compiler.is_compiling() and not s.amax() > 0:
            raise ValueError("correlation: expected at least one positive eigenvalue, got none")
        p = ((s / s.amax()).sqrt() + epsilon).clamp_min(FLOOR)
    return finite_result(vectors * p @ vectors.mT, correlation=correlation, epsilon=epsilon)


class DirectPredictor(nn.Module):
    r"""A linear predictor that is computed, not trained.

    State: the running correlation :math:`\hat F \leftarrow \rho \hat F + (1-\rho)\,E[ff^\top]` (the first batch sets
    it), the weights :math:`W_p` that follow from it, and the number of updates.
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
        """
        super().__init__()
        check_count(dim=dim)
        check_in_range(0, 1, decay=decay)
        check_in_range(0, math.inf, epsilon=epsilon)
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
        """
        d = len(self.weight)
        check_shapes(z1=(z1, f"n {d}"), z2=(z2, f"n {d}"))
        now = finite_result(_second_moment(z1, z2), z1=z1, z2=z2).to(self.correlation)
        if self.updates > 0:
            now = self.decay * self.correlation + (1 - self.decay) * now
        weight = predictor_weights(now, epsilon=self.epsilon, form=self.form)
        self.correlation.copy_(now)
        self.weight.copy_(weight)
        self.updates.add_(1)

    def forward(self, z: Tensor) -> Tensor:
        """Predict ``(n, d)`` from ``(n, d)``."""
        check_shapes(z=(z, f"n {len(self.weight)}"))
        # a copy: the next update must not change what autograd keeps for this call
        return z @ self.weight.to(z, copy=True).mT


@full_precision
def _second_moment(z1: Tensor, z2: Tensor) -> Tensor:
    features = torch.cat([z1, z2])  # (2n, d)
    return features.mT @ features / len(features)


@full_precision
def byol_loss(prediction1: Tensor, prediction2: Tensor, target1: Tensor, target2: Tensor) -> Tensor:
    r"""The cosine form of BYOL's loss as the released code has it: mean of :math:`-2\cos`, both directions added.

    Args:
        prediction1: ``(n, d)`` predictions from the first views.
        prediction2: ``(n, d)`` from the second views.
        target1: ``(n, d)`` target of ``prediction1``, i.e. the teacher's embedding of the *second* views; detached.
        target2: ``(n, d)`` target of ``prediction2``.

    Returns:
        Scalar in [-4, 4]; 4 less than the sum of the two regression losses.
    """
    check_shapes(
        prediction1=(prediction1, "n d"),
        prediction2=(prediction2, "n d"),
        target1=(target1, "n d"),
        target2=(target2, "n d"),
    )
    return regression_loss(prediction1, target1) + regression_loss(prediction2, target2) - 4


class DirectPred(nn.Module):
    """The whole method: an online network, its slow teacher, and a predictor set from the features' correlation.

    What is kept is the online network, which is the caller's; calling the method is its loss.
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
        check_module(online=online)
        self.teacher = MomentumTeacher(online, momentum)
        self.online = online
        self.predictor = DirectPredictor(dim, decay=decay, epsilon=epsilon, form=form)
        self._seen: list[tuple[Tensor, Tensor]] = []  # features since the last step

    def loss(self, view1: Tensor, view2: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of two batches of views of the same samples; nothing is drawn."""
        check_same_shape(view1=view1, view2=view2)
        check_shapes(view1=(view1, "..."), view2=(view2, "..."))
        views = {"view1, view2": torch.cat([view1, view2])}
        z1, z2 = apply_network(self.online, "n d", **views).chunk(2)
        target2, target1 = apply_network(self.teacher, "n d", **views).chunk(2)  # each predicts the other view
        if self.training and torch.is_grad_enabled():
            self._seen.append((z1.detach(), z2.detach()))
        return byol_loss(self.predictor(z1), self.predictor(z2), target1, target2)

    def forward(self, view1: Tensor, view2: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss."""
        return self.loss(view1, view2, generator=generator)

    def after_step(self) -> None:
        """Set the predictor from the features of the last training batches, and let the teacher follow."""
        for z1, z2 in self._seen:
            self.predictor.update(z1, z2)
        self._seen = []
        self.teacher.update(self.online)
