r"""What graph methods share: scaled adjacency matrices, by which features travel along edges, and a network of two such
steps.

A matrix product is the whole propagation: ``matrix @ features`` gives each node a weighted sum of what its neighbors
hold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_flag, check_labels, check_shapes, check_square
from ..core.precision import full_precision

__all__ = ["GCN", "gcn_matrix", "mean_matrix", "normalize_interactions", "scale_by_degrees"]

# Sums of rows of larger entries leave the range of float32.
LARGEST = 1e30


def gcn_matrix(edges: Tensor, n: int) -> Tensor:
    r"""``(n, n)`` propagation :math:`D^{-1/2}(A + I)D^{-1/2}`; row i gathers what points to i, at least itself.

    Args:
        edges: ``(2, m)`` integers, from the first row to the second; m may be 0.
        n: number of nodes.

    Returns:
        ``(n, n)`` float32.

    Source:
        Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks (2017), equation 2.
    """
    check_count(n=n)
    edges = check_edges(edges, n, minimum=0)
    a = torch.zeros(n, n, device=edges.device)
    a[edges[1], edges[0]] = 1.0
    return scale_by_degrees(a.fill_diagonal_(1.0), self_loops=False)


@full_precision
def scale_by_degrees(adjacency: Tensor, *, self_loops: bool = True) -> Tensor:
    r"""Scale a weighted adjacency matrix by the roots of both degrees, :math:`D^{-1/2}(A + I)D^{-1/2}`.

    Args:
        adjacency: ``(n, n)``, nonnegative.
        self_loops: whether to add the identity first.

    Returns:
        ``(n, n)``; the row of a node without an edge is zero.
    """
    check_square(adjacency=adjacency)
    check_entries(0, LARGEST, adjacency=adjacency)
    check_flag(self_loops=self_loops)
    a = adjacency + torch.eye(len(adjacency)).to(adjacency) if self_loops else adjacency
    degree = a.sum(1)
    root = degree.where(degree > 0, 1.0).sqrt()
    return a / (root[:, None] * root[None, :])


def normalize_interactions(interactions: Tensor) -> Tensor:
    r"""Scale an interaction matrix by both degrees, :math:`R_{ij}/\sqrt{\deg i\,\deg j}`.

    Args:
        interactions: ``(I, J)`` boolean.

    Returns:
        ``(I, J)`` of the default dtype; rows and columns without an entry stay zero.
    """
    check_shapes(interactions=(interactions, "I J", bool))
    r = interactions.to(torch.get_default_dtype())
    users, items = r.sum(1, keepdim=True).clamp_min(1), r.sum(0, keepdim=True).clamp_min(1)
    return r / (users * items).sqrt()


@full_precision
def mean_matrix(incidence: Tensor) -> Tensor:
    """Rows that average over the neighbors; a node without one gets a row of zeros.

    Args:
        incidence: ``(n, m)``, nonnegative: who is linked to whom, and how strongly.

    Returns:
        ``(n, m)``, each row with sum 1 or 0.
    """
    check_shapes(incidence=(incidence, "n m"))
    check_entries(0, LARGEST, incidence=incidence)
    count = incidence.sum(1, keepdim=True)
    return incidence / count.where(count > 0, 1.0)


def check_edges(edges: Tensor, n: int, *, minimum: int = 1, name: str = "edges") -> Tensor:
    """Check ``(2, m)`` integer edges between n nodes, at least ``minimum`` of them, and return them as int64."""
    if isinstance(edges, Tensor) and (edges.ndim != 2 or len(edges) != 2 or edges.shape[1] < minimum):
        raise ValueError(f"{name}: expected shape (2, m) with m at least {minimum}, got {tuple(edges.shape)}")
    if not isinstance(edges, Tensor) or edges.numel():
        check_shapes(**{name: (edges, "2 m", int)})
    return check_labels(edges.flatten(), name=name, num_classes=n).view(edges.shape)


class GCN(nn.Module):
    """Two graph convolutions, ``(n, f)`` attributes to ``(n, d)`` features; the first layer is twice as wide."""

    def __init__(self, in_dim: int, dim: int) -> None:
        """Make the layers."""
        super().__init__()
        check_count(in_dim=in_dim, dim=dim)
        self.first, self.second = nn.Linear(in_dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Features of all nodes, from attributes ``(n, f)`` and edges ``(2, m)``; m may be 0."""
        check_shapes(features=(features, f"n {self.first.in_features}"))
        check_entries(-math.sqrt(LARGEST), math.sqrt(LARGEST), features=features)
        x = features.to(self.first.weight)
        edges = check_edges(edges, len(x), minimum=0, name="edges, features")
        a = _sparse_gcn_matrix(edges.to(x.device), len(x))
        return torch.relu(_along(a, self.second(torch.relu(_along(a, self.first(x))))))


def _sparse_gcn_matrix(edges: Tensor, n: int) -> Tensor:
    """`gcn_matrix` without its zeros: of a graph's n x n pairs hardly any is an edge."""
    loops = torch.arange(n, device=edges.device) * (n + 1)
    places = torch.cat([edges[1] * n + edges[0], loops]).unique()  # a pair as one number: sorted far faster than as two
    pairs = torch.stack([places // n, places % n])  # (2, m'), each once
    root = pairs[0].bincount(minlength=n).sqrt()
    values = 1 / (root[pairs[0]] * root[pairs[1]])
    return torch.sparse_coo_tensor(pairs, values, (n, n), is_coalesced=True, check_invariants=True)


def _along(a: Tensor, x: Tensor) -> Tensor:
    """The product of a sparse matrix, which has float32 or float64 only, with features of any precision."""
    wide = torch.promote_types(x.dtype, a.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return (a.to(wide) @ x.to(wide)).to(x.dtype)
