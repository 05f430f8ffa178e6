r"""CSGCL: Community-Strength-Enhanced Graph Contrastive Learning. Han Chen, Ziwen Zhao, Yuhua Li, Yixiong Zou, Ruixuan
Li, Rui Zhang; IJCAI 2023; https://arxiv.org/abs/2305.04658.

A community c with :math:`e_c` inner edges and total degree :math:`D_c` has the strength of its term in the modularity
of a graph with m edges; nodes inherit it,

.. math:: S_c = \frac{e_c}{m} - \Big(\frac{D_c}{2m}\Big)^2, \qquad s_i = S_{c(i)} .

It acts three times: edges inside strong communities are kept more often (communal edge dropping), attributes carried by
strong communities are dropped less often (communal attribute voting), and the contrast of two views gets a bonus
(team-up),

.. math::
    \phi_{ij}(x,y) = e^{(\cos(x_i,y_j) + \gamma(s_i+s_j))/\tau}, \qquad
    \ell_i(x,y) = -\log\frac{\phi_{ii}(x,y)}{\sum_j\phi_{ij}(x,y) + \sum_{j\ne i}\phi_{ij}(x,x)} .

What changes and why: communities differ, some are dense and closed, some loose, and a method that treats them alike
wastes what the dense ones say. The bonus rises with the epoch, so that early training learns nodes and late training
groups. The anchor's own :math:`\gamma s_i` cancels in the fraction: what remains is the contrast of GRACE with the bias
:math:`\gamma s_j/\tau` on candidate j. So a node of a strong community is a *harder* negative, for its own community,
too.

Paper versus code. (1) Where an attribute has no vote at all, the code gives it the largest one; here, too. Where it has
a negative vote, the code takes its logarithm, and every column is lost; here it gets the smallest positive vote (a
choice made here). (2) Where all weights or all votes are equal, min-max scaling is 0/0 in the code; here every edge or
attribute gets the plain rate. (3) The code draws (u, v) and (v, u) apart, which leaves a directed graph; here one draw
serves both directions, or not, as the caller asks. (4) With threshold 1 the weakest edge is always dropped, since its
scaled weight is 0; and as probabilities stop at 1, the mean rate of keeping is at most 1 - p. (5) Communities come from
Leiden in the code and from networkx's Louvain here. (6) The dense variant of attribute voting (Wiki-CS) is left out.
The equation section of the paper was not read: what is here follows the released code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.contrast import softmax_contrast
from ..core.similarity import cosine_similarity, self_mask
from ..models.graph import check_edges, gcn_matrix

__all__ = [
    "CSGCL",
    "GCN",
    "attribute_drop_probability",
    "bonus_weight",
    "community_strength",
    "detect_communities",
    "drop_attributes",
    "drop_edges",
    "edge_keep_probability",
    "edge_weights",
    "team_up",
]


def detect_communities(edges: Tensor, n: int, *, seed: int = 0) -> Tensor:
    """Partition the nodes by Louvain's method.

    Args:
        edges: ``(2, 2m)`` both directions of every edge.
        n: number of nodes.
        seed: of the method.

    Returns:
        ``(n,)`` int64, 0 to C - 1.

    Raises:
        ModuleNotFoundError: networkx is missing (``pip install networkx``).
    """
    check_edges(edges, n)
    import networkx  # here, so that the rest of the file works without it

    graph = networkx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges.T.tolist())
    communities = torch.zeros(n, dtype=torch.long)
    for number, members in enumerate(networkx.community.louvain_communities(graph, seed=seed)):
        communities[sorted(members)] = number
    return communities.to(edges.device)


def community_strength(edges: Tensor, communities: Tensor) -> Tensor:
    """What each community adds to the modularity; the sum over communities is the modularity.

    Args:
        edges: ``(2, 2m)`` both directions of every edge.
        communities: ``(n,)`` of each node, 0 to C - 1.

    Returns:
        ``(C,)`` float64. Negative where a community has fewer inner edges than its degrees let expect.

    Raises:
        TypeError: not integers.
        ValueError: an index out of range, no edge.
    """
    check_edges(edges, len(communities))
    check_labels(communities, len(communities), name="communities")
    count = int(communities.max()) + 1
    tail, head = communities[edges]  # (2m,) each
    inner = torch.bincount(tail[tail == head], minlength=count).double()  # 2 e_c
    degrees = torch.bincount(tail, minlength=count).double()  # D_c
    return inner / edges.shape[1] - (degrees / edges.shape[1]).square()


def edge_weights(edges: Tensor, communities: Tensor, strength: Tensor) -> Tensor:
    r"""Weight of each edge, scaled to [0, 1]: :math:`S_c` inside c, :math:`-(S_{c(u)} + S_{c(v)})` between communities.

    Args:
        edges: ``(2, 2m)``.
        communities: ``(n,)``.
        strength: ``(C,)`` from `community_strength`.

    Returns:
        ``(2m,)``; all 1 where all weights are equal.

    Raises:
        TypeError, ValueError: an index out of range, wrong dtype.
    """
    check_edges(edges, len(communities))
    check_embeddings(ndim=1, strength=strength)
    check_labels(communities, len(communities), name="communities", num_classes=len(strength))
    tail, head = communities[edges]
    weight = torch.where(tail == head, strength[tail], -(strength[tail] + strength[head]))
    return _min_max(weight)


def edge_keep_probability(weights: Tensor, rate: float, *, threshold: float = 1.0) -> Tensor:
    r"""Communal edge dropping: :math:`\min(1, \max(1-\theta, (1-p)\,\hat w_e/\mathrm{mean}\,\hat w))`.

    Args:
        weights: ``(2m,)`` from `edge_weights`.
        rate: p in [0, 1], wanted share of *dropped* edges.
        threshold: no edge is dropped with a larger chance than this.

    Returns:
        ``(2m,)`` probability of *keeping* each edge.

    Raises:
        TypeError, ValueError: weights outside [0, 1] or all zero, rate or threshold outside [0, 1].
    """
    check_embeddings(ndim=1, weights=weights)
    check_in_range(0, 1, weights=weights, rate=rate, threshold=threshold)
    check_positive(**{"mean of weights": weights.mean()})
    return (weights / weights.mean() * (1 - rate)).clamp(1 - threshold, 1)


def attribute_drop_probability(
    features: Tensor, node_strength: Tensor, rate: float, *, threshold: float = 1.0
) -> Tensor:
    r"""Communal attribute voting: attributes carried by strong communities stay.

    Votes :math:`r_a = \sum_i |X_{ia}|\,s_i`; on the scale of :math:`\log r_a`, q is 0 for the most and 1 for the fewest
    votes; the attribute is dropped with probability :math:`\min(\theta, p\,q_a/\mathrm{mean}\,q)`.

    Args:
        features: ``(n, f)`` attributes.
        node_strength: ``(n,)``.
        rate: p in [0, 1], wanted share of dropped attributes.
        threshold: no attribute is dropped with a larger chance than this.

    Returns:
        ``(f,)`` probability of *dropping* each attribute.

    Raises:
        TypeError, ValueError: shapes do not fit, NaN, rate or threshold outside [0, 1].
    """
    check_embeddings(features=features)
    check_embeddings(ndim=1, node_strength=node_strength)
    check_same_length(features=features, node_strength=node_strength)
    check_in_range(0, 1, rate=rate, threshold=threshold)
    votes = node_strength @ features.abs().to(node_strength)  # (f,)
    positive = votes[votes > 0]
    if len(positive) == 0:
        return torch.full_like(votes, min(rate, threshold))
    votes = torch.where(votes == 0, votes.max(), votes).clamp_min(positive.min())
    q = _min_max(-votes.log())
    return (q / q.mean() * rate).clamp(0, threshold)


def drop_edges(
    edges: Tensor, keep: Tensor, *, undirected: bool = True, generator: torch.Generator | None = None
) -> Tensor:
    """Keep each edge with its probability.

    Args:
        edges: ``(2, 2m)``; with ``undirected`` both directions of every edge, in any order.
        keep: ``(2m,)`` from `edge_keep_probability`.
        undirected: whether one draw serves both directions; the released code draws them apart.
        generator: on the CPU.

    Returns:
        ``(2, k)`` the edges that are left.

    Raises:
        ValueError: lengths differ, a probability outside [0, 1].
    """
    check_in_range(0, 1, keep=keep)
    check_same_length(edges=edges.T, keep=keep)
    if undirected:  # number the pairs, whatever the direction
        _, number = edges.sort(0).values.unique(dim=1, return_inverse=True)
    else:
        number = torch.arange(len(keep), device=keep.device)
    draw = torch.rand(int(number.max()) + 1, generator=generator, dtype=torch.float64).to(keep.device)
    return edges[:, draw[number] < keep]


def drop_attributes(features: Tensor, drop: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Zero whole columns of ``features (n, f)``, each with its probability ``drop (f,)``.

    Raises:
        ValueError: a probability outside [0, 1], or not one a column.
    """
    check_in_range(0, 1, drop=drop)
    check_same_length(**{"features.T": features.T, "drop": drop})
    draw = torch.rand(len(drop), generator=generator, dtype=torch.float64).to(drop.device)
    return features * (draw >= drop)


