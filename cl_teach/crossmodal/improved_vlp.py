r"""Improved baselines for vision-language pre-training (CLIP-Rocket). Enrico Fini, Pietro Astolfi, Adriana
Romero-Soriano, Jakob Verbeek, Michal Drozdzal; TMLR 2023; https://arxiv.org/abs/2305.08675.

With :math:`\ell(A \to B; s, \epsilon)` the cross-entropy of finding row i of B from row i of A, cosines times s, labels
smoothed by :math:`\epsilon`, plain CLIP is the mean of :math:`\ell(I\to T)` and :math:`\ell(T\to I)`. The improved
recipe has one weakly changed global view z and A strongly changed local views h with their own head and scale,

.. math::
    L^I = \frac{1}{1+A}\Big[\ell(z^I\to z^T; s, 0) + \frac1A\sum_{a,b}\ell(h^I_a\to h^T_b; s_h,\epsilon)\Big], \qquad
    L = \tfrac12(L^I + L^T) .

Four losses from learning without negatives, carried over from two views of an image to an image and its text:

- SiamLIP, BYOLIP (`siamlip`): a predictor of either modality predicts the projection of the other one, which is a
  constant, :math:`2 - 2\cos`; for BYOLIP it comes from a slow copy of the model.
- BarLIP (`barlip`): :math:`\gamma[\sum_i(C_{ii}-1)^2 + \lambda\sum_{i\ne j}C_{ij}^2]` with the cross-correlation C.
- SwALIP (`swalip`): the texts of the batch are prototypes for its images and the other way round; a pair of views
  predicts the Sinkhorn codes of the other pair.

What changes and why: earlier work added such losses *and* changed the recipe. Separated, the losses help under the
basic recipe, and not any more under the improved one: most of the gain belongs to augmentation.

Paper versus code. The body of the paper was not accessible to us; the released code was the source. (1) Global and all
local terms weigh 1 : A. (2) ``doubled=True`` is the code's "sum", which doubles this loss, but not an added one; the
default is its "avg". (3) SwALIP is fixed to two views and needs :math:`\epsilon = 0` on the local terms. (4) The scales
are clamped after the optimizer's step, not in the loss. (5) The code gathers negatives without gradient over devices;
here is one device, with the whole gradient. (6) Chosen here: networks of teaching size and a bag of words for text,
which does not see a swap of words. The weak change of a text is `remove_words` with its stop words, the strong one that
and `change_texts`, both in `cl_teach.datasets.text_changes`. Dropout on local texts acts on their features, in the code
within the transformer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.assignment import sinkhorn
from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_in_range,
    check_module,
    check_shapes,
    check_type,
)
from ..core.contrast import check_scale, weighted_contrast
from ..core.precision import full_precision
from ..core.regression import regression_loss
from ..core.similarity import cosine_similarity, normalize
from ..core.teacher import MomentumTeacher
from ..core.tiles import tiled_contrast, use_tiles
from ..models.encoders import MLP, ConvEncoder
from ..models.paired_towers import HeadedTower, PairedTowers, Views

__all__ = [
    "EXTRAS",
    "CLIPRocket",
    "RocketLoss",
    "RocketTerms",
    "Views",
    "barlip",
    "clip_rocket",
    "directed_contrast",
    "siamlip",
    "swalip",
]

EXTRAS = {"none": 0.0, "siamlip": 1.0, "byolip": 1.0, "barlip": 1.0, "swalip": 0.2}
"""The extra losses, and how much each weighs beside the recipe's."""
LARGEST_SCALE = 100.0


class RocketTerms(NamedTuple):
    """Scalars: the objective, and its parts for image and text anchors (local ones are means over all view pairs)."""

    loss: Tensor
    image_global: Tensor
    text_global: Tensor
    image_local: Tensor
    text_local: Tensor


class RocketLoss(NamedTuple):
    """Scalars: the sum, the recipe's loss, and the extra one before it is weighted."""

    loss: Tensor
    recipe: Tensor
    extra: Tensor


