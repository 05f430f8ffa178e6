r"""ScatSimCLR: self-supervised contrastive learning with pretext task regularization for small-scale datasets. Vitaliy
Kinakh, Olga Taran, Slava Voloshynovskiy; ICCV workshops 2021; https://arxiv.org/abs/2108.13939.

The first layers are a fixed scattering network: wavelets :math:`\psi_{j,\theta}` of J scales and L angles, a modulus,
and a low-pass :math:`\phi_J`,

.. math::
    S_0=x*\phi_J,\quad S_1=|x*\psi_{j_1,\theta_1}|*\phi_J,\quad
    S_2=\big||x*\psi_{j_1,\theta_1}|*\psi_{j_2,\theta_2}\big|*\phi_J\ (j_2>j_1),

read at every :math:`2^J`-th pixel: :math:`1+LJ+L^2J(J-1)/2` maps a channel. Only a small residual adapter on top is
trained, with NT-Xent and the cross-entropy of a pretext task (by a head on the features h, not on the embeddings z):
how an image was rotated, or in which of 35 ways its nine tiles were shuffled.

.. math:: L = L_{\text{NT-Xent}}(z^1,z^2) + \lambda\,L_{\text{pretext}}.

What changes and why: with few images a convolutional network cannot learn stable filters. Scattering brings stability
to small deformations, and invariance to shifts well below :math:`2^J` pixels, without any parameter. The pretext task
gives the small network a second signal from the same images.

Paper versus code. The formulas follow the authors' released code and the scattering library it uses (kymatio), the text
of the paper was not at hand. (1) Filters are divided by :math:`2\cdot3.1415\,\sigma^2`, as in the library, so that
:math:`\phi_J` has a gain of 1.00003. (2) The cascade subsamples between its layers as the library does; at full
resolution the numbers differ a little (aliasing). (3) A batch normalization of the scattering maps is created in the
code and never used; it is left out. (4) The code loses the channel axis of one-channel images; here channels and maps
are merged explicitly. (5) An image is rotated first and augmented afterwards, each of its four copies with a draw of
its own; mirror images among the augmentations make two of the rotations partly ambiguous. (6) For the jigsaw the code
augments the image, cuts it, and augments every tile once more, which also brings it to full size (here a bilinear
resize before it does that). Its 35 permutations are read from a file that was not at hand; here they are chosen far
apart, as in the work the task comes from (Noroozi and Favaro, 2016). (7) Adapter and heads have teaching size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fft import fft2, ifft2
from torch.nn import functional as F

from ..core.checks import check_batch, check_embeddings, check_in_range, check_labels, check_positive
from ..core.contrast import nt_xent

__all__ = [
    "Adapter",
    "JigsawHead",
    "ScatSimCLR",
    "ScatSimCLRTerms",
    "Scattering",
    "cut_tiles",
    "distant_permutations",
    "gabor",
    "morlet",
    "periodize",
    "rotations",
    "scatsimclr_terms",
    "shuffle_tiles",
]


def gabor(
    shape: tuple[int, int], sigma: float, angle: float = 0.0, frequency: float = 0.0, slant: float = 1.0
) -> Tensor:
    r"""A wave under a Gaussian envelope, around pixel (0, 0) of a periodic image.

    .. math:: \frac{\text{slant}}{2\pi\sigma^2}\exp\Big(-\frac{a^2+\text{slant}^2\,b^2}{2\sigma^2} + i\xi a\Big)

    with a along the angle and b across it, summed over 25 periods.

    Args:
        shape: height and width.
        sigma: width of the envelope along the angle.
        angle: direction of the wave, from the row axis.
        frequency: :math:`\xi`.
        slant: below 1 the envelope is longer across the angle.

    Returns:
        ``shape`` complex, double precision.

    Raises:
        ValueError: a size, the width or the slant not positive.

    Source: the filter bank of kymatio 0.3; its value 3.1415 stands for pi in the factor.
    """
    check_positive(height=shape[0], width=shape[1], sigma=sigma, slant=slant)
    total = torch.zeros(shape, dtype=torch.complex128)
    for row in range(-2, 3):
        for column in range(-2, 3):
            u = torch.arange(shape[0], dtype=torch.float64)[:, None] + row * shape[0]
            v = torch.arange(shape[1], dtype=torch.float64) + column * shape[1]
            along = u * math.cos(angle) + v * math.sin(angle)  # (height, width)
            across = v * math.cos(angle) - u * math.sin(angle)
            size = -(along.square() + slant**2 * across.square()) / (2 * sigma**2)
            total += torch.complex(size, frequency * along).exp()
    return total * slant / (2 * 3.1415 * sigma**2)


def morlet(shape: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float) -> Tensor:
    """A Gabor wave minus its envelope, scaled such that the sum is zero: blind to constants. Arguments as in `gabor`.

    Raises:
        ValueError: a size, the width or the slant not positive.
    """
    wave = gabor(shape, sigma, angle, frequency, slant)
    envelope = gabor(shape, sigma, angle, 0.0, slant)
    return wave - wave.sum() / envelope.sum() * envelope


def periodize(spectrum: Tensor, octaves: int) -> Tensor:
    """The Fourier transform of a filter for an image with every ``2**octaves``-th pixel only.

    Frequencies too high for that image are removed, of the two highest that are left only the negative one is kept;
    then the blocks are added.

    Args:
        spectrum: ``(..., M, N)``, both divisible by ``2**octaves``.
        octaves: at least 0; 0 returns the input.

    Returns:
        ``(..., M / 2**octaves, N / 2**octaves)``.

    Raises:
        ValueError: a side not divisible.
    """
    k = 2**octaves
    m, n = spectrum.shape[-2:]
    if m % k or n % k:
        raise ValueError(f"spectrum: expected sides divisible by {k}, got {(m, n)}")
    if octaves == 0:
        return spectrum
    keep = [torch.ones(side, dtype=spectrum.dtype) for side in (m, n)]
    for mask, side in zip(keep, (m, n), strict=True):
        start = side // (2 * k)
        mask[start : start + side - side // k] = 0
    kept = spectrum * keep[0][:, None] * keep[1]
    return kept.unflatten(-2, (k, m // k)).unflatten(-1, (k, n // k)).sum((-4, -2))


class Scattering(nn.Module):
    """Scattering maps up to second order; no parameters, differentiable in the images.

    Source: Bruna and Mallat (2013); the discrete version of kymatio 0.3.
    """

    def __init__(
        self, image_size: tuple[int, int], *, scales: int = 2, angles: int = 4, dtype: torch.dtype | None = None
    ) -> None:
        """Compute the filters.

        Args:
            image_size: height and width, each greater than ``2**scales``.
            scales: J; the maps have a ``2**J``-th of the height and width.
            angles: L (16 in the paper's main setting).
            dtype: of the filters; the default dtype if None. Images are to have the same.

        Raises:
            ValueError: not positive, or images too small.
        """
        super().__init__()
        check_positive(scales=scales, angles=angles)
        step = 2**scales
        if min(image_size) <= step:
            raise ValueError(f"image_size: expected sides above 2**scales = {step}, got {tuple(image_size)}")
        self.image_size, self.scales, self.angles = tuple(image_size), scales, angles
        height, width = (((side + step) // step + 1) * step for side in image_size)
        rows, columns = height - image_size[0], width - image_size[1]
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        self.maps = 1 + angles * scales + angles**2 * scales * (scales - 1) // 2
        dtype = dtype or torch.get_default_dtype()
        low = fft2(gabor((height, width), 0.8 * 2 ** (scales - 1))).real  # (M, N)
        turns = [(int(angles - angles / 2 - 1) - i) * math.pi / angles for i in range(angles)]
        for j in range(scales):
            waves = [morlet((height, width), 0.8 * 2**j, t, 0.75 * math.pi / 2**j, 4 / angles) for t in turns]
            bank = fft2(torch.stack(waves)).real  # (L, M, N)
            self.register_buffer(f"low_{j}", periodize(low, j).to(dtype), persistent=False)
            for octaves in range(j + 1):
                self.register_buffer(f"wave_{j}_{octaves}", periodize(bank, octaves).to(dtype), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scattering maps of images.

        Args:
            images: ``(n, c, height, width)`` floating.

        Returns:
            ``(n, c * maps, height // 2**J, width // 2**J)``; the maps of a channel side by side, in the order low-pass,
            first order (scale outside, angle inside), second order (first wavelet outside).

        Raises:
            TypeError: not floating.
            ValueError: another image size, NaN.
        """
        check_embeddings(ndim=4, images=images)
        if tuple(images.shape[2:]) != self.image_size:
            raise ValueError(f"images: expected height and width {self.image_size}, got {tuple(images.shape[2:])}")
        x = fft2(F.pad(images, self.padding, mode="reflect"))  # (n, c, M, N)
        result, second = [self._smooth(x, 0)[:, :, None]], []
        for j1 in range(self.scales):
            u1 = self._modulus(x[:, :, None], j1, 0)  # (n, c, L, M / 2^j1, N / 2^j1)
            result.append(self._smooth(u1, j1))
            later = [
                self._smooth(self._modulus(u1[:, :, :, None], j2, j1), j2)  # (n, c, L, L, h, w)
                for j2 in range(j1 + 1, self.scales)
            ]
            if later:
                second.append(torch.cat(later, 3).flatten(2, 3))
        return torch.cat(result + second, 2).flatten(1, 2)

    def _modulus(self, spectrum: Tensor, j: int, octaves: int) -> Tensor:
        """Filter with all wavelets of scale j, take the modulus, go to resolution j; in and out in Fourier space."""
        waves = ifft2(spectrum * self.get_buffer(f"wave_{j}_{octaves}"))
        step = 2 ** (j - octaves)
        return fft2(waves[..., ::step, ::step].abs())

    def _smooth(self, spectrum: Tensor, octaves: int) -> Tensor:
        """Low-pass, subsample to the final resolution and cut the border."""
        step = 2 ** (self.scales - octaves)
        return ifft2(spectrum * self.get_buffer(f"low_{octaves}")).real[..., ::step, ::step][..., 1:-1, 1:-1]


def rotations(images: Tensor) -> tuple[Tensor, Tensor]:
    """The four rotations of every image: 0, 90 degrees clockwise, 180, 90 degrees counterclockwise.

    Args:
        images: ``(n, c, side, side)`` floating.

    Returns:
        ``(4n, c, side, side)``, the four of an image side by side, and their ``(4n,)`` labels 0 to 3.

    Raises:
        TypeError: not floating.
        ValueError: not square, NaN.
    """
    check_embeddings(ndim=4, images=images)
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images: expected square images, got {tuple(images.shape[2:])}")
    turned = torch.stack([images.rot90(-k, (2, 3)) for k in range(4)], 1).flatten(0, 1)
    return turned, torch.arange(4, device=images.device).repeat(len(images))


def distant_permutations(
    count: int = 35, *, candidates: int = 2000, generator: torch.Generator | None = None
) -> Tensor:
    """Permutations of nine tiles that differ in many places, chosen greedily from random ones.

    Each next one has the largest least number of different places to those before; ties go to the largest sum.

    Args:
        count: number of permutations, the classes of the task.
        candidates: random permutations to choose from, at least ``count``.
        generator: source of randomness.

    Returns:
        ``(count, 9)`` integers, all rows different.

    Raises:
        ValueError: a number out of range.

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (2016).
    """
    check_in_range(2, math.inf, count=count)
    check_in_range(count, math.inf, candidates=candidates)
    pool = torch.rand(candidates, 9, generator=generator).argsort(1)
    chosen = [0]
    distances = (pool != pool[0]).sum(1)[:, None]  # (candidates, chosen)
    while len(chosen) < count:
        # a sum is at most 9 * count, so it decides only between equal minima; what is chosen has minimum 0
        best = int((distances.amin(1) * (9 * count + 1) + distances.sum(1)).argmax())
        if distances[best].amin() == 0:
            raise ValueError(f"candidates: {candidates} draws hold fewer than count={count} different permutations")
        chosen.append(best)
        distances = torch.cat([distances, (pool != pool[best]).sum(1)[:, None]], 1)
    return pool[chosen]


def cut_tiles(images: Tensor) -> Tensor:
    """Nine tiles of every image, row by row, each enlarged to the size of the image.

    A tile has the pixels that lie wholly in its third of a side.

    Args:
        images: ``(n, c, height, width)`` floating, sides of at least 3.

    Returns:
        ``(n, 9, c, height, width)``.

    Raises:
        TypeError: not floating.
        ValueError: too small, NaN.
    """
    check_embeddings(ndim=4, images=images)
    if min(images.shape[2:]) < 3:
        raise ValueError(f"images: expected sides of at least 3, got {tuple(images.shape[2:])}")
    size = tuple(images.shape[2:])
    rows, columns = ([slice(-(-side * k // 3), side * (k + 1) // 3) for k in range(3)] for side in size)
    tiles = [images[:, :, row, column] for row in rows for column in columns]
    return torch.stack([F.interpolate(tile, size, mode="bilinear") for tile in tiles], 1)


def shuffle_tiles(tiles: Tensor, permutations: Tensor) -> Tensor:
    """Place k of image i gets its tile ``permutations[i, k]``.

    Args:
        tiles: ``(n, t, c, height, width)``.
        permutations: ``(n, t)`` integers.

    Returns:
        As ``tiles``.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a row that is no permutation.
    """
    check_embeddings(ndim=5, tiles=tiles)
    if permutations.shape != tiles.shape[:2]:
        raise ValueError(f"permutations: expected shape {tuple(tiles.shape[:2])}, got {tuple(permutations.shape)}")
    _check_permutations(permutations)
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], permutations]


def _check_permutations(permutations: Tensor) -> None:
    check_labels(permutations.flatten(), permutations.numel(), name="permutations")
    if not (permutations.sort(1).values == torch.arange(permutations.shape[1], device=permutations.device)).all():
        raise ValueError("permutations: expected rows that hold every place once")


class ScatSimCLRTerms(NamedTuple):
    """Total loss and its two parts, scalars."""

    loss: Tensor
    contrastive: Tensor
    pretext: Tensor


def scatsimclr_terms(
    z1: Tensor, z2: Tensor, logits: Tensor, labels: Tensor, temperature: float = 0.5, pretext_weight: float = 0.3
) -> ScatSimCLRTerms:
    r"""NT-Xent plus :math:`\lambda` times the cross-entropy of the pretext task.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here).
        z2: ``(N, d)`` second views.
        logits: ``(m, classes)`` of the pretext task.
        labels: ``(m,)`` its integer labels.
        temperature: greater than 0.
        pretext_weight: :math:`\lambda`, at least 0.

    Returns:
        `ScatSimCLRTerms`.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, fewer than two samples, NaN, a number out of range.
    """
    check_embeddings(logits=logits)
    check_labels(labels, len(logits), num_classes=logits.shape[1])
    check_in_range(0, math.inf, pretext_weight=pretext_weight)
    contrastive, pretext = nt_xent(z1, z2, temperature), F.cross_entropy(logits, labels)
    return ScatSimCLRTerms(contrastive + pretext_weight * pretext, contrastive, pretext)


def _convolution(old: int, new: int) -> list[nn.Module]:
    return [nn.Conv2d(old, new, 3, padding=1, bias=False), nn.BatchNorm2d(new)]


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width), nn.ReLU(), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


class Adapter(nn.Sequential):
    """The trained part of the encoder: a convolution, residual blocks, average pooling to ``pool x pool``."""

    def __init__(self, in_channels: int, *, width: int = 32, blocks: int = 2, pool: int = 2) -> None:
        """Make ``width * pool**2`` features (128 * 16 in the code, with 8 to 45 blocks).

        Raises:
            ValueError: a size not positive.
        """
        check_positive(in_channels=in_channels, width=width, blocks=blocks, pool=pool)
        residual = [_Block(width) for _ in range(blocks)]
        super().__init__(
            *_convolution(in_channels, width), nn.ReLU(), *residual, nn.AdaptiveAvgPool2d(pool), nn.Flatten()
        )
        self.feature_dim = width * pool**2


class JigsawHead(nn.Module):
    """Features of the shuffled tiles to logits of the permutations; the first layer is shared by the tiles."""

    def __init__(self, feature_dim: int, permutations: int, *, hidden: int = 64, dropout: float = 0.5) -> None:
        """Make the layers.

        Args:
            feature_dim: width of the features.
            permutations: number of classes.
            hidden: width of both hidden layers (512 for a tile and 4096 in the code).
            dropout: after both hidden layers.

        Raises:
            ValueError: a size not positive.
        """
        super().__init__()
        check_positive(feature_dim=feature_dim, permutations=permutations, hidden=hidden)
        self.tile = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.order = nn.Sequential(
            nn.Linear(9 * hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, permutations)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(n, 9, feature_dim)`` features, tiles in shuffled order, to ``(n, permutations)`` logits."""
        return self.order(self.tile(features).flatten(1))


class ScatSimCLR(nn.Module):
    """Scattering, adapter, projection and pretext head; ``method.step(images, augment).loss`` is minimized."""

    def __init__(
        self,
        scattering: Scattering,
        adapter: Adapter,
        *,
        out_dim: int = 32,
        hidden: int = 64,
        temperature: float = 0.5,
        pretext_weight: float = 0.3,
        permutations: Tensor | None = None,
        dropout: float = 0.5,
    ) -> None:
        """Put the trained parts on a scattering network.

        Args:
            scattering: the fixed front end, for square images.
            adapter: for ``channels * scattering.maps`` maps.
            out_dim: width of the embeddings (128 in the code).
            hidden: hidden width of projection and pretext head.
            temperature: of NT-Xent.
            pretext_weight: weight of the pretext task.
            permutations: ``(K, 9)`` integers, see `distant_permutations`: the task is the jigsaw. None: the rotation.
            dropout: in the pretext head.

        Raises:
            TypeError: permutations not integer.
            ValueError: a number out of range, rows that are no permutations of nine places.
        """
        super().__init__()
        check_positive(out_dim=out_dim, hidden=hidden, temperature=temperature)
        check_in_range(0, math.inf, pretext_weight=pretext_weight)
        check_in_range(0, 1, dropout=dropout)
        self.scattering, self.temperature, self.pretext_weight = scattering, temperature, pretext_weight
        self.adapter, dim = adapter, adapter.feature_dim
        self.projection = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))
        self.pretext: nn.Module
        self.permutations: Tensor | None
        self.register_buffer("permutations", permutations)
        if permutations is None:
            self.pretext = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 4))
            return
        if permutations.ndim != 2 or permutations.shape[1] != 9:
            raise ValueError(f"permutations: expected shape (K, 9), got {tuple(permutations.shape)}")
        _check_permutations(permutations)
        self.pretext = JigsawHead(dim, len(permutations), hidden=hidden, dropout=dropout)

    def forward(self, images: Tensor) -> Tensor:
        """``(n, c, side, side)`` images to ``(n, feature_dim)`` features, those that are kept."""
        return self.adapter(self.scattering(images))

    def step(self, images: Tensor, augment: Callable[[Tensor], Tensor], order: Tensor | None = None) -> ScatSimCLRTerms:
        """One training step's losses: two views for the contrast; four rotations or nine tiles for the pretext task.

        Args:
            images: ``(n, c, side, side)``, at least two.
            augment: a batch of images to one view of each.
            order: for the jigsaw, ``(n,)`` drawn integers: which of the permutations each image gets.

        Raises:
            TypeError: wrong dtype.
            ValueError: a single image, not square (for rotations), ``order`` missing or out of range.
        """
        check_batch(len(images), 2, name="images", why="to have a negative")
        z1, z2 = (self.projection(self(augment(images))) for _ in range(2))  # normalized in the loss
        jigsaw = self.permutations is not None
        logits, labels = self._shuffled(images, augment, order) if jigsaw else self._rotated(images, augment)
        return scatsimclr_terms(z1, z2, logits, labels, self.temperature, self.pretext_weight)

    def _rotated(self, images: Tensor, augment: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        turned, labels = rotations(images)
        return self.pretext(self(augment(turned))), labels  # (4n, 4) and (4n,)

    def _shuffled(
        self, images: Tensor, augment: Callable[[Tensor], Tensor], order: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if order is None or self.permutations is None:
            raise ValueError("order: the jigsaw needs the number of a permutation for every image, got None")
        check_labels(order, len(images), name="order", num_classes=len(self.permutations))
        tiles = shuffle_tiles(cut_tiles(augment(images)), self.permutations[order])  # (n, 9, c, side, side)
        features = self(augment(tiles.flatten(0, 1)))  # each tile a draw of its own
        return self.pretext(features.unflatten(0, (-1, 9))), order  # (n, K) and (n,)
