"""Does ConR lower the error on rare labels? Digits turned by angles of which large ones are rare.

1,000 digits, turned by whole degrees; an angle y is seen with a probability proportional to exp(-|y|/12), and tested
evenly between -60 and 60 degrees. A network with one hidden layer of features predicts the angle, trained on the
absolute error. Arms add a regularizer on the features: *ConR*; *SupCon*, the same loss with *every* pair of far labels
as a negative, whether the predictions agree or not; and the absolute error weighted by rarity, with and without ConR.
All see the same views; learning rate, and the weight of the regularizer where there is one, are tuned for every arm
alike, by the error over all angles on digits which were left out. *Brief* training is a third as long.

*Patients*: scikit-learn's table of 442 people with diabetes, ten measurements and the progress of the disease after a
year, a number between 25 and 346; of 142 people the number is to be predicted. Beside it a ridge regression.
"""

from __future__ import annotations

from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import normalize
from cl_teach.datasets import turned_digits
from cl_teach.evaluation import embed
from cl_teach.labels.conr import conr, rarity_weights
from cl_teach.models import MLP
from cl_teach.readouts import by_shot, order_correlation
from cl_teach.training import at_scale, fit, seed_everything

COUNT, DECAY, LARGEST = 1000, 12.0, 60
EPOCHS = {"brief": at_scale(12, 80, smoke=1), "long": at_scale(36, 300, smoke=2)}  # of 16 steps
EPOCHS["table"] = at_scale(40, 100, smoke=2)
UNIT = 10.0  # degrees: the network predicts tens of degrees
WINDOW = 0.3  # three degrees
FEW, MANY = 4, 20  # training images of an angle
KEPT = 0.8  # of the digits, when the others are needed for tuning
PATIENTS = 300  # to train on
STEP = 50.0  # of the disease's progress: the network predicts fifties
Rows = tuple[Tensor, Tensor]


class Regressor(nn.Module):
    """Features, and a number read from them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features, self.last = nn.Sequential(MLP([width, 128, 64], norm="none"), nn.ReLU()), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions ``(n,)``."""
        return self.last(self.features(x))[:, 0]


