"""A row of the survey keeps its promise, and whatever is taken away from it is named in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import survey_rules
from survey_rules import problems

from cl_teach import evidence
from cl_teach.figures import PALETTE

ROOT = Path(__file__).resolve().parents[2]
SLUG = "mochi"


@pytest.fixture
def copy(copy: Path) -> Path:
    """A repository with one taught method that lacks nothing."""
    one_headline(copy)
    assert problems(copy, SLUG) == []
    return copy


def one_headline(root: Path, headlines: int = 1) -> None:
    (root / "data" / "evidence" / f"{SLUG}.json").unlink(missing_ok=True)
    for number in range(2):
        evidence.record(
            SLUG,
            f"claim-{number}",
            claim="It is better.",
            metric="kNN accuracy",
            unit="points",
            expected="higher",
            baseline_name="MoCo",
            method_name="MoCHi",
            seeds=[0, 1, 2],
            baseline=[0.5, 0.7, 0.6],
            method=[1.0, 1.1, 1.2],
            seconds=1,
            origin="paper",
            root=root,
        )
    file = root / "data" / "evidence" / f"{SLUG}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for number, record in enumerate(content["records"]):
        record["headline"] = number < headlines
    file.write_text(json.dumps(content), encoding="utf-8")


def replace(root: Path, name: str, old: str, new: str) -> None:
    file = root / name
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{name} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def row(root: Path, old: str, new: str) -> None:
    """Change something within the method's row."""
    file = root / "cl_teach" / "survey.toml"
    head, start, rest = file.read_text(encoding="utf-8").partition(f'slug = "{SLUG}"')
    body, end, tail = rest.partition("[[method]]")
    assert old in body
    file.write_text(head + start + body.replace(old, new) + end + tail, encoding="utf-8")


