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
are clamped after the optimizer step (`CLIPRocket.clamp`), not in the loss. (5) The code gathers negatives without
gradient over devices; here is one device, with the whole gradient. (6) Chosen here: networks of teaching size, a bag of
words for text, random deletion as the only strong change of a text (the code has synonyms and swaps, too).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.assignment import sinkhorn
from ..core.checks import check_choice, check_embeddings, check_in_range, check_mask, check_positive, check_same_shape
from ..core.regression import regression_loss
from ..core.similarity import cosine_similarity
from ..core.teacher import MomentumTeacher
from ..models.encoders import MLP, ConvEncoder

__all__ = [
    "EXTRAS",
    "CLIPRocket",
    "RocketTerms",
    "Views",
    "barlip",
    "clip_rocket",
    "directed_contrast",
    "draw_captions",
    "remove_words",
    "siamlip",
    "swalip",
]

EXTRAS = ("none", "siamlip", "byolip", "barlip", "swalip")


class RocketTerms(NamedTuple):
    """Scalars: the objective, and its parts for image and text anchors (local ones are means over all view pairs)."""

    loss: Tensor
    image_global: Tensor
    text_global: Tensor
    image_local: Tensor
    text_local: Tensor


class Views(NamedTuple):
    """A global view ``(N, ...)`` and a list of local views of the same samples: images, texts or embeddings."""

    whole: Tensor
    local: Sequence[Tensor]


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

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, ``label_smoothing`` out of range.
    """
    check_embeddings(anchor=anchor, candidates=candidates)
    check_same_shape(anchor=anchor, candidates=candidates)
    check_in_range(0, 1, label_smoothing=label_smoothing)
    log_scale = torch.as_tensor(log_scale, dtype=anchor.dtype, device=anchor.device)
    check_embeddings(ndim=0, log_scale=log_scale)
    logits = log_scale.exp() * cosine_similarity(anchor, candidates)  # (N, N)
    own = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own, label_smoothing=label_smoothing)


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

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes or numbers of views do not fit, NaN, ``label_smoothing`` out of range.

    Source: Fini et al. (2023), released code.
    """
    count = _check_views(image, text)
    sides, parts = [], []
    for one, other in ((image, text), (text, image)):
        whole = directed_contrast(one.whole, other.whole, log_scale)
        pairs = [directed_contrast(a, b, local_log_scale, label_smoothing) for a in one.local for b in other.local]
        local = torch.stack(pairs).mean() if pairs else whole.new_zeros(())
        parts.append((whole, local))
        sides.append((whole + count * local) / (1 + count))
    loss = (sides[0] + sides[1]) / 2 * (2 if doubled else 1)
    return RocketTerms(loss, parts[0][0], parts[1][0], parts[0][1], parts[1][1])


def siamlip(image_p: Views, text_p: Views, image_v: Views, text_v: Views) -> Tensor:
    """Each modality predicts the other one, which is a constant: global with global, every local with every local view.

    Args:
        image_p: predictions from images, ``(N, d)`` each.
        text_p: predictions from texts.
        image_v: projections of images; from the slow copy for BYOLIP.
        text_v: projections of texts.

    Returns:
        Scalar in [0, 4]; no gradient reaches the projections.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes or numbers of views do not fit, NaN.
    """
    for other in (text_p, image_v, text_v):
        _check_views(image_p, other)
    terms = []
    for p, v in ((image_p, text_v), (text_p, image_v)):
        terms.append(regression_loss(p.whole, v.whole))
        terms += [regression_loss(a, b) for a in p.local for b in v.local]
    return torch.stack(terms).mean()


