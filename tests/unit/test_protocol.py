"""One shape for all methods, so that whoever knows one knows all: "The protocol" in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from survey_rules import SHARED
from torch import nn

import cl_teach
from cl_teach.survey import load, parts

PACKAGE = Path(cl_teach.__file__).parent
PARTS = tuple(part.package for part in parts()[1:])
# The ground floor is everything else; exercises stand on top of both.
FLOORS = [each.name for each in pkgutil.iter_modules(cl_teach.__path__) if each.name not in (*PARTS, "exercises")]
PLUMBING = {"check_generator", "draw_seed"}  # what they are about is the generator
# Names of loops that belong to training.fit, or are called step; what follows the optimizer is after_step.
LOOPS = re.compile(r"training_step|train_step|train_stage|round|episode|(?!after_step$)\w+_step")
REASON = re.compile(r"optimi[sz]er|phase|stage|alternat|in turn|because|\b(both|two|several)\b", re.IGNORECASE)
LASTING = {"Multistage"}  # what lasts between stages; each stage is a module of its own, and is what is trained


def modules(*packages: str) -> Iterator[ModuleType]:
    """The modules of these subpackages, the packages themselves left out."""
    for name in packages:
        found = importlib.import_module(f"cl_teach.{name}")
        if not hasattr(found, "__path__"):
            yield found
            continue
        for each in pkgutil.iter_modules(found.__path__):
            yield importlib.import_module(f"cl_teach.{name}.{each.name}")


def public(module: ModuleType) -> dict[str, Any]:
    """Public functions and classes that a module defines itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and getattr(value, "__module__", "") == module.__name__
    }


def callables(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions, and the constructors and public methods of public classes, with their names."""
    for name, value in public(module).items():
        if inspect.isfunction(value):
            yield name, value
            continue
        for own, part in vars(value).items():
            if inspect.isfunction(part) and (own == "__init__" or not own.startswith("_")):
                yield f"{name}.{own}", part


def required(function: Any) -> list[str]:
    """Names of the arguments that a call needs, self left out."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    every = list(inspect.signature(function).parameters.values())[1:]
    return [each.name for each in every if each.kind in kinds and each.default is inspect.Parameter.empty]


def shape_of(module: ModuleType, entry_points: list[str]) -> Iterator[str]:
    """Where the classes of a method file have another shape than the protocol gives them."""
    for name in entry_points:
        value = getattr(module, name, None)
        if not (inspect.isclass(value) and issubclass(value, nn.Module)):
            continue
        if value.__module__.startswith("cl_teach.models"):
            continue
        if not callable(getattr(value, "loss", None)) and name not in LASTING:
            yield f"{name} has no loss"
        if value.forward is nn.Module.forward:
            yield f"{name} has no forward"
    for name, value in public(module).items():
        if not inspect.isclass(value):
            continue
        after = getattr(value, "after_step", None)
        if after is not None and required(after):
            yield f"{name}.after_step needs {required(after)}; it is called without arguments after the optimizer"
        for own, part in vars(value).items():
            if inspect.isfunction(part) and LOOPS.fullmatch(own):
                yield f"{name}.{own}: training.fit trains, with loss and after_step; a loop that must be is step(batch)"
        step = vars(value).get("step")
        if step is not None:
            if required(step)[:1] != ["batch"]:
                yield f"{name}.step: its first argument is the batch, here {required(step)[:1]}"
            if not REASON.search(inspect.getdoc(step) or ""):
                yield f"{name}.step: its docstring does not say why the method owns a loop"
        if issubclass(value, nn.Module):
            for given in inspect.signature(value).parameters:
                if given in ("generator", "seed"):
                    yield f"{name}(...): {given} is an argument of loss or of a function, no module keeps one"


def randomness_of(module: ModuleType, seeds: bool = False) -> Iterator[str]:
    """Where a generator is not ``*, generator=None``, or where there is a seed."""
    for name, value in callables(module):
        known = inspect.signature(value).parameters
        if "seed" in known and not seeds:
            yield f"{name}: randomness comes from a generator; seeds are for data sets"
        generator = known.get("generator")
        if (
            generator is not None
            and name not in PLUMBING
            and (generator.kind is not inspect.Parameter.KEYWORD_ONLY or generator.default is not None)
        ):
            yield f"{name}: generator is keyword-only, with default None"


def imports_of(module: ModuleType) -> set[str]:
    """What a module imports from cl_teach, as dotted names below it, wherever in the file."""
    found: set[str] = set()
    base = module.__name__.split(".")
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level] if node.level else []
            whole = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{whole}.{alias.name}" for alias in node.names}
    return {name.removeprefix("cl_teach.") for name in found if name.startswith("cl_teach.")}


