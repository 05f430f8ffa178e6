"""Which part of RCAL works? Digits with a long tail and wrong labels.

Digits from 110 images in the largest class down to 11, of whose labels a share of 0.4 is wrong, more often in favor of
frequent classes (the paper's transition). All arms start from the same encoder, trained by MoCo without labels, and end
with the same number of steps:

- *cross-entropy*: encoder and classifier are trained on the noisy labels, with mixup as RCAL has it; *no pretraining*
  the same from random weights;
- *distance*: the features are held near the contrastive ones, nothing is drawn;
- *RCAL*: everything;
- *raw*: features are drawn, but from Gaussians that were not repaired: no sample is removed and no class borrows;
- *removal*, *borrowing*: one of the two repairs;
- *uniform*: borrowing with equal weights, as in the proof; *true*: Gaussians of the true classes, which nobody has;
- *copies*: instead of drawing, stored features of the noisy classes are shown again until all classes are equally
  frequent;
- *oversampled*: cross-entropy on images, those of rare classes shown again until all are equally frequent;
- *free*: RCAL without the distance term.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import gaussian_noise, random_resized_crop
from cl_teach.datasets import ImageSet, digits, flip_labels, long_tailed
from cl_teach.evaluation import embed
from cl_teach.labels.rcal import RCAL, RCALTerms, robust_gaussians
from cl_teach.models import MLP
from cl_teach.models.moco import MoCo
from cl_teach.readouts import by_shot
from cl_teach.training import at_scale, fit, seed_everything

ETA, IMBALANCE = 0.4, 10.0
PRETRAINING, EPOCHS = at_scale(50, 200, smoke=2), at_scale(40, 100, smoke=2)
TAIL = 25  # images; classes with fewer are the tail
NO_REPAIR = {"removed": torch.zeros(10), "gamma": 0.0, "alpha": 0.0}
SETTINGS = {
    "raw": NO_REPAIR,
    "removal": {"gamma": 0.0, "alpha": 0.0},
    "borrowing": {"removed": torch.zeros(10)},
    "uniform": {"weighting": "uniform"},
    "distance": {"drawn_weight": 0.0},
    "copies": {"drawn_weight": 0.0},
    "cross-entropy": {"drawn_weight": 0.0, "beta": 0.0},
    "oversampled": {"drawn_weight": 0.0, "beta": 0.0},
    "free": {"beta": 0.0},
    "no pretraining": {"drawn_weight": 0.0, "beta": 0.0},
}


class Noisy(NamedTuple):
    """Images, true and noisy labels, a pretrained encoder's weights, and other training images with true labels."""

    x: Tensor
    y: Tensor
    noisy: Tensor
    weights: dict[str, Tensor]
    left_x: Tensor
    left_y: Tensor


def network() -> MLP:
    """The encoder."""
    return MLP([64, 128, 32])


@lru_cache(maxsize=4)
def noisy(seed: int) -> Noisy:
    """A long tail, wrong labels, and MoCo on its images: shared by the arms of a seed."""
    draws = torch.Generator().manual_seed(seed)
    train = digits("train")
    name = torch.randperm(10, generator=draws)  # which digits are frequent
    whole = ImageSet(train.images, name[train.labels], train.classes)
    tail = long_tailed(whole, IMBALANCE, seed=seed)
    x, y = tail.images.flatten(1), tail.labels
    left = torch.cdist(whole.images.flatten(1), x).amin(1) > 0  # what the tail left out
    seed_everything(seed)
    method = MoCo(network(), MLP([32, 32]), dim=32, size=256, momentum=0.99)

    def view(rows: Tensor) -> Tensor:
        crop = random_resized_crop(rows.view(-1, 1, 8, 8), (0.6, 1.0), generator=draws)
        return gaussian_noise(crop, 0.1, generator=draws).flatten(1)

    options = {"batch_size": 128, "learning_rate": 3e-3, "seed": seed, "progress": False}
    step = method.after_step
    fit(method, lambda rows: method.loss(view(rows), view(rows)), x, epochs=PRETRAINING, after_step=step, **options)
    weights = {key: value.clone() for key, value in method.student[0].state_dict().items()}
    return Noisy(x, y, flip_labels(y, ETA, seed=seed), weights, whole.images[left].flatten(1), whole.labels[left])


