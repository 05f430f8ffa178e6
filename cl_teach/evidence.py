"""Evidence: baseline and method on the same seeds, their difference, its interval, and what follows.

One claim is one :class:`Record`. :func:`record` computes it and writes it into ``data/evidence/<slug>.json``;
the book's evidence page is made from these files. A claim says beforehand which effect is the smallest of interest; the
verdict is computed, never chosen:

* ``holds``: the whole interval of method minus baseline lies on the side that the claim says;
* ``opposite``: it lies on the other side;
* ``no difference``: it contains 0 and lies within the smallest effect of interest on either side (an equivalence test);
* ``undecided``: anything else; :attr:`Record.seeds_needed` says how many seeds would decide.

An interval can be clear of 0 and yet within the smallest effect; it keeps its direction, and the record says so.

**Looks.** An experiment that runs "until decided, at 5, 10 and 20 seeds" looks three times, and would find something by
chance more often than it says. Its intervals are those of level 1 - 0.05 / 3 (Bonferroni), at every look, whichever was
the last. **Many claims.** One claim of a method is its ``headline``; over the headlines, :func:`holm` adjusts.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import files
from .core.checks import check_choice, check_count, check_flag, check_in_range, check_positive, check_type

__all__ = [
    "ORIGINS",
    "VERDICTS",
    "Difference",
    "PairedRuns",
    "Record",
    "compare",
    "forget",
    "headlines",
    "holm",
    "load",
    "load_runs",
    "paired_difference",
    "record",
    "repository_root",
    "save_runs",
    "seeds_needed",
    "verdict",
]

VERDICTS = ("holds", "opposite", "no difference", "undecided")
ORIGINS = ("paper", "ours", "post hoc")
SCALES = ("smoke", "small", "full")
POINTS = 0.5  # smallest effect of interest where the unit is points of accuracy
ROOT_VARIABLE = "CL_TEACH_ROOT"
LARGEST = 1e100  # of a measured value: its square is still a number
MANY = 10**9  # seeds
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
    """One claim and what a paired experiment says about it.

    Attributes:
        headline: whether this is the method's central claim, in the regime where its paper makes it.
        origin: ``"paper"``, ``"ours"`` (a control of the book) or ``"post hoc"`` (thought of after a look at results).
        smallest_effect: differences below this do not matter, in the metric's unit; stated before the runs.
        effect_reason: why this size, where it is not half a point of accuracy.
        looks: numbers of seeds after which a sequential experiment planned to look; empty where it was fixed.
        confidence: coverage of the interval, over all looks together.
        (The other fields are the arguments of `record`.)
    """

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
    origin: str
    smallest_effect: float
    effect_reason: str = ""
    headline: bool = False
    looks: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def difference(self) -> Difference:
        """Mean and interval of method minus baseline."""
        return Difference(self.mean, self.low, self.high)

    @property
    def level(self) -> float:
        """Coverage of the stored interval: `confidence`, raised for the planned number of looks."""
        return _level(self.confidence, self.looks)

    @property
    def negligible(self) -> bool:
        """Whether the whole interval lies within the smallest effect of interest."""
        return -self.smallest_effect <= self.low and self.high <= self.smallest_effect

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that would decide an undecided claim, from the spread of these; None where it is decided."""
        if self.verdict != "undecided":
            return None
        return seeds_needed(self.baseline, self.method, self.smallest_effect, self.level)

    @property
    def p_value(self) -> float:
        """Two-sided paired t test, times the planned number of looks, at most 1."""
        from scipy import stats

        differences = [b - a for a, b in zip(self.baseline, self.method, strict=True)]
        spread = _deviation(differences)
        mean = math.fsum(differences) / len(differences)
        if spread == 0:
            return 1.0 if mean == 0 else 0.0
        t = abs(mean) / (spread / math.sqrt(len(differences)))
        return min(1.0, 2 * float(stats.t.sf(t, len(differences) - 1)) * max(1, len(self.looks)))

    @property
    def interval(self) -> str:
        """Difference in words and numbers, e.g. ``+2.1 points (95 % interval +1.2 to +3.0)``."""
        unit = f" {self.unit}" if self.unit else ""
        looks = f" over {len(self.looks)} looks" if self.looks else ""
        low, high = f"{self.low:+.3g}", f"{self.high:+.3g}"
        return f"{self.mean:+.3g}{unit} ({100 * self.confidence:.3g} % interval{looks} {low} to {high})"

    @property
    def finding(self) -> str:
        """The verdict with what belongs to it, e.g. ``undecided (about 40 seeds would decide)``."""
        if self.verdict == "undecided":
            return f"undecided (about {self.seeds_needed} seeds would decide)"
        if self.verdict != "no difference" and self.negligible:
            return f"{self.verdict} (but less than {self.smallest_effect:g} {self.unit}".rstrip() + ")"
        return self.verdict

    def _repr_markdown_(self) -> str:
        sentence = (
            f"**{self.finding[0].upper()}{self.finding[1:]}**: {self.claim} {self.metric}, {self.method_name} minus "
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

    _check_confidence(confidence)
    pairs = _check_pairs(baseline, method)
    differences = [b - a for a, b in pairs]
    n = len(differences)
    mean = math.fsum(differences) / n
    largest = max(abs(value) for pair in pairs for value in pair)
    if max(differences) - min(differences) <= 1e-12 * largest:  # equal but for rounding
        return Difference(mean, mean, mean)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * _deviation(differences) / math.sqrt(n)
    return Difference(mean, mean - half, mean + half)


def verdict(difference: Difference, expected: str = "higher", *, smallest_effect: float) -> str:
    """What an interval says about the claim that the method's metric is ``expected`` than the baseline's.

    Args:
        difference: mean and interval of method minus baseline.
        expected: ``"higher"`` or ``"lower"``.
        smallest_effect: the smallest difference of interest, positive, in the unit of the metric.

    Returns:
        One of `VERDICTS`.

    Raises:
        ValueError: ``expected`` is not ``"higher"`` or ``"lower"``, the interval is not finite and ordered, or the
            smallest effect is not positive.
    """
    check_choice(("higher", "lower"), expected=expected)
    _check_effect(smallest_effect)
    if not isinstance(difference, tuple) or len(difference) != 3:
        raise TypeError(f"difference: needs mean, low and high, got {type(difference).__name__}")
    mean, low, high = difference
    check_in_range(-math.inf, math.inf, **{"difference.mean": mean, "difference.low": low, "difference.high": high})
    if not low <= mean <= high or not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"difference: needs finite low <= mean <= high, got {tuple(difference)}")
    if low <= 0 <= high:
        return "no difference" if max(-low, high) <= smallest_effect else "undecided"
    return "holds" if (low > 0) == (expected == "higher") else "opposite"


