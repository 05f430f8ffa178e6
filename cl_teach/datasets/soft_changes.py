"""Soft changes of code and queries: some tokens are hidden, or only the type of a token (name, keyword, ...) is said.

Source: the soft data augmentation of Shi et al., CoCoSoDa: Effective Contrastive Learning for Code Search (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
)

__all__ = ["KINDS", "SoftDraws", "augment_tokens", "draw_soft", "soft_pair"]

KINDS = ("mask", "replace", "mask_type", "replace_type")
CHANGED, SWAPPED = 0.8, 0.5  # of the selected tokens; and of those that are left, in masking


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
        generator: of the draws.
    """
    check_shapes(ids=(ids, "B L", int))
    check_shapes(vocabulary=(vocabulary, "w", int))
    vocabulary = check_labels(vocabulary, name="vocabulary").to(ids.device)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    select, change, swap = torch.rand(3, *ids.shape, generator=generator, device=where).to(ids.device)
    chosen = torch.randint(len(vocabulary), tuple(ids.shape), generator=generator, device=where)
    return SoftDraws(select, change, swap, vocabulary[chosen.to(ids.device)])


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
        ``(B, L)`` new ids, int64.

    Example:
        >>> ids, types = torch.tensor([[5, 6, 0]]), torch.tensor([[8, 9, 0]])
        >>> always = SoftDraws(*torch.zeros(3, 1, 3), torch.full((1, 3), 7))
        >>> augment_tokens(ids, types, always, mask_id=4, special_ids=[0, 4], protect_first=0).tolist()
        [[4, 4, 0]]
        >>> named = {"kind": "replace_type", "target_type": 9, "mask_id": 4, "special_ids": [0, 4]}
        >>> augment_tokens(ids, types, always, **named, protect_first=0).tolist()
        [[5, 9, 0]]
    """
    check_choice(KINDS, kind=kind)
    check_in_range(0, 1, rate=rate)
    check_count(0, mask_id=mask_id)
    check_flag(match_ids=match_ids)
    check_type(tuple, draws=draws)
    if len(draws) != len(SoftDraws._fields):
        raise ValueError(f"draws: expected {', '.join(SoftDraws._fields)}, got {len(draws)} parts")
    shapes = {f"draws.{name}": (x, "B L") for name, x in zip(SoftDraws._fields[:3], draws, strict=False)}
    words = {"draws.words": (draws[3], "B L", int)}
    check_shapes(ids=(ids, "B L", int), types=(types, "B L", int), **shapes, **words)
    check_entries(0, 1, open_low=False, **{name: x for name, (x, _) in shapes.items()})
    check_entries(0, math.inf, open_low=False, ids=ids, types=types, **{"draws.words": draws[3]})
    ids, types = ids.long(), types.long()
    select, change, swap, word = draws
    free = _free(ids, special_ids, protect_first)
    if kind in ("mask_type", "replace_type"):
        if target_type is None:
            raise ValueError(f"target_type: expected the id of a type for kind={kind!r}, got None")
        check_count(0, target_type=target_type)
        free = free & ((ids if match_ids else types) == target_type)

    selected = free & (select < rate)
    changed = selected & (change < CHANGED)
    new = types if kind in ("replace", "replace_type") else torch.full_like(ids, mask_id)
    result = torch.where(changed, new, ids)
    if kind == "mask":
        result = torch.where(selected & ~changed & (swap < SWAPPED), word.long(), result)
    return result


def soft_pair(
    code: Tensor,
    types: Tensor,
    query: Tensor,
    step: int,
    *,
    vocabulary: Tensor,
    mask_id: int,
    special_ids: Sequence[int],
    rate: float = 0.15,
    protect_first: int = 3,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Augment a batch, code by the four kinds in turn, queries by masking; returns new code and new queries.

    Args:
        code: ``(B, L)`` token ids.
        types: ``(B, L)`` their types; the two kinds for one type take that of a random token that may be changed.
        query: ``(B, M)`` token ids.
        step: number of the step.
        vocabulary: ``(w,)`` random words.
        mask_id: as all that follows, see `augment_tokens`.
        special_ids: never touched.
        rate: share of selected tokens.
        protect_first: never touched.
        generator: of the draws.
    """
    check_shapes(code=(code, "B L", int), types=(types, "B L", int), query=(query, "B M", int))
    ids = {"code": code, "types": types, "query": query}
    check_entries(0, math.inf, open_low=False, **ids)
    check_count(0, step=step)
    check_generator(generator)
    free = types.long()[_free(code.long(), special_ids, protect_first)]  # of padding there is no augmentation
    kind, target = KINDS[step % len(KINDS)], None
    if len(free):
        where = "cpu" if generator is None else generator.device
        target = int(free[int(torch.randint(len(free), (), generator=generator, device=where))])
    elif kind.endswith("type"):
        kind = "mask"  # nothing may be changed, whatever the kind
    options = {"mask_id": mask_id, "special_ids": special_ids, "rate": rate, "protect_first": protect_first}
    draws = draw_soft(code, vocabulary, generator=generator)
    new_code = augment_tokens(code, types, draws, kind=kind, target_type=target, **options)  # type: ignore[arg-type]
    draws = draw_soft(query, vocabulary, generator=generator)
    return new_code, augment_tokens(query, query, draws, **options)  # type: ignore[arg-type]


def _free(ids: Tensor, special_ids: Sequence[int], protect_first: int) -> Tensor:
    """``(B, L)`` boolean: the tokens that may be touched."""
    check_type((list, tuple), special_ids=special_ids)
    check_count(0, protect_first=protect_first, **{f"special_ids[{i}]": x for i, x in enumerate(special_ids)})
    free = ~torch.isin(ids, torch.tensor(list(special_ids), dtype=ids.dtype, device=ids.device))
    return free & (torch.arange(ids.shape[1], device=ids.device) >= protect_first)
