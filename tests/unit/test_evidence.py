"""Evidence: the interval, the verdict that follows from it, and the file that keeps both."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cl_teach import evidence
from cl_teach.evidence import Difference, Record, compare, load, paired_difference, record, verdict

ROOT = Path(__file__).resolve().parents[2]
BASELINE, METHOD = [0.80, 0.82, 0.79, 0.81, 0.80], [0.85, 0.86, 0.86, 0.84, 0.87]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CL_TEACH_ROOT", str(tmp_path))
    return tmp_path


def make(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "claim": "The method is better.",
        "metric": "kNN accuracy",
        "unit": "points",
        "expected": "higher",
        "baseline_name": "NT-Xent",
        "method_name": "DCL",
        "seeds": range(5),
        "baseline": BASELINE,
        "method": METHOD,
        "seconds": 12.34,
    }
    return record("dcl", changes.pop("claim_id", "knn"), **{**values, **changes})


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_interval_equals_the_paired_t_test(confidence: float) -> None:
    mean, low, high = paired_difference(BASELINE, METHOD, confidence)
    expected = stats.ttest_rel(METHOD, BASELINE).confidence_interval(confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert mean == pytest.approx(np.mean(METHOD) - np.mean(BASELINE), rel=1e-12)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 2, 5))
    hits = 0
    for baseline, method in draws:
        _, low, high = paired_difference(baseline, method + 0.3)
        hits += low <= 0.3 <= high
    assert 0.935 < hits / len(draws) < 0.965


def test_interval_has_no_width_when_all_differences_are_equal() -> None:
    assert paired_difference([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]) == pytest.approx((0.3, 0.3, 0.3))
    assert paired_difference([1.0, 1.0], [1.0, 1.0]) == (0.0, 0.0, 0.0)


def test_swapping_baseline_and_method_mirrors_the_interval() -> None:
    mean, low, high = paired_difference(BASELINE, METHOD)
    assert paired_difference(METHOD, BASELINE) == pytest.approx((-mean, -high, -low))


@pytest.mark.parametrize(
    ("baseline", "method", "message"),
    [
        ([1.0], [2.0], "at least 2 seeds, got 1"),
        ([], [], "at least 2 seeds, got 0"),
        ([1.0, 2.0], [1.0], "equal lengths, got 2 and 1"),
        ([1.0, math.nan], [1.0, 2.0], "finite numbers, pair 1"),
        ([1.0, 2.0], [math.inf, 2.0], "finite numbers, pair 0"),
    ],
)
def test_pairs_that_give_no_interval_are_refused(baseline: list[float], method: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(baseline, method)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, math.nan])
def test_confidence_outside_0_and_1_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        paired_difference(BASELINE, METHOD, confidence)


@pytest.mark.parametrize(
    ("interval", "higher", "lower"),
    [
        ((0.2, 0.1, 0.3), "holds", "opposite"),
        ((-0.2, -0.3, -0.1), "opposite", "holds"),
        ((0.1, -0.1, 0.3), "inconclusive", "inconclusive"),
        ((0.1, 0.0, 0.2), "inconclusive", "inconclusive"),
        ((0.0, 0.0, 0.0), "inconclusive", "inconclusive"),
    ],
)
def test_verdict_follows_from_the_interval(interval: tuple[float, float, float], higher: str, lower: str) -> None:
    assert verdict(Difference(*interval)) == higher
    assert verdict(Difference(*interval), "lower") == lower


@pytest.mark.parametrize("interval", [(0.0, 1.0, 2.0), (math.nan,) * 3, (1.0, 0.0, math.inf)])
def test_verdict_refuses_what_is_not_an_interval(interval: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="difference"):
        verdict(Difference(*interval))


def test_verdict_refuses_an_unknown_direction() -> None:
    with pytest.raises(ValueError, match="expected"):
        verdict(Difference(1.0, 0.5, 1.5), "better")


def test_a_record_survives_the_file(root: Path) -> None:
    made = make(note="A note.")
    assert load("dcl") == [made]
    assert load("dcl", "knn") == made
    assert made.verdict == "holds"
    assert set(made.versions) == {"python", "torch", "cl_teach"}
    assert made.scale == "small"
    assert made.device.startswith("CPU") or made.device


def test_the_file_can_be_read_by_people_and_does_not_depend_on_the_order_of_writing(root: Path) -> None:
    make(claim_id="b")
    make(claim_id="a")
    file = root / "data" / "evidence" / "dcl.json"
    first = file.read_text(encoding="utf-8")
    assert '"baseline": [0.8, 0.82, 0.79, 0.81, 0.8],' in first
    assert [entry["claim_id"] for entry in json.loads(first)["records"]] == ["a", "b"]
    make(claim_id="b")
    assert file.read_text(encoding="utf-8") == first
    assert list(file.parent.iterdir()) == [file]


def test_a_second_run_of_a_claim_replaces_the_first(root: Path) -> None:
    make()
    again = make(method=BASELINE)
    assert load("dcl") == [again]
    assert again.verdict == "inconclusive"


def test_interval_and_verdict_can_be_recomputed_from_the_stored_values(root: Path) -> None:
    values = np.random.default_rng(1).normal(size=(2, 5))
    made = make(baseline=values[0], method=values[1])
    assert made.difference == pytest.approx(paired_difference(made.baseline, made.method), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0], "baseline": [0.1], "method": [0.2]}, "at least 2 seeds"),
        ({"seeds": [0, 1, 2, 3, 3]}, "each may occur once"),
        ({"seeds": [0, 1, 2, 3]}, "equal lengths, got 4, 5 and 5"),
        ({"method": METHOD[:4]}, "equal lengths, got 5, 5 and 4"),
        ({"method": [math.nan, *METHOD[1:]]}, "finite numbers, pair 0"),
        ({"expected": "better"}, "expected"),
        ({"claim": " "}, "claim: needs a text"),
        ({"claim_id": "Two Words"}, "claim_id: needs lower case words"),
        ({"seconds": math.nan}, "seconds"),
    ],
)
def test_a_record_that_proves_nothing_is_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
    assert not (root / "data").exists()


def test_compare_runs_both_on_the_same_seeds(root: Path) -> None:
    seen: list[tuple[str, int]] = []

    def run(name: str, seed: int) -> float:
        seen.append((name, seed))
        return seed + (name == "method")

    runs = compare(lambda seed: run("baseline", seed), lambda seed: run("method", seed), range(3))
    assert seen == [(name, seed) for seed in range(3) for name in ("baseline", "method")]
    assert (runs.baseline, runs.method) == ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    made = make(**runs._asdict())
    assert made.difference == (1.0, 1.0, 1.0)


def test_a_record_shows_itself_as_one_sentence(root: Path) -> None:
    text = make()._repr_markdown_()
    assert text.startswith("**Holds**: The method is better. kNN accuracy, DCL minus NT-Xent: +0.052 points")
    assert "95 % interval" in text
    assert "5 paired seeds" in text


def test_nothing_measured_is_an_empty_list_and_an_unknown_claim_an_error(root: Path) -> None:
    assert load("dcl") == []
    make()
    with pytest.raises(KeyError, match="there are \\['knn'\\]"):
        load("dcl", "probe")


def test_a_broken_file_is_named(root: Path) -> None:
    file = root / "data" / "evidence" / "dcl.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"slug": "dcl", "records": [{"claim_id": "knn"}]}')
    with pytest.raises(ValueError, match=r"dcl\.json: not a file of evidence records"):
        load("dcl")


def test_without_a_repository_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "repository_root", lambda: None)
    with pytest.raises(FileNotFoundError, match="CL_TEACH_ROOT"):
        load("dcl")


def test_the_repository_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CL_TEACH_ROOT", raising=False)
    assert evidence.repository_root(ROOT / "tests" / "unit") == ROOT
    assert evidence.repository_root(tmp_path) is None


@pytest.mark.parametrize("file", sorted((ROOT / "data" / "evidence").glob("*.json")), ids=lambda f: f.stem)
def test_stored_evidence_says_what_its_values_say(file: Path) -> None:
    for each in load(file.stem, root=ROOT):
        difference = paired_difference(each.baseline, each.method, each.confidence)
        # The bounds are stored with six digits; a bound next to zero may lose some to cancellation.
        width = max(difference.high - difference.low, abs(difference.mean))
        assert each.difference == pytest.approx(difference, rel=1e-5, abs=1e-5 * width), each.claim_id
        assert each.verdict == verdict(each.difference, each.expected), each.claim_id
        assert len(each.seeds) >= 5, f"{each.claim_id}: at least 5 seeds"


def test_an_installed_package_reads_the_records_it_was_shipped_with(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    package = tmp_path / "site" / "cl_teach"
    shutil.copytree(root / "data" / "evidence", package / "records")
    monkeypatch.setattr(evidence, "__file__", str(package / "evidence.py"))
    monkeypatch.setattr(evidence, "repository_root", lambda: None)
    assert load("dcl", "knn") == one


def test_the_wheel_lists_every_package_and_the_records() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "cl_teach").rglob("__init__.py")}
    assert listed == folders | {"cl_teach.records"}


def test_single_runs_of_a_sweep_come_back_as_they_were_kept(root: Path) -> None:
    runs = [{"temperature": t, "seed": s, "accuracy": 0.8 + s / 3} for t in (0.1, 0.5) for s in range(3)]
    evidence.save_runs("dcl", runs)
    for got, kept in zip(evidence.load_runs("dcl"), runs, strict=True):
        assert got == pytest.approx(kept, rel=1e-5)
    with pytest.raises(FileNotFoundError, match="make evidence ONLY=cacr"):
        evidence.load_runs("cacr")
    with pytest.raises(ValueError, match="same keys"):
        evidence.save_runs("dcl", [{"a": 1}, {"b": 1}])
