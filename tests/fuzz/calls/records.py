"""Valid calls of what measures and keeps records; what stays out: lists, files, answers of exercises."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cl_teach import evidence, files, survey
from cl_teach.exercises import (
    batches_that_fit,
    fifty_two_claims,
    is_it_learning,
    learning_by_comparison,
    one_softmax_many_losses,
    what_the_loss_knows,
)
from cl_teach.figures.highlight import Highlighted, highlight

FOLDER = tempfile.TemporaryDirectory()
ROOT = Path(FOLDER.name)
(ROOT / "data" / "evidence").mkdir(parents=True)
ONE, TWO = [80.0, 81.0, 80.5], [81.5, 82.0, 82.5]
FULL = dict(
    slug="mochi",
    claim_id="proxy",
    claim="One is higher than the other.",
    metric="accuracy",
    unit="points",
    expected="higher",
    baseline_name="one",
    method_name="two",
    seeds=[0, 1, 2],
    baseline=ONE,
    method=TWO,
    seconds=1.0,
    origin="ours",
    headline=False,
    smallest_effect=0.5,
    looks=(),
    confidence=0.95,
    root=ROOT,
)

CALLS = {
    evidence.paired_difference: lambda: dict(baseline=ONE, method=TWO, confidence=0.95),
    evidence.verdict: lambda: dict(
        difference=evidence.paired_difference(ONE, TWO), expected="higher", smallest_effect=0.5
    ),
    evidence.seeds_needed: lambda: dict(baseline=ONE, method=TWO, smallest_effect=0.5, confidence=0.95),
    evidence.holm: lambda: dict(p_values={"a": 0.01, "b": 0.2}),
    evidence.record: lambda: dict(FULL),
    evidence.load: lambda: dict(slug="mochi"),
    evidence.load_runs: lambda: dict(slug="mochi"),
    evidence.save_runs: lambda: dict(slug="mochi", runs=[{"seed": 0, "knn": 80.0}], root=ROOT),
    evidence.forget: lambda: dict(slug="mochi", claim_id="proxy", root=ROOT),
}

FOLDERS = "a folder by any name is right, and would be written to"
UNCHECKED = {
    (evidence.record, "root"): FOLDERS,
    (evidence.save_runs, "root"): FOLDERS,
    (evidence.forget, "root"): FOLDERS,
}

LIST = "reads the one list of methods, which a test of its own holds to its promises"
FILE = "takes any path and any content that JSON can hold; the tests of files kill it and fill the disk"
REFERENCE = "the answer of an exercise: its checker calls it with inputs of its own"
EXEMPT = {
    evidence.Record: "made by record and read from files, both of which check",
    evidence.compare: "calls two functions of the caller with the caller's seeds",
    evidence.headlines: "reads every stored record of a folder",
    evidence.repository_root: "looks for a folder",
    Highlighted: "made by highlight, which checks",
    highlight: "words of a caller's text; tests/unit/test_highlight.py tries the wrong ones",
    files.write_text: FILE,
    files.write_json: FILE,
    files.locked: FILE,
    **{getattr(survey, name): LIST for name in ("Look", "Method", "Part", "Status", "load", "parts", "status")},
    batches_that_fit.merge: REFERENCE,
    batches_that_fit.softmax_average: REFERENCE,
    fifty_two_claims.agreement: REFERENCE,
    fifty_two_claims.wilson: REFERENCE,
    is_it_learning.collapse_report: REFERENCE,
    is_it_learning.queue_landmarks: REFERENCE,
    learning_by_comparison.in_batch_info_nce: REFERENCE,
    learning_by_comparison.share_of_games_won: REFERENCE,
    one_softmax_many_losses.queue_contrast: REFERENCE,
    one_softmax_many_losses.two_view_masks: REFERENCE,
    what_the_loss_knows.information_bound: REFERENCE,
    what_the_loss_knows.table_information: REFERENCE,
}
