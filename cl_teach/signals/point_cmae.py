r"""Bringing Masked Autoencoders Explicit Contrastive Properties for Point Cloud Self-Supervised Learning (Point-CMAE).
Bin Ren, Guofeng Mei, Danda Pani Paudel, Weijie Wang, Yawei Li, Mengyuan Liu, Rita Cucchiara, Luc Van Gool, Nicu Sebe;
ACCV 2024; https://arxiv.org/abs/2407.05862.

A cloud is cut into G patches, each becomes a token. The tokens are masked twice, independently, by masks m, m' that
hide a share :math:`\rho`. One encoder sees both visible sets; two decoders of equal shape and separate weights draw the
hidden patches. With :math:`P_g` the drawn and :math:`Q_g` the true points of a hidden patch,

.. math::
    L_{rec} = \frac{1}{nS}\sum_g\Big[\sum_{p\in P_g}\min_{q\in Q_g}\lVert p-q\rVert^2
              + \sum_{q\in Q_g}\min_{p\in P_g}\lVert p-q\rVert^2\Big] .

A token hidden by *both* masks, :math:`\Omega = \{g: m_g = m'_g = 1\}`, must be imagined by both decoders from different
evidence. Their last features d, d' of it are pulled together,

.. math::
    L_{con} = \frac1{|\Omega|}\sum_{g\in\Omega}\big(1 - \hat d_g\cdot\hat d'_g\big), \qquad
    L = 1000\,(L_{rec} + L'_{rec}) + L_{con} .

What changes and why: an ordinary contrastive branch needs augmented views, and the authors report that adding one to a
masked autoencoder of point clouds hurts. Here the masks make the pair. There are no negatives, no temperature, no
stopped gradient: the reconstruction keeps the tokens apart.

Paper versus code. The paper's equations were not accessible to us. (1) The abstract asks for agreement of the *same*
doubly masked token (``pairing="same"``, the default). The released code pulls every such token of the first branch to
*all* G tokens of the second, visible ones too (``pairing="all"``); the only exact minimum of that is all tokens equal.
Which form made the published numbers is not known to us. (2) The code adds :math:`10^{-8}` to each term, which protects
nothing. (3) d is the output of the last block *before* the final layer normalization, the points are drawn after it.
(4) Class tokens reach a head whose output enters no loss; that head is left out. (5) With :math:`\rho < 1/2` no token
may be doubly masked, a division by zero; here the term is then 0. (6) Pinned here: ranges of scale and shift,
farthest point sampling starts at the first point, an encoder of teaching size without drop path, the Chamfer distance
in plain PyTorch, and the class token of the first branch for use afterwards (each branch has one).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_count,
    check_generator,
    check_in_range,
    check_numbers,
    check_shapes,
    finite_result,
)
from ..core.precision import full_precision
from ..core.similarity import normalize
from ..models.point_transformer import (
    MaskedBranch,
    MaskedPatches,
    PatchEmbedding,
    PositionedBlocks,
    check_points,
    make_patches,
    position_embedding,
    take_tokens,
    visible_first,
)

__all__ = [
    "EncodedCloud",
    "PointCMAE",
    "PointCMAETerms",
    "chamfer_distance",
    "comask_contrast",
    "comasked",
    "draw_masks",
    "draw_scale_and_shift",
]

PAIRINGS = ("same", "all")


class PointCMAETerms(NamedTuple):
    """Scalars: the weighted sum, and its parts before weighting (the reconstruction summed over both branches)."""

    loss: Tensor
    reconstruction: Tensor
    contrast: Tensor


class EncodedCloud(NamedTuple):
    """``summary (B, C)``, the class token, and ``tokens (B, G, C)`` in the order of `farthest_points`."""

    summary: Tensor
    tokens: Tensor


@full_precision
def chamfer_distance(drawn: Tensor, true: Tensor) -> Tensor:
    """Squared distance of every point to the nearest of the other set, both directions added, over all patches.

    Args:
        drawn: ``(n, S, 3)``.
        true: ``(n, T, 3)``.

    Returns:
        Scalar; 0 exactly where the sets coincide.
    """
    check_shapes(drawn=(drawn, "n s d"), true=(true, "n t d"))
    distance = (drawn[:, :, None] - true[:, None]).square().sum(-1)  # (n, S, T)
    return finite_result(distance.amin(2).mean() + distance.amin(1).mean(), drawn=drawn, true=true)


def comasked(masks1: Tensor, masks2: Tensor) -> Tensor:
    """Tokens hidden by both masks ``(B, G)``, boolean."""
    check_shapes(masks1=(masks1, "b g", bool), masks2=(masks2, "b g", bool))
    return masks1 & masks2


@full_precision
def comask_contrast(
    d1: Tensor, d2: Tensor, masks1: Tensor, masks2: Tensor, *, pairing: str = "same", eps: float = 0.0
) -> Tensor:
    """Pull the two imaginations of every doubly masked token together.

    Args:
        d1: ``(B, G, C)`` features of the first decoder in token order, any scale.
        d2: ``(B, G, C)`` of the second.
        masks1: ``(B, G)`` boolean, true where hidden from the first branch.
        masks2: ``(B, G)``, of the second.
        pairing: ``"same"`` token, or ``"all"`` tokens of the same cloud as in the released code.
        eps: added to every term; 1e-8 in the released code.

    Returns:
        Scalar in [0, 2], one mean over the batch; 0 if no token is masked twice.

    Source: Ren et al. (2024), the abstract (same) and the released model (all).

    Example:
        >>> d, hidden = torch.eye(3)[None], torch.tensor([[True, True, False]])  # three different tokens
        >>> comask_contrast(d, d, hidden, hidden).item()
        0.0
        >>> round(comask_contrast(d, d, hidden, hidden, pairing="all").item(), 3)  # wants them to be one
        0.667
    """
    check_shapes(d1=(d1, "b g c"), d2=(d2, "b g c"), masks1=(masks1, "b g", bool), masks2=(masks2, "b g", bool))
    check_choice(PAIRINGS, pairing=pairing)
    check_in_range(0, math.inf, eps=eps)
    both = comasked(masks1, masks2)
    if not both.any():
        return 0 * (normalize(d1).sum() + normalize(d2).sum())
    d1, d2 = normalize(d1), normalize(d2)
    if pairing == "all":
        d2 = d2.mean(1, keepdim=True).expand_as(d2)  # a mean of cosines is the cosine with the mean direction
    return (1 - (d1 * d2).sum(-1)[both]).mean() + eps


def draw_masks(n: int, groups: int, ratio: float = 0.6, *, generator: torch.Generator | None = None) -> Tensor:
    """``(n, groups)`` boolean with exactly ``floor(ratio * groups)`` true entries a row.

    Args:
        n: clouds.
        groups: tokens G of each.
        ratio: share to hide; at least one token must be hidden and one visible.
        generator: on the CPU; the global state of torch if None.
    """
    check_count(n=n, groups=groups)
    check_generator(generator)
    hidden = _count_hidden(groups, ratio)
    return torch.rand(n, groups, generator=generator).argsort(1).argsort(1) < hidden


def draw_scale_and_shift(
    n: int, scale: tuple[float, float] = (2 / 3, 3 / 2), shift: float = 0.2, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The augmentation of clouds x, used as ``scale * x + shift``: two ``(n, 1, 3)``, one draw per cloud and axis."""
    check_count(n=n)
    bounds = check_numbers("scale", scale).tolist()
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"scale: expected two numbers above 0, the smaller one first, got {scale}")
    check_in_range(0, math.inf, shift=shift)
    check_generator(generator)
    u, v = torch.rand(2, n, 1, 3, generator=generator)
    drawn = finite_result(bounds[0] + (bounds[1] - bounds[0]) * u, scale=scale)
    return drawn, finite_result(shift * (2 * v - 1), shift=shift)


