"""Every experiment runs from its first line to its records at the smoke scale, and its table is what is stored."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cl_teach import evidence, survey

ROOT = Path(__file__).resolve().parents[3]
METHODS = {method.slug for method in survey.load()}
FILES = sorted(file for file in (ROOT / "experiments").glob("*.py") if not file.name.startswith("_"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Import an experiment as its script sees itself; constants are made at import, so the scale is set before."""
    helpers = [file.stem for file in (ROOT / "experiments").glob("_*.py")]
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))

    def make(file: Path, scale: str) -> ModuleType:
        monkeypatch.setenv("CL_TEACH_SCALE", scale)
        for name in helpers:
            sys.modules.pop(name, None)
        spec = importlib.util.spec_from_file_location(f"experiment_{file.stem.replace('-', '_')}", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield make
    for name in helpers:
        sys.modules.pop(name, None)


def experiments(module: ModuleType) -> list:
    return [module.EXPERIMENT] if hasattr(module, "EXPERIMENT") else list(module.EXPERIMENTS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_runs_at_the_smoke_scale(file: Path, load, tmp_path: Path) -> None:
    module = load(file, "smoke")
    found = experiments(module)
    sys.modules["_runner"].run(str(file), *found, root=tmp_path)
    for each in found:
        if sys.modules["_runner"].missing(each):  # real data of a package that is not installed here
            continue
        assert evidence.load_runs(each.file, root=tmp_path)
        for claim in each.claims:
            record = evidence.load(claim.slug or each.slug, f"{claim.id}-smoke", root=tmp_path)
            assert record.scale == "smoke" and len(record.seeds) == 2


def test_tables_and_records_say_the_same(load) -> None:
    """Every stored record is a row of a table, with its words, origin and smallest effect."""
    table = {}
    for file in FILES:
        for each in experiments(load(file, "small")):
            for claim in each.claims:
                key = (claim.slug or each.slug, claim.id)
                assert key not in table, f"{key} is claimed twice"
                table[key] = claim
    stored = [
        record for file in sorted((ROOT / "data" / "evidence").glob("*.json")) for record in evidence.load(file.stem)
    ]
    for record in stored:
        if record.scale != "small":
            continue
        claim = table.get((record.slug, record.claim_id))
        assert claim is not None, f"{record.slug}: no experiment claims {record.claim_id!r}"
        effect = claim.metric.smallest_effect or evidence.POINTS
        said = (claim.sentence, claim.metric.words, claim.metric.unit, claim.expected, claim.origin, effect)
        kept = (record.claim, record.metric, record.unit, record.expected, record.origin, record.smallest_effect)
        assert kept == said, f"{record.slug} {record.claim_id}"
    assert all(claim.origin in evidence.ORIGINS for claim in table.values())
    headlines = Counter(slug for (slug, _), claim in table.items() if claim.headline)
    measured = {slug for slug, _ in table}
    assert {slug: headlines[slug] for slug in METHODS & measured} == dict.fromkeys(METHODS & measured, 1)
    assert max(headlines.values()) == 1


def test_every_method_that_was_measured_has_one_headline() -> None:
    measured = {file.stem for file in (ROOT / "data" / "evidence").glob("*.json")}
    assert METHODS & {record.slug for record in evidence.headlines()} == METHODS & measured
