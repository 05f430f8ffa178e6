"""When a gradient written by hand may stand in for autograd's."""

from __future__ import annotations

import torch

__all__ = ["gradient_by_hand"]


def gradient_by_hand() -> bool:
    """Whether plain autograd asks for the gradient, so that a hand-written backward pass is right.

    Not inside ``torch.compile``, ``torch.func`` transforms and forward-mode differentiation: they take a formula apart
    themselves, and get the plain one.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch.autograd.forward_ad._current_level < 0
