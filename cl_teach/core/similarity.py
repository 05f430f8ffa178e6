"""Directions, similarities and the masks that say who is compared with whom.

A contrastive loss is a table of similarities plus two masks: which entries are *positives* and which are
*candidates* (the terms of the denominator). Everything in this file makes one of those three.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_embeddings, check_same_width

__all__ = ["cosine_similarity", "normalize", "other_view_mask", "same_label_mask", "self_mask"]

# Below this length a vector has no direction that can be trusted.
_SHORTEST = 1e-12


def normalize(x: Tensor, dim: int = -1) -> Tensor:
    r"""Scale vectors to length one: :math:`\hat x = x / \lVert x\rVert_2`.

    A zero vector has no direction. It stays zero, and its gradient passes through unscaled, so that training can move
    it away; dividing by a tiny constant instead would multiply that gradient by :math:`10^{12}`.

    Args:
        x: floating tensor of any shape.
        dim: the dimension that holds the vectors.

    Returns:
        Tensor of the same shape.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / length.masked_fill(length <= _SHORTEST, 1.0)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""All pairwise cosines :math:`s_{ij} = \hat a_i^\top \hat b_j` in one matrix product.

    Args:
        a: ``(n, d)`` floating.
        b: ``(m, d)`` floating.

    Returns:
        ``(n, m)`` similarities in [-1, 1].

    Raises:
        TypeError: not floating tensors.
        ValueError: not two-dimensional, empty, not finite, or of different width.
    """
    check_embeddings(a=a, b=b)
    check_same_width(a=a, b=b)
    return normalize(a) @ normalize(b).mT


def self_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """``(n, n)`` boolean, true where a row meets itself."""
    return torch.eye(n, dtype=torch.bool, device=device)


def other_view_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """``(2n, 2n)`` boolean for two stacked views: true where row ``i`` meets the other view of the same sample."""
    return self_mask(2 * n, device).roll(n, dims=1)


def same_label_mask(a: Tensor, b: Tensor | None = None) -> Tensor:
    """``(n, m)`` boolean, true where ``a[i] == b[j]``; ``b`` defaults to ``a``.

    Args:
        a: ``(n,)`` integer labels.
        b: ``(m,)`` integer labels, or None.
    """
    return a[:, None] == (a if b is None else b)[None, :]
