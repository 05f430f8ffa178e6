"""A checker that never raises, never passes a wrong answer and never says only "wrong"."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from cl_teach import exercises
from cl_teach.exercises import Case, Exercise, check

CHAPTER = """
import torch
from cl_teach.exercises import Case, Exercise

def mean_cosine(a, b):
    if a.shape != b.shape:
        raise ValueError("shapes")
    return torch.nn.functional.cosine_similarity(a, b).mean()

def pair(seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g)

EXERCISES = {
    1: Exercise(
        "Mean cosine of matching rows.",
        mean_cosine,
        [
            Case("random rows", pair, "Divide by both lengths."),
            Case("long", lambda s: tuple(1e4 * x for x in pair(s)), "Length is ignored."),
            Case("a zero row", lambda seed: (torch.zeros(2, 3), torch.ones(2, 3)), "Its length is 0."),
            Case("unequal shapes", lambda s: (torch.ones(2, 3), torch.ones(1)), "Refuse.", raises=ValueError),
        ],
    ),
}
"""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A demo chapter beside the real ones."""
    (tmp_path / "demo_chapter.py").write_text(CHAPTER)
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, str(tmp_path)])
    return "demo_chapter"


def mean_cosine(a, b):
    if a.shape != b.shape:
        raise ValueError("unequal")
    a, b = a / a.norm(dim=1, keepdim=True).clamp(min=1e-8), b / b.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return (a * b).sum(1).mean()


def run(reference, fn, make=lambda seed: (torch.arange(4.0),), **settings):
    with contextlib.redirect_stdout(None):
        return exercises._run("x.1", Exercise("p", reference, [Case("c", make, "the hint")], **settings), fn)


def test_a_right_function_passes_and_the_message_is_printed(chapter, capsys):
    report = check("demo_chapter.1", mean_cosine)
    assert report.passed and bool(report) and report.failed_case is None
    assert capsys.readouterr().out.strip() == report.message == "demo_chapter.1: passed (4 cases, 3 draws each)."


def test_each_wrong_function_fails_in_its_case_with_the_hint(chapter):
    def no_length(a, b):
        return (a * b).sum(1).mean()

    def no_guard(a, b):
        if a.shape != b.shape:
            raise ValueError("unequal")
        return (a * b / (a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True))).sum(1).mean()

    def no_check(a, b):
        return torch.nn.functional.cosine_similarity(a, b).mean()

    first, third, fourth = (check("demo_chapter.1", fn) for fn in (no_length, no_guard, no_check))
    assert first.failed_case == "random rows" and "Hint: Divide by both lengths." in first.message
    assert third.failed_case == "a zero row" and "NaN" in third.message
    assert fourth.failed_case == "unequal shapes" and "needs a ValueError" in fourth.message


def test_a_stub_is_not_yet_written():
    def ellipsis(x):
        return ...

    def nothing(x):
        pass

    def todo(x):
        raise NotImplementedError

    assert "not yet: the function returns None" in run(torch.sin, nothing).message
    assert "not yet: the function returns ..." in run(torch.sin, ellipsis).message
    assert "still to be written" in run(torch.sin, todo).message
    assert "returns None in item 2" in run(lambda x: (x, x), lambda x: (x, None)).message


def test_an_exception_is_told_with_its_line():
    def broken(x):
        y = x + 1
        return y[99]

    message = run(torch.sin, broken).message
    assert "`return y[99]`" in message and "IndexError" in message and "in line" in message
    assert "could not be called" in run(torch.sin, lambda: 1).message
    assert "needs the function itself" in run(torch.sin, torch.ones(3)).message


def test_exit_does_not_leave_the_checker():
    def leave(x):
        raise SystemExit

    assert not run(torch.sin, leave).passed


def test_in_place_change_is_found_and_the_argument_named():
    def in_place(x, y):
        y += 1
        return x + y

    report = run(lambda x, y: x + y + 1, in_place, lambda seed: (torch.ones(2), torch.ones(2)))
    assert not report.passed and "argument 2 in place" in report.message
    named = run(lambda x, y: x + y + 1, in_place, lambda seed: {"x": torch.ones(2), "y": torch.ones(2)})
    assert "argument y in place" in named.message