def bonus_weight(epoch: int, start: int, maximum: float) -> float:
    r"""The schedule :math:`\gamma(t) = \min(\max(0, (t - t_0)/100), \gamma_{\max})`."""
    check_in_range(0, math.inf, epoch=epoch, start=start, maximum=maximum)
    return min(max(0.0, (epoch - start) / 100), maximum)


def team_up(
    z1: Tensor, z2: Tensor, node_strength: Tensor, gamma: float, temperature: float = 0.5, *, reduction: str = "mean"
) -> Tensor:
    """Contrast of two views of all nodes, in both directions, with a bonus for strong communities.

    Args:
        z1: ``(n, d)`` embeddings of the first view, any scale (normalized here).
        z2: ``(n, d)`` of the second.
        node_strength: ``(n,)``, a constant.
        gamma: weight of the bonus, at least 0; 0 gives GRACE.
        temperature: greater than 0.
        reduction: over the n nodes; each counts the mean of its two directions.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, fewer than two nodes, temperature not positive, ``gamma`` negative.
    """
    check_embeddings(z1=z1, z2=z2)
    check_same_shape(z1=z1, z2=z2)
    check_embeddings(ndim=1, node_strength=node_strength)
    check_same_length(z1=z1, node_strength=node_strength)
    check_positive(temperature=temperature)
    check_in_range(0, math.inf, gamma=gamma)
    check_batch(len(z1), 2, name="z1", why="to have a negative")
    s = node_strength.detach().to(z1)
    bonus = gamma * (s[:, None] + s[None, :])  # (n, n)
    own = self_mask(len(s), s.device)
    positives = torch.cat([own, torch.zeros_like(own)], 1)  # (n, 2n): candidates of the other view, then of the same
    candidates = torch.cat([torch.ones_like(own), ~own], 1)
    losses = []
    for x, y in ((z1, z2), (z2, z1)):
        logits = torch.cat([cosine_similarity(x, y) + bonus, cosine_similarity(x, x) + bonus], 1) / temperature
        losses.append(softmax_contrast(logits, positives, candidates, reduction=reduction))
    return (losses[0] + losses[1]) / 2


