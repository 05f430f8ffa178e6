"""A linear layer that looks at directions only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_shapes
from ..core.similarity import cosine_similarity

__all__ = ["CosineClassifier"]


class CosineClassifier(nn.Module):
    """Logits are cosines of the feature and one direction a class, so they lie in [-1, 1]."""

    def __init__(self, dim: int, num_classes: int) -> None:
        """Draw random directions."""
        super().__init__()
        check_count(dim=dim, num_classes=num_classes)
        self.weight = nn.Parameter(torch.randn(num_classes, dim))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(n, dim)`` to ``(n, num_classes)``."""
        check_shapes(features=(features, f"n {self.weight.shape[1]}"))
        return cosine_similarity(features, self.weight)