def seeds_needed(
    baseline: Sequence[float], method: Sequence[float], smallest_effect: float, confidence: float = 0.95
) -> int:
    """Seeds after which the verdict cannot be ``undecided``, if the differences go on to spread as they do.

    That is when half the interval is at most half the smallest effect: an interval that contains 0 then lies within the
    smallest effect on either side. A claim whose effect is large is decided earlier. A billion stands for "never".

    Raises:
        ValueError: as `paired_difference`, or a smallest effect that is not positive.
    """
    from scipy import stats

    _check_effect(smallest_effect)
    paired_difference(baseline, method, confidence)  # checks
    spread = _deviation([b - a for a, b in zip(baseline, method, strict=True)])
    n = 2
    while n < MANY and float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n) > smallest_effect / 2:
        # Close in on n in steps that grow with it: exact below a hundred, within one per cent above.
        n += max(1, n // 100)
    return n


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment: compared with 0.05, adjusted p-values keep the chance of any false finding below 0.05.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none is adjusted below one before it.

    Args:
        p_values: name to p-value, for example ``{r.slug: r.p_value for r in headlines()}``.

    Returns:
        Name to adjusted p-value, in the same order.
    """
    check_type(Mapping, p_values=p_values)
    check_in_range(0, 1, **{f"p_values[{name!r}]": p for name, p in p_values.items()})
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


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
    origin: str,
    headline: bool = False,
    smallest_effect: float | None = None,
    effect_reason: str = "",
    looks: Sequence[int] = (),
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
        origin: ``"paper"``, ``"ours"`` or ``"post hoc"``: whose claim it is, or that it came after a look.
        headline: whether it is the slug's central claim; a slug has one.
        smallest_effect: the smallest difference of interest, stated before the runs. Default where the unit is points:
            half a point.
        effect_reason: why this size; needed where it is not the default.
        looks: for an experiment that looks several times and stops when decided: the numbers of seeds at which it
            planned to look. The interval is widened for all of them.
        confidence: coverage of the interval, over all looks together.
        device: default: the name of the GPU, or "CPU" and the number of threads.
        scale: default: the environment variable ``CL_TEACH_SCALE``, else ``"small"``.
        note: what a reader has to know to believe the number, in one or two sentences.
        root: the repository; default: see :func:`repository_root`.

    Raises:
        ValueError: fewer than two seeds, seeds that repeat, unequal lengths, NaN, an unknown ``expected``, a
            slug or claim id that is not lower case words with hyphens, an empty text.
        FileNotFoundError: no repository to write to.
    """
    _check_name(slug=slug, claim_id=claim_id)
    check_choice(ORIGINS, origin=origin)
    check_type(str, unit=unit, effect_reason=effect_reason, note=note)
    if smallest_effect is not None:
        _check_effect(smallest_effect)
    if smallest_effect is None:
        if unit != "points":
            raise ValueError(f"smallest_effect: needs a number, because only points have a default, got unit {unit!r}")
        smallest_effect = POINTS
    elif not (effect_reason.strip() or (unit, smallest_effect) == ("points", POINTS)):
        raise ValueError(
            f"unit, smallest_effect, effect_reason: the reason must say why {smallest_effect} {unit} is the smallest "
            "effect of interest"
        )
    _check_effect(smallest_effect)
    scale = scale or os.environ.get("CL_TEACH_SCALE", "small")
    check_choice(SCALES, CL_TEACH_SCALE=scale)
    texts = {"claim": claim, "metric": metric, "baseline_name": baseline_name, "method_name": method_name}
    for name, value in texts.items():
        check_type(str, **{name: value})
        if not value.strip():
            raise ValueError(f"{name}: needs a text, got {value!r}")
    check_flag(headline=headline)
    whole = _whole("seeds", seeds)
    if len(set(whole)) != len(whole):
        raise ValueError(f"seeds: each may occur once, got {whole}")
    for name, values in {"baseline": baseline, "method": method}.items():
        _floats(name, values)
    if not len(whole) == len(baseline) == len(method):
        raise ValueError(
            f"seeds, baseline and method: need equal lengths, got {len(whole)}, {len(baseline)} and {len(method)}"
        )
    if _whole("looks", looks) and len(whole) not in looks:
        raise ValueError(f"looks: the planned numbers of seeds are {list(looks)}, got {len(whole)} seeds")
    check_in_range(0, math.inf, seconds=seconds)
    _check_pairs(baseline, method)
    _check_confidence(confidence)
    before, after = [_round(value) for value in baseline], [_round(value) for value in method]
    difference = Difference(*map(_round, paired_difference(before, after, _level(confidence, looks))))
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
        verdict=verdict(difference, expected, smallest_effect=smallest_effect),
        seconds=round(float(seconds), 1),
        device=device or _device_name(),
        scale=scale,
        origin=origin,
        smallest_effect=float(smallest_effect),
        effect_reason=effect_reason,
        headline=headline,
        looks=[int(look) for look in looks],
        versions=_versions(),
        note=note,
    )
    file = _folder(root) / f"{slug}.json"
    with files.locked(file):
        others = [old for old in _read(file) if old.claim_id != claim_id]
        rivals = [old.claim_id for old in others if old.headline and headline]
        if rivals:
            raise ValueError(f"headline: {slug!r} has one already, {rivals[0]!r}; a method has one headline")
        _write(file, slug, sorted([*others, result], key=lambda each: each.claim_id))
    return result


