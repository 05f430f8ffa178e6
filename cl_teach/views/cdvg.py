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

The label :math:`y_i` is the original one, never the target. G is trained with a critic D of two heads (real or not,
which class):

.. math::
    L_D = L_{adv}^D + \lambda_{cls}\,\mathrm{ce}(D(x),y),\qquad
    L_G = L_{adv}^G + \lambda_{cls}\,\mathrm{ce}(D(G(x,t)),t) + \lambda_{rec}\lVert\tilde x-x\rVert_1 .

What changes and why: positives differ in what the translator could change, so features that agree on them ignore the
bias. No labels of the bias and no sample without bias are needed, and the stronger the bias, the better the translator
finds it. It rests on the translator taking the easy way only.

Paper versus code. (1) No code was found and of the paper only abstract and opening were at hand: both losses, their
weights and the temperature are this book's reconstruction. (2) So is the translator, a StarGAN (Choi et al., 2018) with
the logistic adversarial loss. In the paper it is a large image translation network; here it is `ClassTranslator`, and
anything that is called like it can be put in its place. Its kernel size matters: with 1 it can only change colors.
(3) :math:`\tilde x` is G(G(x, t), y) in a StarGAN. The default here is G(x, y): what is already there stays. In a run
on colored digits the cycle was also satisfied by a translator that returns the negative of a picture. (4) One target
for the whole batch makes all negatives differ in content alone; `draw_targets` offers it. (5) The wording of the claim
changed from scarce to absent samples without bias between the versions of the paper. (6) `minimal_change`, a linear
translator, is for exact tests: it moves the signal, too, and does not remove a bias.
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
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
)
from ..core.contrast import nt_xent

__all__ = [
    "CDvG",
    "CDvGTerms",
    "TranslatorTrainer",
    "bias_share",
    "cdvg_loss",
    "color_by_label",
    "critic_loss",
    "draw_targets",
    "minimal_change",
    "translated_views",
    "translator_loss",
]

Translator = Callable[[Tensor, Tensor], Tensor]


def color_by_label(gray: Tensor, colors: Tensor, noise: Tensor) -> Tensor:
    """Data with a bias: paint gray images.

    Args:
        gray: ``(n, 1, h, w)`` in [0, 1].
        colors: ``(n, 3)`` colors in [0, 1], those of the labels or, without bias, drawn at random.
        noise: ``(n, 3)`` added to the colors.

    Returns:
        ``(n, 3, h, w)`` in [0, 1].

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit.
    """
    check_embeddings(ndim=4, gray=gray)
    check_embeddings(colors=colors, noise=noise)
    check_same_shape(colors=colors, noise=noise)
    check_same_length(gray=gray, colors=colors)
    return gray * (colors + noise).clamp(0, 1)[:, :, None, None]


