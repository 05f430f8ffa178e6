r"""The softmax contrast of large batches without the table of similarities.

A batch of n embeddings has n x n similarities; written out they fill the memory long before the embeddings do. Nothing
needs them all at once. The loss of row i is

.. math::
    \ell_i = \log\sum_{j\in C(i)} e^{s_{ij}} - s_{i,p(i)}, \qquad s_{ij} = \gamma\, a_i^\top b_j,

and a sum can be taken piece by piece. So the table is visited in square *tiles* that fit into the processor's cache:

- forward: every tile adds its exponentials to the sums of its rows and of its columns. At low temperatures, where they
  would leave the range of float32, the sums are kept relative to the largest exponent met so far;
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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .by_hand import gradient_by_hand
from .checks import check_positive
from .fastest import fastest
from .similarity import along_sphere, direction, normalize

__all__ = ["tiled_contrast", "tiling", "use_tiles"]

# Sides of a tile to choose from, the usual one first. On a CPU two float32 tiles of 256 x 256 (512 KiB) stay in most
# second-level caches; a GPU wants few, large launches. Which is the fastest is measured at first use.
CPU_SIDES, GPU_SIDES = (256, 128, 512), (4096, 2048, 8192)
# A table of up to so many rows and columns is kept whole.
WHOLE = 512
# With unit rows every logit lies in [-scale, scale]. Up to this scale all exponentials and their sums are within
# float32's range, and one exponential serves row and column. Beyond it (temperature below 0.025) each side takes its
# own, relative to its largest.
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

    Not where the gradient must be autograd's own, see `cl_teach.core.by_hand`.
    """
    if _choice.get() is None or (isinstance(temperature, Tensor) and temperature.ndim > 0):
        return False
    return gradient_by_hand()


class _Task(NamedTuple):
    """What a table is asked for; see `tiled_contrast`."""

    stacked: bool
    columns: bool
    positive: int | None
    skip: tuple[int, ...]
    labels: Tensor | None


def tiled_contrast(
    a: Tensor,
    b: Tensor | None = None,
    scale: float | Tensor = 1.0,
    *,
    stacked: bool = False,
    columns: bool = True,
    positive: int | None = None,
    skip: tuple[int, ...] = (),
    labels: Tensor | None = None,
) -> Tensor:
    r"""Log-sum of each row's (and column's) candidates, minus the logit of its positive.

    Rows of the table with logits :math:`s_{ij} = \gamma\,\hat a_i^\top\hat b_j` are anchors. Without ``b``, and with
    ``stacked``, the table is symmetric; otherwise every column is an anchor too, unless ``columns`` is false.

    Args:
        a: ``(n, d)`` floating, finite, any length (normalized here).
        b: ``(m, d)`` likewise, or None for the table of ``a`` with itself.
        scale: :math:`\gamma > 0`, one over the temperature; a number or a 0-d tensor, which gets a gradient.
        stacked: the table of all n + m rows with themselves.
        columns: whether the columns of a table that is not symmetric are anchors.
        positive: the diagonal j - i = positive holds the positives, one for every anchor; in a symmetric table it is
            half its side, and its mirror image counts too. None leaves the log-sums alone.
        skip: diagonals j - i that are no candidates.
        labels: one a row of a symmetric table; then only pairs of equal label are candidates.

    Returns:
        One number an anchor, rows first. Float16 and bfloat16 are computed in float32 and rounded at the end. A row
        without candidates gives minus infinity.
    """
    return _Contrast.apply(a, b, scale, _Task(stacked, columns, positive, skip, labels))


