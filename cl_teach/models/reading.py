"""Read a text step by step: what a model makes of new tokens, and the rows of whatever it keeps of the old ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ..core.checks import check_callable, check_entries, check_shapes, check_type
from .language_model import LanguageModel

__all__ = ["Reading", "reader", "select_rows", "transformer_reader"]


class Reading(NamedTuple):
    """What a model makes of n rows of T tokens: ``states (n, T, d)``, ``logits (n, T, V)`` and its own cache.

    The cache is anything that `select_rows` takes rows of: tensors ``(n, ...)``, tuples, lists or dictionaries of them,
    or an object with a method ``reorder_cache``, as those of the ``transformers`` library have.
    """

    states: Tensor
    logits: Tensor
    cache: Any


def select_rows(cache: Any, rows: Tensor) -> Any:
    """The given rows of a cache, see `Reading`; a row can be taken several times.

    Args:
        cache: an object with ``reorder_cache`` is changed and returned; everything else is copied.
        rows: ``(m,)`` integers.
    """
    check_shapes(rows=(rows, "m", int))
    if isinstance(cache, Tensor):
        check_entries(0, len(cache) - 1, open_low=False, **{"cache, rows": rows})
        return cache.index_select(0, rows.long())
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(rows.long())
        return cache
    if isinstance(cache, dict):
        return {name: select_rows(part, rows) for name, part in cache.items()}
    if isinstance(cache, tuple) and hasattr(cache, "_fields"):
        return type(cache)(*(select_rows(part, rows) for part in cache))
    if isinstance(cache, tuple | list):
        return type(cache)(select_rows(part, rows) for part in cache)
    if cache is None or isinstance(cache, int | float | str):
        return cache
    raise TypeError(
        f"cache: expected tensors, tuples, lists, dictionaries or an object with reorder_cache, got "
        f"{type(cache).__name__}"
    )


def reader(model: LanguageModel) -> Callable[[Tensor, Any], Reading]:
    """Read with a `LanguageModel` step by step; its cache is the state of the recurrence."""
    check_type(LanguageModel, model=model)
    return lambda tokens, cache: Reading(*model.read(tokens, cache))


def transformer_reader(
    model: Callable[..., Any], *, cache_name: str = "past_key_values"
) -> Callable[[Tensor, Any], Reading]:
    """Read with a causal model of the ``transformers`` library, or with anything that is called as these are.

    Args:
        model: called with ``input_ids``, its cache, ``use_cache`` and ``output_hidden_states``.
        cache_name: what it calls the cache; "cache" in models that warn that the old name goes.
    """
    check_callable(model=model)
    check_type(str, cache_name=cache_name)

    def read(tokens: Tensor, cache: Any) -> Reading:
        said = model(input_ids=tokens, use_cache=True, output_hidden_states=True, **{cache_name: cache})
        return Reading(said.hidden_states[-1], said.logits, getattr(said, cache_name))

    return read
