r"""LightGCL: Simple Yet Effective Graph Contrastive Learning for Recommendation. Xuheng Cai, Chao Huang, Lianghao Xia,
Xubin Ren; ICLR 2023; https://arxiv.org/abs/2302.08191.

The normalized user-item matrix :math:`\tilde A_{ij} = R_{ij}/\sqrt{\deg i\,\deg j}` and its truncated singular value
decomposition :math:`U S V^\top` of rank q carry the same embeddings twice, along the observed edges and along the
reconstruction,

.. math::
    E^{(u)}_l = \tilde A E^{(v)}_{l-1}, \qquad G^{(u)}_l = U S\,(V^\top E^{(v)}_{l-1}), \qquad \text{items alike},

and an InfoNCE term ties the two for every node. In the paper it is taken layer by layer with cosines, anchors local,
candidates the global embeddings of the batch,

.. math::
    L_s = \sum_{l=1}^{L}\sum_{i} -\log\frac{e^{\cos(z_{i,l},g_{i,l})/\tau}}{\sum_k e^{\cos(z_{i,l},g_{k,l})/\tau}},
    \qquad L = L_{rec} + \lambda_1 L_s + \lambda_2\lVert E_0\rVert_F^2 .

What changes and why: other graph methods make the second view by dropping edges at random, which removes signal and
keeps noise. Here it is made once and without chance: large singular values hold the pattern that users share, small
ones the noise. Three thin factors stand for a dense matrix, so that a layer costs (I + J) q d.

Paper versus code. (1) The repository holds two models. Today's (form "inner product") is linear, sums the layers and
contrasts the sums with inner products against all nodes; its global layer starts from the *local* layer before. The
paper's (form "layerwise") has LeakyReLU, residuals and cosines a layer. Both are here, the second by default. (2)
Today's code clips the positive logit to [-5, 5], where its gradient ends and only repulsion is left, and adds 1e-8
inside the logarithm; both are kept, the logarithm by logsumexp. (3) The old code decomposes the matrix before
normalization, today's after; after is used. (4) The old code puts a random mask and a learned d x d map on the global
view, neither of which is in the paper's equation; both are left out. (5) The code's decomposition is randomized; here
it is exact. (6) The paper's form sums over nodes; `lightgcl` takes means, so that its weight does not depend on the
batch. (7) Chosen here: one draw of dropped edges a step for all layers; `LightGCL` ranks by BPR in both forms, where
the old code has a hinge, and its layer-wise form is linear and without residual unless asked otherwise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.contrast import check_temperature
from ..core.interactions import draw_unseen
from ..core.precision import full_precision
from ..core.ranking import bpr
from ..core.similarity import normalize
from ..models.graph import normalize_interactions

Batch = tuple[Tensor, Tensor, Tensor]

__all__ = [
    "Layers",
    "LightGCL",
    "LightGCLTerms",
    "LowRank",
    "Sides",
    "drop_edges",
    "inner_product_contrast",
    "layerwise_contrast",
    "lightgcl",
    "low_rank_view",
    "propagate",
]

# Where today's code clips the logit of the positive, and what it adds inside the logarithm.
CLIP, EPSILON = 5.0, 1e-8
# Squares and products of such numbers, summed over layers, stay in the range of float32.
LARGEST = 1e12
# One entry of a sparse matrix costs as much as about ten of a dense one.
SPARSE = 16


class LowRank(NamedTuple):
    """A dense matrix kept as thin factors: ``u (I, q)``, ``s (q,)``, ``v (J, q)``."""

    u: Tensor
    s: Tensor
    v: Tensor


class Sides(NamedTuple):
    """Something of both sides of the graph: of the users and of the items."""

    users: Tensor
    items: Tensor


class Layers(NamedTuple):
    """What each layer of both propagations gives; every entry a pair of ``(I, d)`` and ``(J, d)``.

    Attributes:
        carried: L + 1 entries, the tables and what each layer hands on (the residual stream, if there is one).
        local: L entries, along the observed edges.
        global_: L entries, along the reconstruction; none without one.
    """

    carried: list[Sides]
    local: list[Sides]
    global_: list[Sides]

    def local_sum(self) -> Sides:
        """Sum of the layers that rank items, layer 0 included."""
        return _total(self.carried)

    def global_sum(self) -> Sides:
        """Sum of the global layers and of layer 0."""
        return _total([self.carried[0], *self.global_])


class LightGCLTerms(NamedTuple):
    """The objective and its parts, scalars; ``loss`` is weighted, the others are not."""

    loss: Tensor
    recommendation: Tensor
    contrast: Tensor


@full_precision
def low_rank_view(adjacency: Tensor, rank: int) -> LowRank:
    """The best approximation of a matrix of the given rank, as factors.

    Args:
        adjacency: ``(I, J)``.
        rank: q, from 0 (nothing is left) to the smaller side.

    Returns:
        The factors, without a gradient. Their signs are arbitrary; only the product matters.

    Example:
        >>> groups = torch.block_diag(torch.ones(2, 3), torch.ones(2, 3)).bool()
        >>> view = low_rank_view(normalize_interactions(groups), 2)
        >>> bool((((view.u * view.s) @ view.v.mT > 1e-4) == groups).all())  # two groups are of rank two
        True
    """
    check_shapes(adjacency=(adjacency, "I J"))
    check_entries(-LARGEST, LARGEST, adjacency=adjacency)
    check_count(0, rank=rank)
    if rank > min(adjacency.shape):
        raise ValueError(f"rank, adjacency: expected a rank of at most {min(adjacency.shape)}, got {rank}")
    u, s, vh = torch.linalg.svd(adjacency.detach(), full_matrices=False)
    return LowRank(u[:, :rank], s[:rank], vh[:rank].mT)


def drop_edges(adjacency: Tensor, rate: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Zero each entry of ``(I, J)`` with chance ``rate`` and scale the others by 1/(1 - rate), so that the mean stays.

    The generator lives on the device of ``adjacency``; the rate is in [0, 1).
    """
    check_shapes(adjacency=(adjacency, "I J"))
    check_in_range(0, 1, rate=rate)
    check_generator(generator)
    if rate == 1:
        raise ValueError("rate: expected a number below 1, got 1")
    kept = torch.rand(adjacency.shape, generator=generator, device=adjacency.device) >= rate
    return finite_result(adjacency * kept / (1 - rate), adjacency=adjacency, rate=rate)