class _Contrast(torch.autograd.Function):
    """From vectors to losses in one step: for a small batch, what autograd notes costs more than what is computed."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, scale: float | Tensor, task: _Task) -> Tensor:
        x, x_length = direction(torch.cat([a, b]), in_place=True) if task.stacked and b is not None else direction(a)
        y, y_length = (None, None) if task.stacked or b is None else direction(b)
        ctx.number, ctx.task = float(scale), task  # read once: on a GPU it is waited for
        losses, kept = _table(x, y, ctx.number, task).losses()
        ctx.save_for_backward(a, b, scale if isinstance(scale, Tensor) else None, x, x_length, y, y_length, *kept)
        return losses.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, x, x_length, y, y_length, *kept = ctx.saved_tensors
        number, task, wanted = ctx.number, ctx.task, ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            inputs = [value for value, want in zip((a, b, scale), wanted, strict=False) if want]
            rows = _plain(a, b, number if scale is None else scale, task)
            found = iter(torch.autograd.grad(rows, inputs, weights, create_graph=True))
            return *(next(found) if want else None for want in wanted[:3]), None
        table = (_Whole if len(kept) == 2 else _Tiles)(x, y, number, task)
        x_grad, y_grad = table.gradients(weights.to(x.dtype), *kept)
        scale_grad = None
        if wanted[2]:  # every pair of a symmetric table stands in two rows of the gradient
            scale_grad = ((x * x_grad).sum() / (2 if y is None else 1) / number).to(scale.dtype)
        a_grad = along_sphere(x_grad, x, x_length).to(a.dtype)
        if task.stacked:
            return a_grad[: len(a)], a_grad[len(a) :], scale_grad, None
        b_grad = None if y_grad is None else along_sphere(y_grad, y, y_length).to(b.dtype)
        return a_grad, b_grad, scale_grad, None


def _table(x: Tensor, y: Tensor | None, scale: float, task: _Task) -> _Whole | _Tiles:
    """Whole, if it is small, and one exponential serves row and column; else in tiles."""
    small = max(len(x), 0 if y is None else len(y)) <= WHOLE and not _choice.get()
    if small and scale <= ONE_EXPONENTIAL and task.labels is None:
        return _Whole(x, y, scale, task)
    return _Tiles(x, y, scale, task)


def _side(x: Tensor) -> int:
    """The chosen side of a tile, or the fastest."""
    if side := _choice.get():
        return side
    if x.is_cuda:
        return fastest("side of a tile", GPU_SIDES, lambda side: _try(side, 16384, x.device), x.device)
    return fastest("side of a tile", CPU_SIDES, lambda side: _try(side, 2048, x.device), x.device)


@torch.no_grad()
def _try(side: int, n: int, device: torch.device) -> None:
    """One pass over a table of n random rows."""
    x, _ = direction(torch.randn(n, 128, generator=torch.Generator().manual_seed(0)).to(device))
    with tiling(side):
        table = _Tiles(x, None, 10.0, _Task(True, True, n // 2, (0,), None))
        table.gradients(torch.full((n,), 1 / n, device=device), *table.losses()[1])


class _Whole:
    """A small table. Its exponentials are kept, nothing is computed again."""

    def __init__(self, x: Tensor, y: Tensor | None, scale: float, task: _Task) -> None:
        self.x, self.y, self.scale, self.positive, self.skip = x, y, scale, task.positive, task.skip
        self.both = y is not None and task.columns  # rows and columns are different anchors

    def losses(self) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One loss an anchor; what to keep: the sum of its exponentials, and the table of them."""
        table = (self.x @ (self.x if self.y is None else self.y).mT).mul_(self.scale)
        table.exp_()
        own = None if self.positive is None else table.diagonal(self.positive).clone()
        for k in self.skip:
            table.diagonal(k).zero_()
        sums = torch.cat([table.sum(1), table.sum(0)]) if self.both else table.sum(1)
        if own is None:
            return sums.log(), (sums, table)
        # An own exponential serves either side of a pair, unless only rows are anchors. Not the difference of two
        # logarithms: they are large, and nearly equal where a pair is nearly right.
        return (sums.view(-1, len(own)) / own).log_().flatten(), (sums, table)

    def gradients(self, weights: Tensor, sums: Tensor, table: Tensor) -> tuple[Tensor, Tensor | None]:
        """With respect to x and y, for one weight an anchor."""
        weights = weights * self.scale  # a logit is the scale times a cosine
        share, n = weights / sums, len(self.x)
        weight = share[:n, None]
        if self.y is None or self.both:  # as anchor and as candidate
            weight = weight + (share[n:] if self.both else share)
        weight = weight * table
        if self.positive is not None:  # before the product: a pair that is nearly right then loses no digits
            pull = weights.view(-1, len(weight.diagonal(self.positive))).sum(0)
            weight.diagonal(self.positive).sub_(pull)
            if self.y is None:
                weight.diagonal(-self.positive).sub_(pull)
        return (weight @ self.x, None) if self.y is None else (weight @ self.y, weight.mT @ self.x)


