r"""SigLIP's sum over all pairs, without the table of them.

The gradient of a softmax needs the whole row; here every pair is a question of its own, and a tile can be forgotten as
soon as it is added up. Two things make a tile fast:

- a sum of softplus is :math:`\sum\max(x, 0) + \log\prod(1 + u)` with :math:`u = e^{-|x|}`, so that many pairs share
  one logarithm. The product is folded without its one, :math:`(1 + u)(1 + v) - 1 = u + v + uv`, which loses no digits
  where u is 1e-5, as it is for nearly all pairs at SigLIP's bias of -10;
- u is taken as a power of two, see `cl_teach.core.tables`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import without_autocast
from .similarity import along_sphere, direction, normalize
from .tables import BIT, tile_side

__all__ = ["siglip_table", "siglip_tiles"]

# Halvings before a logarithm is taken: 2^6 factors of at most 2 stay in the range of float32.
FOLDS = 6
# So few logarithms cost less than another fold.
FEW = 1024


def siglip_table(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """The loss as its formula stands, on the whole table; arguments as in `siglip_loss`, numbers as 0-d tensors."""
    logits = torch.addmm(bias, log_scale.exp() * normalize(image), normalize(text).mT)  # (n, n)
    wrong = logits.diagonal_scatter(-logits.diagonal())  # -y times the logit
    return F.softplus(wrong).sum() / len(image)  # -log sigmoid(x) is softplus(-x)


def siglip_tiles(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """The same number, tile by tile: memory O(n d)."""
    return _SigLip.apply(image, text, log_scale, bias)


class _SigLip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        (x, x_length), (y, y_length) = direction(image), direction(text)
        ctx.save_for_backward(image, text, log_scale, bias, x, x_length, y, y_length)
        total = torch.zeros_like(bias)
        for *_, tile in _tiles(x, y, log_scale.exp(), bias):
            total += _softplus_sum(tile)
        return total / len(x)

    @staticmethod
    @without_autocast
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, x, x_length, y, y_length = ctx.saved_tensors
        _, _, log_scale, bias = inputs
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            wanted = [value for value, want in zip(inputs, ctx.needs_input_grad, strict=True) if want]
            found = iter(torch.autograd.grad(siglip_table(*inputs), wanted, weight, create_graph=True))
            return tuple(next(found) if want else None for want in ctx.needs_input_grad)
        x_grad, y_grad, bias_grad = torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(bias)
        weight, scale = weight / len(x), log_scale.exp()
        for rows, columns, tile in _tiles(x, y, scale, bias):
            tile.sigmoid_()
            if rows == columns:
                tile.diagonal().neg_()
            bias_grad += tile.sum()
            x_grad[rows].addmm_(tile, y[columns])
            y_grad[columns].addmm_(tile.mT, x[rows])
        factor = weight * scale  # a logit is the scale times a cosine
        scale_grad = torch.dot(x.flatten(), x_grad.flatten()) * factor
        x_grad, y_grad = along_sphere(x_grad, x, x_length / factor), along_sphere(y_grad, y, y_length / factor)
        return x_grad, y_grad, scale_grad, bias_grad * weight


def _tiles(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows and columns of each tile, and what should be small in it: the logits, those of the own pairs negative."""
    n, side = len(x), tile_side(x)
    parts = [slice(start, min(start + side, n)) for start in range(0, n, side)]
    for rows in parts:
        a = x[rows] * scale
        for columns in parts:
            tile = torch.addmm(bias, a, y[columns].mT)
            if rows == columns:
                tile.diagonal().neg_()
            yield rows, columns, tile
            del tile  # not beside the next one


def _softplus_sum(x: Tensor) -> Tensor:
    """Sum of log(1 + e^x), exact also where e^x is small; overwrites x."""
    total = F.relu(x).sum()
    u = x.abs_().div_(-BIT).exp2_().flatten()  # e^-|x|
    if short := -len(u) % 2**FOLDS:
        u = F.pad(u, (0, short))  # by factors of 1
    for _ in range(FOLDS):
        if len(u) <= FEW:
            break
        u, v = u.chunk(2)
        u.addcmul_(u, v).add_(v)  # (1 + u)(1 + v) - 1
    return total + u.log1p().sum()
