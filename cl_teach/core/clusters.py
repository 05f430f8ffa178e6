"""Clusters of directions, and batches that hold one of them each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from .checks import check_batch, check_count, check_generator, check_labels, check_shapes
from .draws import draw_seed
from .similarity import normalize

__all__ = ["PureBatches", "cluster_directions", "pure_batches"]

RESTARTS = 3  # of k-means, of which the best is taken


def cluster_directions(
    features: Tensor, clusters: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """K-means on unit features.

    Args:
        features: ``(n, d)`` of the whole training set, without augmentation, any scale (normalized here).
        clusters: K, at most n.
        generator: of the start; another one may find other clusters.

    Returns:
        ``(n,)`` clusters and ``(K, d)`` centers.
    """
    check_shapes(features=(features, "n d"))
    check_count(clusters=clusters)
    check_batch(len(features), clusters, name="features", why=f"for clusters={clusters}")
    unit = normalize(features.detach().double()).cpu().numpy()
    found = KMeans(clusters, n_init=RESTARTS, random_state=draw_seed(generator)).fit(unit)
    labels = torch.from_numpy(found.labels_).long().to(features.device)
    return labels, torch.from_numpy(found.cluster_centers_).to(features)


class PureBatches(NamedTuple):
    """An epoch of batches that hold one label each.

    Attributes:
        rows: ``(m, B)`` which samples meet, no sample twice.
        labels: ``(m,)`` the label of each batch.
        dropped: ``(k,)`` samples that found no full batch.
    """

    rows: Tensor
    labels: Tensor
    dropped: Tensor


def pure_batches(labels: Tensor, batch_size: int, *, generator: torch.Generator | None = None) -> PureBatches:
    """Shuffle inside each label, cut into full batches, drop the rest, visit the labels in turn.

    Args:
        labels: ``(n,)`` combined labels.
        batch_size: B, at most the size of the largest group.
        generator: source of the order.

    Source: Zhang et al. (2024), released batch sampler, one process.
    """
    check_shapes(labels=(labels, "n", int))
    labels = check_labels(labels)
    check_count(batch_size=batch_size)
    check_generator(generator)
    where = labels.device if generator is None else generator.device
    shuffled = torch.randperm(len(labels), generator=generator, device=where).to(labels.device)
    sizes = labels.unique(return_counts=True)[1]
    groups = shuffled[labels[shuffled].argsort(stable=True)].split(sizes.tolist())  # increasing label order
    cut = [group[: len(group) // batch_size * batch_size].view(-1, batch_size) for group in groups]
    rounds = max(len(batches) for batches in cut)
    if rounds == 0:
        largest = max(len(group) for group in groups)
        raise ValueError(
            f"batch_size: expected at most {largest}, the size of the largest group of labels, got {batch_size}"
        )
    rows = torch.stack([batches[r] for r in range(rounds) for batches in cut if r < len(batches)])
    rest = torch.cat([group[batches.numel() :] for group, batches in zip(groups, cut, strict=True)])
    return PureBatches(rows, labels[rows[:, 0]], rest)