@full_precision
def propagate(
    tables: Sides,
    adjacency: Tensor,
    view: LowRank | None,
    layers: int = 2,
    *,
    slope: float = 1.0,
    residual: bool = False,
) -> Layers:
    """Carry both tables along the observed edges and, from the same start, along the low-rank view.

    Args:
        tables: ``(I, d)`` of the users and ``(J, d)`` of the items.
        adjacency: ``(I, J)`` normalized, edges dropped or not; a table, or a coalesced sparse matrix.
        view: from `low_rank_view`; None for LightGCN, without global layers.
        layers: L, at least 1.
        slope: of the LeakyReLU on every layer; 1 is linear (today's code), 0.5 is the paper's.
        residual: whether a layer hands on the sum of its output and its input (the paper).
    """
    check_type(Sides, tables=tables)
    users, items = tables
    is_table = not isinstance(adjacency, Tensor) or adjacency.layout != torch.sparse_coo
    entries = adjacency if is_table else adjacency.values()
    shape = "I J" if is_table else "E"
    sizes = check_shapes(**{"tables.users": (users, "I d"), "tables.items": (items, "J d")}, adjacency=(entries, shape))
    if tuple(adjacency.shape) != (sizes["I"], sizes["J"]):
        raise ValueError(f"adjacency: expected shape {sizes['I'], sizes['J']}, got {tuple(adjacency.shape)}")
    if view is not None:
        _check_view(view, adjacency)
    both: dict[str, Any] = {"tables.users": users, "tables.items": items}
    check_entries(-LARGEST, LARGEST, **both, adjacency=entries)
    check_count(layers=layers)
    check_in_range(-1, 1, slope=slope)
    check_flag(residual=residual)
    graph = _without_zeros(adjacency) if is_table else adjacency
    carried, local, global_ = [tables], [], []
    for _ in range(layers):
        e = carried[-1]
        z = _bent(Sides(graph @ e.items, graph.t() @ e.users), slope)
        local.append(z)
        if view is not None:
            u, s, v = view
            global_.append(_bent(Sides((u * s) @ (v.mT @ e.items), (v * s) @ (u.mT @ e.users)), slope))
        carried.append(Sides(z.users + e.users, z.items + e.items) if residual else z)
    last = torch.cat([*carried[-1], *(global_[-1] if global_ else ())])
    finite_result(last, tables=users, adjacency=adjacency, layers=layers)
    return Layers(carried, local, global_)


