"""A copy of what the rules of the survey read, in which things may be broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cl_teach", "tests/unit", "tests/golden", "experiments", "data/evidence", "chapters")
SKIP = shutil.ignore_patterns("__pycache__", "runs", "*.npz", "*.png")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy that others are copied from; leave it whole."""
    copy = tmp_path_factory.mktemp("whole")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=SKIP)
    for name in ("book/references.bib", "pyproject.toml"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A repository of its own for one test."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))
