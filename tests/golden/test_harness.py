"""The harness must fail where it should: these are the tests of the golden tests."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
from harness import DATA, Case, check, find_adapter, load_cases, mismatches, to_tensors
from helpers import UnknownQuantity, gradients, with_grad

WANT = {"loss": 1.5, "grad_x": [[1.0, 2.0], [3.0, 4.0]], "mask": [1, 0], "n": 3}
RIGHT = {
    "loss": torch.tensor(1.5),
    "grad_x": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "mask": torch.tensor([True, False]),
    "n": 3,
}


def case(outputs: dict[str, Any], **changes: Any) -> Case:
    values = dict(slug="a-slug", number=0, quantity="q", dtype=torch.float64, inputs={"x": [1.0]}, params={})
    return Case(**{**values, "outputs": outputs, "rtol": 1e-6, "atol": 1e-9, **changes})


def install(monkeypatch: pytest.MonkeyPatch, adapter: Callable[..., Any]) -> None:
    monkeypatch.setattr(harness, "find_adapter", lambda slug: adapter)


def test_right_values_agree() -> None:
    assert mismatches(WANT, RIGHT, 1e-6, 1e-9) == []


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("loss", torch.tensor(1.50001), r"\.loss: expected 1.5, got 1.50001"),
        ("loss", torch.tensor([1.5]), r"\.loss: expected 1.5, got shape \(1,\)"),
        ("loss", None, r"\.loss: expected 1.5, got None"),
        ("loss", float("nan"), r"\.loss: expected 1.5, got nan"),
        ("grad_x", torch.ones(2, 3), r"\.grad_x\[0\]: expected shape \(2,\), got shape \(3,\)"),
        ("grad_x", torch.tensor([[1.0, 2.0], [3.0, 5.0]]), r"\.grad_x\[1\]\[1\]: expected 4.0, got 5.0"),
        ("grad_x", torch.ones(4), r"\.grad_x: expected shape \(2, 2\), got shape \(4,\)"),
        ("mask", torch.tensor([True, True]), r"\.mask\[1\]: expected 0, got True"),
        ("n", "3", r"\.n: expected 3, got '3'"),
    ],
)
def test_a_wrong_value_or_shape_is_named(name: str, wrong: Any, message: str) -> None:
    problems = mismatches(WANT, {**RIGHT, name: wrong}, 1e-6, 1e-9)
    assert problems
    assert re.search(message, problems[0]), problems[0]


def test_a_missing_output_is_named_and_a_further_one_is_allowed() -> None:
    got = {name: value for name, value in RIGHT.items() if name != "grad_x"} | {"other": 1}
    assert mismatches(WANT, got, 1e-6, 1e-9) == ["output: 'grad_x' is missing"]


def test_nested_names_must_be_the_same() -> None:
    want = {"masks": {"0.2": {"W": [1]}}}
    assert mismatches(want, {"masks": {0.2: {"W": torch.ones(1)}}}, 0, 0) == []
    assert mismatches(want, {"masks": {"0.2": {"W": [1], "b": [1]}}}, 0, 0)
    assert mismatches(want, {"masks": {}}, 0, 0)
    assert mismatches(want, {"masks": [1]}, 0, 0)


def test_null_infinity_and_strings() -> None:
    assert mismatches({"t": [0.5, None]}, {"t": torch.tensor([0.5, math.nan])}, 0, 0) == []
    assert mismatches({"t": [0.5, None]}, {"t": torch.tensor([0.5, 0.0])}, 0, 0)
    assert mismatches({"t": math.inf}, {"t": torch.tensor(math.inf)}, 1e-6, 0) == []
    assert mismatches({"t": math.inf}, {"t": 1e300}, 1e-6, 0)
    assert mismatches({"t": 1.0}, {"t": math.inf}, 1e-6, 0)
    assert mismatches({"a": ["A", "B"]}, {"a": ["A", "B"]}, 0, 0) == []
    assert mismatches({"a": ["A", "B"]}, {"a": ["A", "C"]}, 0, 0)


def test_tolerances_are_those_of_the_case() -> None:
    assert mismatches({"x": 100.0}, {"x": 100.5}, 1e-2, 0) == []
    assert mismatches({"x": 100.0}, {"x": 100.5}, 1e-3, 0)
    assert mismatches({"x": 0.0}, {"x": 1e-10}, 1e-6, 1e-9) == []
    assert mismatches({"x": 0.0}, {"x": 1e-8}, 1e-6, 1e-9)


def test_inputs_become_tensors_of_the_case_dtype() -> None:
    inputs = to_tensors(
        {
            "x": [[1, 2.5]],
            "ids": [1, 2],
            "mask": [[True]],
            "tau": 0.5,
            "k": 3,
            "text": "a b",
            "empty": [[], []],
        },
        torch.float32,
    )
    kinds = {name: (tuple(value.shape), value.dtype) for name, value in inputs.items() if name != "text"}
    assert kinds == {
        "x": ((1, 2), torch.float32),
        "ids": ((2,), torch.int64),
        "mask": ((1, 1), torch.bool),
        "tau": ((), torch.float32),
        "k": ((), torch.int64),
        "empty": ((2, 0), torch.float32),
    }
    assert inputs["text"] == "a b"


def test_ragged_inputs_are_lists_of_one_dtype() -> None:
    ragged = to_tensors([[[1, 2], [3, 4]], [[0.5, 1.0]]])
    assert [tuple(part.shape) for part in ragged] == [(2, 2), (1, 2)]
    assert {part.dtype for part in ragged} == {torch.float64}
    assert [part.dtype for part in to_tensors([[], [1], [1, 2]])] == [torch.int64] * 3
    assert to_tensors([["A", "B"], ["C"]]) == [["A", "B"], ["C"]]


def test_decimal_numbers_survive_an_integer_dtype() -> None:
    assert to_tensors([0.5, 1.0], torch.int64).tolist() == [0.5, 1.0]


def test_a_wrong_adapter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda quantity, inputs, params: {"loss": inputs["x"].sum() + 1})
    with pytest.raises(AssertionError, match=r"a-slug-0-q\.loss: expected 1.0, got 2.0"):
        check(case({"loss": 1.0}))


def test_an_adapter_that_forgets_an_output_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda quantity, inputs, params: {"loss": 1.0})
    with pytest.raises(AssertionError, match="'grad_x' is missing"):
        check(case({"loss": 1.0, "grad_x": [0.0]}))


def test_an_adapter_that_crashes_is_not_taken_for_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def adapter(quantity: str, inputs: Any, params: Any) -> dict[str, Any]:
        raise NotImplementedError("not the harness's own exception")

    install(monkeypatch, adapter)
    with pytest.raises(NotImplementedError):
        check(case({"loss": 1.0}))


def test_a_missing_adapter_and_an_unknown_quantity_are_skipped_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(pytest.skip.Exception, match="missing: adapter no-such-slug"):
        check(case({"loss": 1.0}, slug="no-such-slug"))

    def adapter(quantity: str, inputs: Any, params: Any) -> dict[str, Any]:
        raise UnknownQuantity(quantity)

    install(monkeypatch, adapter)
    with pytest.raises(pytest.skip.Exception, match=r"missing: quantity a-slug\.q"):
        check(case({"loss": 1.0}))


def test_all_files_of_the_survey_are_here_and_every_case_can_be_read() -> None:
    from cl_teach.survey import load

    cases = load_cases(DATA)
    assert {file.stem for file in DATA.glob("*.json")} == {method.slug for method in load()}
    assert all(count > 0 for count in Counter(each.slug for each in cases).values())
    for each in cases:
        to_tensors(each.inputs, each.dtype)
        assert mismatches(each.outputs, each.outputs, each.rtol, each.atol) == [], each.name


def test_every_adapter_is_a_file_that_holds_its_function() -> None:
    for file in (DATA.parent / "adapters").glob("[a-z]*.py"):
        adapter = find_adapter(file.stem.replace("_", "-"))
        assert adapter is not None and adapter.__name__ == file.stem
    assert find_adapter("no-such-slug") is None


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no golden file"):
        load_cases(tmp_path)


def test_gradients_are_named_and_zero_where_nothing_depends() -> None:
    leaves = with_grad({"x": torch.tensor([1.0, 2.0]), "y": [torch.ones(2), torch.ones(1)], "ids": torch.tensor([1])})
    loss = (leaves["x"] ** 2).sum() + 3 * leaves["y"][0].sum()
    found = gradients(loss, x=leaves["x"], grad_of_y=leaves["y"])
    assert found["grad_x"].tolist() == [2.0, 4.0]
    assert [part.tolist() for part in found["grad_of_y"]] == [[3.0, 3.0], [0.0]]
    assert gradients(torch.tensor(1.0), x=leaves["x"])["grad_x"].tolist() == [0.0, 0.0]
    assert not leaves["ids"].requires_grad
