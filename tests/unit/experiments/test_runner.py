"""The runner of the experiments: pairing, looks, tuning, resuming and records, with trials that cost nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cl_teach import evidence

FOLDER = Path(__file__).resolve().parents[3] / "experiments"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("CL_TEACH_SCALE", raising=False)
    spec = importlib.util.spec_from_file_location("_runner", FOLDER / "_runner.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "_runner", module)
    spec.loader.exec_module(module)
    return module


class Trials:
    """A trial that counts its calls: noise of the seed, shared by the arms, plus an effect of the arm."""

    def __init__(self, effect: dict[str, float], spread: float = 0.1, stop_after: int | None = None) -> None:
        self.effect, self.spread, self.stop_after = effect, spread, stop_after
        self.calls: list[tuple[str, int]] = []

    def __call__(self, seed: int, arm: str, **settings: Any) -> dict[str, float]:
        if self.stop_after is not None and len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((arm, seed))
        own = np.random.default_rng([seed, sorted(self.effect).index(arm)]).normal()
        return {"knn": 80 + self.effect[arm] + self.spread * own}


def experiment(runner: ModuleType, trial: Any, **changes: Any) -> Any:
    metric = runner.Metric("kNN accuracy", "knn", "points")
    values: dict[str, Any] = {
        "arms": {arm: {"arm": arm} for arm in ("base", "method")},
        "claims": [runner.Claim("better", "It is better.", metric, "base", "method", headline=True)],
        "names": {"base": "the host"},
        "note": "A note.",
    }
    return runner.Experiment("toy", trial=trial, **values | changes)


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "code" / "toy.py"
    file.parent.mkdir()
    file.write_text("def trial(seed):\n    return seed\n")
    return str(file)


def test_a_record_pairs_the_seeds_and_says_what_the_table_says(runner: ModuleType, script: str, tmp_path: Path) -> None:
    trial = Trials({"base": 0.0, "method": 2.0})
    runner.run(script, experiment(runner, trial), root=tmp_path)
    found = evidence.load("toy", "better", root=tmp_path)
    assert (found.verdict, found.headline, found.origin, found.note) == ("holds", True, "paper", "A note.")
    assert (found.baseline_name, found.method_name, found.seeds) == ("the host", "method", [0, 1, 2, 3, 4])
    rows = evidence.load_runs("toy", root=tmp_path)
    assert [row["knn"] for row in rows if row["arm"] == "method"] == pytest.approx(found.method, rel=1e-5)
    assert not list((tmp_path / "_build").rglob("*.jsonl"))


def test_a_stopped_experiment_goes_on_and_loses_one_run(runner: ModuleType, script: str, tmp_path: Path) -> None:
    whole = Trials({"base": 0.0, "method": 2.0})
    runner.run(script, experiment(runner, whole), root=tmp_path / "whole")
    first = Trials(whole.effect, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        runner.run(script, experiment(runner, first), root=tmp_path / "other")
    assert not (tmp_path / "other" / "data").exists()
    (progress,) = (tmp_path / "other" / "_build").rglob("*.jsonl")
    with progress.open("a") as stream:
        stream.write('{"key": "cut sho')  # what a kill leaves
    second = Trials(whole.effect)
    runner.run(script, experiment(runner, second), root=tmp_path / "other")
    assert first.calls + second.calls == whole.calls
    stored = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in evidence.load_runs("toy", root=tmp_path / where)]
        for where in ("whole", "other")
    ]
    assert stored[0] == stored[1]


def test_when_the_time_is_over_records_are_of_what_is_there_and_the_next_call_goes_on(
    runner: ModuleType, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trials({"base": 0.0, "method": 2.0})
    monkeypatch.setattr(runner.time, "monotonic", lambda: float(len(trial.calls)))  # a run takes a second
    runner.run(script, experiment(runner, trial), root=tmp_path, seconds=5)
    assert evidence.load("toy", "better", root=tmp_path).seeds == [0, 1]
    assert len(trial.calls) == 5
    assert list((tmp_path / "_build").rglob("*.jsonl"))
    runner.run(script, experiment(runner, trial), root=tmp_path)
    assert evidence.load("toy", "better", root=tmp_path).seeds == [0, 1, 2, 3, 4]
    assert len(trial.calls) == 10
    assert not list((tmp_path / "_build").rglob("*.jsonl"))


def test_without_time_to_tune_nothing_is_written(runner: ModuleType, script: str, tmp_path: Path) -> None:
    tuning = runner.Tuning({"rate": (1.0, 2.0, 4.0)}, lambda seed, arm, rate: -abs(rate - 2.0))
    runner.run(
        script, experiment(runner, Trials({"base": 0.0, "method": 2.0}), tuning=tuning), root=tmp_path, seconds=0
    )
    assert not (tmp_path / "data").exists()


def test_changed_code_begins_anew_and_a_changed_sentence_does_not(
    runner: ModuleType, script: str, tmp_path: Path
) -> None:
    def stopped(text: str) -> int:
        Path(script).write_text(text)
        trial = Trials({"base": 0.0, "method": 2.0}, stop_after=3)
        with pytest.raises(KeyboardInterrupt):
            runner.run(script, experiment(runner, trial), root=tmp_path)
        (progress,) = (tmp_path / "_build").rglob("*.jsonl")
        return len(progress.read_text().splitlines()) - 1

    assert stopped("def trial(seed):\n    return seed\n") == 3
    assert stopped('def trial(seed):\n    """Said."""\n    return seed\nCLAIMS = [Claim("a")]\n') == 6
    assert stopped("def trial(seed):\n    return seed + 1\n") == 3


@pytest.mark.parametrize(("effect", "spread", "seeds"), [(3.0, 0.1, 5), (0.0, 0.1, 5), (0.6, 1.0, 20)])
def test_looks_stop_when_decided(
    runner: ModuleType, script: str, tmp_path: Path, effect: float, spread: float, seeds: int
) -> None:
    trial = Trials({"base": 0.0, "method": effect}, spread)
    what = experiment(runner, trial, seeds=range(20), looks=(5, 10, 20))
    runner.run(script, what, root=tmp_path)
    found = evidence.load("toy", "better", root=tmp_path)
    assert len(found.seeds) == seeds and found.looks == [5, 10, 20]
    assert found.difference == pytest.approx(
        evidence.paired_difference(found.baseline, found.method, 1 - 0.05 / 3), rel=1e-4
    )
    assert seeds == 20 or found.verdict != "undecided"


def test_only_the_arms_of_undecided_headlines_go_on(runner: ModuleType, script: str, tmp_path: Path) -> None:
    metric = runner.Metric("kNN accuracy", "knn", "points")
    trial = Trials({"base": 0.0, "clear": 5.0, "close": 0.6, "other": 0.0, "unclaimed": 0.0}, spread=1.0)
    claims = [
        runner.Claim("a", "It is better.", metric, "base", "clear", headline=True, slug="clear"),
        runner.Claim("b", "It is better.", metric, "base", "close", headline=True, slug="close"),
        runner.Claim("c", "It is better.", metric, "base", "other"),
    ]
    what = experiment(
        runner,
        trial,
        arms={arm: {"arm": arm} for arm in trial.effect},
        claims=claims,
        seeds=range(20),
        looks=(5, 10, 20),
    )
    runner.run(script, what, root=tmp_path)
    counts = {arm: sum(name == arm for name, _ in trial.calls) for arm in trial.effect}
    assert counts == {"base": 20, "clear": 5, "close": 20, "other": 5, "unclaimed": 5}
    assert len(evidence.load("clear", "a", root=tmp_path).seeds) == 5
    assert evidence.load("toy", "c", root=tmp_path).seeds == [0, 1, 2, 3, 4]


def test_a_grid_whose_edge_wins_grows_for_all_arms_alike(runner: ModuleType, script: str, tmp_path: Path) -> None:
    asked: list[tuple[str, float, float, int]] = []

    def score(seed: int, arm: str, rate: float, temperature: float) -> float:
        asked.append((arm, rate, temperature, seed))
        best = {"base": 0.5, "method": 9.0}[arm]
        return -abs(np.log(rate / best)) - abs(np.log(temperature / 0.2)) + 0.001 * seed

    trial = Trials({"base": 0.0, "method": 0.0})
    tuning = runner.Tuning({"rate": (1.0, 2.0, 4.0), "temperature": (0.1, 0.2, 0.4)}, score)
    runner.run(script, experiment(runner, trial, tuning=tuning), root=tmp_path)
    tables = {row["arm"]: row for row in evidence.load_runs("toy-tuning", root=tmp_path)}
    assert (tables["base"]["rate"], tables["method"]["rate"]) == (0.5, 8.0)
    assert tables["base"]["tried"] == tables["method"]["tried"] or len(tables["base"]["tried"]) == len(
        tables["method"]["tried"]
    )  # the same budget
    assert {rate for _, rate, _, _ in asked} == {0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0}
    assert {seed for *_, seed in asked} == {100, 101, 102}
    assert all(row["edge"] == [] and row["temperature"] == 0.2 for row in tables.values())
    assert len(tables["base"]["scores"]) == len(tables["base"]["tuning_knn"]) == len(tables["base"]["tried"])
    assert len(asked) == len(set(asked))  # nothing twice
    runs = evidence.load_runs("toy", root=tmp_path)
    assert {(row["arm"], row["rate"]) for row in runs} == {("base", 0.5), ("method", 8.0)}


def test_an_edge_that_goes_on_winning_is_reported(runner: ModuleType, script: str, tmp_path: Path) -> None:
    tuning = runner.Tuning({"rate": (1.0, 2.0)}, lambda seed, arm, rate: rate)
    runner.run(script, experiment(runner, Trials({"base": 0.0, "method": 0.0}), tuning=tuning), root=tmp_path)
    assert all(row["edge"] == ["rate"] and row["rate"] == 8 for row in evidence.load_runs("toy-tuning", root=tmp_path))


@pytest.mark.parametrize("seeds", [(100,), (100, 101, 3)])
def test_tuning_on_too_few_or_on_used_seeds_is_refused(
    runner: ModuleType, script: str, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    tuning = runner.Tuning({"rate": (1.0, 2.0)}, lambda seed, arm, rate: 0.0, seeds=seeds)
    what = experiment(runner, Trials({"base": 0.0, "method": 0.0}), tuning=tuning)
    with pytest.raises(ValueError, match="three seeds that are not used for records"):
        runner.run(script, what, root=tmp_path)


def test_an_arm_can_take_over_what_was_chosen_for_another(runner: ModuleType, script: str, tmp_path: Path) -> None:
    tuning = runner.Tuning({"rate": (1.0, 2.0, 3.0)}, lambda seed, arm, rate: -abs(rate - 2), like={"method": "base"})
    runner.run(script, experiment(runner, Trials({"base": 0.0, "method": 0.0}), tuning=tuning), root=tmp_path)
    assert {(row["arm"], row["rate"]) for row in evidence.load_runs("toy", root=tmp_path)} == {
        ("base", 2.0),
        ("method", 2.0),
    }
    assert [row["arm"] for row in evidence.load_runs("toy-tuning", root=tmp_path)] == ["base"]


def test_derived_numbers_and_other_keys(runner: ModuleType, script: str, tmp_path: Path) -> None:
    metric = runner.Metric("Gain", "", "points")
    claims = [
        runner.Claim("gain", "It gains.", metric, "derived:nothing", "derived:gain"),
        runner.Claim("keys", "Other keys.", metric, "base:knn", "method:knn", names=("one", "two")),
    ]
    what = experiment(
        runner,
        Trials({"base": 0.0, "method": 2.0}),
        claims=claims,
        derive=lambda rows: {"nothing": 0.0, "gain": rows["method"]["knn"] - rows["base"]["knn"]},
    )
    runner.run(script, what, root=tmp_path)
    gain, keys = evidence.load("toy", root=tmp_path)
    assert gain.method == pytest.approx([b - a for a, b in zip(keys.baseline, keys.method, strict=True)], abs=1e-3)
    assert (keys.baseline_name, keys.method_name) == ("one", "two")


def test_records_can_be_made_again_from_the_runs_and_keep_what_they_cost(
    runner: ModuleType, script: str, tmp_path: Path
) -> None:
    what = experiment(runner, Trials({"base": 0.0, "method": 2.0}))
    runner.run(script, what, root=tmp_path)
    file = tmp_path / "data" / "evidence" / "toy.json"
    content = json.loads(file.read_text())
    content["records"][0] |= {"claim": "Old words.", "seconds": 77.0, "device": "another one"}
    file.write_text(json.dumps(content))
    runner.run(script, what, root=tmp_path, only_records=True)
    found = evidence.load("toy", "better", root=tmp_path)
    assert (found.claim, found.seconds, found.device) == ("It is better.", 77.0, "another one")


def test_a_headline_moves_with_the_table(runner: ModuleType, script: str, tmp_path: Path) -> None:
    trial = Trials({"base": 0.0, "method": 2.0})
    runner.run(script, experiment(runner, trial), root=tmp_path)
    metric = runner.Metric("kNN accuracy", "knn", "points")
    other = [runner.Claim("other", "It is better still.", metric, "base", "method", headline=True)]
    runner.run(script, experiment(runner, trial, claims=other), root=tmp_path)
    assert {each.claim_id: each.headline for each in evidence.load("toy", root=tmp_path)} == {
        "better": False,
        "other": True,
    }


def test_some_arms_run_anew_beside_stored_ones(runner: ModuleType, script: str, tmp_path: Path) -> None:
    runner.run(script, experiment(runner, Trials({"base": 0.0, "method": 2.0})), root=tmp_path)
    again = Trials({"base": 0.0, "method": -2.0})
    runner.run(script, experiment(runner, again), root=tmp_path, arms=["method"])
    assert {arm for arm, _ in again.calls} == {"method"}
    assert evidence.load("toy", "better", root=tmp_path).verdict == "opposite"


def test_the_full_scale_has_names_of_its_own_and_no_headline(
    runner: ModuleType, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = experiment(runner, Trials({"base": 0.0, "method": 2.0}))
    runner.run(script, what, root=tmp_path)
    monkeypatch.setenv("CL_TEACH_SCALE", "full")
    runner.run(script, what, root=tmp_path)
    found = {each.claim_id: each.headline for each in evidence.load("toy", root=tmp_path)}
    assert found == {"better": True, "better-full": False}
    assert evidence.load_runs("toy-full", root=tmp_path)


def test_an_experiment_whose_data_are_not_installed_is_left_out(runner, script, tmp_path, capsys) -> None:
    def needs() -> None:
        raise FileNotFoundError("nobody is not installed; pip install nobody")

    trial = Trials({"base": 0.0, "new": 1.0})
    left_out = experiment(runner, trial, needs=needs)
    runner.run(script, left_out, root=tmp_path)
    assert trial.calls == [] and not (tmp_path / "data").exists()
    assert "left out. nobody is not installed" in capsys.readouterr().out
    assert runner.missing(experiment(runner, trial)) == ""
