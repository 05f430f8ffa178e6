r"""MEOW and AdaMEOW: Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
Samples. Jianxiang Yu, Qingqing Ge, Xiang Li, Aoying Zhou; SDM 2023 and TKDE 2024; https://arxiv.org/abs/2212.13847.

In a graph of papers, authors and subjects, a meta-path (paper, author, paper) says *which* papers are linked, its
context (the authors in between) says *how*. The coarse view :math:`z^c` sees only who is linked, the fine view
:math:`z^f` what lies in between. Both are contrasted with weighted negatives,

.. math::
    L_{con} = \frac1N\sum_i -\log\frac{e^{z^c_i\cdot z^f_i/\tau}}{\sum_j \gamma_{ij}\,e^{z^c_i\cdot z^f_j/\tau}},
    \qquad \gamma_{ij} = \sum_{t=1}^T 1[c_t(i)\ne c_t(j)],

over T clusterings :math:`c_t` of :math:`z^f`, and each coarse embedding is drawn to its clusters' centroids
:math:`\mu`,

.. math::
    L_{pro} = \frac1{TN}\sum_{t,i}-\log\frac{e^{z^c_i\cdot\mu^t_{c_t(i)}/\phi^t_{c_t(i)}}}
              {\frac{N}{K_t}\sum_k e^{z^c_i\cdot\mu^t_k/\phi^t_k}}, \qquad L = L_{con} + \lambda L_{pro} .

AdaMEOW replaces the counts by learned weights in (0, 1), :math:`w_{ij} = \sigma(\mathrm{MLP}(z^f_i + z^c_j))`, anchors
the fine view, and has neither clusters nor prototypes.

What changes and why: InfoNCE pushes a negative in proportion to its softmax mass, so the hardest push goes to a *false*
negative, a node of the same class that looks alike. Nodes that share all clusters get no push here.

Paper versus code. (1) The equation sections of both papers were not read; all equations follow the released code. (2)
One direction only: MEOW anchors the coarse view, AdaMEOW the fine one. (3) The positive is not in MEOW's denominator,
since :math:`\gamma_{ii} = 0`, so the loss may be negative; in AdaMEOW it is, weighted. (4) Weights are not divided by
T. An anchor that shares all clusters with every node has an empty denominator, an infinite loss in the code; here it is
left out (its loss is 0). (5) AdaMEOW falls without bound when all :math:`w_{ij}` shrink together; weights "centered"
divides each row by its mean, an extension made here; "plain" is InfoNCE, for comparison. (6) The code estimates the
concentration :math:`\phi` from inner products, so that it *grows* with tightness, the reverse of the method it is
modeled on; ``metric="distance"`` is that one. A negative inner product (NaN in the code) counts as 0 here. (7) K-means
is scikit-learn's here, on the CPU. (8) Pinned here: top neighbors are joined where either side chose the other; the
mask of the second copy drops single feature entries of targets and contexts, and whole (undirected) links; paths have
one context, longer ones are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_floating,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.contrast import REDUCTIONS, check_temperature, reduce, weighted_contrast
from ..core.draws import draw_seed
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask
from ..models.meta_paths import MetaPathNetwork
from ..models.pair_weights import PairWeights

__all__ = [
    "MEOW",
    "Clusters",
    "cluster",
    "concentration",
    "negative_weights",
    "prototype_loss",
    "weighted_info_nce",
]

WEIGHTS = ("clusters", "learned", "centered", "plain")
# Inner products of rows up to such a length, over a temperature, stay in the range of float32.
LONGEST = 1e15
# Concentrations are clipped to these percentiles, and the size of a cluster counts as this much more; as released.
LOW, HIGH, MORE = 0.1, 0.9, 5


class Clusters(NamedTuple):
    """T clusterings: ``assignments (T, N)``, for each ``(K_t, d)`` unit prototypes and ``(K_t,)`` concentrations."""

    assignments: Tensor
    prototypes: list[Tensor]
    concentrations: list[Tensor]


def negative_weights(assignments: Tensor) -> Tensor:
    """In how many of T clusterings ``(T, N)`` two nodes are apart, ``(N, N)`` integers 0 to T.

    Example:
        >>> negative_weights(torch.tensor([[0, 0, 1], [0, 1, 1]])).tolist()  # nodes 0 and 2 are apart in both
        [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    check_shapes(assignments=(assignments, "T N", int))
    check_labels(assignments.flatten(), name="assignments")
    return (assignments[:, :, None] != assignments[:, None, :]).sum(0)


@full_precision
def weighted_info_nce(
    anchors: Tensor, candidates: Tensor, log_weights: Tensor, temperature: float = 0.4, *, reduction: str = "mean"
) -> Tensor:
    """InfoNCE over all nodes whose denominator counts candidate j of anchor i with a weight.

    Args:
        anchors: ``(N, d)`` unit rows, used as they are.
        candidates: ``(N, d)`` unit rows; row i is the positive of anchor i.
        log_weights: ``(N, N)`` logarithms of the weights, minus infinity where a candidate is left out.
        temperature: greater than 0.
        reduction: over the N anchors; one without any candidate counts 0.

    Returns:
        Scalar, or ``(N,)`` with ``reduction="none"``; negative where the positive is not in the denominator.
    """
    check_shapes(anchors=(anchors, "N d"), candidates=(candidates, "N d"))
    check_entries(-LONGEST, LONGEST, anchors=anchors, candidates=candidates)
    check_temperature(temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    check_floating(log_weights=log_weights)
    left_out = log_weights == -math.inf
    check_shapes(log_weights=(log_weights.masked_fill(left_out, 0.0), f"{len(anchors)} {len(anchors)}"))
    empty = left_out.all(1)
    # Weights may be as small as e^-1000 together: only their ratio to the largest of the row is taken out of the log.
    top = log_weights.amax(1, keepdim=True).where(~empty[:, None], 0.0)
    weights = (log_weights - top).exp().masked_fill(empty[:, None], 1.0)
    logits = anchors @ candidates.mT / temperature  # (N, N)
    finite_result(logits, anchors=anchors, candidates=candidates, temperature=temperature)
    loss = weighted_contrast(logits, self_mask(len(logits), logits.device), weights, reduction="none") + top[:, 0]
    return reduce(loss.masked_fill(empty, 0.0), reduction)


@full_precision
def prototype_loss(anchors: Tensor, clusters: Clusters, *, plain: bool = False) -> Tensor:
    """Each anchor finds the prototype of its own cluster among those of the clustering; a mean over T and N.

    Args:
        anchors: ``(N, d)`` unit rows, used as they are.
        clusters: of the other view, constants.
        plain: leave out the factor N / K of the code's denominator, which has no gradient.
    """
    check_shapes(anchors=(anchors, "N d"))
    check_entries(-LONGEST, LONGEST, anchors=anchors)
    check_type(Clusters, clusters=clusters)
    check_flag(plain=plain)
    check_shapes(anchors=(anchors, "N d"), **{"clusters.assignments": (clusters.assignments, "T N", int)})
    for name in ("prototypes", "concentrations"):
        given = getattr(clusters, name)
        check_type((list, tuple), **{f"clusters.{name}": given})
        if len(given) != len(clusters.assignments):
            wanted = len(clusters.assignments)
            raise ValueError(f"clusters.{name}: expected {wanted}, one a clustering, got {len(given)}")
    losses = []
    for t, (assignment, prototypes, phi) in enumerate(zip(*clusters, strict=True)):
        centers: dict[str, Any] = {f"clusters.prototypes[{t}]": prototypes}
        widths: dict[str, Any] = {f"clusters.concentrations[{t}]": phi}
        shapes = {name: (x, "K d") for name, x in centers.items()} | {name: (x, "K") for name, x in widths.items()}
        check_shapes(anchors=(anchors, "N d"), **shapes)
        check_entries(-LONGEST, LONGEST, **centers)
        check_entries(0, math.inf, open_low=True, **widths)
        own = check_labels(assignment, name="clusters.assignments", num_classes=len(prototypes))
        logits = anchors @ prototypes.detach().mT / phi.detach()  # (N, K)
        offset = 0.0 if plain else math.log(len(anchors) / len(prototypes))
        losses.append(F.cross_entropy(logits, own) + offset)
    return finite_result(torch.stack(losses).mean(), anchors=anchors, **{"clusters.concentrations": "too small"})


@full_precision
def concentration(
    z: Tensor, assignment: Tensor, centroids: Tensor, temperature: float = 0.4, *, metric: str = "inner product"
) -> Tensor:
    r"""A temperature for each cluster, :math:`\phi_k \propto \overline{\sqrt D}/\log(|k| + 5)`, with the mean given.

    D of a node is its inner product with the centroid, or its squared distance. Clusters of at most one node get the
    largest value of the others; all are clipped to their 10th and 90th percentile.

    Args:
        z: ``(N, d)`` unit rows.
        assignment: ``(N,)`` 0 to K - 1.
        centroids: ``(K, d)`` unit rows.
        temperature: the mean of the result.
        metric: ``"inner product"`` (released code; tight clusters get *large* values) or ``"distance"``.

    Returns:
        ``(K,)``, without a gradient. All equal to the temperature where no cluster has two nodes or any spread.
    """
    check_shapes(z=(z, "N d"), assignment=(assignment, "N", int), centroids=(centroids, "K d"))
    check_entries(-LONGEST, LONGEST, z=z, centroids=centroids)
    assignment = check_labels(assignment, name="assignment, centroids", num_classes=len(centroids))
    check_temperature(temperature)
    check_choice(("inner product", "distance"), metric=metric)
    z, own = z.detach(), centroids.detach()[assignment]  # (N, d)
    d = (z * own).sum(1).clamp_min(0) if metric == "inner product" else (z - own).square().sum(1)
    count = torch.bincount(assignment, minlength=len(centroids)).to(z)  # (K,)
    total = torch.zeros_like(count).index_add_(0, assignment, d.sqrt())
    phi = torch.where(count > 1, total / count.clamp_min(1) / (count + MORE).log(), torch.zeros_like(count))
    phi = torch.where(count > 1, phi, phi.max())
    phi = phi.clamp(phi.quantile(LOW), phi.quantile(HIGH))
    if not phi.mean() > 0:
        return torch.full_like(phi, float(temperature))
    return phi / phi.mean() * temperature


def cluster(
    z: Tensor,
    counts: Sequence[int],
    temperature: float = 0.4,
    *,
    metric: str = "inner product",
    generator: torch.Generator | None = None,
) -> Clusters:
    """K-means of unit rows ``(N, d)``, once for each number of clusters; all results are constants.

    Args:
        z: ``(N, d)``, any scale (normalized here).
        counts: numbers of clusters, each from 1 to N.
        temperature: mean of the concentrations.
        metric: of the concentrations.
        generator: of the first centers.
    """
    check_shapes(z=(z, "N d"))
    _check_counts(counts, len(z), "z")
    check_temperature(temperature)
    rows = normalize(z.detach().to(torch.promote_types(z.dtype, torch.float32)))
    assignments, prototypes, concentrations = [], [], []
    for k in counts:
        found = KMeans(k, n_init=1, random_state=draw_seed(generator)).fit(rows.double().cpu().numpy())
        assignments.append(torch.from_numpy(found.labels_).long().to(z.device))
        prototypes.append(normalize(torch.from_numpy(found.cluster_centers_).to(rows)))
        concentrations.append(concentration(rows, assignments[-1], prototypes[-1], temperature, metric=metric))
    return Clusters(torch.stack(assignments), prototypes, concentrations)


def _check_counts(counts: Sequence[int], n: int, of: str) -> None:
    check_type((list, tuple), counts=counts)
    if not counts:
        raise ValueError("counts: expected at least one number of clusters, got none")
    check_count(**{f"counts[{t}]": k for t, k in enumerate(counts)})
    if max(counts) > n:
        raise ValueError(f"counts, {of}: expected at most as many clusters as rows, {n}, got {max(counts)}")


class MEOW(nn.Module):
    """The whole method on one graph: two views, attention over meta-paths, and any way of weighting negatives.

    One step (full batch): ``loss()`` and Adam. A call gives what is kept, the fine view before the projection; make it
    in evaluation mode. State: the networks, and the graph with its masked copy, drawn once when the network was made.
    """

    given: Tensor | None

    def __init__(
        self,
        network: MetaPathNetwork,
        *,
        weights: str | Tensor = "clusters",
        counts: Sequence[int] = (6, 12),
        temperature: float = 0.4,
        prototype_weight: float = 1.0,
    ) -> None:
        r"""Put a projection, and where weights are learned their network, on top of a network of a graph.

        Args:
            network: of N targets, with its masked copy.
            weights: of negatives: "clusters" (MEOW, with prototypes); "learned" (AdaMEOW) or "centered", see
                `PairWeights`; "plain" for InfoNCE; or ``(N, N)`` numbers of at least 0 of one's own, an oracle's say.
            counts: clusters of each clustering.
            temperature: of the contrast and, on average, of the prototypes.
            prototype_weight: :math:`\lambda`.
        """
        super().__init__()
        check_type(MetaPathNetwork, network=network)
        n, dim = network.targets, network.dim
        check_temperature(temperature)
        check_in_range(0, LONGEST, prototype_weight=prototype_weight)
        if isinstance(weights, Tensor):
            check_shapes(weights=(weights, f"{n} {n}"))
            check_entries(0, math.inf, weights=weights)
        else:
            check_choice(WEIGHTS, weights=weights)
        self.weights = weights if isinstance(weights, str) else "given"
        self.register_buffer("given", weights if isinstance(weights, Tensor) else None)
        self.temperature, self.prototype_weight = temperature, prototype_weight
        self.network = network
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        _check_counts(counts, n, "network")
        self.counts = tuple(counts)
        learned = self.weights in ("learned", "centered")
        self.pair_weights = PairWeights(dim, centered=self.weights == "centered") if learned else None

    def forward(self) -> Tensor:
        """Embeddings ``(N, d)`` of all targets."""
        return self.network.fine()

    def loss(self, nodes: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of one full batch, clusters made anew; with ``nodes (b,)`` only they are compared, with one another.

        The generator is that of the clustering.
        """
        check_generator(generator)
        coarse, fine = (normalize(self.head(z)) for z in self.network())
        given = self.given
        if nodes is not None:
            nodes = check_labels(nodes, name="nodes", num_classes=len(coarse))
            check_batch(len(nodes), 2, name="nodes", why="to have a negative")
            coarse, fine = coarse[nodes], fine[nodes]
            given = None if given is None else given[nodes][:, nodes]
        if self.pair_weights is not None:
            return weighted_info_nce(fine, coarse, self.pair_weights(fine, coarse), self.temperature)
        if self.weights == "plain":
            return weighted_info_nce(coarse, fine, coarse.new_zeros(len(coarse), len(coarse)), self.temperature)
        if given is not None:
            return weighted_info_nce(coarse, fine, given.log(), self.temperature)
        counts = [min(k, len(fine)) for k in self.counts]
        clusters = cluster(fine, counts, self.temperature, generator=generator)
        log_weights = negative_weights(clusters.assignments).to(coarse).log()  # log 0: not in the denominator
        contrast = weighted_info_nce(coarse, fine, log_weights, self.temperature)
        return contrast + self.prototype_weight * prototype_loss(coarse, clusters)
