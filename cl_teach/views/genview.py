r"""GenView: Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning. Xiaojie Li, Yibo
Yang, Xiangtai Li, Jianlong Wu, Yue Yu, Bernard Ghanem, Min Zhang; ECCV 2024; https://arxiv.org/abs/2403.12003.

One of the two views of an image is a variation of it by a frozen generator that embeds the image, adds noise of some
level to the embedding, and decodes. A frozen encoder E turns a view into patch tokens
:math:`F\in\mathbb R^{P\times D}`; v is the first principal direction of many tokens and tells foreground from
background. For view a of sample i

.. math::
    m^f_p = \frac{F_p\cdot v-\min}{\max-\min+\epsilon},\quad m^b_p=1-m^f_p,\quad
    M^{f}=\frac{m^f}{\sum_p m^f_p+\epsilon},\quad z^{f,a}_i=\sum_pM^f_pF_p,

the same with b, and the quality of the pair and its weight in the batch are

.. math::
    q_i=\cos(z^{f,1}_i,z^{f,2}_i)-\cos(z^{b,1}_i,z^{b,2}_i),\qquad
    w_i=N\frac{e^{\gamma q_i}}{\sum_je^{\gamma q_j}},\qquad L=\frac1N\sum_iw_i\,\ell_i,

without gradient, for the loss :math:`\ell_i` of a host method: here MoCo v3 or SimSiam. The level grows in steps with
the share of patches whose projection is above a threshold: 0, 100, ..., 400 for shares up to 0.2, 0.4, ..., 1.

What changes and why: augmented views are too alike or, cropped hard, not of the same thing. A generator gives other
surroundings, and where the subject is large it may change more without losing it. Pairs that show one thing in two
surroundings count more, those in which the generator lost the thing count less.

Paper versus code. The formulas follow the authors' released code, the text of the paper was not at hand; the same first
author's follow-up, GenView++ (2025), writes these weights. (1) The figure of the paper writes a softmax times the loss,
a sum over the batch; the code's :math:`w_i` sum to N, with a mean: the same. (2) A batch is what one process sees. (3)
The sign of v is arbitrary, and the wrong one rewards the wrong pairs; the code has a switch, `fit_foreground` takes
patches that are known to be background. (4) The threshold in the code is the edge of a histogram bin, at a share of
0.35 above; here it is a quantile. Tokens are projected uncentered. (5) The table of levels in the code has a 500 that
no share reaches. (6) Constant tokens have no foreground; their foreground similarity is 0. (7) Encoder and generator
are CLIP and Stable unCLIP in the code. Small stand-ins with the same interface are `patch_tokens`, the patches
themselves, and ``VariationGenerator``, an autoencoder trained on the spot; any other can be put in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_callable,
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, softmax_contrast
from ..core.precision import full_precision
from ..core.regression import regression_loss
from ..core.similarity import normalize, self_mask
from ..core.teacher import MomentumTeacher
from ..models.apply import apply_network
from ..models.foreground import Foreground, foreground_ratio, project

__all__ = [
    "GenView",
    "GenViewTerms",
    "Quality",
    "draw_choice",
    "generate_variations",
    "insert_generated",
    "noise_level",
    "pair_quality",
    "pool_patches",
    "quality_weights",
    "soft_masks",
    "weighted_moco_loss",
    "weighted_simsiam_loss",
]

EPS = 1e-7  # keeps the masks of constant tokens finite, as released


def noise_level(
    ratio: Tensor,
    edges: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    levels: tuple[int, ...] = (0, 100, 200, 300, 400),
) -> Tensor:
    """The generator's level of noise: ``levels[k]`` for ``edges[k] < ratio <= edges[k+1]``, the first edge included.

    Args:
        ratio: ``(n,)`` shares of foreground.
        edges: increasing.
        levels: one for each bin; more are ignored.

    Returns:
        ``(n,)`` integers.

    Example:
        >>> noise_level(torch.tensor([0.1, 0.2, 0.21, 1.0])).tolist()  # an edge is in the lower bin
        [0, 0, 100, 400]
    """
    check_shapes(ratio=(ratio, "n"))
    check_type((tuple, list), edges=edges, levels=levels)
    check_in_range(-math.inf, math.inf, **{f"edges[{k}]": edge for k, edge in enumerate(edges)})
    if len(edges) < 2 or any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
        raise ValueError(f"edges: expected at least two increasing numbers, got {edges}")
    if len(levels) < len(edges) - 1:
        raise ValueError(f"levels: expected at least {len(edges) - 1}, one for each bin, got {len(levels)}")
    check_count(0, **{f"levels[{k}]": level for k, level in enumerate(levels)})
    check_entries(edges[0], edges[-1], ratio=ratio)
    inner = torch.tensor(edges[1:-1], dtype=ratio.dtype, device=ratio.device)  # rounded as the ratios are
    return torch.tensor(levels, device=ratio.device)[torch.bucketize(ratio.double(), inner.double())]


@full_precision
def soft_masks(tokens: Tensor, direction: Tensor, *, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """How much each patch is foreground and background, both summing to 1 over the patches of a view.

    Args:
        tokens: ``(N, P, D)``.
        direction: ``(D,)`` v, pointing to the foreground.
        eps: keeps constant tokens finite.

    Returns:
        Masks of the foreground and of the background, ``(N, P)``.
    """
    check_shapes(tokens=(tokens, "n p d"), direction=(direction, "d"))
    check_positive(eps=eps)
    a = project(tokens, direction)  # (N, P)
    low, high = a.amin(1, keepdim=True), a.amax(1, keepdim=True)
    front = (a - low) / (high - low + eps)
    back = 1 - front
    return front / (front.sum(1, keepdim=True) + eps), back / (back.sum(1, keepdim=True) + eps)


@full_precision
def pool_patches(tokens: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``(N, P, D)`` tokens weighted by a ``(N, P)`` mask, ``(N, D)``."""
    check_shapes(tokens=(tokens, "n p d"), mask=(mask, "n p"))
    return (mask[..., None] * tokens).sum(1)


