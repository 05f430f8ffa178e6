"""Every golden case, through its adapter: all listed outputs, within the case's tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import DATA, Case, check, load_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("golden_dir", default=None)  # unknown when pytest starts elsewhere
    if "case" in metafunc.fixturenames:
        cases = load_cases(Path(folder) if folder else DATA)
        metafunc.parametrize("case", cases, ids=lambda case: case.name)


def test_golden_case(case: Case) -> None:
    check(case)