def trial(seed: int, arm: str, learning_rate: float, tuning: bool = False) -> dict[str, float]:
    """Train one arm; accuracy on the balanced test set, and how far the class means are from the true ones."""
    data, draws = noisy(seed), torch.Generator().manual_seed(seed)
    seed_everything(seed)
    encoder = network()
    if arm != "no pretraining":
        encoder.load_state_dict(data.weights)
    method = RCAL(encoder, nn.Linear(32, 10), data.x, data.noisy, **SETTINGS.get(arm, {}))
    stored = method.contrastive
    truth = robust_gaussians(stored, data.y, removed=torch.zeros(10))
    if arm == "true":
        method.means.copy_(truth.means)
        method.covs.copy_(truth.covs)
    error = torch.linalg.vector_norm(method.means - truth.means, dim=1)
    scale = torch.linalg.vector_norm(truth.means - truth.means.mean(0), dim=1).mean()
    lacking = method.missing.double() / data.noisy.bincount(minlength=10)

    def loss(x: Tensor, y: Tensor, index: Tensor) -> RCALTerms | Tensor:
        terms = method.loss(x, y, index, generator=draws)
        if arm != "copies":
            return terms
        count = round(len(x) * int(method.missing.sum()) / len(data.x))
        rows = lacking[data.noisy].multinomial(count, replacement=True, generator=draws)
        return terms.loss + F.cross_entropy(method.classifier(stored[rows]), data.noisy[rows])

    rows, epochs = torch.arange(len(data.x)), EPOCHS
    if arm == "oversampled":  # images of rare classes again, until all are equally frequent; as many steps
        more = lacking[data.noisy].multinomial(int(method.missing.sum()), replacement=True, generator=draws)
        rows = torch.cat([rows, more])
        epochs = max(1, round(epochs * len(data.x) / len(rows)))
    options = {"epochs": epochs, "batch_size": 128, "learning_rate": learning_rate, "seed": seed, "progress": False}
    fit(method, loss, (data.x[rows], data.noisy[rows], rows), **options)
    test = digits("test")
    name = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    test_x, y = (data.left_x, data.left_y) if tuning else (test.images.flatten(1), name[test.labels])
    right = (embed(method, test_x).argmax(1) == y).float()
    if tuning:  # few images of frequent classes were left out: all classes count alike
        return {"accuracy": 100 * float(torch.stack([right[y == c].mean() for c in y.unique()]).mean())}
    shots = by_shot(right, data.y.bincount(minlength=10)[y], few=TAIL)
    wrong = data.y != data.noisy
    kept = robust_gaussians(stored, data.noisy).inlier
    return {
        "accuracy": 100 * shots.overall,
        "few": 100 * (shots.few or 0.0),
        "mean_error": float(error.mean() / scale),
        "removed": float((~kept).double().mean()),
        "removed_wrong": float(wrong[~kept].double().mean()) if (~kept).any() else 0.0,
        "wrong": float(wrong.double().mean()),
    }


def score(seed: int, **settings: Any) -> float:
    """Balanced accuracy on training images that were left out, with their true labels."""
    return trial(seed, tuning=True, **settings)["accuracy"]


ACCURACY = Metric(
    "Accuracy on a balanced test set", "accuracy", "points", 1.0, "The paper's differences are several points."
)
FEW = Metric(
    "Accuracy on classes with fewer than 25 images", "few", "points", 1.0, "The paper's differences are several points."
)
MEANS = Metric(
    "Distance of the class means from the true ones, in distances of a class from the center",
    "mean_error",
    smallest_effect=0.02,
    reason="A fiftieth of the distance of a class from the center of all.",
)
WORDS = {
    "no pretraining": "cross-entropy from random weights",
    "cross-entropy": "cross-entropy from MoCo's weights",
    "distance": "with the distance term",
    "raw": "drawn from Gaussians as they are",
    "removal": "outliers removed, nothing borrowed",
    "borrowing": "borrowed, nothing removed",
    "rcal": "RCAL",
    "uniform": "RCAL with equal weights",
    "copies": "copies of stored features",
    "true": "drawn from true Gaussians",
    "oversampled": "cross-entropy, images of rare classes repeated",
    "free": "RCAL without the distance term",
}
EXPERIMENT = Experiment(
    "rcal",
    {arm: {"arm": arm} for arm in WORDS},
    trial,
    [
        Claim(
            "accuracy",
            "RCAL names images better than cross-entropy from the same weights.",
            ACCURACY,
            "cross-entropy",
            "rcal",
            headline=True,
        ),
        Claim(
            "tail",
            "RCAL names images of rare classes better than cross-entropy from the same weights.",
            FEW,
            "cross-entropy",
            "rcal",
        ),
        Claim(
            "pretraining",
            "Weights trained without labels are a better start than random ones.",
            ACCURACY,
            "no pretraining",
            "cross-entropy",
        ),
        Claim("distance", "Holding features near the contrastive ones helps.", ACCURACY, "cross-entropy", "distance"),
        Claim(
            "balance", "Drawn features help, even from Gaussians that were not repaired.", ACCURACY, "distance", "raw"
        ),
        Claim("repair", "Repaired Gaussians help more than Gaussians as they are.", ACCURACY, "raw", "rcal"),
        Claim("repair-tail", "Repaired Gaussians help the rare classes.", FEW, "raw", "rcal"),
        Claim(
            "copies",
            "Drawing features helps more than showing stored ones again.",
            ACCURACY,
            "copies",
            "rcal",
            origin="ours",
        ),
        Claim("means", "The repair brings class means closer to the true ones.", MEANS, "raw", "rcal", "lower"),
        Claim(
            "means-removal",
            "Removing outliers brings class means closer to the true ones.",
            MEANS,
            "raw",
            "removal",
            "lower",
        ),
        Claim(
            "weights",
            "The paper's weights, larger for far heads, bring class means closer than equal ones.",
            MEANS,
            "uniform",
            "rcal",
            "lower",
            origin="ours",
        ),
        Claim(
            "held",
            "Drawn features help more where the distance term holds the network near them.",
            ACCURACY,
            "free",
            "rcal",
            origin="post hoc",
        ),
        Claim(
            "oversampling",
            "RCAL names images better than cross-entropy that sees images of rare classes more often.",
            ACCURACY,
            "oversampled",
            "rcal",
            origin="post hoc",
        ),
        Claim("truth", "True Gaussians would help more than repaired ones.", ACCURACY, "rcal", "true", origin="ours"),
    ],
    WORDS,
    "Digits, imbalance 10, noise 0.4; published settings where there are any; MoCo on the same images. Learning rate "
    "tuned for every arm alike, on other training images with true labels.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (2e-3, 8e-3, 3e-2)}, score),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
