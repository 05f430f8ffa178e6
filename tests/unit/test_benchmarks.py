"""The performance page says what was measured."""

import json
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import page  # noqa: E402 - where it lies is said just above
import peers_page  # noqa: E402


def stored():
    return tuple(json.loads(path.read_text(encoding="utf-8")) for path in (page.RESULTS, peers_page.RESULTS))


def test_the_page_is_made_from_the_stored_measurements():
    assert page.page(*stored()) == page.PAGE.read_text(encoding="utf-8"), "run: .venv/bin/python benchmarks/page.py"


def test_every_device_has_its_machine_and_every_loss_a_rival_at_every_setting():
    for result in stored()[0].values():
        assert {"processor", "threads", "python", "torch", "lightly"} <= result["machine"].keys()
        sides = {}
        for row in result["losses"]:
            setting = tuple(row[name] for name in ("loss", "pairs", "dim", "dtype", "threads"))
            sides.setdefault(setting, set()).add(row["side"])
        assert all("cl_teach" in names for names in sides.values())
        alone = [setting for setting, names in sides.items() if len(names) == 1]
        assert {pairs for _, pairs, *_ in alone} <= {16384}  # their tables do not fit


def test_the_summary_finds_the_least_ratio_and_counts_who_is_ahead():
    same = {"loss": "X", "pairs": 4, "dim": 8, "dtype": "float32", "threads": 1}
    rows = [
        same | {"side": "cl_teach", "milliseconds": 2.0, "peak_mib": 1.0},
        same | {"side": "fast", "milliseconds": 1.0, "peak_mib": 4.0},
        same | {"side": "slow", "milliseconds": 8.0, "peak_mib": 2.0},
    ]
    assert (
        "| float32 | 4 | 0.5 (X, fast, 8 dimensions) | 1 of 2 | 2 (X, slow, 8 dimensions) | 0 of 2 |"
        in page.everywhere(rows)
    )
