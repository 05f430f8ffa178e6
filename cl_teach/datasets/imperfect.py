"""Labeled sets as they come in practice: a few frequent classes and many rare ones, and labels that are wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import check_in_range, check_labels
from .common import ImageSet

__all__ = ["long_tailed", "noisy_labels"]


def long_tailed(data: ImageSet, imbalance: float = 50.0, *, seed: int = 0) -> ImageSet:
    r"""Thin the classes out geometrically: class c of C keeps :math:`n_{\max}\,r^{-c/(C-1)}` of its images.

    Args:
        data: a labeled set; every class has at least one image. Class 0 keeps as many images as the smallest class has.
        imbalance: r, frequency of class 0 over frequency of the last class, at least 1.
        seed: which images stay.

    Returns:
        The images that stay, in their old order, at least one a class.

    Raises:
        ValueError: ``imbalance`` below 1, or a class without images.

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples (2019), section 4.1: the usual way to make
        a long-tailed version of a balanced set.
    """
    check_in_range(1.0, float("inf"), imbalance=imbalance)
    classes = len(data.classes)
    sizes = torch.bincount(data.labels, minlength=classes)
    if (sizes == 0).any():
        raise ValueError(f"data: class {int(sizes.argmin())} has no images; every class needs at least one")
    share = torch.linspace(0, 1, classes, dtype=torch.float64)
    keep = (int(sizes.min()) * float(imbalance) ** -share).round().clamp(min=1).long()
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(seed))
    labels = data.labels.cpu()
    chosen = [order[labels[order] == c][: int(keep[c])] for c in range(classes)]
    rows = torch.cat(chosen).sort().values.to(data.labels.device)
    return ImageSet(data.images[rows], data.labels[rows], data.classes)


def noisy_labels(labels: Tensor, num_classes: int, rate: float, *, seed: int = 0) -> Tensor:
    """Replace a share of the labels by a different class, drawn evenly (symmetric noise).

    Args:
        labels: ``(n,)`` integers in 0 .. num_classes - 1.
        num_classes: at least 2.
        rate: share of wrong labels, 0 to 1; exactly ``round(rate * n)`` labels become wrong.
        seed: which ones, and what they become.

    Returns:
        ``(n,)`` labels, the originals untouched.

    Raises:
        TypeError, ValueError: not integer labels in range, fewer than two classes, ``rate`` outside [0, 1].
    """
    check_in_range(0.0, 1.0, rate=rate)
    check_in_range(2, float("inf"), num_classes=num_classes)
    check_labels(labels, len(labels), num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    # A step of 1 .. C - 1 around the circle of classes never ends where it began.
    steps = torch.randint(1, num_classes, (len(rows),), generator=generator)
    rows, steps = rows.to(labels.device), steps.to(labels.device)
    wrong = labels.clone()
    wrong[rows] = (labels[rows] + steps) % num_classes
    return wrong
