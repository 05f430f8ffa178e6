"""Weights without a network: what a checkpoint holds when nobody says what it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_type

__all__ = ["WeightsOnly"]


class WeightsOnly(nn.Module):
    """The weights of an encoder whose network is not known here, under their names."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        """Make room for weights of these names and shapes."""
        super().__init__()
        check_type(dict, weights=weights)
        check_type(Tensor, **{f"weights[{name!r}]": x for name, x in weights.items()})
        for name, x in weights.items():
            *path, leaf = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_buffer(leaf, torch.zeros_like(x))

    def forward(self, *inputs: Tensor) -> Tensor:
        """There is no network to run."""
        raise RuntimeError("this stage was loaded without its network: pass make_encoder to the constructor")
