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
no parser, only the type of each token (name, keyword, operator, ...), see `augment_tokens`. Afterwards the encoder is
fine-tuned with `fine_tuning_loss`.

Paper versus code. (1) The released pre-training loop multiplies logits that already carry 1/temperature by another 20;
``scale=20`` reproduces it, the default is 1. (2) The released script leaves the two terms within a modality off
(``intra_modal=False``). (3) It passes the token ids as types, so that most of the augmentation does nothing; here the
types are types (``match_ids=True`` shows the released test for one type). (4) The queues of c and n hold outputs of f,
not of f', as released. (5) Released: 1024 queued vectors and p = 0.1; a reader's note on the paper says 4096 and 15 %.
(6) Queues start with random unit vectors. A queue may hold an anchor's own pair from an earlier epoch; it is not
masked. (7) f' moves before the keys are made. The body of the paper was not available.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_mask,
    check_positive,
    check_same_shape,
)
from ..core.contrast import info_nce, softmax_contrast
from ..core.queue import FeatureQueue
from ..core.similarity import normalize
from ..core.teacher import MomentumTeacher

__all__ = [
    "KINDS",
    "CoCoSoDa",
    "Queues",
    "SoftDraws",
    "augment_tokens",
    "cocosoda_terms",
    "draw_soft",
    "fine_tuning_loss",
    "language_probabilities",
    "mean_pool",
    "queued_contrast",
    "soft_pair",
]

KINDS = ("mask", "replace", "mask_type", "replace_type")


class SoftDraws(NamedTuple):
    """The random numbers of one augmentation, one entry a token.

    Attributes:
        select: ``(B, L)`` in [0, 1), a token below the rate is selected.
        change: ``(B, L)`` in [0, 1), a selected token below 0.8 is changed.
        swap: ``(B, L)`` in [0, 1), masking only: a selected, unchanged token below 0.5 gets a random word.
        words: ``(B, L)`` those random words.
    """

    select: Tensor
    change: Tensor
    swap: Tensor
    words: Tensor


def draw_soft(ids: Tensor, vocabulary: Tensor, *, generator: torch.Generator | None = None) -> SoftDraws:
    """Draw what `augment_tokens` needs.

    Args:
        ids: ``(B, L)`` token ids; only shape and device are used.
        vocabulary: ``(w,)`` words that a random word is taken from.
        generator: on the CPU; the global state of torch if None.
    """
    check_batch(len(vocabulary), 1, name="vocabulary", why="to draw from")
    select, change, swap = torch.rand(3, *ids.shape, generator=generator).to(ids.device)
    chosen = torch.randint(len(vocabulary), tuple(ids.shape), generator=generator)
    return SoftDraws(select, change, swap, vocabulary.to(ids.device)[chosen.to(ids.device)])


