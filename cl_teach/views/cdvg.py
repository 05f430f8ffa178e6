r"""CDvG: Fighting Fire with Fire: Contrastive Debiasing without Bias-free Data via Generative Bias-transformation.
Yeonsung Jung, Hajin Shim, June Yong Yang, Eunho Yang; ICML 2023; https://arxiv.org/abs/2112.01021.

In the training data an easy attribute (color) goes with the label, and nobody says which. A translator G(x, t) is
trained to move images into classes; it takes the easy way, too, and changes the color. Frozen, it makes two views of a
sample with targets drawn at random:

.. math::
    x_i^1 = G(x_i,t_i),\quad x_i^2 = G(x_i,t_i'),\qquad z_i^k = g(f(x_i^k)),\quad o_i^k = h(f(x_i^k)),

.. math::
    L = \underbrace{\frac1{2N}\sum_{i,k}-\log\mathrm{softmax}(o_i^k)_{y_i}}_{L_{ce}} + \lambda
    \underbrace{\frac1{2N}\sum_{a=1}^{2N}\Big[-\frac{\hat z_a\cdot\hat z_{p(a)}}\tau
    +\log\sum_{b\ne a}e^{\hat z_a\cdot\hat z_b/\tau}\Big]}_{L_{con}} .

The label :math:`y_i` is the original one, never the target. G is trained first, by `TranslatorTrainer`.

What changes and why: positives differ in what the translator could change, so features that agree on them ignore the
bias. No labels of the bias and no sample without bias are needed, and the stronger the bias, the better the translator
finds it. It rests on the translator taking the easy way only.

Paper versus code. (1) No code was found and of the paper only abstract and opening were at hand: both losses, their
weights and the temperature are this book's reconstruction. (2) So is the translator, a StarGAN (Choi et al., 2018). In
the paper it is a large image translation network; here it is `ClassTranslator`, and anything that is called like it can
be put in its place. Its kernel size matters: with 1 it can only change colors. (3) One target for the whole batch makes
all negatives differ in content alone; `draw_targets` offers it. (4) The wording of the claim changed from scarce to
absent samples without bias between the versions of the paper. (5) `minimal_change`, a linear translator, is for exact
tests: it moves the signal, too, and does not remove a bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, nt_xent
from ..core.precision import full_precision
from ..core.similarity import normalize
from ..models.apply import apply_network

__all__ = ["CDvG", "CDvGTerms", "bias_share", "cdvg_loss", "draw_targets", "minimal_change", "translated_views"]


def draw_targets(
    n: int, num_classes: int, *, common: bool = False, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Two target classes a sample, ``(n,)`` integers, uniform; with ``common`` one pair of targets for the batch."""
    check_count(n=n)
    check_count(2, num_classes=num_classes)
    check_flag(common=common)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    shape = (2, 1 if common else n)
    first, second = torch.randint(num_classes, shape, generator=generator, device=where).expand(2, n)
    return first, second