class Quality(NamedTuple):
    """Similarity of the foregrounds, of the backgrounds, and quality: their difference; each ``(N,)``."""

    foreground: Tensor
    background: Tensor
    quality: Tensor


@torch.no_grad()
@full_precision
def pair_quality(tokens1: Tensor, tokens2: Tensor, direction: Tensor, *, eps: float = EPS) -> Quality:
    """Same thing in different surroundings is a good pair.

    Args:
        tokens1: ``(N, P, D)`` of the first views.
        tokens2: ``(N, P, D)`` of the second views.
        direction: ``(D,)``, pointing to the foreground.
        eps: see `soft_masks`.

    Returns:
        `Quality`, without graph.

    Source: Li et al. (2024), the quality-driven loss, as in the released code.

    Example:
        >>> thing, place, other = torch.eye(5)[1:4]
        >>> bright = torch.eye(5)[0]  # what tells foreground
        >>> first, second = (torch.stack([bright + thing, p])[None] for p in (place, other))
        >>> round(pair_quality(first, second, bright).quality.item(), 3)  # one thing, two places
        1.0
    """
    check_shapes(tokens1=(tokens1, "n p d"), tokens2=(tokens2, "n p d"), direction=(direction, "d"))
    pooled = [
        [normalize(pool_patches(tokens, mask)) for mask in soft_masks(tokens, direction, eps=eps)]  # front, back
        for tokens in (tokens1, tokens2)
    ]
    front, back = ((pooled[0][k] * pooled[1][k]).sum(1) for k in (0, 1))  # (N,)
    return Quality(front, back, front - back)


@full_precision
def quality_weights(quality: Tensor, gamma: float = 1.0) -> Tensor:
    """Weights ``(N,)`` of the pairs, N times the softmax of ``gamma`` times the quality ``(N,)``; no graph."""
    check_shapes(quality=(quality, "n"))
    check_in_range(0, math.inf, gamma=gamma)
    quality = quality.detach()
    return len(quality) * (gamma * (quality - quality.max())).softmax(0)


