"""Readings: matched clusters, means by shot, order of numbers."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import spearmanr

from cl_teach.core import normalize
from cl_teach.readouts import (
    by_shot,
    explained_variance,
    match_clusters,
    matched_accuracy,
    mutual_information,
    order_correlation,
)


def test_matching_is_the_best_of_all_permutations() -> None:
    draws = torch.Generator().manual_seed(0)
    clusters, labels = (torch.randint(4, (60,), generator=draws) for _ in range(2))
    best = max(sum(torch.tensor(p)[clusters] == labels) for p in itertools.permutations(range(4)))
    assert (match_clusters(clusters, labels)[clusters] == labels).sum() == best


def test_renamed_classes_are_found_again_and_one_large_cluster_finds_one_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    assert matched_accuracy(torch.tensor([2, 0, 1])[labels], labels).tolist() == [1, 1, 1]
    assert matched_accuracy(torch.zeros(6, dtype=torch.int64), labels).tolist() == [1, 0, 0]
    assert mutual_information(torch.tensor([2, 0, 1])[labels], labels) == pytest.approx(1)
    assert mutual_information(torch.zeros(6, dtype=torch.int64), labels) == pytest.approx(0)


def test_a_class_without_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="labels: .*class 1 has none"):
        matched_accuracy(torch.tensor([0, 1]), torch.tensor([0, 2]))


def test_shots_share_the_rows_among_them() -> None:
    found = by_shot(torch.tensor([4.0, 2.0, 1.0, 1.0]), torch.tensor([0, 20, 100, 101]))
    assert found == (2.0, 1.0, 1.5, 4.0)
    assert by_shot(torch.ones(2), torch.tensor([1, 1])).many is None
    with pytest.raises(ValueError, match="many: needs at least few=20"):
        by_shot(torch.ones(2), torch.tensor([1, 1]), many=10)


def test_order_is_scipys_with_ties() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(12, 3, generator=draws, dtype=torch.float64)
    labels = torch.randint(4, (12,), generator=draws).double()
    i, j = torch.triu_indices(12, 12, 1)
    z = normalize(features)
    expected = spearmanr(1 - (z @ z.mT)[i, j], (labels[i] - labels[j]).abs()).statistic
    assert float(order_correlation(features, labels)) == pytest.approx(expected, abs=1e-6)


def test_equal_directions_have_no_order_and_equal_labels_are_refused() -> None:
    assert order_correlation(torch.ones(4, 2), torch.arange(4.0)) == 0
    with pytest.raises(ValueError, match="labels: need two different numbers"):
        order_correlation(torch.eye(3), torch.ones(3))


def test_linear_numbers_are_explained_and_others_are_not() -> None:
    draws = torch.Generator().manual_seed(0)
    x, noise = torch.randn(400, 3, generator=draws), torch.randn(400, 1, generator=draws)
    y = torch.cat([x @ torch.tensor([[1.0], [2.0], [0.0]]) + 5, noise, 1 + x[:, :1].square()], 1)
    found = explained_variance(x[:300], y[:300], x[300:], y[300:])
    assert found[0] > 0.999 and found[1] < 0.1 and found[2] < 0.1


def test_the_reading_does_not_depend_on_the_scale_of_features_and_a_constant_one_is_allowed() -> None:
    draws = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 2, generator=draws, dtype=torch.float64), torch.randn(50, 1, generator=draws).double()
    scaled = torch.cat([1000 * x + 7, torch.ones(50, 1)], 1)
    assert torch.allclose(explained_variance(x, y, x, y), explained_variance(scaled, y, scaled, y))
    with pytest.raises(ValueError, match="test_y: needs numbers that differ"):
        explained_variance(x, torch.zeros_like(y), x, torch.zeros_like(y))