@pytest.mark.parametrize("method", load(), ids=lambda method: method.slug)
def test_a_method_has_the_shape_of_all_methods(method: Any) -> None:
    module = importlib.import_module(method.module)
    found = [*shape_of(module, method.entry_points), *randomness_of(module)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("method", load(), ids=lambda method: method.slug)
def test_a_method_stands_on_the_ground_floor_and_on_no_other_method(method: Any) -> None:
    module = importlib.import_module(method.module)
    own = method.module.removeprefix("cl_teach.")
    for name in imports_of(module):
        if name.split(".")[0] in PARTS:
            assert any(name.startswith(f"{shared}.") for shared in SHARED), f"{own} imports {name}"
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert not re.search(r"(?m)^\s*(from|import) cl_teach", text), f"{own}: imports inside the package are relative"
    assert not re.search(r"torch\.inf\b", text), f"{own}: math.inf, as everywhere"


def test_the_ground_floor_knows_no_method() -> None:
    for module in modules(*FLOORS):
        if module.__name__ == "cl_teach.figures.play_states":
            continue  # a playground shows methods: they make the state that it starts from
        for name in imports_of(module):
            shared = any(name.startswith(toy) for toy in SHARED)  # mathematics of a part, not a method
            assert shared or name.split(".")[0] not in (*PARTS, "exercises"), f"{module.__name__} imports {name}"


def test_the_ground_floor_draws_as_methods_do() -> None:
    found = [f"{m.__name__}: {each}" for m in modules("core", "models") for each in randomness_of(m)]
    found += [f"{m.__name__}: {each}" for m in modules("datasets") for each in randomness_of(m, seeds=True)]
    assert not found, "\n".join(["", *found])


def test_a_public_name_means_one_thing() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for module in modules("core", "models", "datasets", *PARTS):
        for name in public(module):
            places[name].add(module.__name__.removeprefix("cl_teach."))
    twice = {name: sorted(where) for name, where in places.items() if len(where) > 1}
    assert not twice, "\n".join(["", *(f"{name}: {', '.join(where)}" for name, where in sorted(twice.items()))])


def test_the_rules_see_what_they_are_for() -> None:
    """A module that breaks every rule of shape and randomness."""
    code = '''
from torch import nn

class Method(nn.Module):
    def __init__(self, seed=0):
        super().__init__()

    def after_step(self, momentum):
        """..."""

    def step(self, images):
        """One step."""

    def training_step(self, batch):
        """..."""

    def round(self):
        """..."""

class Other(nn.Module):
    def forward(self, x):
        return x

    def step(self, batch):
        """Two optimizers, hence a loop of its own."""

    def after_step(self, momentum=0.9):
        """..."""

def draw(n, generator=None):
    """..."""

def draw_with(n, *, generator):
    """..."""

def right(n, *, generator=None):
    """..."""
'''
    module = ModuleType("made_up")
    exec(code, module.__dict__)
    shape, random = list(shape_of(module, ["Method", "Other"])), list(randomness_of(module))
    wanted = [
        "Method has no loss",
        "Method has no forward",
        "Other has no loss",
        "Method.after_step needs ['momentum']",
        "Method.training_step",
        "Method.round",
        "Method.step: its first argument is the batch, here ['images']",
        "Method.step: its docstring does not say why",
        "Method(...): seed",
    ]
    assert len(shape) == len(wanted)
    for sentence in wanted:
        assert any(each.startswith(sentence) for each in shape), sentence
    assert [each.partition(":")[0] for each in random] == ["Method.__init__", "draw", "draw_with"]