def _bent(sides: Sides, slope: float) -> Sides:
    return sides if slope == 1 else Sides(*(F.leaky_relu(x, slope) for x in sides))


def _check_view(view: LowRank, adjacency: Tensor) -> None:
    check_type(LowRank, view=view)
    shapes = [(len(adjacency), 0), (0,), (adjacency.shape[1], 0)]
    if [tuple(getattr(x, "shape", ())) for x in view] == shapes:  # of rank 0, which is legal
        return
    named: dict[str, Any] = {"view.u": view.u, "view.s": view.s, "view.v": view.v}
    wanted = {name: (x, shape) for (name, x), shape in zip(named.items(), ("I q", "q", "J q"), strict=True)}
    check_shapes(**wanted)
    for name, rows, size in (("view.u", view.u, adjacency.shape[0]), ("view.v", view.v, adjacency.shape[1])):
        if len(rows) != size:
            raise ValueError(f"{name}: expected {size} rows, got {len(rows)}")
    check_entries(-LARGEST, LARGEST, **named)


def _without_zeros(adjacency: Tensor) -> Tensor:
    """A matrix with few entries as a sparse one, which multiplies faster; a table that wants a gradient stays one."""
    if adjacency.requires_grad or torch.compiler.is_compiling():  # how many there are is no matter of shapes
        return adjacency
    few = SPARSE * int(adjacency.count_nonzero()) < adjacency.numel()
    return adjacency.to_sparse() if few else adjacency


@full_precision
def inner_product_contrast(global_: Tensor, local: Tensor, nodes: Tensor, temperature: float = 0.2) -> Tensor:
    r"""Contrast of today's code: global anchors of the batch against *all* local embeddings, nothing normalized.

    .. math:: \frac1{|X|}\sum_{i\in X}\Big[\log\Big(\sum_k e^{\langle G_i,E_k\rangle/\tau} + 10^{-8}\Big)
              - \mathrm{clip}(\langle G_i,E_i\rangle/\tau, -5, 5)\Big]

    Args:
        global_: ``(N, d)`` sums over layers.
        local: ``(N, d)``.
        nodes: ``(|X|,)`` indices of the anchors, repetitions count.
        temperature: greater than 0.
    """
    check_shapes(global_=(global_, "N d"), local=(local, "N d"), nodes=(nodes, "X", int))
    nodes = check_labels(nodes, name="nodes", num_classes=len(local))
    check_temperature(temperature)
    logits = global_[nodes] @ local.mT / temperature  # (|X|, N)
    finite_result(logits, global_=global_, local=local, temperature=temperature)
    own = logits.gather(1, nodes[:, None])[:, 0].clamp(-CLIP, CLIP)
    return (torch.logaddexp(logits.logsumexp(1), logits.new_tensor(math.log(EPSILON))) - own).mean()


@full_precision
def layerwise_contrast(
    layers: Layers, user_ids: Tensor, item_ids: Tensor, temperature: float = 0.2, *, reduction: str = "sum"
) -> Sides:
    """Contrast of the paper: in every layer, find a node's global embedding among those of the batch by cosine.

    Args:
        layers: from `propagate`.
        user_ids: ``(B,)`` users of the batch, best each once.
        item_ids: ``(B',)`` items of the batch.
        temperature: greater than 0.
        reduction: over the nodes, ``"sum"`` (paper) or ``"mean"``; layers are summed.

    Returns:
        The scalar of either side.
    """
    check_temperature(temperature)
    check_choice(("sum", "mean"), reduction=reduction)
    _check_layers(layers)
    sides = []
    for side, (name, ids) in enumerate((("user_ids", user_ids), ("item_ids", item_ids))):
        check_shapes(**{name: (ids, "B", int)})
        ids = check_labels(ids, name=name, num_classes=len(layers.carried[0][side]))
        total = layers.carried[0][side].new_zeros(())
        for z, g in zip(layers.local, layers.global_, strict=True):
            logits = normalize(z[side][ids]) / temperature @ normalize(g[side][ids]).mT  # (B, B)
            total = total + F.cross_entropy(logits, torch.arange(len(ids), device=ids.device), reduction=reduction)
        sides.append(total)
    return Sides(*sides)


