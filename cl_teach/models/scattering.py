r"""A fixed scattering network, and the small trained networks on top of it.

Wavelets :math:`\psi_{j,\theta}` of J scales and L angles, a modulus, and a low-pass :math:`\phi_J`,

.. math::
    S_0=x*\phi_J,\quad S_1=|x*\psi_{j_1,\theta_1}|*\phi_J,\quad
    S_2=\big||x*\psi_{j_1,\theta_1}|*\psi_{j_2,\theta_2}\big|*\phi_J\ (j_2>j_1),

read at every :math:`2^J`-th pixel: :math:`1+LJ+L^2J(J-1)/2` maps a channel. The cascade subsamples between its layers,
as kymatio does; at full resolution the numbers differ a little (aliasing).

Source: Bruna and Mallat, Invariant Scattering Convolution Networks (2013); the discrete version of kymatio 0.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.fft import fft2, ifft2
from torch.nn import functional as F

from ..core.checks import check_count, check_in_range, check_positive, check_shapes, check_type
from ..core.precision import full_precision
from .apply import apply_network, weight_dtype

__all__ = ["JigsawHead", "Scattering", "ScatteringAdapter", "gabor", "morlet", "periodize"]

# The library's value of pi in the factor of the filters; with it the low-pass has a gain of 1.00003.
PI = 3.1415
PERIODS = 2  # copies of a filter on each side that are added up to make it periodic


def gabor(
    shape: tuple[int, int], sigma: float, angle: float = 0.0, frequency: float = 0.0, slant: float = 1.0
) -> Tensor:
    r"""A wave under a Gaussian envelope, around pixel (0, 0) of a periodic image.

    .. math:: \frac{\text{slant}}{2\pi\sigma^2}\exp\Big(-\frac{a^2+\text{slant}^2\,b^2}{2\sigma^2} + i\xi a\Big)

    with a along the angle and b across it, summed over 25 periods.

    Args:
        shape: height and width.
        sigma: width of the envelope along the angle, in pixels.
        angle: direction of the wave, from the row axis.
        frequency: :math:`\xi`.
        slant: below 1 the envelope is longer across the angle.

    Returns:
        ``shape`` complex, double precision.
    """
    _check_size(shape=shape)
    check_positive(sigma=sigma, slant=slant)
    check_in_range(-math.inf, math.inf, angle=angle, frequency=frequency)
    total = torch.zeros(shape, dtype=torch.complex128)
    for row in range(-PERIODS, PERIODS + 1):
        for column in range(-PERIODS, PERIODS + 1):
            u = torch.arange(shape[0], dtype=torch.float64)[:, None] + row * shape[0]
            v = torch.arange(shape[1], dtype=torch.float64) + column * shape[1]
            along = u * math.cos(angle) + v * math.sin(angle)  # (height, width)
            across = v * math.cos(angle) - u * math.sin(angle)
            size = -(along.square() + slant**2 * across.square()) / (2 * sigma**2)
            total += torch.complex(size, frequency * along).exp()
    return total * slant / (2 * PI * sigma**2)


def morlet(shape: tuple[int, int], sigma: float, angle: float, frequency: float, slant: float) -> Tensor:
    """A Gabor wave minus its envelope, scaled such that the sum is zero: blind to constants.

    Arguments as in `gabor`.
    """
    wave = gabor(shape, sigma, angle, frequency, slant)
    envelope = gabor(shape, sigma, angle, 0.0, slant)
    return wave - wave.sum() / envelope.sum() * envelope


def periodize(spectrum: Tensor, octaves: int) -> Tensor:
    """The Fourier transform of a filter for an image with every ``2**octaves``-th pixel only.

    Frequencies too high for that image are removed, of the two highest that are left only the negative one is kept;
    then the blocks are added.

    Args:
        spectrum: ``(..., M, N)`` floating, both divisible by ``2**octaves``.
        octaves: at least 0; 0 returns the input.

    Returns:
        ``(..., M / 2**octaves, N / 2**octaves)``.
    """
    check_shapes(spectrum=(spectrum, "... m n"))
    check_count(0, octaves=octaves)
    k = 2**octaves
    m, n = spectrum.shape[-2:]
    if m % k or n % k:
        raise ValueError(f"spectrum: expected sides divisible by 2**octaves = {k}, got {(m, n)}")
    if octaves == 0:
        return spectrum
    keep = [torch.ones(side, dtype=spectrum.dtype, device=spectrum.device) for side in (m, n)]
    for mask, side in zip(keep, (m, n), strict=True):
        start = side // (2 * k)
        mask[start : start + side - side // k] = 0
    kept = spectrum * keep[0][:, None] * keep[1]
    return kept.unflatten(-2, (k, m // k)).unflatten(-1, (k, n // k)).sum((-4, -2))


class Scattering(nn.Module):
    """Scattering maps up to second order; no parameters, differentiable in the images.

    The filters are computed and applied in at least float32, also under autocast; the maps have the images' dtype.

    Example:
        >>> scattering = Scattering((16, 16), scales=2, angles=4)
        >>> scattering.maps, scattering(torch.rand(5, 3, 16, 16)).shape
        (25, torch.Size([5, 75, 4, 4]))
    """

    def __init__(
        self, image_size: tuple[int, int], *, scales: int = 2, angles: int = 4, dtype: torch.dtype | None = None
    ) -> None:
        """Compute the filters.

        Args:
            image_size: height and width, each greater than ``2**scales``.
            scales: J; the maps have a ``2**J``-th of the height and width.
            angles: L (16 in the main setting of ScatSimCLR).
            dtype: of the filters; the default dtype if None.
        """
        super().__init__()
        _check_size(image_size=image_size)
        check_count(scales=scales, angles=angles)
        if dtype is not None:
            check_type(torch.dtype, dtype=dtype)
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
        """
        height, width = self.image_size
        check_shapes(images=(images, f"n c {height} {width}"))
        return self._maps(images).to(images.dtype)

    @full_precision
    def _maps(self, images: Tensor) -> Tensor:
        x = fft2(F.pad(images, self.padding, mode="reflect"))[:, :, None]  # (n, c, 1, M, N)
        first, second = [self._smooth(x, 0)], []
        for j1 in range(self.scales):
            for wave in self.get_buffer(f"wave_{j1}_0"):  # one at a time: what all would need at once is large
                u1 = _modulus(x * wave, 2**j1)  # (n, c, 1, M / 2^j1, N / 2^j1)
                first.append(self._smooth(u1, j1))
                for j2 in range(j1 + 1, self.scales):
                    u2 = _modulus(u1 * self.get_buffer(f"wave_{j2}_{j1}"), 2 ** (j2 - j1))  # (n, c, L, ...)
                    second.append(self._smooth(u2, j2))
        return torch.cat(first + second, 2).flatten(1, 2)

    def _smooth(self, spectrum: Tensor, octaves: int) -> Tensor:
        """Low-pass, subsample to the final resolution and cut the border."""
        low = spectrum * self.get_buffer(f"low_{octaves}")
        return ifft2(_every(2 ** (self.scales - octaves), low)).real[..., 1:-1, 1:-1]


