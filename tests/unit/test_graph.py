"""Scaled adjacency matrices, and the ranking loss."""

import math

import pytest
import torch

from cl_teach.core.ranking import bpr
from cl_teach.models.graph import gcn_matrix, mean_matrix, scale_by_degrees

EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # a path of three nodes, and a fourth alone


def test_gcn_matrix_equals_the_loops():
    a = torch.eye(4)
    for u, v in EDGES.T.tolist():
        a[v, u] = 1
    found = gcn_matrix(EDGES, 4)
    for i in range(4):
        for j in range(4):
            assert found[i, j].item() == pytest.approx(a[i, j].item() / math.sqrt(a[i].sum() * a[j].sum()))
    assert torch.allclose(scale_by_degrees(a - torch.eye(4)), found)
    assert torch.equal(gcn_matrix(torch.zeros(2, 0, dtype=torch.long), 3), torch.eye(3))


def test_a_lonely_node_gets_a_row_of_zeros_without_self_loops():
    a = torch.tensor([[0.0, 2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = scale_by_degrees(a, self_loops=False)
    assert torch.allclose(found, a / 2)
    assert torch.equal(mean_matrix(torch.tensor([[1.0, 1.0], [0.0, 0.0]])), torch.tensor([[0.5, 0.5], [0.0, 0.0]]))


def test_largest_eigenvalue_is_one():
    values = torch.linalg.eigvalsh(gcn_matrix(EDGES, 4).double())
    assert values.max().item() == pytest.approx(1.0, abs=1e-6) and values.min() > -1


def test_bpr_is_log_two_on_a_tie_and_falls_with_the_margin():
    u = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert bpr(u, u, u).item() == pytest.approx(math.log(2))
    assert bpr(u, u, 0 * u).item() == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(-4))) / 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gcn_matrix(EDGES, 2), "edges"),
        (lambda: gcn_matrix(EDGES.T, 4), "edges"),
        (lambda: scale_by_degrees(-torch.ones(2, 2)), "adjacency"),
        (lambda: scale_by_degrees(torch.ones(2, 3)), "adjacency"),
        (lambda: mean_matrix(-torch.ones(2, 3)), "incidence"),
        (lambda: bpr(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 3)), "negatives"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