@full_precision
def directed_contrast(
    anchor: Tensor, candidates: Tensor, log_scale: float | Tensor, label_smoothing: float = 0.0
) -> Tensor:
    r"""Find row i of the candidates from row i of the anchors, :math:`\ell(A \to B; s, \epsilon)`.

    Args:
        anchor: ``(N, d)``, any scale (normalized here).
        candidates: ``(N, d)``.
        log_scale: :math:`\log s`, a number or a 0-d tensor.
        label_smoothing: :math:`\epsilon \in [0, 1]`, share of the target that is spread over all candidates.

    Returns:
        Scalar.
    """
    check_shapes(anchor=(anchor, "N d"), candidates=(candidates, "N d"))
    check_scale(log_scale)
    check_in_range(0, 1, label_smoothing=label_smoothing)
    logits = _scale(log_scale, anchor) * cosine_similarity(anchor, candidates)  # (N, N)
    target = (1 - label_smoothing) * logits.diagonal() + label_smoothing * logits.mean(1)  # (N,)
    return (logits.logsumexp(1) - target).mean()


@full_precision
def clip_rocket(
    image: Views,
    text: Views,
    log_scale: float | Tensor,
    local_log_scale: float | Tensor,
    label_smoothing: float = 0.1,
    *,
    doubled: bool = False,
) -> RocketTerms:
    r"""The improved recipe's loss over a global view and all pairs of local views.

    Args:
        image: embeddings ``(N, d)`` of the global view and ``(N, e)`` of every local view.
        text: the same of the texts, with equally many local views; without one this is the CLIP loss.
        log_scale: :math:`\log s` of the global term.
        local_log_scale: :math:`\log s_h` of the local terms.
        label_smoothing: of the local terms.
        doubled: the released code's "sum".

    Returns:
        The objective and its parts.

    Source: Fini et al. (2023), released code.

    Example:
        >>> z = torch.eye(4)
        >>> plain = clip_rocket(Views(z, []), Views(z, []), log_scale=0.0, local_log_scale=0.0)
        >>> views = Views(z, [z, z])
        >>> recipe = clip_rocket(views, views, log_scale=0.0, local_log_scale=0.0, label_smoothing=0.0)
        >>> torch.allclose(plain.loss, recipe.loss)  # equal views add nothing
        True
    """
    count = _check_views(image=image, text=text)
    check_scale(log_scale)
    check_scale(local_log_scale, name="local_log_scale")
    check_in_range(0, 1, label_smoothing=label_smoothing)
    check_flag(doubled=doubled)
    # `directed_contrast` from the images to the texts and back, (2,)
    whole = _both_directions(image.whole, text.whole, log_scale)
    pairs = [_both_directions(a, b, local_log_scale, label_smoothing) for a in image.local for b in text.local]
    local = torch.stack(pairs).mean(0) if pairs else torch.zeros_like(whole)
    sides = (whole + count * local) / (1 + count)
    loss = sides.mean() * (2 if doubled else 1)
    return RocketTerms(loss, *whole, *local)


