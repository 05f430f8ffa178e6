r"""Reducing Spurious Correlations for Aspect-Based Sentiment Analysis with Variational Information Bottleneck and
Contrastive Learning (CVIB). Mingshan Chang, Min Yang, Qingshan Jiang, Ruifeng Xu; 2023;
https://arxiv.org/abs/2303.02846.

Two classifiers learn together: an original one (o) and a pruned one (p) whose layers are followed by noisy masks. One
draw :math:`\epsilon` a sample is shared by its S tokens:

.. math::
    \mathrm{out}_{bs} &= x_{bs}\odot(\mu + e^{\rho/2}\odot\epsilon_b), \qquad
    \mathrm{KL} = \tfrac S2\sum_j\log\Big(1+\tfrac{\mu_j^2}{e^{\rho_j}}\Big), \\
    C(h^p, h^o) &= -\frac1N\sum_i\log\frac{e^{\cos(h^p_i,h^o_i)/\tau}}{\sum_j e^{\cos(h^p_i,h^o_j)/\tau}}, \\
    L_o &= \mathrm{CE}_o + \lambda\,C(\mathrm{sg}[h^p], h^o), \qquad
    L_p = \mathrm{CE}_p + \lambda\,C(h^p, \mathrm{sg}[h^o]) + \beta\sum_{\text{masks}}\mathrm{KL}.

For prediction the pruned network multiplies by :math:`\mu` where :math:`\log\alpha = \rho-\log\mu^2` is below a
threshold and by 0 elsewhere.

What changes and why: noise in a channel costs accuracy only if the label needs the channel, and the KL rewards noise.
Channels that tell little about the label turn into noise and are cut. The contrast keeps the pruned features of a
sample recognizable among the original ones. A cut channel is a *weak* one: a spurious cue that predicts the training
labels better than the true cause is kept longer than the cause.

Paper versus code. The released code was the source; the body of the paper was not available. (1) The code zeroes the
gradients at each batch although it accumulates over two, so every second batch is lost; here each batch is a step.
(2) It picks the checkpoint on the test set; use a validation split. (3) Its KL multiplies by the second axis, which for
``(B, d)`` inputs is the number of channels; here vectors count as one token. (4) It holds a prior variance that is
never used. (5) KL is a sum over channels, tokens and masks, not divided by the batch, hence :math:`\beta\approx10^{-7}`
for a large encoder, far more for a small one. (6) The published networks read a dependency graph; here tokens pass a
small MLP and are averaged, and a mask on the input can be added. (7) The code has an optimizer for each network; here
one does both, with the same result, since neither loss reaches the other network.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_number,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, self_mask
from ..models.token_classifier import TokenClassifier

__all__ = [
    "CVIB",
    "Objectives",
    "VIBMask",
    "cvib_objectives",
    "draw_noises",
    "kept_channels",
    "mask_divergence",
    "noise_ratio",
    "noisy_mask",
    "self_pruning_contrast",
]

LARGEST_MEAN, LARGEST_LOG_VARIANCE = 1e15, 80.0  # beyond, squares and exponentials leave float32
LARGEST_NORM = 1.0  # to which the gradient of each network is clipped


class Objectives(NamedTuple):
    """The loss of each network, constant for the other one, and their sum first."""

    loss: Tensor
    original: Tensor
    pruned: Tensor


@full_precision
def noisy_mask(x: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    r"""Multiply every channel by :math:`\mu + e^{\rho/2}\epsilon`, with one :math:`\epsilon` a sample.

    Args:
        x: ``(B, S, d)`` token features.
        mean: ``(d,)`` :math:`\mu`.
        log_variance: ``(d,)`` :math:`\rho`.
        noise: ``(B, d)`` standard normal.

    Returns:
        ``(B, S, d)``.

    Source: released code, mask layer.
    """
    check_shapes(x=(x, "B S d"), mean=(mean, "d"), log_variance=(log_variance, "d"), noise=(noise, "B d"))
    _check_mask_parameters(mean, log_variance)
    z = mean + (log_variance / 2).exp() * noise  # (B, d)
    return x * z[:, None]


@full_precision
def mask_divergence(
    mean: Tensor, log_variance: Tensor, tokens: int = 1, *, multiplier: float = 1.0, tiny: float = 1e-8
) -> Tensor:
    r"""KL from the mask's Gaussian to a Gaussian prior around 0 with the best variance for each channel.

    Args:
        mean: ``(d,)`` :math:`\mu`.
        log_variance: ``(d,)`` :math:`\rho`.
        tokens: S, number of tokens a sample has; 1 for vectors.
        multiplier: a further factor.
        tiny: added to the variance.

    Returns:
        Scalar, at least 0: the sum over channels, times S.

    Source: released code, mask layer.
    """
    check_shapes(mean=(mean, "d"), log_variance=(log_variance, "d"))
    _check_mask_parameters(mean, log_variance)
    check_count(tokens=tokens)
    check_in_range(0, 1e6, multiplier=multiplier)
    log_tiny = _log_tiny(tiny, log_variance)
    ratio = mean.square() * (-torch.logaddexp(log_variance, log_tiny)).exp()  # (d,) signal over noise
    return multiplier * tokens / 2 * ratio.log1p().sum()


@full_precision
def noise_ratio(mean: Tensor, log_variance: Tensor, *, tiny: float = 1e-8) -> Tensor:
    r"""``(d,)`` noise over signal, :math:`\log\alpha=\rho-\log(\mu^2+\text{tiny})`, a constant for the gradient."""
    check_shapes(mean=(mean, "d"), log_variance=(log_variance, "d"))
    log_tiny = _log_tiny(tiny, log_variance)
    return log_variance.detach() - torch.logaddexp(2 * mean.detach().abs().log(), log_tiny)


def kept_channels(mean: Tensor, log_variance: Tensor, threshold: float = 0.0, *, tiny: float = 1e-8) -> Tensor:
    """``(d,)`` boolean, true where `noise_ratio` is below ``threshold``, which may be infinite: these survive."""
    check_number("threshold", threshold)
    if math.isnan(threshold):
        raise ValueError("threshold: expected a number, got nan")
    return noise_ratio(mean, log_variance, tiny=tiny) < threshold


@full_precision
def self_pruning_contrast(pruned: Tensor, original: Tensor, temperature: float | Tensor = 0.1) -> Tensor:
    """Each pruned feature looks for the original feature of its own sample.

    Args:
        pruned: ``(N, d)`` anchors, any scale.
        original: ``(N, d)`` candidates, any scale.
        temperature: greater than 0.

    Returns:
        Scalar; 0 for a single sample.

    Source: released code, self-pruning contrastive loss.
    """
    check_shapes(pruned=(pruned, "N d"), original=(original, "N d"))
    check_temperature(temperature)
    logits = cosine_similarity(pruned, original) / temperature  # (N, N)
    return softmax_contrast(logits, self_mask(len(logits), logits.device))


@full_precision
def cvib_objectives(
    logits_original: Tensor,
    logits_pruned: Tensor,
    labels: Tensor,
    original: Tensor,
    pruned: Tensor,
    divergence: Tensor | float,
    temperature: float = 0.1,
    contrast_weight: float = 0.5,
    divergence_weight: float = 2.5e-7,
) -> Objectives:
    """Both losses of a batch; each is constant for the other network.

    Args:
        logits_original: ``(N, K)``.
        logits_pruned: ``(N, K)``.
        labels: ``(N,)`` integer labels.
        original: ``(N, d)`` features of the original network.
        pruned: ``(N, d)`` features of the pruned network.
        divergence: KL summed over the masks.
        temperature: greater than 0.
        contrast_weight: at least 0.
        divergence_weight: at least 0.

    Source: released training loop.

    Example:
        >>> x, y, noise = torch.eye(2), torch.tensor([0, 1]), torch.tensor([[0.0, 3.0], [0.0, -3.0]])
        >>> mean, log_variance = torch.ones(2), torch.tensor([-9.0, 2.0])  # the second channel is noise
        >>> kept_channels(mean, log_variance).tolist()
        [True, False]
        >>> masked = noisy_mask(x[:, None], mean, log_variance, noise)[:, 0]
        >>> cvib_objectives(x, masked, y, x, masked, mask_divergence(mean, log_variance)).pruned.shape
        torch.Size([])
    """
    check_shapes(logits_original=(logits_original, "N K"), logits_pruned=(logits_pruned, "N K"))
    labels = check_labels(labels, len(logits_original), num_classes=logits_original.shape[1])
    check_shapes(logits_original=(logits_original, "N K"), original=(original, "N d"), pruned=(pruned, "N d"))
    check_in_range(0, math.inf, divergence=divergence)
    check_in_range(0, 1e6, contrast_weight=contrast_weight, divergence_weight=divergence_weight)
    numbers = (temperature, contrast_weight)
    loss_original = _objective(logits_original, labels, original, pruned.detach(), *numbers)
    loss_pruned = _objective(logits_pruned, labels, original.detach(), pruned, *numbers)
    loss_pruned = loss_pruned + divergence_weight * divergence
    return Objectives(loss_original + loss_pruned, loss_original, loss_pruned)


@full_precision
def _objective(
    logits: Tensor, labels: Tensor, original: Tensor, pruned: Tensor, temperature: float, contrast_weight: float
) -> Tensor:
    """What both networks have in common: cross-entropy and contrast."""
    return F.cross_entropy(logits, labels) + contrast_weight * self_pruning_contrast(pruned, original, temperature)


class VIBMask(nn.Module):
    """A mask layer: noisy in training, hard in evaluation. It starts almost without noise."""

    def __init__(self, dim: int, *, threshold: float = 0.0) -> None:
        """Draw means near 1 and log-variances near -9.

        Args:
            dim: number of channels.
            threshold: see `kept_channels`.
        """
        super().__init__()
        check_count(dim=dim)
        check_number("threshold", threshold)
        self.threshold = threshold
        self.mean = nn.Parameter(1 + 0.01 * torch.randn(dim))
        self.log_variance = nn.Parameter(-9 + 0.01 * torch.randn(dim))

    @property
    def kept(self) -> Tensor:
        """``(d,)`` boolean."""
        return kept_channels(self.mean, self.log_variance, self.threshold)

    def divergence(self, tokens: int = 1) -> Tensor:
        """See `mask_divergence`."""
        return mask_divergence(self.mean, self.log_variance, tokens)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mask ``(B, S, d)``; ``noise`` ``(B, d)`` is drawn in training if it is None, and ignored in evaluation."""
        width = len(self.mean)
        check_shapes(x=(x, f"B S {width}"), noise=(noise, f"B {width}?"))
        if not self.training:
            return x * (self.kept * self.mean.detach())
        if noise is None:
            noise = torch.randn(len(x), width, dtype=x.dtype, device=x.device)
        return noisy_mask(x, self.mean, self.log_variance, noise.to(x))


