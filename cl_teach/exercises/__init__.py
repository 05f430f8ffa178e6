"""Exercises that check themselves.

`check("learning_by_comparison.1", my_function)` runs a reader's function beside the reference, on random
and on degenerate inputs, and answers with a hint. Each chapter has one module in this folder with a
dictionary `EXERCISES: dict[int, Exercise]`; it is imported when its first exercise is asked for.
"""

from __future__ import annotations

import copy
import importlib
import linecache
import pkgutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._compare import Trouble, difference, kind


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
        return Report(False, f"{name}: not yet: check needs the function itself, got {kind(fn)}.", None)
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
        return f"this input needs a {case.raises.__name__}; the function returned {kind(got)}."
    trouble = difference(got, expected, task.rtol, task.atol)
    if trouble is not None:
        return trouble
    names = list(arguments) if isinstance(arguments, dict) else range(1, len(arguments) + 1)
    before = list(given.values()) if isinstance(given, dict) else list(given)
    after = list(arguments.values()) if isinstance(arguments, dict) else list(arguments)
    for label, old, new in zip(names, before, after, strict=True):
        if difference(new, old, 0.0, 0.0) is not None:
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
