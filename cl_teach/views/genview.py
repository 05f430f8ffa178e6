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

Paper versus code. The formulas follow the authors' released code, the text of the paper was not at hand. (1) The
figure of the paper writes a softmax times the loss, a sum over the batch; the code's :math:`w_i` sum to N, with a mean:
the same. (2) A batch is what one process sees. (3) The sign of v is arbitrary, and the wrong one rewards the wrong
pairs; the code has a switch, `fit_foreground` takes patches that are known to be background. (4) The threshold in
the code is the edge of a histogram bin, at a share of 0.35 above; here it is a quantile. Tokens are projected
uncentered. (5) The table of levels in the code has a 500 that no share reaches. (6) Constant tokens have no foreground;
their foreground similarity is 0. (7) Encoder and generator are CLIP and Stable unCLIP in the code. Small stand-ins with
the same interface are `patch_tokens`, the patches themselves, and ``VariationGenerator``, an autoencoder trained on the
spot; any other can be put in. (8) `draw_scenes` is this book's data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
)
from ..core.regression import regression_loss
from ..core.similarity import normalize
from ..core.teacher import MomentumTeacher

__all__ = [
    "Foreground",
    "GenView",
    "GenViewTerms",
    "Quality",
    "Scenes",
    "draw_choice",
    "draw_scenes",
    "fit_foreground",
    "foreground_ratio",
    "generate_variations",
    "insert_generated",
    "noise_level",
    "pair_quality",
    "patch_tokens",
    "pool",
    "principal_direction",
    "project",
    "quality_weights",
    "soft_masks",
    "weighted_moco_loss",
    "weighted_simsiam_loss",
]


