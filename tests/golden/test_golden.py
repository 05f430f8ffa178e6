"""Every golden case, through its adapter: all listed outputs, within the case's tolerance.

Of a folder given with ``--golden-dir`` a case that no adapter covers is skipped and listed at the end; of the project's
own files it fails.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import DATA, Case, check, load_cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption("golden_dir", default=None)  # unknown when pytest starts elsewhere
    if "case" in metafunc.fixturenames:
        cases = load_cases(Path(folder) if folder else DATA)
        metafunc.parametrize("case", cases, ids=lambda case: case.name)


def test_golden_case(case: Case, request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("golden_dir", default=None)
    try:
        check(case)
    except pytest.skip.Exception as reason:
        if given:
            raise
        pytest.fail(f"{case.name}: {reason}")
