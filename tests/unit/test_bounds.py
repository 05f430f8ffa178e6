"""The lowest versions that pyproject.toml promises are those that `make colab` runs the chapters with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_lower_bounds_are_the_tested_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = [*project["dependencies"], *project["optional-dependencies"]["full"]]
    lines = (ROOT / "tools" / "colab_requirements.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in promised:
        name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
        assert name in tested, f"{name} is not tested at its lower bound"
        assert tested[name].split(".")[: len(lowest.split("."))] == lowest.split("."), requirement
