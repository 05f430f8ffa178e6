"""``make method`` writes skeletons that fit the house, and the rules then say what is to be filled in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import make_method
import pytest
from survey_rules import bibliography, files, problems

from cl_teach.survey import load, parts


def without_new(found: list[str]) -> list[str]:
    return [each for each in found if not each.startswith("nnclr: ")]


def test_it_writes_every_piece_and_the_rules_name_what_is_to_do(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, methods = problems(copy), load(copy)
    assert make_method.main(["nnclr", "3"], root=copy) == 0
    after = problems(copy)
    (method,) = [each for each in load(copy) if each.slug == "nnclr"]
    place = files(copy, method)
    assert all(file.is_file() for kind, file in place.items() if kind != "evidence")
    assert without_new(after) == before  # nothing else is touched
    for piece in (
        "its row in cl_teach/survey.toml still says TODO",
        "year needs a year",
        "cl_teach/losses/nnclr.py still says TODO",
        "tests/unit/losses/test_nnclr.py still says TODO",
        "tests/golden/data/nnclr.json still says TODO",
        "tests/golden/adapters/nnclr.py still says TODO",
        "experiments/nnclr.py still says TODO",
        "its entry in book/references.bib still says TODO",
    ):
        assert any(each.startswith(f"nnclr: {piece}") for each in after), piece
    said = capsys.readouterr().out
    assert "cl_teach/losses/nnclr.py" in said and "**How sure are we?**" in said
    assert all(each in said for each in after if each.startswith("nnclr: "))

    # The row stands at the end of its part, and looks like no other there.
    order = [each.slug for each in load(copy)]
    last_loss = max(i for i, each in enumerate(methods) if each.part == 3)
    assert order == [each.slug for each in methods[: last_loss + 1]] + ["nnclr"] + [
        each.slug for each in methods[last_loss + 1 :]
    ]
    looks = [(each.look.color, each.look.line) for each in load(copy) if each.part == 3]
    assert len(set(looks)) == len(looks)


def test_with_everything_filled_in_nothing_is_left_to_do(copy: Path) -> None:
    make_method.make(copy, "nnclr", 3)
    (method,) = [each for each in load(copy) if each.slug == "nnclr"]
    for file in [*files(copy, method).values(), copy / "cl_teach" / "survey.toml", copy / "book" / "references.bib"]:
        if file.is_file():
            text = file.read_text(encoding="utf-8").replace("year = 0", "year = 2021").replace("{0}", "{2021}")
            file.write_text(text.replace("TODO", "Filled in"), encoding="utf-8")
    assert [each for each in problems(copy, "nnclr")] == []
    assert bibliography(copy)["Filled in-nnclr"]["year"] == "2021"


@pytest.mark.parametrize("number", [part.number for part in parts()[1:]])
def test_every_part_takes_one_more_method(copy: Path, number: int) -> None:
    make_method.make(copy, "one-more", number)
    (method,) = [each for each in load(copy) if each.slug == "one-more"]
    assert method.part == number and files(copy, method)["module"].is_file()
    assert not [each for each in problems(copy, "one-more") if "looks like" in each or "look needs" in each]


def test_the_skeletons_follow_the_style_of_the_house(copy: Path) -> None:
    written = make_method.make(copy, "one-more", 4)
    code = [str(file) for file in written if file.suffix == ".py"]
    assert len(code) == 4
    for command in (["check"], ["format", "--check", "--diff"]):
        run = subprocess.run([sys.executable, "-m", "ruff", *command, *code], cwd=copy, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads((copy / "tests/golden/data/one-more.json").read_text())["method"] == "one-more"


def test_nothing_that_is_there_is_overwritten(copy: Path) -> None:
    begun = copy / "cl_teach" / "losses" / "nnclr.py"
    begun.write_text('"""Begun."""\n', encoding="utf-8")
    assert begun not in make_method.make(copy, "nnclr", 3)
    assert begun.read_text(encoding="utf-8") == '"""Begun."""\n'


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mochi", "3"], "SLUG: mochi is in the survey already"),
        (["NNCLR", "3"], "SLUG: needs lower case words joined by hyphens, got 'NNCLR'"),
        (["../x", "3"], "SLUG: needs lower case words"),
        (["nnclr", "1"], "PART: needs one of 2, 3, .*, got 1"),
        (["nnclr", "11"], "PART: needs one of"),
        (["nnclr", ""], "make method SLUG=nnclr PART=3"),
        (["nnclr"], "make method SLUG=nnclr PART=3"),
        (["nnclr", "three"], "make method SLUG=nnclr PART=3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    before = (copy / "cl_teach" / "survey.toml").read_bytes()
    assert make_method.main(arguments, root=copy) == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert (copy / "cl_teach" / "survey.toml").read_bytes() == before
