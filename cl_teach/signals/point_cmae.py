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
    check_embeddings,
    check_in_range,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
)
from ..core.similarity import normalize
from ..models.point_transformer import PatchEmbedding, PositionedBlocks, make_patches, position_embedding

__all__ = [
    "Decoded",
    "MaskedBranch",
    "PointCMAE",
    "PointCMAETerms",
    "chamfer_distance",
    "comask_contrast",
    "comasked",
    "draw_masks",
    "draw_scale_and_shift",
    "to_token_order",
    "visible_first",
]

PAIRINGS = ("same", "all")


class Decoded(NamedTuple):
    """``tokens (B, G, C)`` before the last normalization, in token order; ``patches (B, n, S, 3)`` of masked tokens."""

    tokens: Tensor
    patches: Tensor


class PointCMAETerms(NamedTuple):
    """Scalars: the weighted sum, and its parts before weighting (the reconstruction summed over both branches)."""

    loss: Tensor
    reconstruction: Tensor
    contrast: Tensor


def chamfer_distance(drawn: Tensor, true: Tensor) -> Tensor:
    """Squared distance of every point to the nearest of the other set, both directions added, over all patches.

    Args:
        drawn: ``(n, S, 3)``.
        true: ``(n, T, 3)``.

    Returns:
        Scalar; 0 exactly where the sets coincide.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN.
    """
    check_embeddings(ndim=3, drawn=drawn, true=true)
    check_same_length(drawn=drawn, true=true)
    check_same_width(drawn=drawn, true=true)
    distance = (drawn[:, :, None] - true[:, None]).square().sum(-1)  # (n, S, T)
    return distance.amin(2).mean() + distance.amin(1).mean()


def comasked(masks1: Tensor, masks2: Tensor) -> Tensor:
    """Tokens hidden by both masks ``(B, G)``, boolean."""
    check_mask(masks1, tuple(masks1.shape), name="masks1")
    check_mask(masks2, tuple(masks1.shape), name="masks2")
    return masks1 & masks2


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

    Raises:
        TypeError: features not floating, masks not boolean.
        ValueError: shapes do not fit, NaN, another pairing.

    Source: Ren et al. (2024), the abstract (same) and the released model (all).
    """
    check_embeddings(ndim=3, d1=d1, d2=d2)
    check_same_shape(d1=d1, d2=d2)
    both = comasked(masks1, masks2)
    check_mask(both, tuple(d1.shape[:2]), name="masks1")
    check_choice(PAIRINGS, pairing=pairing)
    check_in_range(0, math.inf, eps=eps)
    if not both.any():
        return 0 * (d1.sum() + d2.sum())
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

    Raises:
        ValueError: a ratio that hides none or all.
    """
    check_positive(n=n, groups=groups)
    check_in_range(0, 1, ratio=ratio)
    hidden = int(ratio * groups)
    if not 0 < hidden < groups:
        raise ValueError(f"ratio: expected to hide between 1 and {groups - 1} of {groups} tokens, got {ratio:g}")
    return torch.rand(n, groups, generator=generator).argsort(1).argsort(1) < hidden


def visible_first(masks: Tensor) -> Tensor:
    """Decoder order ``(B, G)``: indices of the visible tokens, then of the masked ones, each increasing."""
    check_mask(masks, tuple(masks.shape), name="masks")
    return masks.long().argsort(dim=1, stable=True)


def to_token_order(decoded: Tensor, masks: Tensor) -> Tensor:
    """Undo `visible_first`: features ``(B, G, C)`` of a decoder in the order of the tokens.

    Raises:
        TypeError, ValueError: not floating, not boolean, shapes do not fit.
    """
    check_embeddings(ndim=3, decoded=decoded)
    check_mask(masks, tuple(decoded.shape[:2]), name="masks")
    return _take(decoded, visible_first(masks).argsort(1))


