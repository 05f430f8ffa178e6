"""Tables of similarities that a softmax contrast visits: a small one kept whole, a large one in tiles.

Both give the losses of their anchors and, for one weight an anchor, the gradient with respect to the unit vectors. What
a table is asked for is a `Task`; `cl_teach.core.tiles` explains the mathematics and is the place to start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .fastest import fastest
from .products import pulled, similarities
from .similarity import direction

__all__ = ["Task", "TiledTable", "WholeTable", "make_table", "tile_side"]

# Sides of a tile to choose from, the usual one first. On a CPU two float32 tiles of 256 x 256 (512 KiB) stay in most
# second-level caches; a GPU wants few, large launches. Which is the fastest is measured at first use.
CPU_SIDES, GPU_SIDES = (256, 128, 512), (4096, 2048, 8192)
# A table of up to so many rows and columns is kept whole.
WHOLE = 512
# A bfloat16 table of up to so many entries keeps its exponentials (16 MiB), a larger one computes them again: there a
# similarity costs twice what a share of the gradient does.
KEPT = 2**22
# Logits are counted in bits: e^s = 2^(s / log 2), the same numbers. On an AMD processor PyTorch's power of two took a
# quarter of the time of its exponential, which it takes from another library.
BIT = math.log(2)
# With unit rows every logit lies in [-scale, scale]. Up to this scale all exponentials and their sums are within
# float32's range, and one exponential serves row and column. Beyond it (temperature below 0.025) each side takes its
# own, relative to its largest.
ONE_EXPONENTIAL = 40.0
# An exponential below 2^-87 adds nothing to a sum that contains 1, but numbers below 1e-38 make a CPU some hundred
# times slower at each multiplication. They are made exactly 0.
NEGLIGIBLE = -87.0

# A number, 0 for automatic, None for no table of this kind at all; see `cl_teach.core.tiles.tiling`.
chosen_side: ContextVar[int | None] = ContextVar("chosen side of a tile", default=0)


class Task(NamedTuple):
    """What a table is asked for; see `tiled_contrast`."""

    stacked: bool
    columns: bool
    positive: int | None
    skip: tuple[int, ...]
    labels: Tensor | None
    unit: bool
    classes: tuple[Tensor, Tensor] | None


def make_table(x: Tensor, y: Tensor | None, scale: float, task: Task, half: bool) -> WholeTable | TiledTable:
    """The table of unit rows x and y (None for x again): whole if small and one exponential serves both sides.

    With ``half`` it multiplies factors rounded to bfloat16, see `cl_teach.core.products`.
    """
    small = max(len(x), 0 if y is None else len(y)) <= WHOLE and not chosen_side.get()
    if small and scale <= ONE_EXPONENTIAL and task.labels is None:
        return WholeTable(x, y, scale, task, half)
    if half:
        x, y = x.bfloat16(), None if y is None else y.bfloat16()
    return TiledTable(x, y, scale, task)


def tile_side(x: Tensor) -> int:
    """The chosen side of a tile, or the fastest."""
    if side := chosen_side.get():
        return side
    if x.is_cuda:
        return fastest("side of a tile", GPU_SIDES, lambda side: _try(side, 16384, x.device), x.device)
    return fastest("side of a tile", CPU_SIDES, lambda side: _try(side, 2048, x.device), x.device)


@torch.no_grad()
def _try(side: int, n: int, device: torch.device) -> None:
    """One pass over a table of n random rows."""
    x, _ = direction(torch.randn(n, 128, generator=torch.Generator().manual_seed(0)).to(device))
    table = TiledTable(x, None, 10.0, Task(True, True, n // 2, (0,), None, True, None), side=side)
    table.gradients(torch.full((n,), 1 / n, device=device), *table.losses()[1])


class WholeTable:
    """A small table. Its exponentials are kept, nothing is computed again."""

    def __init__(self, x: Tensor, y: Tensor | None, scale: float, task: Task, half: bool) -> None:
        self.x, self.y, self.scale, self.half = x, y, scale, half
        self.positive, self.skip = task.positive, task.skip
        self.both = y is not None and task.columns  # rows and columns are different anchors
        self.remake = partial(WholeTable, half=half)  # for the backward pass, from tensors that autograd keeps

    def losses(self) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One loss an anchor; what to keep: the sum of its exponentials, and the table of them."""
        y = self.x if self.y is None else self.y
        table = similarities(self.x, y, self.scale / BIT, half=self.half).exp2_()
        own = None if self.positive is None else table.diagonal(self.positive)
        if own is not None and self.positive in self.skip:
            own = own.clone()
        for k in self.skip:
            table.diagonal(k).zero_()
        sums = torch.cat([table.sum(1), table.sum(0)]) if self.both else table.sum(1)
        if own is None:
            return sums.log(), (sums, table)
        # An own exponential serves either side of a pair, unless only rows are anchors. Not the difference of two
        # logarithms: they are large, and nearly equal where a pair is nearly right.
        return (sums.view(-1, len(own)) / own).log_().flatten(), (sums, table)

    def gradients(self, weights: Tensor | float, sums: Tensor, table: Tensor) -> tuple[Tensor, Tensor | None]:
        """With respect to x and y, for one weight an anchor or one for all."""
        weights = weights * self.scale  # a logit is the scale times a cosine
        share, n = weights / sums, len(self.x)
        if self.y is None:
            weight = (share.unsqueeze(1) + share).mul_(table)  # as anchor, and as candidate of the others
        elif self.both:
            weight = (share[:n].unsqueeze(1) + share[n:]).mul_(table)
        else:
            weight = share.unsqueeze(1) * table
        if self.positive is not None:  # before the product: a pair that is nearly right then loses no digits
            own = weight.diagonal(self.positive)
            sides = len(sums) // len(own)  # each pair is the positive of so many anchors
            pull = weights.view(sides, -1).sum(0) if isinstance(weights, Tensor) else weights * sides
            own.sub_(pull)
            if self.y is None:
                weight.diagonal(-self.positive).sub_(pull)
        if self.y is None:
            return pulled(weight, self.x, half=self.half), None
        return pulled(weight, self.y, half=self.half), pulled(weight.mT, self.x, half=self.half)


