"""One runner for all experiments: arms, seeds, tuning, looks, records, and a stop that loses one run.

An experiment is a table of claims, a table of arms and a function ``trial(seed, **settings)`` that trains one arm once
and returns what was measured. Everything else is here:

- **pairing**: all arms run on the same seeds; a record compares the seeds that both of its arms have;
- **looks**: an experiment with ``looks=(5, 10, 20)`` runs 5 seeds, then goes on to 10 and to 20 with the arms of those
  headlines that are still undecided. All its intervals are widened for three looks (Bonferroni: 98.3 % each), whether
  or not the later looks came to be needed;
- **tuning**: one setting after the other, the others at the middle of their values or already chosen; the same values
  for all arms, at least three seeds that are used for nothing else, and images that no record looks at. Where the best
  value of any arm lies at an edge, the values grow there for all arms, so that the budgets stay equal. Everything tried
  is kept in ``runs/<name>-tuning.json``, and which choices still lie at an edge;
- **resuming**: every finished run is on disk before the next begins (``_build/evidence``). A killed experiment that is
  started again goes on; what it had under way is lost, one arm of one seed. When the code of the experiment has
  changed, it begins anew; a change of its claims alone leaves the runs in place;
- **scales**: ``CL_TEACH_SCALE=smoke`` runs two seeds, and writes to a temporary folder unless told where; records of
  ``full`` get names of their own (``knn-full``) and are no headlines.

Every file ends in ``main(__file__, *EXPERIMENTS)``. From a terminal it takes ``--jobs 2``, ``--root FOLDER``, ``--only
NAME`` (one file of runs of several), ``--arms NAME ...`` (run these arms anew and keep the stored runs of the others),
``--seconds 120`` (begin no run after that: records are made of the seeds that are there, and the next call goes on) and
``--records`` (make the records once more from the stored runs).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cl_teach import evidence
from cl_teach.training import at_scale

Row = dict[str, Any]
LOOKS = (5, 10, 20)


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Attributes:
        words: for readers, e.g. ``"kNN accuracy"``.
        key: its name in the rows that ``trial`` returns.
        unit: ``"points"`` or ``""``.
        smallest_effect: the smallest difference of interest; half a point where the unit is points.
        reason: why this size.
    """

    words: str
    key: str
    unit: str = ""
    smallest_effect: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Claim:
    """One row of the table of claims.

    Attributes:
        id: short name of the record.
        sentence: the claim, ending in a full stop.
        metric: what is compared.
        baseline: an arm, or ``"arm:key"`` where another key than the metric's is meant, or ``"derived:key"``.
        method: likewise.
        expected: ``"higher"`` or ``"lower"``.
        origin: ``"paper"``, ``"ours"`` or ``"post hoc"``.
        headline: whether it is the method's central claim.
        note: added to the experiment's note.
        slug: default: the experiment's.
        names: what readers are told that baseline and method are, where it is not what the experiment's names say.
    """

    id: str
    sentence: str
    metric: Metric
    baseline: str
    method: str
    expected: str = "higher"
    origin: str = "paper"
    headline: bool = False
    note: str = ""
    slug: str = ""
    names: tuple[str, str] | None = None


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen.

    Attributes:
        axes: setting to its values, ascending and roughly geometric; tuned in this order.
        score: ``score(seed, **settings)``, larger is better, on images that no record looks at.
        seeds: at least three that no record uses.
        like: arm to the arm whose choice it takes over, untuned.
        widen: how often the grid may grow.
    """

    axes: Mapping[str, tuple[float, ...]]
    score: Callable[..., float]
    seeds: Sequence[int] = (100, 101, 102)
    like: Mapping[str, str] = field(default_factory=dict)
    widen: int = 2


@dataclass(frozen=True)
class Experiment:
    """All that is needed to run and to record.

    Attributes:
        slug: of the records.
        arms: name to settings; these are passed to ``trial``, stored with every run, and tell its arm.
        trial: ``trial(seed, **settings)``; one row of numbers, or a list of rows.
        claims: the table.
        names: arm (or ``"arm:key"``) to words.
        note: what a reader has to know to believe the numbers.
        seeds: of the runs; with looks, as many as the last look has.
        looks: see above; empty: all seeds, once.
        tuning: None: nothing is tuned.
        derive: from the rows of one seed (arm to row, or to rows) to further numbers; arms that have not run are
            absent.
        runs: name of the file of runs; default: the slug. Several experiments may share one.
        needs: reads real data of a package that may not be installed; where it raises FileNotFoundError or ImportError,
            the experiment is left out with a sentence.
    """

    slug: str
    arms: Mapping[str, Mapping[str, Any]]
    trial: Callable[..., Row | list[Row]]
    claims: Sequence[Claim]
    names: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    seeds: Sequence[int] = range(5)
    looks: Sequence[int] = ()
    tuning: Tuning | None = None
    derive: Callable[[dict[str, Any]], dict[str, float]] | None = None
    runs: str = ""
    needs: Callable[[], Any] | None = None

    @property
    def file(self) -> str:
        """Name of the file of runs at this scale."""
        return named(self.runs or self.slug)


def named(name: str) -> str:
    """The name at this scale: the small one has the plain names."""
    return name + at_scale("", "-full", smoke="-smoke")


# --- what has been run ---------------------------------------------------------------------------------------------


class Progress:
    """Finished runs on disk, one line each, so that a kill loses only the run under way."""

    def __init__(self, file: Path, fingerprint: str) -> None:
        self.file, self.done = file, dict[str, Row]()
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        if lines and lines[0] != fingerprint:
            print(f"{file.name}: the experiment has changed since; all runs are made again", flush=True)
            lines = []
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except ValueError:  # the line that a kill cut short
                break
            self.done[entry["key"]] = entry
        file.parent.mkdir(parents=True, exist_ok=True)
        evidence.files.write_text(file, "\n".join([fingerprint, *map(json.dumps, self.done.values()), ""]))

    def add(self, key: str, result: Any, seconds: float) -> None:
        """Keep one finished run."""
        self.done[key] = {"key": key, "result": result, "seconds": seconds}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.done[key]) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def fingerprint(script: Path) -> str:
    """Of the code of an experiment and its neighbors, without docstrings and without the tables of claims."""
    digest = hashlib.sha256()
    for file in (script, *sorted(script.parent.glob("_*.py"))):
        if file.name == Path(__file__).name:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            calls = {c.func.id for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
            says = isinstance(node, ast.Expr) or calls & {"Claim", "Experiment", "Metric", "run"}
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr | ast.If) and says:
                continue
            for each in ast.walk(node):
                if isinstance(each, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(each):
                    each.body = each.body[1:]
            digest.update(ast.dump(node).encode())
    return digest.hexdigest()


def call(function: Callable[..., Any], seed: int, settings: Row) -> tuple[Any, float]:
    """One run and the seconds of processor time it took, which do not depend on what else the machine does.

    Networks this small gain little from a second thread.
    """
    torch.set_num_threads(1)
    start = time.process_time()
    result = function(seed=seed, **settings)
    return result, time.process_time() - start


def end_with_parent() -> None:
    """In a worker: end with the parent. Those of a killed one would wait for work for ever, and hold memory."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class OutOfTime(Exception):
    """Runs are missing, and no more are to be begun."""


