"""The script for a machine with a GPU, rehearsed on a processor: its stages run, and one that fails stops no other."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
gpu = importlib.import_module("gpu")


def contents() -> dict[str, bytes]:
    """What a rehearsal must not change."""
    files = [*(ROOT / "data").glob("*.json"), *(ROOT / "data" / "evidence").glob("*.json")]
    files.append(ROOT / "book" / "performance.md")
    return {str(file): file.read_bytes() for file in files}


def test_a_rehearsal_measures_and_writes_page_and_report_elsewhere(tmp_path: Path) -> None:
    before = contents()
    stages = ("precision", "losses", "tiles", "page")
    command = [sys.executable, str(ROOT / "tools" / "gpu.py"), "--rehearse", "--out", str(tmp_path), "--only", *stages]
    done = subprocess.run(command, capture_output=True, text=True)
    report = (tmp_path / "gpu_report.md").read_text(encoding="utf-8")
    assert done.returncode == 0, report
    assert report.count(": done") == len(stages)
    assert (tmp_path / "gpu_results.zip").is_file()
    assert contents() == before


@pytest.mark.parametrize(
    ("body", "how", "says"),
    [
        ("raise SystemExit('it broke')", "failed", "it broke"),
        ("import time; time.sleep(60)", "over time", ""),
        ("", "failed", ""),
    ],
)
def test_a_stage_that_fails_is_told_and_ended(
    body: str, how: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "stage.py"
    script.write_text(body)
    monkeypatch.setattr(gpu, "__file__", str(script))
    outcome = gpu.start(gpu.Stage("card", 5, "The card"), tmp_path, False, 100.0)
    assert outcome.how == how and says in "\n".join(outcome.lines)
    assert f"| The card | {how} |" in gpu.report([outcome])


def test_no_stage_begins_when_the_time_is_over(tmp_path: Path) -> None:
    assert gpu.start(gpu.STAGES[0], tmp_path, True, 3.0).how == "no time left"


@pytest.mark.parametrize(
    ("error", "how"), [(gpu.Missing("not installed"), "left out"), (gpu.Failed("2 failed"), "failed")]
)
def test_a_stage_says_itself_what_it_lacks_or_found(error: Exception, how: str, tmp_path: Path, monkeypatch) -> None:
    def stage(folder: Path, small: bool) -> list[str]:
        raise error

    monkeypatch.setattr(gpu, "card", stage)
    monkeypatch.setattr(sys, "path", [*sys.path])
    stage.__name__ = "card"
    (tmp_path / "_build" / "gpu").mkdir(parents=True)
    gpu.work("card", tmp_path, True, 5)
    found = json.loads((tmp_path / "_build" / "gpu" / "card.json").read_text(encoding="utf-8"))
    assert found == {"how": how, "lines": [str(error)]}


def test_every_full_scale_run_is_an_experiment_with_these_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    for name, (only, arms) in gpu.RUNS.items():
        found = runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="looked at")
        known = [e for e in found.get("EXPERIMENTS", [found.get("EXPERIMENT")]) if only in (None, e.file)]
        assert set(arms) <= {arm for e in known for arm in e.arms}
        assert not any(e.tuning for e in known if set(arms) & set(e.arms)), "tuning takes longer than there is time"
    for helper in ("_data", "_runner"):
        sys.modules.pop(helper, None)