class TiledTable:
    """A table that is never written out: its tiles, and what happens to each."""

    def __init__(self, x: Tensor, y: Tensor | None, scale: float, task: Task, side: int | None = None) -> None:
        self.symmetric, self.both = y is None, y is not None and task.columns
        self.x, self.y, self.dtype = x, y, torch.promote_types(x.dtype, torch.float32)
        self.scale, self.side, self.narrow = scale, side or tile_side(x), scale <= ONE_EXPONENTIAL
        self.remake = partial(TiledTable, side=self.side)
        self.positive, self.skip = task.positive, task.skip
        self.height, self.width = len(x), len(x if y is None else y)
        self.rows, self.columns = x.split(self.side), (x if y is None else y).split(self.side)
        self.labels = None if task.labels is None else task.labels.split(self.side)
        self.keeps = self.narrow and x.dtype == torch.bfloat16 and self.height * self.width <= KEPT
        # Two tiles of memory, used again and again: fresh memory costs more than what is computed in it.
        self.room = x.new_empty(2, len(self.rows[0]), len(self.columns[0]), dtype=self.dtype).unbind()

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Which rows and which columns meet in every tile that has to be visited."""
        for i in range(len(self.rows)):
            for j in range(i if self.symmetric else 0, len(self.columns)):
                yield i, j

    def space(self, which: int, i: int, j: int) -> Tensor:
        """Room for a tile; what was there before is lost."""
        room, r, c = self.room[which], len(self.rows[i]), len(self.columns[j])
        return room if room.shape == (r, c) else room.view(-1)[: r * c].view(r, c)

    def diagonal(self, tile: Tensor, k: int, i: int, j: int) -> tuple[Tensor, int] | None:
        """The entries of the table's diagonal k that lie in a tile and the row of the first, or None."""
        offset = k + (i - j) * self.side
        if not -tile.shape[0] < offset < tile.shape[1]:
            return None
        return tile.diagonal(offset), max(i * self.side, j * self.side - k)

    def logits(self, i: int, j: int, own: Tensor | None = None) -> Tensor:
        """One tile of logits in bits, minus infinity for no candidate; writes the positives it meets into own."""
        out = None if self.keeps else self.space(0, i, j)
        tile = similarities(self.rows[i], self.columns[j], self.scale / BIT, out)
        if own is not None and (found := self.diagonal(tile, self.positive or 0, i, j)) is not None:
            entries, first = found
            own[first : first + len(entries)] = entries
        for k in self.skip:
            if (found := self.diagonal(tile, k, i, j)) is not None:
                found[0].fill_(-math.inf)
        if self.labels is not None:
            tile.masked_fill_(self.labels[i][:, None] != self.labels[j], -math.inf)
        return tile

    def sums(self, own: Tensor | None) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Each anchor's sum of exponentials, the logit in bits that they are relative to (None for 0), tiles kept."""
        n, kept = self.height, []
        sums = self.x.new_zeros(n + self.width if self.both else n, dtype=self.dtype)
        largest = None if self.narrow else torch.full_like(sums, torch.finfo(self.dtype).min)
        row_sums, column_sums = self.parts(sums)
        row_largest, column_largest = self.parts(sums if largest is None else largest)
        for i, j in self.tiles():
            tile = self.logits(i, j, own)
            sides = [(1, row_sums[i], row_largest[i])]
            if self.both or (self.symmetric and i != j):
                sides.append((0, column_sums[j], column_largest[j]))
            if self.narrow:
                tile.exp2_()
                if self.keeps:
                    kept.append(tile)
                for dim, total, _ in sides:
                    total += tile.sum(dim)
                continue
            for dim, total, top in sides:
                new = torch.maximum(top, tile.amax(dim))
                total.mul_((top - new).exp2_()).add_(_exp2(tile - new.unsqueeze(dim)).sum(dim))
                top.copy_(new)
        return sums, largest, kept

    def parts(self, anchors: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One number an anchor as the rows and as the columns of tiles see it; only rows are there if only they are."""
        n = self.height
        return anchors[:n].split(self.side), (anchors if self.symmetric else anchors[n:]).split(self.side)

    def losses(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One loss an anchor; what to keep: the log-sums, in bits, and perhaps the exponentials."""
        own = None if self.positive is None else self.x.new_empty(self.height - self.positive, dtype=self.dtype)
        sums, largest, kept = self.sums(own)
        log_sums = sums.log2() if largest is None else sums.log2().add_(largest)
        if own is None:
            return log_sums * BIT, (log_sums, *kept)
        # Not log-sum minus logit: two large numbers that are nearly equal where a pair is nearly right.
        sums = sums.view(-1, len(own))
        losses = (sums / own.exp2()).log_() if largest is None else (largest.view_as(sums) - own) * BIT + sums.log()
        return losses.flatten(), (log_sums, *kept)

    def gradients(self, weights: Tensor, log_sums: Tensor, *kept: Tensor) -> tuple[Tensor, Tensor | None]:
        """With respect to x and y, for one weight an anchor."""
        if not (self.symmetric or self.both):  # a column is no anchor: no weight, and no share of anything
            weights = torch.cat([weights, weights.new_zeros(self.width)])
            log_sums = torch.cat([log_sums, log_sums.new_full((self.width,), math.inf)])
        row_weights, column_weights = self.parts(weights)
        row_sums, column_sums = self.parts(log_sums)
        row_shares, column_shares = self.parts(weights * (-log_sums).exp2_()) if self.narrow else ((), ())
        x_grad = torch.zeros_like(self.x, dtype=self.dtype)
        y_grad = x_grad if self.y is None else torch.zeros_like(self.y, dtype=self.dtype)
        x_parts, y_parts = x_grad.split(self.side), y_grad.split(self.side)
        n, k = self.height, self.positive
        pulls = () if k is None else (k, -k) if self.symmetric else (k,)
        exponentials = iter(kept)
        for i, j in self.tiles():
            if self.narrow:
                tile = torch.add(row_shares[i][:, None], column_shares[j], out=self.space(1, i, j))
                tile *= next(exponentials) if kept else self.logits(i, j).exp2_()
            else:
                tile = self.logits(i, j)
                tile = (
                    _exp2(tile - row_sums[i][:, None])
                    .mul_(row_weights[i][:, None])
                    .add_(_exp2(tile - column_sums[j]).mul_(column_weights[j]))
                )
            for k in pulls:  # before the product, as above
                if (found := self.diagonal(tile, k, i, j)) is not None:
                    entries, first = found
                    column = first + k + (0 if self.symmetric else n)
                    entries -= weights[first : first + len(entries)] + weights[column : column + len(entries)]
            pulled(tile, self.columns[j], x_parts[i])
            if not (self.symmetric and i == j):
                pulled(tile.mT, self.rows[i], y_parts[j])
        x_grad *= self.scale
        return x_grad, None if self.symmetric else y_grad.mul_(self.scale)


def _exp2(x: Tensor) -> Tensor:
    """Power of two in place, exactly 0 where it is negligible."""
    return torch.threshold_(x, NEGLIGIBLE, -math.inf).exp2_()