@full_precision
def lightgcl(
    layers: Layers,
    batch: Batch,
    temperature: float = 0.2,
    *,
    weight: float = 0.2,
    decay: float = 1e-7,
    form: str = "layerwise",
) -> LightGCLTerms:
    """The whole objective: BPR, contrast of the two views, squared norm of both tables.

    Args:
        layers: what `propagate` makes of the tables.
        batch: indices of users, of items they met and of items they did not, ``(B,)`` each.
        temperature: of the contrast.
        weight: of the contrast; 0 gives LightGCN with a sum over layers.
        decay: of the squared norms of the whole tables.
        form: ``"layerwise"`` (the paper's, a mean over the different nodes of the batch) or ``"inner product"``
            (today's code; repetitions in the batch count).
    """
    check_in_range(0, LARGEST, weight=weight, decay=decay)
    check_choice(("inner product", "layerwise"), form=form)
    _check_layers(layers)
    check_type((list, tuple), batch=batch)
    if len(batch) != 3:
        raise ValueError(f"batch: expected users, items they met and items they did not, got {len(batch)} parts")
    check_shapes(**{f"batch[{i}]": (ids, "B", int) for i, ids in enumerate(batch)})
    sizes = [len(layers.carried[0][side]) for side in (0, 1, 1)]
    users, met, unseen = (
        check_labels(ids, name=f"batch[{i}]", num_classes=n)
        for i, (ids, n) in enumerate(zip(batch, sizes, strict=True))
    )
    e, g, items = layers.local_sum(), layers.global_sum(), torch.cat([met, unseen])
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):  # without a weight it is only measured
        if form == "layerwise":
            sides = layerwise_contrast(layers, users.unique(), items.unique(), temperature, reduction="mean")
        else:
            sides = Sides(
                inner_product_contrast(g.users, e.users, users, temperature),
                inner_product_contrast(g.items, e.items, items, temperature),
            )
    contrast = sides.users + sides.items
    recommendation = bpr(e.users[users], e.items[met], e.items[unseen])
    norms = torch.stack([table.square().sum() for table in layers.carried[0]]).sum()
    loss = recommendation + weight * contrast + decay * norms
    return LightGCLTerms(finite_result(loss, layers=norms, weight=weight, decay=decay), recommendation, contrast)


