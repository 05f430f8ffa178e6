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
normalized prototypes, which the optimizer moves off the sphere between steps. (4) The queue is used once its last row
is filled, and the current batch is pushed after the scores are taken, so that it does not count twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.assignment import sinkhorn
from ..core.checks import check_batch, check_embeddings, check_positive, check_same_width
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


def push_front(queue: Tensor, features: Tensor) -> Tensor:
    """The queue after a batch was put in front and the oldest rows fell off the end.

    Args:
        queue: ``(L, d)``.
        features: ``(B, d)``, B <= L.

    Raises:
        ValueError: widths differ, or the batch is larger than the queue.
    """
    check_same_width(queue=queue, features=features)
    if len(features) > len(queue):
        raise ValueError(f"features: expected at most the queue's {len(queue)} rows, got {len(features)}")
    return torch.cat([features, queue[: len(queue) - len(features)]])


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
        assign: the crops that produce codes; all crops predict.
        queue: ``(|A|, L, d)`` unit features of earlier batches, in the order of ``assign``, or None. It helps the codes
            of small batches; one whose last row is still zero is not used.

    Returns:
        `SwappedPrediction`.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, a single crop, NaN, a crop number out of range, settings not positive.

    Source: Caron et al. (2020), equations 1 to 3.
    """
    check_embeddings(ndim=3, views=views)
    check_embeddings(prototypes=prototypes)
    check_same_width(views=views, prototypes=prototypes)
    check_positive(temperature=temperature)
    v = len(views)
    check_batch(v, 2, name="views", why="(crops) to swap")
    if not assign or not all(0 <= a < v for a in assign):
        raise ValueError(f"assign: expected crop numbers between 0 and {v - 1}, got {tuple(assign)}")
    if queue is not None and (queue.ndim != 3 or len(queue) != len(assign)):
        raise ValueError(f"queue: expected shape ({len(assign)}, L, d), got {tuple(queue.shape)}")
    scores = normalize(views) @ prototypes.mT  # (V, B, K)
    log_p = (scores / temperature).log_softmax(-1)
    codes = []
    for i, a in enumerate(assign):
        own = scores[a].detach()
        if queue is not None and bool(queue[i, -1].any()):
            own = torch.cat([queue[i] @ prototypes.detach().mT, own])  # stale features, current prototypes
        codes.append(sinkhorn(own, epsilon, iterations)[-views.shape[1] :])
    q = torch.stack(codes)  # (|A|, B, K)
    swapped = -torch.einsum("abk,vbk->av", q, log_p) / views.shape[1]  # cross-entropy of every crop against every code
    others = torch.ones_like(swapped)
    others[torch.arange(len(assign)), list(assign)] = 0  # not against its own code
    return SwappedPrediction((swapped * others).sum() / (len(assign) * (v - 1)), q)


class SwAV(nn.Module):
    """Prototypes and queue: what SwAV keeps between steps.

    A training step is ``loss = method(views)``, backward, optimizer step. The prototypes are put back on the sphere at
    the beginning of every call; to freeze them at first, as the released code does, drop their gradient after backward.
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

        Raises:
            ValueError: a value outside its range.
        """
        super().__init__()
        check_positive(dim=dim, prototypes=prototypes, temperature=temperature, epsilon=epsilon, iterations=iterations)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, dim)))
        self.register_buffer("queue", torch.zeros(2, queue_size, dim))

    def forward(self, views: Tensor) -> Tensor:
        """The loss of ``(V, B, dim)`` crops, the two full-size ones first; updates the queue."""
        with torch.no_grad():
            self.prototypes.copy_(normalize(self.prototypes))
        loss, _ = swav(
            views,
            self.prototypes,
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            queue=self.queue if self.queue.shape[1] else None,
        )
        if self.queue.shape[1]:
            self.queue.copy_(torch.stack([push_front(self.queue[a], normalize(views[a].detach())) for a in (0, 1)]))
        return loss
