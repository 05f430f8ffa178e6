"""The performance page says what was measured."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_page():
    spec = importlib.util.spec_from_file_location("page", ROOT / "benchmarks" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_made_from_the_stored_measurements():
    page = load_page()
    results = json.loads(page.RESULTS.read_text(encoding="utf-8"))
    assert page.page(results) == page.PAGE.read_text(encoding="utf-8"), "run: .venv/bin/python benchmarks/page.py"


def test_every_device_has_its_machine_and_every_loss_a_rival():
    results = json.loads(load_page().RESULTS.read_text(encoding="utf-8"))
    for result in results.values():
        assert {"processor", "threads", "python", "torch", "lightly"} <= result["machine"].keys()
        sides = {}
        for row in result["losses"]:
            sides.setdefault((row["loss"], row["pairs"]), set()).add(row["side"])
        assert all("cl_teach" in names and len(names) > 1 for names in sides.values())
