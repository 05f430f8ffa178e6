"""The tiled contrast of ``cl_teach.core.tiles`` as two Triton kernels, measured beside it on a GPU.

PyTorch's tiles write every tile to the card's memory and read it again for each operation. A kernel keeps it in
registers: a program takes a block of rows, goes along all columns, and stores nothing but log-sums or a gradient. The
price is that no tile serves rows and columns at once; three products of the whole table for NT-Xent instead of two.

It moves into ``cl_teach.core`` when ``tools/gpu.py`` has shown, on a card, the same numbers in less time at every size
that is measured. Until then it is a rival like the others. ``TRITON_INTERPRET=1 python benchmarks/triton_contrast.py``
compares both on a processor, where Triton's interpreter takes the place of its compiler.

Source: as FlashAttention (Dao et al., 2022), section 3.1; the products are made of three in TensorFloat-32, which
together are about as exact as float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cl_teach.core import normalize, tiled_contrast, tiling

# Rows and columns of a block, warps that work on it, stages of its pipeline. At 128 dimensions all fit into the shared
# memory of a Hopper card (227 KiB), the second into that of an Ampere card.
BLOCKS = ((128, 32, 8, 2), (64, 32, 4, 2), (64, 64, 8, 1))
Block = tuple[int, int, int, int]
# A row of the gradient has to fit into registers.
WIDEST = 128
NUMBERS = ["n", "m", "skip", "one", "two"]  # compiled once for all of them
NEVER = 2**30  # a diagonal that no table has
PER_LOG = tl.constexpr(1.4426950408889634)  # 1 / log 2: a card has an instruction for powers of 2


@triton.jit
def _logits(x, y, rows, columns, m, skip):
    """One block of logits, in powers of 2; minus infinity where a pair is no candidate."""
    s = tl.dot(x, tl.trans(y), input_precision="tf32x3")
    gap = columns[None, :] - rows[:, None]
    return tl.where((columns[None, :] < m) & (gap != skip), s, float("-inf"))


@triton.jit(do_not_specialize=NUMBERS)
def _log_sums(X, Y, OUT, n, m, d, scale, skip, R: tl.constexpr, C: tl.constexpr, D: tl.constexpr):
    """OUT[i] = log sum_j exp(scale x_i . y_j) over the candidates j."""
    rows, width = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, D)
    x = tl.load(X + rows[:, None] * d + width, mask=(rows[:, None] < n) & (width < d), other=0.0)
    x *= scale * PER_LOG
    largest, total = tl.full([R], -1e30, tl.float32), tl.zeros([R], tl.float32)
    for start in range(0, m, C):
        columns = start + tl.arange(0, C)
        y = tl.load(Y + columns[:, None] * d + width, mask=(columns[:, None] < m) & (width < d), other=0.0)
        s = _logits(x, y, rows, columns, m, skip)
        new = tl.maximum(largest, tl.max(s, 1))
        total = total * tl.exp2(largest - new) + tl.sum(tl.exp2(s - new[:, None]), 1)
        largest = new
    tl.store(OUT + rows, (largest + tl.log2(total)) / PER_LOG, mask=rows < n)


@triton.jit(do_not_specialize=NUMBERS)
def _gradient(
    X, Y, LX, LY, WX, WY, OUT, n, m, d, scale, skip, one, two, R: tl.constexpr, C: tl.constexpr, D: tl.constexpr
):
    """OUT[i] = scale sum_j (wx_i exp(s_ij - lx_i) + wy_j exp(s_ij - ly_j) - pull_ij) y_j.

    The pull, wx_i + wy_j, is that of the positives, which lie on the diagonals ``one`` and ``two``.
    """
    rows, width = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, D)
    x = tl.load(X + rows[:, None] * d + width, mask=(rows[:, None] < n) & (width < d), other=0.0)
    x *= scale * PER_LOG
    lx = tl.load(LX + rows, mask=rows < n, other=0.0) * PER_LOG
    wx = tl.load(WX + rows, mask=rows < n, other=0.0)
    total = tl.zeros([R, D], tl.float32)
    for start in range(0, m, C):
        columns = start + tl.arange(0, C)
        y = tl.load(Y + columns[:, None] * d + width, mask=(columns[:, None] < m) & (width < d), other=0.0)
        ly = tl.load(LY + columns, mask=columns < m, other=0.0) * PER_LOG
        wy = tl.load(WY + columns, mask=columns < m, other=0.0)
        s = _logits(x, y, rows, columns, m, skip)
        weight = tl.exp2(s - lx[:, None]) * wx[:, None] + tl.exp2(s - ly[None, :]) * wy[None, :]
        gap = columns[None, :] - rows[:, None]
        weight -= tl.where((gap == one) | (gap == two), wx[:, None] + wy[None, :], 0.0)
        total += tl.dot(weight, y, input_precision="tf32x3")
    tl.store(OUT + rows[:, None] * d + width, total * scale, mask=(rows[:, None] < n) & (width < d))


class TritonTiles:
    """A table that is never written out, with the methods that the tiles of ``cl_teach.core`` have.

    Args:
        x: ``(n, d)`` unit rows in float32.
        y: ``(m, d)`` likewise; None for the table of x with itself.
        scale: one over the temperature.
        positive: the diagonal j - i of the positives (and its mirror image where the table is symmetric), or None.
        skip: a diagonal that holds no candidates, or None.
        block: see `BLOCKS`.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        scale: float,
        positive: int | None = None,
        skip: int | None = None,
        block: Block = BLOCKS[0],
    ) -> None:
        if x.dtype != torch.float32 or x.shape[1] > WIDEST:
            raise ValueError(f"x: expected float32, at most {WIDEST} wide, got {x.dtype}, {x.shape[1]} wide")
        self.symmetric = y is None
        self.x, self.y = x.contiguous(), x.contiguous() if y is None else y.contiguous()
        self.scale, self.positive, self.skip, self.block = scale, positive, NEVER if skip is None else skip, block

    def launch(self, kernel: Any, x: Tensor, y: Tensor, *rest: Any) -> None:
        """One program for every block of rows of x."""
        (rows, columns, warps, stages), (n, d) = self.block, x.shape
        sizes = {"R": rows, "C": columns, "D": max(triton.next_power_of_2(d), 16)}
        front, numbers = [v for v in rest if isinstance(v, Tensor)], [v for v in rest if not isinstance(v, Tensor)]
        grid = (triton.cdiv(n, rows),)
        kernel[grid](x, y, *front, n, len(y), d, self.scale, *numbers, **sizes, num_warps=warps, num_stages=stages)

    def losses(self) -> tuple[Tensor, tuple[Tensor]]:
        """One loss an anchor; what to keep: the log-sums."""
        n, k = len(self.x), self.positive
        log_sums = self.x.new_empty(n if self.symmetric else n + len(self.y))
        self.launch(_log_sums, self.x, self.y, log_sums[:n], self.skip)
        if not self.symmetric:
            self.launch(_log_sums, self.y, self.x, log_sums[n:], -self.skip)
        if k is None:
            return log_sums.clone(), (log_sums,)
        own = torch.linalg.vecdot(self.x[: n - k], self.y[k:]) * self.scale
        return log_sums - own.repeat(2), (log_sums,)

    def gradients(self, weights: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor | None]:
        """With respect to x and y, for one weight an anchor."""
        n, weights = len(self.x), weights.contiguous()
        k = NEVER if self.positive is None else self.positive
        x_grad = torch.empty_like(self.x)
        if self.symmetric:
            both = (log_sums, log_sums, weights, weights)
            self.launch(_gradient, self.x, self.x, *both, x_grad, self.skip, k, -k)
            return x_grad, None
        y_grad, parts = torch.empty_like(self.y), [n, len(self.y)]
        (lx, ly), (wx, wy) = log_sums.split(parts), weights.split(parts)
        self.launch(_gradient, self.x, self.y, lx, ly, wx, wy, x_grad, self.skip, k, NEVER)
        self.launch(_gradient, self.y, self.x, ly, lx, wy, wx, y_grad, -self.skip, -k, NEVER)
        return x_grad, y_grad