class LightGCL(nn.Module):
    """Two embedding tables and the two fixed views of the graph; a call gives the embeddings of both sides.

    One step: ``loss(users, met)`` and Adam. State: the tables, the graph and the factors of its low-rank view.
    """

    adjacency: Tensor

    def __init__(
        self,
        interactions: Tensor,
        dim: int = 32,
        rank: int = 5,
        layers: int = 2,
        *,
        slope: float = 1.0,
        residual: bool = False,
        temperature: float = 0.2,
        weight: float = 0.2,
        decay: float = 1e-7,
        form: str = "layerwise",
        edge_dropout: float = 0.0,
    ) -> None:
        """Decompose the graph and draw the tables (Xavier, from torch's global state).

        Args:
            interactions: ``(I, J)`` boolean, the training part.
            dim: width of the embeddings.
            rank: of the global view.
            layers: of the propagation.
            slope: as in `propagate`.
            residual: as in `propagate`.
            temperature: as in `lightgcl`.
            weight: as in `lightgcl`.
            decay: as in `lightgcl`.
            form: as in `lightgcl`.
            edge_dropout: share of the edges that a training step leaves out of the local view.
        """
        super().__init__()
        check_count(dim=dim, layers=layers)
        check_count(0, rank=rank)
        check_shapes(interactions=(interactions, "I J", bool))
        if rank > min(interactions.shape):
            raise ValueError(f"rank, interactions: expected a rank of at most {min(interactions.shape)}, got {rank}")
        check_in_range(-1, 1, slope=slope)
        check_flag(residual=residual)
        check_temperature(temperature)
        check_in_range(0, LARGEST, weight=weight, decay=decay)
        check_choice(("inner product", "layerwise"), form=form)
        check_in_range(0, 0.999, edge_dropout=edge_dropout)
        self.layers, self.slope, self.residual, self.edge_dropout = layers, slope, residual, edge_dropout
        self.temperature, self.settings = temperature, {"weight": weight, "decay": decay}
        self.form = form
        self._made: tuple[Tensor, int, Tensor] | None = None
        self.register_buffer("adjacency", normalize_interactions(interactions))
        for name, factor in low_rank_view(self.adjacency, rank)._asdict().items():
            self.register_buffer(f"view_{name}", factor)
        self.users, self.items = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, dim))) for n in interactions.shape
        )

    def propagate(self, graph: Tensor | None = None) -> Layers:
        """All layers of both views, the local one along ``graph (I, J)``, the whole one if None."""
        if graph is not None:
            check_shapes(graph=(graph, f"{len(self.users)} {len(self.items)}"))
            check_entries(-LARGEST, LARGEST, graph=graph)
        view = LowRank(*(self.get_buffer(f"view_{name}") for name in LowRank._fields))
        return self._layers(self._graph() if graph is None else graph, view)

    def forward(self) -> Sides:
        """Embeddings ``(I, d)`` and ``(J, d)``, from the local view alone; with `bpr`, this is LightGCN."""
        return self._layers(self._graph(), None).local_sum()

    def _graph(self) -> Tensor:
        """The adjacency as `_without_zeros` has it: made once, and again after it was replaced or written to."""
        table = self.adjacency
        if table.requires_grad or table.is_inference() or torch.is_inference_mode_enabled():
            return table
        if torch.compiler.is_compiling():
            return table
        if self._made is None or self._made[0] is not table or self._made[1] != table._version:
            self._made = table, table._version, _without_zeros(table)
        return self._made[2]

    def _layers(self, graph: Tensor, view: LowRank | None) -> Layers:
        tables = Sides(self.users, self.items)
        return propagate(tables, graph, view, self.layers, slope=self.slope, residual=self.residual)

    def loss(
        self,
        users: Tensor,
        met: Tensor,
        unseen: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> LightGCLTerms:
        """The objective of a batch.

        Args:
            users: ``(B,)``.
            met: ``(B,)`` items they met.
            unseen: ``(B,)`` items they did not meet; None to draw them.
            generator: of what is drawn, on the CPU.
        """
        if unseen is None:
            unseen = draw_unseen(self.adjacency > 0, users, generator=generator)
        graph = None
        if self.training and self.edge_dropout > 0:
            graph = drop_edges(self.adjacency.cpu(), self.edge_dropout, generator=generator).to(self.adjacency)
        found = self.propagate(graph)
        named = {"users": users, "met": met, "unseen": unseen}
        check_shapes(**{name: (ids, "B", int) for name, ids in named.items()})
        sizes = [len(self.users), len(self.items), len(self.items)]
        ids = [check_labels(x, name=k, num_classes=n) for (k, x), n in zip(named.items(), sizes, strict=True)]
        return lightgcl(found, (ids[0], ids[1], ids[2]), self.temperature, form=self.form, **self.settings)

    @torch.no_grad()
    def scores(self) -> Tensor:
        """``(I, J)`` scores for ranking; mask the training items before ranking."""
        e = self()
        return e.users @ e.items.mT


def _total(layers: list[Sides]) -> Sides:
    return Sides(*(sum(side[1:], side[0]) for side in zip(*layers, strict=True)))


def _check_layers(layers: Layers) -> None:
    check_type(Layers, layers=layers)
    for name, stack in layers._asdict().items():
        check_type((list, tuple), **{f"layers.{name}": stack})
        for i, sides in enumerate(stack):
            check_type(Sides, **{f"layers.{name}[{i}]": sides})
    sizes = {name: len(stack) for name, stack in layers._asdict().items()}
    if sizes["local"] < 1 or sizes["global_"] != sizes["local"] or sizes["carried"] != sizes["local"] + 1:
        raise ValueError(f"layers: expected L + 1 carried, L local and L global ones, L at least 1, got {sizes}")
    specs: dict[str, Any] = {}
    for name, stack in layers._asdict().items():
        for i, (users, items) in enumerate(stack):
            specs[f"layers.{name}[{i}].users"], specs[f"layers.{name}[{i}].items"] = (users, "I d"), (items, "J d")
    check_shapes(**specs)
    tables: dict[str, Any] = {name: x for name, (x, _) in specs.items()}
    check_entries(-LARGEST, LARGEST, **tables)
