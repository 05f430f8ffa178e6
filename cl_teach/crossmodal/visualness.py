r"""TIP-CLIP: Learning the Visualness of Text Using Large Vision-Language Models. Gaurav Verma, Ryan A. Rossi,
Christopher Tensmeyer, Jiuxiang Gu, Ani Nenkova; EMNLP 2023; https://arxiv.org/abs/2305.10434.

N texts T, of which the set V evokes a picture and has one, I; the M others are all paired with the same NULL image,
random pixels drawn once:

.. math::
    X_m &= I_m \text{ for } m\in V, \quad I_{null} \text{ else}, \\
    L &= -\frac1{2N}\sum_j\log\frac{e^{s\langle X_j,T_j\rangle}}{\sum_k e^{s\langle X_j,T_k\rangle}}
         -\frac1{2N}\sum_j\log\frac{e^{s\langle X_j,T_j\rangle}}{\sum_k e^{s\langle X_k,T_j\rangle}}, \qquad
    S(T) = 1 - \langle I_{null}, T\rangle .

A text is called visual where its visualness S exceeds a threshold; no image is needed then.

What changes and why: CLIP assumes that every text has an image and cannot say of a text alone whether it has one. Here
the texts without a picture gather at one known place. The visual texts keep their own images as targets, so the space
stays good for retrieval; giving all of *them* one common image separates the two kinds as well, but forgets who belongs
to whom.

The loss has a floor that no training removes: the M equal rows share their texts evenly at best, and each text without
a picture finds M equal columns. Either direction is at least :math:`\frac MN\log M` (`loss_floor`).

Paper versus code. No author code was found; the source is the paper, and the second half of its equation, which was cut
off in our copy, follows from the factor 1/(2N) and from CLIP. (1) Literal: NULL enters a softmax M times, the
targets stay on the diagonal; taking it once would weaken how strongly NULL pushes visual texts away. (2) NULL is
embedded anew at each step and gets gradient; a cached embedding would go stale. (3) Images of non-visual items do not
enter at all, not even as negatives. (4) S uses the cosine, not the logit; its threshold belongs to one run and is
chosen on validation data (`best_threshold`). (5) Batch size and sampling are not given in the paper. (6) Chosen here:
small towers of any kind, one learned scale, kept below 100 as in CLIP.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_module,
    check_number,
    check_positive,
    check_shapes,
    check_type,
)
from ..core.contrast import check_scale, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, normalize, self_mask
from ..core.tiles import tiled_contrast, use_tiles
from ..models.apply import apply_network

__all__ = [
    "Mined",
    "NullTerms",
    "TIPCLIP",
    "best_threshold",
    "draw_null_image",
    "loss_floor",
    "macro_f1",
    "majority_label",
    "mine_sentences",
    "tip_clip",
    "tip_clip_terms",
    "visualness",
    "with_null",
]

LARGEST_SCALE = 100.0  # CLIP's
VISUAL_FROM, ABSTRACT_TO = 5, 3  # of a scale from 1 to 7


class NullTerms(NamedTuple):
    """The loss and its two directions, each a mean over the N items and at least M / N log M.

    Attributes:
        loss: their mean.
        image_to_text: scalar, softmax over texts.
        text_to_image: scalar, softmax over images and copies of NULL.
    """

    loss: Tensor
    image_to_text: Tensor
    text_to_image: Tensor


class Mined(NamedTuple):
    """Sentences of one page: ``kept (S,)`` and ``is_visual (S,)`` boolean, best ``image (S,)`` int64."""

    kept: Tensor
    is_visual: Tensor
    image: Tensor


@full_precision
def with_null(image: Tensor, null_image: Tensor, is_visual: Tensor) -> Tensor:
    """The rows X of the loss: each item's own image, or NULL.

    Args:
        image: ``(N, d)``; rows of non-visual items are ignored.
        null_image: ``(d,)``.
        is_visual: ``(N,)`` boolean.

    Returns:
        ``(N, d)``.
    """
    check_shapes(image=(image, "N d"), null_image=(null_image, "d"), is_visual=(is_visual, "N", bool))
    return torch.where(is_visual[:, None], image, null_image)


@full_precision
def tip_clip_terms(
    image: Tensor, text: Tensor, null_image: Tensor, is_visual: Tensor, log_scale: float | Tensor
) -> NullTerms:
    """Both directions of the loss, and their mean; arguments as in `tip_clip`."""
    check_shapes(image=(image, "N d"), text=(text, "N d"), null_image=(null_image, "d"))
    check_shapes(image=(image, "N d"), is_visual=(is_visual, "N", bool))
    check_scale(log_scale)
    rows = with_null(image, null_image, is_visual)
    scale = torch.as_tensor(log_scale, dtype=text.dtype, device=text.device).exp()
    if use_tiles(scale):  # the same numbers without the table
        to_text, to_image = tiled_contrast(rows, text, scale, positive=0).view(2, -1).mean(1)
    else:
        logits = scale * cosine_similarity(rows, text)  # (N, N), M equal rows
        own = self_mask(len(text), text.device)
        to_text, to_image = softmax_contrast(logits, own), softmax_contrast(logits.mT, own)
    return NullTerms((to_text + to_image) / 2, to_text, to_image)


def tip_clip(image: Tensor, text: Tensor, null_image: Tensor, is_visual: Tensor, log_scale: float | Tensor) -> Tensor:
    """The CLIP loss in which every non-visual text has the NULL image.

    Args:
        image: ``(N, d)`` image embeddings, any scale; rows of non-visual items are ignored.
        text: ``(N, d)`` text embeddings, row i belongs to image i.
        null_image: ``(d,)`` embedding of the NULL image.
        is_visual: ``(N,)`` boolean.
        log_scale: logarithm of 1 / temperature, a number or a 0-d tensor; not clamped here.

    Returns:
        Scalar; with all items visual the CLIP loss.

    Source: Verma et al. (2023), equation 1.

    Example:
        >>> is_visual, null = torch.tensor([True, False, False]), torch.tensor([0.0, 1.0])
        >>> text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # all where they should be
        >>> loss = tip_clip(text, text, null, is_visual, 4.6)
        >>> round(loss.item(), 4) == round(loss_floor(is_visual), 4)
        True
    """
    return tip_clip_terms(image, text, null_image, is_visual, log_scale).loss


def loss_floor(is_visual: Tensor) -> float:
    """M / N log M, below which neither direction of the loss can fall; ``is_visual (N,)`` boolean."""
    check_shapes(is_visual=(is_visual, "N", bool))
    without = int((~is_visual).sum())
    return without / len(is_visual) * math.log(without) if without else 0.0


@full_precision
def visualness(text: Tensor, null_image: Tensor) -> Tensor:
    """``(N,)`` scores in [0, 2] of texts ``(N, d)``: 1 - cosine with NULL ``(d,)``.

    Source: Verma et al. (2023).
    """
    check_shapes(text=(text, "N d"), null_image=(null_image, "d"))
    return 1 - normalize(text) @ normalize(null_image)


@full_precision
def mine_sentences(similarity: Tensor, visual_above: float = 0.35, abstract_below: float = 0.18) -> Mined:
    """Label the sentences of a page by an untuned CLIP: near one of its images, far from all of them, or left out.

    Args:
        similarity: ``(S, P)`` cosines of sentences and images of one page.
        visual_above: a sentence whose best cosine exceeds it is visual and gets that image.
        abstract_below: a sentence all of whose cosines stay below it is not; at most ``visual_above``.

    Returns:
        Which sentences are kept, which of them are visual, and the best image of each.

    Source: Verma et al. (2023).
    """
    check_shapes(similarity=(similarity, "S P"))
    check_in_range(-1, 1, visual_above=visual_above, abstract_below=abstract_below)
    if abstract_below > visual_above:
        raise ValueError(
            f"visual_above, abstract_below: expected the second to be at most the first, got {visual_above} and "
            f"{abstract_below}"
        )
    best, image = similarity.max(1)
    is_visual = best > visual_above
    return Mined(is_visual | (best < abstract_below), is_visual, image)


def majority_label(ratings: Tensor, needed: int = 5) -> tuple[Tensor, Tensor]:
    """Labels of people: ``ratings (S, raters)`` from 1 to 7 to ``kept (S,)`` and ``is_visual (S,)``.

    Visual if at least ``needed`` raters, a majority, chose 5, 6 or 7; not visual if as many chose 1, 2 or 3; else left
    out.
    """
    check_shapes(ratings=(ratings, "S raters", int))
    check_entries(1, 7, ratings=ratings)
    raters = ratings.shape[1]
    check_count(needed=needed)
    if not raters // 2 < needed <= raters:
        raise ValueError(f"ratings, needed: expected a majority of the {raters} raters, got {needed}")
    is_visual = (ratings >= VISUAL_FROM).sum(1) >= needed
    return is_visual | ((ratings <= ABSTRACT_TO).sum(1) >= needed), is_visual


def macro_f1(scores: Tensor, is_visual: Tensor, threshold: float) -> float:
    """Mean of the F1 of both classes, where scores ``(N,)`` above the threshold are called visual."""
    check_shapes(scores=(scores, "N"), is_visual=(is_visual, "N", bool))
    number = check_number("threshold", threshold)
    if number is None or math.isnan(number):
        raise ValueError("threshold: expected a number, got nan")
    called = scores > number
    parts = []
    for truth, guess in ((is_visual, called), (~is_visual, ~called)):
        both = int(truth.sum() + guess.sum())
        parts.append(2 * int((truth & guess).sum()) / both if both else 0.0)
    return sum(parts) / 2


@full_precision
def best_threshold(scores: Tensor, is_visual: Tensor) -> float:
    """The threshold of the highest `macro_f1` on validation data, halfway between two neighboring scores."""
    check_shapes(scores=(scores, "N"), is_visual=(is_visual, "N", bool))
    ordered = scores.double().unique()  # sorted
    middle = torch.cat([ordered[:1] - 1e-6, (ordered[:-1] + ordered[1:]) / 2])
    return max(middle.tolist(), key=lambda threshold: macro_f1(scores, is_visual, threshold))


def draw_null_image(shape: tuple[int, ...], *, generator: torch.Generator | None = None) -> Tensor:
    """Uniformly random pixels of a shape such as ``(3, 16, 16)``; drawn once and kept."""
    check_type((list, tuple), shape=shape)
    check_count(**{f"shape[{i}]": size for i, size in enumerate(shape)})
    check_generator(generator)
    return torch.rand(tuple(shape), generator=generator, device="cpu" if generator is None else generator.device)


class TIPCLIP(nn.Module):
    """Two towers, the NULL image and a learned scale, which `after_step` keeps within [1, 100].

    Both stages of training are the same loss: the mined corpus first, the sentences labeled by people second.
    """

    null_image: Tensor

    def __init__(self, image_tower: nn.Module, text_tower: nn.Module, null_image: Tensor, scale: float = 1 / 0.07):
        """Take any towers with outputs of one width.

        Args:
            image_tower: images ``(N, ...)`` to embeddings ``(N, d)``. NULL goes through it in a batch of its own, so it
                should have no batch normalization.
            text_tower: texts to embeddings ``(N, d)``.
            null_image: one image, see `draw_null_image`.
            scale: first value of 1 / temperature.
        """
        super().__init__()
        check_module(image_tower=image_tower, text_tower=text_tower)
        check_shapes(null_image=(null_image, "..."))
        check_positive(scale=scale)
        check_scale(math.log(scale), name="scale")
        self.image_tower, self.text_tower = image_tower, text_tower
        self.register_buffer("null_image", null_image)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def null_embedding(self) -> Tensor:
        """``(d,)`` with the current weights; in training it carries gradient."""
        return apply_network(self.image_tower, "n d", null_image=self.null_image[None])[0]

    def loss(self, images: Tensor, texts: Tensor, is_visual: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            images: one for each of the N items (those of non-visual ones are left out), or of the visual items only, in
                their order; none at all where nothing is visual.
            texts: ``(N, ...)``.
            is_visual: ``(N,)`` boolean.
        """
        check_type(Tensor, images=images)
        text = apply_network(self.text_tower, "N d", texts=texts)
        check_shapes(texts=(text, "N d"), is_visual=(is_visual, "N", bool))
        count = int(is_visual.sum())
        if images.ndim and len(images) == len(text):
            images = images[is_visual]
        if images.ndim == 0 or len(images) != count:
            raise ValueError(
                f"images, is_visual: expected one for each of {count} visual items, got {tuple(images.shape)}"
            )
        rows = self.null_embedding[None]
        if count:
            own = apply_network(self.image_tower, "V d", images=images)
            check_shapes(images=(own, "V d"), texts=(text, "N d"))
            rows = torch.cat([rows, own])
        # Row 0 is NULL, row 1 the first visual item's image.
        return tip_clip(rows[is_visual.cumsum(0) * is_visual], text, rows[0], is_visual, self.log_scale)

    def forward(self, images: Tensor, texts: Tensor, is_visual: Tensor) -> Tensor:
        """The loss."""
        return self.loss(images, texts, is_visual)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale within [1, 100]."""
        self.log_scale.clamp_(0, math.log(LARGEST_SCALE))

    @torch.no_grad()
    def score(self, texts: Tensor) -> Tensor:
        """``(N,)`` visualness of texts; no image is looked at except NULL."""
        return visualness(apply_network(self.text_tower, "N d", texts=texts), self.null_embedding)

    @torch.no_grad()
    def similarity(self, texts: Tensor, images: Tensor) -> Tensor:
        """``(texts, images)`` cosines, for retrieval."""
        text = apply_network(self.text_tower, "N d", texts=texts)
        image = apply_network(self.image_tower, "P d", images=images)
        check_shapes(texts=(text, "N d"), images=(image, "P d"))
        return cosine_similarity(text, image)
