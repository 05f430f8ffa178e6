r"""Improving the Consistency in Cross-Lingual Cross-Modal Retrieval with 1-to-K Contrastive Learning. Zhijie Nie,
Richong Zhang, Zhangchi Feng, Hailang Huang, Xudong Liu; KDD 2024; https://arxiv.org/abs/2406.18254.

N images, each with captions in K languages, all of them in the batch, all of them positives of their image:

.. math::
    L_{i2t} = -\frac1{NK}\sum_{i,k}\log\frac{e^{\langle v_i,t_{ik}\rangle/\tau}}{\sum_{j,l}e^{\langle
    v_i,t_{jl}\rangle/\tau}}, \qquad L_{t2i} = -\frac1{NK}\sum_{i,k}\log\frac{e^{\langle
    v_i,t_{ik}\rangle/\tau}}{\sum_{j}e^{\langle v_j,t_{ik}\rangle/\tau}}, \qquad L = \tfrac12(L_{i2t} + L_{t2i}) .

What changes and why: with one random language a step, each update pulls an image toward that language only, and the
ranks of one image differ between languages, which recall hides. `mean_rank_variance` makes the inconsistency visible.

Paper versus code. (1) The released code divides by K once more than its text says, so its text-to-image direction is
K times weaker; ``released=True`` gives that form, the default is the balanced one. (2) The metric is not in the
repository; ranks are counted from 0 and the variance over languages has denominator K. (3) Caption rows are
image-major, i K + k. (4) An image's other captions stay in its denominator and compete; the loss is therefore at
least log K in that direction. (5) The temperature is learned and kept within [0.001, 0.5] after each step. The matching
and masked-language-model losses of the full system are not part of this file.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_choice, check_flag, check_module, check_shapes, check_type
from ..core.contrast import check_temperature, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, normalize, self_mask
from ..core.tiles import tiled_contrast, use_tiles
from ..models.apply import apply_network

__all__ = ["BothDirections", "OneToK", "mean_rank_variance", "one_to_k", "one_to_k_terms", "ranks"]

COLDEST, WARMEST = 0.001, 0.5  # the bounds of the learned temperature in the released code


class BothDirections(NamedTuple):
    """The loss and its two directions.

    Attributes:
        loss: their mean, in the form that was asked for.
        image_to_text: scalar, softmax over all texts, at least log K.
        text_to_image: scalar, softmax over images.
    """

    loss: Tensor
    image_to_text: Tensor
    text_to_image: Tensor


@full_precision
def one_to_k_terms(
    image: Tensor, text: Tensor, temperature: float | Tensor = 0.07, *, released: bool = False
) -> BothDirections:
    """Both directions of the loss, and their mean; arguments as in `one_to_k`."""
    check_shapes(image=(image, "N d"), text=(text, "NK d"))
    check_temperature(temperature)
    check_flag(released=released)
    if len(text) % len(image):
        raise ValueError(f"image, text: expected K rows of text for each of {len(image)} images, got {len(text)}")
    n, k = len(image), len(text) // len(image)
    q, t = normalize(image), normalize(text)
    if use_tiles(temperature):  # the same numbers without the table
        log_sums = tiled_contrast(image, text, 1 / temperature)  # (N + N K,)
        own = (q[:, None] * t.unflatten(0, (n, k))).sum(2) / temperature  # (N, K)
        to_text, to_image = (log_sums[:n] - own.mean(1)).mean(), (log_sums[n:] - own.flatten()).mean()
    else:
        logits = q @ t.mT / temperature  # (N, N K)
        positives = self_mask(n, image.device).repeat_interleave(k, dim=1)
        to_text, to_image = softmax_contrast(logits, positives), softmax_contrast(logits.mT, positives.mT)
    return BothDirections((to_text + (1 / k if released else 1.0) * to_image) / 2, to_text, to_image)


def one_to_k(image: Tensor, text: Tensor, temperature: float | Tensor = 0.07, *, released: bool = False) -> Tensor:
    """Contrast of every image with its captions in all languages.

    Args:
        image: ``(N, d)``, any scale (normalized here).
        text: ``(N K, d)``; rows i K to i K + K - 1 are the K languages of image i.
        temperature: greater than 0.
        released: weigh the text-to-image direction by 1 / K, as the released code does.

    Returns:
        Scalar; with K = 1 the CLIP loss.

    Source: Nie et al. (2024), released contrastive loss.

    Example:
        >>> image, text = torch.eye(2), torch.eye(2).repeat_interleave(3, 0)  # three languages that agree
        >>> terms = one_to_k_terms(image, text, 0.01)
        >>> round(terms.image_to_text.exp().item(), 3), round(terms.text_to_image.exp().item(), 3)
        (3.0, 1.0)
    """
    return one_to_k_terms(image, text, temperature, released=released).loss


@full_precision
def ranks(similarity: Tensor, direction: str = "text_to_image") -> Tensor:
    """Where each query finds its own partner: the number of others that are strictly more similar.

    Args:
        similarity: ``(N, K, N)``, entry (n, k, m) of the text of instance n in language k and image m.
        direction: ``"text_to_image"``: each text among the images. ``"image_to_text"``: each image among the texts of
            one language.

    Returns:
        ``(N, K)`` integers, 0 is the best.
    """
    check_shapes(similarity=(similarity, "N K N"))
    check_choice(("text_to_image", "image_to_text"), direction=direction)
    if direction == "image_to_text":
        similarity = similarity.transpose(0, 2)  # (image, language, text)
    own = similarity.diagonal(dim1=0, dim2=2).mT  # (N, K)
    return (similarity > own[..., None]).sum(-1)


@full_precision
def mean_rank_variance(similarity: Tensor, direction: str = "text_to_image") -> Tensor:
    """MRV: how much the rank of an instance varies between languages; the mean over instances, lower is better.

    Args:
        similarity: ``(N, K, N)``, see `ranks`.
        direction: see `ranks`.

    Returns:
        Scalar between 0 and (N - 1)^2 / 4.
    """
    return ranks(similarity, direction).to(similarity.dtype).var(dim=1, correction=0).mean()


class OneToK(nn.Module):
    """Two towers and the learned temperature, which `after_step` keeps within [0.001, 0.5]."""

    def __init__(
        self, image_tower: nn.Module, text_tower: nn.Module, temperature: float = 0.07, *, released: bool = False
    ) -> None:
        """Take both towers.

        Args:
            image_tower: images to embeddings ``(n, d)``.
            text_tower: texts of any language to embeddings ``(n, d)``.
            temperature: its first value.
            released: see `one_to_k`.
        """
        super().__init__()
        check_module(image_tower=image_tower, text_tower=text_tower)
        check_temperature(temperature)
        check_flag(released=released)
        self.image_tower, self.text_tower, self.released = image_tower, text_tower, released
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    def loss(self, images: Tensor, texts: Tensor) -> BothDirections:
        """The terms of a batch: N images and their texts in K languages, ``(N, K, ...)``."""
        image, text = self._embed(images, texts)
        check_shapes(images=(image, "N d"), texts=(text, "N K d"))
        return one_to_k_terms(image, text.flatten(0, 1), self.temperature, released=self.released)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """``(n, K, m)`` cosines of n texts in K languages, ``(n, K, ...)``, with m images; see `ranks`."""
        image, text = self._embed(images, texts)
        return cosine_similarity(text.flatten(0, 1), image).unflatten(0, text.shape[:2])

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature within the bounds of the released code."""
        self.temperature.clamp_(COLDEST, WARMEST)

    def _embed(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        check_type(Tensor, texts=texts)
        if texts.ndim < 2 or texts.numel() == 0:
            raise ValueError(f"texts: expected shape (N, K, ...), not empty, got {tuple(texts.shape)}")
        image = apply_network(self.image_tower, "m d", images=images)
        text = apply_network(self.text_tower, "nK d", texts=texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
        check_shapes(images=(image, "m d"), texts=(text, "n K d"))
        return image, text