def draw_noises(network: TokenClassifier, n: int, *, generator: torch.Generator | None = None) -> list[Tensor]:
    """Standard normal noise ``(n, width)`` for every mask of a network."""
    check_type(TokenClassifier, network=network)
    check_count(n=n)
    check_generator(generator)
    means = [mask.mean for mask in network.masks if isinstance(mask, VIBMask)]
    where = [mean.device if generator is None else generator.device for mean in means]
    drawn = [torch.randn(n, len(m), generator=generator, device=w) for m, w in zip(means, where, strict=True)]
    return [x.to(mean.device) for x, mean in zip(drawn, means, strict=True)]


class CVIB(nn.Module):
    """Both networks; only ``pruned`` is kept for prediction. Their optimizer is part of the state.

    Source: Chang et al. (2023), released training loop.
    """

    def __init__(
        self,
        original: TokenClassifier,
        pruned: TokenClassifier,
        *,
        temperature: float = 0.1,
        contrast_weight: float = 0.5,
        divergence_weight: float = 2.5e-7,
        learning_rate: float = 2e-3,
        mask_learning_rate: float = 2e-2,
    ) -> None:
        """Start ``pruned`` from the weights of ``original``; afterwards they share nothing.

        Args:
            original: a network without masks.
            pruned: the same with masks: ``TokenClassifier(..., mask=VIBMask)``.
            temperature: see `cvib_objectives`.
            contrast_weight: see there.
            divergence_weight: see there.
            learning_rate: of the weights.
            mask_learning_rate: of the masks, which learn faster (the authors halve it every 10 epochs).
        """
        super().__init__()
        check_type(TokenClassifier, original=original, pruned=pruned)
        check_temperature(temperature)
        check_in_range(0, 1e6, contrast_weight=contrast_weight, divergence_weight=divergence_weight)
        check_positive(learning_rate=learning_rate, mask_learning_rate=mask_learning_rate)
        if not len(pruned.masks) or not all(isinstance(mask, VIBMask) for mask in pruned.masks):
            raise ValueError("pruned: expected a network with masks (mask=VIBMask), got one without")
        if pruned.sizes != original.sizes:
            raise ValueError(f"pruned: expected layers of widths {original.sizes} as original, got {pruned.sizes}")
        pruned.layers.load_state_dict(original.layers.state_dict())
        pruned.classifier.load_state_dict(original.classifier.state_dict())
        self.original, self.pruned = original, pruned
        self.numbers = temperature, contrast_weight, divergence_weight
        weights = [*original.parameters(), *pruned.layers.parameters(), *pruned.classifier.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": weights},
            {"params": list(pruned.masks.parameters()), "lr": mask_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, K)`` logits of the pruned network for tokens ``(B, S, d)`` or vectors ``(B, d)``."""
        return self.pruned(x)[1]

    def loss(self, x: Tensor, labels: Tensor, *, generator: torch.Generator | None = None) -> Objectives:
        """Both losses of tokens ``(B, S, d)`` or vectors ``(B, d)``, each with its own draw of the noise."""
        labels = self._checked(x, labels)
        noises = [draw_noises(self.pruned, len(x), generator=generator) for _ in range(2)]
        with torch.no_grad():
            seen, _ = self.pruned(x, noises[0])  # what the original network looks at
        original, logits = self.original(x)
        pruned, pruned_logits = self.pruned(x, noises[1])
        temperature, contrast_weight, divergence_weight = self.numbers
        numbers = (temperature, contrast_weight)
        first = _objective(logits, labels, original, seen, *numbers)
        second = _objective(pruned_logits, labels, original.detach(), pruned, *numbers)
        second = second + divergence_weight * self._divergence(x.shape[1] if x.ndim == 3 else 1)
        return Objectives(first + second, first, second)

    def step(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator | None = None) -> Objectives:
        """One batch ``(x, labels)``; the losses from before the step.

        The method owns this loop because each network's gradient is clipped by itself and its masks have a learning
        rate of their own, in an optimizer that goes on where a checkpoint stopped.
        """
        check_type((list, tuple), batch=batch)
        if len(batch) != 2:
            raise ValueError(f"batch: expected x and labels, got {len(batch)} parts")
        self._checked(*batch, "batch: ")
        self.train()
        losses = self.loss(*batch, generator=generator)
        self.optimizer.zero_grad()
        losses.loss.backward()
        for network in (self.original, self.pruned):
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
        self.optimizer.step()
        return Objectives(*(loss.detach() for loss in losses))

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put it back."""
        self.optimizer.load_state_dict(copy.deepcopy(state))

    def _divergence(self, tokens: int) -> Tensor:
        return torch.stack([m.divergence(tokens) for m in self.pruned.masks if isinstance(m, VIBMask)]).sum()

    def _checked(self, x: Tensor, labels: Tensor, of: str = "") -> Tensor:
        check_type(Tensor, **{f"{of}x": x})
        width, layer = self.pruned.sizes[0], self.pruned.classifier[1]
        shapes = {f"{of}x": (x, f"B {width}" if x.ndim == 2 else f"B S {width}"), f"{of}labels": (labels, "B", int)}
        check_shapes(**shapes)
        classes = layer.out_features if isinstance(layer, nn.Linear) else None
        return check_labels(labels, len(x), name=f"{of}labels", num_classes=classes)


def _check_mask_parameters(mean: Tensor, log_variance: Tensor) -> None:
    check_entries(-LARGEST_MEAN, LARGEST_MEAN, mean=mean)
    check_entries(-math.inf, LARGEST_LOG_VARIANCE, log_variance=log_variance)


def _log_tiny(tiny: float, like: Tensor) -> Tensor:
    check_positive(tiny=tiny)
    return torch.tensor(math.log(tiny), dtype=like.dtype, device=like.device)
