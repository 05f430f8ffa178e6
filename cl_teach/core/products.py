"""Matrix products of directions in float32 or float64, or of directions that came in bfloat16.

A similarity needs more than the eight bits of bfloat16: at temperature 0.01 the error of its last bit changes an
exponential by a fifth. Its factors do not: their errors average out over the dimensions. So a similarity of bfloat16
directions is a product whose sums are float32 (`similarities`), and only the last product of a gradient, which is
returned in bfloat16 anyway, is rounded as a whole (`pulled`). An AMD processor with bfloat16 instructions took half
of the time of float32 for the first and a quarter for the second.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["half_pays", "pulled", "similarities"]

# Fewer multiplications than this are over before the library has chosen how to do them.
FEW = 2**21


def half_pays(n: int, m: int, d: int, device: torch.device) -> bool:
    """Whether a table of n rows and m columns is faster from bfloat16 directions of d dimensions than from float32."""
    return n * m * d >= FEW and device.type == "cpu" and _multiplies_bfloat16()


@cache
def _multiplies_bfloat16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities") or not hasattr(torch.backends.mkldnn, "matmul"):
        return False  # torch before 2.10
    can = torch.cpu.get_capabilities()
    return can.get("avx512_bf16", False) or can.get("amx_bf16", False)


@cache
def _unread(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What ``addmm`` is given to add 0 times of."""
    return torch.empty((), dtype=dtype, device=device)


def similarities(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None, half: bool = False) -> Tensor:
    """``scale * (a @ b.mT)``, at least float32; written into ``out`` where there is one.

    The factors are rounded to bfloat16 where they are that already, and with ``half``.
    """
    if not half and a.dtype != torch.bfloat16:
        return torch.addmm(_unread(a.dtype, a.device), a, b.mT, beta=0, alpha=scale, out=out)
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    usual = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        wide = a.float()
        return torch.mm(wide, (wide if a is b else b.float()).mT, out=out).mul_(scale)
    finally:
        setting.fp32_precision = usual


def pulled(weights: Tensor, b: Tensor, total: Tensor | None = None, half: bool = False) -> Tensor:
    """``weights @ b``, at least float32; added in place to a ``total`` where there is one.

    All is rounded to bfloat16 where b is that already, and with ``half``.
    """
    if half or b.dtype == torch.bfloat16:
        product = weights.bfloat16() @ b.bfloat16()
        return product.float() if total is None else total.add_(product)
    return weights @ b if total is None else total.addmm_(weights, b)
