"""Pseudo-labels where class sizes are unknown and uneven: estimate the sizes, keep what is rare or sure.

Source: Bai et al., Towards Distribution-Agnostic Generalized Category Discovery (2023), released code.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .checks import check_count, check_entries, check_generator, check_in_range, check_labels, check_shapes
from .precision import full_precision

__all__ = [
    "check_class_counts",
    "count_classes",
    "estimate_counts",
    "labels_where",
    "sampling_rates",
    "select_confident",
]


def estimate_counts(cluster_ids: Tensor, labels: Tensor, labeled: Tensor, num_classes: int, num_known: int) -> Tensor:
    """Class counts from cluster sizes: match clusters to known classes through labels, the rest is novel.

    Known classes get the sizes of their clusters, dealt anew by rank: the largest size to the class with most labels.

    Args:
        cluster_ids: ``(n,)`` in 0 .. num_classes - 1, from k-means on all training features.
        labels: ``(n,)`` classes, known ones first; read only where ``labeled``.
        labeled: ``(n,)`` boolean.
        num_classes: C.
        num_known: number of known classes, at most C.

    Returns:
        ``(C,)`` float64: known classes in their order, then novel sizes, largest first.

    Raises:
        ValueError: also for an empty cluster, or a known class without labels.

    Source: Bai et al. (2023), released distribution estimate.
    """
    check_count(num_classes=num_classes)
    check_count(1, num_classes, num_known=num_known)
    check_shapes(cluster_ids=(cluster_ids, "n", int), labels=(labels, "n", int), labeled=(labeled, "n", bool))
    clusters = check_labels(cluster_ids, name="cluster_ids", num_classes=num_classes)
    known_labels = labels_where(labels, labeled, num_known)[labeled]
    sizes = clusters.bincount(minlength=num_classes)
    hits = (clusters[labeled] * num_known + known_labels).bincount(minlength=num_classes * num_known)
    hits = hits.view(num_classes, num_known)
    if (sizes == 0).any():
        raise ValueError(f"cluster_ids: cluster {int((sizes == 0).nonzero()[0])} is empty; use fewer num_classes")
    if (hits.sum(0) == 0).any():
        alone = int((hits.sum(0) == 0).nonzero()[0])
        raise ValueError(f"labels, labeled: of num_known={num_known} classes, class {alone} has no labeled sample")
    share = hits / sizes[:, None]  # (C, known)
    matched, _ = linear_sum_assignment(share.cpu().numpy(), maximize=True)
    is_matched = torch.zeros(num_classes, dtype=torch.bool, device=sizes.device)
    is_matched[torch.from_numpy(matched)] = True
    by_labels = hits.sum(0).argsort(descending=True, stable=True)
    known = torch.empty(num_known, dtype=sizes.dtype, device=sizes.device)
    known[by_labels] = sizes[is_matched].sort(descending=True).values
    return torch.cat([known, sizes[~is_matched].sort(descending=True).values]).double()


@full_precision
def sampling_rates(class_counts: Tensor, labeled_classes: Tensor, *, alpha: float = 0.8, beta: float = 0.5) -> Tensor:
    r"""How likely a pseudo-labeled sample is kept, :math:`(\pi_c/\min\pi)^{-\alpha}`, or with beta if c has no labels.

    Args:
        class_counts: ``(C,)`` greater than 0, floating or integer.
        labeled_classes: ``(k,)`` classes with labeled samples in the batch; k may be 0.
        alpha: for these, at least 0.
        beta: for the other classes, at least 0.

    Returns:
        ``(C,)`` in [0, 1]; 1 for the rarest class.
    """
    counts = check_class_counts(class_counts)
    check_in_range(0, math.inf, alpha=alpha, beta=beta)
    labeled_classes = check_labels(labeled_classes, name="labeled_classes")
    check_labels(labeled_classes, name="class_counts, labeled_classes", num_classes=len(counts))
    exponent = torch.full_like(counts, beta)
    exponent[labeled_classes] = alpha
    return (-exponent * (counts.log() - counts.min().log())).exp()


@torch.no_grad()
@full_precision
def select_confident(probs: Tensor, rates: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Of the samples predicted as class c keep a Binomial(their number, rate of c), the most confident ones.

    Args:
        probs: ``(n, C)`` soft labels of samples without labels.
        rates: ``(C,)`` in [0, 1], from `sampling_rates`.
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(n,)`` boolean.
    """
    check_shapes(probs=(probs, "n c"), rates=(rates, "c"))
    check_entries(0, 1, rates=rates)
    check_generator(generator)
    confidence, predicted = probs.max(1)
    count = predicted.bincount(minlength=len(rates)).double().cpu()
    keep = torch.binomial(count, rates.double().cpu(), generator=generator).long().tolist()
    chosen = torch.zeros(len(probs), dtype=torch.bool, device=probs.device)
    for c, k in enumerate(keep):
        rows = (predicted == c).nonzero()[:, 0]
        chosen[rows[confidence[rows].argsort(descending=True, stable=True)[:k]]] = True
    return chosen


def check_class_counts(class_counts: Tensor) -> Tensor:
    """Check class counts ``(C,)``, floating or integer, above 0; returns them floating."""
    check_entries(0, math.inf, open_low=True, class_counts=class_counts)
    counts = class_counts if class_counts.is_floating_point() else class_counts.float()
    check_shapes(class_counts=(counts, "c"))
    return counts


def labels_where(labels: Tensor, labeled: Tensor, classes: int) -> Tensor:
    """Check labels ``(n,)`` that are known only where ``labeled (n,)``; returns int64, 0 where there is none."""
    check_shapes(labels=(labels, "n", int), labeled=(labeled, "n", bool))
    check_count(classes=classes)
    labels = labels.long().masked_fill(~labeled, 0)
    return check_labels(labels, name="labels, labeled", num_classes=classes)


def count_classes(labels: Tensor, *, name: str = "labels") -> Tensor:
    """Samples of each class ``(C,)``, for labels ``(n,)`` of which every class below the largest must occur."""
    check_shapes(**{name: (labels, "n", int)})
    labels = check_labels(labels, name=name)
    largest = int(labels.max())
    # With more classes than samples one is empty, and a table of all of them might not fit into memory.
    sizes = labels.bincount() if largest < len(labels) else torch.zeros(1)
    if (sizes == 0).any():
        found = set(labels.unique().tolist())
        missing = next(k for k in range(largest) if k not in found)
        raise ValueError(f"{name}: every class below the largest, {largest}, needs a sample, class {missing} has none")
    return sizes
