"""Momentum contrast (MoCo): the student, its slow copy and the queue as one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_generator, check_module, check_same_length
from ..core.contrast import check_temperature, info_nce
from ..core.queue import FeatureQueue
from ..core.teacher import MomentumTeacher
from .apply import apply_network

__all__ = ["MoCo"]


class MoCo(nn.Module):
    """A query finds its key, made by the slow copy, among the keys of the past.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning (2020), algorithm 1; without
    shuffled batch normalization.

    Example:
        >>> moco = MoCo(nn.Linear(5, 4), nn.Linear(4, 3), dim=3, size=8)
        >>> loss = moco.loss(torch.randn(6, 5), torch.randn(6, 5))
        >>> moco.after_step()
        >>> moco(torch.randn(6, 5)).shape, len(moco.queue.features)
        (torch.Size([6, 4]), 6)
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        dim: int,
        size: int = 4096,
        *,
        momentum: float = 0.999,
        temperature: float = 0.2,
    ) -> None:
        """Copy the student and make an empty queue.

        Args:
            encoder: images to features ``(n, f)``; what is kept.
            head: features to embeddings ``(n, dim)``; what is thrown away.
            dim: width of the embeddings.
            size: keys in the queue.
            momentum: of the copy, in [0, 1].
            temperature: greater than 0.
        """
        super().__init__()
        check_module(encoder=encoder, head=head)
        check_temperature(temperature)
        self.student, self.temperature = nn.Sequential(encoder, head), temperature
        self.teacher, self.queue = MomentumTeacher(self.student, momentum), FeatureQueue(size, dim)
        self._keys: Tensor | None = None  # of the last loss, pushed after the step

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(n, f)``."""
        return apply_network(self.student[0], "n f", images=images)

    def loss(self, query: Tensor, key: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """InfoNCE of two views ``(n, ...)``; while the queue is empty, the other keys of the batch are the negatives.

        Nothing is drawn here.
        """
        check_generator(generator)
        check_same_length(query=query, key=key)
        keys, past = apply_network(self.teacher, "n d", key=key), self.queue.features
        if self.training:
            self._keys = keys
        return info_nce(
            apply_network(self.student, "n d", query=query), keys, past if len(past) else None, self.temperature
        )

    def after_step(self) -> None:
        """Move the copy and push the last keys."""
        if self.training and self._keys is not None:
            self.teacher.update(self.student)
            self.queue.push(self._keys)
            self._keys = None