def barlip(image_v: Tensor, text_v: Tensor, off_diagonal: float = 5e-3, scale: float = 0.025) -> Tensor:
    r"""Redundancy reduction between an image and its text, for one pair of views.

    Args:
        image_v: ``(N, D)`` projections, standardized over the batch by the projector's last layer, not here.
        text_v: ``(N, D)``.
        off_diagonal: :math:`\lambda`, at least 0.
        scale: :math:`\gamma`, at least 0.

    Returns:
        Scalar; 0 for equal, standardized and uncorrelated projections.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, a weight negative.
    """
    check_embeddings(image_v=image_v, text_v=text_v)
    check_same_shape(image_v=image_v, text_v=text_v)
    check_in_range(0, math.inf, off_diagonal=off_diagonal, scale=scale)
    c = image_v.mT @ text_v / len(image_v)  # (D, D)
    own = c.diagonal()
    return scale * ((own - 1).square().sum() + off_diagonal * (c.square().sum() - own.square().sum()))


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

    Raises:
        TypeError: not floating tensors.
        ValueError: not two views each, shapes differ, NaN, epsilon not positive.
    """
    if len(image_h) != 2 or len(text_h) != 2:
        raise ValueError(f"image_h, text_h: expected two views each, got {len(image_h)} and {len(text_h)}")
    log_scale = torch.as_tensor(local_log_scale, dtype=image_h[0].dtype, device=image_h[0].device)
    check_embeddings(ndim=0, local_log_scale=log_scale)
    terms = []
    for one, other in ((image_h, text_h), (text_h, image_h)):
        for a in (0, 1):
            for b in (0, 1):
                code = sinkhorn(cosine_similarity(one[1 - a], other[1 - b]).detach(), epsilon, iterations)  # (N, N)
                logits = log_scale.exp() * cosine_similarity(one[a], other[b])
                terms.append(F.cross_entropy(logits, code))
    return torch.stack(terms).mean()


def draw_captions(labels: Tensor, noise: int = 5, *, words: int = 60, generator: torch.Generator) -> Tensor:
    """Captions of a toy language: the word of the class and some words that mean nothing, in this order.

    Args:
        labels: ``(N,)`` classes; class c has the word 1 + c, the other words up to ``words`` are noise.
        noise: number of noise words.
        words: size of the vocabulary; word 0 stands for a gap.
        generator: on the CPU.

    Returns:
        ``(N, 1 + noise)`` int64.
    """
    classes = int(labels.max()) + 1
    check_in_range(classes + 1, math.inf, words=words)
    filler = torch.randint(classes + 1, words + 1, (len(labels), noise), generator=generator)
    return torch.cat([1 + labels[:, None], filler.to(labels.device)], 1)


def remove_words(texts: Tensor, removable: Tensor, probability: float, *, generator: torch.Generator) -> Tensor:
    """Replace every removable word by a gap with some probability.

    Args:
        texts: ``(N, L)`` words.
        removable: ``(words + 1,)`` boolean, which words may go: the stop words for a weak change, all for a strong one.
        probability: in [0, 1].
        generator: on the CPU.

    Returns:
        ``(N, L)``.
    """
    check_mask(removable, (len(removable),), name="removable")
    check_in_range(0, 1, probability=probability)
    draw = torch.rand(texts.shape, generator=generator).to(texts.device)
    return texts.masked_fill((draw < probability) & removable[texts], 0)


class _Tower(nn.Module):
    """One modality: an encoder, the linear head z, the MLP head h, and the projector v of the extra loss."""

    def __init__(self, encoder: nn.Module, width: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.z, self.h = nn.Linear(width, dim), MLP([width, hidden, hidden, dim])
        self.v = nn.Sequential(MLP([width, hidden, dim]), nn.BatchNorm1d(dim, affine=False))

    def forward(self, views: Views) -> tuple[Views, Views]:
        whole, *local = (self.encoder(view) for view in (views.whole, *views.local))
        return Views(self.z(whole), [self.h(x) for x in local]), Views(self.v(whole), [self.v(x) for x in local])


class _Towers(nn.Module):
    """Both, so that one slow copy serves both."""

    def __init__(self, image: _Tower, text: _Tower) -> None:
        super().__init__()
        self.image, self.text = image, text

    def forward(self, images: Views, texts: Views) -> tuple[Views, Views, Views, Views]:
        return *self.image(images), *self.text(texts)


class CLIPRocket(nn.Module):
    """Two towers, two learned scales, and one of the extra losses.

    One step: ``model(images, texts)``, backward, optimizer, `clamp`. Any encoders with the same calls can be put in.
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
        """
        super().__init__()
        check_choice(EXTRAS, extra=extra)
        check_positive(dim=dim, hidden=hidden)
        if extra == "swalip" and label_smoothing:
            raise ValueError(f"label_smoothing: expected 0 with swalip, got {label_smoothing}")
        self.extra, self.label_smoothing = extra, label_smoothing
        image_encoder = ConvEncoder(image_size=8) if image_encoder is None else image_encoder
        text_encoder = nn.EmbeddingBag(61, widths[1], padding_idx=0) if text_encoder is None else text_encoder
        image = _Tower(image_encoder, widths[0], dim, hidden)
        self.towers = _Towers(image, _Tower(text_encoder, widths[1], dim, hidden))
        self.image_predictor, self.text_predictor = MLP([dim, hidden, dim]), MLP([dim, hidden, dim])
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.local_log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.1)))
        self.slow = MomentumTeacher(self.towers, 0.99) if extra == "byolip" else None

    def forward(self, images: Views, texts: Views) -> Tensor:
        """The loss of a batch: images ``(N, 1, 8, 8)`` and texts ``(N, L)``, a global and some local views of each."""
        image, image_v, text, text_v = self.towers(images, texts)
        loss = clip_rocket(image, text, self.log_scale, self.local_log_scale, self.label_smoothing).loss
        if self.extra in ("siamlip", "byolip"):
            image_p, text_p = _each(self.image_predictor, image_v), _each(self.text_predictor, text_v)
            if self.slow is not None:
                _, image_v, _, text_v = self.slow(images, texts)
            loss = loss + siamlip(image_p, text_p, image_v, text_v)
        elif self.extra == "barlip":
            pairs = [(image_v.whole, text_v.whole), *((a, b) for a in image_v.local for b in text_v.local)]
            loss = loss + torch.stack([barlip(a, b) for a, b in pairs]).mean()
        elif self.extra == "swalip":
            loss = loss + 0.2 * swalip(image.local, text.local, self.local_log_scale)
        return loss

    @torch.no_grad()
    def clamp(self) -> None:
        """After the optimizer step: keep both scales in [1, 100] and move the slow copy, if there is one."""
        for log_scale in (self.log_scale, self.local_log_scale):
            log_scale.clamp_(0, math.log(100))
        if self.slow is not None:
            self.slow.update(self.towers)

    @torch.no_grad()
    def zero_shot(self, images: Tensor, prompts: Tensor) -> Tensor:
        """The prompt ``(C, L)`` that fits each image best by the heads z, ``(N,)``; call it in evaluation mode."""
        image, text = self.towers.image, self.towers.text
        return cosine_similarity(image.z(image.encoder(images)), text.z(text.encoder(prompts))).argmax(1)


def _each(network: nn.Module, views: Views) -> Views:
    return Views(network(views.whole), [network(x) for x in views.local])


def _check_views(image: Views, text: Views) -> int:
    if len(image.local) != len(text.local):
        raise ValueError(f"text: expected {len(image.local)} local views as of image, got {len(text.local)}")
    return len(image.local)