def forget(slug: str, claim_id: str, *, root: Path | str | None = None) -> None:
    """Remove a record, for a claim that was renamed or is no longer made; without effect if there is none."""
    _check_name(slug=slug, claim_id=claim_id)
    file = _folder(root) / f"{slug}.json"
    with files.locked(file):
        kept = [old for old in _read(file) if old.claim_id != claim_id]
        if file.is_file():
            _write(file, slug, kept)


def load(slug: str, claim_id: str | None = None, *, root: Path | str | None = None) -> Any:
    """Records of a slug as a list, empty if nothing was measured; with ``claim_id`` that one record.

    Raises:
        FileNotFoundError: no repository to read from.
        KeyError: the slug has no record of that claim.
        ValueError: the file is not what :func:`record` writes, or the slug is not lower case words with hyphens.
    """
    _check_name(slug=slug)
    records = _read(_folder(root, reading=True) / f"{slug}.json")
    if claim_id is None:
        return records
    for each in records:
        if each.claim_id == claim_id:
            return each
    raise KeyError(f"no record {claim_id!r} for {slug!r}; there are {[each.claim_id for each in records]}")


def headlines(*, root: Path | str | None = None) -> list[Record]:
    """The headline of every slug that has one, in the order of the slugs.

    Raises:
        FileNotFoundError: no repository to read from.
        ValueError: a file is not what :func:`record` writes.
    """
    found = sorted(_folder(root, reading=True).glob("*.json"))
    return [each for file in found for each in _read(file) if each.headline]