class _Tiles:
    """A table that is never written out: where its tiles are, and what happens to each."""

    def __init__(self, x: Tensor, y: Tensor | None, scale: float, task: _Task) -> None:
        self.symmetric, self.both = y is None, y is not None and task.columns
        self.x, self.y = x, x if y is None else y
        self.scale, self.side, self.narrow = scale, _side(x), scale <= ONE_EXPONENTIAL
        self.positive, self.skip, self.labels = task.positive, task.skip, task.labels

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of every tile that has to be visited."""
        n, m, side = len(self.x), len(self.y), self.side
        for i in range(0, n, side):
            for j in range(i if self.symmetric else 0, m, side):
                yield slice(i, min(i + side, n)), slice(j, min(j + side, m))

    def logits(self, rows: slice, columns: slice, own: Tensor | None = None) -> Tensor:
        """One tile of logits, minus infinity where a pair is no candidate; writes the positives it meets into own."""
        tile = (self.x[rows] * self.scale) @ self.y[columns].mT
        if own is not None and (diagonal := _diagonal(tile, self.positive or 0, rows, columns)) is not None:
            first = max(rows.start, columns.start - (self.positive or 0))
            own[first : first + len(diagonal)] = diagonal
        for k in self.skip:
            if (diagonal := _diagonal(tile, k, rows, columns)) is not None:
                diagonal.fill_(-math.inf)
        if self.labels is not None:
            tile.masked_fill_(self.labels[rows, None] != self.labels[None, columns], -math.inf)
        return tile

    def sums(self, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Each anchor's sum of exponentials, and the logit they are relative to (None for 0)."""
        n = len(self.x)
        size = n + len(self.y) if self.both else n
        sums = self.x.new_zeros(size)
        largest = None if self.narrow else self.x.new_full((size,), torch.finfo(self.x.dtype).min)
        for rows, columns in self.tiles():
            tile = self.logits(rows, columns, own)
            sides = [(rows, 1)]
            if self.both:
                sides.append((slice(n + columns.start, n + columns.stop), 0))
            elif self.symmetric and rows != columns:
                sides.append((columns, 0))
            if largest is None:
                tile.exp_()
                for anchors, dim in sides:
                    sums[anchors].add_(tile.sum(dim))  # not +=, which would write the slice once more
                continue
            for anchors, dim in sides:
                old, new = largest[anchors], torch.maximum(largest[anchors], tile.amax(dim))
                sums[anchors] = sums[anchors] * (old - new).exp_() + _exp(tile - new.unsqueeze(dim)).sum(dim)
                largest[anchors] = new
        return sums, largest

    def losses(self) -> tuple[Tensor, tuple[Tensor]]:
        """One loss an anchor; what to keep: the log-sums."""
        own = None if self.positive is None else self.x.new_empty(len(self.x) - self.positive)
        sums, largest = self.sums(own)
        log_sums = sums.log() if largest is None else sums.log().add_(largest)
        if own is None:
            return log_sums.clone(), (log_sums,)
        # Not log-sum minus logit: two large numbers that are nearly equal where a pair is nearly right.
        sums = sums.view(-1, len(own))
        losses = (sums / own.exp()).log_() if largest is None else sums.log_().add_(largest.view_as(sums) - own)
        return losses.flatten(), (log_sums,)

    def gradients(self, weights: Tensor, log_sums: Tensor) -> tuple[Tensor, Tensor | None]:
        """With respect to x and y, for one weight an anchor."""
        n = len(self.x)
        w_rows, l_rows = weights[:n], log_sums[:n]
        w_columns, l_columns = (w_rows, l_rows) if self.symmetric else (weights[n:], log_sums[n:])
        if not (self.symmetric or self.both):  # a column is no anchor: no weight, and no share of anything
            w_columns, l_columns = self.y.new_zeros(len(self.y)), self.y.new_full((len(self.y),), math.inf)
        x_grad = torch.zeros_like(self.x)
        y_grad = x_grad if self.symmetric else torch.zeros_like(self.y)
        k = self.positive
        pulls = () if k is None else (k, -k) if self.symmetric else (k,)
        if self.narrow:
            u = w_rows * (-l_rows).exp_()
            v = u if self.symmetric else w_columns * (-l_columns).exp_()
        for rows, columns in self.tiles():
            tile = self.logits(rows, columns)
            if self.narrow:
                tile.exp_().mul_(u[rows, None] + v[columns])
            else:
                tile = (
                    _exp(tile - l_rows[rows, None])
                    .mul_(w_rows[rows, None])
                    .add_(_exp(tile - l_columns[columns]).mul_(w_columns[columns]))
                )
            for k in pulls:  # before the product, as above
                if (diagonal := _diagonal(tile, k, rows, columns)) is not None:
                    first = max(rows.start, columns.start - k)
                    i = slice(first, first + len(diagonal))
                    diagonal.sub_(w_rows[i] + w_columns[i.start + k : i.stop + k])
            x_grad[rows].addmm_(tile, self.y[columns])
            if not (self.symmetric and rows == columns):
                y_grad[columns].addmm_(tile.mT, self.x[rows])
        x_grad *= self.scale
        return x_grad, None if self.symmetric else y_grad.mul_(self.scale)