def test_every_row_keeps_its_promise() -> None:
    found = problems(ROOT)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("cl_teach/losses/mochi.py", "no module; write cl_teach/losses/mochi.py"),
        ("tests/unit/losses/test_mochi.py", "no unit test; write tests/unit/losses/test_mochi.py"),
        ("tests/golden/adapters/mochi.py", "no golden adapter; write tests/golden/adapters/mochi.py"),
        ("tests/golden/data/mochi.json", "no golden values; write tests/golden/data/mochi.json"),
        ("experiments/mochi.py", "no experiment; write experiments/mochi.py"),
        ("data/evidence/mochi.json", "no evidence, stage taught promises it"),
        ("chapters/3_losses/03_harder_features.ipynb", "no chapter chapters/3_losses/03_harder_features.ipynb"),
        ("book/references.bib", "no entry '.*' in book/references.bib"),
    ],
)
def test_a_deleted_file_is_named(copy: Path, file: str, sentence: str) -> None:
    (copy / file).unlink()
    assert any(re.match(f"{SLUG}: {sentence}", each) for each in problems(copy)), problems(copy, SLUG)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an entry point": (
        lambda root: replace(root, "cl_teach/losses/mochi.py", "def mochi(", "def mochi2("),
        "entry point mochi does not exist in cl_teach/losses/mochi.py",
    ),
    "all entry points": (
        lambda root: row(root, "entry_points = [", "entry_points = []  # ["),
        "its row names no entry points",
    ),
    "the example": (
        lambda root: replace(root, "cl_teach/losses/mochi.py", ">>>", "..."),
        "no docstring in cl_teach/losses/mochi.py has an Example",
    ),
    "the tests": (
        lambda root: replace(root, "tests/unit/losses/test_mochi.py", "def test_", "def not_a_test_"),
        "tests/unit/losses/test_mochi.py has no test",
    ),
    "the adapter's function": (
        lambda root: replace(root, "tests/golden/adapters/mochi.py", "def mochi(", "def mochy("),
        "tests/golden/adapters/mochi.py has no function mochi",
    ),
    "a golden quantity": (
        lambda root: replace(root, "tests/golden/adapters/mochi.py", '"mochi_loss"', '"mochi"'),
        "tests/golden/adapters/mochi.py does not exercise the golden quantities mochi_loss",
    ),
    "the golden cases": (
        lambda root: (root / "tests/golden/data/mochi.json").write_text('{"method": "mochi", "cases": []}'),
        "no golden case in tests/golden/data/mochi.json",
    ),
    "the owner of the golden values": (
        lambda root: replace(root, "tests/golden/data/mochi.json", '"mochi"', '"swav"'),
        "tests/golden/data/mochi.json says it is of 'swav'",
    ),
    "the headline": (
        lambda root: one_headline(root, headlines=0),
        "exactly one of its records is the headline, data/evidence/mochi.json has 0",
    ),
    "the single headline": (
        lambda root: one_headline(root, headlines=2),
        "exactly one of its records is the headline, data/evidence/mochi.json has 2",
    ),
    "half of the evidence": (
        lambda root: (root / "data/evidence/mochi.json").write_text('{"slug": "mochi", "rec'),
        ".*mochi.json: .*record",
    ),
    "the anchor": (
        lambda root: row(root, "harder_features#mochi", "harder_features#mocha"),
        "no heading of chapters/3_losses/03_harder_features.ipynb has the anchor 'mocha'",
    ),
    "the chapter of the row": (
        lambda root: row(root, 'chapter = "', 'chapter = ""  # "'),
        "no chapter, stage taught promises one",
    ),
    "the year": (
        lambda root: row(root, "year = 2020", "year = 2021"),
        "book/references.bib has another year for .*, '2020'; the row says '2021'",
    ),
    "the title": (
        lambda root: row(root, 'title = "', 'title = "The '),
        "book/references.bib has another title",
    ),
    "an author": (
        lambda root: row(root, 'authors = ["', 'authors = ["One More", "'),
        "book/references.bib has another number of authors",
    ),
    "the stage": (lambda root: row(root, '"taught"', '"thought"'), "stage needs one of code, measured, taught"),
    "the situation": (lambda root: row(root, 'use = "', 'use = ""  # "'), "use is empty in its row"),
    "the sign of failure": (
        lambda root: row(root, 'watch = "', 'watch = "A sign: '),
        "use needs a sentence, watch words",
    ),
    "the package": (lambda root: row(root, "part = 3", "part = 4"), "module needs cl_teach.views.mochi"),
    "the color": (lambda root: row(root, 'color = "', 'color = "light '), "look needs a color of"),
    "what is still to do": (
        lambda root: replace(root, "cl_teach/losses/mochi.py", "def mochi(", "# TODO\ndef mochi("),
        "cl_teach/losses/mochi.py still says TODO",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_taken_from_inside_a_file_is_named(copy: Path, what: str) -> None:
    change, sentence = CHANGES[what]
    change(copy)
    found = problems(copy, SLUG)
    assert any(re.match(f"{SLUG}: {sentence}", each) for each in found), found


def test_a_stage_promises_no_more_than_it_says(copy: Path) -> None:
    (copy / "data/evidence/mochi.json").unlink()
    (copy / "chapters/3_losses/03_harder_features.ipynb").unlink()
    row(copy, '"taught"', '"measured"')
    assert [each.partition(",")[0] for each in problems(copy, SLUG)] == ["mochi: no evidence"]
    row(copy, '"measured"', '"code"')
    assert problems(copy, SLUG) == []


def test_files_without_a_row_and_rows_that_share_are_named(copy: Path) -> None:
    file = copy / "cl_teach" / "survey.toml"
    text = file.read_text(encoding="utf-8")
    head, _, tail = text.partition(f'[[method]]\nslug = "{SLUG}"')
    body, mark, rest = tail.partition("[[method]]")
    file.write_text(head + mark + rest, encoding="utf-8")
    strays = [each for each in problems(copy) if each.startswith("mochi: ")]
    assert [each.partition(" belongs")[0] for each in strays] == [
        "mochi: tests/golden/data/mochi.json",
        "mochi: tests/golden/adapters/mochi.py",
        "mochi: cl_teach/losses/mochi.py",
    ]
    file.write_text(f'{text}\n[[method]]\nslug = "{SLUG}"{body}', encoding="utf-8")
    found = problems(copy, SLUG)
    assert "mochi: another row has the same slug, 'mochi'" in found
    assert any(each.startswith("mochi: looks like mochi in figures") for each in found)


def test_the_colors_of_the_rules_are_those_of_the_figures() -> None:
    assert set(survey_rules.COLORS) == set(PALETTE)