class PointCMAE(nn.Module):
    """The whole method: patches, tokens, two masks, one encoder, two branches; afterward it maps clouds to features.

    Example:
        >>> model, clouds = PointCMAE(groups=8, size=8, dim=12), torch.randn(2, 40, 3)
        >>> bool(model.loss(clouds).loss > 0), model(clouds).shape
        (True, torch.Size([2, 24]))
    """

    def __init__(
        self,
        groups: int = 16,
        size: int = 16,
        dim: int = 48,
        *,
        depth: int = 2,
        decoder_depth: int = 1,
        heads: int = 4,
        ratio: float = 0.6,
        pairing: str = "same",
        reconstruction_weight: float = 1000.0,
        contrast_weight: float = 1.0,
    ) -> None:
        """Make the networks; sizes are for teaching, the authors' are 64, 32, 384, depths 12 and 4, 6 heads.

        Args:
            groups: patches G of a cloud.
            size: points S of a patch.
            dim: width C of the tokens.
            depth: blocks of the encoder.
            decoder_depth: blocks of each decoder.
            heads: of the attention.
            ratio: share of the tokens that each mask hides.
            pairing: see `comask_contrast`.
            reconstruction_weight: at least 0.
            contrast_weight: at least 0.
        """
        super().__init__()
        check_count(groups=groups, size=size, decoder_depth=decoder_depth)
        _count_hidden(groups, ratio)
        check_choice(PAIRINGS, pairing=pairing)
        check_in_range(0, math.inf, reconstruction_weight=reconstruction_weight, contrast_weight=contrast_weight)
        self.groups, self.size, self.ratio, self.pairing = groups, size, ratio, pairing
        self.reconstruction_weight, self.contrast_weight = reconstruction_weight, contrast_weight
        self.embed, self.position = PatchEmbedding(dim), position_embedding(dim)
        self.encoder, self.norm = PositionedBlocks(dim, depth, heads), nn.LayerNorm(dim)
        self.branches = nn.ModuleList(MaskedBranch(dim, size, decoder_depth, heads) for _ in range(2))

    def loss(self, points: Tensor, *, generator: torch.Generator | None = None) -> PointCMAETerms:
        """Draw everything for clouds ``(B, N, 3)``, scale, shift and two masks, and compute the terms."""
        check_points(points)
        check_generator(generator)
        scale, shift = (x.to(points) for x in draw_scale_and_shift(len(points), generator=generator))
        masks = [draw_masks(len(points), self.groups, self.ratio, generator=generator) for _ in range(2)]
        return self.terms(scale * points + shift, *(m.to(points.device) for m in masks))

    def terms(self, points: Tensor, masks1: Tensor, masks2: Tensor) -> PointCMAETerms:
        """Terms of clouds ``(B, N, 3)`` under two masks ``(B, G)``, which hide equally many tokens of every cloud."""
        check_points(points)
        shape = f"b {self.groups}"
        check_shapes(points=(points, "b n 3"), masks1=(masks1, shape, bool), masks2=(masks2, shape, bool))
        centers, patches = make_patches(points, self.groups, self.size)
        decoded1, decoded2 = self.decode(centers, patches, masks1, masks2)
        reconstruction = chamfer_distance(decoded1.patches.flatten(0, 1), patches[masks1])  # both in increasing index
        reconstruction = reconstruction + chamfer_distance(decoded2.patches.flatten(0, 1), patches[masks2])
        contrast = comask_contrast(decoded1.tokens, decoded2.tokens, masks1, masks2, pairing=self.pairing)
        loss = self.reconstruction_weight * reconstruction + self.contrast_weight * contrast
        return PointCMAETerms(finite_result(loss, points=points), reconstruction, contrast)

    def decode(self, centers: Tensor, patches: Tensor, masks1: Tensor, masks2: Tensor) -> list[MaskedPatches]:
        """Both branches' results on patches ``(B, G, S, 3)``; tokens are made once, then masked twice."""
        check_shapes(
            centers=(centers, "b g 3"),
            patches=(patches, "b g s 3"),
            masks1=(masks1, "b g", bool),
            masks2=(masks2, "b g", bool),
        )
        tokens, positions = self._tokens(centers, patches)
        results = []
        for branch, masks, name in zip(self.branches, (masks1, masks2), ("masks1", "masks2"), strict=True):
            hidden = masks.sum(1)
            if not (0 < hidden[0] < masks.shape[1]) or (hidden != hidden[0]).any():
                raise ValueError(f"{name}: expected to hide equally many tokens of every cloud, got {hidden.tolist()}")
            order = visible_first(masks)[:, : -int(hidden[0])]
            _, visible = self._encode(branch, take_tokens(tokens, order), take_tokens(positions, order))
            visible = finite_result(visible, centers=centers, patches=patches)
            results.append(branch(visible, centers, masks))
        return results

    def forward(self, points: Tensor) -> Tensor:
        """What is kept: nothing hidden, class token and maximum over the tokens, ``(B, 2 C)``."""
        summary, tokens = self.encode(points)
        return torch.cat([summary, tokens.amax(1)], 1)

    def encode(self, points: Tensor) -> EncodedCloud:
        """Nothing hidden: what is known of the whole cloud ``(B, N, 3)`` and of each of its patches."""
        centers, patches = make_patches(points, self.groups, self.size)
        encoded = self._encode(self.branches[0], *self._tokens(centers, patches))
        return EncodedCloud(*(finite_result(x, points=points) for x in encoded))

    def _tokens(self, centers: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and positions ``(B, G, C)``, in the dtype of the weights."""
        dtype = self.norm.weight.dtype
        return self.embed(patches).to(dtype), self.position(centers.to(dtype)).to(dtype)

    def _encode(self, branch: Any, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Class token ``(B, C)`` and tokens ``(B, T, C)``, encoded by what both branches share."""
        rows = len(tokens)
        tokens = torch.cat([branch.class_token.expand(rows, -1, -1), tokens], 1)
        positions = torch.cat([branch.class_position.expand(rows, -1, -1), positions], 1)
        encoded = self.norm(self.encoder.attend(tokens, positions))
        return encoded[:, 0], encoded[:, 1:]


def _count_hidden(groups: int, ratio: float) -> int:
    check_in_range(0, 1, ratio=ratio)
    hidden = int(ratio * groups)
    if not 0 < hidden < groups:
        raise ValueError(
            f"groups, ratio: expected to hide between 1 and {groups - 1} of {groups} tokens, got ratio {ratio:g}"
        )
    return hidden