def augment_tokens(
    ids: Tensor,
    types: Tensor,
    draws: SoftDraws,
    *,
    kind: str = "mask",
    rate: float = 0.15,
    mask_id: int,
    special_ids: Sequence[int],
    target_type: int | None = None,
    protect_first: int = 3,
    match_ids: bool = False,
) -> Tensor:
    """Soft data augmentation: hide some tokens, or say only what type they are.

    Args:
        ids: ``(B, L)`` token ids.
        types: ``(B, L)`` for each token, the id of the token that names its type.
        draws: from `draw_soft`.
        kind: ``"mask"``: 80 % of the selected tokens become the mask, 10 % a random word (dynamic masking);
            ``"replace"``: 80 % become the name of their type (dynamic replacement); ``"mask_type"`` and
            ``"replace_type"``: the same change for the tokens of one type only.
        rate: probability p that a token is selected.
        mask_id: id of the mask.
        special_ids: ids that are never touched; padding belongs here.
        target_type: the one type, for the last two kinds.
        protect_first: so many leading positions are never touched.
        match_ids: the released test for a type: the token's own id is ``target_type``.

    Returns:
        ``(B, L)`` new ids.

    Raises:
        TypeError: not integers. ValueError: shapes differ, a value out of range, a missing ``target_type``.
    """
    check_choice(KINDS, kind=kind)
    check_in_range(0, 1, rate=rate)
    check_in_range(0, float("inf"), protect_first=protect_first)
    for name, x in (("ids", ids), ("types", types)):
        if x.is_floating_point() or x.dtype == torch.bool:
            raise TypeError(f"{name}: expected an integer dtype, got {x.dtype}")
    check_same_shape(ids=ids, types=types, **{f"draws.{name}": x for name, x in draws._asdict().items()})
    free = ~torch.isin(ids, torch.tensor(list(special_ids), dtype=ids.dtype, device=ids.device))
    free = free & (torch.arange(ids.shape[1], device=ids.device) >= protect_first)
    if kind in ("mask_type", "replace_type"):
        if target_type is None:
            raise ValueError(f"target_type: expected the id of a type for kind={kind!r}, got None")
        free = free & ((ids if match_ids else types) == target_type)

    selected = free & (draws.select < rate)
    changed = selected & (draws.change < 0.8)
    new = types if kind in ("replace", "replace_type") else torch.full_like(ids, mask_id)
    result = torch.where(changed, new, ids)
    if kind == "mask":
        result = torch.where(selected & ~changed & (draws.swap < 0.5), draws.words, result)
    return result


