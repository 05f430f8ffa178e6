"""Random numbers that torch cannot draw from a generator by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_count, check_generator, check_positive

__all__ = ["draw_beta", "draw_seed"]


def draw_beta(a: float, b: float, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw from Beta(a, b); ``torch.distributions.Beta`` takes no generator.

    A Beta draw is the first of two Gamma draws as a share of both.

    Args:
        a: first shape parameter, greater than 0.
        b: second shape parameter, greater than 0.
        *shape: of the result; none for a 0-d tensor.
        generator: on the CPU; the global state of torch if None.

    Returns:
        Float64 in [0, 1], on the CPU.

    """
    check_positive(a=a, b=b)
    check_count(0, **{f"shape[{i}]": size for i, size in enumerate(shape)})
    check_generator(generator)
    x, y = (torch._standard_gamma(torch.full(shape, s, dtype=torch.float64), generator=generator) for s in (a, b))
    return x / (x + y)


def draw_seed(generator: torch.Generator | None = None) -> int:
    """Draw a whole number in [0, 2^31) with which a NumPy or scikit-learn routine starts, so that one generator rules.

    Args:
        generator: the global state of torch if None.
    """
    check_generator(generator)
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**31, (), generator=generator, device=device))
