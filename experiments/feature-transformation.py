"""What does it change to push positives apart and to mix negatives? Feature transformation against MoCo on digits.

The host is that of ``_queue_host.py``; the published shapes of the two Beta distributions. "positives" and "negatives"
transform one side only. "slope" transforms no feature: the positive's score S becomes a S - (a - 1), with the random a
that the extrapolation of the positives has. Temperature and learning rate are those of the host.
``make evidence ONLY=feature-transformation`` writes the records.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from _queue_host import TEMPERATURE, Method, Seen, moco, run
from torch import Tensor
from tqdm.auto import tqdm

from cl_teach.core.contrast import one_positive_contrast
from cl_teach.evidence import record, save_runs
from cl_teach.losses.feature_transformation import draw_transformation, feature_transformation, transformed_scores

SLUG = "feature-transformation"
SEEDS = tuple(range(10))


def transformed(query: Tensor, key: Tensor, queue: Tensor, *, positives: bool, negatives: bool) -> Seen:
    """The method's loss and scores."""
    outward, inward, order = draw_transformation(len(queue))
    options: dict[str, Any] = {
        "extrapolation": outward if positives else 1.0,
        "interpolation": inward if negatives else 1.0,
        "permutation": order.to(queue.device),
    }
    scores = transformed_scores(query, key, queue, **options)
    loss = feature_transformation(query, key, queue, TEMPERATURE, **options)
    return Seen(loss, scores.positive, scores.negatives)


def slope(query: Tensor, key: Tensor, queue: Tensor) -> Seen:
    """Change the positive's score and no feature."""
    weight = draw_transformation(len(queue))[0]
    _, plain, negatives = moco(query, key, queue)
    steep = 1 + 2 * weight * (weight - 1)
    positive = steep * plain - (steep - 1)
    return Seen(one_positive_contrast(positive / TEMPERATURE, negatives / TEMPERATURE), positive, negatives)


ARMS: dict[str, Method] = {
    "moco": moco,
    "positives": partial(transformed, positives=True, negatives=False),
    "negatives": partial(transformed, positives=False, negatives=True),
    "both": partial(transformed, positives=True, negatives=True),
    "slope": slope,
}


def main() -> None:
    """Run all arms and write the records."""
    runs: list[dict[str, Any]] = []
    for seed in tqdm(SEEDS, desc=SLUG):
        runs += [run(arm, seed, method) for arm, method in ARMS.items()]
    save_runs(SLUG, runs)
    write(runs)


def write(runs: list[dict[str, Any]]) -> None:
    """Write the records."""

    def values(arm: str, key: str) -> list[float]:
        return [row[key] for row in runs if row["arm"] == arm]

    names = {"moco": "MoCo", "both": "feature transformation", "positives": "positives pushed apart"}
    names |= {"slope": "a steeper score, no feature moved", "negatives": "negatives mixed"}
    claims: tuple[tuple[str, str, str, str, str, str, str, str], ...] = (
        (
            "alignment",
            "Training on positives that are pushed apart brings the real ones closer.",
            "Score of the untransformed positives",
            "",
            "higher",
            "positive",
            "moco",
            "both",
        ),
        (
            "uniformity",
            "The closer positives are paid for with uniformity.",
            "Uniformity of the test images",
            "",
            "higher",
            "uniformity",
            "moco",
            "both",
        ),
        (
            "beyond-slope",
            "Pushing positives apart aligns them more than the steeper score that it amounts to.",
            "Score of the untransformed positives",
            "",
            "higher",
            "positive",
            "slope",
            "positives",
        ),
        (
            "mixed-negatives-uniformity",
            "Mixing the negatives makes the embeddings more uniform.",
            "Uniformity of the test images",
            "",
            "lower",
            "uniformity",
            "moco",
            "negatives",
        ),
        (
            "knn-digits",
            "Feature transformation gives better features.",
            "kNN accuracy",
            "points",
            "higher",
            "knn",
            "moco",
            "both",
        ),
    )
    for claim_id, claim, metric, unit, expected, key, baseline, method in claims:
        result = record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metric,
            unit=unit,
            expected=expected,
            baseline_name=names[baseline],
            method_name=names[method],
            seeds=SEEDS,
            baseline=values(baseline, key),
            method=values(method, key),
            seconds=sum(row["seconds"] for row in runs),
            note="Digits, 25 epochs, queue of 512, temperature 0.2.",
        )
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
