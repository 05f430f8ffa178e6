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
least log K in that direction. The matching and masked-language-model losses of the full system are not part of this
file.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..core.checks import check_embeddings, check_positive, check_same_width
from ..core.contrast import softmax_contrast
from ..core.similarity import normalize, self_mask

__all__ = ["BothDirections", "mean_rank_variance", "one_to_k", "one_to_k_terms", "ranks"]


class BothDirections(NamedTuple):
    """The two directions, each a mean over the N K pairs.

    Attributes:
        image_to_text: scalar, at least log K.
        text_to_image: scalar.
    """

    image_to_text: Tensor
    text_to_image: Tensor


def one_to_k_terms(image: Tensor, text: Tensor, temperature: float | Tensor = 0.07) -> BothDirections:
    """Both directions of the loss; arguments and errors as in `one_to_k`."""
    check_embeddings(image=image, text=text)
    check_same_width(image=image, text=text)
    check_positive(temperature=temperature)
    if len(text) % len(image):
        raise ValueError(f"text: expected K rows for each of {len(image)} images, got {len(text)}")
    k = len(text) // len(image)
    logits = normalize(image) @ normalize(text).mT / temperature  # (N, N K)
    own = self_mask(len(image), image.device).repeat_interleave(k, dim=1)
    return BothDirections(softmax_contrast(logits, own), softmax_contrast(logits.mT, own.mT))


def one_to_k(image: Tensor, text: Tensor, temperature: float | Tensor = 0.07, *, released: bool = False) -> Tensor:
    """Contrast of every image with its captions in all languages.

    Args:
        image: ``(N, d)``, any scale (normalized here).
        text: ``(N K, d)``; rows i K to i K + K - 1 are the K languages of image i.
        temperature: greater than 0; the code keeps a learned one between 0.001 and 0.5.
        released: weigh the text-to-image direction by 1 / K, as the released code does.

    Returns:
        Scalar; with K = 1 the CLIP loss.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: Nie et al. (2024), released contrastive loss.
    """
    terms = one_to_k_terms(image, text, temperature)
    weight = len(image) / len(text) if released else 1.0
    return (terms.image_to_text + weight * terms.text_to_image) / 2


def ranks(similarity: Tensor) -> Tensor:
    """Where each query finds its own image: the number of images that are strictly more similar.

    Args:
        similarity: ``(N, K, N)``, entry (n, k, m) of the text of instance n in language k and image m.

    Returns:
        ``(N, K)`` integers, 0 is the best.

    Raises:
        TypeError: not a floating tensor.
        ValueError: wrong shape, NaN.
    """
    check_embeddings(ndim=3, similarity=similarity)
    n, _, m = similarity.shape
    if n != m:
        raise ValueError(f"similarity: expected shape (N, K, N), got {tuple(similarity.shape)}")
    own = similarity.diagonal(dim1=0, dim2=2).mT  # (N, K)
    return (similarity > own[..., None]).sum(-1)


def mean_rank_variance(similarity: Tensor) -> Tensor:
    """MRV: how much the rank of an instance varies between languages; the mean over instances, lower is better.

    Args:
        similarity: ``(N, K, N)``, see `ranks`.

    Returns:
        Scalar between 0 and (N - 1)^2 / 4.

    Raises:
        TypeError: not a floating tensor.
        ValueError: wrong shape, NaN.
    """
    return ranks(similarity).to(similarity.dtype).var(dim=1, correction=0).mean()