@pytest.mark.parametrize(
    ("expected", "got", "word"),
    [
        (torch.ones(2), torch.ones(2, 1), "shape"),
        (torch.tensor(1.0), torch.ones(1), "shape"),
        (torch.ones(2), torch.ones(2, dtype=torch.long), "kind integer"),
        (torch.tensor([True]), torch.tensor([1]), "kind integer"),
        (torch.ones(2), torch.tensor([1.0, 1.1]), "1 of 2 values differ, most at (1,)"),
        (torch.ones(2), torch.tensor([1.0, float("nan")]), "NaN in 1 of 2"),
        (torch.ones(2), torch.tensor([1.0, float("inf")]), "infinite in 1 of 2"),
        (torch.tensor(1.0), 1.0, "Keep it a tensor"),
        (torch.ones(1, requires_grad=True), torch.ones(1), "no gradient flows"),
        (1.0, 1.1, "expected 1"),
        (1.0, float("nan"), "NaN"),
        (1.0, "1.0", "one number"),
        (1.0, torch.ones(2), "one number"),
        (2, 2.0, "needed is an int"),
        (2, 3, "expected 2"),
        (True, 1, "needed is a bool"),
        (True, False, "expected 1"),
        (1, True, "needed is an int"),
        ("higher", "lower", "expected is 'higher'"),
        ("higher", 3, "needed is a str"),
        ((1, 2), (1, 2, 3), "3 items, needed are 2"),
        ((1, 2), 1, "tuple of 2 items"),
        ([1, (2, 3)], [1, (2, 4)], "in item 2 in item 2"),
        ({"a": 1}, {}, "lacks"),
        ({"a": 1}, {"a": 1, "b": 2}, "too many"),
        ({"a": 1}, {"a": 2}, "under key 'a'"),
        ({"a": 1}, 1, "keys"),
        (np.ones(2), np.zeros(2), "values differ"),
        (np.ones(2), 1.0, "NumPy"),
    ],
)
def test_every_kind_of_difference_has_its_sentence(expected, got, word):
    report = run(lambda: expected, lambda: got, lambda seed: ())
    assert not report.passed and word in report.message and "Hint: the hint" in report.message


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (torch.tensor([float("nan"), float("inf")]), torch.tensor([float("nan"), float("inf")])),
        (torch.ones(2), torch.ones(2, dtype=torch.float64) + 1e-7),
        (1.0, torch.tensor(1.0)),
        (1.0, 1),
        (3, torch.tensor(3)),
        (True, torch.tensor(True)),
        ((1, 2), [1, 2]),
        ({"a": torch.ones(1), "b": None}, {"b": None, "a": torch.ones(1)}),
        (np.float32(1), 1.0),
    ],
)
def test_equal_answers_pass(expected, got):
    assert run(lambda: expected, lambda: got, lambda seed: ()).passed


def test_named_tuples_and_dataclasses_are_compared_field_by_field():
    @dataclasses.dataclass
    class Terms:
        pull: torch.Tensor

    assert run(lambda: Terms(torch.ones(2)), lambda: Terms(torch.ones(2)), lambda seed: ()).passed
    wrong = run(lambda: Terms(torch.ones(2)), lambda: Terms(torch.zeros(2)), lambda seed: ())
    assert "under key 'pull'" in wrong.message


def test_both_functions_draw_the_same_random_numbers_and_the_callers_state_stays():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    assert run(lambda x: x + torch.rand(4), lambda x: torch.rand(4) + x).passed
    generator = torch.Generator().manual_seed(0)
    assert run(*[lambda x, g: x + torch.rand(4, generator=g)] * 2, lambda seed: (torch.ones(4), generator)).passed
    assert torch.equal(torch.rand(1), expected)


def test_unknown_names_raise_a_key_error_that_lists_the_known_ones(chapter):
    for name in ("demo_chapter.9", "nowhere.1", "demo_chapter", "demo_chapter.x", "..1", ""):
        with pytest.raises(KeyError, match=r"demo_chapter\.1"):
            check(name, mean_cosine)
    with pytest.raises(TypeError, match="exercise"):
        check(1, mean_cosine)


def test_an_exercise_without_cases_is_refused():
    with pytest.raises(ValueError, match="cases"):
        Exercise("p", torch.sin, [])


def test_in_a_notebook_the_report_adds_nothing_below_its_message():
    assert exercises.Report(True, "m")._ipython_display_() is None


def test_every_reference_of_the_book_passes_its_own_exercise():
    for name in exercises.ids():
        report = exercises._run(name, exercises.get(name), exercises.get(name).reference)
        assert report.passed, report.message