def principal_direction(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """First principal direction of tokens, its entry of largest absolute value positive, and their mean.

    Args:
        tokens: ``(n, D)``, at least two.

    Returns:
        Direction ``(D,)`` of length 1 and mean ``(D,)``.

    Raises:
        TypeError: not floating.
        ValueError: not a matrix, a single token, NaN.
    """
    check_embeddings(tokens=tokens)
    check_batch(len(tokens), 2, name="tokens", why="to vary")
    mean = tokens.mean(0)
    centered = tokens - mean
    direction = torch.linalg.eigh(centered.mT @ centered).eigenvectors[:, -1]  # eigenvalues ascend
    return direction * direction[direction.abs().argmax()].sign(), mean


def project(tokens: Tensor, direction: Tensor) -> Tensor:
    """Projections ``(...)`` of ``(..., D)`` tokens, uncentered, on a ``(D,)`` direction."""
    check_same_width(tokens=tokens, direction=direction)
    return tokens @ direction


class Foreground(NamedTuple):
    """What tells foreground: the direction ``(D,)`` and the threshold of a projection on it, a scalar."""

    direction: Tensor
    threshold: Tensor


def fit_foreground(tokens: Tensor, background: Tensor, share: float = 0.35) -> Foreground:
    """Fit direction and threshold on the tokens of many images; the sign of the direction comes from ``background``.

    Args:
        tokens: ``(n, P, D)``.
        background: ``(P,)`` boolean, places that show mostly background (the border of a picture).
        share: of all tokens that are to be foreground.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, no or only background, share outside [0, 1].
    """
    check_embeddings(ndim=3, tokens=tokens)
    check_mask(background, (tokens.shape[1],), name="background")
    check_in_range(0, 1, share=share)
    if background.all() or not background.any():
        raise ValueError("background: expected some places that are true and some that are not")
    direction, _ = principal_direction(tokens.flatten(0, 1))
    projections = project(tokens, direction)  # (n, P)
    if projections[:, background].mean() > projections[:, ~background].mean():
        direction, projections = -direction, -projections
    return Foreground(direction, projections.flatten().quantile(1 - share))


def foreground_ratio(tokens: Tensor, foreground: Foreground) -> Tensor:
    """Share ``(n,)`` of an image's patches, ``(n, P, D)`` tokens, whose projection exceeds the threshold.

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN.
    """
    check_embeddings(ndim=3, tokens=tokens)
    return (project(tokens, foreground.direction) > foreground.threshold).to(tokens.dtype).mean(1)


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

    Raises:
        TypeError: ``ratio`` not floating.
        ValueError: a ratio outside the edges, edges that do not increase, too few levels.
    """
    check_embeddings(ndim=1, ratio=ratio)
    if len(edges) < 2 or any(a >= b for a, b in zip(edges[:-1], edges[1:], strict=True)):
        raise ValueError(f"edges: expected at least two increasing numbers, got {edges}")
    if len(levels) < len(edges) - 1:
        raise ValueError(f"levels: expected at least {len(edges) - 1}, one for each bin, got {len(levels)}")
    check_in_range(edges[0], edges[-1], ratio=ratio)
    inner = torch.tensor(edges[1:-1], dtype=ratio.dtype, device=ratio.device)
    return torch.tensor(levels, device=ratio.device)[torch.bucketize(ratio, inner)]  # an edge is in the lower bin


def soft_masks(tokens: Tensor, direction: Tensor, eps: float = 1e-7) -> tuple[Tensor, Tensor]:
    """How much each patch is foreground and background, both summing to 1 over the patches of a view.

    Args:
        tokens: ``(N, P, D)``.
        direction: ``(D,)`` v, pointing to the foreground.
        eps: keeps constant tokens finite.

    Returns:
        Masks of the foreground and of the background, ``(N, P)``.

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN, eps not positive.
    """
    check_embeddings(ndim=3, tokens=tokens)
    check_embeddings(ndim=1, direction=direction)
    check_positive(eps=eps)
    a = project(tokens, direction)  # (N, P)
    low, high = a.amin(1, keepdim=True), a.amax(1, keepdim=True)
    front = (a - low) / (high - low + eps)
    back = 1 - front
    return front / (front.sum(1, keepdim=True) + eps), back / (back.sum(1, keepdim=True) + eps)


def pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``(N, P, D)`` tokens weighted by a ``(N, P)`` mask, ``(N, D)``."""
    return (mask[..., None] * tokens).sum(1)


class Quality(NamedTuple):
    """Similarity of the foregrounds, of the backgrounds, and quality: their difference; each ``(N,)``."""

    foreground: Tensor
    background: Tensor
    quality: Tensor


@torch.no_grad()
def pair_quality(tokens1: Tensor, tokens2: Tensor, direction: Tensor, eps: float = 1e-7) -> Quality:
    """Same thing in different surroundings is a good pair.

    Args:
        tokens1: ``(N, P, D)`` of the first views.
        tokens2: ``(N, P, D)`` of the second views.
        direction: ``(D,)``, pointing to the foreground.
        eps: see `soft_masks`.

    Returns:
        `Quality`, without graph.

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN.

    Source: Li et al. (2024), the quality-driven loss, as in the released code.
    """
    check_same_shape(tokens1=tokens1, tokens2=tokens2)
    pooled = [
        [normalize(pool(tokens, mask)) for mask in soft_masks(tokens, direction, eps)]  # front, back
        for tokens in (tokens1, tokens2)
    ]
    front, back = ((pooled[0][k] * pooled[1][k]).sum(1) for k in (0, 1))  # (N,)
    return Quality(front, back, front - back)


def quality_weights(quality: Tensor, gamma: float = 1.0) -> Tensor:
    """Weights ``(N,)`` of the pairs, N times the softmax of ``gamma`` times the quality ``(N,)``; no graph.

    Raises:
        TypeError: not floating.
        ValueError: not a vector, NaN, gamma negative.
    """
    check_embeddings(ndim=1, quality=quality)
    check_in_range(0, math.inf, gamma=gamma)
    return len(quality) * (gamma * quality.detach()).softmax(0)


def weighted_moco_loss(
    q1: Tensor,
    q2: Tensor,
    k1: Tensor,
    k2: Tensor,
    weights: Tensor,
    temperature: float = 1.0,
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

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN, a negative weight, a number not positive.

    Source: Chen, Xie, He, An Empirical Study of Training Self-Supervised Vision Transformers (2021), algorithm 1.
    """
    check_embeddings(q1=q1, q2=q2, k1=k1, k2=k2)
    check_same_shape(q1=q1, q2=q2, k1=k1, k2=k2)
    _check_weights(weights, q1)
    scale = 2 * temperature if scale is None else scale
    check_positive(temperature=temperature, scale=scale)
    total = torch.zeros((), dtype=q1.dtype, device=q1.device)
    for query, key in ((q1, k2), (q2, k1)):
        logits = normalize(query) @ normalize(key.detach()).mT / temperature  # (N, N)
        total = total - (weights.detach() * logits.log_softmax(1).diagonal()).mean()
    return scale * total


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

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN, a negative weight.

    Source: Chen and He, Exploring Simple Siamese Representation Learning (2021), equation 4.
    """
    check_embeddings(p1=p1, p2=p2, z1=z1, z2=z2)
    check_same_shape(p1=p1, p2=p2, z1=z1, z2=z2)
    _check_weights(weights, p1)
    terms = [regression_loss(p, z, reduction="none") / 2 - 1 for p, z in ((p1, z2), (p2, z1))]  # minus the cosine
    return (weights.detach() * (terms[0] + terms[1]) / 2).mean()


def _check_weights(weights: Tensor, rows: Tensor) -> None:
    check_embeddings(ndim=1, weights=weights)
    check_same_length(weights=weights, rows=rows)
    check_in_range(0, math.inf, weights=weights)


def draw_choice(n: int, probability: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    """Which view of each image is to be generated: ``(n,)`` integers, 1 or 2 with equal chance, 0 for none.

    Raises:
        ValueError: the probability outside [0, 1].
    """
    check_in_range(0, 1, probability=probability)
    which = torch.randint(1, 3, (n,), generator=generator)
    return which * (torch.rand(n, generator=generator) < probability)


@torch.no_grad()
def generate_variations(
    images: Tensor,
    generator: Callable[[Tensor, Tensor, Tensor], Tensor],
    patches: Callable[[Tensor], Tensor],
    foreground: Foreground,
    noise: Tensor,
) -> Tensor:
    """The work before training: one variation of each image, the noisier the more of it is foreground.

    Args:
        images: ``(n, c, h, w)``.
        generator: frozen; images, ``(n,)`` integer levels and noise to images.
        patches: frozen, images to ``(n, P, D)`` tokens.
        foreground: see `fit_foreground`.
        noise: standard normal, in the shape of the generator's embeddings.

    Returns:
        ``(n, c, h, w)``.

    Raises:
        TypeError: not floating.
        ValueError: shapes do not fit, NaN.
    """
    check_embeddings(ndim=4, images=images)
    return generator(images, noise_level(foreground_ratio(patches(images), foreground)), noise)


def insert_generated(images: Tensor, generated: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Two views of each image before augmentation; at most one is generated.

    Args:
        images: ``(n, c, h, w)``.
        generated: ``(n, c, h, w)`` their variations.
        choice: ``(n,)`` in {0, 1, 2}, see `draw_choice`.

    Returns:
        Two ``(n, c, h, w)`` tensors.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a choice out of range.
    """
    check_embeddings(ndim=4, images=images, generated=generated)
    check_same_shape(images=images, generated=generated)
    check_labels(choice, len(images), name="choice", num_classes=3)
    first, second = (torch.where((choice == k)[:, None, None, None], generated, images) for k in (1, 2))
    return first, second


def patch_tokens(images: Tensor, patch: int = 4) -> Tensor:
    """The smallest patch encoder: ``(n, c, h, w)`` images to ``(n, P, c * patch**2)`` pixels, row by row.

    Raises:
        TypeError: not floating.
        ValueError: sides not divisible by ``patch``.
    """
    check_embeddings(ndim=4, images=images)
    check_in_range(1, min(images.shape[2:]), patch=patch)
    if images.shape[2] % patch or images.shape[3] % patch:
        raise ValueError(f"images: expected sides divisible by {patch}, got {tuple(images.shape[2:])}")
    return nn.functional.unfold(images, patch, stride=patch).mT


class GenViewTerms(NamedTuple):
    """Loss, a scalar, and the weights ``(N,)`` of the pairs."""

    loss: Tensor
    weights: Tensor


class GenView(nn.Module):
    """A host method with weights from a frozen patch encoder; ``method.step(view1, view2).loss`` is minimized.

    With the host MoCo v3, call ``update()`` after each optimizer step. A step from the beginning::

        generated = generate_variations(images, generator, patches, foreground, noise)  # once, before training
        view1, view2 = insert_generated(images, generated, draw_choice(len(images)))
        loss = method.step(augment(view1), augment(view2)).loss
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
            encoder: images to features, those that are kept.
            projector: features to embeddings.
            predictor: embeddings to embeddings.
            patches: frozen, images to ``(n, P, D)`` tokens.
            direction: ``(D,)``, pointing to the foreground, see `fit_foreground`.
            host: ``"mocov3"`` or ``"simsiam"``.
            gamma: strength of the weights; 0 leaves the host's loss.
            temperature: of MoCo v3.
            momentum: of MoCo v3's key encoder.

        Raises:
            ValueError: unknown host, a number out of range.
        """
        super().__init__()
        check_choice(("mocov3", "simsiam"), host=host)
        check_in_range(0, math.inf, gamma=gamma)
        check_positive(temperature=temperature)
        self.encoder, self.predictor = encoder, predictor
        self.student = nn.Sequential(encoder, projector)
        self.teacher = MomentumTeacher(self.student, momentum) if host == "mocov3" else None
        self.patches = patches.requires_grad_(False).eval() if isinstance(patches, nn.Module) else patches
        self.register_buffer("direction", direction)
        self.gamma, self.temperature = gamma, temperature

    def train(self, mode: bool = True) -> GenView:
        """Set the mode of the trained parts; a patch encoder stays in evaluation mode."""
        super().train(mode)
        if isinstance(self.patches, nn.Module):
            self.patches.eval()
        return self

    @torch.no_grad()
    def weigh(self, view1: Tensor, view2: Tensor) -> Tensor:
        """Weights ``(N,)`` of the pairs of this batch."""
        quality = pair_quality(self.patches(view1), self.patches(view2), self.get_buffer("direction")).quality
        return quality_weights(quality, self.gamma)

    def step(self, view1: Tensor, view2: Tensor) -> GenViewTerms:
        """Loss of one training step.

        Args:
            view1: ``(N, c, h, w)`` augmented first views, at least two.
            view2: ``(N, c, h, w)`` augmented second views.

        Raises:
            TypeError: not floating.
            ValueError: shapes differ, a single pair.
        """
        check_embeddings(ndim=4, view1=view1, view2=view2)
        check_same_shape(view1=view1, view2=view2)
        check_batch(len(view1), 2, name="view1", why="to weigh pairs against each other")
        weights = self.weigh(view1, view2)
        z1, z2 = self.student(view1), self.student(view2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        if self.teacher is None:
            return GenViewTerms(weighted_simsiam_loss(p1, p2, z1, z2, weights), weights)
        k1, k2 = self.teacher(view1), self.teacher(view2)
        return GenViewTerms(weighted_moco_loss(p1, p2, k1, k2, weights, self.temperature), weights)

    def update(self) -> None:
        """Move the key encoder of MoCo v3 after an optimizer step; nothing to do for SimSiam."""
        if self.teacher is not None:
            self.teacher.update(self.student)


class Scenes(NamedTuple):
    """Pictures ``(n, 1, 12, 12)`` of nine patches, and which patches ``(n, 9)`` are foreground, boolean."""

    images: Tensor
    foreground: Tensor


def draw_scenes(things: Tensor, places: Tensor, sizes: Tensor, *, generator: torch.Generator) -> Scenes:
    """Bright patches show a thing, dark ones a place; the center is always foreground. Prototypes are fixed.

    Args:
        things: ``(n,)`` classes of the foregrounds.
        places: ``(n,)`` classes of the backgrounds.
        sizes: ``(n,)`` patches of foreground, 1 to 8.
        generator: draws which patches and the noise.

    Raises:
        TypeError: not integer.
        ValueError: shapes differ, a size out of range.
    """
    n, dim = len(things), 16
    check_labels(things, n, name="things")
    check_labels(places, n, name="places")
    check_labels(sizes, n, name="sizes")
    check_in_range(1, 8, sizes=sizes)
    fixed = torch.Generator().manual_seed(0)
    tables = torch.randn(2, 100, dim, generator=fixed)
    tables = tables - tables.mean(2, keepdim=True)  # brightness carries no class
    order = torch.rand(n, 9, generator=generator)
    order[:, 4] = -1  # the center comes first
    foreground = order.argsort(1).argsort(1) < sizes[:, None]  # (n, 9)
    front, back = tables[0][things][:, None] + 0.75, tables[1][places][:, None] - 0.75  # (n, 1, 16)
    tokens = torch.where(foreground[..., None], front, back) + 0.3 * torch.randn(n, 9, dim, generator=generator)
    return Scenes(nn.functional.fold(tokens.mT, (12, 12), 4, stride=4), foreground)
