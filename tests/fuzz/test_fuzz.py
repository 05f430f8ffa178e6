"""Every public callable, one argument changed at a time: a finite result, or a sentence. See `fuzzing`."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fuzzing
import pytest
import torch
from fuzzing import Mutation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TABLES = sorted(Path(__file__).with_name("calls").glob("*.py"))
Build = Callable[[], Any]


@functools.cache
def _table(file: Path) -> dict[str, Any]:
    specification = importlib.util.spec_from_file_location(f"fuzz_calls_{file.stem}", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return vars(module)


class Entry(NamedTuple):
    """A public callable and its valid calls."""

    target: Callable[..., Any]
    builds: list[Build]


@functools.cache
def calls() -> dict[str, Entry]:
    """The tables, by name."""
    found: dict[str, Entry] = {}
    for file in TABLES:
        for key, value in _table(file).get("CALLS", {}).items():
            found[fuzzing.name_of(key)] = Entry(key, value if isinstance(value, list) else [value])
    return found


def marked(list_name: str) -> dict[str, str]:
    """The callables in all ``EXEMPT``, ``INFINITE`` (or pairs in ``UNCHECKED``), each with its sentence."""
    found: dict[str, str] = {}
    for file in TABLES:
        for key, why in _table(file).get(list_name, {}).items():
            name = f"{fuzzing.name_of(key[0])}.{key[1]}" if isinstance(key, tuple) else fuzzing.name_of(key)
            assert len(why.split()) >= 3, f"{file.name}: {list_name}: {name}: say in a sentence why"
            found[name] = why
    return found


def prepared(name: str, build: Build) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The callable, bound where it is a method, and its arguments."""
    made = build()
    target = calls()[name].target
    if isinstance(made, tuple):
        owner, arguments = made
        return getattr(owner, target.__name__), arguments
    return target, made


def run(target: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call it."""
    arguments = dict(arguments)
    positional = arguments.pop("*", ())
    torch.manual_seed(0)
    return target(*positional, **arguments)


def optional(target: Callable[..., Any]) -> set[str]:
    """Arguments that may be None."""
    parameters = inspect.signature(target).parameters.values()
    return {
        p.name for p in parameters if p.default is None or "None" in str(p.annotation) or "Any" in str(p.annotation)
    }


def test_every_public_callable_has_a_valid_call():
    missing = sorted(set(fuzzing.discover()) - set(calls()) - set(marked("EXEMPT")))
    assert not missing, (
        f"{len(missing)} public callables without a valid call in tests/fuzz/calls (or a sentence in EXEMPT): {missing}"
    )


def test_no_table_names_what_is_not_public():
    unknown = sorted((set(calls()) | set(marked("EXEMPT"))) - set(fuzzing.discover()))
    assert not unknown, f"tests/fuzz/calls name what the package does not make public: {unknown}"


def outcome(name: str, build: Build, mutation: Mutation | None) -> str | None:
    """What is wrong, or None."""
    target, arguments = prepared(name, build)
    argument = None
    if mutation is not None:
        arguments = fuzzing.replace(arguments, mutation.path, mutation.value)
        argument = str(mutation.path[0]).strip("*")
    gradients = mutation is None or mutation.label in {"zeros", "equal", "float16", "bfloat16", "all false"}
    wanted: list[torch.Tensor] = []
    if gradients:
        arguments, wanted = fuzzing.with_gradient(arguments)

    def call() -> Any:
        result = run(target, arguments)
        return (result, fuzzing.gradient_of(result, wanted)) if wanted else result

    return fuzzing.problem(call, argument, infinite=name in marked("INFINITE"))


@pytest.mark.parametrize("name", sorted(calls()))
def test_one_argument_changed(name):
    unchecked, found = marked("UNCHECKED"), []
    for build in calls()[name].builds:
        if wrong := outcome(name, build, None):
            found.append(f"valid call: {wrong}")
            continue
        bound, arguments = prepared(name, build)
        for mutation in fuzzing.mutations(arguments, optional(bound)):
            if f"{name}.{mutation.argument}" in unchecked:
                continue
            if wrong := outcome(name, build, mutation):
                path = mutation.argument + "".join(f".{step}" for step in mutation.path[1:])
                found.append(f"{path} = {mutation.label}: {wrong}")
    assert not found, f"{name}: {len(found)} wrong outcomes\n" + "\n".join(found)


@settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_two_arguments_changed(data):
    """Whatever two arguments become, no NaN and no error in another's words. Profiles: see tests/fuzz/conftest.py."""
    name = data.draw(st.sampled_from(sorted(calls())))
    build = data.draw(st.sampled_from(calls()[name].builds))
    bound, arguments = prepared(name, build)
    unchecked = marked("UNCHECKED")
    changes = [m for m in fuzzing.mutations(arguments, optional(bound)) if f"{name}.{m.argument}" not in unchecked]
    if not changes:
        return
    first, second = (data.draw(st.sampled_from(changes), label=str(i)) for i in range(2))
    target, arguments = prepared(name, build)
    arguments = fuzzing.replace(arguments, first.path, first.value)
    if second.path[0] != first.path[0]:
        arguments = fuzzing.replace(arguments, second.path, second.value)
    wrong = [
        fuzzing.problem(lambda: run(target, arguments), m.argument, infinite=name in marked("INFINITE"))
        for m in (first, second)
    ]
    assert None in wrong, f"{name}: {[(m.path, m.label) for m in (first, second)]}: {wrong[0]}"