@full_precision
def weighted_moco_loss(
    q1: Tensor,
    q2: Tensor,
    k1: Tensor,
    k2: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
    *,
    scale: float | None = None,
) -> Tensor:
    r"""MoCo v3's loss with a weight for each pair; the positive is one of the N keys, nothing is masked.

    Args:
        q1: ``(N, d)`` predictions of the first views, any scale (normalized here).
        q2: ``(N, d)`` of the second views.
        k1: ``(N, d)`` keys of the first views, from the momentum encoder; detached here.
        k2: ``(N, d)`` of the second views.
        weights: ``(N,)``, at least 0; detached here.
        temperature: T > 0.
        scale: factor of the loss, 2T if None.

    Returns:
        Scalar.

    Source: Chen, Xie, He, An Empirical Study of Training Self-Supervised Vision Transformers (2021), algorithm 1.
    """
    check_shapes(q1=(q1, "n d"), q2=(q2, "n d"), k1=(k1, "n d"), k2=(k2, "n d"), weights=(weights, "n"))
    check_entries(0, math.inf, weights=weights)
    check_temperature(temperature)
    scale = 2 * temperature if scale is None else scale
    check_positive(scale=scale)
    own, total = self_mask(len(q1), q1.device), torch.zeros((), dtype=q1.dtype, device=q1.device)
    for query, key in ((q1, k2), (q2, k1)):
        logits = normalize(query) @ normalize(key.detach()).mT / temperature  # (N, N)
        total = total + (weights.detach() * softmax_contrast(logits, own, reduction="none")).mean()
    return scale * total


@full_precision
def weighted_simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, weights: Tensor) -> Tensor:
    """SimSiam's negative cosines with a weight for each pair.

    Args:
        p1: ``(N, d)`` predictions of the first views, any scale.
        p2: ``(N, d)`` of the second views.
        z1: ``(N, d)`` projections of the first views; detached here.
        z2: ``(N, d)`` of the second views.
        weights: ``(N,)``, at least 0; detached here.

    Returns:
        Scalar, at least minus the mean weight.

    Source: Chen and He, Exploring Simple Siamese Representation Learning (2021), equation 4.
    """
    check_shapes(p1=(p1, "n d"), p2=(p2, "n d"), z1=(z1, "n d"), z2=(z2, "n d"), weights=(weights, "n"))
    check_entries(0, math.inf, weights=weights)
    terms = [regression_loss(p, z, reduction="none") / 2 - 1 for p, z in ((p1, z2), (p2, z1))]  # minus the cosine
    return (weights.detach() * (terms[0] + terms[1]) / 2).mean()


