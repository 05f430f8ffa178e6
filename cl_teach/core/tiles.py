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
from typing import Any

import torch
from torch import Tensor

from .by_hand import gradient_by_hand
from .checks import check_positive, check_shapes
from .precision import without_autocast
from .products import half_pays
from .similarity import along_sphere, direction, normalize
from .tables import Task, WholeTable, chosen_side, make_table

__all__ = ["tiled_contrast", "tiling", "use_tiles"]


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
    token = chosen_side.set(side)
    try:
        yield
    finally:
        chosen_side.reset(token)


def use_tiles(temperature: float | Tensor) -> bool:
    """Whether the losses take the tiled path: with one temperature for all pairs, unless `tiling` says otherwise.

    Not where the gradient must be autograd's own, see `cl_teach.core.by_hand`.
    """
    if chosen_side.get() is None or (isinstance(temperature, Tensor) and temperature.ndim > 0):
        return False
    return gradient_by_hand()


@without_autocast
def tiled_contrast(
    a: Tensor,
    b: Tensor | None = None,
    scale: float | Tensor = 1.0,
    names: tuple[str, str] = ("a", "b"),
    *,
    stacked: bool = False,
    columns: bool = True,
    positive: int | None = None,
    skip: tuple[int, ...] = (),
    labels: Tensor | None = None,
    unit: bool = False,
    classes: tuple[Tensor, Tensor] | None = None,
    reduction: str = "none",
) -> Tensor:
    r"""Log-sum of each row's (and column's) candidates, minus the logit of its positive.

    Rows of the table with logits :math:`s_{ij} = \gamma\,\hat a_i^\top\hat b_j` are anchors. Without ``b``, and with
    ``stacked``, the table is symmetric; otherwise every column is an anchor too, unless ``columns`` is false.

    Args:
        a: ``(n, d)`` floating, finite, any length (normalized here).
        b: ``(m, d)`` likewise, or None for the table of ``a`` with itself.
        scale: :math:`\gamma > 0`, one over the temperature; a number or a 0-d tensor, which gets a gradient.
        names: of a and b in an error about their values.
        stacked: the table of all n + m rows with themselves.
        columns: whether the columns of a table that is not symmetric are anchors.
        positive: the diagonal j - i = positive holds the positives, one for every anchor; in a symmetric table it is
            half its side, and its mirror image counts too. None leaves the log-sums alone.
        skip: diagonals j - i that are no candidates.
        labels: one a row of a symmetric table; then only pairs of equal label are candidates.
        classes: of the rows of a symmetric table, counted from 0, ``(n,)``, and their sizes ``(k,)``; then the mean
            logit of the others of its class is taken off instead of a positive's (0 in a class of one).
        unit: the rows of a table of ``a`` with itself have length 1 already, and at least float32.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the anchors.

    Returns:
        One number an anchor, rows first, or a scalar; at least float32. Float16 is computed in float32, and so is
        bfloat16 but for the factors of large products, see `cl_teach.core.products`. A row without candidates gives
        minus infinity.
    """
    task = Task(stacked, columns, positive, skip, labels, unit, classes)
    ahead = reduction != "none" and torch.is_grad_enabled()
    try:
        return _Contrast.apply(a, b, scale, task, reduction, ahead)
    except ValueError:  # NaN or infinity, met where the lengths are taken
        for name, x in zip(names, (a, b), strict=True):
            check_shapes(**{name: (x, "n d?")})
        raise


