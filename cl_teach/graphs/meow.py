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
left out (its loss is 0). (5) AdaMEOW falls without bound when all :math:`w_{ij}` shrink together; ``centered=True``
divides each row by its mean, an extension made here. (6) The code estimates the concentration :math:`\phi` from inner
products, so that it *grows* with tightness, the reverse of the method it is modeled on; ``metric="distance"`` is that
one. A negative inner product (NaN in the code) counts as 0 here. (7) K-means is scikit-learn's here, on the CPU.
(8) Pinned here: top neighbors are joined where either side chose the other; the mask of the second copy drops single
feature entries of targets and contexts, and whole (undirected) links; paths have one context, longer ones are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
    check_square,
)
from ..core.contrast import reduce
from ..core.similarity import normalize
from ..models.graph import mean_matrix, scale_by_degrees

__all__ = [
    "MEOW",
    "Clusters",
    "MetaPath",
    "PairWeights",
    "cluster",
    "concentration",
    "meta_path_links",
    "negative_weights",
    "prototype_loss",
    "weighted_contrast",
]


class MetaPath(NamedTuple):
    """A meta-path target, context, target: ``features (M, f)`` of the context nodes, ``incidence (N, M)`` 0 or 1."""

    features: Tensor
    incidence: Tensor


class Clusters(NamedTuple):
    """T clusterings: ``assignments (T, N)``, for each ``(K_t, d)`` unit prototypes and ``(K_t,)`` concentrations."""

    assignments: Tensor
    prototypes: list[Tensor]
    concentrations: list[Tensor]


def meta_path_links(incidence: Tensor, top: int) -> Tensor:
    r"""Link targets that share context nodes, the ``top`` most similar ones by PathSim.

    With :math:`A_{ij}` the number of shared context nodes, PathSim is :math:`2A_{ij}/(A_{ii} + A_{jj})`.

    Args:
        incidence: ``(N, M)`` floating, 0 or 1.
        top: neighbors that each target may choose, from 1; those without a shared node are never chosen.

    Returns:
        ``(N, N)`` 0 or 1, symmetric, no self-loops.

    Raises:
        TypeError: not floating.
        ValueError: not a matrix, entries outside [0, 1], ``top`` out of range.
    """
    check_embeddings(incidence=incidence)
    check_in_range(0, 1, incidence=incidence)
    check_in_range(1, len(incidence), top=top)
    shared = incidence @ incidence.mT  # (N, N)
    own = shared.diagonal()
    similarity = (2 * shared / (own[:, None] + own[None, :]).clamp_min(1)).fill_diagonal_(0)
    best, neighbor = similarity.topk(top, dim=1)
    chosen = torch.zeros_like(similarity).scatter_(1, neighbor, (best > 0).to(similarity))
    return torch.maximum(chosen, chosen.mT)


def negative_weights(assignments: Tensor) -> Tensor:
    """In how many of T clusterings ``(T, N)`` two nodes are apart, ``(N, N)`` integers 0 to T.

    Raises:
        TypeError, ValueError: not a matrix of integers.
    """
    _check_assignments(assignments)
    return (assignments[:, :, None] != assignments[:, None, :]).sum(0)


