r"""The softmax contrast of large batches without the table of similarities.

A batch of n embeddings has n x n similarities; written out they fill the memory long before the embeddings do. Nothing
needs them all at once. The loss of row i is

.. math::
    \ell_i = \log\sum_{j\in C(i)} e^{s_{ij}} - s_{i,p(i)}, \qquad s_{ij} = \gamma\, a_i^\top b_j,

and a sum can be taken piece by piece. So the table is visited in square *tiles* that fit into the processor's cache:

- forward: every tile adds its exponentials to the sums of its rows and of its columns. The sums are kept relative to
  the largest exponent met so far, so no exponential is ever taken of a positive number;
- backward: every tile is computed again, turned into its share of the gradient
  :math:`w_i e^{s_{ij}-L_i} + w_j e^{s_{ij}-L_j}` with :math:`L` the finished log-sums, and multiplied by the embeddings
  right away. One product less is saved by keeping the table than the memory is worth;
- if a and b are the same, the table is symmetric: tiles above the diagonal serve rows and columns at once.

Memory is O(n d), time O(n^2 d): two products forward and backward, where autograd on the full table needs three.

Source: the running log-sum is that of Milakov and Gimelshein, Online normalizer calculation for softmax (2018), the
recomputation in the backward pass that of Dao et al., FlashAttention (2022), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_positive

__all__ = ["tiled_contrast", "tiling", "use_tiles"]

# Side of a tile. On the CPU two float32 tiles of 256 x 256 (512 KiB) stay in the second-level cache; a GPU wants few,
# large launches.
CPU_TILE, GPU_TILE = 256, 4096
# With unit rows every logit lies in [-scale, scale]. Up to this scale all exponentials of a row are within float32's
# range of one another, and one exponential serves row and column. Beyond it (temperature below 0.025) each side takes
# its own, relative to its largest.
ONE_EXPONENTIAL = 40.0
# An exponential below e^-60 adds nothing to a sum that contains 1, but numbers below 1e-38 make a CPU some hundred
# times slower at each multiplication. They are made exactly 0.
NEGLIGIBLE = -60.0

_choice: ContextVar[int | None] = ContextVar("tile side: a number, 0 for automatic, None for never", default=0)


@contextmanager
def tiling(side: int | None) -> Iterator[None]:
    """Choose how the losses compute inside a ``with`` block, for tests and benchmarks.

    Args:
        side: tiles of this many rows, or None for the plain formula on the full table.

    Raises:
        ValueError: a side below 1.
    """
    if side is not None:
        check_positive(side=side)
    token = _choice.set(side)
    try:
        yield
    finally:
        _choice.reset(token)


def use_tiles(temperature: float | Tensor) -> bool:
    """Whether the losses take the tiled path: with one temperature for all pairs, unless `tiling` says otherwise.

    Not inside ``torch.compile``, ``torch.func`` transforms and forward-mode differentiation: there the plain formula
    is right, and a hand-written backward pass is not.
    """
    if _choice.get() is None or (isinstance(temperature, Tensor) and temperature.ndim > 0):
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return torch.autograd.forward_ad._current_level < 0


def tiled_contrast(
    a: Tensor,
    b: Tensor | None = None,
    scale: float | Tensor = 1.0,
    *,
    positive: int | None = None,
    skip: tuple[int, ...] = (),
    labels: Tensor | None = None,
) -> Tensor:
    r"""Log-sum of each row's (and column's) candidates, minus the logit of its positive.

    Rows of the table with logits :math:`s_{ij} = \gamma\,a_i^\top b_j` are anchors. Without ``b`` the table is that of
    ``a`` with itself; with ``b`` every column is an anchor too.

    Args:
        a: ``(n, d)`` floating, no row longer than 1.
        b: ``(m, d)`` likewise, or None.
        scale: :math:`\gamma > 0`, one over the temperature; a number or a 0-d tensor, which gets a gradient.
        positive: the diagonal j - i = positive holds the positives, one for every anchor; without ``b`` it is n / 2,
            and its mirror image counts too. None leaves the log-sums alone.
        skip: diagonals j - i that are no candidates.
        labels: ``(n,)``; then only pairs of equal label are candidates (without ``b``).

    Returns:
        ``(n,)``, with ``b`` ``(n + m,)``: rows first. Float16 and bfloat16 are computed in float32 and rounded at the
        end. A row without candidates gives minus infinity.
    """
    if not _choice.get() and max(len(a), 0 if b is None else len(b)) <= _side(a):
        return _plain(a, b, scale, positive, skip, labels)  # a single tile: nothing to save
    return _TiledContrast.apply(a, b, scale, positive, skip, labels)


def _side(a: Tensor) -> int:
    return _choice.get() or (GPU_TILE if a.is_cuda else CPU_TILE)


class _TiledContrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor | None,
        scale: float | Tensor,
        positive: int | None,
        skip: tuple[int, ...],
        labels: Tensor | None,
    ) -> Tensor:
        table = _Table(a, b, scale, positive, skip, labels)
        log_sums = table.log_sums()
        ctx.save_for_backward(a, b, scale if isinstance(scale, Tensor) else None, log_sums)
        ctx.number, ctx.rest = None if isinstance(scale, Tensor) else scale, (positive, skip, labels)
        return (log_sums if positive is None else log_sums - table.positives(positive)).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, log_sums = ctx.saved_tensors
        scale, needed = ctx.number if scale is None else scale, ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            inputs = [x for x, wanted in zip((a, b, scale), needed, strict=True) if wanted]
            found = iter(torch.autograd.grad(_plain(a, b, scale, *ctx.rest), inputs, weights, create_graph=True))
            return *(next(found) if wanted else None for wanted in needed), None, None, None
        table = _Table(a, b, scale, *ctx.rest)
        grad_a, grad_b = table.gradients(weights.to(log_sums.dtype), log_sums)
        grad_scale = None
        if needed[2]:  # every pair of a symmetric table stands in two rows of the gradient
            grad_scale = ((table.a * grad_a).sum() / (2 if b is None else 1) / table.scale).to(scale.dtype)
        return grad_a.to(a.dtype), None if b is None else grad_b.to(b.dtype), grad_scale, None, None, None


class _Table:
    """The table of logits, never written out: where its tiles are, and what happens to each."""

    def __init__(
        self,
        a: Tensor,
        b: Tensor | None,
        scale: float | Tensor,
        positive: int | None,
        skip: tuple[int, ...],
        labels: Tensor | None,
    ) -> None:
        wide = torch.promote_types(a.dtype, torch.float32)
        self.symmetric = b is None
        self.scale = float(scale)
        self.a = a.detach().to(wide)
        self.b = self.a if b is None else b.detach().to(wide)
        self.positive, self.skip, self.labels = positive, skip, labels
        self.diagonals = () if positive is None else (positive, -positive) if self.symmetric else (positive,)
        self.side = _side(a)
        self.narrow = self.scale <= ONE_EXPONENTIAL

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every tile that has to be visited."""
        n, m, side = len(self.a), len(self.b), self.side
        for i in range(0, n, side):
            for j in range(i if self.symmetric else 0, m, side):
                yield slice(i, min(i + side, n)), slice(j, min(j + side, m))

    def logits(self, rows: slice, columns: slice, scaled: Tensor) -> Tensor:
        """One tile of logits; minus infinity where a pair is no candidate."""
        tile = scaled[rows] @ self.b[columns].mT
        for k in self.skip:
            if (diagonal := _diagonal(tile, k, rows, columns)) is not None:
                diagonal.fill_(-math.inf)
        if self.labels is not None:
            tile.masked_fill_(self.labels[rows, None] != self.labels[None, columns], -math.inf)
        return tile

    def log_sums(self) -> Tensor:
        """``(n,)`` or ``(n + m,)`` log-sums of the candidates."""
        n = len(self.a)
        size = n if self.symmetric else n + len(self.b)
        sums = self.a.new_zeros(size)
        largest = None if self.narrow else self.a.new_full((size,), torch.finfo(self.a.dtype).min)
        scaled = self.a * self.scale
        for rows, columns in self.tiles():
            tile = self.logits(rows, columns, scaled)
            sides = [(rows, 1)]
            if not self.symmetric:
                sides.append((slice(n + columns.start, n + columns.stop), 0))
            elif rows != columns:
                sides.append((columns, 0))
            if largest is None:
                tile.sub_(self.scale).exp_()
                for anchors, dim in sides:
                    sums[anchors] += tile.sum(dim)
                continue
            for anchors, dim in sides:
                old, new = largest[anchors], torch.maximum(largest[anchors], tile.amax(dim))
                sums[anchors] = sums[anchors] * (old - new).exp_() + _exp(tile - new.unsqueeze(dim)).sum(dim)
                largest[anchors] = new
        return sums.log_().add_(self.scale if largest is None else largest)

    def positives(self, k: int) -> Tensor:
        """Logits of the positives on diagonal k, in the order of the anchors."""
        own = torch.linalg.vecdot(self.a[: len(self.a) - k], self.b[k:]) * self.scale
        return own.repeat(2)

    def gradients(self, weights: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients with respect to a and b for one weight an anchor."""
        n = len(self.a)
        w_rows, l_rows = weights[:n], log_sums[:n]
        w_columns, l_columns = (w_rows, l_rows) if self.symmetric else (weights[n:], log_sums[n:])
        grad_a = torch.zeros_like(self.a)
        grad_b = grad_a if self.symmetric else torch.zeros_like(self.b)
        if self.narrow:
            u = w_rows * (self.scale - l_rows).exp_()
            v = u if self.symmetric else w_columns * (self.scale - l_columns).exp_()
        scaled = self.a * self.scale
        for rows, columns in self.tiles():
            tile = self.logits(rows, columns, scaled)
            if self.narrow:
                tile.sub_(self.scale).exp_().mul_(u[rows, None] + v[columns])
            else:
                tile = (
                    _exp(tile - l_rows[rows, None])
                    .mul_(w_rows[rows, None])
                    .add_(_exp(tile - l_columns[columns]).mul_(w_columns[columns]))
                )
            for k in self.diagonals:  # before the product: a pair that is nearly right then loses no digits
                if (diagonal := _diagonal(tile, k, rows, columns)) is not None:
                    first = max(rows.start, columns.start - k)
                    i = slice(first, first + len(diagonal))
                    diagonal.sub_(w_rows[i] + w_columns[i.start + k : i.stop + k])
            grad_a[rows].addmm_(tile, self.b[columns])
            if not (self.symmetric and rows == columns):
                grad_b[columns].addmm_(tile.mT, self.a[rows])
        grad_a *= self.scale
        if not self.symmetric:
            grad_b *= self.scale
        return grad_a, grad_b


def _exp(x: Tensor) -> Tensor:
    """Exponential in place, exactly 0 where it is negligible."""
    return torch.threshold_(x, NEGLIGIBLE, -math.inf).exp_()


def _diagonal(tile: Tensor, k: int, rows: slice, columns: slice) -> Tensor | None:
    """The entries j - i = k of the table that lie in a tile, or None."""
    offset = k - columns.start + rows.start
    return tile.diagonal(offset) if -tile.shape[0] < offset < tile.shape[1] else None


def _plain(
    a: Tensor,
    b: Tensor | None,
    scale: float | Tensor,
    positive: int | None,
    skip: tuple[int, ...],
    labels: Tensor | None,
) -> Tensor:
    """The same numbers from the full table: for small batches, and for whoever differentiates twice."""
    wide = torch.promote_types(a.dtype, torch.float32)
    rows, columns = a.to(wide), a.to(wide) if b is None else b.to(wide)
    mask, targets = _mask_and_targets(len(rows), len(columns), skip, positive, wide, a.device)
    if isinstance(scale, Tensor):
        logits = torch.addmm(mask, rows * scale, columns.mT)
    else:  # one operation less
        logits = torch.addmm(mask, rows, columns.mT, alpha=scale)
    if labels is not None:
        logits = logits.masked_fill(labels[:, None] != labels, -math.inf)
    sides = [logits] if b is None else [logits, logits.mT]
    if positive is None:
        losses = [side.logsumexp(1) for side in sides]
    else:
        losses = [F.cross_entropy(side, targets, reduction="none") for side in sides]
    return (losses[0] if b is None else torch.cat(losses)).to(a.dtype)


@lru_cache(maxsize=16)
def _mask_and_targets(
    n: int, m: int, skip: tuple[int, ...], positive: int | None, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What is added to the logits, minus infinity on the skipped diagonals, and the column of each row's positive."""
    with torch.inference_mode(False):  # to be kept, it must be an ordinary tensor
        gap = torch.arange(m, device=device) - torch.arange(n, device=device)[:, None]
        mask = torch.zeros(n, m, dtype=dtype, device=device)
        for k in skip:
            mask[gap == k] = -math.inf
        targets = torch.arange(n, device=device)
        return mask, targets if not positive else targets.roll(positive)
