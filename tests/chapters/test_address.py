"""The public address stands in one place, and everything made from it agrees."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import address
import pytest
from notebooks import ROOT

IN_COLAB = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/")
INSTALLED = re.compile(r"git\+(https://github\.com/[\w.-]+/[\w.-]*\w)")
GENERATED = ("methods", "api")  # folders of pages that `make book` leaves behind
CARRIERS = [*address.text_files(), *address.notebooks()]


def test_configuration_names_the_address() -> None:
    for name in ("_config.yml", "README.md", "CITATION.cff"):
        assert address.current() in (ROOT / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("path", CARRIERS, ids=[str(p.relative_to(ROOT)) for p in CARRIERS])
def test_no_other_address_of_ours(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    wanted = address.current().removeprefix("https://github.com/")
    assert set(IN_COLAB.findall(text)) <= {wanted, "owner/name"}
    assert {a.removesuffix(".git") for a in INSTALLED.findall(text)} <= {address.current()}


def test_changing_it_changes_everything_and_back(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "_config.yml", "README.md", "CONTRIBUTING.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_*", "*.bib", *GENERATED))
    chapter = tmp_path / "chapters" / "1_part" / "01_x.ipynb"
    chapter.parent.mkdir(parents=True)
    old, new = address.current(), "https://github.com/some-body/some.book"
    link = address.colab_link(old, "chapters/1_part/01_x.ipynb")
    lines = [f"[Open in Colab]({link})\n", old]
    cell = {"cell_type": "markdown", "id": "cell-000", "metadata": {}, "source": lines}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    chapter.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    changed = address.rewrite(tmp_path, new)
    assert address.current(tmp_path) == new
    assert chapter in changed
    assert all(old not in p.read_text(encoding="utf-8") for p in before)
    assert address.colab_link(new, "chapters/1_part/01_x.ipynb") in chapter.read_text(encoding="utf-8")

    address.rewrite(tmp_path, old)
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("wrong", ["", "github.com/a/b", "https://github.com/only-owner", "ftp://github.com/a/b"])
def test_refuses_what_is_no_address(wrong: str) -> None:
    with pytest.raises(SystemExit, match="https://github.com/owner/name"):
        address.main([wrong])
