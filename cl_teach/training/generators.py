"""The random generators that a function or a network can reach.

Whoever wants to repeat a computation (`in_chunks` embeds twice, a checkpoint continues) has to put back the generators
it draws from. torch's own are known; others hide in attributes of modules, in closures and in the globals that a
function names. `generators_of` finds them there.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from torch import Generator, Tensor, nn

__all__ = ["generators_of", "rewound"]

DEPTH = 5  # a module's list of transforms, each a partial with a generator, is four steps away
WIDTH = 256  # items of a list that are looked at: a list of pictures holds no generator
FOREIGN = ("torch", "torchvision", "numpy", "builtins")  # their functions hold no generator of ours


def generators_of(*objects: Any) -> list[Generator]:
    """Every ``torch.Generator`` that the objects hold, each once, always in the same order.

    Looked through are the attributes of modules and other objects, lists, tuples and dictionaries, the arguments of
    partials, and what a function can see: its closure, its defaults, the globals that it names.

    Args:
        *objects: networks, functions, anything.

    Example:
        >>> import torch
        >>> noise = torch.Generator()
        >>> generators_of(lambda x: x + torch.rand(x.shape, generator=noise)) == [noise]
        True
    """
    found: dict[int, Generator] = {}
    seen: set[int] = set()
    for item in objects:
        _collect(item, DEPTH, found, seen)
    return list(found.values())


@contextmanager
def rewound(generators: list[Generator], states: list[Tensor]) -> Iterator[None]:
    """Inside, the generators are where ``states`` says; afterwards they are where they were.

    Args:
        generators: to rewind.
        states: of each, from ``get_state()``.
    """
    now = [generator.get_state() for generator in generators]
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    try:
        yield
    finally:
        for generator, state in zip(generators, now, strict=True):
            generator.set_state(state)


def _collect(item: Any, depth: int, found: dict[int, Generator], seen: set[int]) -> None:
    if isinstance(item, Generator):
        found.setdefault(id(item), item)
        return
    if depth < 0 or id(item) in seen:
        return
    seen.add(id(item))
    for inner in _inside(item):
        _collect(inner, depth - 1, found, seen)


def _inside(item: Any) -> list[Any]:
    """What an object holds, as far as a generator may be there."""
    if isinstance(item, nn.Module):  # of its submodules each counts by itself, however deep it lies
        return [value for module in item.modules() for name, value in vars(module).items() if name[0] != "_"]
    if isinstance(item, list | tuple | set):
        return list(islice(item, WIDTH))
    if isinstance(item, dict):
        return list(islice(item.values(), WIDTH))
    if isinstance(item, partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        return [] if item.__module__.split(".")[0] in FOREIGN else _seen_by(item)
    if isinstance(item, Tensor | type | types.ModuleType) or type(item).__module__.split(".")[0] in FOREIGN:
        return []
    return list(vars(item).values()) if hasattr(item, "__dict__") else []


def _seen_by(function: types.FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that has no value yet
            continue
    names = (name for name in function.__code__.co_names if name in function.__globals__)
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()] + [
        function.__globals__[name] for name in names
    ]
