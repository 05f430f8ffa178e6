"""What does it change to push positives apart and to mix negatives? Feature transformation against MoCo on digits.

The host is that of ``_queue_host.py``; the published shapes of the two Beta distributions. "positives" and "negatives"
transform one side only. "slope" transforms no feature: the positive's score S becomes a S - (a - 1), with the random a
that the extrapolation of the positives has. Temperature and learning rate are those of the host.
The method's headline is in ``losses.py``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from _queue_host import KNN, NOTE, TEMPERATURE, UNIFORMITY, Method, Seen, measured, moco, train
from _runner import Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.core.contrast import one_positive_contrast
from cl_teach.losses.feature_transformation import draw_transformation, feature_transformation, transformed_scores


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


def trial(seed: int, arm: str) -> dict[str, float]:
    """One run."""
    return measured(train(ARMS[arm], seed))


SCORE = Metric(
    "Score of the untransformed positives", "positive", smallest_effect=0.01, reason="A hundredth of a cosine."
)
EXPERIMENT = Experiment(
    "feature-transformation",
    {arm: {"arm": arm} for arm in ARMS},
    trial,
    [
        Claim(
            "alignment",
            "Training on positives that are pushed apart brings the real ones closer.",
            SCORE,
            "moco",
            "both",
        ),
        Claim(
            "uniformity",
            "The closer positives are paid for with uniformity.",
            UNIFORMITY,
            "moco",
            "both",
            origin="ours",
        ),
        Claim(
            "beyond-slope",
            "Pushing positives apart aligns them more than the steeper score that it amounts to.",
            SCORE,
            "slope",
            "positives",
            origin="ours",
        ),
        Claim(
            "mixed-negatives-uniformity",
            "Mixing the negatives makes the embeddings more uniform.",
            UNIFORMITY,
            "moco",
            "negatives",
            "lower",
        ),
        Claim("knn-digits", "Feature transformation gives better features.", KNN, "moco", "both"),
    ],
    {
        "moco": "MoCo",
        "both": "feature transformation",
        "positives": "positives pushed apart",
        "slope": "a steeper score, no feature moved",
        "negatives": "negatives mixed",
    },
    NOTE,
    seeds=range(10),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
