"""Evidence: the interval, the verdict that follows from it, and the file that keeps both."""

from __future__ import annotations

import json
import math
import os
import shutil
import tomllib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cl_teach import evidence
from cl_teach.evidence import (
    Difference,
    Record,
    compare,
    headlines,
    holm,
    load,
    paired_difference,
    record,
    seeds_needed,
    verdict,
)

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
        "origin": "paper",
        "smallest_effect": 0.05,
        "effect_reason": "A twentieth of the scale.",
    }
    return record(changes.pop("slug", "dcl"), changes.pop("claim_id", "knn"), **{**values, **changes})


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
        ([1.0, math.nan], [1.0, 2.0], "baseline\\[1\\].*got nan"),
        ([1.0, 2.0], [math.inf, 2.0], "method\\[0\\].*got inf"),
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
        ((2.0, 1.0, 3.0), "holds", "opposite"),
        ((-2.0, -3.0, -1.0), "opposite", "holds"),
        ((0.2, 0.1, 0.3), "holds", "opposite"),  # clear of 0, though small: the direction is known
        ((0.1, -0.3, 0.5), "no difference", "no difference"),
        ((0.1, -0.3, 0.51), "undecided", "undecided"),
        ((0.0, -0.51, 0.5), "undecided", "undecided"),
        ((0.1, 0.0, 0.2), "no difference", "no difference"),
        ((0.0, 0.0, 0.0), "no difference", "no difference"),
    ],
)
def test_verdict_follows_from_the_interval(interval: tuple[float, float, float], higher: str, lower: str) -> None:
    assert verdict(Difference(*interval), smallest_effect=0.5) == higher
    assert verdict(Difference(*interval), "lower", smallest_effect=0.5) == lower


@pytest.mark.parametrize("effect", [0.0, -1.0, math.nan, math.inf])
def test_a_smallest_effect_is_positive(effect: float) -> None:
    with pytest.raises(ValueError, match="smallest_effect"):
        verdict(Difference(0.0, -1.0, 1.0), smallest_effect=effect)


@pytest.mark.parametrize("interval", [(0.0, 1.0, 2.0), (math.nan,) * 3, (1.0, 0.0, math.inf)])
def test_verdict_refuses_what_is_not_an_interval(interval: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="difference"):
        verdict(Difference(*interval), smallest_effect=1.0)


def test_verdict_refuses_an_unknown_direction() -> None:
    with pytest.raises(ValueError, match="expected"):
        verdict(Difference(1.0, 0.5, 1.5), "better", smallest_effect=1.0)


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
    assert again.verdict == "no difference"


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
        ({"method": [math.nan, *METHOD[1:]]}, "method\\[0\\].*got nan"),
        ({"expected": "better"}, "expected"),
        ({"claim": " "}, "claim: needs a text"),
        ({"claim_id": "Two Words"}, "claim_id: needs lower case words"),
        ({"seconds": math.nan}, "seconds"),
        ({"origin": "mine"}, "origin"),
        ({"smallest_effect": None, "unit": ""}, "only points have a default"),
        ({"effect_reason": ""}, "effect_reason: the reason must say why 0.05"),
        ({"smallest_effect": 0.0}, "smallest_effect"),
        ({"looks": (4, 8)}, r"looks: the planned numbers of seeds are \[4, 8\], got 5"),
        ({"scale": "huge"}, "CL_TEACH_SCALE"),
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
        difference = paired_difference(each.baseline, each.method, each.level)
        # The bounds are stored with six digits; a bound next to zero may lose some to cancellation.
        width = max(difference.high - difference.low, abs(difference.mean))
        assert each.difference == pytest.approx(difference, rel=1e-5, abs=1e-5 * width), each.claim_id
        assert each.verdict == verdict(each.difference, each.expected, smallest_effect=each.smallest_effect)
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


def test_points_of_accuracy_need_no_reason_and_everything_else_does(root: Path) -> None:
    assert make(smallest_effect=None, effect_reason="").smallest_effect == 0.5
    assert make(smallest_effect=0.5, effect_reason="").effect_reason == ""


def test_an_undecided_record_says_how_many_seeds_would_decide(root: Path) -> None:
    draws = np.random.default_rng(0).normal(size=(2, 5))
    made = make(baseline=draws[0], method=draws[1], smallest_effect=0.5)
    assert made.verdict == "undecided" and made.seeds_needed is not None
    assert made._repr_markdown_().startswith(f"**Undecided (about {made.seeds_needed} seeds would decide)**")
    assert make().seeds_needed is None


def test_with_the_seeds_that_are_needed_nothing_stays_undecided() -> None:
    rng = np.random.default_rng(1)
    pilot = rng.normal(size=30)
    n = seeds_needed(np.zeros(30), pilot, 0.5)
    one_less = stats.t.ppf(0.975, n - 2) * pilot.std(ddof=1) / math.sqrt(n - 1)
    assert stats.t.ppf(0.975, n - 1) * pilot.std(ddof=1) / math.sqrt(n) <= 0.25 < one_less
    shape = rng.normal(size=n)
    shape = (shape - shape.mean()) / shape.std(ddof=1) * pilot.std(ddof=1)  # as many seeds, the same spread
    for mean in np.linspace(-1, 1, 41):
        found = paired_difference(np.zeros(n), mean + shape)
        assert verdict(found, smallest_effect=0.5) != "undecided"