def _both_directions(a: Tensor, b: Tensor, log_scale: float | Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``(2,)`` `directed_contrast` from a to b and from b to a, of one table or of none."""
    scale, u, v = _scale(log_scale, a), normalize(a), normalize(b)
    if use_tiles(scale):
        log_sums = tiled_contrast(a, b, scale).view(2, -1)
    else:
        logits = scale * u @ v.mT
        log_sums = torch.stack([logits.logsumexp(1), logits.logsumexp(0)])
    spread = torch.stack([u @ v.mean(0), v @ u.mean(0)])  # (2, N)
    target = (1 - label_smoothing) * (u * v).sum(1) + label_smoothing * spread
    return (log_sums - scale * target).mean(1)


def siamlip(image_p: Views, text_p: Views, image_v: Views, text_v: Views) -> Tensor:
    """Each modality predicts the other one, which is a constant: global with global, every local with every local view.

    Args:
        image_p: predictions from images, ``(N, d)`` each.
        text_p: predictions from texts.
        image_v: projections of images; from the slow copy for BYOLIP.
        text_v: projections of texts.

    Returns:
        Scalar in [0, 4]; no gradient reaches the projections.
    """
    _check_views(image_p=image_p, text_p=text_p, image_v=image_v, text_v=text_v)
    terms = []
    for p, v in ((image_p, text_v), (text_p, image_v)):
        terms.append(regression_loss(p.whole, v.whole))
        terms += [regression_loss(a, b) for a in p.local for b in v.local]
    return torch.stack(terms).mean()


@full_precision
def barlip(image_v: Tensor, text_v: Tensor, off_diagonal: float = 5e-3, scale: float = 0.025) -> Tensor:
    r"""Redundancy reduction between an image and its text, for one pair of views.

    Args:
        image_v: ``(N, D)`` projections, standardized over the batch by the projector's last layer, not here.
        text_v: ``(N, D)``.
        off_diagonal: :math:`\lambda`, at least 0.
        scale: :math:`\gamma`, at least 0.

    Returns:
        Scalar; 0 for equal, standardized and uncorrelated projections.
    """
    check_shapes(image_v=(image_v, "N D"), text_v=(text_v, "N D"))
    check_entries(-1e6, 1e6, image_v=image_v, text_v=text_v)  # the fourth power is looked at
    check_in_range(0, 1e6, off_diagonal=off_diagonal, scale=scale)
    c = image_v.mT @ text_v / len(image_v)  # (D, D)
    own = c.diagonal()
    return scale * ((own - 1).square().sum() + off_diagonal * (c.square().sum() - own.square().sum()))


@full_precision
def swalip(
    image_h: Sequence[Tensor],
    text_h: Sequence[Tensor],
    local_log_scale: float | Tensor,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """Pair (a, b) of views predicts the codes of pair (1 - a, 1 - b), in both directions; the batch is the prototypes.

    Args:
        image_h: two ``(N, d)`` local views of the images.
        text_h: two of the texts.
        local_log_scale: logarithm of the predictions' scale.
        epsilon: of `sinkhorn`, which makes the codes (constants).
        iterations: likewise.

    Returns:
        Scalar.
    """
    for name, views in (("image_h", image_h), ("text_h", text_h)):
        check_type((list, tuple), **{name: views})
        if len(views) != 2:
            raise ValueError(f"{name}: expected two views, got {len(views)}")
    all_views = {"image_h[0]": image_h[0], "image_h[1]": image_h[1], "text_h[0]": text_h[0], "text_h[1]": text_h[1]}
    check_shapes(**{name: (x, "N d") for name, x in all_views.items()})
    check_scale(local_log_scale, name="local_log_scale")
    check_in_range(1e-6, 1e6, epsilon=epsilon)
    check_count(iterations=iterations)
    terms = []
    for one, other in ((image_h, text_h), (text_h, image_h)):
        for a in (0, 1):
            for b in (0, 1):
                code = sinkhorn(cosine_similarity(one[1 - a], other[1 - b]).detach(), epsilon, iterations)  # (N, N)
                logits = _scale(local_log_scale, one[a]) * cosine_similarity(one[a], other[b])
                terms.append(weighted_contrast(logits, code))
    return torch.stack(terms).mean()


class CLIPRocket(nn.Module):
    """Two towers, two learned scales, and one of the extra losses. Any encoders with the same calls can be put in.

    `after_step` keeps both scales within [1, 100] and moves the slow copy of BYOLIP.
    """

    def __init__(
        self,
        image_encoder: nn.Module | None = None,
        text_encoder: nn.Module | None = None,
        *,
        widths: tuple[int, int] = (32, 32),
        dim: int = 32,
        hidden: int = 64,
        extra: str = "none",
        label_smoothing: float = 0.1,
        doubled: bool = False,
        text_dropout: float = 0.0,
        momentum: float = 0.99,
    ) -> None:
        """Make the towers.

        Args:
            image_encoder: images to ``(N, widths[0])``; a small convolutional network for 8x8 digits if None.
            text_encoder: ``(N, L)`` words to ``(N, widths[1])``; the mean of 60 word vectors if None.
            widths: of the features.
            dim: of all embeddings.
            hidden: of the MLPs.
            extra: one of `EXTRAS`.
            label_smoothing: of the local terms; SwALIP needs 0.
            doubled: see `clip_rocket`.
            text_dropout: on the features of local texts.
            momentum: of the slow copy.
        """
        super().__init__()
        check_choice(list(EXTRAS), extra=extra)
        check_type((list, tuple), widths=widths)
        check_batch(len(widths), 2, name="widths", why="(images and texts)")
        check_in_range(0, 1, label_smoothing=label_smoothing, text_dropout=text_dropout, momentum=momentum)
        check_flag(doubled=doubled)
        check_count(dim=dim, hidden=hidden, **{f"widths[{i}]": width for i, width in enumerate(widths)})
        if extra == "swalip" and label_smoothing:
            raise ValueError(f"extra, label_smoothing: expected no smoothing with swalip, got {label_smoothing}")
        self.extra, self.label_smoothing, self.doubled = extra, label_smoothing, doubled
        image_encoder = ConvEncoder(image_size=8) if image_encoder is None else image_encoder
        text_encoder = nn.EmbeddingBag(61, widths[1], padding_idx=0) if text_encoder is None else text_encoder
        check_module(image_encoder=image_encoder, text_encoder=text_encoder)
        image = HeadedTower(image_encoder, widths[0], dim, hidden)
        self.towers = PairedTowers(image, HeadedTower(text_encoder, widths[1], dim, hidden, text_dropout))
        self.image_predictor, self.text_predictor = MLP([dim, hidden, dim]), MLP([dim, hidden, dim])
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.local_log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.1)))
        self.slow = MomentumTeacher(self.towers, momentum) if extra == "byolip" else None

    def loss(self, images: Views, texts: Views) -> RocketLoss:
        """The loss of a batch: images ``(N, 1, 8, 8)`` and texts ``(N, L)``, a global and some local views of each."""
        _check_inputs(images=images, texts=texts)
        image, image_v, text, text_v = self.towers(images, texts)
        recipe = clip_rocket(
            image, text, self.log_scale, self.local_log_scale, self.label_smoothing, doubled=self.doubled
        ).loss
        extra = recipe.new_zeros(())
        if self.extra in ("siamlip", "byolip"):
            image_p, text_p = image_v.map(self.image_predictor), text_v.map(self.text_predictor)
            if self.slow is not None:
                _, image_v, _, text_v = self.slow(images, texts)
            extra = siamlip(image_p, text_p, image_v, text_v)
        elif self.extra == "barlip":
            pairs = [(image_v.whole, text_v.whole), *((a, b) for a in image_v.local for b in text_v.local)]
            extra = torch.stack([barlip(a, b) for a, b in pairs]).mean()
        elif self.extra == "swalip":
            extra = swalip(image.local, text.local, self.local_log_scale)
        return RocketLoss(recipe + EXTRAS[self.extra] * extra, recipe, extra)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """``(n, m)`` cosines of images and texts by the heads z, for retrieval."""
        return self._cosines(images, texts=texts)

    @torch.no_grad()
    def zero_shot(self, images: Tensor, prompts: Tensor) -> Tensor:
        """The prompt ``(C, L)`` that fits each image best, ``(n,)``; call it in evaluation mode."""
        return self._cosines(images, prompts=prompts).argmax(1)

    def _cosines(self, images: Tensor, **texts: Tensor) -> Tensor:
        ((name, words),) = texts.items()
        image, text = self.towers.image.embed(images, name="images"), self.towers.text.embed(words, name=name)
        check_shapes(images=(image, "n d"), **{name: (text, "m d")})
        return cosine_similarity(image, text)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep both scales within [1, 100] and move the slow copy, if there is one."""
        for log_scale in (self.log_scale, self.local_log_scale):
            log_scale.clamp_(0, math.log(LARGEST_SCALE))
        if self.slow is not None:
            self.slow.update(self.towers)


def _scale(log_scale: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(log_scale, dtype=like.dtype, device=like.device).exp()


def _check_inputs(**pair: Views) -> int:
    """Two `Views` of equally many things; the number of local views."""
    counts = {}
    for name, views in pair.items():
        check_type(tuple, **{name: views})
        if len(views) != 2:
            raise ValueError(f"{name}: expected a global view and a list of local ones, got {len(views)} parts")
        check_type(Tensor, **{f"{name}.whole": views[0]})
        check_type((list, tuple), **{f"{name}.local": views[1]})
        check_type(Tensor, **{f"{name}.local[{i}]": x for i, x in enumerate(views[1])})
        counts[name] = len(views[1])
    if len(set(counts.values())) > 1:
        raise ValueError(f"{', '.join(pair)}: expected equally many local views, got {counts}")
    return next(iter(counts.values()))


def _check_views(**pair: Views) -> int:
    """The same for embeddings: global ones of one width, local ones of one width."""
    count = _check_inputs(**pair)
    check_shapes(**{f"{name}.whole": (views[0], "N d") for name, views in pair.items()})
    local = {f"{name}.local[{i}]": (x, "N e") for name, views in pair.items() for i, x in enumerate(views[1])}
    first, views = next(iter(pair.items()))
    check_shapes(**{f"{first}.whole": (views[0], "N d")}, **local)
    return count
