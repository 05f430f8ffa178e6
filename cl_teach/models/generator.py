"""A small generator that makes variations of an image.

It stands where a method wants a large diffusion model. It has the interface of the large one, so that a pretrained
model can be put in its place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count, check_generator, check_labels, check_shapes, check_type
from ..core.precision import full_precision
from .apply import apply_network, weight_dtype

__all__ = ["VariationGenerator", "noise_embeddings"]

STEPS = 1000  # levels of noise, as in the diffusion model that this one stands for


@full_precision
def noise_embeddings(embeddings: Tensor, levels: Tensor, noise: Tensor, *, steps: int = STEPS) -> Tensor:
    r"""Noise embeddings as a diffusion model noises its input: :math:`\sqrt{a_l}\,e + \sqrt{1-a_l}\,\epsilon`.

    :math:`a_l = \cos^2(\pi l / 2T)` falls from 1 at level 0 to 0 at level T.

    Args:
        embeddings: ``(n, d)``, of about unit variance.
        levels: ``(n,)`` integers in [0, steps].
        noise: ``(n, d)`` standard normal.
        steps: T.

    Returns:
        ``(n, d)``.

    Source: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models (2021), equation 17, without offset.
    """
    check_shapes(embeddings=(embeddings, "n d"), levels=(levels, "n", int), noise=(noise, "n d"))
    check_count(steps=steps)
    levels = check_labels(levels, len(embeddings), name="levels", num_classes=steps + 1)
    angle = (math.pi / 2 / steps) * levels.to(embeddings.dtype)[:, None]  # (n, 1)
    return angle.cos() * embeddings + angle.sin() * noise


class VariationGenerator(nn.Module):
    """Image to a variation of it: embed, noise the embedding at a level, decode. More noise, more variation.

    The decoder is a regression, not a diffusion model; all variety comes from the noise in the embedding.

    Args:
        shape: channels, height and width of the images.
        dim: width of the embeddings, which are standardized.
        hidden: width of the hidden layers.
        level: of the noise in `loss`: a little, so that near embeddings decode alike.

    Shape:
        ``(n, *shape)`` images, ``(n,)`` integer levels in [0, 1000], ``(n, dim)`` noise to ``(n, *shape)``.
    """

    def __init__(self, shape: tuple[int, int, int], *, dim: int = 32, hidden: int = 128, level: int = 100) -> None:
        super().__init__()
        check_type((tuple, list, torch.Size), shape=shape)
        if len(shape) != 3:
            raise ValueError(f"shape: expected channels, height and width, got {len(shape)} numbers")
        check_count(**{f"shape[{i}]": side for i, side in enumerate(shape)}, dim=dim, hidden=hidden)
        check_count(0, STEPS, level=level)
        self.shape, self.dim, self.level = tuple(shape), dim, level
        size = math.prod(shape)
        norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, dim), norm)
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, images: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Decode the noised embeddings of the images."""
        channels, height, width = self.shape
        check_shapes(images=(images, f"n {channels} {height} {width}"), noise=(noise, f"n {self.dim}"))
        dtype = weight_dtype(self)
        noised = noise_embeddings(apply_network(self.encoder, "n d", images=images), levels, noise)
        return self.decoder(noised.to(dtype)).unflatten(1, self.shape)

    def loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """How far images ``(n, *shape)`` are from their reconstruction with a little noise in the embedding; scalar."""
        channels, height, width = self.shape
        check_shapes(images=(images, f"n {channels} {height} {width}"))
        check_generator(generator)
        where = images.device if generator is None else generator.device
        noise = torch.randn(len(images), self.dim, generator=generator, device=where).to(images)
        levels = torch.full((len(images),), self.level, device=images.device)
        return F.mse_loss(self(images, levels, noise).to(images.dtype), images)