class Runs:
    """Makes runs that are not there yet, in this process or in several, for so many seconds."""

    def __init__(self, progress: Progress, jobs: int, seconds: float = math.inf) -> None:
        self.progress, self.end, self.cut_short = progress, time.monotonic() + seconds, False
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(jobs, spawn, initializer=end_with_parent) if jobs > 1 else None

    def all(self, kind: str, function: Callable[..., Any], todo: Sequence[tuple[Row, int]]) -> list[Row]:
        """Entries (``result``, ``seconds``) of these settings and seeds, in order.

        Raises:
            OutOfTime: not all could be made; `found` has those that are there.
        """
        keys = [self.key(kind, *job) for job in todo]
        missing = [(k, *job) for k, job in zip(keys, todo, strict=True) if k not in self.progress.done]
        futures: list[tuple[str, Future[tuple[Any, float]] | None, Row, int]] = [
            (key, self.pool.submit(call, function, seed, settings) if self.pool else None, settings, seed)
            for key, settings, seed in missing
        ]
        for key, future, settings, seed in futures:
            left = self.end - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                waits = None if left == math.inf else left
                result, seconds = future.result(waits) if future else call(function, seed, settings)
            except TimeoutError:
                self.stop()
                raise OutOfTime from None
            self.progress.add(key, result, seconds)
            print(f"{kind} {settings} seed {seed}: {brief(result)}, {seconds:.1f} s", flush=True)
        return [self.progress.done[key] for key in keys]

    def found(self, kind: str, todo: Sequence[tuple[Row, int]]) -> list[Row | None]:
        """The same; None where a run is missing."""
        return [self.progress.done.get(self.key(kind, *job)) for job in todo]

    @staticmethod
    def key(kind: str, settings: Row, seed: int) -> str:
        """What a run is kept under."""
        return json.dumps([kind, settings, seed], sort_keys=True)

    def stop(self) -> None:
        """Give up what is under way."""
        self.cut_short = True
        if self.pool:
            self.pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()