def weighted_contrast(
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

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, temperature not positive.
    """
    check_embeddings(anchors=anchors, candidates=candidates)
    check_same_shape(anchors=anchors, candidates=candidates)
    check_positive(temperature=temperature)
    left_out = log_weights == -math.inf
    check_square(log_weights=log_weights.masked_fill(left_out, 0.0))
    check_same_length(anchors=anchors, log_weights=log_weights)
    logits = anchors @ candidates.mT / temperature  # (N, N)
    empty = left_out.all(1)
    weighted = (logits + log_weights).masked_fill(left_out & ~empty[:, None], -math.inf)
    weighted = weighted.masked_fill(empty[:, None], 0.0)  # a finite stand-in, so that no gradient is NaN
    return reduce((weighted.logsumexp(1) - logits.diagonal()).masked_fill(empty, 0.0), reduction)


def prototype_loss(anchors: Tensor, clusters: Clusters, *, plain: bool = False) -> Tensor:
    """Each anchor finds the prototype of its own cluster among those of the clustering; a mean over T and N.

    Args:
        anchors: ``(N, d)`` unit rows, used as they are.
        clusters: of the other view, constants.
        plain: leave out the factor N / K of the code's denominator, which has no gradient.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a cluster without prototype, a concentration not positive.
    """
    check_embeddings(anchors=anchors)
    _check_assignments(clusters.assignments)
    check_same_length(anchors=anchors, **{"assignments.T": clusters.assignments.T})
    losses = []
    for assignment, prototypes, phi in zip(*clusters, strict=True):
        check_embeddings(prototypes=prototypes)
        check_same_width(anchors=anchors, prototypes=prototypes)
        check_labels(assignment, len(anchors), name="assignments", num_classes=len(prototypes))
        check_same_length(prototypes=prototypes, concentrations=phi)
        check_positive(concentrations=phi)
        logits = anchors @ prototypes.detach().mT / phi.detach()  # (N, K)
        offset = 0.0 if plain else math.log(len(anchors) / len(prototypes))
        losses.append(F.cross_entropy(logits, assignment) + offset)
    return torch.stack(losses).mean()


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

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a label out of range, temperature not positive, another metric.
    """
    check_embeddings(z=z, centroids=centroids)
    check_same_width(z=z, centroids=centroids)
    check_labels(assignment, len(z), name="assignment", num_classes=len(centroids))
    check_positive(temperature=temperature)
    check_choice(("inner product", "distance"), metric=metric)
    z, own = z.detach(), centroids.detach()[assignment]  # (N, d)
    d = (z * own).sum(1).clamp_min(0) if metric == "inner product" else (z - own).square().sum(1)
    count = torch.bincount(assignment, minlength=len(centroids)).to(z)  # (K,)
    total = torch.zeros_like(count).index_add_(0, assignment, d.sqrt())
    phi = torch.where(count > 1, total / count.clamp_min(1) / (count + 5).log(), torch.zeros_like(count))
    phi = torch.where(count > 1, phi, phi.max())
    phi = phi.clamp(phi.quantile(0.1), phi.quantile(0.9))
    if not phi.mean() > 0:
        return torch.full_like(phi, temperature)
    return phi / phi.mean() * temperature


def cluster(
    z: Tensor, counts: Sequence[int], temperature: float = 0.4, *, metric: str = "inner product", seed: int = 0
) -> Clusters:
    """K-means of unit rows ``(N, d)``, once for each number of clusters; all results are constants.

    Raises:
        TypeError: not floating.
        ValueError: no count, or one outside 1 to N.
    """
    check_embeddings(z=z)
    if not counts:
        raise ValueError("counts: expected at least one number of clusters, got none")
    check_in_range(1, len(z), **{f"counts[{t}]": k for t, k in enumerate(counts)})
    rows = normalize(z.detach())
    assignments, prototypes, concentrations = [], [], []
    for t, k in enumerate(counts):
        found = KMeans(k, n_init=1, random_state=seed + t).fit(rows.double().cpu().numpy())
        assignments.append(torch.from_numpy(found.labels_).long().to(z.device))
        prototypes.append(normalize(torch.from_numpy(found.cluster_centers_).to(rows)))
        concentrations.append(concentration(rows, assignments[-1], prototypes[-1], temperature, metric=metric))
    return Clusters(torch.stack(assignments), prototypes, concentrations)


class PairWeights(nn.Module):
    """AdaMEOW's soft weights: the logarithm of a sigmoid of a two-layer network on the sum of two embeddings."""

    def __init__(self, dim: int, hidden: int = 16, *, centered: bool = False) -> None:
        """Make the layers; ``centered`` divides each row of weights by its mean (an extension)."""
        super().__init__()
        check_positive(dim=dim, hidden=hidden)
        self.first, self.second, self.centered = nn.Linear(dim, hidden), nn.Linear(hidden, 1), centered

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Log-weights ``(N, N)`` of ``(N, d)`` anchors and ``(N, d)`` candidates."""
        pairs = anchors[:, None] + candidates[None, :]  # (N, N, d)
        scores = F.logsigmoid(self.second(torch.tanh(self.first(pairs))).squeeze(2))
        return scores - scores.logsumexp(1, keepdim=True) + math.log(len(scores)) if self.centered else scores


class MEOW(nn.Module):
    """The whole method on one graph: two views, attention over meta-paths, and either way of weighting negatives.

    One step (full batch): ``model(epoch).backward()`` and Adam; afterwards use ``model.embed()``.
    """

    def __init__(
        self,
        targets: Tensor,
        paths: Sequence[MetaPath],
        dim: int = 64,
        *,
        counts: Sequence[int] = (6, 12),
        adaptive: bool = False,
        temperature: float = 0.4,
        prototype_weight: float = 1.0,
        top: int = 10,
        feature_mask: float = 0.3,
        edge_mask: float = 0.2,
        dropout: float = 0.2,
        generator: torch.Generator | None = None,
    ) -> None:
        r"""Link the targets, draw the masks (once) and make the networks.

        Args:
            targets: ``(N, f)`` features of the nodes to embed.
            paths: at least one meta-path.
            dim: width of all layers.
            counts: clusters of each clustering.
            adaptive: AdaMEOW's learned weights instead of clusters and prototypes.
            temperature: of the contrast and, on average, of the prototypes.
            prototype_weight: :math:`\lambda`.
            top: neighbors a target keeps on each meta-path.
            feature_mask: share of the feature entries dropped in the masked copy.
            edge_mask: share of the links dropped there.
            dropout: on the features after the first layer.
            generator: of the masks, on the CPU.
        """
        super().__init__()
        check_embeddings(targets=targets)
        check_positive(dim=dim, temperature=temperature, **{"len(paths)": len(paths)})
        check_in_range(0, 1, feature_mask=feature_mask, edge_mask=edge_mask, dropout=dropout)
        check_in_range(0, math.inf, prototype_weight=prototype_weight)
        self.counts, self.temperature, self.prototype_weight = tuple(counts), temperature, prototype_weight
        features = [targets, *(path.features for path in paths)]
        whole = [meta_path_links(path.incidence, top) for path in paths]
        masked = [a * torch.triu(_kept(a, edge_mask, generator), 1) for a in whole]
        copies = [
            (features, whole),
            ([x * _kept(x, feature_mask, generator) for x in features], [a + a.mT for a in masked]),
        ]
        for c, (xs, links) in enumerate(copies):
            for p, x in enumerate(xs):
                self.register_buffer(f"features_{c}_{p}", x)
            for p, a in enumerate(links):
                self.register_buffer(f"links_{c}_{p}", scale_by_degrees(a))
        for p, path in enumerate(paths):
            check_same_length(targets=targets, **{f"paths[{p}].incidence": path.incidence})
            self.register_buffer(f"means_{p}", mean_matrix(path.incidence))
        self.inputs = nn.ModuleList(nn.Linear(x.shape[1], dim) for x in features)  # one for each type of node
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))  # of the graph network all views share
        self.bends = nn.ModuleList(nn.PReLU() for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.pair_weights = PairWeights(dim) if adaptive else None

    def coarse(self) -> Tensor:
        """The view ``(N, d)`` that knows the targets and who is linked."""
        links = [self.get_buffer(f"links_0_{p}") for p in range(len(self.inputs) - 1)]
        return self._convolve(self._enter(0, 0), torch.stack(links).mean(0))

    def fine(self) -> Tensor:
        """The view ``(N, d)`` that knows the contexts: every meta-path, whole and masked, combined by attention."""
        views = []
        for copy in (0, 1):
            own = self._enter(copy, 0)
            for p in range(len(self.inputs) - 1):
                links = self.get_buffer(f"links_{copy}_{p}")
                context = self.get_buffer(f"means_{p}") @ self._enter(copy, p + 1)  # (N, d)
                views.append(normalize(self._convolve(F.elu(own + links @ context), links)))
        stack = torch.stack(views)  # (2P, N, d)
        share = self.attention(stack).mean(1).softmax(0)  # (2P, 1)
        return (share[:, None] * stack).sum(0)

    def forward(self, epoch: int = 0) -> Tensor:
        """The loss of one full batch; ``epoch`` seeds the clustering, which is made anew."""
        coarse, fine = (normalize(self.head(z)) for z in (self.coarse(), self.fine()))
        if self.pair_weights is not None:
            return weighted_contrast(fine, coarse, self.pair_weights(fine, coarse), self.temperature)
        clusters = cluster(fine, self.counts, self.temperature, seed=epoch)
        log_weights = negative_weights(clusters.assignments).to(coarse).log()  # log 0: not in the denominator
        contrast = weighted_contrast(coarse, fine, log_weights, self.temperature)
        return contrast + self.prototype_weight * prototype_loss(coarse, clusters)

    @torch.no_grad()
    def embed(self) -> Tensor:
        """What is kept: the fine view before the projection; call it in evaluation mode."""
        return self.fine()

    def _enter(self, copy: int, kind: int) -> Tensor:
        return self.dropout(F.elu(self.inputs[kind](self.get_buffer(f"features_{copy}_{kind}"))))

    def _convolve(self, x: Tensor, links: Tensor) -> Tensor:
        for layer, bend in zip(self.layers, self.bends, strict=True):
            x = bend(links @ layer(x))
        return F.layer_norm(x, x.shape)  # over the whole matrix, as in the code


def _kept(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    return (torch.rand(x.shape, generator=generator) >= rate).to(x)


def _check_assignments(assignments: Tensor) -> None:
    if isinstance(assignments, Tensor) and assignments.ndim != 2:
        raise ValueError(f"assignments: expected shape (T, N), got {tuple(assignments.shape)}")
    check_labels(assignments.flatten(), assignments.numel(), name="assignments")
