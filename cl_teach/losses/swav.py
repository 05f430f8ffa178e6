r"""Unsupervised Learning of Visual Features by Contrasting Cluster Assignments. Mathilde Caron, Ishan Misra, Julien
Mairal, Priya Goyal, Piotr Bojanowski, Armand Joulin; NeurIPS 2020; https://arxiv.org/abs/2006.09882.

Scores :math:`S_v = \hat z_v C^\top` compare each of V crops with K prototypes. Two crops give soft codes q, the others
predict them:

.. math::
    L = \frac1{|A|}\sum_{a\in A}\frac1{V-1}\sum_{v\ne a}
        \Big(-\frac1B\sum_b\sum_k q^{(a)}_{bk}\log\mathrm{softmax}_k(S_v[b]/\tau)\Big),
    \qquad q^{(a)} = \mathrm{Sinkhorn}(S_a/\varepsilon) .

What changes and why: features are compared through cluster assignments, not in pairs. The codes solve an optimal
transport problem that spreads the batch evenly over the prototypes; this equipartition stands where the negatives
stood, and without it everything falls on one prototype.

Paper versus code. (1) Rows of prototypes are normalized first, samples last, so the codes of each sample sum to one
exactly and the shares of the prototypes only in the limit. (2) The code works with exp(S/eps), which overflows for
small eps or half precision; here it is the same iteration on logarithms. (3) The gradient is with respect to the
normalized prototypes; the optimizer moves them off the sphere, and they are put back after the step. (4) The queue is
used once its last row is filled, and a batch is pushed after its step, so that it does not count twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.assignment import sinkhorn
from ..core.by_hand import gradient_by_hand
from ..core.checks import check_batch, check_count, check_positive, check_shapes, check_type
from ..core.contrast import check_temperature
from ..core.precision import full_precision
from ..core.similarity import normalize

__all__ = ["SwAV", "SwappedPrediction", "push_front", "swav"]


class SwappedPrediction(NamedTuple):
    """The loss and the codes it came from.

    Attributes:
        loss: scalar.
        codes: ``(|A|, B, K)`` soft codes of the assigning crops, constants.
    """

    loss: Tensor
    codes: Tensor


@full_precision
def push_front(queue: Tensor, features: Tensor) -> Tensor:
    """The queue after a batch was put in front and the oldest rows fell off the end.

    Args:
        queue: ``(L, d)``.
        features: ``(B, d)``, B <= L.
    """
    check_shapes(queue=(queue, "L d"), features=(features, "B d"))
    if len(features) > len(queue):
        raise ValueError(f"features, queue: expected at most the queue's {len(queue)} rows, got {len(features)}")
    return torch.cat([features, queue[: len(queue) - len(features)]])


@full_precision
def swav(
    views: Tensor,
    prototypes: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    assign: Sequence[int] = (0, 1),
    queue: Tensor | None = None,
) -> SwappedPrediction:
    """Swapped prediction over several crops.

    Args:
        views: ``(V, B, d)`` features of the crops, any scale (normalized here, with gradient).
        prototypes: ``(K, d)`` unit rows; the gradient is taken as given.
        temperature: of the predictions.
        epsilon: of the codes.
        iterations: of Sinkhorn.
        assign: the crops that produce codes, each once; all crops predict.
        queue: ``(|A|, L, d)`` unit features of earlier batches, in the order of ``assign``, or None. It helps the codes
            of small batches; one whose last row is still zero is not used.

    Source: Caron et al. (2020), equations 1 to 3.

    Example:
        >>> loss, codes = swav(torch.randn(4, 6, 8), torch.eye(8)[:5])  # four crops, five prototypes
        >>> codes.shape
        torch.Size([2, 6, 5])
    """
    check_type((tuple, list), assign=assign)
    sizes = check_shapes(views=(views, "V B d"), prototypes=(prototypes, "K d"), queue=(queue, "A L d?"))
    v, b = sizes["V"], sizes["B"]
    check_temperature(temperature)
    check_temperature(epsilon, name="epsilon")
    check_count(iterations=iterations)
    check_batch(v, 2, name="views", why="(crops) to swap")
    check_count(0, **{f"assign[{i}]": a for i, a in enumerate(assign)})
    if not assign or len(set(assign)) < len(assign) or max(assign) >= v:
        raise ValueError(f"views, assign: expected numbers of the {v} views, each once, got {tuple(assign)}")
    if queue is not None and sizes["A"] != len(assign):
        raise ValueError(f"queue, assign: expected a queue for each assigning crop, got {sizes['A']}, {len(assign)}")
    logits = normalize(views) / temperature @ prototypes.mT  # (V, B, K)
    codes = []
    for i, a in enumerate(assign):
        own = logits[a].detach()
        if queue is not None and bool(queue[i, -1].any()):
            own = torch.cat([queue[i] / temperature @ prototypes.detach().mT, own])  # stale features, new prototypes
        codes.append(sinkhorn(own, epsilon / temperature, iterations)[-b:])
    q = torch.stack(codes)  # (|A|, B, K)
    swapped = _Swapped.apply if gradient_by_hand() else _cross_entropy  # of every crop against every code but its own
    return SwappedPrediction(swapped(logits, q, tuple(assign)), q)


def _cross_entropy(logits: Tensor, codes: Tensor, assign: tuple[int, ...]) -> Tensor:
    """Mean of every crop ``(V, B, K)`` against every code ``(|A|, B, K)``, but not against its own."""
    log_p = logits.log_softmax(-1)
    swapped = log_p.flatten(1) @ codes.flatten(1).mT / -logits.shape[1]  # (V, |A|), a mean over the batch
    others = torch.ones_like(swapped)
    others[list(assign), torch.arange(len(assign))] = 0  # not against its own code
    return (swapped * others).sum() / others.sum()


class _Swapped(torch.autograd.Function):
    """The same. Its gradient is what is predicted minus what is wanted, one table where autograd makes two."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, codes: Tensor, assign: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(logits, codes)
        ctx.assign = assign
        return _cross_entropy(logits, codes, assign)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (logits, codes), assign = ctx.saved_tensors, ctx.assign
        if torch.is_grad_enabled():  # create_graph=True: the gradient will be differentiated, so autograd must see it
            loss = _cross_entropy(logits, codes, assign)
            return torch.autograd.grad(loss, logits, weight, create_graph=True)[0], None, None
        grad = logits.softmax(-1)
        for crop, found in enumerate(grad):
            wanted = [code for code, a in zip(codes, assign, strict=True) if a != crop]
            found.mul_(len(wanted))
            for code in wanted:
                found.sub_(code)
        return grad.mul_(weight / (len(assign) * (len(logits) - 1) * logits.shape[1])), None, None