def repository_root(start: Path | str | None = None) -> Path | None:
    """The checkout of the project, or None where there is none (``cl_teach`` was installed on its own).

    Looked for in this order: the environment variable ``CL_TEACH_ROOT``; the working directory (or ``start``)
    and the folders above it; the folder that ``cl_teach`` was imported from.

    Raises:
        FileNotFoundError: ``CL_TEACH_ROOT`` is no folder.
    """
    given = os.environ.get(ROOT_VARIABLE)
    if given and start is None:
        if not Path(given).is_dir():
            raise FileNotFoundError(
                f"{ROOT_VARIABLE}: there is no folder {given!r}; correct the environment variable or unset it"
            )
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
    _check_name(slug=slug)
    check_type((list, tuple), runs=runs)
    check_type(Mapping, **{f"runs[{i}]": run for i, run in enumerate(runs)})
    if not runs or any(run.keys() != runs[0].keys() for run in runs):
        raise ValueError("runs: expected at least one run, all with the same keys")
    rows = [{k: _round(v) if isinstance(v, float) else v for k, v in run.items()} for run in runs]
    try:
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    except (TypeError, ValueError) as error:
        raise ValueError(f"runs: expected finite numbers and texts, which JSON can hold ({error})") from error
    file = _folder(root) / "runs" / f"{slug}.json"
    with files.locked(file):
        files.write_text(file, f"[\n{lines}\n]\n")


def load_runs(slug: str, *, root: Path | str | None = None) -> list[dict[str, Any]]:
    """What `save_runs` kept.

    Raises:
        FileNotFoundError: nothing was kept under this slug, or there is no repository.
        ValueError: the file is damaged, or the slug is not lower case words with hyphens.
    """
    _check_name(slug=slug)
    file = _folder(root, reading=True) / "runs" / f"{slug}.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no runs of {slug!r} were kept; `make evidence ONLY={slug}` makes them")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not a file of runs ({error})") from error


def _folder(root: Path | str | None, *, reading: bool = False) -> Path:
    if root is not None:
        check_type((str, os.PathLike), root=root)
    found = Path(root) if root is not None else repository_root()
    # An installed package brings the records that its release was made with.
    shipped = Path(__file__).parent / "records"
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
    files.write_text(file, text + "\n")


def _check_pairs(baseline: Sequence[float], method: Sequence[float]) -> list[tuple[float, float]]:
    before, after = _floats("baseline", baseline), _floats("method", method)
    if len(before) != len(after):
        raise ValueError(f"baseline and method: need equal lengths, got {len(before)} and {len(after)}")
    if len(before) < 2:
        raise ValueError(f"baseline and method: an interval needs at least 2 seeds, got {len(before)}")
    return list(zip(before, after, strict=True))


def _floats(name: str, values: Sequence[float]) -> list[float]:
    """Finite numbers, not so large that their squares overflow."""
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise TypeError(f"{name}: needs a sequence of numbers, got {type(values).__name__}")
    check_in_range(-LARGEST, LARGEST, **{f"{name}[{i}]": value for i, value in enumerate(values)})
    return [float(value) for value in values]


def _whole(name: str, values: Sequence[int]) -> list[int]:
    check_type((list, tuple, range), **{name: values})
    check_count(0, **{f"{name}[{i}]": value for i, value in enumerate(values)})
    return [int(value) for value in values]


def _check_confidence(confidence: float) -> None:
    check_positive(confidence=confidence)
    if not confidence < 1:
        raise ValueError(f"confidence: needs a number between 0 and 1, got {confidence}")


def _check_name(**names: str) -> None:
    """Lower case words with hyphens, so that a name can neither be a path nor differ in case alone."""
    for name, value in names.items():
        if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
            raise ValueError(f"{name}: needs lower case words joined by hyphens, got {value!r}")


def _check_effect(smallest_effect: float) -> None:
    check_positive(smallest_effect=smallest_effect)


def _level(confidence: float, looks: Sequence[int]) -> float:
    """Coverage of each interval when there are several looks (Bonferroni)."""
    return 1 - (1 - confidence) / len(looks) if looks else confidence


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


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
