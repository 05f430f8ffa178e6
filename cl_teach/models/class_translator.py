r"""A translator that moves an image into a class, its critic, and how the two are trained.

.. math::
    L_D = L_{adv}^D + \lambda_{cls}\,\mathrm{ce}(D(x),y),\qquad
    L_G = L_{adv}^G + \lambda_{cls}\,\mathrm{ce}(D(G(x,t)),t) + \lambda_{rec}\lVert\tilde x-x\rVert_1 .

It stands where a method wants a large translation network, and has the interface of one: image and target class to
image. :math:`\tilde x` is G(G(x, t), y) in a StarGAN. The default here is G(x, y): what is already there stays. In a
run on colored digits the cycle was also satisfied by a translator that returns the negative of a picture.

Source: Choi et al., StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation
(2018), with the logistic adversarial loss; sizes are this book's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_count,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision
from .apply import apply_network, weight_dtype

__all__ = ["ClassCritic", "ClassTranslator", "TranslatorLosses", "TranslatorTrainer", "critic_loss", "translator_loss"]


class ClassTranslator(nn.Module):
    """Image and target class to an image: three convolutions that see the class as constant extra channels.

    With ``kernel_size=1`` it maps colors and cannot change a shape; with 3 it can.

    Args:
        channels: of the images.
        num_classes: number of target classes.
        width: channels of the hidden layers.
        kernel_size: odd.

    Shape:
        ``(n, channels, h, w)`` in [0, 1] and ``(n,)`` integers to ``(n, channels, h, w)`` in [0, 1].
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 32, kernel_size: int = 1) -> None:
        super().__init__()
        check_count(channels=channels, num_classes=num_classes, width=width, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
        self.channels, self.num_classes = channels, num_classes
        sizes = [channels + num_classes, width, width, channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size, padding=kernel_size // 2) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Move each image into its target class."""
        check_shapes(images=(images, f"n {self.channels} h w"), targets=(targets, "n", int))
        targets = check_labels(targets, len(images), name="targets", num_classes=self.num_classes)
        x = images.to(weight_dtype(self))
        classes = F.one_hot(targets, self.num_classes).to(x.dtype)[:, :, None, None]
        x = torch.cat([x, classes.expand(-1, -1, *images.shape[2:])], 1)  # (n, channels + classes, h, w)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x).sigmoid()


class ClassCritic(nn.Module):
    """Images to a score ``(n,)`` (real or generated) and class logits ``(n, num_classes)``; images of any size."""

    def __init__(self, channels: int, num_classes: int, *, width: int = 32) -> None:
        """Make two strided convolutions and two heads."""
        super().__init__()
        check_count(channels=channels, num_classes=num_classes, width=width)
        self.channels = channels
        layers: list[nn.Module] = []
        for a, b in ((channels, width), (width, 2 * width)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.score, self.classes = nn.Linear(8 * width, 1), nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge ``(n, channels, h, w)`` images."""
        check_shapes(images=(images, f"n {self.channels} h w"))
        features = apply_network(self.features, "n d", images=images)
        return self.score(features).squeeze(1), self.classes(features)


@full_precision
def critic_loss(
    real: Tensor, generated: Tensor, class_logits: Tensor, labels: Tensor, *, class_weight: float = 1.0
) -> Tensor:
    """Tell real images from generated ones and name the class of the real ones; scalar.

    Args:
        real: ``(n,)`` scores of real images, high for "real".
        generated: ``(m,)`` scores of generated images.
        class_logits: ``(n, K)`` of the real images.
        labels: ``(n,)`` their classes.
        class_weight: of the cross-entropy, at least 0.
    """
    check_shapes(real=(real, "n"), class_logits=(class_logits, "n k"), generated=(generated, "m"))
    both = "labels, class_logits"
    labels = check_labels(labels, len(class_logits), name=both, num_classes=class_logits.shape[1])
    check_in_range(0, math.inf, class_weight=class_weight)
    adversarial = F.softplus(-real).mean() + F.softplus(generated).mean()
    return adversarial + class_weight * F.cross_entropy(class_logits, labels)


@full_precision
def translator_loss(
    generated: Tensor,
    class_logits: Tensor,
    targets: Tensor,
    reconstruction: Tensor,
    images: Tensor,
    *,
    class_weight: float = 1.0,
    reconstruction_weight: float = 10.0,
) -> Tensor:
    """Look real, look like the target class, and keep what is needed to get the image back; scalar.

    Args:
        generated: ``(n,)`` scores of translated images by the critic.
        class_logits: ``(n, K)`` of the translated images.
        targets: ``(n,)`` the classes they were moved into.
        reconstruction: ``(n, c, h, w)``.
        images: ``(n, c, h, w)`` originals.
        class_weight: of the cross-entropy, at least 0.
        reconstruction_weight: of the mean absolute difference, at least 0.
    """
    check_shapes(
        generated=(generated, "n"),
        class_logits=(class_logits, "n k"),
        reconstruction=(reconstruction, "n c h w"),
        images=(images, "n c h w"),
    )
    both = "targets, class_logits"
    targets = check_labels(targets, len(class_logits), name=both, num_classes=class_logits.shape[1])
    check_in_range(0, math.inf, class_weight=class_weight, reconstruction_weight=reconstruction_weight)
    look = F.softplus(-generated).mean() + class_weight * F.cross_entropy(class_logits, targets)
    return look + reconstruction_weight * F.l1_loss(reconstruction, images)


class TranslatorLosses(NamedTuple):
    """Losses of one step, scalars without graph."""

    translator: Tensor
    critic: Tensor


class TranslatorTrainer(nn.Module):
    """Translator and critic in turn, with the class labels as domains; nobody names a bias.

    It owns a loop, because two networks with opposite wishes need two optimizers. Their state is saved with it.
    """

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
        """
        super().__init__()
        check_module(translator=translator, critic=critic)
        check_count(2, num_classes=num_classes)
        check_flag(cycle=cycle)
        check_in_range(0, math.inf, class_weight=class_weight, reconstruction_weight=reconstruction_weight)
        check_positive(learning_rate=learning_rate)
        self.translator, self.critic, self.num_classes, self.cycle = translator, critic, num_classes, cycle
        self.class_weight, self.reconstruction_weight = class_weight, reconstruction_weight
        self.optimizers = [
            torch.optim.Adam(model.parameters(), learning_rate, betas=(0.5, 0.999)) for model in (translator, critic)
        ]

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Move each of ``(n, c, h, w)`` images into its target class, ``(n,)``."""
        check_shapes(images=(images, "n c h w"), targets=(targets, "n", int))
        targets = check_labels(targets, len(images), name="targets", num_classes=self.num_classes)
        return apply_network(self.translator, "n c h w", images=images, targets=targets)

    def step(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator | None = None) -> TranslatorLosses:
        """One update of the critic, then one of the translator, toward target classes drawn at random.

        Args:
            batch: images ``(n, c, h, w)`` and their classes ``(n,)``.
            generator: of the targets.
        """
        check_type((tuple, list), batch=batch)
        if len(batch) != 2:
            raise ValueError(f"batch: expected images and labels, got {len(batch)} tensors")
        images, labels = batch
        check_shapes(**{"batch[0]": (images, "n c h w"), "batch[1]": (labels, "n", int)})
        labels = check_labels(labels, len(images), name="batch[1]", num_classes=self.num_classes)
        check_generator(generator)
        where = labels.device if generator is None else generator.device
        targets = torch.randint(self.num_classes, labels.shape, generator=generator, device=where).to(labels.device)

        translated = apply_network(self.translator, "n c h w", batch=images, targets=targets)
        real, class_logits = self.critic(images)
        fake, _ = self.critic(translated.detach())
        first = critic_loss(real, fake, class_logits, labels, class_weight=self.class_weight)
        self._update(1, first)

        fake, class_logits = self.critic(translated)
        back = self.translator(translated if self.cycle else images, labels)
        weights = {"class_weight": self.class_weight, "reconstruction_weight": self.reconstruction_weight}
        second = translator_loss(fake, class_logits, targets, back, images, **weights)
        self._update(0, second)
        return TranslatorLosses(second.detach(), first.detach())

    def _update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()

    def get_extra_state(self) -> list[dict[str, Any]]:
        """State of both optimizers, saved with the weights."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        """Go on with the saved optimizers."""
        for optimizer, saved in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(saved)