def _exp(x: Tensor) -> Tensor:
    """Exponential in place, exactly 0 where it is negligible."""
    return torch.threshold_(x, NEGLIGIBLE, -math.inf).exp_()


def _diagonal(tile: Tensor, k: int, rows: slice, columns: slice) -> Tensor | None:
    """The entries j - i = k of the table that lie in a tile, or None."""
    offset = k - columns.start + rows.start
    return tile.diagonal(offset) if -tile.shape[0] < offset < tile.shape[1] else None


def _plain(a: Tensor, b: Tensor | None, scale: float | Tensor, task: _Task) -> Tensor:
    """The same numbers as autograd would have them, for whoever differentiates twice."""
    wide = torch.promote_types(a.dtype, torch.float32)
    parts = [normalize(part.to(wide)) for part in (a, b) if part is not None]
    x = torch.cat(parts) if task.stacked else parts[0]
    y = x if task.stacked else parts[-1]
    logits = scale * (x @ y.mT)
    gap = torch.arange(len(y), device=a.device) - torch.arange(len(x), device=a.device)[:, None]
    left_out = torch.isin(gap, torch.tensor(task.skip, device=a.device))
    if task.labels is not None:
        left_out |= task.labels[:, None] != task.labels
    candidates = logits.masked_fill(left_out, -math.inf)
    sums = candidates.logsumexp(1)
    if not task.stacked and b is not None and task.columns:
        sums = torch.cat([sums, candidates.logsumexp(0)])
    if task.positive is not None:
        own = logits.diagonal(task.positive)
        sums = (sums.view(-1, len(own)) - own).flatten()
    return sums.to(a.dtype)
