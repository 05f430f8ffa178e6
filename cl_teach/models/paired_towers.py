"""Two towers for pairs of things, each with several heads: what is compared, and what an extra loss looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_callable,
    check_count,
    check_in_range,
    check_module,
    check_shapes,
    check_type,
)
from .apply import apply_network
from .encoders import MLP

__all__ = ["HeadedTower", "PairedTowers", "Views"]


class Views(NamedTuple):
    """A global view ``(N, ...)`` and a list of local views of the same samples: images, texts or embeddings."""

    whole: Tensor
    local: Sequence[Tensor]

    def map(self, network: Callable[[Tensor], Tensor]) -> Views:
        """Every view through a network."""
        check_callable(network=network)
        return Views(network(self.whole), [network(x) for x in self.local])


class HeadedTower(nn.Module):
    """One modality: an encoder, a linear head z for global views, an MLP head h for local ones, a projector v for both.

    Args:
        encoder: inputs to features ``(N, width)``.
        width: of the features.
        dim: of all embeddings.
        hidden: of the MLPs.
        dropout: on the features of local views.

    Shape:
        `Views` of inputs to `Views` of embeddings (z of the global view, h of the local ones) and `Views` of
        projections, which are standardized over the batch.
    """

    def __init__(self, encoder: nn.Module, width: int, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_module(encoder=encoder)
        check_count(width=width, dim=dim, hidden=hidden)
        check_in_range(0, 1, dropout=dropout)
        self.encoder, self.dropout = encoder, nn.Dropout(dropout)
        self.z, self.h = nn.Linear(width, dim), MLP([width, hidden, hidden, dim])
        self.v = nn.Sequential(MLP([width, hidden, dim]), nn.BatchNorm1d(dim, affine=False))

    def embed(self, inputs: Tensor, *, name: str = "inputs") -> Tensor:
        """``(N, dim)`` by the head of global views; ``name`` is what the caller calls them."""
        features = apply_network(self.encoder, "N f", **{name: inputs})
        check_shapes(**{name: (features, f"N {self.z.in_features}")})
        return self.z(features)

    def forward(self, views: Views, *, name: str = "views") -> tuple[Views, Views]:
        """Embeddings and projections of all views; ``name`` is what the caller calls them."""
        check_type(tuple, **{name: views})
        if len(views) != 2:
            raise ValueError(f"{name}: expected a global view and a list of local ones, got {len(views)} parts")
        check_type((list, tuple), **{f"{name}.local": views[1]})
        given = {f"{name}.whole": views[0], **{f"{name}.local[{i}]": view for i, view in enumerate(views[1])}}
        features = {key: apply_network(self.encoder, "N f", **{key: view}) for key, view in given.items()}
        check_shapes(**{key: (x, f"N {self.z.in_features}") for key, x in features.items()})
        if self.training:
            check_batch(len(features[f"{name}.whole"]), 2, name=name, why="to normalize over the batch")
        whole, *local = features.values()
        local = [self.dropout(x) for x in local]
        embedded, projected = Views(self.z(whole), [self.h(x) for x in local]), Views(whole, local).map(self.v)
        for found in (embedded, projected):
            check_shapes(**{key: (x, "N d") for key, x in zip(given, (found.whole, *found.local), strict=True)})
        return embedded, projected


class PairedTowers(nn.Module):
    """Both towers in one module, so that one slow copy serves both."""

    def __init__(self, image: HeadedTower, text: HeadedTower) -> None:
        super().__init__()
        check_type(HeadedTower, image=image, text=text)
        self.image, self.text = image, text

    def forward(self, images: Views, texts: Views) -> tuple[Views, Views, Views, Views]:
        """Embeddings and projections of the images, then of the texts."""
        image, text = self.image(images, name="images"), self.text(texts, name="texts")
        check_shapes(images=(image[0].whole, "N d"), texts=(text[0].whole, "N d"))
        return *image, *text
