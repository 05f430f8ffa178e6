"""Small generators of images: one that moves an image into a class (and its critic), one that makes variations of it.

They stand where a method wants a large translation or diffusion model. Both have the interface of the large one, so
that a pretrained model can be put in their place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_embeddings, check_in_range, check_labels, check_positive

__all__ = ["ClassCritic", "ClassTranslator", "VariationGenerator", "noise_embeddings"]


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

    Raises:
        ValueError: a size out of range; at a call, images or targets of another shape, a target out of range.
        TypeError: at a call, images not floating or targets not integer.
    """

    def __init__(self, channels: int, num_classes: int, *, width: int = 32, kernel_size: int = 1) -> None:
        super().__init__()
        check_positive(channels=channels, num_classes=num_classes, width=width, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
        self.channels, self.num_classes = channels, num_classes
        sizes = [channels + num_classes, width, width, channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size, padding=kernel_size // 2) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Move each image into its target class."""
        check_embeddings(ndim=4, images=images)
        check_labels(targets, len(images), name="targets", num_classes=self.num_classes)
        if images.shape[1] != self.channels:
            raise ValueError(f"images: expected {self.channels} channels, got {images.shape[1]}")
        classes = F.one_hot(targets, self.num_classes).to(images.dtype)[:, :, None, None]
        x = torch.cat([images, classes.expand(-1, -1, *images.shape[2:])], 1)  # (n, channels + classes, h, w)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x).sigmoid()


class ClassCritic(nn.Module):
    """Images to a score ``(n,)`` (real or generated) and class logits ``(n, num_classes)``; images of any size."""

    def __init__(self, channels: int, num_classes: int, *, width: int = 32) -> None:
        """Make two strided convolutions and two heads.

        Raises:
            ValueError: a size not positive.
        """
        super().__init__()
        check_positive(channels=channels, num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        for a, b in ((channels, width), (width, 2 * width)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.score, self.classes = nn.Linear(8 * width, 1), nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Judge ``(n, channels, h, w)`` images."""
        features = self.features(images)
        return self.score(features).squeeze(1), self.classes(features)


def noise_embeddings(embeddings: Tensor, levels: Tensor, noise: Tensor, *, steps: int = 1000) -> Tensor:
    r"""Noise embeddings as a diffusion model noises its input: :math:`\sqrt{a_l}\,e + \sqrt{1-a_l}\,\epsilon`.

    :math:`a_l = \cos^2(\pi l / 2T)` falls from 1 at level 0 to 0 at level T.

    Args:
        embeddings: ``(n, d)``, of about unit variance.
        levels: ``(n,)`` integers in [0, steps].
        noise: ``(n, d)`` standard normal.
        steps: T.

    Returns:
        ``(n, d)``.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a level out of range.

    Source: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models (2021), equation 17, without offset.
    """
    check_embeddings(embeddings=embeddings, noise=noise)
    check_labels(levels, len(embeddings), name="levels", num_classes=steps + 1)
    if embeddings.shape != noise.shape:
        raise ValueError(f"noise: expected shape {tuple(embeddings.shape)}, got {tuple(noise.shape)}")
    angle = (math.pi / 2 / steps) * levels.to(embeddings.dtype)[:, None]  # (n, 1)
    return angle.cos() * embeddings + angle.sin() * noise


class VariationGenerator(nn.Module):
    """Image to a variation of it: embed, noise the embedding at a level, decode. More noise, more variation.

    The decoder is a regression, not a diffusion model; all variety comes from the noise in the embedding.

    Args:
        shape: channels, height and width of the images.
        dim: width of the embeddings, which are standardized.
        hidden: width of the hidden layers.

    Shape:
        ``(n, *shape)`` images, ``(n,)`` integer levels in [0, 1000], ``(n, dim)`` noise to ``(n, *shape)``.

    Raises:
        ValueError: a size not positive; at a call, shapes that do not fit.
        TypeError: at a call, wrong dtype.
    """

    def __init__(self, shape: tuple[int, int, int], *, dim: int = 32, hidden: int = 128) -> None:
        super().__init__()
        check_positive(channels=shape[0], height=shape[1], width=shape[2], dim=dim, hidden=hidden)
        self.shape, self.dim = tuple(shape), dim
        size = math.prod(shape)
        norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, dim), norm)
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, images: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Decode the noised embeddings of the images."""
        check_embeddings(ndim=4, images=images)
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"images: expected shape (n, {self.shape}), got {tuple(images.shape)}")
        return self.decoder(noise_embeddings(self.encoder(images), levels, noise)).unflatten(1, self.shape)

    def train_step(self, optimizer: torch.optim.Optimizer, images: Tensor, noise: Tensor, *, level: int = 100) -> float:
        """Reconstruct the images from embeddings with a little noise, so that near embeddings decode alike."""
        check_in_range(0, 1000, level=level)
        levels = torch.full((len(images),), level, device=images.device)
        loss = F.mse_loss(self(images, levels, noise), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()
