r"""CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss. Rakshith Sharma Srinivasa, Jaejin Cho,
Chouchang Yang, Yashas Malur Saidutta, Ching-Hua Lee, Yilin Shen, Hongxia Jin; NeurIPS 2023;
https://arxiv.org/abs/2309.14580.

One tower is frozen and good (unit embeddings q), the other is trained (unit embeddings p), with scale :math:`s =
1/\tau`:

.. math::
    w_{ij} &= \tfrac12\langle q_i,q_j\rangle + \tfrac12 \in [0,1], \\ L &= -\frac1N\sum_i \frac1{\sum_j w_{ij}}\sum_j
    w_{ij}\log\frac{e^{s\langle q_i,p_j\rangle}}{\sum_k e^{s\langle q_i,p_k\rangle}}
        \;-\; \frac1N\sum_i\log\frac{e^{s\langle p_i,q_i\rangle}}{\sum_k e^{s\langle p_i,q_k\rangle}} .

What changes and why: CLIP calls exactly one item of the batch positive although others can be nearly as similar. Here
the frozen tower says how similar two samples are, and an anchor of the frozen side has every sample as a positive to
that degree. The other direction stays as it is: in the modality that is being trained there is no similarity to trust
yet.

Paper versus code. No author code was found; the equations follow a paper that adopts the loss and publishes code for
it. (1) The two directions are added, without the factor 1/2 of CLIP. (2) The diagonal stays in the weights, the
weights are constants. (3) Unrelated samples have a weight near 1/2, so the targets are nearly uniform and the best
logits of a row span less than one unit; the learned scale falls accordingly, which is not a bug.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_embeddings, check_in_range, check_same_length, check_same_shape
from ..core.similarity import cosine_similarity, normalize

__all__ = ["WeightedTerms", "cwcl", "cwcl_terms", "intra_modal_weights"]


class WeightedTerms(NamedTuple):
    """The two directions of the loss.

    Attributes:
        weighted: scalar, frozen anchors with soft targets.
        plain: scalar, trained anchors with their own partner.
    """

    weighted: Tensor
    plain: Tensor


@torch.no_grad()
def intra_modal_weights(features: Tensor) -> Tensor:
    """How positive each sample is for each other one, by the frozen tower: cosine / 2 + 1/2.

    Args:
        features: ``(N, f)`` frozen features, any scale.

    Returns:
        ``(N, N)`` in [0, 1], 1 on the diagonal, without gradient.

    Raises:
        TypeError: not a floating tensor.
        ValueError: not two-dimensional, NaN.
    """
    return (cosine_similarity(features, features) / 2 + 0.5).clamp(0, 1)


def cwcl_terms(
    trained: Tensor, frozen: Tensor, log_scale: float | Tensor, weights: Tensor | None = None
) -> WeightedTerms:
    """Both directions of the loss; arguments and errors as in `cwcl`."""
    check_embeddings(trained=trained, frozen=frozen)
    check_same_shape(trained=trained, frozen=frozen)
    log_scale = torch.as_tensor(log_scale, dtype=trained.dtype, device=trained.device)
    check_embeddings(ndim=0, log_scale=log_scale)
    weights = intra_modal_weights(frozen) if weights is None else weights.detach()
    check_same_length(frozen=frozen, weights=weights)
    if weights.shape != (len(frozen), len(frozen)):
        raise ValueError(f"weights: expected shape {(len(frozen),) * 2}, got {tuple(weights.shape)}")
    check_in_range(0, 1, weights=weights)
    if not torch.compiler.is_compiling() and (weights.sum(1) == 0).any():
        raise ValueError("weights: every row needs a positive entry, the diagonal at least")
    logits = log_scale.exp() * normalize(frozen.detach()) @ normalize(trained).mT  # (N, N), frozen anchors in rows
    targets = (weights / weights.sum(1, keepdim=True)).to(logits)
    weighted = -(targets * logits.log_softmax(1)).sum(1).mean()
    plain = -logits.mT.log_softmax(1).diagonal().mean()
    return WeightedTerms(weighted, plain)


def cwcl(trained: Tensor, frozen: Tensor, log_scale: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """Continuously weighted contrast of a trained tower against a frozen one.

    Args:
        trained: ``(N, d)`` outputs of the trained tower, any scale (normalized here).
        frozen: ``(N, d)`` outputs of the frozen tower, row i belongs to row i; constants here.
        log_scale: logarithm of 1 / temperature, a number or a 0-d tensor.
        weights: ``(N, N)`` degrees of similarity in [0, 1], e.g. `intra_modal_weights` of other frozen features; None
            takes them from ``frozen``. The identity gives LiT, twice the CLIP loss.

    Returns:
        Scalar; 0 for a single pair.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, weights out of range.

    Source: Srinivasa et al. (2023).
    """
    terms = cwcl_terms(trained, frozen, log_scale, weights)
    return terms.weighted + terms.plain
