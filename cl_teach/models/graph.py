r"""What graph methods share: scaled adjacency matrices, by which features travel along edges.

A dense matrix product is the whole propagation: ``matrix @ features`` gives each node a weighted sum of what its
neighbors hold. Graphs of a few thousand nodes fit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import check_embeddings, check_in_range, check_labels, check_square

__all__ = ["check_edges", "gcn_matrix", "mean_matrix", "scale_by_degrees"]


def gcn_matrix(edges: Tensor, n: int) -> Tensor:
    r"""``(n, n)`` propagation :math:`D^{-1/2}(A + I)D^{-1/2}`; row i gathers what points to i, at least itself.

    Args:
        edges: ``(2, m)`` integers, from the first row to the second; m may be 0.
        n: number of nodes.

    Returns:
        ``(n, n)`` float32.

    Raises:
        TypeError: not integers.
        ValueError: another shape, an index out of range.

    Source:
        Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks (2017), equation 2.
    """
    check_edges(edges, n, minimum=0)
    a = torch.zeros(n, n, device=edges.device)
    a[edges[1], edges[0]] = 1.0
    return scale_by_degrees(a.fill_diagonal_(1.0), self_loops=False)


def scale_by_degrees(adjacency: Tensor, *, self_loops: bool = True) -> Tensor:
    r"""Scale a weighted adjacency matrix by the roots of both degrees, :math:`D^{-1/2}(A + I)D^{-1/2}`.

    Args:
        adjacency: ``(n, n)`` floating, nonnegative.
        self_loops: whether to add the identity first.

    Returns:
        ``(n, n)``; the row of a node without an edge is zero.

    Raises:
        TypeError: not floating.
        ValueError: not square, negative entries, NaN.
    """
    check_square(adjacency=adjacency)
    check_in_range(0, float("inf"), adjacency=adjacency)
    a = adjacency + torch.eye(len(adjacency)).to(adjacency) if self_loops else adjacency
    degree = a.sum(1)
    root = torch.where(degree > 0, degree, torch.ones_like(degree)).sqrt()
    return a / (root[:, None] * root[None, :])


def mean_matrix(incidence: Tensor) -> Tensor:
    """Rows that average over the neighbors; a node without one gets a row of zeros.

    Args:
        incidence: ``(n, m)`` floating, nonnegative: who is linked to whom, and how strongly.

    Returns:
        ``(n, m)``, each row with sum 1 or 0.

    Raises:
        TypeError: not floating.
        ValueError: not a matrix, negative entries, NaN.
    """
    check_embeddings(incidence=incidence)
    check_in_range(0, float("inf"), incidence=incidence)
    count = incidence.sum(1, keepdim=True)
    return incidence / torch.where(count > 0, count, torch.ones_like(count))


def check_edges(edges: Tensor, n: int, minimum: int = 1) -> None:
    """Check ``(2, m)`` integer edges between n nodes, at least ``minimum`` of them.

    Raises:
        TypeError: not integers.
        ValueError: another shape, too few edges, an index out of range.
    """
    if not isinstance(edges, Tensor) or edges.ndim != 2 or len(edges) != 2 or edges.shape[1] < minimum:
        came = tuple(edges.shape) if isinstance(edges, Tensor) else type(edges).__name__
        raise ValueError(f"edges: expected shape (2, m) with m at least {minimum}, got {came}")
    check_labels(edges.flatten(), edges.numel(), name="edges", num_classes=n)
