r"""Hallucination Improves the Performance of Unsupervised Visual Representation Learning. Jing Wu, Jennifer Hobbs,
Naira Hovakimyan; ICCV 2023; https://arxiv.org/abs/2307.12168.

A second positive is made in feature space: push the query away from its key by a small random step, then let a small
network smooth it,

.. math::
    \tilde q_i = (1+r)\,q_i - r\,k_i, \qquad h_i = \mathrm{MLP}([q_i; \tilde q_i]), \qquad r\sim U(0, r_{\max}).

What changes and why: queries become [q; h] and keys [k; k] in the host method's loss, so that every image gives two
positive pairs at the price of a small network, which is trained with the same loss and dropped afterwards.

Paper versus code. (1) In MoCo the code extrapolates an unnormalized q with a unit k, so the effective push is r/|q|;
followed here. (2) In SimCLR every key stands twice in the batch and is a negative of its own copy, with cosine 1;
followed here. (3) The code pushes the keys into the queue twice, which halves the number of different negatives; a
queue belongs to the caller here, push once. (4) One r serves a whole batch. (5) The published configurations also
crop around the object center, which is not part of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_embeddings, check_in_range, check_positive, check_same_shape, check_same_width
from ..core.contrast import nt_xent, one_positive_contrast
from ..core.regression import regression_loss
from ..core.similarity import normalize

__all__ = ["Hallucinator", "draw_ratio", "hallucinated_moco", "hallucinated_simclr", "hallucinated_simsiam"]


def draw_ratio(largest: float = 0.1, *, generator: torch.Generator | None = None) -> float:
    """One r for a step, uniform between 0 and ``largest``."""
    check_positive(largest=largest)
    return largest * torch.rand((), generator=generator).item()


class Hallucinator(nn.Module):
    """Makes a second positive from a query and its key; a three-layer perceptron after a small push."""

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        """Make the network.

        Args:
            dim: width of the embeddings.
            hidden: width of both hidden layers; 2 dim if None, as in the released code.

        Raises:
            ValueError: a width below 1.
        """
        super().__init__()
        hidden = 2 * dim if hidden is None else hidden
        check_positive(dim=dim, hidden=hidden)
        self.network = nn.Sequential(
            nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dim)
        )

    def forward(self, query: Tensor, key: Tensor, ratio: float) -> Tensor:
        """Hallucinate.

        Args:
            query: ``(N, d)``.
            key: ``(N, d)``.
            ratio: r >= 0.

        Returns:
            ``(N, d)``, not normalized.

        Raises:
            TypeError: not floating tensors.
            ValueError: shapes differ, NaN, negative ratio.
        """
        check_embeddings(query=query, key=key)
        check_same_shape(query=query, key=key)
        check_in_range(0, float("inf"), ratio=ratio)
        pushed = (1 + ratio) * query - ratio * key
        return self.network(torch.cat([query, pushed], dim=1))


def hallucinated_moco(
    hallucinator: Hallucinator, query: Tensor, key: Tensor, queue: Tensor, ratio: float, temperature: float = 0.2
) -> tuple[Tensor, Tensor]:
    """MoCo's loss with the hallucinated queries as a second half of the batch.

    Args:
        hallucinator: the network.
        query: ``(N, d)`` RAW projections.
        key: ``(N, d)`` unit keys; detached here.
        queue: ``(K, d)`` earlier keys; detached and normalized here.
        ratio: r of this step.
        temperature: greater than 0.

    Returns:
        The scalar loss, mean over 2N rows, and the ``(2N, d)`` unit queries [q; h].

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, temperature not positive.
    """
    check_embeddings(queue=queue)
    check_same_width(query=query, queue=queue)
    check_positive(temperature=temperature)
    key = key.detach()
    queries = normalize(torch.cat([query, hallucinator(query, key, ratio)]))  # (2N, d)
    positive = (queries * key.repeat(2, 1)).sum(1)
    negatives = queries @ normalize(queue.detach()).mT  # (2N, K)
    return one_positive_contrast(positive / temperature, negatives / temperature), queries


def hallucinated_simclr(
    hallucinator: Hallucinator, query: Tensor, key: Tensor, ratio: float, temperature: float = 0.5
) -> Tensor:
    """NT-Xent of the 4N rows [q; h] and [k; k]; the gradient also reaches the keys, through h too.

    Args:
        hallucinator: the network.
        query: ``(N, d)`` raw projections of one view.
        key: ``(N, d)`` raw projections of the other.
        ratio: r of this step.
        temperature: greater than 0.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, temperature not positive.
    """
    queries = torch.cat([query, hallucinator(query, key, ratio)])
    return nt_xent(queries, key.repeat(2, 1), temperature)


def hallucinated_simsiam(
    hallucinator: Hallucinator,
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
        ratio1: r of the first direction.
        ratio2: r of the second direction.

    Returns:
        Scalar in [-1, 1].

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.
    """
    first = torch.cat([prediction1, hallucinator(prediction1, prediction2, ratio1)])
    second = torch.cat([prediction2, hallucinator(prediction2, prediction1, ratio2)])
    # SimSiam's negative cosine is half the regression loss minus one.
    losses = regression_loss(first, target2.repeat(2, 1)) + regression_loss(second, target1.repeat(2, 1))
    return losses / 4 - 1
