r"""ScatSimCLR: self-supervised contrastive learning with pretext task regularization for small-scale datasets. Vitaliy
Kinakh, Olga Taran, Slava Voloshynovskiy; ICCV workshops 2021; https://arxiv.org/abs/2108.13939.

The first layers are a fixed scattering network (`Scattering`): wavelets of J scales and L angles, a modulus, and a
low-pass, :math:`1+LJ+L^2J(J-1)/2` maps a channel, read at every :math:`2^J`-th pixel. Only a small residual adapter on
top is trained, with NT-Xent and the cross-entropy of a pretext task (by a head on the features h, not on the embeddings
z): how an image was rotated, or in which of 35 ways its nine tiles were shuffled.

.. math:: L = L_{\text{NT-Xent}}(z^1,z^2) + \lambda\,L_{\text{pretext}}.

What changes and why: with few images a convolutional network cannot learn stable filters. Scattering brings stability
to small deformations, and invariance to shifts well below :math:`2^J` pixels, without any parameter. The pretext task
gives the small network a second signal from the same images.

Paper versus code. (1) The paper trains without the pretext task for the first 40 of 1,000 epochs and with
:math:`\lambda = 0.3` from then on: it reports better convergence, and losses of equal size; here the number of steps
without it is ``warmup_steps``. (2) Filters follow the library of the code (kymatio), see `Scattering`. (3) A batch
normalization of the scattering maps is created in the code and never used; it is left out. (4) The code loses the
channel axis of one-channel images; here channels and maps are merged explicitly. (5) An image is rotated first and
augmented afterwards, each of its four copies with a draw of its own; mirror images among the augmentations make two of
the rotations partly ambiguous. (6) For the jigsaw the code augments the image, cuts it, and augments every tile once
more, which also brings it to full size (here a bilinear resize before it does that). Its 35 permutations are read from
a file that was not at hand; here they are chosen far apart, as in the work the task comes from (Noroozi and Favaro,
2016). (7) Adapter and heads have teaching size.
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
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, nt_xent
from ..core.precision import full_precision
from ..models.apply import apply_network
from ..models.scattering import JigsawHead, Scattering, ScatteringAdapter

__all__ = [
    "ScatSimCLR",
    "ScatSimCLRTerms",
    "cut_tiles",
    "distant_permutations",
    "rotations",
    "scatsimclr_terms",
    "shuffle_tiles",
]

TILES = 9  # of a jigsaw, three by three


def rotations(images: Tensor) -> tuple[Tensor, Tensor]:
    """The four rotations of every image: 0, 90 degrees clockwise, 180, 90 degrees counterclockwise.

    Args:
        images: ``(n, c, side, side)`` floating.

    Returns:
        ``(4n, c, side, side)``, the four of an image side by side, and their ``(4n,)`` labels 0 to 3.
    """
    check_shapes(images=(images, "n c side side"))
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

    Source: Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles (2016).
    """
    check_count(2, count=count)
    check_count(count, candidates=candidates)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    pool = torch.rand(candidates, TILES, generator=generator, device=where).argsort(1)
    chosen = [0]
    distances = (pool != pool[0]).sum(1)[:, None]  # (candidates, chosen)
    while len(chosen) < count:
        # a sum is at most 9 * count, so it decides only between equal minima; what is chosen has minimum 0
        best = int((distances.amin(1) * (TILES * count + 1) + distances.sum(1)).argmax())
        if distances[best].amin() == 0:
            raise ValueError(f"candidates: {candidates} draws hold fewer than count={count} different permutations")
        chosen.append(best)
        distances = torch.cat([distances, (pool != pool[best]).sum(1)[:, None]], 1)
    return pool[chosen]


