"""Graphs with several kinds of nodes: who is linked through what, and a network that knows both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import check_count, check_entries, check_generator, check_in_range, check_shapes, check_type
from ..core.precision import full_precision
from ..core.similarity import normalize
from .graph import mean_matrix, scale_by_degrees

__all__ = ["MetaPath", "MetaPathNetwork", "meta_path_links"]


class MetaPath(NamedTuple):
    """A meta-path target, context, target: ``features (M, f)`` of the context nodes, ``incidence (N, M)`` 0 or 1."""

    features: Tensor
    incidence: Tensor


@full_precision
def meta_path_links(incidence: Tensor, top: int) -> Tensor:
    r"""Link targets that share context nodes, the ``top`` most similar ones by PathSim.

    With :math:`A_{ij}` the number of shared context nodes, PathSim is :math:`2A_{ij}/(A_{ii} + A_{jj})`.

    Args:
        incidence: ``(N, M)`` floating, 0 or 1.
        top: neighbors that each target may choose, from 1 to N; those without a shared node are never chosen.

    Returns:
        ``(N, N)`` 0 or 1, symmetric, no self-loops.
    """
    check_shapes(incidence=(incidence, "N M"))
    check_entries(0, 1, incidence=incidence)
    check_count(top=top)
    if top > len(incidence):
        raise ValueError(f"top, incidence: expected at most {len(incidence)} neighbors, got {top}")
    shared = incidence @ incidence.mT  # (N, N)
    own = shared.diagonal()
    similarity = (2 * shared / (own[:, None] + own[None, :]).clamp_min(1)).fill_diagonal_(0)
    best, neighbor = similarity.topk(top, dim=1)
    chosen = torch.zeros_like(similarity).scatter_(1, neighbor, (best > 0).to(similarity))
    return torch.maximum(chosen, chosen.mT)


class MetaPathNetwork(nn.Module):
    """Two views of the targets of a graph: coarse (who is linked) and fine (through what), with shared layers.

    Every type of node has a map of its own into width d. The graph and a copy of it, masked once, are kept as buffers.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts (2023), as released.
    """

    def __init__(
        self,
        targets: Tensor,
        paths: Sequence[MetaPath],
        dim: int = 64,
        *,
        top: int = 10,
        feature_mask: float = 0.3,
        edge_mask: float = 0.2,
        dropout: float = 0.2,
        generator: torch.Generator | None = None,
    ) -> None:
        """Link the targets, draw the masks and make the layers.

        Args:
            targets: ``(N, f)`` features of the nodes to embed.
            paths: at least one meta-path.
            dim: width of all layers.
            top: neighbors a target keeps on each meta-path.
            feature_mask: share of the feature entries dropped in the masked copy.
            edge_mask: share of the links dropped there.
            dropout: on the features after the first layer.
            generator: of the masks, on the CPU.
        """
        super().__init__()
        check_shapes(targets=(targets, "N f"))
        check_count(dim=dim)
        check_in_range(0, 1, feature_mask=feature_mask, edge_mask=edge_mask, dropout=dropout)
        check_generator(generator)
        _check_paths(targets, paths)
        self.targets, self.dim = len(targets), dim
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
            self.register_buffer(f"means_{p}", mean_matrix(path.incidence))
        self.inputs = nn.ModuleList(nn.Linear(x.shape[1], dim) for x in features)  # one for each type of node
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))  # of the graph network all views share
        self.bends = nn.ModuleList(nn.PReLU() for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.attention = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1, bias=False))

    def forward(self) -> tuple[Tensor, Tensor]:
        """The coarse and the fine view, ``(N, d)`` each."""
        return self.coarse(), self.fine()

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

    def _enter(self, copy: int, kind: int) -> Tensor:
        return self.dropout(F.elu(self.inputs[kind](self.get_buffer(f"features_{copy}_{kind}"))))

    def _convolve(self, x: Tensor, links: Tensor) -> Tensor:
        for layer, bend in zip(self.layers, self.bends, strict=True):
            x = bend(links @ layer(x))
        return F.layer_norm(x, x.shape)  # over the whole matrix, as in the code


def _kept(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    return (torch.rand(x.shape, generator=generator) >= rate).to(x)


def _check_paths(targets: Tensor, paths: Sequence[MetaPath]) -> None:
    check_type((list, tuple), paths=paths)
    if not paths:
        raise ValueError("paths: expected at least one meta-path, got none")
    for p, path in enumerate(paths):
        check_type(MetaPath, **{f"paths[{p}]": path})
        names = f"paths[{p}].incidence", f"paths[{p}].features"
        check_shapes(targets=(targets, "N f"), **{names[0]: (path.incidence, "N M"), names[1]: (path.features, "M g")})
        links: dict[str, Any] = {names[0]: path.incidence}
        check_entries(0, 1, **links)