class _Contrast(torch.autograd.Function):
    """From unit rows to losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor | None, settings: tuple[Any, ...]) -> Tensor:
        losses, (log_sums,) = TritonTiles(x, y, *settings).losses()
        ctx.save_for_backward(x, y, log_sums)
        ctx.settings = settings
        return losses

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        x, y, log_sums = ctx.saved_tensors
        return *TritonTiles(x, y, *ctx.settings).gradients(weights, log_sums), None


def triton_contrast(
    a: Tensor,
    b: Tensor,
    scale: float,
    *,
    stacked: bool = False,
    positive: int | None = None,
    skip: int | None = None,
    block: Block = BLOCKS[0],
) -> Tensor:
    """What `cl_teach.core.tiled_contrast` gives, for two batches and at most one skipped diagonal."""
    x = normalize((torch.cat([a, b]) if stacked else a).float())
    y = None if stacked else normalize(b.float())
    return _Contrast.apply(x, y, (scale, positive, skip, block))


def deviation(n: int, m: int, d: int, scale: float, block: Block, **table: Any) -> float:
    """Largest difference from PyTorch's tiles in float64: losses absolutely, gradients relative to the largest."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(n)
    a, b = (torch.randn(k, d, generator=generator).to(device).requires_grad_() for k in (n, m))
    weights = torch.rand(n + m, generator=generator).to(device)
    found = triton_contrast(a, b, scale, block=block, **table)
    gradients, found = torch.autograd.grad(weights @ found, (a, b)), found.detach()
    skip = () if table.get("skip") is None else (table["skip"],)
    with tiling(16 if n < 128 else 4096):
        wide = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()
        exact = tiled_contrast(*wide, scale, **table | {"skip": skip})
        expected = torch.autograd.grad(weights.double() @ exact, wide)
    apart = [(found - exact.detach()).abs().max()]
    apart += [(one - two).abs().max() / two.abs().max() for one, two in zip(gradients, expected, strict=True)]
    return max(float(each) for each in apart)


SMALL, NT_XENT = (16, 32, 4, 1), {"stacked": True, "skip": 0}
#: Rows, columns, dimensions, scale, block and table: whole blocks, uneven last ones, one pair, a low temperature.
CASES: tuple[tuple[int, int, int, float, Block, dict[str, Any]], ...] = (
    (32, 32, 16, 10.0, SMALL, NT_XENT | {"positive": 32}),
    (35, 35, 33, 10.0, SMALL, NT_XENT | {"positive": 35}),
    (35, 35, 33, 10.0, BLOCKS[0], NT_XENT | {"positive": 35}),
    (1, 1, 5, 1.0, SMALL, NT_XENT | {"positive": 1}),
    (25, 25, 24, 200.0, SMALL, NT_XENT | {"positive": 25}),
    (20, 20, 20, 5.0, SMALL, NT_XENT),
    (33, 33, 17, 14.0, SMALL, {"positive": 0}),
    (33, 33, 17, 200.0, SMALL, {"positive": 0}),
    (19, 41, 8, 7.0, SMALL, {}),
    (35, 35, 8, 7.0, SMALL, {"skip": 0}),
)


if __name__ == "__main__":
    for *sizes, table in CASES:
        print(f"{deviation(*sizes, **table):.1e}", *sizes, table, flush=True)