def _modulus(spectrum: Tensor, step: int) -> Tensor:
    """Modulus at every ``step``-th pixel; in and out in Fourier space."""
    return fft2(ifft2(_every(step, spectrum)).abs())


def _every(step: int, spectrum: Tensor) -> Tensor:
    """The Fourier transform of every ``step``-th pixel: the mean of the blocks that fall on each other."""
    if step == 1:
        return spectrum
    rows = spectrum.unflatten(-2, (step, -1)).sum(-3)
    return rows.unflatten(-1, (step, -1)).sum(-2) / step**2


def _convolution(old: int, new: int) -> list[nn.Module]:
    return [nn.Conv2d(old, new, 3, padding=1, bias=False), nn.BatchNorm2d(new)]


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width), nn.ReLU(), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


class ScatteringAdapter(nn.Module):
    """The trained part on scattering maps: a convolution, residual blocks, average pooling to ``pool x pool``."""

    def __init__(self, in_channels: int, *, width: int = 32, blocks: int = 2, pool: int = 2) -> None:
        """Make ``width * pool**2`` features (128 * 16 in the code of ScatSimCLR, with 8 to 45 blocks)."""
        super().__init__()
        check_count(in_channels=in_channels, width=width, blocks=blocks, pool=pool)
        residual = [_Block(width) for _ in range(blocks)]
        self.layers = nn.Sequential(
            *_convolution(in_channels, width), nn.ReLU(), *residual, nn.AdaptiveAvgPool2d(pool), nn.Flatten()
        )
        self.in_channels, self.feature_dim = in_channels, width * pool**2

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, in_channels, h, w)`` maps to ``(n, feature_dim)`` features."""
        check_shapes(maps=(maps, f"n {self.in_channels} h w"))
        return apply_network(self.layers, "n d", maps=maps)


class JigsawHead(nn.Module):
    """Features of nine shuffled tiles to logits of the permutations; the first layer is shared by the tiles."""

    def __init__(self, feature_dim: int, permutations: int, *, hidden: int = 64, dropout: float = 0.5) -> None:
        """Make the layers.

        Args:
            feature_dim: width of the features.
            permutations: number of classes.
            hidden: width of both hidden layers (512 for a tile and 4096 in the code of ScatSimCLR).
            dropout: after both hidden layers.
        """
        super().__init__()
        check_count(feature_dim=feature_dim, permutations=permutations, hidden=hidden)
        check_in_range(0, 1, dropout=dropout)
        self.feature_dim = feature_dim
        self.tile = nn.Sequential(nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.order = nn.Sequential(
            nn.Linear(9 * hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, permutations)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(n, 9, feature_dim)`` features, tiles in shuffled order, to ``(n, permutations)`` logits."""
        check_shapes(features=(features, f"n 9 {self.feature_dim}"))
        return self.order(self.tile(features.to(weight_dtype(self))).flatten(1))


def _check_size(**sizes: tuple[int, int]) -> None:
    for name, size in sizes.items():
        check_type((tuple, list, torch.Size), **{name: size})
        if len(size) != 2:
            raise ValueError(f"{name}: expected height and width, got {len(size)} numbers")
        check_count(**{f"{name}[{i}]": side for i, side in enumerate(size)})
