"""How a golden case becomes tensors, and how what an adapter returns is compared with what the case lists."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers import UnknownQuantity
from torch import Tensor

HERE = Path(__file__).parent
DATA = HERE / "data"
MISSING = "missing:"  # skip reasons that start so are listed in the terminal summary, see conftest.py


class Case(NamedTuple):
    """One case of one file: what to compute, from what, and what must come out."""

    slug: str
    number: int
    quantity: str
    dtype: torch.dtype
    inputs: Any
    params: dict[str, Any]
    outputs: dict[str, Any]
    rtol: float
    atol: float

    @property
    def name(self) -> str:
        """Readable test id, e.g. ``sbcl-0-supcon_out_loss``."""
        return f"{self.slug}-{self.number}-{self.quantity}"


def load_cases(folder: Path) -> list[Case]:
    """All cases of all ``*.json`` files of a folder, in the order of the file names.

    Raises:
        FileNotFoundError: the folder holds no such file.
        ValueError: a case lists no output, so that any answer would pass.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"no golden file (*.json) in {folder}")
    cases = []
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        for number, case in enumerate(content["cases"]):
            if not case["outputs"]:
                raise ValueError(f"{file.name}: case {number} lists no output")
            cases.append(
                Case(
                    slug=content["method"],
                    number=number,
                    quantity=case["quantity"],
                    dtype=getattr(torch, case.get("dtype", "float64")),
                    inputs=case.get("inputs", {}),
                    params=case.get("params", {}),
                    outputs=case["outputs"],
                    rtol=case.get("rtol", 1e-6),
                    atol=case.get("atol", 1e-9),
                )
            )
    return cases


def to_tensors(value: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Turn the inputs of a case into tensors, recursively through dictionaries and ragged lists.

    Numbers become 0-d tensors and regular lists of numbers tensors: truth values bool, integers int64,
    anything with a decimal point ``dtype`` (an integer ``dtype`` leaves decimal numbers in float64). A ragged
    list stays a list, of the largest regular tensors there are; what kind of number it holds is decided for
    the whole of it. Strings and nulls stay as they are. A list without any number becomes an empty tensor of
    ``dtype``.
    """
    if isinstance(value, dict):
        return {key: to_tensors(item, dtype) for key, item in value.items()}
    leaves = _leaves(value)
    if any(leaf is None or isinstance(leaf, str | dict) for leaf in leaves):
        return [to_tensors(item, dtype) for item in value] if isinstance(value, list) else value
    return _numbers(value, _kind(leaves, dtype))


def mismatches(want: Any, got: Any, rtol: float, atol: float, where: str = "output") -> list[str]:
    """Everything in which ``got`` differs from ``want``, one sentence each; empty when they agree.

    Every name that ``want`` lists must be there with the same structure and shape. Names at the top that
    ``want`` does not list are allowed, because two cases of one quantity may list different outputs. A null
    matches None or NaN (a value that does not exist).
    """
    return _compare(want, _plain(got), rtol, atol, where, extra_names=True)


def find_adapter(slug: str) -> Callable[..., Any] | None:
    """The function of ``adapters/<slug>.py``, None where there is no such file."""
    name = slug.replace("-", "_")
    if not (HERE / "adapters" / f"{name}.py").is_file():
        return None
    return getattr(importlib.import_module(f"adapters.{name}"), name)


def check(case: Case) -> None:
    """Run a case; fails with every difference, skips with a reason for the summary when nothing covers it."""
    adapter = find_adapter(case.slug)
    if adapter is None:
        pytest.skip(f"{MISSING} adapter {case.slug}")
    try:
        got = adapter(case.quantity, to_tensors(case.inputs, case.dtype), case.params)
    except UnknownQuantity:
        pytest.skip(f"{MISSING} quantity {case.slug}.{case.quantity}")
    problems = mismatches(case.outputs, got, case.rtol, case.atol, where=case.name)
    more = f"\n... and {len(problems) - 8} more" if len(problems) > 8 else ""
    assert not problems, "\n".join(problems[:8]) + more


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _kind(leaves: list[Any], dtype: torch.dtype) -> torch.dtype:
    if leaves and all(isinstance(leaf, bool) for leaf in leaves):
        return torch.bool
    if leaves and all(isinstance(leaf, int) for leaf in leaves):
        return torch.int64
    return dtype if dtype.is_floating_point or not leaves else torch.float64


def _numbers(value: Any, kind: torch.dtype) -> Any:
    if _shape(value) is None:
        return [_numbers(item, kind) for item in value]
    return torch.tensor(value, dtype=kind)


def _shape(value: Any) -> tuple[int, ...] | None:
    """Shape of a regular nested list, None for a ragged one."""
    if not isinstance(value, list):
        return ()
    shapes = {_shape(item) for item in value}
    if len(shapes) > 1 or None in shapes:
        return None
    return (len(value), *(shapes.pop() or () if shapes else ()))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _compare(want: Any, got: Any, rtol: float, atol: float, where: str, extra_names: bool = False) -> list[str]:
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return [f"{where}: expected names {sorted(want)}, got {_describe(got)}"]
        problems = [f"{where}: {name!r} is missing" for name in want if name not in got]
        if not extra_names:
            problems += [f"{where}: {name!r} is not expected" for name in got if name not in want]
        for name in want:
            if name in got:
                problems += _compare(want[name], got[name], rtol, atol, f"{where}.{name}")
        return problems
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return [f"{where}: expected {_describe(want)}, got {_describe(got)}"]
        problems = []
        for index, (a, b) in enumerate(zip(want, got, strict=True)):
            problems += _compare(a, b, rtol, atol, f"{where}[{index}]")
        return problems
    return [] if _same(want, got, rtol, atol) else [f"{where}: expected {_describe(want)}, got {_describe(got)}"]


def _same(want: Any, got: Any, rtol: float, atol: float) -> bool:
    if want is None:
        return got is None or (isinstance(got, float) and math.isnan(got))
    if isinstance(want, str) or not isinstance(got, int | float):
        return type(want) is type(got) and want == got
    if math.isnan(want) or math.isnan(got):
        return math.isnan(want) and math.isnan(got)
    if math.isinf(want) or math.isinf(got):
        return want == got
    return abs(got - want) <= atol + rtol * abs(want)


def _describe(value: Any) -> str:
    if isinstance(value, list):
        shape = _shape(value)
        return f"a ragged list of {len(value)}" if shape is None else f"shape {shape}"
    return f"names {sorted(value)}" if isinstance(value, dict) else repr(value)
