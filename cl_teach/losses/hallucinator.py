r"""Hallucination Improves the Performance of Unsupervised Visual Representation Learning. Jing Wu, Jennifer Hobbs,
Naira Hovakimyan; ICCV 2023; https://arxiv.org/abs/2307.12168.

A second positive is made in feature space: push the query away from its key by a small random step, then let a small
network (`cl_teach.models.Hallucinator`) smooth it,

.. math::
    \tilde q_i = (1+r)\,q_i - r\,k_i, \qquad h_i = \mathrm{MLP}([q_i; \tilde q_i]), \qquad r\sim U(0, r_{\max}).

What changes and why: queries become [q; h] and keys [k; k] in the host method's loss, so that every image gives two
positive pairs at the price of a small network, which is trained with the same loss and dropped afterwards.

Paper versus code. (1) In MoCo the code extrapolates an unnormalized q with a unit k, so the effective push is
:math:`r/|q|`; followed here. (2) In SimCLR every key stands twice in the batch and is a negative of its own copy, with
cosine 1; followed here. (3) The code pushes the keys into the queue twice, which halves the number of different
negatives; a queue belongs to the caller here, push once. (4) One r serves a whole batch. (5) The published
configurations also crop around the object center, which is not part of the loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_generator, check_in_range, check_module, check_positive, check_shapes
from ..core.contrast import check_temperature, nt_xent, one_positive_contrast
from ..core.precision import full_precision
from ..core.regression import regression_loss
from ..core.similarity import normalize
from ..models.hallucinator import Hallucinator

__all__ = [
    "HallucinatedContrast",
    "Hallucinator",
    "draw_ratio",
    "hallucinated_moco",
    "hallucinated_simclr",
    "hallucinated_simsiam",
]


class HallucinatedContrast(NamedTuple):
    """MoCo's loss with a second positive, and the queries it was taken of.

    Attributes:
        loss: scalar, mean over 2N rows.
        queries: ``(2N, d)`` unit queries [q; h].
    """

    loss: Tensor
    queries: Tensor


def draw_ratio(largest: float = 0.1, *, generator: torch.Generator | None = None) -> float:
    """One r for a step, uniform between 0 and ``largest``."""
    check_positive(largest=largest)
    check_generator(generator)
    device = "cpu" if generator is None else generator.device
    return float(largest) * torch.rand((), generator=generator, device=device).item()


@full_precision
def hallucinated_moco(
    hallucinator: nn.Module, query: Tensor, key: Tensor, queue: Tensor, ratio: float, temperature: float = 0.2
) -> HallucinatedContrast:
    """MoCo's loss with the hallucinated queries as a second half of the batch.

    Args:
        hallucinator: the network, a `Hallucinator`.
        query: ``(N, d)`` RAW projections.
        key: ``(N, d)`` keys, any scale; detached and normalized here.
        queue: ``(K, d)`` earlier keys; detached and normalized here.
        ratio: r of this step.
        temperature: greater than 0.

    Example:
        >>> network, q, k, queue = Hallucinator(4), torch.randn(3, 4), torch.randn(3, 4), torch.randn(8, 4)
        >>> hallucinated_moco(network, q, k, queue, ratio=0.05).queries.shape
        torch.Size([6, 4])
    """
    check_module(hallucinator=hallucinator)
    check_shapes(query=(query, "N d"), key=(key, "N d"), queue=(queue, "K d"))
    check_temperature(temperature)
    key = normalize(key.detach())
    queries = normalize(torch.cat([query, hallucinator(query, key, ratio)]))  # (2N, d)
    positive = (queries * key.repeat(2, 1)).sum(1)
    negatives = queries @ normalize(queue.detach()).mT  # (2N, K)
    return HallucinatedContrast(one_positive_contrast(positive / temperature, negatives / temperature), queries)


@full_precision
def hallucinated_simclr(
    hallucinator: nn.Module, query: Tensor, key: Tensor, ratio: float, temperature: float = 0.5
) -> Tensor:
    """NT-Xent of the 4N rows [q; h] and [k; k]; the gradient also reaches the keys, through h too.

    Args:
        hallucinator: the network.
        query: ``(N, d)`` raw projections of one view.
        key: ``(N, d)`` raw projections of the other.
        ratio: r of this step.
        temperature: greater than 0.
    """
    check_module(hallucinator=hallucinator)
    check_shapes(query=(query, "N d"), key=(key, "N d"))
    check_temperature(temperature)
    queries = torch.cat([query, hallucinator(query, key, ratio)])
    return nt_xent(queries, key.repeat(2, 1), temperature)


@full_precision
def hallucinated_simsiam(
    hallucinator: nn.Module,
    prediction1: Tensor,
    prediction2: Tensor,
    target1: Tensor,
    target2: Tensor,
    ratio1: float,
    ratio2: float,
) -> Tensor:
    r"""SimSiam's loss, :math:`-\tfrac12(\cos + \cos)`, with a hallucinated prediction beside each prediction.

    Args:
        hallucinator: the network.
        prediction1: ``(N, d)`` predictor outputs of the first views.
        prediction2: ``(N, d)`` of the second views; each side is pushed away from the other's original.
        target1: ``(N, d)`` encoder outputs of the first views; detached.
        target2: ``(N, d)`` of the second views; detached.
        ratio1: r of the first direction, at least 0.
        ratio2: r of the second direction, at least 0.

    Returns:
        Scalar in [-1, 1].
    """
    check_module(hallucinator=hallucinator)
    check_shapes(
        prediction1=(prediction1, "N d"),
        prediction2=(prediction2, "N d"),
        target1=(target1, "N d"),
        target2=(target2, "N d"),
    )
    check_in_range(0, math.inf, ratio1=ratio1, ratio2=ratio2)
    first = torch.cat([prediction1, hallucinator(prediction1, prediction2, ratio1)])
    second = torch.cat([prediction2, hallucinator(prediction2, prediction1, ratio2)])
    # SimSiam's negative cosine is half of the regression loss minus one.
    losses = regression_loss(first, target2.repeat(2, 1)) + regression_loss(second, target1.repeat(2, 1))
    return losses / 4 - 1
