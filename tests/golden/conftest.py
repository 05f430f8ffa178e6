"""The option --golden-dir, and the summary of what no adapter covers yet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from harness import MISSING  # noqa: E402  (the folder has to be on the path first)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir",
        metavar="DIR",
        default=None,
        help="folder of golden files (default: tests/golden/data)",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing: dict[str, set[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if MISSING in reason:
            kind, _, name = reason.split(MISSING, 1)[1].strip().partition(" ")
            missing.setdefault(kind, set()).add(name)
    if missing:
        terminalreporter.section("golden cases that are not covered")
        for kind, names in sorted(missing.items()):
            terminalreporter.line(f"missing {kind} ({len(names)}): {', '.join(sorted(names))}", yellow=True)
