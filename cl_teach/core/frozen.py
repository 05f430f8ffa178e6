"""A network as it was: the reference that a policy may not leave, and a look at a network without its dropout."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .checks import check_module

__all__ = ["FrozenCopy", "evaluating"]


class FrozenCopy(nn.Module):
    """A copy of a network that never changes: no gradient, and in evaluation mode whatever the module around it is in.

    With its dropout on, a reference would differ from itself in two passes over the same tokens.

    Args:
        network: copied now; what happens to it later is no matter.

    Example:
        >>> frozen = FrozenCopy(nn.Dropout(0.5)).train()
        >>> frozen(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        check_module(network=network)
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenCopy:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network gave when it was copied, without a graph."""
        return self.network(*args, **kwargs)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Put a network and all its parts into evaluation mode, and afterward each part back into the mode it was in."""
    check_module(network=network)
    modes = {part: part.training for part in network.modules()}
    try:
        yield network.eval()
    finally:
        for part, mode in modes.items():
            part.training = mode
