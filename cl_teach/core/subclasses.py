r"""Large classes cut into subclasses about as large as a small class.

With M the size of the smallest class, or the smallest size :math:`\delta` that makes sense, a class of n samples gets
about n / M subclasses. Plain k-means does not care how large they are; here a cluster can have a limit: rows are
assigned to centers, most similar pair first, while there is room.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans, kmeans_plusplus
from torch import Tensor

from .checks import check_choice, check_count, check_generator, check_labels, check_shapes
from .draws import draw_seed
from .precision import full_precision
from .pseudo_labels import count_classes
from .similarity import normalize

__all__ = ["LimitedClusters", "fill_evenly", "size_limited_clusters", "split_classes", "subclass_counts"]

CLUSTERINGS = ("size_limited", "kmeans", "even")
# Settings of k-means in the released code of SBCL.
KMEANS = {"n_init": 1, "max_iter": 35, "tol": 1e-3}


class LimitedClusters(NamedTuple):
    """``assignment (n,)``, ``sizes (k,)``, and the ``centers (k, d)`` of the last pass."""

    assignment: Tensor
    sizes: Tensor
    centers: Tensor


@torch.no_grad()
@full_precision
def size_limited_clusters(z: Tensor, centers: Tensor, max_size: int, *, updates: int = 0) -> LimitedClusters:
    """Repeatedly take the most similar pair of a free row and an open center; a center with ``max_size`` rows closes.

    With as much room as rows, a pass assigns every row to its nearest center.

    Args:
        z: ``(n, d)``, any scale (normalized here).
        centers: ``(k, d)`` to start with, any scale.
        max_size: largest size of a cluster; k times it must hold all rows.
        updates: how often the centers become the means of their (unit) rows and all is assigned anew. An empty cluster
            keeps its center.

    Source: Hou et al., Subclass-balancing Contrastive Learning for Long-tailed Recognition (2023), algorithm 1.

    Example:
        >>> row = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])  # all are nearest to the first center
        >>> size_limited_clusters(row, torch.eye(2), max_size=2).assignment.tolist()
        [0, 0, 1]
    """
    check_shapes(z=(z, "n d"), centers=(centers, "k d"))
    check_count(max_size=max_size)
    check_count(0, updates=updates)
    if len(centers) * max_size < len(z):
        raise ValueError(f"max_size: {len(centers)} centers of at most {max_size} rows cannot hold {len(z)} rows")
    z, room = normalize(z), np.full(len(centers), max_size)

    def assign() -> Tensor:
        similarity = (z @ normalize(centers).mT).double().cpu().numpy()  # (n, k)
        return torch.from_numpy(_fill(similarity, room.copy(), np.full(len(z), -1))).to(z.device)

    assignment = assign()
    for _ in range(updates):
        sizes = assignment.bincount(minlength=len(centers))[:, None]
        means = torch.zeros_like(centers).index_add(0, assignment, z) / sizes.clamp_min(1)
        centers = torch.where(sizes > 0, means, centers)
        assignment = assign()
    return LimitedClusters(assignment, assignment.bincount(minlength=len(centers)), centers)


@torch.no_grad()
@full_precision
def fill_evenly(similarity: Tensor) -> Tensor:
    """Assign the rows of ``(n, k)`` to columns, best similarity first, so that column sizes differ by at most one.

    Source: the balanced option of the released code of Hou et al. (2023).
    """
    check_shapes(similarity=(similarity, "n k"))
    table = similarity.double().cpu().numpy()
    n, k = table.shape
    assigned = _fill(table, np.full(k, n // k), np.full(n, -1))  # up to the floor, then at most one more each
    return torch.from_numpy(_fill(table, np.ones(k, dtype=int), assigned)).to(similarity.device)


def subclass_counts(class_counts: Tensor, min_size: int = 10, *, clustering: str = "size_limited") -> Tensor:
    r"""How many subclasses each class gets, from :math:`M = \max(\min n, \delta)`.

    Args:
        class_counts: ``(C,)`` training samples of each class, at least 1.
        min_size: :math:`\delta`, the smallest size of a subclass.
        clustering: ``"size_limited"`` for :math:`\lceil n_c / M\rceil`; ``"kmeans"`` or ``"even"`` for the release's
            :math:`\max(1, \lfloor n_c / M\rfloor)`.

    Returns:
        ``(C,)`` integers.
    """
    counts = check_labels(class_counts, name="class_counts")
    check_count(min_size=min_size)
    check_choice(CLUSTERINGS, clustering=clustering)
    if len(counts) == 0 or not counts.all():
        raise ValueError(f"class_counts: expected a sample in every class, got {class_counts.tolist()}")
    limit = max(int(counts.min()), min_size)
    return (counts + limit - 1) // limit if clustering == "size_limited" else (counts // limit).clamp_min(1)


def split_classes(
    features: Tensor,
    labels: Tensor,
    *,
    min_size: int = 10,
    clustering: str = "size_limited",
    updates: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut every class into its `subclass_counts` on unit features.

    Args:
        features: ``(n, d)`` features of the whole training set.
        labels: ``(n,)`` classes, each with a sample.
        min_size: smallest size of a subclass.
        clustering: ``"size_limited"`` (the smallest class, or ``min_size``, is the limit), ``"kmeans"``, or ``"even"``:
            centers of k-means, filled so that sizes differ by at most 1.
        updates: of the centers of ``"size_limited"``.
        generator: of the centers to start with.

    Returns:
        ``(n,)`` subclass ids, numbered through over all classes.
    """
    check_shapes(features=(features, "n d"), labels=(labels, "n", int))
    labels = check_labels(labels).cpu()
    sizes = count_classes(labels)
    counts = subclass_counts(sizes, min_size, clustering=clustering)
    check_count(0, updates=updates)
    check_generator(generator)
    z, limit = normalize(features.detach().cpu().double()), max(int(sizes.min()), min_size)
    subclasses, used = torch.zeros_like(labels), 0
    for c, k in enumerate(counts.tolist()):
        rows = (labels == c).nonzero()[:, 0]
        if k > 1:
            seed, mine = draw_seed(generator), z[rows]
            if clustering == "size_limited":  # k-means++: centers that lie far from one another
                start = torch.from_numpy(kmeans_plusplus(mine.numpy(), k, random_state=seed)[0])
                assigned = size_limited_clusters(mine, start, limit, updates=updates).assignment
            else:
                found = KMeans(k, **KMEANS, random_state=seed).fit(mine.numpy())
                centers = torch.from_numpy(found.cluster_centers_)
                assigned = fill_evenly(mine @ centers.mT) if clustering == "even" else torch.from_numpy(found.labels_)
            subclasses[rows] = used + assigned.long()
        else:
            subclasses[rows] = used
        used += k
    return subclasses.to(features.device)


def _fill(similarity: np.ndarray, room: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """Give free rows (-1) to columns with room, in falling order of similarity."""
    left, free = int(room.sum()), int((assigned < 0).sum())
    for pair in np.argsort(-similarity, axis=None, kind="stable"):
        row, column = divmod(int(pair), similarity.shape[1])
        if not left or not free:
            break
        if assigned[row] < 0 and room[column] > 0:
            assigned[row], room[column] = column, room[column] - 1
            left, free = left - 1, free - 1
    return assigned
