"""The small networks on top of an encoder: projection and prediction heads."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.checks import check_count
from .encoders import MLP, of_width

__all__ = ["PredictionHead", "ProjectionHead"]


class ProjectionHead(nn.Module):
    """Map features to the embeddings that a contrastive loss compares; thrown away after training.

    Args:
        in_dim: width of the features.
        out_dim: width of the embeddings.
        hidden: width of the hidden layers.
        layers: number of linear layers; 1 is a linear head.
        norm: of the hidden layers: ``"batch"``, ``"group"``, ``"layer"`` or ``"none"``.

    Shape:
        ``(n, in_dim)`` to ``(n, out_dim)``, not normalized.

    Source: SimCLR (Chen, Kornblith, Norouzi, Hinton 2020), section 4.2; batch normalization in the hidden
    layers as in BYOL (Grill et al. 2020), section 3.3.
    """

    def __init__(
        self, in_dim: int, out_dim: int = 64, hidden: int = 128, layers: int = 2, *, norm: str = "batch"
    ) -> None:
        super().__init__()
        check_count(in_dim=in_dim, out_dim=out_dim, hidden=hidden, layers=layers)
        self.mlp = MLP([in_dim, *[hidden] * (layers - 1), out_dim], norm=norm)

    def forward(self, features: Tensor) -> Tensor:
        """Project ``(n, in_dim)`` to ``(n, out_dim)``."""
        return self.mlp.layers(of_width(features, self.mlp.sizes[0], "features", self))


class PredictionHead(nn.Module):
    """Predict the embedding of the other view from that of this one (BYOL, SimSiam).

    Args:
        dim: width of the embeddings.
        hidden: width of the hidden layer, by default half of ``dim``: SimSiam's bottleneck is a quarter of
            the width.
        norm: of the hidden layer, as for `ProjectionHead`.

    Shape:
        ``(n, dim)`` to ``(n, dim)``.

    Source: SimSiam (Chen and He 2021), section 3; BYOL (Grill et al. 2020), section 3.3.
    """

    def __init__(self, dim: int, hidden: int | None = None, *, norm: str = "batch") -> None:
        super().__init__()
        check_count(dim=dim)
        hidden = max(1, dim // 2) if hidden is None else hidden
        check_count(hidden=hidden)
        self.mlp = MLP([dim, hidden, dim], norm=norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Predict ``(n, dim)`` from ``(n, dim)``."""
        return self.mlp.layers(of_width(embeddings, self.mlp.sizes[0], "embeddings", self))