def brief(result: Any) -> str:
    """A result in a few words."""
    if isinstance(result, dict):
        return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in list(result.items())[:4])
    return f"{result:.4g}" if isinstance(result, float) else f"{len(result)} rows"


# --- tuning --------------------------------------------------------------------------------------------------------


def tune(experiment: Experiment, runs: Runs) -> tuple[dict[str, Row], list[Row]]:
    """The settings of every arm, and the table of all that was tried."""
    tuning = experiment.tuning
    settings = {arm: dict(given) for arm, given in experiment.arms.items()}
    if tuning is None:
        return settings, []
    smoke = at_scale(False, False, smoke=True)
    seeds = list(tuning.seeds)[: at_scale(None, None, smoke=1)]
    if not smoke and (len(seeds) < 3 or set(seeds) & set(experiment.seeds)):
        raise ValueError(f"{experiment.slug}: tuning needs three seeds that are not used for records, got {seeds}")
    best = {
        arm: given | {axis: values[len(values) // 2] for axis, values in tuning.axes.items() if axis not in given}
        for arm, given in settings.items()
        if arm not in tuning.like
    }
    tried: dict[str, dict[str, list[float]]] = {arm: {} for arm in best}
    edges: dict[str, list[str]] = {arm: [] for arm in best}
    for axis, start in tuning.axes.items():
        values = list(start)[: at_scale(None, None, smoke=1)]
        arms = [arm for arm in best if axis not in settings[arm]]
        for growth in range(tuning.widen + 1):
            jobs = [(best[arm] | {axis: value}, seed) for arm in arms for value in values for seed in seeds]
            scores = [entry["result"] for entry in runs.all(f"{experiment.file} tuning", tuning.score, jobs)]
            winners = {}
            for i, arm in enumerate(arms):
                for j, value in enumerate(values):
                    first = (i * len(values) + j) * len(seeds)
                    point = json.dumps({key: (best[arm] | {axis: value})[key] for key in tuning.axes})
                    tried[arm][point] = scores[first : first + len(seeds)]
                    mean = statistics.fmean(tried[arm][point])
                    if arm not in winners or mean > winners[arm][1]:
                        winners[arm] = value, mean
            low, high = ([arm for arm in arms if winners[arm][0] == end] for end in (values[0], values[-1]))
            if smoke or not (low or high) or growth == tuning.widen:
                break
            if low:
                values.insert(0, significant(values[0] ** 2 / values[1]))
            if high:
                values.append(significant(values[-1] ** 2 / values[-2]))
            print(
                f"{experiment.file}: {axis} grows to {values}: {len(low) + len(high)} arms won at an edge", flush=True
            )
        for arm in arms:
            best[arm] |= {axis: winners[arm][0]}
            edges[arm] += [axis] * (arm in (*low, *high))
    table = [
        best[arm]
        | {"tuning_knn": [statistics.fmean(each) for each in tried[arm].values()]}
        | {"tried": [json.loads(point) for point in tried[arm]], "scores": list(tried[arm].values())}
        | {"seeds": seeds, "edge": edges[arm]}
        for arm in best
    ]
    return {arm: best[tuning.like.get(arm, arm)] | settings[arm] for arm in settings}, table


def significant(value: float, digits: int = 2) -> float:
    """Rounded to so many digits."""
    return float(f"{value:.{digits}g}")


# --- records -------------------------------------------------------------------------------------------------------


def of_arm(experiment: Experiment, arm: str, rows: Iterable[Row]) -> dict[int, Any]:
    """Seed to row of one arm, or to rows where a trial returns several."""
    found: dict[int, Any] = {}
    for row in rows:
        if all(row.get(key) == value for key, value in experiment.arms[arm].items()):
            found.setdefault(row["seed"], []).append(row)
    return {seed: each[0] if len(each) == 1 else each for seed, each in found.items()}


def side(experiment: Experiment, words: str, key: str, rows: Sequence[Row]) -> dict[int, float]:
    """Seed to value of one side of a claim."""
    arm, _, other = words.partition(":")
    if arm not in (*experiment.arms, "derived"):
        return {}
    if arm != "derived":
        found = {seed: row.get(other or key) for seed, row in of_arm(experiment, arm, rows).items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}
    assert experiment.derive is not None
    by_arm = {name: of_arm(experiment, name, rows) for name in experiment.arms}
    found = {}
    for seed in sorted({seed for rows_of in by_arm.values() for seed in rows_of}):
        here = {name: rows_of[seed] for name, rows_of in by_arm.items() if seed in rows_of}
        try:
            found[seed] = float(experiment.derive(here)[other])
        except KeyError:  # an arm has not run with this seed
            continue
    return found


def values(experiment: Experiment, claim: Claim, rows: Sequence[Row]) -> tuple[list[int], list[float], list[float]]:
    """Seeds that both sides have, and both sides on them."""
    one, two = (side(experiment, words, claim.metric.key, rows) for words in (claim.baseline, claim.method))
    seeds = sorted(one.keys() & two.keys())
    return seeds, [one[seed] for seed in seeds], [two[seed] for seed in seeds]


def decided(experiment: Experiment, claim: Claim, rows: Sequence[Row]) -> bool:
    """Whether the interval for all looks gives a verdict."""
    _, baseline, method = values(experiment, claim, rows)
    level = 1 - 0.05 / len(experiment.looks)
    effect = claim.metric.smallest_effect or evidence.POINTS
    difference = evidence.paired_difference(baseline, method, level)
    return evidence.verdict(difference, claim.expected, smallest_effect=effect) != "undecided"


def write(experiment: Experiment, rows: Sequence[Row], root: Path | None) -> None:
    """Compute and store the records; headlines last, in case one moved from another claim."""
    looks = list(experiment.looks) if at_scale(True, True, smoke=False) else []
    for claim in sorted(experiment.claims, key=lambda each: each.headline):
        seeds, baseline, method = values(experiment, claim, rows)
        if not seeds:
            print(f"{claim.slug or experiment.slug} {claim.id}: not run", flush=True)
            continue
        slug, claim_id = claim.slug or experiment.slug, named(claim.id)
        headline = claim.headline and at_scale(True, False, smoke=True)
        if headline:
            demote(slug, claim_id, root)
        arms = {words.partition(":")[0] for words in (claim.baseline, claim.method)}
        used = [r for r in rows if r["seed"] in seeds and ("derived" in arms or belongs(experiment, arms, r))]
        stored = {old.claim_id: old for old in evidence.load(slug, root=root)}
        old = stored.get(claim_id)
        same = old is not None and (old.seeds, old.baseline, old.method) == (
            seeds,
            [evidence._round(v) for v in baseline],
            [evidence._round(v) for v in method],
        )
        result = evidence.record(
            slug,
            claim_id,
            claim=claim.sentence,
            metric=claim.metric.words,
            unit=claim.metric.unit,
            expected=claim.expected,
            baseline_name=claim.names[0] if claim.names else word(experiment, claim.baseline),
            method_name=claim.names[1] if claim.names else word(experiment, claim.method),
            seeds=seeds,
            baseline=baseline,
            method=method,
            seconds=old.seconds if old and same else sum(row.get("seconds") or 0.0 for row in used),
            device=old.device if old and same else None,  # the runs are the old ones: so is the machine
            origin=claim.origin,
            headline=headline,
            smallest_effect=claim.metric.smallest_effect,
            effect_reason=claim.metric.reason,
            looks=looks if len(seeds) in looks else (),
            note=f"{experiment.note} {claim.note}".strip(),
            root=root,
        )
        print(f"{slug} {claim_id}: {result.finding}, {result.interval}", flush=True)


def demote(slug: str, claim_id: str, root: Path | None) -> None:
    """A slug has one headline: where the table has moved it to another claim, the old one yields."""
    file = evidence._folder(root) / f"{slug}.json"
    with evidence.files.locked(file):
        records = evidence._read(file)
        if any(each.headline and each.claim_id != claim_id for each in records):
            evidence._write(file, slug, [replace(each, headline=each.claim_id == claim_id) for each in records])


def belongs(experiment: Experiment, arms: Iterable[str], row: Row) -> bool:
    """Whether a run is of one of these arms."""
    return any(all(row.get(k) == v for k, v in experiment.arms[arm].items()) for arm in arms)


def word(experiment: Experiment, words: str) -> str:
    """What readers are told that a side is."""
    return experiment.names.get(words) or experiment.names.get(words.partition(":")[0]) or words.partition(":")[0]


# --- all of it -----------------------------------------------------------------------------------------------------


def conduct(experiment: Experiment, runs: Runs) -> tuple[list[Row], list[Row]]:
    """Tune, run all seeds or until decided; the rows and the tuning table."""
    smoke = at_scale(False, False, smoke=True)
    settings, table = tune(experiment, runs)
    looks = () if smoke else tuple(experiment.looks)
    seeds = list(experiment.seeds)[: 2 if smoke else None]
    rows: list[Row] = []
    arms = list(settings)
    for first, last in zip((0, *looks), looks or (len(seeds),), strict=False):
        todo = [(arm, seed) for seed in seeds[first:last] for arm in arms]
        jobs = [(settings[arm], seed) for arm, seed in todo]
        with suppress(OutOfTime):
            runs.all(experiment.file, experiment.trial, jobs)
        for (arm, seed), entry in zip(todo, runs.found(experiment.file, jobs), strict=True):
            if entry is None:
                continue
            result = entry["result"] if isinstance(entry["result"], list) else [entry["result"]]
            for found in result:
                share = {"seconds": round(entry["seconds"] / len(result), 3)}
                rows.append(settings[arm] | {"seed": seed} | share | found)
        if runs.cut_short:
            break
        if looks and last != looks[-1]:
            heads = [c for c in experiment.claims if c.headline and values(experiment, c, rows)[0]]
            open_ = [claim for claim in heads if pending(experiment, claim, rows, last)]
            print(f"{experiment.file}: after {last} seeds undecided: {[c.slug or c.id for c in open_]}", flush=True)
            needed = {words.partition(":")[0] for claim in open_ for words in (claim.baseline, claim.method)}
            arms = list(settings) if "derived" in needed else [arm for arm in arms if arm in needed]
            if not arms:
                break
    return rows, table


def pending(experiment: Experiment, claim: Claim, rows: Sequence[Row], seeds: int) -> bool:
    """Whether a claim has all seeds so far and they do not decide it."""
    return len(values(experiment, claim, rows)[0]) == seeds and not decided(experiment, claim, rows)


def run(
    script: str,
    *experiments: Experiment,
    root: Path | None = None,
    jobs: int = 1,
    only_records: bool = False,
    arms: Sequence[str] = (),
    seconds: float = math.inf,
) -> Path | None:
    """Make all runs that are missing, keep them, and write the records; returns where, None for the repository."""
    if root is None and at_scale(False, False, smoke=True):
        root = Path(tempfile.mkdtemp(prefix="smoke-"))
        print(f"smoke: everything is written into {root}", flush=True)
    if only_records:
        for experiment in experiments:
            try:
                write(experiment, evidence.load_runs(experiment.file, root=root), root)
            except FileNotFoundError as error:
                print(error, flush=True)
        return root
    home = root or evidence.repository_root() or Path.cwd()
    scale = at_scale("small", "full", smoke="smoke")
    progress = Progress(home / "_build" / "evidence" / f"{Path(script).stem}.{scale}.jsonl", fingerprint(Path(script)))
    runs = Runs(progress, jobs, seconds)
    rows: dict[str, list[Row]] = {}
    tables: dict[str, list[Row]] = {}
    of: list[tuple[Experiment, list[Row]]] = []
    for experiment in experiments:
        if trouble := missing(experiment):
            print(f"{experiment.file}: left out. {trouble}", flush=True)
            continue
        part = {arm: given for arm, given in experiment.arms.items() if arm in arms or not arms}
        try:
            found, table = conduct(replace(experiment, arms=part), runs) if part and not runs.cut_short else ([], [])
        except OutOfTime:
            found, table = [], []
        if runs.cut_short:
            print(f"{experiment.file}: the time is over; called again it goes on", flush=True)
            if not found:
                continue
        if arms:
            found = stored_but(experiment, part, experiment.file, root) + found
            table = stored_but(experiment, part, f"{experiment.file}-tuning", root) + table
        rows.setdefault(experiment.file, []).extend(found)
        tables.setdefault(experiment.file, []).extend(table)
        of.append((experiment, found))
    if runs.pool:
        runs.pool.shutdown()
    for name, found in rows.items():
        evidence.save_runs(name, alike(found), root=root)
        if tables[name]:
            evidence.save_runs(f"{name}-tuning", alike(tables[name]), root=root)
    for experiment, found in of:
        write(experiment, found, root)
    if not runs.cut_short:
        progress.file.unlink(missing_ok=True)
    return root


def missing(experiment: Experiment) -> str:
    """Why the data that an experiment needs are not here; nothing where they are, or where it needs none."""
    try:
        if experiment.needs is not None:
            experiment.needs()
    except (FileNotFoundError, ImportError) as error:
        return str(error)
    return ""


def stored_but(experiment: Experiment, part: Mapping[str, Any], name: str, root: Path | None) -> list[Row]:
    """The stored rows of the arms that were not run anew."""
    others = experiment.arms.keys() - part.keys()
    try:
        return [row for row in evidence.load_runs(name, root=root) if belongs(experiment, others, row)]
    except FileNotFoundError:
        return []


def alike(rows: Sequence[Row]) -> list[Row]:
    """Rows with the same keys: what an arm has no value for is null."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in keys} for row in rows]


def main(script: str, *experiments: Experiment) -> None:
    """What ``python experiments/<name>.py`` does."""
    parser = argparse.ArgumentParser(description=f"Runs {Path(script).name} and writes its records.")
    parser.add_argument("--jobs", type=int, default=1, help="processes that make runs at the same time")
    parser.add_argument("--root", type=Path, help="folder to write to (default: the repository)")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no run after that; records of what is there"
    )
    parser.add_argument("--records", action="store_true", help="only make the records again, from the stored runs")
    parser.add_argument("--only", choices=sorted({e.file for e in experiments}), help="one file of runs")
    parser.add_argument("--arms", nargs="+", default=(), choices=sorted({a for e in experiments for a in e.arms}))
    given = parser.parse_args()
    chosen = [e for e in experiments if given.only in (None, e.file)]
    run(
        script,
        *chosen,
        root=given.root,
        jobs=given.jobs,
        only_records=given.records,
        arms=given.arms,
        seconds=given.seconds,
    )