def draw_choice(n: int, probability: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    """Which view of each image is to be generated: ``(n,)`` integers, 1 or 2 with equal chance, 0 for none."""
    check_count(n=n)
    check_in_range(0, 1, probability=probability)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    which = torch.randint(1, 3, (n,), generator=generator, device=where)
    return which * (torch.rand(n, generator=generator, device=where) < probability)


@torch.no_grad()
def generate_variations(
    images: Tensor,
    noise: Tensor,
    *,
    generate: Callable[[Tensor, Tensor, Tensor], Tensor],
    patches: Callable[[Tensor], Tensor],
    foreground: Foreground,
) -> Tensor:
    """The work before training: one variation of each image, the noisier the more of it is foreground.

    Args:
        images: ``(n, c, h, w)``.
        noise: standard normal, in the shape of the generator's embeddings.
        generate: frozen; images, ``(n,)`` integer levels and noise to images.
        patches: frozen, images to ``(n, P, D)`` tokens.
        foreground: see `fit_foreground`.

    Returns:
        ``(n, c, h, w)``.
    """
    check_shapes(images=(images, "n c h w"), noise=(noise, "n d"))
    check_callable(generate=generate, patches=patches)
    levels = noise_level(foreground_ratio(apply_network(patches, "n p d", images=images), foreground))
    return apply_network(generate, "n c h w", images=images, levels=levels, noise=noise)


def insert_generated(images: Tensor, generated: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of each image before augmentation; at most one is generated.

    Args:
        images: ``(n, c, h, w)``.
        generated: ``(n, c, h, w)`` their variations.
        choice: ``(n,)`` in {0, 1, 2}, see `draw_choice`.

    Returns:
        Two ``(n, c, h, w)`` tensors.
    """
    check_shapes(images=(images, "n c h w"), generated=(generated, "n c h w"), choice=(choice, "n", int))
    choice = check_labels(choice, len(images), name="choice", num_classes=3)
    first, second = (torch.where((choice == k)[:, None, None, None], generated, images) for k in (1, 2))
    return first, second


class GenViewTerms(NamedTuple):
    """Loss, a scalar, and the weights ``(N,)`` of the pairs."""

    loss: Tensor
    weights: Tensor


class GenView(nn.Module):
    """A host method with weights from a frozen patch encoder.

    From the beginning::

        noise = torch.randn(len(images), 32)
        made = generate_variations(images, noise, generate=..., patches=patch_tokens, foreground=foreground)
        views = insert_generated(images, made, draw_choice(len(images)))  # once, before training; then augment
        fit(method, method.loss, views, after_step=method.after_step)
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        predictor: nn.Module,
        patches: Callable[[Tensor], Tensor],
        direction: Tensor,
        *,
        host: str = "mocov3",
        gamma: float = 1.0,
        temperature: float = 1.0,
        momentum: float = 0.99,
    ) -> None:
        """Put the trained parts beside the frozen patch encoder.

        Args:
            encoder: images to features ``(n, f)``, those that are kept.
            projector: features to embeddings ``(n, d)``.
            predictor: embeddings to embeddings.
            patches: frozen, images to ``(n, P, D)`` tokens.
            direction: ``(D,)``, pointing to the foreground, see `fit_foreground`.
            host: ``"mocov3"`` or ``"simsiam"``.
            gamma: strength of the weights; 0 leaves the host's loss.
            temperature: of MoCo v3.
            momentum: of MoCo v3's key encoder.
        """
        super().__init__()
        check_module(encoder=encoder, projector=projector, predictor=predictor)
        check_callable(patches=patches)
        check_shapes(direction=(direction, "d"))
        check_choice(("mocov3", "simsiam"), host=host)
        check_in_range(0, math.inf, gamma=gamma)
        check_temperature(temperature)
        check_in_range(0, 1, momentum=momentum)
        self.student, self.predictor = nn.Sequential(encoder, projector), predictor
        self.teacher = MomentumTeacher(self.student, momentum) if host == "mocov3" else None
        self.patches = patches.requires_grad_(False).eval() if isinstance(patches, nn.Module) else patches
        self.register_buffer("direction", direction.detach().clone())
        self.gamma, self.temperature = gamma, temperature

    def train(self, mode: bool = True) -> GenView:
        """Set the mode of the trained parts; a patch encoder stays in evaluation mode."""
        super().train(mode)
        if isinstance(self.patches, nn.Module):
            self.patches.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """``(n, c, h, w)`` images to the features that are kept."""
        check_shapes(images=(images, "n c h w"))
        return apply_network(self.student[0], "n f", images=images)

    @torch.no_grad()
    def weigh(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Weights ``(N,)`` of the pairs of this batch of ``(N, c, h, w)`` views."""
        check_shapes(view1=(view1, "n c h w"), view2=(view2, "n c h w"))
        first, second = (apply_network(self.patches, "n p d", **x) for x in ({"view1": view1}, {"view2": view2}))
        return quality_weights(pair_quality(first, second, self.get_buffer("direction")).quality, self.gamma)

    def loss(self, view1: Tensor, view2: Tensor, *, generator: torch.Generator | None = None) -> GenViewTerms:
        """The host's loss of ``(N, c, h, w)`` augmented views of the same images, at least two; nothing is drawn."""
        check_shapes(view1=(view1, "n c h w"), view2=(view2, "n c h w"))
        check_batch(len(view1), 2, name="view1", why="to weigh pairs against each other")
        check_generator(generator)
        weights = self.weigh(view1, view2)
        z1, z2 = (apply_network(self.student, "n d", **x) for x in ({"view1": view1}, {"view2": view2}))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        if self.teacher is None:
            return GenViewTerms(weighted_simsiam_loss(p1, p2, z1, z2, weights), weights)
        with torch.no_grad():
            k1, k2 = (apply_network(self.teacher.network, "n d", **x) for x in ({"view1": view1}, {"view2": view2}))
        return GenViewTerms(weighted_moco_loss(p1, p2, k1, k2, weights, self.temperature), weights)

    def after_step(self) -> None:
        """Move the key encoder of MoCo v3; nothing to do for SimSiam."""
        if self.teacher is not None:
            self.teacher.update(self.student)
