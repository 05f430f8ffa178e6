r"""Two ways to be far from a target q: KL(q || pi), which covers its modes, and KL(pi || q), which seeks them.

On logits the gradients are :math:`\pi_j - q_j` and :math:`\pi_j(\log(\pi_j/q_j) - KL(\pi\|q))`: the second is faster
where mass must leave, the first where it must arrive.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_choice, check_count, check_entries, check_in_range, check_positive, check_shapes
from .precision import full_precision

__all__ = ["descend", "divergence", "divergence_gradient"]

# Of a step: the logits stay in the range of float32.
LARGEST = 1e15


@full_precision
def divergence(logits: Tensor, target: Tensor, kind: str = "forward") -> Tensor:
    """KL(target || pi) for ``"forward"``, mode-covering, or KL(pi || target) for ``"reverse"``, mode-seeking.

    Args:
        logits: ``(K,)`` of pi.
        target: ``(K,)`` probabilities, all positive.
        kind: which of the two.
    """
    check_shapes(logits=(logits, "K"), target=(target, "K"))
    check_entries(0, 1, open_low=True, target=target)
    check_choice(("forward", "reverse"), kind=kind)
    if abs(float(target.detach().sum()) - 1) > 5e-3:  # half precision leaves so much of 1
        raise ValueError(f"target: expected probabilities that sum to 1, got {float(target.sum()):g}")
    log_p, log_q = logits.log_softmax(0), target.log()
    return (target * (log_q - log_p)).sum() if kind == "forward" else (log_p.exp() * (log_p - log_q)).sum()


@full_precision
def divergence_gradient(logits: Tensor, target: Tensor, kind: str = "forward") -> Tensor:
    """Gradient ``(K,)`` of `divergence` in the logits, in closed form; arguments as there."""
    value = divergence(logits, target, kind)
    p = logits.softmax(0)
    return p - target if kind == "forward" else p * (logits.log_softmax(0) - target.log() - value)


@full_precision
def descend(logits: Tensor, target: Tensor, kind: str = "forward", *, step_size: float, steps: int) -> Tensor:
    """Probabilities ``(steps + 1, K)`` along plain gradient descent on the logits, the start first.

    Args:
        logits: ``(K,)`` to begin with.
        target: ``(K,)``, see `divergence`.
        kind: "forward" or "reverse".
        step_size: of the descent.
        steps: how many.
    """
    check_shapes(logits=(logits, "K"), target=(target, "K"))
    check_positive(step_size=step_size)
    check_in_range(0, LARGEST, step_size=step_size)
    check_count(steps=steps)
    path = [logits.softmax(0)]
    for _ in range(steps):
        logits = logits - step_size * divergence_gradient(logits, target, kind)
        path.append(logits.softmax(0))
    return torch.stack(path)
