"""What a run starts from: the device, the scale, the seeds."""

from __future__ import annotations

import os
import random
from typing import TypeVar

import numpy as np
import torch

from ..core.checks import check_choice, check_count

__all__ = ["at_scale", "device", "seed_everything"]

T = TypeVar("T")
SCALES = ("smoke", "small", "full")


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def at_scale(small: T, full: T, smoke: T | None = None) -> T:
    """The value for the scale that the environment asks for with ``CL_TEACH_SCALE``.

    Args:
        small: for a laptop; what one gets without the variable.
        full: for ``CL_TEACH_SCALE=full``, the larger runs on a GPU.
        smoke: for ``CL_TEACH_SCALE=smoke``, seconds that only show that everything runs; ``small`` if None.

    Raises:
        ValueError: the variable holds something else.
    """
    scale = os.environ.get("CL_TEACH_SCALE", "small")
    check_choice(SCALES, CL_TEACH_SCALE=scale)
    if scale == "smoke" and smoke is not None:
        return smoke
    return full if scale == "full" else small


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, and return a fresh generator on `device()` with the same seed.

    Args:
        seed: a whole number from 0 to 2^32 - 1 (NumPy takes no larger one).
    """
    check_count(0, 2**32 - 1, seed=seed)
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator(device()).manual_seed(seed)