def rows_of(split: str, seed: int, count: int, decay: float, part: tuple[float, float] = (0.0, 1.0)) -> Rows:
    """Flat images, and angles in tens of degrees."""
    found = turned_digits(split, count, decay=decay, largest=LARGEST, part=part, seed=seed)
    return found.images.flatten(1), found.angles / UNIT


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise; nothing that would turn a digit."""
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def train(data: Rows, arm: str, learning_rate: float, beta: float, epochs: int, seed: int) -> Regressor:
    """One arm."""
    seed_everything(seed)
    x, y = data
    draws, network = torch.Generator().manual_seed(seed), Regressor(x.shape[1])
    rare = rarity_weights(y, 40)
    weights = rare if arm in ("rarity", "rarity conr") else torch.ones_like(y)

    def step(rows: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        features = network.features(torch.cat([view(rows, draws), view(rows, draws)]))
        guess, both = network.last(features)[:, 0], labels.repeat(2)
        loss = ((guess - both).abs() * weight.repeat(2)).mean()
        if arm in ("conr", "rarity conr"):
            return loss + beta * conr(features, both, guess, weight.repeat(2), window=WINDOW)
        if arm == "supcon":  # equal predictions: every far pair disagrees
            return loss + beta * conr(features, both, torch.zeros_like(both), window=WINDOW, push_scale=0.0)
        return loss

    options = {"epochs": epochs, "batch_size": 64, "learning_rate": learning_rate, "seed": seed, "progress": False}
    fit(network, step, (x, y, weights), **options)
    return network


def measured(network: Regressor, data: Rows, test: Rows) -> dict[str, float]:
    """Absolute error in degrees by how often an angle was seen, and what the features look like."""
    x, y = test
    seen = (data[1] * UNIT).round().long()
    counts = (seen[None, :] == (y * UNIT).round().long()[:, None]).sum(1)
    shots = by_shot(UNIT * (embed(network, x) - y).abs(), counts, few=FEW, many=MANY)
    z = normalize(embed(network.features, x))
    many, few = z[counts > MANY].mean(0), z[counts < FEW].mean(0)
    found = {
        "overall": shots.overall,
        "many": shots.many or 0.0,
        "medium": shots.medium or 0.0,
        "few": shots.few or 0.0,
    }
    return found | {"cosine": float(F.cosine_similarity(many, few, 0)), "order": float(order_correlation(z, y))}


def trial(
    seed: int, arm: str, length: str, learning_rate: float, beta: float, tuning: bool = False
) -> dict[str, float]:
    """Train and measure one arm."""
    kept, left = ((0.0, KEPT), (KEPT, 1.0)) if tuning else ((0.0, 1.0), (0.0, 1.0))
    data = rows_of("train", seed, COUNT, DECAY, kept)
    test = rows_of("train" if tuning else "test", seed + 1000, 600, float("inf"), left)
    return measured(train(data, arm, learning_rate, beta, EPOCHS[length], seed), data, test)


def score(seed: int, **settings: Any) -> float:
    """Minus the error over all angles, on digits that were left out."""
    return -trial(seed, tuning=True, **settings)["overall"]


def patients(seed: int, tuning: bool) -> tuple[Rows, Rows]:
    """Standardized measurements and progress, to train and to test on; tuning leaves the test rows alone."""
    table, progress = load_diabetes(return_X_y=True)
    x, y = torch.tensor(table).float(), torch.tensor(progress).float() / STEP
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = order[:PATIENTS], order[PATIENTS:]
    if tuning:
        train, test = train[: 3 * PATIENTS // 4], train[3 * PATIENTS // 4 :]
    x = (x - x[train].mean(0)) / x[train].std(0)
    return (x[train], y[train]), (x[test], y[test])


def table_trial(seed: int, arm: str, learning_rate: float, beta: float, tuning: bool = False) -> dict[str, float]:
    """Absolute error, over all and over the tenth with the fastest progress."""
    data, (x, y) = patients(seed, tuning)
    if arm == "ridge":
        guess = torch.from_numpy(Ridge(10.0).fit(data[0].numpy(), data[1].numpy()).predict(x.numpy())).float()
    else:
        guess = embed(train(data, arm, learning_rate, beta, EPOCHS["table"], seed), x)
    error, top = STEP * (guess - y).abs(), y >= y.quantile(0.9)
    return {"overall": float(error.mean()), "top": float(error[top].mean())}


def table_score(seed: int, **settings: Any) -> float:
    """Minus the error on a quarter of the training patients."""
    return -table_trial(seed, tuning=True, **settings)["overall"]


WHY = "A quarter of a degree, where angles are whole degrees."
FEW_ERROR = Metric("Mean absolute error on angles seen at most three times, in degrees", "few", "", 0.25, WHY)
ERROR = Metric("Mean absolute error over all angles, in degrees", "overall", "", 0.25, WHY)
COSINE = Metric(
    "Cosine between the mean features of rare and of frequent angles",
    "cosine",
    smallest_effect=0.05,
    reason="A twentieth of the way from equal to orthogonal.",
)
ORDER = Metric(
    "Spearman correlation of cosine distance and distance of angles",
    "order",
    smallest_effect=0.02,
    reason="A fiftieth of the way from no order to perfect order.",
)
WORDS = {
    "l1": "absolute error",
    "conr": "with ConR",
    "supcon": "with SupCon",
    "rarity": "weighted by rarity",
    "rarity conr": "weighted, with ConR",
}
NOTE = (
    "1,000 turned digits, MLP with 64 features, batches of 64 in two views, AdamW; learning rate, and the weight of "
    "the regularizer where there is one, tuned for every arm alike on digits that were left out."
)
PROGRESS = Metric(
    "Mean absolute error of the progress, from 25 to 346",
    "overall",
    "",
    1.0,
    "A fortieth of the error of a ridge regression.",
)
NO_REGULARIZER = {"l1": {"beta": 0.0}, "rarity": {"beta": 0.0}, "ridge": {"beta": 0.0, "learning_rate": 0.0}}


def settings(*names: str) -> dict[str, dict[str, Any]]:
    """What is given for these arms."""
    return {arm: {"arm": arm} | NO_REGULARIZER.get(arm, {}) for arm in names}


AXES = {"learning_rate": (1e-3, 3e-3, 1e-2), "beta": (0.3, 1.0, 3.0)}
LONG = Experiment(
    "conr",
    {arm: given | {"length": "long"} for arm, given in settings(*WORDS).items()},
    trial,
    [
        Claim("few", "ConR lowers the error on rare labels.", FEW_ERROR, "l1", "conr", "lower", headline=True),
        Claim("overall", "ConR lowers the error over all labels, evenly.", ERROR, "l1", "conr", "lower"),
        Claim(
            "selection",
            "ConR lowers the error on rare labels more than SupCon, which pushes every far pair.",
            FEW_ERROR,
            "supcon",
            "conr",
            "lower",
        ),
        Claim(
            "supcon",
            "SupCon as a regularizer lowers the error on rare labels.",
            FEW_ERROR,
            "l1",
            "supcon",
            "lower",
            origin="ours",
        ),
        Claim(
            "weighted",
            "ConR lowers the error on rare labels of a loss that is weighted by rarity.",
            FEW_ERROR,
            "rarity",
            "rarity conr",
            "lower",
        ),
        Claim(
            "rarity",
            "Weights by rarity alone lower the error on rare labels more than ConR alone.",
            FEW_ERROR,
            "conr",
            "rarity",
            "lower",
            origin="ours",
        ),
        Claim(
            "collapse",
            "ConR moves features of rare labels away from those of frequent ones.",
            COSINE,
            "l1",
            "conr",
            "lower",
        ),
        Claim("order", "ConR puts features in the order of their labels.", ORDER, "l1", "conr"),
    ],
    WORDS,
    f"{NOTE} 36 passes.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(AXES, score),
)
BRIEF = Experiment(
    "conr",
    {f"brief {arm}": given | {"length": "brief"} for arm, given in settings("l1", "conr", "supcon").items()},
    trial,
    [
        Claim(
            "few-brief",
            "In brief training ConR lowers the error on rare labels.",
            FEW_ERROR,
            "brief l1",
            "brief conr",
            "lower",
            origin="ours",
        ),
        Claim(
            "selection-brief",
            "In brief training ConR lowers the error on rare labels more than SupCon.",
            FEW_ERROR,
            "brief supcon",
            "brief conr",
            "lower",
            origin="ours",
        ),
    ],
    {f"brief {arm}": words for arm, words in WORDS.items()},
    f"{NOTE} 12 passes.",
    tuning=Tuning(AXES, score),
    runs="conr-brief",
)
TABLE = Experiment(
    "conr",
    {f"table {arm}": given for arm, given in settings("ridge", "l1", "conr", "supcon").items()},
    table_trial,
    [
        Claim(
            "patients",
            "On a table of patients ConR lowers the error of a network.",
            PROGRESS,
            "table l1",
            "table conr",
            "lower",
            origin="ours",
        ),
        Claim(
            "patients-ridge",
            "On a table of patients a network with ConR errs less than a ridge regression.",
            PROGRESS,
            "table ridge",
            "table conr",
            "lower",
            origin="ours",
        ),
    ],
    {f"table {arm}": words for arm, words in (WORDS | {"ridge": "ridge regression"}).items()},
    "442 patients of scikit-learn's load_diabetes, 300 to train on, split anew with every seed; window 15, learning "
    "rate and weight of the regularizer tuned on a quarter of the training patients.",
    seeds=range(10),
    tuning=Tuning(AXES, table_score),
    runs="conr-patients",
)
EXPERIMENTS = (BRIEF, LONG, TABLE)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
