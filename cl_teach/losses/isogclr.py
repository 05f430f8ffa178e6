r"""Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
Individualization. Zi-Hao Qiu, Quanqi Hu, Zhuoning Yuan, Denny Zhou, Lijun Zhang, Tianbao Yang; ICML 2023;
https://arxiv.org/abs/2305.11965.

Each training sample i has its own temperature. With :math:`h_i(z) = \langle e_i,z\rangle - \langle e_i,e_i^+\rangle`
over the negatives :math:`S_i^-` (both views of all other samples),

.. math::
    F(w,\tau) = \frac1n\sum_i \Big[\tau_i \log \mathbb E_{z\in S_i^-} e^{h_i(z)/\tau_i} + \tau_i\,\rho\Big],
    \qquad \tau_i \ge \tau_{\min}.

What changes and why: this is the dual of the worst re-weighting of the negatives within a KL ball of radius
:math:`\rho`, and the multiplier of the ball is the temperature. So it can be learned: at rest, the softmax over the
negatives of i has KL divergence exactly :math:`\rho` from uniform. A sample with many near neighbors ends with a larger
temperature. The expectation is over the whole data set; a moving average :math:`s_i` of
:math:`g_i = \mathrm{mean}_j\, e^{a_{ij}/\tau_i}` a sample (SogCLR) replaces the huge batch. What is minimized is a
surrogate that has the right gradient,

.. math::
    L = \frac1B\sum_i\sum_{v}\Big[\frac1M\sum_j w_{ij}^v a_{ij}^v - p_i\Big], \qquad
    w_{ij}^v = e^{a_{ij}^v/\tau_i} / S_i^v \ \text{(a constant)}, \quad S_i^v = (1-\gamma)s_i + \gamma g_i^v .

Paper versus code. (1) On a sample's first visit S = g, here sample by sample; the released script counts epochs from
1, so that its averages start from 0 (``first_visit=False`` reproduces that). (2) The average is over
:math:`e^{a/\tau}`, as in the unimodal code, not over :math:`e^{h/\tau}`. (3) Views use their own S in the weights,
the stored value is the mean. (4) The average is kept as a logarithm: :math:`e^{1/\tau}` overflows float32 below a
temperature of 0.0113. (5) The gradient of the temperature is clipped at 3, as in the code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import check_batch, check_embeddings, check_in_range, check_labels, check_positive, check_same_shape
from ..core.similarity import normalize, self_mask

__all__ = ["ISogCLR", "SogCLR", "negative_similarities", "robust_objective"]


def negative_similarities(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """What each sample is compared with: the 2(B - 1) negatives of either view, and its positive.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.

    Returns:
        ``(2, B, 2(B - 1))`` similarities of view v of sample i to both views of the other samples, and the ``(B,)``
        similarities of the two views of a sample.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, fewer than two samples, NaN.
    """
    check_embeddings(z1=z1, z2=z2)
    check_same_shape(z1=z1, z2=z2)
    check_batch(len(z1), 2, name="z1", why="to have a negative")
    b = len(z1)
    z = normalize(torch.cat([z1, z2]))  # (2B, d)
    similarity = z @ z.mT  # (2B, 2B)
    others = ~self_mask(b, z.device).repeat(2, 2)
    return similarity[others].view(2, b, 2 * (b - 1)), similarity.diagonal(b)


def robust_objective(z1: Tensor, z2: Tensor, temperatures: Tensor, rho: float = 0.0) -> Tensor:
    r"""The objective on a batch taken as the whole data set: mean over samples of the sum over both views.

    .. math:: \frac1B\sum_i\sum_v\Big[\tau_i\log\frac1M\sum_j e^{h_{ij}^v/\tau_i} + \tau_i\rho\Big]

    Args:
        z1: ``(B, d)`` first views.
        z2: ``(B, d)`` second views.
        temperatures: ``(B,)``, greater than 0.
        rho: radius of the KL ball, at least 0.

    Returns:
        Scalar; with ``rho=0`` the exact objective behind SogCLR.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, a temperature not positive.
    """
    a, positive = negative_similarities(z1, z2)
    check_positive(temperatures=temperatures)
    tau = temperatures[:, None]
    h = (a - positive[:, None]) / tau  # (2, B, M)
    inner = h.logsumexp(-1) - math.log(h.shape[-1])  # (2, B)
    return (temperatures * (inner + rho)).sum(0).mean()


class SogCLR(nn.Module):
    """The surrogate loss with one moving average a training sample and a fixed temperature.

    State: ``log_average (n,)``, minus infinity where a sample was never seen.

    Source: Yuan et al. (2022), arXiv 2202.12387; the optimizer that iSogCLR builds on.
    """

    log_average: Tensor

    def __init__(
        self, n: int, *, temperature: float = 0.1, gamma: float = 0.9, dtype: torch.dtype | None = None
    ) -> None:
        r"""Make an empty memory.

        Args:
            n: number of training samples.
            temperature: of all samples.
            gamma: weight of the new batch in the average, in (0, 1].
            dtype: of the state; the default dtype if None.

        Raises:
            ValueError: a value outside its range.
        """
        super().__init__()
        check_positive(n=n, temperature=temperature, gamma=gamma)
        check_in_range(0, 1, gamma=gamma)
        self.gamma = gamma
        self.register_buffer("log_average", torch.full((n,), -math.inf, dtype=dtype))
        self.register_buffer("temperatures", torch.full((n,), temperature, dtype=dtype))

    temperatures: Tensor

    @property
    def average(self) -> Tensor:
        """``(n,)`` moving averages s, 0 where a sample was never seen."""
        return self.log_average.exp()

    def forward(self, z1: Tensor, z2: Tensor, index: Tensor, *, first_visit: bool | None = None) -> Tensor:
        """Surrogate loss of a batch; updates the state of its samples. Only the gradient means something.

        Args:
            z1: ``(B, d)`` first views, any scale (normalized here).
            z2: ``(B, d)`` second views.
            index: ``(B,)`` which training samples these are, all different.
            first_visit: whether the averages start with this batch. None decides sample by sample; False uses the
                stored average even where it is still 0.

        Returns:
            Scalar.

        Raises:
            TypeError: wrong dtype.
            ValueError: shapes do not fit, an index out of range or twice, fewer than two samples, NaN.
        """
        check_labels(index, len(z1), name="index", num_classes=len(self.log_average))
        if len(index.unique()) < len(index):
            raise ValueError("index: expected every sample once in a batch, got one twice")
        a, positive = negative_similarities(z1, z2)
        weights, log_mean = self._weights(a.detach(), index, first_visit)
        loss = (weights * a).mean(-1).sum(0) - 2 * positive  # (B,)
        self._update(a.detach(), weights, log_mean, index)
        return loss.mean()

    def _weights(self, a: Tensor, index: Tensor, first_visit: bool | None) -> tuple[Tensor, Tensor]:
        """Weights ``(2, B, M)`` of the negatives and log S ``(2, B)`` of either view."""
        scaled = a / self.temperatures[index][:, None]  # (2, B, M)
        log_g = scaled.logsumexp(-1) - math.log(a.shape[-1])  # (2, B)
        old = self.log_average[index]
        averaged = (
            torch.logaddexp(old + math.log1p(-self.gamma), log_g + math.log(self.gamma)) if self.gamma < 1 else log_g
        )
        fresh = old.isneginf() if first_visit is None else torch.full_like(old, first_visit, dtype=torch.bool)
        log_mean = torch.where(fresh, log_g, averaged)
        return (scaled - log_mean[..., None]).exp(), log_mean

    @torch.no_grad()
    def _update(self, a: Tensor, weights: Tensor, log_mean: Tensor, index: Tensor) -> None:
        self.log_average[index] = torch.logaddexp(log_mean[0], log_mean[1]) - math.log(2)


class ISogCLR(SogCLR):
    """SogCLR in which every sample learns its temperature.

    State: ``log_average``, ``temperatures`` and their momentum ``velocity``, each ``(n,)``.

    Source: Qiu et al. (2023), algorithm 1.
    """

    velocity: Tensor

    def __init__(
        self,
        n: int,
        *,
        temperature: float = 0.1,
        low: float = 0.05,
        high: float = 1.0,
        rho: float = 0.4,
        gamma: float = 0.8,
        learning_rate: float = 0.03,
        momentum: float = 0.5,
        clip: float = 3.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        r"""Make an empty memory.

        Args:
            n: number of training samples.
            temperature: initial value of all temperatures.
            low: smallest temperature.
            high: largest temperature.
            rho: radius :math:`\rho \ge 0` of the KL ball; the larger, the lower the temperatures.
            gamma: weight of the new batch in the average, in (0, 1].
            learning_rate: of the temperatures; 0 gives SogCLR.
            momentum: weight of the newest gradient in their velocity, in (0, 1].
            clip: bound on that gradient.
            dtype: of the state; the default dtype if None.

        Raises:
            ValueError: a value outside its range.
        """
        super().__init__(n, temperature=temperature, gamma=gamma, dtype=dtype)
        check_positive(low=low, clip=clip, momentum=momentum)
        check_in_range(low, high, temperature=temperature)
        check_in_range(0, math.inf, rho=rho, learning_rate=learning_rate)
        check_in_range(0, 1, momentum=momentum)
        self.low, self.high, self.rho, self.clip = low, high, rho, clip
        self.learning_rate, self.momentum = learning_rate, momentum
        self.register_buffer("velocity", torch.zeros(n, dtype=dtype))

    @torch.no_grad()
    def _update(self, a: Tensor, weights: Tensor, log_mean: Tensor, index: Tensor) -> None:
        super()._update(a, weights, log_mean, index)
        tau = self.temperatures[index]
        spread = (weights * a).mean(-1) / tau  # (2, B); log S - spread is minus a KL divergence where S is exact
        gradient = (log_mean - spread).mean(0) + self.rho  # (B,)
        velocity = self.velocity[index].lerp(gradient.clamp(-self.clip, self.clip), self.momentum)
        self.velocity[index] = velocity
        self.temperatures[index] = (tau - self.learning_rate * velocity).clamp(self.low, self.high)