def soft_pair(
    code: Tensor,
    types: Tensor,
    query: Tensor,
    step: int,
    *,
    vocabulary: Tensor,
    generator: torch.Generator | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Augment a batch, code by the four kinds in turn, queries by masking; returns new code and new queries.

    Args:
        code: ``(B, L)`` token ids.
        types: ``(B, L)`` their types; the two kinds for one type take that of a random token.
        query: ``(B, M)`` token ids.
        step: number of the step.
        vocabulary: ``(w,)`` random words.
        generator: on the CPU; the global state of torch if None.
        **options: of `augment_tokens` (``mask_id``, ``special_ids``, ``rate``, ``protect_first``).
    """
    target = int(types.flatten()[torch.randint(types.numel(), (), generator=generator)])
    draws = draw_soft(code, vocabulary, generator=generator)
    new_code = augment_tokens(code, types, draws, kind=KINDS[step % 4], target_type=target, **options)
    return new_code, augment_tokens(query, query, draw_soft(query, vocabulary, generator=generator), **options)


def language_probabilities(counts: Tensor, power: float = 0.7) -> Tensor:
    """``(C,)`` chance that a batch is of each language, share of the pairs to a power below 1: rare ones gain."""
    check_positive(counts=counts, power=power)
    weight = (counts / counts.sum()) ** power
    return weight / weight.sum()


def mean_pool(states: Tensor, keep: Tensor) -> Tensor:
    """Mean of the token states ``(B, L, d)`` that are no padding (``keep (B, L)`` true); ``(B, d)``."""
    check_embeddings(ndim=3, states=states)
    check_mask(keep, tuple(states.shape[:2]), name="keep")
    if not torch.compiler.is_compiling() and not keep.any(1).all():
        raise ValueError(f"keep: every row needs a token, row {int((~keep.any(1)).nonzero()[0])} has none")
    weight = keep.to(states.dtype)[..., None]  # (B, L, 1)
    return (states * weight).sum(1) / weight.sum(1)


class Queues(NamedTuple):
    """Past unit vectors ``(K, d)`` of each stream, K may be 0; the keys are those of the momentum encoder."""

    code: Tensor
    query: Tensor
    code_key: Tensor
    query_key: Tensor


def queued_contrast(anchor: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.07) -> Tensor:
    """One term: find the anchor's key among the keys of the batch and the queue.

    Args:
        anchor: ``(B, d)``, any scale (normalized here).
        key: ``(B, d)``, row i belongs to anchor i.
        queue: ``(K, d)``, constants; K may be 0.
        temperature: greater than 0.

    Raises:
        TypeError: not floating tensors. ValueError: shapes do not fit, NaN, temperature not positive.
    """
    check_embeddings(anchor=anchor, key=key)
    check_same_shape(anchor=anchor, key=key)
    check_positive(temperature=temperature)
    if queue.ndim != 2 or queue.shape[1] != anchor.shape[1]:
        raise ValueError(f"queue: expected width {anchor.shape[1]}, got shape {tuple(queue.shape)}")
    candidates = torch.cat([normalize(key), normalize(queue.detach())])  # (B + K, d)
    logits = normalize(anchor) @ candidates.mT / temperature
    own = torch.eye(len(anchor), len(candidates), dtype=torch.bool, device=logits.device)
    return softmax_contrast(logits, own)


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

    Raises:
        TypeError: not floating tensors. ValueError: shapes do not fit, NaN, temperature or scale not positive.

    Source: Shi et al. (2023), released model and pre-training loop.
    """
    check_positive(temperature=temperature, scale=scale)
    code_key, query_key, tau = code_key.detach(), query_key.detach(), temperature / scale
    terms = [
        queued_contrast(code, query, queues.query, tau),
        queued_contrast(code, query_key, queues.query_key, tau),
        queued_contrast(query, code, queues.code, tau),
        queued_contrast(query, code_key, queues.code_key, tau),
    ]
    if intra_modal:
        terms.append(queued_contrast(code, code_key, queues.code_key, tau))
        terms.append(queued_contrast(query, query_key, queues.query_key, tau))
    return torch.stack(terms)


def fine_tuning_loss(query: Tensor, code: Tensor, *, scale: float = 20.0) -> Tensor:
    """After pre-training: find the code of each query within the batch, ``(B, d)`` each; no queue, one direction."""
    check_positive(scale=scale)
    return info_nce(query, code, temperature=1 / scale)


class CoCoSoDa(nn.Module):
    """The momentum encoder, the four queues and the training step::

    views = soft_pair(code, types, query, step, vocabulary=words, mask_id=4, special_ids=[0, 1, 2, 3, 4])
    loss = method(encoder, code, query, *views)
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
        seed: int = 0,
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
            seed: of the random directions.
        """
        super().__init__()
        check_positive(temperature=temperature, scale=scale)
        self.temperature, self.scale, self.intra_modal = temperature, scale, intra_modal
        self.teacher = MomentumTeacher(encoder, momentum)
        self.memory = nn.ModuleDict({name: FeatureQueue(queue_size, dim) for name in Queues._fields})
        generator = torch.Generator().manual_seed(seed)
        self.push(*(torch.randn(queue_size, dim, generator=generator) for _ in Queues._fields))

    @property
    def queues(self) -> Queues:
        """What the four queues hold now."""
        code, query, code_key, query_key = (queue.features for queue in self._queues())
        return Queues(code, query, code_key, query_key)

    def push(self, code: Tensor, query: Tensor, code_key: Tensor, query_key: Tensor) -> None:
        """Store a batch ``(B, dim)`` of each stream over the oldest vectors."""
        for queue, vectors in zip(self._queues(), (code, query, code_key, query_key), strict=True):
            queue.push(vectors)

    def forward(
        self, encoder: nn.Module, code: Tensor, query: Tensor, augmented_code: Tensor, augmented_query: Tensor
    ) -> Tensor:
        """Loss of one batch of token ids ``(B, L)``; moves the momentum encoder, then compares, then stores."""
        self.teacher.update(encoder)
        c, n = encoder(code), encoder(query)
        c_key, n_key = self.teacher(augmented_code), self.teacher(augmented_query)  # constants
        terms = cocosoda_terms(
            c, n, c_key, n_key, self.queues, self.temperature, scale=self.scale, intra_modal=self.intra_modal
        )
        self.push(c, n, c_key, n_key)
        return terms.mean()

    def _queues(self) -> list[FeatureQueue]:
        return [cast(FeatureQueue, self.memory[name]) for name in Queues._fields]
