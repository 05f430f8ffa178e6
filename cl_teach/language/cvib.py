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
small MLP and are averaged, and a mask on the input can be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
)
from ..core.contrast import softmax_contrast
from ..core.similarity import cosine_similarity, self_mask

__all__ = [
    "CVIB",
    "Objectives",
    "TokenClassifier",
    "VIBMask",
    "cvib_objectives",
    "kept_channels",
    "mask_divergence",
    "noise_ratio",
    "noisy_mask",
    "self_pruning_contrast",
]


class Objectives(NamedTuple):
    """The loss of each network, two scalars; either is constant for the other network."""

    original: Tensor
    pruned: Tensor


def noisy_mask(x: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    r"""Multiply every channel by :math:`\mu + e^{\rho/2}\epsilon`, with one :math:`\epsilon` a sample.

    Args:
        x: ``(B, S, d)`` token features.
        mean: ``(d,)`` :math:`\mu`.
        log_variance: ``(d,)`` :math:`\rho`.
        noise: ``(B, d)`` standard normal.

    Returns:
        ``(B, S, d)``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN.

    Source: released code, mask layer.
    """
    check_embeddings(x=x, ndim=3)
    check_embeddings(mean=mean, log_variance=log_variance, ndim=1)
    check_embeddings(noise=noise)
    check_same_width(x=x, mean=mean, log_variance=log_variance, noise=noise)
    check_same_length(x=x, noise=noise)
    z = mean + (log_variance / 2).exp() * noise  # (B, d)
    return x * z[:, None]


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

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, a number not positive.

    Source: released code, mask layer.
    """
    check_embeddings(mean=mean, log_variance=log_variance, ndim=1)
    check_same_shape(mean=mean, log_variance=log_variance)
    check_positive(tokens=tokens, multiplier=multiplier, tiny=tiny)
    ratio = mean.square() / (log_variance.exp() + tiny)  # (d,) signal over noise
    return multiplier * tokens / 2 * ratio.log1p().sum()


def noise_ratio(mean: Tensor, log_variance: Tensor, *, tiny: float = 1e-8) -> Tensor:
    r"""``(d,)`` noise over signal, :math:`\log\alpha=\rho-\log(\mu^2+\text{tiny})`, a constant for the gradient.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, ``tiny`` not positive.
    """
    check_embeddings(mean=mean, log_variance=log_variance, ndim=1)
    check_same_shape(mean=mean, log_variance=log_variance)
    check_positive(tiny=tiny)
    return log_variance.detach() - (mean.detach().square() + tiny).log()


def kept_channels(mean: Tensor, log_variance: Tensor, threshold: float = 0.0, *, tiny: float = 1e-8) -> Tensor:
    """``(d,)`` boolean, true where `noise_ratio` is below ``threshold``: these channels survive."""
    return noise_ratio(mean, log_variance, tiny=tiny) < threshold


def self_pruning_contrast(pruned: Tensor, original: Tensor, temperature: float = 0.1) -> Tensor:
    """Each pruned feature looks for the original feature of its own sample.

    Args:
        pruned: ``(N, d)`` anchors, any scale.
        original: ``(N, d)`` candidates, any scale.
        temperature: greater than 0.

    Returns:
        Scalar; 0 for a single sample.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, temperature not positive.

    Source: released code, self-pruning contrastive loss.
    """
    check_embeddings(pruned=pruned, original=original)
    check_same_shape(pruned=pruned, original=original)
    check_positive(temperature=temperature)
    logits = cosine_similarity(pruned, original) / temperature  # (N, N)
    return softmax_contrast(logits, self_mask(len(logits), logits.device))


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

    Returns:
        Two scalars.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a weight out of range.

    Source: released training loop.
    """
    check_embeddings(logits_original=logits_original, logits_pruned=logits_pruned)
    check_same_shape(logits_original=logits_original, logits_pruned=logits_pruned)
    check_labels(labels, len(logits_original), num_classes=logits_original.shape[1])
    check_same_length(logits_original=logits_original, original=original)
    check_in_range(0, float("inf"), contrast_weight=contrast_weight, divergence_weight=divergence_weight)
    contrast_original = self_pruning_contrast(pruned.detach(), original, temperature)
    contrast_pruned = self_pruning_contrast(pruned, original.detach(), temperature)
    loss_original = F.cross_entropy(logits_original, labels) + contrast_weight * contrast_original
    loss_pruned = F.cross_entropy(logits_pruned, labels) + contrast_weight * contrast_pruned
    return Objectives(loss_original, loss_pruned + divergence_weight * divergence)


class VIBMask(nn.Module):
    """A mask layer: noisy in training, hard in evaluation. It starts almost without noise."""

    def __init__(self, dim: int, *, threshold: float = 0.0) -> None:
        """Draw means near 1 and log-variances near -9."""
        super().__init__()
        self.threshold = threshold
        self.mean = nn.Parameter(1 + 0.01 * torch.randn(dim))
        self.log_variance = nn.Parameter(-9 + 0.01 * torch.randn(dim))

    @property
    def kept(self) -> Tensor:
        """``(d,)`` boolean."""
        return kept_channels(self.mean, self.log_variance, self.threshold)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mask ``(B, S, d)``; ``noise`` ``(B, d)`` is drawn in training if it is None, and ignored in evaluation."""
        if not self.training:
            return x * (self.kept * self.mean.detach())
        if noise is None:
            noise = torch.randn(len(x), x.shape[-1], dtype=x.dtype, device=x.device)
        return noisy_mask(x, self.mean, self.log_variance, noise)


class TokenClassifier(nn.Module):
    """Token-wise layers, mean over the tokens, a linear classifier; with masks it is the network that prunes itself."""

    def __init__(
        self, sizes: Sequence[int], classes: int, *, masked: bool, mask_input: bool = False, dropout: float = 0.0
    ) -> None:
        """Make layers of widths ``sizes``, input first.

        With ``masked`` a mask follows every layer, with ``mask_input`` one also stands before the first. ``dropout``
        acts on the input of the classifier, behind the features.

        Raises:
            ValueError: fewer than two sizes.
        """
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"sizes: expected the input and at least one layer, got {list(sizes)}")
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        widths = (sizes if mask_input else sizes[1:]) if masked else []
        self.masks = nn.ModuleList(VIBMask(width) for width in widths)
        self.mask_input = masked and mask_input
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(sizes[-1], classes))

    def divergence(self, tokens: int = 1) -> Tensor:
        """KL summed over the masks; 0 without masks."""
        terms = [mask_divergence(mean, rho, tokens) for mean, rho in (mask.parameters() for mask in self.masks)]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def forward(self, x: Tensor, noises: Sequence[Tensor | None] | None = None) -> tuple[Tensor, Tensor]:
        """``(B, h)`` features and ``(B, K)`` logits of ``(B, S, d)`` tokens or ``(B, d)`` vectors (one token).

        ``noises`` holds one ``(B, width)`` a mask; drawn in training if None.

        Raises:
            TypeError: not floating.
            ValueError: wrong shape, NaN, not one noise a mask.
        """
        x = x[:, None] if x.ndim == 2 else x
        check_embeddings(x=x, ndim=3)
        drawn = noises if noises is not None else [None] * len(self.masks)
        if len(drawn) != len(self.masks):
            raise ValueError(f"noises: expected one for each of {len(self.masks)} masks, got {len(drawn)}")
        if self.mask_input:
            x = self.masks[0](x, drawn[0])
        for i, layer in enumerate(self.layers, start=int(self.mask_input)):
            x = layer(x).relu()
            if len(self.masks):
                x = self.masks[i](x, drawn[i])
        features = x.mean(1)  # (B, h)
        return features, self.classifier(features)


class CVIB(nn.Module):
    """Both networks and one training step; only ``pruned`` is kept for prediction.

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
    ) -> None:
        """Start ``pruned`` (with masks) from the weights of ``original``; afterwards they share nothing.

        The numbers are those of `cvib_objectives`.

        Raises:
            ValueError: a number out of range, ``pruned`` without masks.
        """
        super().__init__()
        check_positive(temperature=temperature)
        check_in_range(0, float("inf"), contrast_weight=contrast_weight, divergence_weight=divergence_weight)
        if not len(pruned.masks):
            raise ValueError("pruned: expected a network with masks, got one without")
        pruned.load_state_dict(original.state_dict(), strict=False)
        self.original, self.pruned = original, pruned
        self.numbers = temperature, contrast_weight, divergence_weight

    def optimizers(self, rate: float = 2e-3, mask_rate: float = 2e-2) -> tuple[torch.optim.AdamW, torch.optim.AdamW]:
        """One optimizer a network; the masks learn faster (the authors halve their rate every 10 epochs)."""
        pruned = torch.optim.AdamW(self.pruned.masks.parameters(), lr=mask_rate, weight_decay=0.0)
        weights = [*self.pruned.layers.parameters(), *self.pruned.classifier.parameters()]
        pruned.add_param_group({"params": weights, "lr": rate})
        return torch.optim.AdamW(self.original.parameters(), lr=rate, weight_decay=0.0), pruned

    def step(self, x: Tensor, labels: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> Objectives:
        """One batch: first the original network, then the pruned one with fresh noise.

        ``x`` is ``(B, S, d)`` or ``(B, d)``, ``labels`` is ``(B,)``; returns the losses from before the step, detached.
        """
        self.train()
        with torch.no_grad():
            seen, seen_logits = self.pruned(x)  # first sample of the noise
        original, logits = self.original(x)
        losses_original = cvib_objectives(logits, seen_logits, labels, original, seen, 0.0, *self.numbers)
        pruned, pruned_logits = self.pruned(x)  # second sample
        kl = self.pruned.divergence(x.shape[1] if x.ndim == 3 else 1)
        losses_pruned = cvib_objectives(logits, pruned_logits, labels, original.detach(), pruned, kl, *self.numbers)
        losses = Objectives(losses_original.original, losses_pruned.pruned)
        for network, loss, optimizer in zip((self.original, self.pruned), losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        return Objectives(*(loss.detach() for loss in losses))
