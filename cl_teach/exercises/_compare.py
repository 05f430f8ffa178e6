"""How a reader's result differs from the reference, said in one sentence that never gives the answer away."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What is wrong, in a sentence; None if nothing is.
Trouble = str | None


def kind(value: Any) -> str:
    """What a value is, in words: its type, and the shape where it has one."""
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


def difference(got: Any, expected: Any, rtol: float, atol: float, where: str = "") -> Trouble:
    """A sentence on how got differs from expected, or None. `where` names the part, such as ' in item 2'."""
    if (got is None or got is Ellipsis) and expected is not got:
        return f"the function returns {kind(got)}{where}."
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
            return f"the function returns {kind(got)}{where}, needed is {kind(expected)}."
        return _tensor_difference(torch.as_tensor(got), torch.as_tensor(expected), rtol, atol, where)
    if isinstance(expected, bool | np.bool_ | numbers.Number):
        return _number_difference(got, expected, rtol, atol, where)
    if type(got) is not type(expected) and not isinstance(got, type(expected)):
        return f"the function returns {kind(got)}{where}, needed is {kind(expected)}."
    if type(expected).__eq__ is object.__eq__:
        return None  # equal only to itself (a module, a generator, a function): its values cannot be compared
    same = bool(got == expected)
    return None if same else f"the function returns {got!r:.80}{where}, expected is {expected!r:.80}."


def _number_difference(got: Any, expected: Any, rtol: float, atol: float, where: str) -> Trouble:
    if isinstance(got, Tensor | np.ndarray | np.generic) and got.ndim == 0:
        got = got.item()  # a 0-d tensor is as good as a number where a number is asked for
    if not isinstance(got, numbers.Number):
        return f"the function returns {kind(got)}{where}, needed is one number ({type(expected).__name__})."
    whole = isinstance(expected, numbers.Integral) or isinstance(expected, np.bool_)
    truth = isinstance(expected, bool | np.bool_)
    if isinstance(got, bool) != truth or (whole and not isinstance(got, numbers.Integral)):
        return f"the function returns {kind(got)} ({got}){where}, needed is {kind(expected)}."
    double = torch.complex128 if isinstance(got, complex) or isinstance(expected, complex) else torch.float64
    mine, right = torch.tensor(got, dtype=double), torch.tensor(expected, dtype=double)
    return _value_difference(mine, right, rtol, atol, where)


def _tensor_difference(got: Any, expected: Tensor, rtol: float, atol: float, where: str) -> Trouble:
    if not isinstance(got, Tensor):
        tip = " Keep it a tensor: no .item(), no float()." if isinstance(got, float) else ""
        return f"the function returns {kind(got)}{where}, needed is {kind(expected)}.{tip}"
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
        return f"the function returns {kind(got)}{where}, needed is a dict with keys {list(expected)}."
    if missing := [key for key in expected if key not in got]:
        return f"the dictionary{where} lacks the keys {missing}."
    if extra := [key for key in got if key not in expected]:
        return f"the dictionary{where} has the keys {extra} too many."
    for key in expected:
        trouble = difference(got[key], expected[key], rtol, atol, f"{where} under key {key!r}")
        if trouble is not None:
            return trouble
    return None


def _sequence_difference(got: Any, expected: Sequence[Any], rtol: float, atol: float, where: str) -> Trouble:
    word = "list" if isinstance(expected, list) else "tuple"
    if not isinstance(got, tuple | list):
        return f"the function returns {kind(got)}{where}, needed is a {word} of {len(expected)} items."
    if len(got) != len(expected):
        return f"the {word}{where} has {len(got)} items, needed are {len(expected)}."
    for number, (mine, right) in enumerate(zip(got, expected, strict=True), start=1):
        trouble = difference(mine, right, rtol, atol, f"{where} in item {number}")
        if trouble is not None:
            return trouble
    return None
