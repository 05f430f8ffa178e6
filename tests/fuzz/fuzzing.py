"""The general promise, walked: whatever one argument of a public callable is changed to, the answer is a finite result
or a `ValueError` or `TypeError` that names the argument, what came and what is needed.

A table ``tests/fuzz/calls/<area>.py`` holds one valid call of every public callable of an area:

    CALLS = {
        nt_xent: lambda: dict(z1=normal(6, 8), z2=normal(6, 8, seed=1), temperature=0.5),
        MomentumTeacher: lambda: dict(student=nn.Linear(3, 2), momentum=0.9),
        MomentumTeacher.update: lambda: (MomentumTeacher(nn.Linear(3, 2)), dict(student=nn.Linear(3, 2))),
    }

The key is the function, the class or the method itself; the value makes the arguments anew for every call, for a method
together with its object. Give every argument that has a default worth changing, and both of two exclusive ones in two
calls: ``nt_xent: [lambda: ..., lambda: ...]``. Positional ``*args`` go under the name ``"*"`` as a tuple.

What may stay out of a table stands in its ``EXEMPT``: the callable, and a sentence that says why (it draws a figure,
it starts processes). ``INFINITE`` holds callables whose documented result may be infinite, ``UNCHECKED`` pairs of a
callable and an argument that takes anything by design (a dictionary that is only stored), each with its sentence.

`discover` finds every public callable of the package; one without a place in a table fails the test.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import cl_teach

SECONDS = 20  # no call of these sizes takes a tenth of it; what does runs for ever


# --- for the tables ---------------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float32 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """Float32 numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Integers in [0, high)."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    """A fresh generator."""
    return torch.Generator().manual_seed(seed)


# --- what is public ---------------------------------------------------------------------------------------------------

# Defined by torch's protocol, called by torch, with what torch made.
PROTOCOL = {"get_extra_state", "set_extra_state", "train", "state_dict", "load_state_dict"}


@functools.cache
def discover() -> dict[str, Callable[..., Any]]:
    """Every public function, class and method of the package by its name without ``cl_teach.``."""
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.walk_packages(cl_teach.__path__, "cl_teach."):
        if info.name.rpartition(".")[2].startswith("__"):
            continue
        module = importlib.import_module(info.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if getattr(value, "__module__", None) != info.name or not callable(value):
                continue
            if not inspect.isclass(value):
                found[name_of(value)] = value
            elif not hasattr(value, "_fields") and not issubclass(value, BaseException):
                found[name_of(value)] = value
            if inspect.isclass(value):
                for method in _methods(value):
                    found[name_of(method)] = method
    return found


def _methods(kind: type) -> Iterator[Callable[..., Any]]:
    for name, value in vars(kind).items():
        if name.startswith("_") or name in PROTOCOL or isinstance(value, property):
            continue
        value = getattr(kind, name)
        if inspect.isfunction(value) or inspect.ismethod(value):
            yield value


def name_of(value: Callable[..., Any]) -> str:
    """For example ``losses.isogclr.ISogCLR.loss``."""
    value = getattr(value, "__func__", value)
    return f"{value.__module__}.{value.__qualname__}".removeprefix("cl_teach.")


# --- one argument changed ---------------------------------------------------------------------------------------------


class Mutation(NamedTuple):
    """An argument (``path`` leads into tuples, lists, dictionaries and records), what it becomes, and its label."""

    path: tuple[Any, ...]
    value: Any
    label: str

    @property
    def argument(self) -> str:
        """Name of the argument."""
        return str(self.path[0])


class Junk:
    """Something that no function expects."""


def mutations(arguments: dict[str, Any], optional: set[str]) -> Iterator[Mutation]:
    """All changes of one argument at a time."""
    for name, value in arguments.items():
        for path, old in _leaves((name,), value):
            if path == ("*",):
                continue
            for label, new in _mutants(old):
                if new is None and len(path) == 1 and name in optional:
                    continue
                yield Mutation(path, new, label)


def _leaves(path: tuple[Any, ...], value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    yield path, value
    if len(path) > 3:
        return
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        for field in value._fields:
            yield from _leaves((*path, field), getattr(value, field))
    elif isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        for i, item in enumerate(value[:3]):
            yield from _leaves((*path, i), item)
    elif isinstance(value, dict):
        for key in list(value)[:3]:
            yield from _leaves((*path, key), value[key])


def replace(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of nested arguments with one leaf changed."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, key: replace(value[key], rest, new)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return value._replace(**{key: replace(getattr(value, key), rest, new)})
    items = list(value)
    items[key] = replace(items[key], rest, new)
    return type(value)(items)


def _mutants(old: Any) -> Iterator[tuple[str, Any]]:
    yield "junk", Junk()
    if old is None:
        return
    yield "None", None
    if not isinstance(old, str):
        yield "a string", "junk"
    if isinstance(old, Tensor):
        yield from _tensor_mutants(old)
    elif isinstance(old, bool):
        yield from (("2", 2), ("nan", math.nan))
    elif isinstance(old, int | np.integer):
        yield from (("0", 0), ("-1", -1), ("2.5", 2.5), ("nan", math.nan), ("inf", math.inf), ("True", True))
        yield from (("two numbers", torch.tensor([old, old])), ("complex", 1j))
    elif isinstance(old, float):
        for new in (0.0, -1.0, 1.5, -1e30, 1e30, 1e-30, math.nan, math.inf, -math.inf):
            yield f"{new:g}", new
        yield from (("True", True), ("complex", 1j), ("two numbers", torch.tensor([old, old])))
    elif isinstance(old, str):
        yield from (("another string", "no such thing"), ("empty string", ""), ("3", 3))
    elif isinstance(old, nn.Module):
        yield "3", 3
    elif isinstance(old, tuple | list):
        yield "empty", type(old)(()) if not hasattr(old, "_fields") else ()
        yield "3", 3
    else:
        yield "3", 3


def _tensor_mutants(old: Tensor) -> Iterator[tuple[str, Any]]:
    yield from (
        ("3.5", 3.5),
        ("numpy", old.detach().numpy()),
        ("list", old.tolist()),
        ("meta", old.detach().to("meta")),
    )
    yield "complex", old.detach().to(torch.complex64)
    yield "one dimension more", old.detach()[None]
    if old.ndim:
        yield from (("empty", old.detach()[:0]), ("one row", old.detach()[:1]), ("one dimension less", old.detach()[0]))
        if len(old) > 1:
            yield from (("a row less", old.detach()[:-1]), ("a row more", torch.cat([old, old[:1]]).detach()))
        if old.ndim > 1 and old.shape[-1] > 1:
            yield "a column less", old.detach()[..., :-1]
    if old.is_floating_point():
        for bad in (math.nan, math.inf, -math.inf):
            new = old.detach().clone()
            new.view(-1)[-1] = bad
            yield f"one {bad}", new
        yield from (("zeros", torch.zeros_like(old)), ("negated", -old.detach()), ("huge", 1e20 * old.detach()))
        yield from (("tiny", 1e-20 * old.detach()), ("equal", torch.ones_like(old)))
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int64, torch.bool):
            yield str(dtype).removeprefix("torch."), old.detach().to(dtype)
    elif old.dtype == torch.bool:
        yield from (("all false", torch.zeros_like(old)), ("all true", torch.ones_like(old)))
        yield from (("int64", old.long()), ("float32", old.float()))
    else:
        yield from (("float32", old.float()), ("bool", old.bool()), ("zeros", torch.zeros_like(old)))
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
            yield f"same as {dtype}".replace("torch.", ""), old.to(dtype)
        if old.numel():
            for bad in (-1, 10**6, 2**40):
                new = old.clone()
                new.view(-1)[-1] = bad
                yield f"one {bad}", new


# --- what came out ----------------------------------------------------------------------------------------------------

# "temperature: expected ...", "z1, z2: expected ...", "batch.index[0]: ...": a name, and a sentence.
SENTENCE = re.compile(r"^[A-Za-z_][\w\[\]().,*' ]{0,120}: \S")


def problem(call: Callable[[], Any], argument: str | None, *, infinite: bool = False) -> str | None:
    """What is wrong with the outcome of a call, or None; ``argument`` was changed (None: nothing was)."""
    try:
        with warnings.catch_warnings(), _limit():
            warnings.simplefilter("ignore")
            result = call()
            bad = not_finite(result, infinite)
    except (ValueError, TypeError) as error:
        says = str(error).splitlines()[0] if str(error) else ""
        if argument is None:
            return f"a valid call is refused: {type(error).__name__}: {says}"
        if SENTENCE.match(says) and re.search(rf"(?<![A-Za-z0-9_]){re.escape(argument.strip('*'))}", says):
            return None
        return f"{type(error).__name__} that does not name {argument!r}: {says[:160]}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
    return bad


def not_finite(value: Any, infinite: bool = False, where: str = "result", depth: int = 0) -> str | None:
    """Where a result holds NaN (or infinity), or None."""
    if depth > 4:
        return None
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.is_meta and value.numel():
            wide = value.detach().float() if value.dtype.itemsize < 4 else value.detach()
            good = ~wide.isnan() if infinite else wide.isfinite()
            if not good.all():
                return f"{where} is not finite: {int((~good).sum())} of {value.numel()} numbers"
    elif isinstance(value, float | np.floating):
        if math.isnan(value) or (math.isinf(value) and not infinite):
            return f"{where} is {value}"
    elif isinstance(value, dict):
        return _first(not_finite(x, infinite, f"{where}[{k!r}]", depth + 1) for k, x in list(value.items())[:20])
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))
        return _first(
            not_finite(x, infinite, f"{where}.{name}", depth + 1)
            for name, x in zip(names, list(value)[:20], strict=False)
        )
    return None


def _first(found: Iterator[str | None]) -> str | None:
    return next((x for x in found if x), None)


def with_gradient(arguments: dict[str, Any]) -> tuple[dict[str, Any], list[Tensor]]:
    """The arguments with a gradient wanted for every floating tensor among them."""
    wanted: list[Tensor] = []

    def visit(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize > 1 and not value.is_meta:
            if value.is_leaf and not isinstance(value, nn.Parameter):
                wanted.append(value.detach().clone().requires_grad_())
                return wanted[-1]
            return value
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(visit, value))
        if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
            return type(value)(map(visit, value))
        return value

    return {name: visit(value) for name, value in arguments.items()}, wanted


def gradient_of(result: Any, wanted: list[Tensor]) -> list[Tensor]:
    """Gradients of the loss among the results (a scalar, or the first field), or nothing."""
    loss = result[0] if isinstance(result, tuple) and result else result
    if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.requires_grad and wanted):
        return []
    return [x for x in torch.autograd.grad(loss, wanted, allow_unused=True) if x is not None]


@contextmanager
def _limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"ran for more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
