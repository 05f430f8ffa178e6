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

Images and texts: `ImageTextISogCLR` gives a temperature to every image and to every text; negatives come from the other
modality only.

Paper versus code. (1) On a sample's first visit S = g, here sample by sample; the released script counts epochs from
1, so that its averages start from 0 (``first_visit=False`` reproduces that). (2) The average is over
:math:`e^{a/\tau}`, as in the unimodal code, not over :math:`e^{h/\tau}`; the image-text code and this class use h. (3)
Views use their own S in the weights, the stored value is the mean. (4) The average is kept as a logarithm:
:math:`e^{1/\tau}` overflows float32 below a temperature of 0.0113. (5) The gradient of the temperature is clipped at 3
(images and texts: 5), as in the code. (6) The image-text code sums over the own pair too while it divides by the number
of negatives; here the own pair is left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_count,
    check_entries,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision
from ..core.similarity import normalize

__all__ = ["ISogCLR", "ImageTextISogCLR", "SogCLR", "negative_similarities", "robust_objective"]

COLDEST_SAMPLE = 1e-12  # temperatures of samples; the square of its inverse is still a number of float32


@full_precision
def negative_similarities(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """What each sample is compared with: the 2(B - 1) negatives of either view, and its positive.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.

    Returns:
        ``(2, B, 2(B - 1))`` similarities of view v of sample i to both views of the other samples, and the ``(B,)``
        similarities of the two views of a sample.
    """
    b, _ = check_shapes(z1=(z1, "B d"), z2=(z2, "B d")).values()
    check_batch(b, 2, name="z1, z2", why="to have a negative")
    z = normalize(torch.cat([z1, z2]))  # (2B, d)
    similarity = z @ z.mT  # (2B, 2B)
    views = similarity.view(2, b, 2, b).transpose(1, 2)  # of anchor, of the other; (2, 2, B, B)
    return _off_diagonal(views).transpose(1, 2).flatten(2), similarity.diagonal(b)


def _off_diagonal(tables: Tensor) -> Tensor:
    """``(..., B, B)`` without their diagonals, ``(..., B, B - 1)``; an index list would be larger than the table."""
    b = tables.shape[-1]
    # Behind the first entry a diagonal one stands at the end of every B + 1.
    return tables.flatten(-2)[..., 1:].unflatten(-1, (b - 1, b + 1))[..., :-1].reshape(*tables.shape[:-1], b - 1)


@full_precision
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
    """
    check_shapes(z1=(z1, "B d"), z2=(z2, "B d"), temperatures=(temperatures, "B"))
    check_entries(COLDEST_SAMPLE, math.inf, temperatures=temperatures)
    check_in_range(0, math.inf, rho=rho)
    a, positive = negative_similarities(z1, z2)
    tau = temperatures[:, None]
    h = (a - positive[:, None]) / tau  # (2, B, M)
    inner = h.logsumexp(-1) - math.log(h.shape[-1])  # (2, B)
    return (temperatures * (inner + rho)).sum(0).mean()


class SogCLR(nn.Module):
    """The surrogate loss with one moving average a training sample and a fixed temperature.

    A call in training mode updates the averages, as the method does before its step; evaluation mode changes nothing.
    State: ``log_average (n,)``, minus infinity where a sample was never seen, and ``temperatures (n,)``. All of it is
    thrown away after training, so calling the module is its loss.

    Source: Yuan et al. (2022), arXiv 2202.12387; the optimizer that iSogCLR builds on.
    """

    log_average: Tensor
    temperatures: Tensor

    def __init__(
        self, n: int, *, temperature: float = 0.1, gamma: float = 0.9, dtype: torch.dtype | None = None
    ) -> None:
        r"""Make an empty memory.

        Args:
            n: number of training samples.
            temperature: of all samples.
            gamma: weight of the new batch in the average, in (0, 1].
            dtype: of the state, float32 or float64; the default dtype if None.
        """
        super().__init__()
        check_count(n=n)
        check_positive(temperature=temperature, gamma=gamma)
        check_in_range(COLDEST_SAMPLE, 1 / COLDEST_SAMPLE, temperature=temperature)
        check_in_range(1e-6, 1, gamma=gamma)
        if dtype is not None:
            check_type(torch.dtype, dtype=dtype)
            if dtype not in (torch.float32, torch.float64):
                raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
        self.gamma = gamma
        self.register_buffer("log_average", torch.full((n,), -math.inf, dtype=dtype))
        self.register_buffer("temperatures", torch.full((n,), float(temperature), dtype=dtype))

    @property
    def average(self) -> Tensor:
        """``(n,)`` moving averages s, 0 where a sample was never seen."""
        return self.log_average.exp()

    def loss(
        self,
        z1: Tensor,
        z2: Tensor,
        index: Tensor,
        *,
        first_visit: bool | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Surrogate loss of a batch; only its gradient means something. Nothing is drawn.

        Args:
            z1: ``(B, d)`` first views, any scale (normalized here).
            z2: ``(B, d)`` second views.
            index: ``(B,)`` which training samples these are, all different.
            first_visit: whether the averages start with this batch. None decides sample by sample; False uses the
                stored average even where it is still 0.
            generator: not used.

        Returns:
            Scalar.
        """
        check_shapes(z1=(z1, "B d"), z2=(z2, "B d"), index=(index, "B", int))
        a, positive = negative_similarities(z1, z2)
        return (self._surrogate(a, index, first_visit) - 2 * positive).mean()

    def forward(
        self,
        z1: Tensor,
        z2: Tensor,
        index: Tensor,
        *,
        first_visit: bool | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss."""
        return self.loss(z1, z2, index, first_visit=first_visit, generator=generator)

    def _surrogate(self, a: Tensor, index: Tensor, first_visit: bool | None) -> Tensor:
        """Weighted similarities ``(B,)``, summed over views, of ``(v, B, M)``; remembers the batch."""
        index = check_labels(index, a.shape[1], name="index", num_classes=len(self.log_average))
        if not torch.compiler.is_compiling() and len(index.unique()) < len(index):
            raise ValueError("index: expected every sample once in a batch, got one twice")
        if first_visit is not None:
            check_type(bool, first_visit=first_visit)
        weights, log_mean = self._weights(a.detach(), index, first_visit)
        if self.training and torch.is_grad_enabled():
            self._update(a.detach(), weights, log_mean, index)
        return (weights * a).mean(-1).sum(0)

    def _weights(self, a: Tensor, index: Tensor, first_visit: bool | None) -> tuple[Tensor, Tensor]:
        """Weights ``(v, B, M)`` of the negatives and log S ``(v, B)`` of either view."""
        scaled = a / self.temperatures[index][:, None]  # (v, B, M)
        log_g = scaled.logsumexp(-1) - math.log(a.shape[-1])  # (v, B)
        old = self.log_average[index]
        averaged = (
            torch.logaddexp(old + math.log1p(-self.gamma), log_g + math.log(self.gamma)) if self.gamma < 1 else log_g
        )
        fresh = old.isneginf() if first_visit is None else torch.full_like(old, first_visit, dtype=torch.bool)
        log_mean = torch.where(fresh, log_g, averaged)
        return (scaled - log_mean[..., None]).exp(), log_mean

    @torch.no_grad()
    def _update(self, a: Tensor, weights: Tensor, log_mean: Tensor, index: Tensor) -> None:
        mean = log_mean.logsumexp(0) - math.log(len(log_mean))
        self.log_average[index] = mean.to(self.log_average)


class ISogCLR(SogCLR):
    """SogCLR in which every sample learns its temperature.

    State: ``log_average``, ``temperatures`` and their momentum ``velocity``, each ``(n,)``.

    Source: Qiu et al. (2023), algorithm 1.

    Example:
        >>> memory = ISogCLR(100)
        >>> loss = memory(torch.randn(4, 8), torch.randn(4, 8), torch.tensor([7, 3, 50, 99]))
        >>> int(memory.average.gt(0).sum())  # the four samples of the batch
        4
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
            rho: radius :math:`\rho` of the KL ball in nats; large values drive all temperatures to ``low``.
            gamma: weight of the new batch in the average.
            learning_rate: of the temperatures.
            momentum: weight of the new gradient in their velocity, in (0, 1].
            clip: bound on that gradient.
            dtype: of the state; the default dtype if None.
        """
        super().__init__(n, temperature=temperature, gamma=gamma, dtype=dtype)
        check_positive(low=low, high=high, clip=clip, momentum=momentum)
        if not COLDEST_SAMPLE <= low <= high:
            raise ValueError(f"low, high: expected {COLDEST_SAMPLE:g} <= low <= high, got {low:g} and {high:g}")
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
        spread = (weights * a).mean(-1) / tau  # (v, B); log S - spread is minus a KL divergence where S is exact
        gradient = (log_mean - spread).mean(0) + self.rho  # (B,)
        velocity = self.velocity[index].lerp(gradient.clamp(-self.clip, self.clip).to(tau), self.momentum)
        self.velocity[index] = velocity
        self.temperatures[index] = (tau - self.learning_rate * velocity).clamp(self.low, self.high)


class ImageTextISogCLR(nn.Module):
    r"""Images and texts: a temperature and an average for every image and for every text.

    For image i the negatives are the texts of the other pairs, :math:`h_{ij} = s_{ij} - s_{ii}`; for texts the other
    way round. The loss is the sum of both surrogates.

    State: that of ``images`` and of ``texts``, each an `ISogCLR`. Calling the module is its loss.

    Source: Qiu et al. (2023), released image-text loss.
    """

    def __init__(
        self,
        n: int,
        *,
        temperature: float = 0.01,
        low: float = 0.005,
        high: float = 1.0,
        rho: float = 6.0,
        gamma: float = 0.8,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        clip: float = 5.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        r"""Make two empty memories; all arguments but the number of pairs ``n`` as in `ISogCLR`.

        Args:
            n: number of training pairs.
            temperature: initial value of all temperatures.
            low: smallest temperature.
            high: largest temperature.
            rho: radius :math:`\rho` of the KL ball in nats.
            gamma: weight of the new batch in the average.
            learning_rate: of the temperatures.
            momentum: weight of the new gradient in their velocity.
            clip: bound on that gradient.
            dtype: of the state; the default dtype if None.
        """
        super().__init__()
        self.images, self.texts = (
            ISogCLR(
                n,
                temperature=temperature,
                low=low,
                high=high,
                rho=rho,
                gamma=gamma,
                learning_rate=learning_rate,
                momentum=momentum,
                clip=clip,
                dtype=dtype,
            )
            for _ in range(2)
        )

    def loss(self, image: Tensor, text: Tensor, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Surrogate loss of a batch of pairs; only its gradient means something. Nothing is drawn.

        Args:
            image: ``(B, d)`` image embeddings, any scale (normalized here).
            text: ``(B, d)`` text embeddings, row i belongs to image i.
            index: ``(B,)`` which training pairs these are, all different.
            generator: not used.
        """
        check_shapes(image=(image, "B d"), text=(text, "B d"), index=(index, "B", int))
        check_batch(len(image), 2, name="image, text", why="to have a negative")
        similarity = _cosines(image, text)
        from_image = self.images._surrogate(_leads(similarity), index, None)  # (B,)
        from_text = self.texts._surrogate(_leads(similarity.mT), index, None)
        return (from_image + from_text).mean()

    def forward(
        self, image: Tensor, text: Tensor, index: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss."""
        return self.loss(image, text, index, generator=generator)


@full_precision
def _cosines(image: Tensor, text: Tensor) -> Tensor:
    return normalize(image) @ normalize(text).mT


def _leads(similarity: Tensor) -> Tensor:
    """By how much each negative leads the positive: ``(1, B, B - 1)`` of ``(B, B)``."""
    h = similarity - similarity.diagonal()[:, None]
    return _off_diagonal(h[None])