class SwAV(nn.Module):
    """Prototypes and queue: what SwAV keeps between steps. Both are dropped after training; calling it is its loss.

    To freeze the prototypes at first, as the released code does, drop their gradient after backward.
    """

    queue: Tensor

    def __init__(
        self,
        dim: int,
        prototypes: int,
        *,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue_size: int = 0,
    ) -> None:
        """Draw the prototypes.

        Args:
            dim: width of the features.
            prototypes: K.
            temperature: of the predictions.
            epsilon: of the codes.
            iterations: of Sinkhorn.
            queue_size: rows of earlier features for each of the two assigning crops; 0 for none.
        """
        super().__init__()
        check_count(dim=dim, prototypes=prototypes, iterations=iterations)
        check_count(0, queue_size=queue_size)
        check_positive(temperature=temperature, epsilon=epsilon)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dim)))
        self.register_buffer("queue", torch.zeros(2, queue_size, dim))
        self._seen: list[Tensor] = []  # features since the last step

    def loss(self, views: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of ``(V, B, dim)`` crops, the two full-size ones first; nothing is drawn."""
        sizes = check_shapes(views=(views, f"V B {self.prototypes.shape[1]}"))
        size = self.queue.shape[1]
        if size and sizes["B"] > size:
            raise ValueError(f"views: expected at most the queue's {size} rows in a batch, got {sizes['B']}")
        # on the sphere whatever the optimizer did, with the gradient taken as given
        unit = self.prototypes + (normalize(self.prototypes) - self.prototypes).detach()
        result = swav(
            views,
            unit,
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            queue=self.queue if size else None,
        )
        if size and self.training and torch.is_grad_enabled():
            self._seen.append(normalize(views[:2].detach()))
        return result.loss

    def forward(self, views: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss."""
        return self.loss(views, generator=generator)

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the prototypes back on the sphere and the features of the last training batches into the queue."""
        self.prototypes.copy_(normalize(self.prototypes))
        for features in self._seen:
            pushed = [push_front(old, new) for old, new in zip(self.queue, features, strict=True)]
            self.queue.copy_(torch.stack(pushed))
        self._seen = []