def draw_scale_and_shift(
    n: int, scale: tuple[float, float] = (2 / 3, 3 / 2), shift: float = 0.2, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The augmentation of clouds x, used as ``scale * x + shift``: two ``(n, 1, 3)``, one draw per cloud and axis."""
    check_positive(n=n, **{"scale[0]": scale[0], "scale[1]": scale[1]})
    check_in_range(0, math.inf, shift=shift)
    u, v = torch.rand(2, n, 1, 3, generator=generator)
    return scale[0] + (scale[1] - scale[0]) * u, shift * (2 * v - 1)


class MaskedBranch(nn.Module):
    """What the two branches do not share: class token, mask token, decoder and head."""

    def __init__(self, dim: int, size: int, depth: int, heads: int) -> None:
        """Make a decoder of ``depth`` blocks and a head that draws ``size`` points for a token."""
        super().__init__()
        check_positive(size=size)
        self.class_token, self.class_position, self.mask_token = (
            nn.Parameter(0.02 * torch.randn(1, 1, dim)) for _ in range(3)
        )
        self.position, self.decoder = position_embedding(dim), PositionedBlocks(dim, depth, heads)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 3 * size)

    def forward(self, visible: Tensor, centers: Tensor, masks: Tensor) -> Decoded:
        """Decode encoded visible tokens ``(B, G - n, C)``, given all centers ``(B, G, 3)`` and the masks ``(B, G)``."""
        check_embeddings(ndim=3, visible=visible, centers=centers)
        count = centers.shape[1] - visible.shape[1]  # n
        tokens = torch.cat([visible, self.mask_token.expand(len(visible), count, -1)], 1)
        decoded = self.decoder(tokens, self.position(_take(centers, visible_first(masks))))
        patches = self.head(self.norm(decoded[:, -count:])).unflatten(2, (-1, 3))
        return Decoded(to_token_order(decoded, masks), patches)


class PointCMAE(nn.Module):
    """The whole method: patches, tokens, two masks, one encoder, two branches.

    One training step: ``model.step(points, generator).loss.backward()``, then AdamW; afterwards use `features`.
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
        check_choice(PAIRINGS, pairing=pairing)
        check_in_range(0, math.inf, reconstruction_weight=reconstruction_weight, contrast_weight=contrast_weight)
        self.groups, self.size, self.ratio, self.pairing = groups, size, ratio, pairing
        self.reconstruction_weight, self.contrast_weight = reconstruction_weight, contrast_weight
        self.embed, self.position = PatchEmbedding(dim), position_embedding(dim)
        self.encoder, self.norm = PositionedBlocks(dim, depth, heads), nn.LayerNorm(dim)
        self.branches = nn.ModuleList(MaskedBranch(dim, size, decoder_depth, heads) for _ in range(2))

    def step(self, points: Tensor, generator: torch.Generator | None = None) -> PointCMAETerms:
        """Draw everything for clouds ``(B, N, 3)``, scale, shift and two masks, and compute the terms."""
        check_embeddings(ndim=3, points=points)
        scale, shift = (x.to(points) for x in draw_scale_and_shift(len(points), generator=generator))
        masks = [draw_masks(len(points), self.groups, self.ratio, generator=generator) for _ in range(2)]
        return self(scale * points + shift, *(m.to(points.device) for m in masks))

    def forward(self, points: Tensor, masks1: Tensor, masks2: Tensor) -> PointCMAETerms:
        """Terms of clouds ``(B, N, 3)`` under two masks ``(B, G)``."""
        centers, patches = make_patches(points, self.groups, self.size)
        decoded1, decoded2 = self.decode(centers, patches, masks1, masks2)
        reconstruction = chamfer_distance(decoded1.patches.flatten(0, 1), patches[masks1])  # both in increasing index
        reconstruction = reconstruction + chamfer_distance(decoded2.patches.flatten(0, 1), patches[masks2])
        contrast = comask_contrast(decoded1.tokens, decoded2.tokens, masks1, masks2, pairing=self.pairing)
        loss = self.reconstruction_weight * reconstruction + self.contrast_weight * contrast
        return PointCMAETerms(loss, reconstruction, contrast)

    def decode(self, centers: Tensor, patches: Tensor, masks1: Tensor, masks2: Tensor) -> list[Decoded]:
        """Both branches' results on patches ``(B, G, S, 3)``; tokens are made once, then masked twice."""
        tokens, positions = self.embed(patches), self.position(centers)  # (B, G, C)
        results = []
        for branch, masks in zip(self.branches, (masks1, masks2), strict=True):
            check_mask(masks, tuple(tokens.shape[:2]), name="masks")
            hidden = masks.sum(1)
            if not (0 < hidden[0] < masks.shape[1]) or (hidden != hidden[0]).any():
                raise ValueError(f"masks: expected to hide equally many tokens of every cloud, got {hidden.tolist()}")
            order = visible_first(masks)[:, : -int(hidden[0])]
            _, visible = self._encode(branch, _take(tokens, order), _take(positions, order))
            results.append(branch(visible, centers, masks))
        return results

    @torch.no_grad()
    def features(self, points: Tensor) -> Tensor:
        """What is kept: nothing hidden, class token and maximum over the tokens, ``(B, 2 C)``."""
        centers, patches = make_patches(points, self.groups, self.size)
        summary, tokens = self._encode(self.branches[0], self.embed(patches), self.position(centers))
        return torch.cat([summary, tokens.amax(1)], 1)

    def _encode(self, branch: Any, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Class token ``(B, C)`` and tokens ``(B, T, C)``, encoded by what both branches share."""
        rows = len(tokens)
        tokens = torch.cat([branch.class_token.expand(rows, -1, -1), tokens], 1)
        positions = torch.cat([branch.class_position.expand(rows, -1, -1), positions], 1)
        encoded = self.norm(self.encoder(tokens, positions))
        return encoded[:, 0], encoded[:, 1:]


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``(B, T, C)`` of ``x (B, G, C)`` at ``index (B, T)``."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
