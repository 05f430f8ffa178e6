r"""InfoNCE against a queue in one pass, without the table of similarities.

Keys of a queue want no gradient, and then the sum that a row's exponentials are divided by is a factor of the whole
gradient. So the sums :math:`s_i = \sum_j t_{ij}` and :math:`o_i = \sum_j t_{ij}\,n_j` with
:math:`t_{ij} = e^{\gamma\,q_i^\top n_j}` grow side by side, some keys at a time. With
:math:`c_i = \log s_i - \gamma\,q_i^\top k_i` the loss is :math:`\log(1 + e^{c_i})`, its gradient
:math:`\gamma\,\sigma(c_i)\,(o_i / s_i - k_i)`: two products where autograd needs three and the table twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .similarity import along_sphere, direction, normalize
from .tables import BIT, ONE_EXPONENTIAL
from .tiles import use_tiles

__all__ = ["against_queue", "is_queue"]

# Keys at a time; on a GPU few launches are better than small ones.
CPU_KEYS, GPU_KEYS = 512, 16384


def is_queue(positive: Tensor, negatives: Tensor, temperature: float | Tensor) -> bool:
    """Whether `against_queue` may be used: keys and temperature are constants, and exponentials stay in range."""
    if negatives.ndim != 2 or not use_tiles(temperature):
        return False
    if any(isinstance(x, Tensor) and x.requires_grad for x in (positive, negatives, temperature)):
        return False
    return 1 / float(temperature) <= ONE_EXPONENTIAL


def against_queue(query: Tensor, positive: Tensor, negatives: Tensor, scale: float) -> Tensor:
    r"""Losses of queries against their own keys and a queue.

    Args:
        query: ``(n, d)`` floating, finite, any length (normalized here), the only one that gets a gradient.
        positive: ``(n, d)`` own keys.
        negatives: ``(k, d)`` shared keys.
        scale: :math:`\gamma`, one over the temperature, at most 40.

    Returns:
        ``(n,)`` losses.
    """
    return _AgainstQueue.apply(query, positive, negatives, scale)


class _AgainstQueue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, positive: Tensor, negatives: Tensor, scale: float) -> Tensor:
        (x, length), (k, _) = direction(query), direction(positive)
        sums, pulled, factor = x.new_zeros(len(x)), torch.zeros_like(x), x * (scale / BIT)
        for part in negatives.split(GPU_KEYS if x.is_cuda else CPU_KEYS):
            y, _ = direction(part)
            tile = (factor @ y.mT).exp2_()
            sums += tile.sum(1)
            pulled.addmm_(tile, y)
        gap = sums.log() - scale * torch.linalg.vecdot(x, k)
        pulled.div_(sums[:, None]).sub_(k).mul_(scale * gap.sigmoid()[:, None])
        ctx.save_for_backward(query, along_sphere(pulled, x, length))
        # Not through autograd, which would refuse the usual order: loss, new keys into the queue, backward.
        ctx.constants, ctx.scale = (positive, negatives, positive._version, negatives._version), scale
        return F.softplus(gap)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        query, grad = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            positive, negatives, *versions = ctx.constants
            if versions != [positive._version, negatives._version]:
                raise RuntimeError("the keys were changed in place before a gradient that is to be differentiated")
            losses = _plain(query, positive, negatives, ctx.scale)
            return torch.autograd.grad(losses, query, weights, create_graph=True)[0], None, None, None
        return grad * weights[:, None], None, None, None


def _plain(query: Tensor, positive: Tensor, negatives: Tensor, scale: float) -> Tensor:
    """The same numbers as autograd would have them."""
    q = scale * normalize(query)
    return F.softplus((q @ normalize(negatives).mT).logsumexp(1) - (q * normalize(positive)).sum(1))
