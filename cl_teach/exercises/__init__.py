"""Exercises that check themselves.

`check("learning_by_comparison.1", my_function)` runs a reader's function beside the reference, on random
and on degenerate inputs, and answers with a hint. Each chapter has one module in this folder with a
dictionary `EXERCISES: dict[int, Exercise]`; it is imported when its first exercise is asked for.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import linecache
import math
import numbers
import pkgutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What is wrong, in a sentence; None if nothing is.
Trouble = str | None


@dataclass(frozen=True)
class Case:
    """One situation in which a reader's function is tried.

    Attributes:
        name: the situation in words that a reader understands, such as "all embeddings identical".
        make: from a seed to the arguments: a tuple (positional) or a dictionary (by name).
        hint: what to think about when this case fails. Never the solution.
        raises: the exception that a right function raises here, if it should refuse the input.
    """

    name: str
    make: Callable[[int], tuple[Any, ...] | dict[str, Any]]
    hint: str
    raises: type[Exception] | None = None


@dataclass(frozen=True)
class Exercise:
    """A code exercise.

    Attributes:
        prompt: the task in one sentence.
        reference: the right function, mostly one of `cl_teach` itself.
        cases: tried in this order, the easiest first; the first failure is reported.
        rtol: relative tolerance of values.
        atol: absolute tolerance of values.
        seeds: every case is made with each of these seeds.
    """

    prompt: str
    reference: Callable[..., Any]
    cases: Sequence[Case]
    rtol: float = 1e-4
    atol: float = 1e-6
    seeds: Sequence[int] = (0, 1, 2)

    def __post_init__(self) -> None:
        """Refuse an exercise that every function would pass."""
        if not self.cases or not self.seeds:
            raise ValueError("cases, seeds: expected at least one each, otherwise every function passes")


@dataclass(frozen=True)
class Report:
    """Outcome of `check`, which has already printed the message.

    Attributes:
        passed: True if all cases agree.
        message: what was printed.
        failed_case: name of the first case that failed, or None.
    """

    passed: bool
    message: str
    failed_case: str | None = None

    def __bool__(self) -> bool:
        """A report is true if the exercise is passed."""
        return self.passed

    def _ipython_display_(self) -> None:
        """Nothing: the message stands there already when `check(...)` is the last line of a cell."""


def check(exercise: str, fn: Callable[..., Any]) -> Report:
    """Compare a function with the reference solution of an exercise; print what came out.

    Never raises for a wrong function: its exceptions are caught and reported with their line.

    Args:
        exercise: "<chapter>.<number>", such as "learning_by_comparison.1".
        fn: the function to try.

    Returns:
        The report. `bool(report)` says whether the exercise is passed.

    Raises:
        TypeError: exercise is no string.
        KeyError: there is no such exercise; the known ones are listed.
    """
    task = get(exercise)
    report = _run(exercise, task, fn)
    print(report.message)
    return report


def get(exercise: str) -> Exercise:
    """The exercise with this name, "<chapter>.<number>".

    Raises:
        TypeError: exercise is no string.
        KeyError: there is no such exercise; the known ones are listed.
    """
    if not isinstance(exercise, str):
        raise TypeError(f'exercise must be a string such as "learning_by_comparison.1", got {exercise!r:.60}')
    chapter, _, number = exercise.rpartition(".")
    if chapter in _chapters() and number.isdecimal() and int(number) in (tasks := _load(chapter)):
        return tasks[int(number)]
    raise KeyError(f"no exercise {exercise!r}; known are: {', '.join(ids()) or 'none yet'}")


def ids() -> list[str]:
    """Names of all exercises of the book, sorted by chapter and number."""
    return [f"{chapter}.{number}" for chapter in _chapters() for number in sorted(_load(chapter))]


def _chapters() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def _load(chapter: str) -> dict[int, Exercise]:
    return importlib.import_module(f"{__name__}.{chapter}").EXERCISES


def _run(name: str, task: Exercise, fn: Callable[..., Any]) -> Report:
    if not callable(fn):
        return Report(False, f"{name}: not yet: check needs the function itself, got {_kind(fn)}.", None)
    for case in task.cases:
        for seed in task.seeds:
            trouble = _try_case(task, case, fn, seed)
            if trouble is not None:
                message = f"{name}: not yet: {trouble}\n  Case: {case.name}.\n  Hint: {case.hint}"
                return Report(False, message, case.name)
    plural = "case" if len(task.cases) == 1 else "cases"
    return Report(True, f"{name}: passed ({len(task.cases)} {plural}, {len(task.seeds)} draws each).")


def _try_case(task: Exercise, case: Case, fn: Callable[..., Any], seed: int) -> Trouble:
    """What is wrong with fn in this case, or None."""
    given = case.make(seed)
    expected = None
    if case.raises is None:
        expected = _call(task.reference, _copy(given), seed)
    arguments = _copy(given)
    try:
        got = _call(fn, arguments, seed)
    except NotImplementedError:
        return "the function is still to be written (it raises NotImplementedError)."
    except (Exception, SystemExit) as error:
        if case.raises is not None and isinstance(error, case.raises):
            return None
        return _describe_error(error, fn)
    if case.raises is not None:
        return f"this input needs a {case.raises.__name__}; the function returned {_kind(got)}."
    trouble = _difference(got, expected, task.rtol, task.atol)
    if trouble is not None:
        return trouble
    names = list(arguments) if isinstance(arguments, dict) else range(1, len(arguments) + 1)
    before = list(given.values()) if isinstance(given, dict) else list(given)
    after = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    for label, old, new in zip(names, before, after, strict=True):
        if _difference(new, old, 0.0, 0.0) is not None:
            return (
                f"the result is right, but the function changes its argument {label} in place, and "
                "the caller still needs it: write x = x + 1 rather than x += 1, or clone() first."
            )
    return None


def _call(fn: Callable[..., Any], arguments: tuple[Any, ...] | dict[str, Any], seed: int) -> Any:
    """Call with the random state of the seed, and give the caller's random state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fn(**arguments) if isinstance(arguments, dict) else fn(*arguments)