class _Contrast(torch.autograd.Function):
    """From vectors to losses in one step: for a small batch, what autograd notes costs more than what is computed.

    Where all anchors weigh the same, the gradient of a small table is computed in the forward pass, with ``ahead``.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor | None, scale: float | Tensor, task: Task, reduction: str, ahead: bool
    ) -> Tensor:
        x, x_length, y, y_length = _directions(a, b, task)
        ctx.number, ctx.task, ctx.reduction = float(scale), task, reduction  # read once: on a GPU it is waited for
        came = {a.dtype} if b is None else {a.dtype, b.dtype}
        half = came == {torch.bfloat16} and half_pays(len(x), len(x if y is None else y), x.shape[1], x.device)
        table = make_table(x, y, ctx.number, task, half)
        x, y = table.x, table.y
        losses, kept = table.losses()
        if task.classes is not None:
            others, count = _others(x, *task.classes)
            losses -= torch.linalg.vecdot(others, x.to(others.dtype)).mul_(ctx.number / count)
        ctx.remake, ctx.anchors, ctx.ahead = table.remake, len(losses), False
        to_keep: tuple[Tensor | None, ...] = (x, x_length, y, y_length, *kept)
        if ahead and isinstance(table, WholeTable) and any(ctx.needs_input_grad):
            ctx.ahead, weight = True, 1 / len(losses) if reduction == "mean" else 1.0
            x_grad, y_grad = table.gradients(weight, *kept)
            if task.classes is not None:  # every pair of a class twice, as anchor and as positive
                x_grad.addcmul_(others, weight * ctx.number / count[:, None], value=-2)
            del table, kept, to_keep  # the table is not needed any more
            to_keep = _along(x_grad, y_grad, x, x_length, y, y_length, ctx)
        ctx.save_for_backward(a, b, scale if isinstance(scale, Tensor) else None, *to_keep)
        return _reduced(losses, reduction)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, *kept = ctx.saved_tensors
        number, task, wanted = ctx.number, ctx.task, ctx.needs_input_grad
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            inputs = [value for value, want in zip((a, b, scale), wanted, strict=False) if want]
            loss = _reduced(_plain(a, b, number if scale is None else scale, task, weights.dtype), ctx.reduction)
            found = iter(torch.autograd.grad(loss, inputs, weights, create_graph=True))
            return *(next(found) if want else None for want in wanted[:3]), None, None, None
        if ctx.ahead:
            a_grad, b_grad, scale_grad = (None if known is None else known * weights for known in kept)
        else:
            if ctx.reduction != "none":
                weights = (weights / ctx.anchors if ctx.reduction == "mean" else weights).expand(ctx.anchors)
            x, x_length, y, y_length, *kept = kept
            x_grad, y_grad = ctx.remake(x, y, number, task).gradients(weights, *kept)
            if task.classes is not None:
                others, count = _others(x, *task.classes)
                share = (weights * number / count)[:, None]
                x_grad -= others.mul_(share).add_(_others(share * x, *task.classes)[0])
            a_grad, b_grad, scale_grad = _along(x_grad, y_grad, x, x_length, y, y_length, ctx)
        if task.stacked and a_grad is not None and b is not None:
            a_grad, b_grad = a_grad.split((len(a), len(b)))
        grads = ((a_grad, a), (b_grad, b), (scale_grad, scale))
        return *(None if grad is None else grad.to(like.dtype) for grad, like in grads), None, None, None


def _directions(a: Tensor, b: Tensor | None, task: Task) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Unit rows of the table and their lengths, unit columns and theirs (None for the rows again)."""
    if task.unit:
        return a.detach(), None, None, None
    if task.stacked and b is not None:
        x, x_length = direction(torch.cat([a, b]), in_place=True)
    else:
        x, x_length = direction(a)
    y, y_length = (None, None) if task.stacked or b is None else direction(b)
    if y is not None and y.dtype != x.dtype:
        x, y = x.double(), y.double()
    return x, x_length, y, y_length


def _others(x: Tensor, group: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's sum over the others of its class, at least float32, and their number, at least 1."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    totals = x.new_zeros(len(sizes), x.shape[1]).index_add_(0, group, x)
    return totals.index_select(0, group).sub_(x), (sizes[group] - 1).clamp_(min=1).to(x.dtype)


def _along(
    x_grad: Tensor,
    y_grad: Tensor | None,
    x: Tensor,
    x_length: Tensor | None,
    y: Tensor | None,
    y_length: Tensor | None,
    ctx: Any,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """From gradients of directions to those of rows, columns and the scale; overwrites the former."""
    x, scale_grad = x.to(x_grad.dtype), None
    if ctx.needs_input_grad[2]:  # every pair of a symmetric table stands in two rows of the gradient
        scale_grad = (x * x_grad).sum() / (ctx.number * (2 if y is None else 1))
    if x_length is not None:
        x_grad = along_sphere(x_grad, x, x_length)
    if y_grad is not None and y is not None and y_length is not None:
        y_grad = along_sphere(y_grad, y.to(y_grad.dtype), y_length)
    return x_grad, y_grad, scale_grad


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _plain(a: Tensor, b: Tensor | None, scale: float | Tensor, task: Task, dtype: torch.dtype) -> Tensor:
    """The same numbers as autograd would have them, for whoever differentiates twice."""
    parts = [part if task.unit else normalize(part.to(dtype)) for part in (a, b) if part is not None]
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
    if task.classes is not None:
        others, count = _others(x, *task.classes)
        sums = sums - scale * (others * x).sum(1) / count
    return sums
