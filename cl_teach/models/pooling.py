"""From the states of many tokens to one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.checks import check_shapes
from ..core.precision import full_precision

__all__ = ["masked_mean"]


@full_precision
def masked_mean(states: Tensor, valid: Tensor) -> Tensor:
    """Mean ``(n, d)`` of states ``(n, T, d)`` over the positions where ``valid (n, T)`` is true; at least float32.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    check_shapes(states=(states, "n T d"), valid=(valid, "n T", bool))
    if not torch.compiler.is_compiling() and not valid.any(1).all():
        row = int((~valid.any(1)).nonzero()[0])
        raise ValueError(f"valid: expected at least one valid position in every row, got row {row} without one")
    return states.masked_fill(~valid[..., None], 0.0).sum(1) / valid.sum(1, keepdim=True)