def _copy(value: Any) -> Any:
    """A deep copy in which tensors are leaves again and keep requires_grad."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copy(item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_copy(item) for item in value)
    if isinstance(value, torch.Generator):
        twin = torch.Generator(value.device)  # deepcopy cannot
        twin.set_state(value.get_state())
        return twin
    return copy.deepcopy(value)


def _describe_error(error: BaseException, fn: Callable[..., Any]) -> str:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    own = getattr(getattr(fn, "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    if own is None or own == __file__:
        frames = []
    if not frames:
        failed = "could not be called with these arguments" if isinstance(error, TypeError) else "stops"
        return f"the function {failed} ({what})."
    last = frames[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    where = f"in line {last.lineno}" + (f", `{line}`" if line else "")
    return f"the function stops {where} ({what})."


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if value is Ellipsis:
        return "..."
    if isinstance(value, Tensor):
        return f"a {_dtype_kind(value)} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    article = "an" if type(value).__name__[0] in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def _dtype_kind(value: Tensor) -> str:
    if value.dtype == torch.bool:
        return "bool"
    if value.is_complex():
        return "complex"
    return "float" if value.is_floating_point() else "integer"


def _difference(got: Any, expected: Any, rtol: float, atol: float, where: str = "") -> Trouble:
    """A sentence on how got differs from expected, or None. `where` names the part, such as ' in item 2'."""
    if (got is None or got is Ellipsis) and expected is not got:
        return f"the function returns {_kind(got)}{where}."
    if isinstance(expected, Tensor):
        return _tensor_difference(got, expected, rtol, atol, where)
    if dataclasses.is_dataclass(expected) and isinstance(got, type(expected)):
        got, expected = (
            {field.name: getattr(item, field.name) for field in dataclasses.fields(item)} for item in (got, expected)
        )
    if isinstance(expected, Mapping):
        return _mapping_difference(got, expected, rtol, atol, where)
    if isinstance(expected, tuple | list):
        return _sequence_difference(got, expected, rtol, atol, where)
    if isinstance(expected, np.ndarray):
        if not isinstance(got, np.ndarray):
            return f"the function returns {_kind(got)}{where}, needed is {_kind(expected)}."
        return _tensor_difference(torch.as_tensor(got), torch.as_tensor(expected), rtol, atol, where)
    if isinstance(expected, bool | np.bool_ | numbers.Number):
        return _number_difference(got, expected, rtol, atol, where)
    if type(got) is not type(expected) and not isinstance(got, type(expected)):
        return f"the function returns {_kind(got)}{where}, needed is {_kind(expected)}."
    if type(expected).__eq__ is object.__eq__:
        return None  # equal only to itself (a module, a generator, a function): its values cannot be compared
    same = bool(got == expected)
    return None if same else f"the function returns {got!r:.80}{where}, expected is {expected!r:.80}."


def _number_difference(got: Any, expected: Any, rtol: float, atol: float, where: str) -> Trouble:
    if isinstance(got, Tensor | np.ndarray | np.generic) and got.ndim == 0:
        got = got.item()  # a 0-d tensor is as good as a number where a number is asked for
    if not isinstance(got, numbers.Number):
        return f"the function returns {_kind(got)}{where}, needed is one number ({type(expected).__name__})."
    whole = isinstance(expected, numbers.Integral) or isinstance(expected, np.bool_)
    truth = isinstance(expected, bool | np.bool_)
    if isinstance(got, bool) != truth or (whole and not isinstance(got, numbers.Integral)):
        return f"the function returns {_kind(got)} ({got}){where}, needed is {_kind(expected)}."
    double = torch.complex128 if isinstance(got, complex) or isinstance(expected, complex) else torch.float64
    mine, right = torch.tensor(got, dtype=double), torch.tensor(expected, dtype=double)
    return _value_difference(mine, right, rtol, atol, where)


def _tensor_difference(got: Any, expected: Tensor, rtol: float, atol: float, where: str) -> Trouble:
    if not isinstance(got, Tensor):
        tip = " Keep it a tensor: no .item(), no float()." if isinstance(got, float) else ""
        return f"the function returns {_kind(got)}{where}, needed is {_kind(expected)}.{tip}"
    if _dtype_kind(got) != _dtype_kind(expected):
        return f"the values are of kind {_dtype_kind(got)}{where}, needed is {_dtype_kind(expected)}."
    if got.shape != expected.shape:
        return f"the shape is {tuple(got.shape)}{where}, needed is {tuple(expected.shape)}."
    if expected.requires_grad and not got.requires_grad:
        return f"no gradient flows{where}. Look for detach(), .item(), no_grad() or a new torch.tensor."
    double = torch.complex128 if expected.is_complex() else torch.float64
    return _value_difference(got.detach().to("cpu", double), expected.detach().to("cpu", double), rtol, atol, where)


def _value_difference(got: Tensor, expected: Tensor, rtol: float, atol: float, where: str) -> Trouble:
    close = torch.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True)
    if bool(close.all()):
        return None
    if bad := int((got.isnan() & ~expected.isnan()).sum()):
        count = "" if got.ndim == 0 else f" in {bad} of {got.numel()} places"
        return f"the result is NaN{count}{where}. Look for 0/0, log(0), inf - inf or sqrt of a negative."
    if bad := int((got.isinf() & ~expected.isinf()).sum()):
        count = "" if got.ndim == 0 else f" in {bad} of {got.numel()} places"
        return f"the result is infinite{count}{where}. Look for x/0, log(0) or exp of a large number."
    gap = (got - expected).abs().nan_to_num(nan=math.inf).masked_fill(close, -1.0)
    place = int(gap.argmax())
    yours, right = got.flatten()[place].item(), expected.flatten()[place].item()
    if got.ndim:
        index = tuple(int(i) for i in np.unravel_index(place, tuple(got.shape)))
        return (
            f"{int((~close).sum())} of {got.numel()} values differ{where}, most at {index}: "
            f"yours is {yours:.6g}, expected {right:.6g}."
        )
    return f"the value differs{where}: yours is {yours:.6g}, expected {right:.6g}."


def _mapping_difference(got: Any, expected: Mapping[Any, Any], rtol: float, atol: float, where: str) -> Trouble:
    if not isinstance(got, Mapping):
        return f"the function returns {_kind(got)}{where}, needed is a dict with keys {list(expected)}."
    if missing := [key for key in expected if key not in got]:
        return f"the dictionary{where} lacks the keys {missing}."
    if extra := [key for key in got if key not in expected]:
        return f"the dictionary{where} has the keys {extra} too many."
    for key in expected:
        trouble = _difference(got[key], expected[key], rtol, atol, f"{where} under key {key!r}")
        if trouble is not None:
            return trouble
    return None


def _sequence_difference(got: Any, expected: Sequence[Any], rtol: float, atol: float, where: str) -> Trouble:
    kind = "list" if isinstance(expected, list) else "tuple"
    if not isinstance(got, tuple | list):
        return f"the function returns {_kind(got)}{where}, needed is a {kind} of {len(expected)} items."
    if len(got) != len(expected):
        return f"the {kind}{where} has {len(got)} items, needed are {len(expected)}."
    for number, (mine, right) in enumerate(zip(got, expected, strict=True), start=1):
        trouble = _difference(mine, right, rtol, atol, f"{where} in item {number}")
        if trouble is not None:
            return trouble
    return None