class GCN(nn.Module):
    """Two graph convolutions, ``(n, f)`` attributes to ``(n, d)`` features; the first layer is twice as wide."""

    def __init__(self, in_dim: int, dim: int) -> None:
        """Make the layers."""
        super().__init__()
        check_positive(in_dim=in_dim, dim=dim)
        self.first, self.second = nn.Linear(in_dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """Features of all nodes."""
        a = gcn_matrix(edges, len(features)).to(features)
        return torch.relu(a @ self.second(torch.relu(a @ self.first(features))))


class CSGCL(nn.Module):
    """The whole method on one graph: fixed community quantities, a shared encoder, a projection head.

    One step: ``model(epoch).backward()`` and the optimizer; afterwards use ``model.encoder(features, edges)``.
    """

    features: Tensor
    edges: Tensor
    node_strength: Tensor
    weights: Tensor

    def __init__(
        self,
        features: Tensor,
        edges: Tensor,
        communities: Tensor,
        dim: int = 32,
        *,
        edge_rates: tuple[float, float] = (0.2, 0.5),
        attribute_rates: tuple[float, float] = (0.1, 0.2),
        temperature: float = 0.5,
        start: int = 100,
        gamma: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        """Score the communities and make the networks.

        Args:
            features: ``(n, f)`` attributes.
            edges: ``(2, 2m)`` both directions of every edge.
            communities: ``(n,)``, for instance from `detect_communities`.
            dim: width of features and embeddings.
            edge_rates: wanted share of dropped edges in either view.
            attribute_rates: wanted share of dropped attributes in either view.
            temperature: of the contrast.
            start: epoch after which the bonus rises.
            gamma: its largest weight.
            generator: of the views, on the CPU.
        """
        super().__init__()
        check_positive(temperature=temperature)
        check_labels(communities, len(features), name="communities")
        strength = community_strength(edges, communities)
        self.temperature, self.start, self.gamma, self.generator = temperature, start, gamma, generator
        self.edge_rates, self.attribute_rates = edge_rates, attribute_rates
        self.register_buffer("features", features)
        self.register_buffer("edges", edges)
        self.register_buffer("node_strength", strength[communities])
        self.register_buffer("weights", edge_weights(edges, communities, strength))
        self.encoder = GCN(features.shape[1], dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ELU(), nn.Linear(dim, dim))

    def view(self, number: int) -> tuple[Tensor, Tensor]:
        """Fresh attributes and edges of view 0 or 1."""
        keep = edge_keep_probability(self.weights, self.edge_rates[number])
        drop = attribute_drop_probability(self.features, self.node_strength, self.attribute_rates[number])
        features = drop_attributes(self.features, drop, generator=self.generator)
        return features, drop_edges(self.edges, keep, generator=self.generator)

    def forward(self, epoch: int) -> Tensor:
        """The loss of one epoch (full batch), counted from 1."""
        z1, z2 = (self.head(self.encoder(*self.view(number))) for number in (0, 1))
        gamma = bonus_weight(epoch, self.start, self.gamma)
        return team_up(z1, z2, self.node_strength, gamma, self.temperature)


def _min_max(x: Tensor) -> Tensor:
    """To [0, 1]; all 1 where there is nothing to tell apart."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else torch.ones_like(x)
