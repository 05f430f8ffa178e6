"""What does each level of COMET buy on drawn heartbeats, and do all four give the best diagnosis with few labels?

All patients are drawn, none is real. A window is one beat at a random place; illness raises the ST segment. An encoder
is trained without labels on 24 patients, three trials each, four windows each, and looked at on 32 other patients.

Arms: all four levels, the two fine levels (a window with itself, which is what a method without identities has), the
patient level, the trial level. Without training: the untrained encoder, the raw windows, and the raw windows after the
beat was put in its place by its highest point, which takes three lines of code. In a second world, added after a look,
the beats lie in their place, as in recordings that were cut at their peaks.

Measured: a linear diagnosis from two ill and two healthy labeled patients (mean over eight draws of them) and from all;
and how well the similarity of two windows tells whether they are of one patient (different trials) or of one trial.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from sklearn.metrics import roc_auc_score
from torch import Tensor

from cl_teach.core import cosine_similarity
from cl_teach.datasets import HeartBeats, heart_beats
from cl_teach.datasets.series import few_patients
from cl_teach.evaluation import linear_probe
from cl_teach.models import DilatedEncoder
from cl_teach.signals.comet import COMET, identity_similarity, trial_batches
from cl_teach.training import at_scale, seed_everything

FACTORS = {
    "all": (0.25, 0.25, 0.25, 0.25),
    "fine": (0.0, 0.0, 0.5, 0.5),
    "patient": (1.0, 0.0, 0.0, 0.0),
    "trial": (0.0, 1.0, 0.0, 0.0),
    "untrained": (0.25, 0.25, 0.25, 0.25),
}
EPOCHS, BATCH = at_scale(25, 100, smoke=1), 48
DRAWS, PER_CLASS = at_scale(8, 20, smoke=2), 2
beats = partial(heart_beats, beats=4, noise=0.1, st_shift=0.3)


def train(data: HeartBeats, arm: str, learning_rate: float, seed: int) -> COMET:
    """Train with the levels of one arm."""
    seed_everything(seed)
    method, draws = COMET(DilatedEncoder(1, 16, 32, depth=3), FACTORS[arm]), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(method.parameters(), lr=learning_rate)
    for _ in range(EPOCHS if arm != "untrained" else 0):
        for rows in trial_batches(data.trials, BATCH, generator=draws):
            loss = method.loss(data.windows[rows], data.patients[rows], data.trials[rows], generator=draws)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
    return method


def aligned(windows: Tensor) -> Tensor:
    """Every window turned so that its highest point lies where the R wave of an unmoved beat does."""
    x = windows[..., 0]
    length = x.shape[1]
    turn = x.argmax(1, keepdim=True) - int(0.4 * length)
    return x.gather(1, (torch.arange(length) + turn) % length)


def diagnosis(x: Tensor, data: HeartBeats, test_x: Tensor, test: HeartBeats) -> float:
    """Accuracy in percent of a linear classifier on standardized features."""
    return 100 * linear_probe(x, data.labels, test_x, test.labels, max_iter=100)


def trial(seed: int, arm: str, wander: float, shift: float, learning_rate: float) -> dict[str, float]:
    """Train and measure one arm."""
    data = beats(24, 3, shift=shift, wander=wander, seed=2 * seed)
    test = beats(32, 2, shift=shift, wander=wander, seed=2 * seed + 1)
    if arm in FACTORS:
        method = train(data, arm, learning_rate, seed)
        features, test_features = method(data.windows).amax(1), method(test.windows).amax(1)
        encoded = method(test.windows)
        similarity = identity_similarity(encoded, encoded)
    else:
        view = aligned if arm == "aligned" else lambda x: x[..., 0]
        features, test_features = view(data.windows), view(test.windows)
        similarity = cosine_similarity(test_features, test_features)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    features, test_features = (features - mean) / deviation, (test_features - mean) / deviation
    draws, few = torch.Generator().manual_seed(seed), []
    for _ in range(DRAWS):
        rows = few_patients(data, PER_CLASS, generator=draws)
        labeled = HeartBeats(*(x[rows] for x in data))
        few.append(diagnosis(features[rows], labeled, test_features, test))
    same_patient = test.patients[:, None] == test.patients
    same_trial = test.trials[:, None] == test.trials
    itself = torch.eye(len(same_trial), dtype=torch.bool)

    def told_apart(positive: Tensor) -> float:
        rows = positive | ~same_patient
        return float(roc_auc_score(positive[rows], similarity[rows]))

    return {
        "few": sum(few) / DRAWS,
        "full": diagnosis(features, data, test_features, test),
        "patient_auc": told_apart(same_patient & ~same_trial),
        "trial_auc": told_apart(same_trial & ~itself),
    }


def score(seed: int, **settings: Any) -> float:
    """Diagnosis of patients that no record has, from few and from all labels."""
    found = trial(seed, **settings)
    return found["few"] + found["full"]


def arms(shift: float, *names: str, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Settings of these arms; what is not trained has no learning rate."""
    rest = {"wander": 1.0, "shift": shift}
    trained = ("all", "fine", "patient", "trial")
    return {prefix + n: {"arm": n} | rest | ({} if n in trained else {"learning_rate": 0.0}) for n in names}


