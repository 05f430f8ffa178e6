"""What one training step of every method costs, beside the plain step of its family; called by ``make bench``.

Time is the median of calls in which both sides take turns, memory the peak of the allocator during one call (see
``measuring.py``), both at three sizes, on one thread. Results go to ``data/steps.json``; ``steps_page.py`` turns them
into the book's page. A run takes some five minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the steps are on the processor

import torch
from measuring import machine, peak_of, take_turns
from step_calls import DIM, Case, Trained, cases
from tqdm.auto import tqdm

from cl_teach import files
from cl_teach.survey import load

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "steps.json"
SIDES = ("method", "baseline")
NAMES = {method.slug: method.name for method in load()}


def fresh_peak_of(step: Trained) -> float:
    """Peak of one call in MiB; gradients count, and state that is made in the first call does not."""
    for x in step():
        x.grad = None
    return peak_of(step) / 2**20


def growth(values: list[float], sizes: tuple[int, int, int]) -> float:
    """The exponent p of n^p from the second size to the third."""
    return math.log(values[2] / values[1]) / math.log(sizes[2] / sizes[1])


def measure(slug: str, case: Case, seconds: float) -> dict[str, Any]:
    """One method at its three sizes."""
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}
    for n in case.sizes:
        torch.manual_seed(0)
        steps = dict(zip(SIDES, case.make(n), strict=True))
        for side, step in steps.items():
            peaks[side].append(fresh_peak_of(step))
        for side, median in take_turns(dict(steps), seconds).items():
            times[side].append(1e3 * median)
    about = {"n": case.n, "beside": case.baseline, "sizes": case.sizes, "why": case.why, "note": case.note}
    row: dict[str, Any] = {"slug": slug, "name": NAMES[slug], **about}
    for side in SIDES:
        row[side] = {"milliseconds": times[side], "peak_mib": peaks[side]}
        row[side]["growth"] = {name: growth(values, case.sizes) for name, values in row[side].items()}
    return row


def main() -> None:
    """Measure all methods, or those named, and keep what is stored of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slugs", nargs="*", help="only these methods; the others keep their stored row")
    parser.add_argument("--seconds", type=float, default=0.6, help="for both sides at one size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = cases()
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.is_file() and arguments.slugs else []
    rows = {row["slug"]: row for row in old}
    for slug in tqdm(arguments.slugs or known, desc="steps"):
        rows[slug] = measure(slug, known[slug], arguments.seconds)
    result = {"machine": machine(), "dimensions": DIM, "methods": [rows[slug] for slug in known if slug in rows]}
    files.write_json(RESULTS, result)


if __name__ == "__main__":
    main()
