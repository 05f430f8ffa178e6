"""What a representation says about labels that are uneven, unknown or numbers: five readings.

Clusters are matched to classes before they are counted right, means are split by how often a label was seen, and the
order of numbers is compared with distances; numbers are read by a linear map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .core.checks import check_batch, check_count, check_entries, check_labels, check_positive, check_shapes
from .core.precision import full_precision
from .core.similarity import normalize

__all__ = [
    "ShotMeans",
    "by_shot",
    "explained_variance",
    "match_clusters",
    "matched_accuracy",
    "mutual_information",
    "order_correlation",
]

WORST = -1e30  # of an explained variance, which has no lower end
LARGEST_NAME = 10_000  # tables have a row for every cluster and a column for every class


def match_clusters(clusters: Tensor, labels: Tensor) -> Tensor:
    """Give every cluster at most one class and every class at most one cluster, so that most samples agree.

    Args:
        clusters: ``(n,)`` integers from 0.
        labels: ``(n,)`` classes.

    Returns:
        ``(K,)`` the class of each cluster below the largest; -1 for one that is left over.

    Source: Kuhn, The Hungarian Method for the Assignment Problem (1955), by scipy.

    Example:
        >>> match_clusters(torch.tensor([2, 2, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 1])).tolist()
        [1, -1, 0]
    """
    clusters, labels = _two_names(clusters=clusters, labels=labels)
    table = torch.zeros(int(clusters.max()) + 1, int(labels.max()) + 1)
    table.index_put_((clusters, labels), torch.ones(len(labels)), accumulate=True)
    row, column = linear_sum_assignment(table.numpy(), maximize=True)
    match = torch.full((len(table),), -1)
    match[torch.from_numpy(row)] = torch.from_numpy(column)
    return match


def matched_accuracy(clusters: Tensor, labels: Tensor) -> Tensor:
    """Accuracy of each class once clusters are matched to classes, ``(C,)`` float32.

    The mean of it does not care how frequent a class is. Every class below the largest must occur.

    Args:
        clusters: ``(n,)`` integers from 0.
        labels: ``(n,)`` classes.
    """
    match = match_clusters(clusters, labels)
    clusters, labels = _two_names(clusters=clusters, labels=labels)
    sizes = labels.bincount()
    if (sizes == 0).any():
        raise ValueError(f"labels: every class below the largest needs a sample, class {int(sizes.argmin())} has none")
    right = (match[clusters] == labels).float()
    return torch.zeros(len(sizes)).index_add(0, labels, right) / sizes


def mutual_information(clusters: Tensor, labels: Tensor) -> float:
    """Mutual information of two namings, divided by the mean of their entropies (NMI).

    Args:
        clusters: ``(n,)`` integers.
        labels: ``(n,)`` integers.

    Returns:
        0 if one says nothing about the other, 1 if they differ in names only.

    Example:
        >>> round(mutual_information(torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 2, 2])), 6)
        1.0
    """
    from sklearn.metrics import normalized_mutual_info_score  # takes a second, and only this function needs it

    clusters, labels = _two_names(clusters=clusters, labels=labels)
    return float(normalized_mutual_info_score(labels.numpy(), clusters.numpy()))


class ShotMeans(NamedTuple):
    """Means over all rows and over those whose label was seen often, sometimes, seldom; None where there is no row."""

    overall: float
    many: float | None
    medium: float | None
    few: float | None


def by_shot(values: Tensor, counts: Tensor, *, few: int = 20, many: int = 100) -> ShotMeans:
    """Split the mean of test values (right or wrong, absolute errors) by how often each label was seen in training.

    Args:
        values: ``(n,)`` floating, one a test row.
        counts: ``(n,)`` integers, training samples with this row's label.
        few: labels with fewer samples are few-shot.
        many: labels with more samples are many-shot, at least ``few``.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World (2019).

    Example:
        >>> by_shot(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([500, 50, 5]))
        ShotMeans(overall=3.0, many=1.0, medium=2.0, few=6.0)
    """
    check_shapes(values=(values, "n"), counts=(counts, "n", int))
    counts = check_labels(counts, name="counts").to(values.device)
    check_count(few=few, many=many)
    if many < few:
        raise ValueError(f"many: needs at least few={few}, got {many}")
    low, high = counts < few, counts > many

    def mean(chosen: Tensor) -> float | None:
        return float(values[chosen].double().mean()) if chosen.any() else None

    return ShotMeans(float(values.double().mean()), mean(high), mean(~(low | high)), mean(low))


@full_precision
def order_correlation(features: Tensor, labels: Tensor) -> Tensor:
    """Spearman's correlation, over pairs of rows, of cosine distance and distance of labels.

    1 if rows that are farther apart in label are always farther apart in direction. Ties share their mean rank.

    Args:
        features: ``(n, d)``, at least 3 rows, any scale (normalized here).
        labels: ``(n,)`` numbers, not all equal.

    Returns:
        0-d tensor in [-1, 1]; 0 if all directions are equal. It has no gradient.

    Example:
        >>> angles = torch.arange(5) * 0.25
        >>> round(float(order_correlation(torch.stack([angles.cos(), angles.sin()], 1), angles)), 3)
        1.0
    """
    check_shapes(features=(features, "n d"), labels=(labels, "n"))
    check_batch(len(features), 3, name="features", why="for two pairs to compare")
    check_entries(-1e30, 1e30, labels=labels)
    z = normalize(features.detach())
    i, j = torch.triu_indices(len(z), len(z), 1, device=z.device)
    gaps = (labels[i] - labels[j]).abs()
    if not gaps.any():
        raise ValueError(f"labels: need two different numbers to have an order, got {float(labels[0]):g} everywhere")
    # Rounded: what is equal but for the last digit is a tie.
    distances = 1 - (z @ z.mT)[i, j], gaps / gaps.max()
    x, y = (_ranks(v.double().round(decimals=6)) for v in distances)
    x, y = x - x.mean(), y - y.mean()
    size = x.norm() * y.norm()
    return ((x @ y) / size if size > 0 else size).to(z.dtype)


@full_precision
def explained_variance(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, ridge: float = 1e-3
) -> Tensor:
    r"""How much of each number a linear map of the features explains, :math:`R^2` on test rows.

    1 for a perfect reading, 0 for one that is no better than the mean of the training rows, negative for a worse one.

    Args:
        train_x: ``(n, d)`` features.
        train_y: ``(n, k)`` numbers.
        test_x: ``(m, d)``.
        test_y: ``(m, k)``, in no column all equal.
        ridge: penalty on the weights of standardized features, per row.

    Returns:
        ``(k,)``, at most 1. It has no gradient.

    Example:
        >>> x = torch.arange(8.0)[:, None]
        >>> explained_variance(x, 3 * x + 1, x, torch.cat([3 * x + 1])).round(decimals=2).tolist()
        [1.0]
    """
    check_shapes(train_x=(train_x, "n d"), train_y=(train_y, "n k"), test_x=(test_x, "m d"), test_y=(test_y, "m k"))
    check_positive(ridge=ridge)
    check_entries(-1e15, 1e15, train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y)
    known, numbers, unknown, truth = (x.detach().double() for x in (train_x, train_y, test_x, test_y))
    mean, middle = known.mean(0), numbers.mean(0)
    spread = (known - mean).square().mean(0).sqrt()
    spread = torch.where(spread > 0, spread, 1.0)
    a, b = (known - mean) / spread, (unknown - mean) / spread
    penalty = ridge * len(a) * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    weights = torch.linalg.solve(a.mT @ a + penalty, a.mT @ (numbers - middle))
    total = (truth - middle).square().sum(0)
    if not (total > 0).all():
        raise ValueError("test_y: needs numbers that differ from the mean of train_y, there is nothing to explain")
    explained = 1 - (truth - middle - b @ weights).square().sum(0) / total
    return explained.clamp(min=WORST).to(train_x.dtype)


def _ranks(values: Tensor) -> Tensor:
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    return (last - (count - 1) / 2)[place]


def _two_names(**names: Tensor) -> list[Tensor]:
    check_shapes(**{name: (value, "n", int) for name, value in names.items()})
    found = [check_labels(value, name=name, num_classes=LARGEST_NAME) for name, value in names.items()]
    return [value.cpu() for value in found]
