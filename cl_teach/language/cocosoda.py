r"""CoCoSoDa: Effective Contrastive Learning for Code Search. Ensheng Shi, Yanlin Wang, Wenchao Gu, Lun Du, Hongyu
Zhang, Shi Han, Dongmei Zhang, Hongbin Sun; ICSE 2023; https://arxiv.org/abs/2204.03293.

Code c and its query n go through one encoder f; softly augmented copies give keys c', n' from its momentum copy f'.
Each of the four streams has a queue of past unit vectors. With

.. math::
    \ell(a; k, Q) = -\frac1B\sum_i \log\frac{e^{a_i\cdot k_i/\tau}}
        {\sum_j e^{a_i\cdot k_j/\tau} + \sum_{q\in Q} e^{a_i\cdot q/\tau}},

.. math::
    L = \tfrac16\big[\ell(c;n,Q_n) + \ell(c;n',Q_{n'}) + \ell(n;c,Q_c) + \ell(n;c',Q_{c'})
        + \ell(c;c',Q_{c'}) + \ell(n;n',Q_{n'})\big] .

What changes and why: queues give many negatives for a small batch, and the slow copy keeps old keys comparable with
new ones. The first four terms bring code and query together, the last two spread each of them. The augmentation needs
no parser, only the type of each token (name, keyword, operator, ...), see `cl_teach.datasets.soft_changes`. Afterwards
the encoder is fine-tuned with `fine_tuning_loss`.

Paper versus code. (1) The released pre-training loop multiplies logits that already carry 1/temperature by another 20;
``scale=20`` reproduces it, the default is 1. (2) The released script leaves the two terms within a modality off
(``intra_modal=False``). (3) It passes the token ids as types, so that most of the augmentation does nothing; here the
types are types (``match_ids=True`` shows the released test for one type). (4) The queues of c and n hold outputs of f,
not of f', as released. (5) Released: 1024 queued vectors and p = 0.1; a reader's note on the paper says 4096 and 15 %.
(6) Queues start with random unit vectors. A queue may hold an anchor's own pair from an earlier epoch; it is not
masked. (7) f' moves after the optimizer's step, which is before the next
keys are made, as released. The body of the paper was not available.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_count,
    check_entries,
    check_flag,
    check_in_range,
    check_module,
    check_positive,
    check_same_length,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, info_nce
from ..core.precision import full_precision
from ..core.queue import FeatureQueue
from ..core.similarity import normalize
from ..core.teacher import MomentumTeacher

__all__ = [
    "CoCoSoDa",
    "Queues",
    "cocosoda_terms",
    "fine_tuning_loss",
    "language_probabilities",
    "queued_contrast",
]


@full_precision
def language_probabilities(counts: Tensor, power: float = 0.7) -> Tensor:
    """``(C,)`` chance that a batch is of each language, share of the pairs to a power below 1: rare ones gain.

    Args:
        counts: ``(C,)`` pairs of each language, whole numbers or not.
        power: in [0, 1].
    """
    check_type(Tensor, counts=counts)
    check_shapes(counts=(counts, "C") if counts.is_floating_point() else (counts, "C", int))
    check_entries(0, 1e18, open_low=True, counts=counts)
    check_in_range(0, 1, power=power)
    weight = (counts / counts.sum()) ** power
    return weight / weight.sum()


class Queues(NamedTuple):
    """Past unit vectors ``(K, d)`` of each stream, K may be 0; the keys are those of the momentum encoder."""

    code: Tensor
    query: Tensor
    code_key: Tensor
    query_key: Tensor


@full_precision
def queued_contrast(anchor: Tensor, key: Tensor, queue: Tensor, temperature: float | Tensor = 0.07) -> Tensor:
    """One term: find the anchor's key among the keys of the batch and the queue.

    Args:
        anchor: ``(B, d)``, any scale (normalized here).
        key: ``(B, d)``, row i belongs to anchor i.
        queue: ``(K, d)``, constants; K may be 0.
        temperature: greater than 0.
    """
    check_shapes(anchor=(anchor, "B d"), key=(key, "B d"))
    check_type(Tensor, queue=queue)
    if queue.shape != (0, anchor.shape[1]):
        check_shapes(anchor=(anchor, "B d"), queue=(queue, "K d"))
    check_temperature(temperature)
    candidates = normalize(torch.cat([key, queue.detach()]))  # (B + K, d)
    logits = normalize(anchor) @ candidates.mT / temperature
    return (logits.logsumexp(1) - logits.diagonal()).mean()  # the own key stands on the diagonal


@full_precision
def cocosoda_terms(
    code: Tensor,
    query: Tensor,
    code_key: Tensor,
    query_key: Tensor,
    queues: Queues,
    temperature: float = 0.07,
    *,
    scale: float = 1.0,
    intra_modal: bool = True,
) -> Tensor:
    """The terms of the loss, in the order of the formula; the loss is their mean.

    Args:
        code: ``(B, d)`` pooled code, with gradient.
        query: ``(B, d)`` pooled queries, with gradient.
        code_key: ``(B, d)`` augmented code through the momentum encoder, constants.
        query_key: ``(B, d)`` augmented queries through it, constants.
        queues: of the four streams, from before this batch is stored.
        temperature: greater than 0.
        scale: multiplies all logits; 20 in the released pre-training loop.
        intra_modal: whether the last two terms are there.

    Returns:
        ``(6,)``, or ``(4,)`` without them.

    Source: Shi et al. (2023), released model and pre-training loop.

    Example:
        >>> code, queues = torch.eye(4), Queues(*torch.zeros(4, 0, 4))
        >>> cocosoda_terms(code, code, code, code, queues).shape
        torch.Size([6])
        >>> crowded = queues._replace(query=torch.eye(4))  # every query has been there before
        >>> round(cocosoda_terms(code, code, code, code, crowded, 0.01)[0].exp().item(), 3)
        2.0
    """
    streams = {"code": code, "query": query, "code_key": code_key, "query_key": query_key}
    check_shapes(**{name: (x, "B d") for name, x in streams.items()})
    check_type(tuple, queues=queues)
    if len(queues) != len(Queues._fields):
        raise ValueError(f"queues: expected {', '.join(Queues._fields)}, got {len(queues)} parts")
    for name, queue in zip(Queues._fields, queues, strict=True):
        check_type(Tensor, **{f"queues.{name}": queue})
        if queue.shape != (0, code.shape[1]):
            check_shapes(code=(code, "B d"), **{f"queues.{name}": (queue, "K d")})
    check_temperature(temperature)
    check_in_range(1e-3, 1e3, scale=scale)
    check_flag(intra_modal=intra_modal)
    code_key, query_key, tau = code_key.detach(), query_key.detach(), temperature / scale
    of_code, of_query, of_code_key, of_query_key = queues
    terms = [
        queued_contrast(code, query, of_query, tau),
        queued_contrast(code, query_key, of_query_key, tau),
        queued_contrast(query, code, of_code, tau),
        queued_contrast(query, code_key, of_code_key, tau),
    ]
    if intra_modal:
        terms.append(queued_contrast(code, code_key, of_code_key, tau))
        terms.append(queued_contrast(query, query_key, of_query_key, tau))
    return torch.stack(terms)


def fine_tuning_loss(query: Tensor, code: Tensor, *, scale: float = 20.0) -> Tensor:
    """After pre-training: find the code of each query within the batch, ``(B, d)`` each; no queue, one direction."""
    check_shapes(query=(query, "B d"), code=(code, "B d"))
    check_positive(scale=scale)
    check_in_range(1e-3, 1e6, scale=scale)
    return info_nce(query, code, temperature=1 / scale)


class CoCoSoDa(nn.Module):
    """The momentum encoder and the four queues, thrown away after training.

    A step::

        views = soft_pair(code, types, query, step, vocabulary=words, mask_id=4, special_ids=[0, 1, 2, 3, 4])
        method(encoder, code, query, *views).backward()
        optimizer.step()
        method.after_step()
    """

    def __init__(
        self,
        encoder: nn.Module,
        dim: int,
        *,
        queue_size: int = 1024,
        temperature: float = 0.07,
        momentum: float = 0.999,
        scale: float = 1.0,
        intra_modal: bool = True,
    ) -> None:
        """Copy the encoder and fill the queues with random directions.

        Args:
            encoder: token ids ``(B, L)`` to pooled vectors ``(B, dim)``, for code and queries alike.
            dim: width of its output.
            queue_size: K, vectors in each queue.
            temperature: greater than 0.
            momentum: m of the encoder's copy; fit it to the length of the run (0.99 for a thousand steps).
            scale: see `cocosoda_terms`.
            intra_modal: see `cocosoda_terms`.
        """
        super().__init__()
        check_module(encoder=encoder)
        check_count(dim=dim, queue_size=queue_size)
        check_temperature(temperature)
        check_in_range(0, 1, momentum=momentum)
        check_in_range(1e-3, 1e3, scale=scale)
        check_flag(intra_modal=intra_modal)
        self.temperature, self.scale, self.intra_modal = temperature, scale, intra_modal
        self.teacher = MomentumTeacher(encoder, momentum)
        self.memory = nn.ModuleDict({name: FeatureQueue(queue_size, dim) for name in Queues._fields})
        self.push(*(torch.randn(queue_size, dim) for _ in Queues._fields))
        # What `after_step` will store, and the encoder to follow, which is the caller's.
        self._seen: list[tuple[nn.Module, tuple[Tensor, ...]]] = []

    @property
    def queues(self) -> Queues:
        """What the four queues hold now."""
        return Queues(*(queue.features for queue in self._queues()))

    def push(self, code: Tensor, query: Tensor, code_key: Tensor, query_key: Tensor) -> None:
        """Store a batch ``(B, dim)`` of each stream over the oldest vectors."""
        width = self._queues()[0].storage.shape[1]
        streams = {"code": code, "query": query, "code_key": code_key, "query_key": query_key}
        check_shapes(**{name: (x, f"B {width}") for name, x in streams.items()})
        for queue, vectors in zip(self._queues(), streams.values(), strict=True):
            queue.push(vectors)

    def loss(
        self, encoder: nn.Module, code: Tensor, query: Tensor, augmented_code: Tensor, augmented_query: Tensor
    ) -> Tensor:
        """Loss of one batch of token ids ``(B, L)``; in training it remembers what `after_step` stores."""
        check_module(encoder=encoder)
        batch = {"code": code, "query": query, "augmented_code": augmented_code, "augmented_query": augmented_query}
        check_same_length(**batch)
        c, n = encoder(code), encoder(query)
        c_key, n_key = self.teacher(augmented_code), self.teacher(augmented_query)  # constants
        terms = cocosoda_terms(
            c, n, c_key, n_key, self.queues, self.temperature, scale=self.scale, intra_modal=self.intra_modal
        )
        if self.training:
            self._seen.append((encoder, tuple(x.detach() for x in (c, n, c_key, n_key))))
            self._seen = self._seen[-self._queues()[0].size :]  # more would not fit
        return terms.mean()

    def forward(
        self, encoder: nn.Module, code: Tensor, query: Tensor, augmented_code: Tensor, augmented_query: Tensor
    ) -> Tensor:
        """The loss."""
        return self.loss(encoder, code, query, augmented_code, augmented_query)

    def after_step(self) -> None:
        """Move the momentum encoder toward the encoder of the last loss, and store the batches since the last step."""
        for _, streams in self._seen:
            self.push(*streams)
        if self._seen:
            self.teacher.update(self._seen[-1][0])
        self._seen = []

    def _queues(self) -> list[FeatureQueue]:
        return [cast(FeatureQueue, self.memory[name]) for name in Queues._fields]
