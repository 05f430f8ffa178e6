"""A first-in, first-out memory of embeddings: many negatives for the price of one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import check_count, check_shapes
from .similarity import normalize

__all__ = ["FeatureQueue"]


class FeatureQueue(nn.Module):
    """The last ``size`` unit embeddings, oldest overwritten first.

    The storage is a ring: pushing moves a pointer, never the data. It is a buffer, so it follows ``.to(device)`` and is
    saved in ``state_dict``; it never carries a gradient.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning (2020), section 3.2.
    """

    storage: Tensor
    cursor: Tensor
    count: Tensor

    def __init__(self, size: int, dim: int) -> None:
        """Make an empty queue.

        Args:
            size: how many embeddings it holds at most.
            dim: their dimension.

        """
        super().__init__()
        check_count(size=size, dim=dim)
        self.register_buffer("storage", torch.zeros(size, dim))
        self.register_buffer("cursor", torch.tensor(0))  # where the next row goes
        self.register_buffer("count", torch.tensor(0))  # how many rows are filled

    @property
    def size(self) -> int:
        """How many embeddings fit."""
        return self.storage.shape[0]

    @property
    def is_full(self) -> bool:
        """Whether every row has been filled."""
        return int(self.count) == self.size

    @property
    def features(self) -> Tensor:
        """``(k, dim)`` unit embeddings held now, k <= size, in no particular order. A copy, safe to keep."""
        return self.storage[: int(self.count)].clone()

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Store a batch (normalized here); of a batch larger than the queue only the last ``size`` rows stay.

        Args:
            features: ``(n, dim)`` floating.

        """
        check_shapes(features=(features, f"n {self.storage.shape[1]}"))
        kept = normalize(features.detach())[-self.size :].to(self.storage)
        rows = (self.cursor + torch.arange(len(kept), device=self.storage.device)) % self.size
        self.storage[rows] = kept
        self.cursor.copy_((self.cursor + len(kept)) % self.size)
        self.count.copy_((self.count + len(kept)).clamp(max=self.size))
