"""Tell foreground from background by one direction of patch tokens, and the smallest encoder that gives such tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_batch, check_count, check_in_range, check_shapes, check_type
from ..core.precision import full_precision

__all__ = [
    "Foreground",
    "fit_foreground",
    "foreground_ratio",
    "patch_tokens",
    "principal_direction",
    "project",
]


def patch_tokens(images: Tensor, patch: int = 4) -> Tensor:
    """The smallest patch encoder: ``(n, c, h, w)`` images to ``(n, P, c * patch**2)`` pixels, row by row."""
    check_shapes(images=(images, "n c h w"))
    check_count(1, min(images.shape[2:]), patch=patch)
    if images.shape[2] % patch or images.shape[3] % patch:
        raise ValueError(f"images: expected sides divisible by patch={patch}, got {tuple(images.shape[2:])}")
    return nn.functional.unfold(images, patch, stride=patch).mT


@full_precision
def principal_direction(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """First principal direction ``(D,)`` of ``(n, D)`` tokens, its largest entry positive, and their mean ``(D,)``."""
    check_shapes(tokens=(tokens, "n d"))
    check_batch(len(tokens), 2, name="tokens", why="to vary")
    mean = tokens.mean(0)
    centered = tokens - mean
    largest = centered.abs().amax()
    centered = centered / torch.where(largest > 0, largest, 1.0)  # squares of any numbers then stay in range
    direction = torch.linalg.eigh(centered.mT @ centered).eigenvectors[:, -1]  # eigenvalues ascend
    return direction * direction[direction.abs().argmax()].sign(), mean


@full_precision
def project(tokens: Tensor, direction: Tensor) -> Tensor:
    """Projections ``(...)`` of ``(..., D)`` tokens, uncentered, on a ``(D,)`` direction."""
    check_shapes(tokens=(tokens, "... d"), direction=(direction, "d"))
    result = tokens @ direction
    if not torch.compiler.is_compiling() and not torch.isfinite(result).all():
        raise ValueError("tokens, direction: their products leave the range of the dtype")
    return result


class Foreground(NamedTuple):
    """What tells foreground: the direction ``(D,)`` and the threshold of a projection on it, a scalar."""

    direction: Tensor
    threshold: Tensor


@full_precision
def fit_foreground(tokens: Tensor, background: Tensor, share: float = 0.35) -> Foreground:
    """Fit direction and threshold on the tokens of many images; the sign of the direction comes from ``background``.

    Args:
        tokens: ``(n, P, D)``.
        background: ``(P,)`` boolean, places that show mostly background (the border of a picture).
        share: of all tokens that are to be foreground.
    """
    check_shapes(tokens=(tokens, "n p d"), background=(background, "p", bool))
    check_in_range(0, 1, share=share)
    if background.all() or not background.any():
        raise ValueError("background: expected some places that are true and some that are not")
    direction, _ = principal_direction(tokens.flatten(0, 1))
    projections = project(tokens, direction)  # (n, P)
    if projections[:, background].mean() > projections[:, ~background].mean():
        direction, projections = -direction, -projections
    return Foreground(direction, projections.flatten().quantile(1 - share))


@full_precision
def foreground_ratio(tokens: Tensor, foreground: Foreground) -> Tensor:
    """Share ``(n,)`` of an image's patches, ``(n, P, D)`` tokens, whose projection exceeds the threshold."""
    check_type(Foreground, foreground=foreground)
    direction, threshold = foreground
    check_shapes(
        tokens=(tokens, "n p d"),
        **{"foreground.direction": (direction, "d"), "foreground.threshold": (threshold, "")},
    )
    return (project(tokens, direction) > threshold).to(tokens.dtype).mean(1)