def test_a_small_effect_keeps_its_direction_and_is_called_small(root: Path) -> None:
    made = make(unit="points", smallest_effect=0.5, effect_reason="")
    assert made.verdict == "holds" and made.negligible
    assert made._repr_markdown_().startswith("**Holds (but less than 0.5 points)**")
    assert not make(smallest_effect=0.01).negligible


def test_looking_several_times_widens_the_interval_of_every_look(root: Path) -> None:
    once, thrice = make(), make(looks=(5, 10, 20))
    assert thrice.difference == pytest.approx(paired_difference(BASELINE, METHOD, 1 - 0.05 / 3), rel=1e-5)
    assert thrice.low < once.low and thrice.confidence == once.confidence == 0.95
    assert thrice.p_value == pytest.approx(3 * once.p_value)
    assert "95 % interval over 3 looks" in thrice.interval
    assert once.p_value == pytest.approx(stats.ttest_rel(METHOD, BASELINE).pvalue)


def test_stopping_when_decided_errs_no_more_often_than_promised() -> None:
    """Without an effect, "until decided at 5, 10 or 20 seeds" claims a direction in at most one of twenty cases."""
    draws = np.random.default_rng(2).normal(size=(1500, 20))
    wrong = 0
    for row in draws:
        for n in (5, 10, 20):
            found = paired_difference(np.zeros(n), row[:n], 1 - 0.05 / 3)
            said = verdict(found, smallest_effect=0.05)
            wrong += said in ("holds", "opposite")
            if said != "undecided":
                break
    assert wrong / len(draws) < 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(draws))


def test_p_values_without_spread(root: Path) -> None:
    assert make(method=BASELINE).p_value == 1
    assert make(baseline=[0.0] * 5, method=[1.0] * 5).p_value == 0


def test_holm_equals_the_textbook() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    with pytest.raises(ValueError, match="'a'"):
        holm({"a": math.nan})


def test_holm_rejects_what_the_sequential_rule_rejects() -> None:
    for seed in range(50):
        p = np.random.default_rng(seed).uniform(0, 0.1, size=8)
        adjusted = holm({str(i): float(v) for i, v in enumerate(p)})
        rejected = set()
        for rank, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (len(p) - rank):
                break
            rejected.add(str(i))
        assert {name for name, v in adjusted.items() if v <= 0.05} == rejected


def test_a_slug_has_one_headline(root: Path) -> None:
    make(headline=True)
    with pytest.raises(ValueError, match="headline: 'dcl' has one already, 'knn'"):
        make(claim_id="other", headline=True)
    assert make(headline=True).headline  # the same claim once more
    make(claim_id="other")
    make(slug="cacr", claim_id="first", headline=True)
    assert [(r.slug, r.claim_id) for r in headlines()] == [("cacr", "first"), ("dcl", "knn")]


def test_a_claim_that_is_no_longer_made_can_be_forgotten(root: Path) -> None:
    make(claim_id="a")
    make(claim_id="b")
    evidence.forget("dcl", "a")
    evidence.forget("dcl", "never-there")
    evidence.forget("cacr", "a")
    assert [r.claim_id for r in load("dcl")] == ["b"]
    assert not (root / "data" / "evidence" / "cacr.json").exists()


@pytest.mark.parametrize("slug", ["../../outside", "/tmp/x", "a/b", "..", "", "Dcl", "a b", "a\n"])
def test_a_slug_never_points_outside(root: Path, slug: str) -> None:
    for call in (
        lambda: make(slug=slug),
        lambda: load(slug),
        lambda: evidence.save_runs(slug, [{"a": 1}]),
        lambda: evidence.load_runs(slug),
        lambda: evidence.forget(slug, "a"),
    ):
        with pytest.raises(ValueError, match="slug: needs lower case words"):
            call()
    assert list(root.iterdir()) == []


def test_a_root_that_does_not_exist_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_TEACH_ROOT", str(tmp_path / "nowhere"))
    for call in (lambda: load("dcl"), make, evidence.repository_root):
        with pytest.raises(FileNotFoundError, match="CL_TEACH_ROOT: there is no folder"):
            call()


def test_an_unknown_scale_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CL_TEACH_SCALE", "large")
    with pytest.raises(ValueError, match="CL_TEACH_SCALE"):
        make()


def _record_many(root: str, first: int) -> None:
    os.environ["CL_TEACH_ROOT"] = root
    for i in range(first, first + 25):
        make(claim_id=f"claim-{i}")


def test_two_writers_lose_nothing(root: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for job in [pool.submit(_record_many, str(root), first) for first in (0, 25)]:
            job.result()
    assert len(load("dcl")) == 50
    assert [file.name for file in (root / "data" / "evidence").iterdir()] == ["dcl.json"]


def test_damaged_runs_are_named(root: Path) -> None:
    file = root / "data" / "evidence" / "runs" / "dcl.json"
    evidence.save_runs("dcl", [{"a": 1}])
    file.write_text("[{")
    with pytest.raises(ValueError, match=r"dcl\.json: not a file of runs"):
        evidence.load_runs("dcl")