TUNING = Tuning({"learning_rate": (1e-3, 3e-3, 1e-2)}, score)
FEW = Metric(
    "Accuracy of a linear diagnosis of unseen patients, four labeled patients",
    "few",
    "points",
    2.0,
    "The labels are four patients; which four they are moves the accuracy by several points.",
)
FULL = Metric(
    "Accuracy of a linear diagnosis of unseen patients, all 24 labeled",
    "full",
    "points",
    2.0,
    "Two in a hundred windows of patients whom nobody has seen.",
)
SAME_PATIENT = Metric(
    "Area under the curve: same unseen patient in another trial, or another patient",
    "patient_auc",
    smallest_effect=0.02,
    reason="One twenty-fifth of the way from chance to certainty.",
)
SAME_TRIAL = Metric(
    "Area under the curve: same trial of an unseen patient, or another patient",
    "trial_auc",
    smallest_effect=0.02,
    reason="One twenty-fifth of the way from chance to certainty.",
)
WORDS = {
    "all": "all four levels",
    "fine": "the fine levels",
    "patient": "the patient level",
    "trial": "the trial level",
    "untrained": "untrained encoder",
    "raw": "raw windows",
    "aligned": "raw windows, aligned by their peak",
}
NOTE = (
    "Drawn heartbeats, no real patients: 24 to train on without labels, 32 others to test; a small dilated encoder, "
    "150 steps of AdamW; learning rate tuned for every arm alike on other patients."
)
LEVELS = Experiment(
    "comet",
    arms(0.2, *WORDS),
    trial,
    [
        Claim(
            "few-labels",
            "With few labeled patients all four levels give a better diagnosis than the fine levels alone.",
            FEW,
            "fine",
            "all",
            headline=True,
        ),
        Claim(
            "all-labels",
            "With all labels too all four levels give a better diagnosis than the fine levels alone.",
            FULL,
            "fine",
            "all",
        ),
        Claim(
            "training",
            "Training with all four levels helps the diagnosis with few labels.",
            FEW,
            "untrained",
            "all",
            origin="ours",
        ),
        Claim(
            "alignment",
            "Putting beats in their place by their peak serves the diagnosis better than all four levels.",
            FEW,
            "all",
            "aligned",
            origin="ours",
        ),
        Claim(
            "patient-consistency",
            "The patient level makes windows of one unseen patient alike across trials.",
            SAME_PATIENT,
            "untrained",
            "patient",
        ),
        Claim(
            "fine-consistency",
            "The fine levels alone do not make windows of one patient alike across trials.",
            SAME_PATIENT,
            "fine",
            "patient",
        ),
        Claim(
            "trial-consistency",
            "The trial level makes windows of one trial alike.",
            SAME_TRIAL,
            "untrained",
            "trial",
        ),
    ],
    WORDS,
    NOTE,
    seeds=range(20),
    looks=LOOKS,
    tuning=TUNING,
)
ALIGNED = Experiment(
    "comet",
    arms(0.0, "untrained", "raw", "fine", "patient", prefix="still-"),
    trial,
    [
        Claim(
            "still-consistency",
            "Where beats lie in their place, the patient level makes windows of one unseen patient alike.",
            SAME_PATIENT,
            "still-untrained",
            "still-patient",
            origin="post hoc",
        ),
        Claim(
            "still-fine",
            "Where beats lie in their place, the patient level does so better than the fine levels.",
            SAME_PATIENT,
            "still-fine",
            "still-patient",
            origin="post hoc",
        ),
        Claim(
            "still-raw",
            "Where beats lie in their place, the patient level does so better than raw windows.",
            SAME_PATIENT,
            "still-raw",
            "still-patient",
            origin="post hoc",
        ),
    ],
    {f"still-{name}": f"{WORDS[name]}, beats in place" for name in ("untrained", "raw", "fine", "patient")},
    f"{NOTE} Beats at the same place in every window; added after the patient level had failed on beats that move.",
    tuning=TUNING,
    runs="comet-still",
)
EXPERIMENTS = (LEVELS, ALIGNED)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