def draw_targets(
    n: int, num_classes: int, *, common: bool = False, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Two target classes a sample, uniform over all classes; with ``common`` one pair of targets for the batch.

    Returns:
        Two ``(n,)`` integer tensors.

    Raises:
        ValueError: no sample, fewer than two classes.
    """
    check_in_range(1, math.inf, n=n)
    check_in_range(2, math.inf, num_classes=num_classes)
    first, second = torch.randint(num_classes, (2, 1 if common else n), generator=generator).expand(2, n)
    return first, second


@torch.no_grad()
def translated_views(translator: Translator, images: Tensor, targets: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Both views of each image come from the translator, and no gradient goes back into it.

    Args:
        translator: images and targets to images.
        images: ``(n, c, h, w)``.
        targets: two times ``(n,)`` integer classes, see `draw_targets`.

    Returns:
        Two ``(n, c, h, w)`` tensors.

    Raises:
        TypeError: images not floating, targets not integer.
        ValueError: lengths differ.
    """
    check_embeddings(ndim=4, images=images)
    for k, target in enumerate(targets):
        check_labels(target, len(images), name=f"targets[{k}]")
    return translator(images, targets[0]), translator(images, targets[1])


class CDvGTerms(NamedTuple):
    """Total loss and its two parts, scalars."""

    loss: Tensor
    cross_entropy: Tensor
    contrastive: Tensor


def cdvg_loss(
    z1: Tensor,
    z2: Tensor,
    logits1: Tensor,
    logits2: Tensor,
    labels: Tensor,
    temperature: float = 0.5,
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

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a label or a number out of range.

    Source: Jung et al. (2023); the formulas are reconstructed.
    """
    check_embeddings(z1=z1, z2=z2, logits1=logits1, logits2=logits2)
    check_same_shape(z1=z1, z2=z2)
    check_same_shape(logits1=logits1, logits2=logits2)
    check_same_length(z1=z1, logits1=logits1)
    check_labels(labels, len(z1), num_classes=logits1.shape[1])
    check_positive(temperature=temperature)
    check_in_range(0, math.inf, weight=weight)
    cross_entropy = F.cross_entropy(torch.cat([logits1, logits2]), labels.repeat(2))
    contrastive = nt_xent(z1, z2, temperature) if len(z1) > 1 else 0 * z1.sum()
    return CDvGTerms(cross_entropy + weight * contrastive, cross_entropy, contrastive)


def critic_loss(
    real: Tensor, generated: Tensor, class_logits: Tensor, labels: Tensor, class_weight: float = 1.0
) -> Tensor:
    """Tell real images from generated ones and name the class of the real ones.

    Args:
        real: ``(n,)`` scores of real images, high for "real".
        generated: ``(m,)`` scores of generated images.
        class_logits: ``(n, K)`` of the real images.
        labels: ``(n,)`` their classes.
        class_weight: of the cross-entropy, at least 0.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a label or the weight out of range.
    """
    check_embeddings(ndim=1, real=real, generated=generated)
    check_embeddings(class_logits=class_logits)
    check_labels(labels, len(class_logits), num_classes=class_logits.shape[1])
    check_in_range(0, math.inf, class_weight=class_weight)
    adversarial = F.softplus(-real).mean() + F.softplus(generated).mean()
    return adversarial + class_weight * F.cross_entropy(class_logits, labels)


def translator_loss(
    generated: Tensor,
    class_logits: Tensor,
    targets: Tensor,
    reconstruction: Tensor,
    images: Tensor,
    class_weight: float = 1.0,
    reconstruction_weight: float = 10.0,
) -> Tensor:
    """Look real, look like the target class, and keep what is needed to get the image back.

    Args:
        generated: ``(n,)`` scores of translated images by the critic.
        class_logits: ``(n, K)`` of the translated images.
        targets: ``(n,)`` the classes they were moved into.
        reconstruction: ``(n, c, h, w)``.
        images: ``(n, c, h, w)`` originals.
        class_weight: of the cross-entropy, at least 0.
        reconstruction_weight: of the mean absolute difference, at least 0.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a target or a weight out of range.
    """
    check_embeddings(ndim=1, generated=generated)
    check_embeddings(class_logits=class_logits)
    check_embeddings(ndim=4, reconstruction=reconstruction, images=images)
    check_same_shape(reconstruction=reconstruction, images=images)
    check_labels(targets, len(class_logits), name="targets", num_classes=class_logits.shape[1])
    check_in_range(0, math.inf, class_weight=class_weight, reconstruction_weight=reconstruction_weight)
    look = F.softplus(-generated).mean() + class_weight * F.cross_entropy(class_logits, targets)
    return look + reconstruction_weight * F.l1_loss(reconstruction, images)


class TranslatorTrainer:
    """Phase 1: translator and critic in turn, with the class labels as domains; nobody names the bias."""

    def __init__(
        self,
        translator: nn.Module,
        critic: nn.Module,
        num_classes: int,
        *,
        cycle: bool = False,
        class_weight: float = 1.0,
        reconstruction_weight: float = 10.0,
        learning_rate: float = 2e-3,
    ) -> None:
        """Set up both optimizers.

        Args:
            translator: images and targets to images.
            critic: images to scores and class logits, see `ClassCritic`.
            num_classes: of the labels.
            cycle: reconstruct by G(G(x, t), y), as a StarGAN; False: by G(x, y).
            class_weight: of the class terms (1 in a StarGAN).
            reconstruction_weight: of the reconstruction (10 in a StarGAN).
            learning_rate: of both Adam optimizers.

        Raises:
            ValueError: fewer than two classes, a rate not positive.
        """
        check_in_range(2, math.inf, num_classes=num_classes)
        check_positive(learning_rate=learning_rate)
        self.translator, self.critic, self.num_classes, self.cycle = translator, critic, num_classes, cycle
        self.class_weight, self.reconstruction_weight = class_weight, reconstruction_weight
        self.optimizers = [
            torch.optim.Adam(model.parameters(), learning_rate, betas=(0.5, 0.999)) for model in (critic, translator)
        ]

    def step(self, images: Tensor, labels: Tensor, targets: Tensor) -> tuple[float, float]:
        """One update of the critic, then one of the translator.

        Args:
            images: ``(n, c, h, w)``.
            labels: ``(n,)`` their classes.
            targets: ``(n,)`` drawn classes.

        Returns:
            Loss of the critic and loss of the translator.

        Raises:
            TypeError: wrong dtype.
            ValueError: shapes do not fit, a class out of range.
        """
        check_labels(labels, len(images), num_classes=self.num_classes)
        check_labels(targets, len(images), name="targets", num_classes=self.num_classes)
        translated = self.translator(images, targets)
        real, class_logits = self.critic(images)
        fake, _ = self.critic(translated.detach())
        first = critic_loss(real, fake, class_logits, labels, self.class_weight)
        self._update(0, first)

        fake, class_logits = self.critic(translated)
        back = self.translator(translated if self.cycle else images, labels)
        weights = (self.class_weight, self.reconstruction_weight)
        second = translator_loss(fake, class_logits, targets, back, images, *weights)
        self._update(1, second)
        return first.item(), second.item()

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


class CDvG(nn.Module):
    """Phase 2: encoder, projector, classifier and the frozen translator; ``method.step(...).loss`` is minimized."""

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        num_classes: int,
        translator: nn.Module,
        *,
        out_dim: int = 32,
        temperature: float = 0.5,
        weight: float = 1.0,
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

        Raises:
            ValueError: a number out of range.
        """
        super().__init__()
        check_positive(feature_dim=feature_dim, out_dim=out_dim, temperature=temperature)
        check_in_range(2, math.inf, num_classes=num_classes)
        check_in_range(0, math.inf, weight=weight)
        self.encoder, self.temperature, self.weight, self.num_classes = encoder, temperature, weight, num_classes
        self.projector = nn.Sequential(nn.Linear(feature_dim, feature_dim), nn.ReLU(), nn.Linear(feature_dim, out_dim))
        self.classifier = nn.Linear(feature_dim, num_classes)
        self.translator = translator.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> CDvG:
        """Set the mode of the trained parts; the translator keeps its running statistics."""
        super().train(mode)
        self.translator.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of images as they are: at test time nothing is translated."""
        return self.classifier(self.encoder(images))

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        targets: tuple[Tensor, Tensor],
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> CDvGTerms:
        """One training step's losses.

        Args:
            images: ``(n, c, h, w)``, at least two.
            labels: ``(n,)`` their classes.
            targets: two target classes an image, see `draw_targets`.
            augment: ordinary augmentation of the translated views, or None.

        Raises:
            TypeError: wrong dtype.
            ValueError: shapes do not fit, a class out of range, a single image.
        """
        check_batch(len(images), 2, name="images", why="to have a negative")
        views = translated_views(self.translator, images, targets)
        features = [self.encoder(view if augment is None else augment(view)) for view in views]  # 2 x (n, feature_dim)
        z1, z2 = (self.projector(h) for h in features)
        logits1, logits2 = (self.classifier(h) for h in features)
        return cdvg_loss(z1, z2, logits1, logits2, labels, self.temperature, self.weight)


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

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN, weights all zero.
    """
    check_embeddings(x=x)
    check_embeddings(ndim=1, weights=weights, target_score=target_score)
    check_same_width(x=x, weights=weights)
    check_same_length(x=x, target_score=target_score)
    if not weights.any():
        raise ValueError("weights: expected a vector that is not zero")
    return x + ((target_score - x @ weights - bias) / weights.square().sum())[:, None] * weights


def bias_share(weights: Tensor, signal: int) -> Tensor:
    """Share of the squared change of `minimal_change` on the coordinates after the first ``signal`` ones; scalar.

    Raises:
        TypeError: not floating.
        ValueError: not a vector, all zero, ``signal`` out of range.
    """
    check_embeddings(ndim=1, weights=weights)
    check_in_range(0, len(weights), signal=signal)
    if not weights.any():
        raise ValueError("weights: expected a vector that is not zero")
    return weights[signal:].square().sum() / weights.square().sum()
