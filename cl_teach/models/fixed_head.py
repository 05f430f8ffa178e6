"""A head without parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_in_range, check_shapes

__all__ = ["FixedHead"]


class FixedHead(nn.Module):
    r"""A head without parameters: :math:`z_k = r_k / \kappa^k` for coordinate k of the representation.

    The encoder adapts to it: coordinates that the head keeps large take what the loss wants large, later ones keep the
    rest. Downstream uses the representation r below it. :math:`\kappa = 1` is the identity.

    Source: Xue et al. (2024), released code (default :math:`\kappa` 1.05 in pre-training).

    Example:
        >>> FixedHead(3, kappa=2.0)(torch.ones(1, 3)).tolist()
        [[1.0, 0.5, 0.25]]
    """

    scale: Tensor

    def __init__(self, dim: int, kappa: float = 1.05) -> None:
        """Make the head.

        Args:
            dim: width d of the representation.
            kappa: decay from one coordinate to the next, at least 1.
        """
        super().__init__()
        check_count(dim=dim)
        check_in_range(1, math.inf, kappa=kappa)
        self.register_buffer("scale", float(kappa) ** -torch.arange(dim, dtype=torch.float64))

    def forward(self, representation: Tensor) -> Tensor:
        """Scale ``(n, d)`` to ``(n, d)``."""
        check_shapes(representation=(representation, f"n {len(self.scale)}"))
        return representation * self.scale.to(representation)