@full_precision
def cut_tiles(images: Tensor) -> Tensor:
    """Nine tiles of every image, row by row, each enlarged to the size of the image.

    A tile has the pixels that lie wholly in its third of a side.

    Args:
        images: ``(n, c, height, width)`` floating, sides of at least 3.

    Returns:
        ``(n, 9, c, height, width)``.
    """
    check_shapes(images=(images, "n c h w"))
    size = tuple(images.shape[2:])
    if min(size) < 3:
        raise ValueError(f"images: expected sides of at least 3, got {size}")
    rows, columns = ([slice(-(-side * k // 3), side * (k + 1) // 3) for k in range(3)] for side in size)
    tiles = [images[:, :, row, column] for row in rows for column in columns]
    return torch.stack([F.interpolate(tile, size, mode="bilinear") for tile in tiles], 1)


def shuffle_tiles(tiles: Tensor, permutations: Tensor) -> Tensor:
    """Place k of image i gets its tile ``permutations[i, k]``.

    Args:
        tiles: ``(n, t, c, height, width)``.
        permutations: ``(n, t)`` integers, every row a permutation.

    Returns:
        As ``tiles``.
    """
    check_shapes(tiles=(tiles, "n t c h w"), permutations=(permutations, "n t", int))
    permutations = _check_permutations(permutations)
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], permutations]


def _check_permutations(permutations: Tensor) -> Tensor:
    check_labels(permutations.flatten(), name="permutations")
    permutations = permutations.long()
    if not (permutations.sort(1).values == torch.arange(permutations.shape[1], device=permutations.device)).all():
        raise ValueError("permutations: expected rows that hold every place once")
    return permutations


class ScatSimCLRTerms(NamedTuple):
    """Total loss and its two parts, scalars."""

    loss: Tensor
    contrastive: Tensor
    pretext: Tensor


@full_precision
def scatsimclr_terms(
    z1: Tensor, z2: Tensor, logits: Tensor, labels: Tensor, temperature: float = 0.5, *, pretext_weight: float = 0.3
) -> ScatSimCLRTerms:
    r"""NT-Xent plus :math:`\lambda` times the cross-entropy of the pretext task.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here), at least two.
        z2: ``(N, d)`` second views.
        logits: ``(m, classes)`` of the pretext task.
        labels: ``(m,)`` its integer labels.
        temperature: greater than 0.
        pretext_weight: :math:`\lambda`, at least 0; in the paper 0 at first, then 0.3.

    Returns:
        `ScatSimCLRTerms`.
    """
    check_shapes(z1=(z1, "n d"), z2=(z2, "n d"), logits=(logits, "m classes"), labels=(labels, "m", int))
    labels = check_labels(labels, len(logits), name="labels, logits", num_classes=logits.shape[1])
    check_in_range(0, math.inf, pretext_weight=pretext_weight)
    contrastive, pretext = nt_xent(z1, z2, temperature), F.cross_entropy(logits, labels)
    return ScatSimCLRTerms(contrastive + pretext_weight * pretext, contrastive, pretext)


class ScatSimCLR(nn.Module):
    """Scattering, adapter, projection and pretext head.

    Example:
        >>> scattering = Scattering((16, 16))
        >>> adapter = ScatteringAdapter(scattering.maps)
        >>> method = ScatSimCLR(scattering, adapter, lambda images, generator: images.flip(-1))
        >>> images = torch.rand(6, 1, 16, 16)
        >>> method.loss(images)._fields, method(images).shape
        (('loss', 'contrastive', 'pretext'), torch.Size([6, 128]))
    """

    permutations: Tensor | None
    steps: Tensor

    def __init__(
        self,
        scattering: Scattering,
        adapter: ScatteringAdapter,
        augment: Callable[..., Tensor],
        *,
        out_dim: int = 32,
        hidden: int = 64,
        temperature: float = 0.5,
        pretext_weight: float = 0.3,
        warmup_steps: int = 0,
        permutations: Tensor | None = None,
        dropout: float = 0.5,
    ) -> None:
        """Put the trained parts on a scattering network.

        Args:
            scattering: the fixed front end, for square images.
            adapter: for ``channels * scattering.maps`` maps.
            augment: makes one view of each image; called as ``augment(images, generator=generator)``.
            out_dim: width of the embeddings (128 in the code).
            hidden: hidden width of projection and pretext head.
            temperature: of NT-Xent.
            pretext_weight: weight of the pretext task.
            warmup_steps: first steps, in which that weight is 0 (the paper's first 40 of 1,000 epochs); counted by
                `after_step`.
            permutations: ``(K, 9)`` integers, see `distant_permutations`: the task is the jigsaw. None: the rotation.
            dropout: in the pretext head.
        """
        super().__init__()
        check_type(Scattering, scattering=scattering)
        check_type(ScatteringAdapter, adapter=adapter)
        check_callable(augment=augment)
        check_count(out_dim=out_dim, hidden=hidden)
        check_count(0, warmup_steps=warmup_steps)
        check_temperature(temperature)
        check_in_range(0, math.inf, pretext_weight=pretext_weight)
        check_in_range(0, 1, dropout=dropout)
        self.scattering, self.adapter, self.augment = scattering, adapter, augment
        self.temperature, self.pretext_weight, self.warmup_steps = temperature, pretext_weight, warmup_steps
        dim = adapter.feature_dim
        self.projection = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))
        self.register_buffer("steps", torch.tensor(0))
        self.pretext: nn.Module
        if permutations is None:
            self.register_buffer("permutations", None)
            self.pretext = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 4))
            return
        check_shapes(permutations=(permutations, f"k {TILES}", int))
        self.register_buffer("permutations", _check_permutations(permutations))
        self.pretext = JigsawHead(dim, len(permutations), hidden=hidden, dropout=dropout)

    def forward(self, images: Tensor) -> Tensor:
        """``(n, c, side, side)`` images to ``(n, feature_dim)`` features, those that are kept."""
        check_shapes(images=(images, "n c side side"))
        maps = apply_network(self.scattering, "n c h w", images=images)
        return apply_network(self.adapter, "n d", images=maps)

    def loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> ScatSimCLRTerms:
        """Two views of each of ``(n, c, side, side)`` images for the contrast; four rotations or nine tiles beside it.

        Args:
            images: at least two.
            generator: of the views and, for the jigsaw, of the permutation that each image gets.
        """
        check_shapes(images=(images, "n c side side"))
        check_batch(len(images), 2, name="images", why="to have a negative")
        check_generator(generator)
        z1, z2 = (self.projection(self(self.augment(images, generator=generator))) for _ in range(2))
        logits, labels = (self._rotated if self.permutations is None else self._shuffled)(images, generator)
        weight = self.pretext_weight if int(self.steps) >= self.warmup_steps else 0.0
        return scatsimclr_terms(z1, z2, logits, labels, self.temperature, pretext_weight=weight)

    def after_step(self) -> None:
        """Count, for the start of the pretext task."""
        self.steps += 1

    def _rotated(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        turned, labels = rotations(images)
        return self.pretext(self(self.augment(turned, generator=generator))), labels  # (4n, 4) and (4n,)

    def _shuffled(self, images: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        assert self.permutations is not None
        where = images.device if generator is None else generator.device
        order = torch.randint(len(self.permutations), (len(images),), generator=generator, device=where)
        order = order.to(images.device)
        whole = self.augment(images, generator=generator)
        tiles = shuffle_tiles(cut_tiles(whole), self.permutations[order])  # (n, 9, c, side, side)
        features = self(self.augment(tiles.flatten(0, 1), generator=generator))  # each tile a draw of its own
        return self.pretext(features.unflatten(0, (-1, TILES))), order  # (n, K) and (n,)