@torch.no_grad()
def translated_views(
    images: Tensor, targets: tuple[Tensor, Tensor], translator: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Both views of each image come from the translator, and no gradient goes back into it.

    Args:
        images: ``(n, c, h, w)``.
        targets: two times ``(n,)`` integer classes, see `draw_targets`.
        translator: images and targets to images.

    Returns:
        Two ``(n, c, h, w)`` tensors.
    """
    check_shapes(images=(images, "n c h w"))
    check_callable(translator=translator)
    check_type((tuple, list), targets=targets)
    if len(targets) != 2:
        raise ValueError(f"targets: expected two, one a view, got {len(targets)}")
    check_same_length(images=images, **{f"targets[{k}]": t for k, t in enumerate(targets)})
    first, second = (check_labels(t, name=f"targets[{k}]") for k, t in enumerate(targets))
    return (
        apply_network(translator, "n c h w", images=images, targets=first),
        apply_network(translator, "n c h w", images=images, targets=second),
    )


class CDvGTerms(NamedTuple):
    """Total loss and its two parts, scalars."""

    loss: Tensor
    cross_entropy: Tensor
    contrastive: Tensor


@full_precision
def cdvg_loss(
    z1: Tensor,
    z2: Tensor,
    logits1: Tensor,
    logits2: Tensor,
    labels: Tensor,
    temperature: float = 0.5,
    *,
    weight: float = 1.0,
) -> CDvGTerms:
    r"""Cross-entropy of both views with the original label, plus NT-Xent between the views.

    Args:
        z1: ``(N, d)`` projections of the first views, any scale (normalized here).
        z2: ``(N, d)`` of the second views.
        logits1: ``(N, K)`` class logits of the first views.
        logits2: ``(N, K)`` of the second views.
        labels: ``(N,)`` original classes of the images, not the targets of the translation.
        temperature: :math:`\tau > 0`.
        weight: :math:`\lambda`, at least 0.

    Returns:
        `CDvGTerms`. A single sample has no negative, its contrastive part is 0.

    Source: Jung et al. (2023); the formulas are reconstructed.
    """
    check_shapes(
        z1=(z1, "n d"),
        z2=(z2, "n d"),
        logits1=(logits1, "n k"),
        logits2=(logits2, "n k"),
        labels=(labels, "n", int),
    )
    labels = check_labels(labels, len(z1), num_classes=logits1.shape[1])
    check_temperature(temperature)
    check_in_range(0, math.inf, weight=weight)
    cross_entropy = F.cross_entropy(torch.cat([logits1, logits2]), labels.repeat(2))
    contrastive = nt_xent(z1, z2, temperature) if len(z1) > 1 else 0 * normalize(z1).sum()
    return CDvGTerms(cross_entropy + weight * contrastive, cross_entropy, contrastive)


class CDvG(nn.Module):
    """Phase 2: encoder, projector, classifier and the frozen translator.

    Example:
        >>> def swap(images, targets):  # a translator that mirrors the images of class 1
        ...     return torch.where((targets == 1)[:, None, None, None], images.flip(-1), images)
        >>> method = CDvG(nn.Flatten(), 16, 2, swap)
        >>> images, labels = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> method.loss(images, labels)._fields, method(images).shape
        (('loss', 'cross_entropy', 'contrastive'), torch.Size([6, 2]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        num_classes: int,
        translator: Callable[[Tensor, Tensor], Tensor],
        *,
        out_dim: int = 32,
        temperature: float = 0.5,
        weight: float = 1.0,
        common_targets: bool = False,
        augment: Callable[..., Tensor] | None = None,
    ) -> None:
        """Put the trained parts beside the translator, which is frozen here.

        Args:
            encoder: f, images to ``(n, feature_dim)``.
            feature_dim: width of the features.
            num_classes: of the labels.
            translator: trained, images and targets to images.
            out_dim: width of the embeddings.
            temperature: of the contrast.
            weight: of the contrast; 0 leaves cross-entropy on translated views.
            common_targets: one pair of targets for a whole batch.
            augment: ordinary augmentation of the translated views, called as ``augment(views, generator=generator)``.
        """
        super().__init__()
        check_module(encoder=encoder)
        check_callable(translator=translator)
        check_count(feature_dim=feature_dim, out_dim=out_dim)
        check_count(2, num_classes=num_classes)
        check_temperature(temperature)
        check_in_range(0, math.inf, weight=weight)
        check_flag(common_targets=common_targets)
        if augment is not None:
            check_callable(augment=augment)
        self.encoder, self.num_classes, self.feature_dim = encoder, num_classes, feature_dim
        self.temperature, self.weight, self.common_targets, self.augment = temperature, weight, common_targets, augment
        self.projector = nn.Sequential(nn.Linear(feature_dim, feature_dim), nn.ReLU(), nn.Linear(feature_dim, out_dim))
        self.classifier = nn.Linear(feature_dim, num_classes)
        self.translator = translator
        if isinstance(translator, nn.Module):
            translator.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> CDvG:
        """Set the mode of the trained parts; the translator keeps its running statistics."""
        super().train(mode)
        if isinstance(self.translator, nn.Module):
            self.translator.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of images as they are: at test time nothing is translated."""
        check_shapes(images=(images, "n c h w"))
        return self.classifier(self._features(images))

    def loss(self, images: Tensor, labels: Tensor, *, generator: torch.Generator | None = None) -> CDvGTerms:
        """Targets are drawn, and both translations of each image compared.

        Args:
            images: ``(n, c, h, w)``, at least two.
            labels: ``(n,)`` their classes.
            generator: of the targets and of the augmentation.
        """
        check_shapes(images=(images, "n c h w"), labels=(labels, "n", int))
        drawn = draw_targets(len(images), self.num_classes, common=self.common_targets, generator=generator)
        targets = (drawn[0].to(images.device), drawn[1].to(images.device))
        return self.compare(images, labels, targets, generator=generator)

    def compare(
        self,
        images: Tensor,
        labels: Tensor,
        targets: tuple[Tensor, Tensor],
        *,
        generator: torch.Generator | None = None,
    ) -> CDvGTerms:
        """The losses for given targets, two times ``(n,)``; otherwise as `loss`."""
        check_shapes(images=(images, "n c h w"), labels=(labels, "n", int))
        check_batch(len(images), 2, name="images", why="to have a negative")
        views = translated_views(images, targets, self.translator)
        features = [
            self._features(view if self.augment is None else self.augment(view, generator=generator)) for view in views
        ]  # 2 x (n, feature_dim)
        z1, z2 = (self.projector(h) for h in features)
        logits1, logits2 = (self.classifier(h) for h in features)
        return cdvg_loss(z1, z2, logits1, logits2, labels, self.temperature, weight=self.weight)

    def _features(self, images: Tensor) -> Tensor:
        features = apply_network(self.encoder, "n d", images=images)
        if features.shape[1] != self.feature_dim:
            raise ValueError(
                f"images: the encoder was to give feature_dim={self.feature_dim} features, it gives {features.shape[1]}"
            )
        return features


@full_precision
def minimal_change(x: Tensor, weights: Tensor, bias: float, target_score: Tensor) -> Tensor:
    r"""The linear translator: the nearest point with the wanted score :math:`w\cdot x+b`.

    .. math:: T(x) = x + \frac{m-(w\cdot x+b)}{\lVert w\rVert^2}\,w

    Args:
        x: ``(n, d)``.
        weights: ``(d,)`` w, not zero.
        bias: b.
        target_score: ``(n,)`` m.

    Returns:
        ``(n, d)``.

    Example:
        >>> minimal_change(torch.tensor([[1.0, 1.0]]), torch.tensor([0.0, 2.0]), 0.0, torch.tensor([6.0])).tolist()
        [[1.0, 3.0]]
    """
    check_shapes(x=(x, "n d"), weights=(weights, "d"), target_score=(target_score, "n"))
    check_in_range(-math.inf, math.inf, bias=bias)
    direction, size = _scaled(weights)
    return x + ((target_score - bias) / size - x @ direction)[:, None] / direction.square().sum() * direction


@full_precision
def bias_share(weights: Tensor, signal: int) -> Tensor:
    """Share of the squared change of `minimal_change` on the coordinates after the first ``signal`` ones; scalar."""
    check_shapes(weights=(weights, "d"))
    check_count(0, signal=signal)
    if signal > len(weights):
        raise ValueError(
            f"signal, weights: expected at most as many coordinates as weights, {len(weights)}, got {signal}"
        )
    direction, _ = _scaled(weights)
    return direction[signal:].square().sum() / direction.square().sum()


def _scaled(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights with a largest entry of 1, whose squares stay in range, and the factor."""
    size = weights.abs().amax()
    if not size > 0:
        raise ValueError("weights: expected a vector that is not zero")
    return weights / size, size
