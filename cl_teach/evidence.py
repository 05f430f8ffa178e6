"""Evidence: baseline and method on the same seeds, their difference, its interval, and what follows.

One claim is one :class:`Record`. :func:`record` computes it and writes it into ``data/evidence/<slug>.json``;
the book's evidence page is made from these files. The verdict is computed, never chosen:

* ``holds``: the whole 95 % interval of method minus baseline lies on the side that the claim says;
* ``opposite``: it lies on the other side;
* ``inconclusive``: it contains 0.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .core.checks import check_choice

__all__ = [
    "Difference",
    "PairedRuns",
    "Record",
    "compare",
    "load",
    "load_runs",
    "paired_difference",
    "record",
    "repository_root",
    "save_runs",
    "verdict",
]

ROOT_VARIABLE = "CL_TEACH_ROOT"
DIGITS = 6  # significant digits that are stored; everything derived is computed from the stored values


class Difference(NamedTuple):
    """Mean of method minus baseline over the seeds, and its confidence interval."""

    mean: float
    low: float
    high: float


class PairedRuns(NamedTuple):
    """Metric of baseline and method, seed by seed, and how long all runs took together."""

    seeds: list[int]
    baseline: list[float]
    method: list[float]
    seconds: float


@dataclass(frozen=True)
class Record:
    """One claim and what a paired experiment says about it."""

    slug: str
    claim_id: str
    claim: str
    metric: str
    unit: str
    expected: str
    baseline_name: str
    method_name: str
    seeds: list[int]
    baseline: list[float]
    method: list[float]
    mean: float
    low: float
    high: float
    confidence: float
    verdict: str
    seconds: float
    device: str
    scale: str
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def difference(self) -> Difference:
        """Mean and interval of method minus baseline."""
        return Difference(self.mean, self.low, self.high)

    @property
    def interval(self) -> str:
        """Difference in words and numbers, e.g. ``+2.1 points (95 % interval +1.2 to +3.0)``."""
        unit = f" {self.unit}" if self.unit else ""
        low, high = f"{self.low:+.3g}", f"{self.high:+.3g}"
        return f"{self.mean:+.3g}{unit} ({100 * self.confidence:.3g} % interval {low} to {high})"

    def _repr_markdown_(self) -> str:
        sentence = (
            f"**{self.verdict.capitalize()}**: {self.claim} {self.metric}, {self.method_name} minus "
            f"{self.baseline_name}: {self.interval}, {len(self.seeds)} paired seeds, "
            f"{self.scale} scale, {self.device}."
        )
        return f"{sentence} {self.note}".rstrip()


def paired_difference(baseline: Sequence[float], method: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of ``method - baseline`` and its Student t interval.

    The interval is exact when the paired differences are normal. If all differences are equal the interval has no
    width: the data show no spread, which is believable only for deterministic quantities.

    Args:
        baseline: one number per seed, at least two.
        method: as many, in the same order of seeds.
        confidence: coverage of the interval, between 0 and 1.

    Raises:
        ValueError: fewer than two pairs, unequal lengths, NaN or infinity, ``confidence`` outside (0, 1).
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ValueError(f"confidence: needs a number between 0 and 1, got {confidence}")
    pairs = _check_pairs(baseline, method)
    differences = [b - a for a, b in pairs]
    n = len(differences)
    mean = math.fsum(differences) / n
    largest = max(abs(value) for pair in pairs for value in pair)
    if max(differences) - min(differences) <= 1e-12 * largest:  # equal but for rounding
        return Difference(mean, mean, mean)
    error = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1) / n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return Difference(mean, mean - half, mean + half)


def verdict(difference: Difference, expected: str = "higher") -> str:
    """What an interval says about the claim that the method's metric is ``expected`` than the baseline's.

    Returns:
        ``"holds"``, ``"opposite"`` or ``"inconclusive"`` (the interval contains 0).

    Raises:
        ValueError: ``expected`` is not ``"higher"`` or ``"lower"``, or the interval is not finite and
            ordered.
    """
    check_choice(("higher", "lower"), expected=expected)
    mean, low, high = difference
    if not low <= mean <= high or not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"difference: needs finite low <= mean <= high, got {tuple(difference)}")
    if low <= 0 <= high:
        return "inconclusive"
    return "holds" if (low > 0) == (expected == "higher") else "opposite"


def compare(baseline: Callable[[int], float], method: Callable[[int], float], seeds: Sequence[int]) -> PairedRuns:
    """Run ``baseline(seed)`` and ``method(seed)`` for every seed; both return the metric.

    The result fits :func:`record`: ``record(slug, claim_id, ..., **compare(a, b, range(5))._asdict())``.
    """
    start = time.perf_counter()
    pairs = [(float(baseline(seed)), float(method(seed))) for seed in seeds]
    seconds = time.perf_counter() - start
    return PairedRuns(list(seeds), [a for a, _ in pairs], [b for _, b in pairs], seconds)


def record(
    slug: str,
    claim_id: str,
    *,
    claim: str,
    metric: str,
    unit: str,
    expected: str,
    baseline_name: str,
    method_name: str,
    seeds: Sequence[int],
    baseline: Sequence[float],
    method: Sequence[float],
    seconds: float,
    confidence: float = 0.95,
    device: str | None = None,
    scale: str | None = None,
    note: str = "",
    root: Path | str | None = None,
) -> Record:
    """Compute one record and write it into ``data/evidence/<slug>.json``.

    A record of the same ``claim_id`` that is there already is replaced.

    Args:
        slug: the method's slug in the survey, or a name of its own for the foundations, e.g. ``"simclr"``.
        claim_id: short name of the claim within the file; a run at another scale is another claim, e.g.
            ``"knn-full"``.
        claim: one sentence ending in a full stop.
        metric: what is measured, e.g. ``"kNN accuracy"``.
        unit: ``"points"``, ``"nats"``, or ``""``.
        expected: ``"higher"`` or ``"lower"``: where the claim says the method's metric is, against the
            baseline's.
        baseline_name: what it is compared with.
        method_name: what is tested.
        seeds: at least two different integers.
        baseline: the metric, one number a seed.
        method: the metric, one number a seed.
        seconds: time of all runs together.
        confidence: coverage of the interval.
        device: default: the name of the GPU, or "CPU" and the number of threads.
        scale: default: the environment variable ``CL_TEACH_SCALE``, else ``"small"``.
        note: what a reader has to know to believe the number, in one or two sentences.
        root: the repository; default: see :func:`repository_root`.

    Raises:
        ValueError: fewer than two seeds, seeds that repeat, unequal lengths, NaN, an unknown ``expected``, a
            slug or claim id that is not lower case words with hyphens, an empty text.
        FileNotFoundError: no repository to write to.
    """
    for name, value in {"slug": slug, "claim_id": claim_id}.items():
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
            raise ValueError(f"{name}: needs lower case words joined by hyphens, got {value!r}")
    texts = {"claim": claim, "metric": metric, "baseline_name": baseline_name, "method_name": method_name}
    for name, value in texts.items():
        if not value.strip():
            raise ValueError(f"{name}: needs a text, got {value!r}")
    whole = [int(seed) for seed in seeds]
    if len(set(whole)) != len(whole):
        raise ValueError(f"seeds: each may occur once, got {whole}")
    if not len(whole) == len(baseline) == len(method):
        raise ValueError(
            f"seeds, baseline and method: need equal lengths, got {len(whole)}, {len(baseline)} and {len(method)}"
        )
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds: needs a finite number >= 0, got {seconds}")
    _check_pairs(baseline, method)
    before, after = [_round(value) for value in baseline], [_round(value) for value in method]
    difference = Difference(*map(_round, paired_difference(before, after, confidence)))
    result = Record(
        slug=slug,
        claim_id=claim_id,
        claim=claim,
        metric=metric,
        unit=unit,
        expected=expected,
        baseline_name=baseline_name,
        method_name=method_name,
        seeds=whole,
        baseline=before,
        method=after,
        mean=difference.mean,
        low=difference.low,
        high=difference.high,
        confidence=confidence,
        verdict=verdict(difference, expected),
        seconds=round(float(seconds), 1),
        device=device or _device_name(),
        scale=scale or os.environ.get("CL_TEACH_SCALE", "small"),
        versions=_versions(),
        note=note,
    )
    folder = _folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    others = [old for old in _read(folder / f"{slug}.json") if old.claim_id != claim_id]
    _write(folder / f"{slug}.json", slug, sorted([*others, result], key=lambda each: each.claim_id))
    return result


def load(slug: str, claim_id: str | None = None, *, root: Path | str | None = None) -> Any:
    """Records of a slug as a list, empty if nothing was measured; with ``claim_id`` that one record.

    Raises:
        FileNotFoundError: no repository to read from.
        KeyError: the slug has no record of that claim.
        ValueError: the file is not what :func:`record` writes.
    """
    shipped = (
        Path(__file__).parent / "records"
    )  # an installed package brings the records that its release was made with
    folder = shipped if root is None and repository_root() is None and shipped.is_dir() else _folder(root)
    records = _read(folder / f"{slug}.json")
    if claim_id is None:
        return records
    for each in records:
        if each.claim_id == claim_id:
            return each
    raise KeyError(f"no record {claim_id!r} for {slug!r}; there are {[each.claim_id for each in records]}")


def repository_root(start: Path | str | None = None) -> Path | None:
    """The checkout of the project, or None where there is none (``cl_teach`` was installed on its own).

    Looked for in this order: the environment variable ``CL_TEACH_ROOT``; the working directory (or ``start``)
    and the folders above it; the folder that ``cl_teach`` was imported from.
    """
    given = os.environ.get(ROOT_VARIABLE)
    if given and start is None:
        return Path(given)
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents, *([] if start else [Path(__file__).resolve().parent.parent])):
        if (folder / "cl_teach" / "survey.toml").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    return None


def save_runs(slug: str, runs: Sequence[dict[str, Any]], *, root: Path | str | None = None) -> None:
    """Keep the single runs of a sweep beside the records, in ``data/evidence/runs/<slug>.json``, for figures.

    Args:
        slug: as in `record`.
        runs: one flat dictionary a run: its settings, its seed, its metrics. Numbers are rounded to six digits.
        root: the repository; default: see `repository_root`.

    Raises:
        ValueError: no runs, or runs with different keys.
        FileNotFoundError: no repository to write to.
    """
    if not runs or any(run.keys() != runs[0].keys() for run in runs):
        raise ValueError("runs: expected at least one run, all with the same keys")
    folder = _folder(root) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{k: _round(v) if isinstance(v, float) else v for k, v in run.items()} for run in runs]
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    (folder / f"{slug}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def load_runs(slug: str, *, root: Path | str | None = None) -> list[dict[str, Any]]:
    """What `save_runs` kept.

    Raises:
        FileNotFoundError: nothing was kept under this slug, or there is no repository.
    """
    file = _folder(root, reading=True) / "runs" / f"{slug}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no runs of {slug!r} were kept; `make evidence ONLY={slug}` makes them")
    return json.loads(file.read_text(encoding="utf-8"))


def _folder(root: Path | str | None, *, reading: bool = False) -> Path:
    found = Path(root) if root is not None else repository_root()
    shipped = (
        Path(__file__).parent / "records"
    )  # an installed package brings the records that its release was made with
    if reading and found is None and shipped.is_dir():
        return shipped
    if found is None:
        raise FileNotFoundError(
            f"no checkout of the project in {Path.cwd()} or above, so there is no data/evidence; "
            f"change into one or set the environment variable {ROOT_VARIABLE} to it"
        )
    return found / "data" / "evidence"


def _read(file: Path) -> list[Record]:
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [Record(slug=content["slug"], **entry) for entry in content["records"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a file of evidence records ({error})") from error


def _write(file: Path, slug: str, records: list[Record]) -> None:
    entries = [{key: value for key, value in asdict(each).items() if key != "slug"} for each in records]
    text = json.dumps({"slug": slug, "records": entries}, indent=2, ensure_ascii=False)
    # Lists of numbers on one line: a record then fits on a screen and a changed seed is one changed line.
    text = re.sub(r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(file)  # never half a file, even on a full disk


def _check_pairs(baseline: Sequence[float], method: Sequence[float]) -> list[tuple[float, float]]:
    if len(baseline) != len(method):
        raise ValueError(f"baseline and method: need equal lengths, got {len(baseline)} and {len(method)}")
    if len(baseline) < 2:
        raise ValueError(f"baseline and method: an interval needs at least 2 seeds, got {len(baseline)}")
    pairs = [(float(a), float(b)) for a, b in zip(baseline, method, strict=True)]
    for index, (a, b) in enumerate(pairs):
        if not (math.isfinite(a) and math.isfinite(b)):
            raise ValueError(f"baseline and method: need finite numbers, pair {index} is ({a}, {b})")
    return pairs


def _round(value: float) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def _device_name() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}"


def _versions() -> dict[str, str]:
    import torch

    from . import __version__

    return {"python": platform.python_version(), "torch": torch.__version__, "cl_teach": __version__}
