"""Directions, similarities and the masks that say who is compared with whom.

A contrastive loss is a table of similarities plus two masks: which entries are *positives* and which are
*candidates* (the terms of the denominator). Everything in this file makes one of those three.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .by_hand import gradient_by_hand
from .checks import (
    check_count,
    check_device,
    check_embeddings,
    check_floating,
    check_labels,
    check_same_device,
    check_shapes,
    check_type,
)
from .precision import HALF, full_precision

__all__ = ["cosine_similarity", "normalize", "other_view_mask", "same_label_mask", "self_mask"]

# Below this length a vector has no direction that can be trusted.
_SHORTEST = 1e-12
# The square of a longer entry leaves the range of float32.
_LARGE = 1e18


def normalize(x: Tensor, dim: int = -1) -> Tensor:
    r"""Scale vectors to length one: :math:`\hat x = x / \lVert x\rVert_2`.

    A zero vector has no direction. It stays zero, and its gradient passes through unscaled, so that training can move
    it away; dividing by a tiny constant instead would multiply that gradient by :math:`10^{12}`. Long vectors keep
    their direction: lengths are taken in at least float32, and entries whose square would overflow are scaled first.

    Args:
        x: floating tensor of any shape.
        dim: the dimension that holds the vectors.

    Returns:
        Tensor of the same shape and dtype.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    check_floating(x=x)
    check_type(int, dim=dim)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"x, dim: expected a tensor that has dimension {dim}, got shape {tuple(x.shape)}")
    if x.numel() == 0 or x.is_meta:
        check_embeddings(ndim=x.ndim, x=x)  # says which
    if gradient_by_hand():
        return _Direction.apply(x, dim)[0].to(x.dtype)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    if torch.compiler.is_compiling() or not math.isfinite(length.detach().sum()):
        factor = _factor(wide.detach(), dim)  # has no part in a direction, nor in its gradient
        wide = wide / factor
        length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    return (wide / length.masked_fill(length <= _SHORTEST, 1.0)).to(x.dtype)


def direction(x: Tensor, dim: int = -1, *, in_place: bool = False) -> tuple[Tensor, Tensor]:
    """Directions as `normalize` makes them, and lengths (1 for a zero vector): for gradients by hand, so without one.

    Args:
        x: floating, of any shape; half precision is computed in float32.
        dim: the dimension that holds the vectors.
        in_place: whether x may be overwritten.
    """
    x = x.detach().float() if x.dtype in HALF else x.detach()
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    shortest, longest = torch.aminmax(length)
    if _SHORTEST < shortest.item() and longest.item() < math.inf:
        return x.div_(length) if in_place else x / length, length
    factor = _factor(x, dim)
    unit = x / factor
    length = torch.linalg.vector_norm(unit, dim=dim, keepdim=True)
    unit /= length.masked_fill_(length <= _SHORTEST, 1.0)
    return unit, length * factor


def along_sphere(grad: Tensor, unit: Tensor, length: Tensor, dim: int = -1) -> Tensor:
    r"""Gradient of x from that of its direction u, :math:`(g - u\,u^\top g)/\lVert x\rVert`; overwrites ``grad``."""
    along = torch.linalg.vecdot(grad, unit, dim=dim).unsqueeze(dim)
    return grad.addcmul_(unit, along, value=-1).div_(length)


def _factor(x: Tensor, dim: int) -> Tensor:
    """What to divide vectors by, so that the squares of their entries stay in range: 1 for all but very long ones."""
    check_embeddings(ndim=x.ndim, x=x)  # NaN or infinity
    largest = x.abs().amax(dim, keepdim=True)
    return largest.where(largest > _LARGE, 1.0)


class _Direction(torch.autograd.Function):
    """Directions and lengths; autograd alone would take nine operations for the gradient and keep more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        unit, length = direction(x, dim)
        ctx.save_for_backward(unit, length)  # both are results, so that the gradient can be differentiated again
        ctx.dim, ctx.dtype = dim, x.dtype
        ctx.set_materialize_grads(False)
        return unit, length

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_length: Tensor | None) -> tuple[Tensor | None, None]:
        unit, length = ctx.saved_tensors
        found = None
        if grad is not None:
            along = torch.linalg.vecdot(grad, unit, dim=ctx.dim).unsqueeze(ctx.dim)
            found = torch.addcmul(grad, unit, along, value=-1) / length
        if grad_length is not None:
            found = unit * grad_length if found is None else torch.addcmul(found, unit, grad_length)
        return None if found is None else found.to(ctx.dtype), None


@full_precision
def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""All pairwise cosines :math:`s_{ij} = \hat a_i^\top \hat b_j` in one matrix product.

    Args:
        a: ``(n, d)`` floating.
        b: ``(m, d)`` floating.

    Returns:
        ``(n, m)`` similarities in [-1, 1].

    """
    check_shapes(a=(a, "n d"), b=(b, "m d"))
    return normalize(a) @ normalize(b).mT


def self_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """``(n, n)`` boolean, true where a row meets itself."""
    check_count(n=n)
    check_device(device)
    return torch.eye(n, dtype=torch.bool, device=device)


def other_view_mask(n: int, device: torch.device | str | None = None) -> Tensor:
    """``(2n, 2n)`` boolean for two stacked views: true where row ``i`` meets the other view of the same sample."""
    check_count(n=n)
    return self_mask(2 * n, device).roll(n, dims=1)


def same_label_mask(a: Tensor, b: Tensor | None = None) -> Tensor:
    """``(n, m)`` boolean, true where ``a[i] == b[j]``; ``b`` defaults to ``a``.

    Args:
        a: ``(n,)`` integer labels.
        b: ``(m,)`` integer labels, or None.
    """
    a = check_labels(a, name="a")
    b = a if b is None else check_labels(b, name="b")
    check_same_device(a=a, b=b)
    return a[:, None] == b
