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
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
)
from ..core.contrast import REDUCTIONS, check_temperature, reduce
from ..core.draws import draw_seed
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, self_mask
from ..models.graph import GCN, check_edges

__all__ = [
    "CSGCL",
    "attribute_drop_probability",
    "bonus_weight",
    "community_strength",
    "detect_communities",
    "drop_attributes",
    "drop_weak_edges",
    "edge_keep_probability",
    "edge_weights",
    "team_up",
]

# A bonus or a vote of such a size is still a number of float32 with room to be added up.
LARGEST = 1e15


def detect_communities(edges: Tensor, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Partition the nodes by Louvain's method.

    Args:
        edges: ``(2, 2m)`` both directions of every edge.
        n: number of nodes.
        generator: of the method's random order, on the CPU.

    Returns:
        ``(n,)`` int64, 0 to C - 1.

    Raises:
        ModuleNotFoundError: networkx is missing (``pip install networkx``).
    """
    check_count(n=n)
    edges = check_edges(edges, n)
    check_generator(generator)
    import networkx  # here, so that the rest of the file works without it

    graph = networkx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges.T.tolist())
    communities = torch.zeros(n, dtype=torch.long)
    for number, members in enumerate(networkx.community.louvain_communities(graph, seed=draw_seed(generator))):
        communities[sorted(members)] = number
    return communities.to(edges.device)


def community_strength(edges: Tensor, communities: Tensor) -> Tensor:
    """What each community adds to the modularity; the sum over communities is the modularity.

    Args:
        edges: ``(2, 2m)`` both directions of every edge.
        communities: ``(n,)`` of each node, 0 to C - 1.

    Returns:
        ``(C,)`` float64. Negative where a community has fewer inner edges than its degrees let expect.

    Example:
        >>> pair, triangle = [[0, 1], [1, 0]], [[2, 3, 3, 4, 4, 2], [3, 2, 4, 3, 2, 4]]
        >>> edges = torch.tensor([a + b for a, b in zip(pair, triangle)])
        >>> community_strength(edges, torch.tensor([0, 0, 1, 1, 1])).tolist()  # 1/4 - (2/8)^2 and 3/4 - (6/8)^2
        [0.1875, 0.1875]
    """
    communities, edges = _check_graph(edges, communities)
    count = int(communities.max()) + 1
    tail, head = communities[edges]  # (2m,) each
    inner = torch.bincount(tail[tail == head], minlength=count).double()  # 2 e_c
    degrees = torch.bincount(tail, minlength=count).double()  # D_c
    return inner / edges.shape[1] - (degrees / edges.shape[1]).square()


@full_precision
def edge_weights(edges: Tensor, communities: Tensor, strength: Tensor) -> Tensor:
    r"""Weight of each edge, scaled to [0, 1]: :math:`S_c` inside c, :math:`-(S_{c(u)} + S_{c(v)})` between communities.

    Args:
        edges: ``(2, 2m)``.
        communities: ``(n,)``.
        strength: ``(C,)`` from `community_strength`.

    Returns:
        ``(2m,)``; all 1 where all weights are equal.
    """
    check_shapes(strength=(strength, "C"))
    check_entries(-LARGEST, LARGEST, strength=strength)
    communities, edges = _check_graph(edges, communities, len(strength))
    tail, head = communities[edges]
    weight = torch.where(tail == head, strength[tail], -(strength[tail] + strength[head]))
    return _min_max(weight)


@full_precision
def edge_keep_probability(weights: Tensor, rate: float, *, threshold: float = 1.0) -> Tensor:
    r"""Communal edge dropping: :math:`\min(1, \max(1-\theta, (1-p)\,\hat w_e/\mathrm{mean}\,\hat w))`.

    Args:
        weights: ``(2m,)`` from `edge_weights`, in [0, 1], not all zero.
        rate: p in [0, 1], wanted share of *dropped* edges.
        threshold: no edge is dropped with a larger chance than this.

    Returns:
        ``(2m,)`` probability of *keeping* each edge.
    """
    check_shapes(weights=(weights, "m"))
    check_entries(0, 1, weights=weights)
    check_in_range(0, 1, rate=rate, threshold=threshold)
    mean = weights.mean()
    if not mean > 0:
        raise ValueError("weights: expected at least one above 0, got only zeros")
    return (weights / mean * (1 - rate)).clamp(1 - threshold, 1)


@full_precision
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
    """
    check_shapes(features=(features, "n f"), node_strength=(node_strength, "n"))
    check_entries(-LARGEST, LARGEST, features=features, node_strength=node_strength)
    check_in_range(0, 1, rate=rate, threshold=threshold)
    votes = node_strength @ features.abs()  # (f,)
    positive = votes[votes > 0]
    if len(positive) == 0:
        return torch.full_like(votes, min(rate, threshold))
    votes = torch.where(votes == 0, votes.max(), votes).clamp_min(positive.min())
    q = _min_max(-votes.log())
    return (q / q.mean() * rate).clamp(0, threshold)


def drop_weak_edges(
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
    """
    check_shapes(edges=(edges, "2 m", int), keep=(keep, "m"))
    check_entries(0, 1, keep=keep)
    check_flag(undirected=undirected)
    check_generator(generator)
    edges = check_labels(edges.flatten(), name="edges").view_as(edges)
    if undirected:  # number the pairs, whatever the direction
        _, number = edges.sort(0).values.unique(dim=1, return_inverse=True)
    else:
        number = torch.arange(len(keep), device=keep.device)
    draw = torch.rand(int(number.max()) + 1, generator=generator, dtype=torch.float64).to(keep.device)
    return edges[:, draw[number] < keep]


def drop_attributes(features: Tensor, drop: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Zero whole columns of ``features (n, f)``, each with its probability ``drop (f,)``; generator on the CPU."""
    check_shapes(features=(features, "n f"), drop=(drop, "f"))
    check_entries(0, 1, drop=drop)
    check_generator(generator)
    draw = torch.rand(len(drop), generator=generator, dtype=torch.float64).to(drop.device)
    return features * (draw >= drop)


def bonus_weight(epoch: int, start: int, maximum: float) -> float:
    r"""The schedule :math:`\gamma(t) = \min(\max(0, (t - t_0)/100), \gamma_{\max})`."""
    check_count(0, epoch=epoch, start=start)
    check_in_range(0, math.inf, maximum=maximum)
    return min(max(0.0, (epoch - start) / 100), float(maximum))


@full_precision
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
    """
    check_shapes(z1=(z1, "n d"), z2=(z2, "n d"), node_strength=(node_strength, "n"))
    check_temperature(temperature)
    check_in_range(0, LARGEST, gamma=gamma)
    check_entries(-LARGEST, LARGEST, node_strength=node_strength)
    check_choice(REDUCTIONS, reduction=reduction)
    check_batch(len(z1), 2, name="z1", why="to have a negative")
    n, z = len(z1), torch.cat([z1, z2])
    bonus = gamma * node_strength.detach().repeat(2)  # (2n,) of the candidates; the anchor's own would cancel
    logits = (cosine_similarity(z, z) + bonus) / temperature  # (2n, 2n)
    positive = torch.cat([logits.diagonal(n), logits.diagonal(-n)])  # (2n,)
    losses = logits.masked_fill(self_mask(2 * n, z.device), -math.inf).logsumexp(1) - positive
    return reduce(losses.view(2, n).mean(0), reduction)


class CSGCL(nn.Module):
    """The whole method on one graph: fixed community quantities, a shared encoder, a projection head.

    One step is one epoch (full batch): ``loss()``, the optimizer, ``after_step()``; a call gives the features of all
    nodes. State: the networks, the graph with its strengths and weights, and ``epoch``, which decides on the bonus.
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
        edge_rates: Sequence[float] = (0.2, 0.5),
        attribute_rates: Sequence[float] = (0.1, 0.2),
        temperature: float = 0.5,
        start: int = 100,
        gamma: float = 1.0,
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
        """
        super().__init__()
        check_shapes(features=(features, "n f"), communities=(communities, "n", int))
        check_temperature(temperature)
        bonus_weight(0, start, 0.0)
        check_in_range(0, LARGEST, gamma=gamma)
        for name, rates in (("edge_rates", edge_rates), ("attribute_rates", attribute_rates)):
            check_type((list, tuple), **{name: rates})
            if len(rates) != 2:
                raise ValueError(f"{name}: expected two rates, one a view, got {len(rates)}")
            check_in_range(0, 1, **{f"{name}[{i}]": rate for i, rate in enumerate(rates)})
        communities, edges = _check_graph(edges, communities)
        strength = community_strength(edges, communities).to(features.dtype)
        self.temperature, self.start, self.gamma, self.epoch = temperature, start, gamma, 1
        self.edge_rates, self.attribute_rates = tuple(edge_rates), tuple(attribute_rates)
        self.register_buffer("features", features)
        self.register_buffer("edges", edges)
        self.register_buffer("node_strength", strength[communities])
        self.register_buffer("weights", edge_weights(edges, communities, strength))
        self.encoder = GCN(features.shape[1], dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ELU(), nn.Linear(dim, dim))

    def get_extra_state(self) -> int:
        """The epoch, counted from 1."""
        return self.epoch

    def set_extra_state(self, state: int) -> None:
        """Go on with that epoch."""
        self.epoch = state

    def forward(self) -> Tensor:
        """Features ``(n, d)`` of all nodes of the whole graph, without dropping."""
        return self.encoder(self.features, self.edges)

    def view(self, number: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Fresh attributes and edges of view 0 or 1; the generator is on the CPU."""
        check_count(0, 1, number=number)
        keep = edge_keep_probability(self.weights, self.edge_rates[number])
        drop = attribute_drop_probability(self.features, self.node_strength, self.attribute_rates[number])
        features = drop_attributes(self.features, drop, generator=generator)
        return features, drop_weak_edges(self.edges, keep, generator=generator)

    def loss(self, nodes: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of this epoch; with ``nodes (b,)`` only they are contrasted, with one another."""
        z1, z2 = (self.head(self.encoder(*self.view(number, generator=generator))) for number in (0, 1))
        strength = self.node_strength
        if nodes is not None:
            nodes = check_labels(nodes, name="nodes", num_classes=len(strength))
            check_batch(len(nodes), 2, name="nodes", why="to have a negative")
            z1, z2, strength = z1[nodes], z2[nodes], strength[nodes]
        gamma = bonus_weight(self.epoch, self.start, self.gamma)
        return team_up(z1, z2, strength, gamma, self.temperature)

    def after_step(self) -> None:
        """Count the epoch."""
        self.epoch += 1


def _check_graph(edges: Tensor, communities: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Communities ``(n,)`` and edges between the n nodes, both int64."""
    check_shapes(communities=(communities, "n", int))
    which = "communities" if count is None else "communities, strength"
    communities = check_labels(communities, name=which, num_classes=count)
    if int(communities.max()) >= len(communities):
        high = int(communities.max())
        raise ValueError(f"communities: expected numbers from 0 on, below that of nodes {len(communities)}, got {high}")
    edges = check_edges(edges, len(communities), name="edges, communities")
    check_shapes(communities=(communities, "n", int), edges=(edges, "2 m", int))
    return communities, edges


def _min_max(x: Tensor) -> Tensor:
    """To [0, 1]; all 1 where there is nothing to tell apart."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else torch.ones_like(x)
