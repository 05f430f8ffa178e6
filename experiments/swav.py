"""What holds SwAV up, and what small crops buy.

1. Collapse, on digits: a perceptron, 20 prototypes, two noisy shifted views, three codes that differ in one line:

   - ``sinkhorn``: balanced over the batch, as published,
   - ``softmax``: softmax of the same scores at the same epsilon, nothing balanced,
   - ``argmax``: the nearest prototype.

   On test digits: how evenly the prototypes are used (entropy of the mean of softmax(S / epsilon), as a share of
   log K), how many are the nearest of at least one digit, how well the nearest prototype names the class (normalized
   mutual information), kNN on the features. A prototype starts as a random direction, so an encoder that was not
   trained is judged as well.

2. Multi-crop, on garments: a convolutional encoder that takes any size. ``two``: two crops of 28 x 28 pixels;
   ``multi``: four small ones of 14 x 14 pixels in addition, as many pixels as one more full crop; ``longer``: two crops
   and one and a half times the epochs, for as many pixels as ``multi``. The learning rate of each is tuned alike; the
   stored runs tried two of them on one seed. Small crops also enter the running means of batch normalization, which
   then fit whole images badly. After the first results we saw that this matters and added ``recalibrated``: the same
   networks with means and variances taken anew from whole training images, in all arms.

The comparison of all losses, with the method's headline, is in ``losses.py``.
"""

from __future__ import annotations

import math
from functools import cache, partial

import torch
from _data import after_step, garments, knn
from _runner import Claim, Experiment, Metric, Tuning, main
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn

from cl_teach.augment import Compose, color_jitter, random_resized_crop, simclr_augment
from cl_teach.core import normalize
from cl_teach.core.assignment import sinkhorn
from cl_teach.datasets import ImageSet, digits
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.losses.swav import SwAV
from cl_teach.models import MLP, ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

PROTOTYPES, TEMPERATURE, EPSILON = 20, 0.1, 0.05
STEPS, SIZE, EPOCHS = at_scale(600, 3000, smoke=3), at_scale(3000, 8000), at_scale(10, 100, smoke=1)
CODES = ("untrained", "sinkhorn", "softmax", "argmax")
ARMS = {"two": (0, 1.0), "multi": (4, 1.0), "longer": (0, 1.5)}  # small crops, epochs
FULL = simclr_augment(scale=(0.3, 1.0))
SMALL = Compose(
    [
        partial(random_resized_crop, scale=(0.1, 0.3), size=14, flip=0.5),
        partial(color_jitter, brightness=0.4, contrast=0.4, probability=0.8),
    ]
)


# --- collapse --------------------------------------------------------------------------------------------------------


@cache
def pictures() -> tuple[ImageSet, ImageSet]:
    """Digits to train on and to test on."""
    return digits("train", device=device()), digits("test", device=device())


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Digits moved by at most one pixel each way, with noise."""
    n = len(images)
    moves = torch.randint(-1, 2, (2, n), generator=generator, device=images.device)
    grid = torch.arange(8, device=images.device)
    down, right = ((grid + move[:, None]) % 8 for move in moves)  # the margin of a digit is nearly empty
    moved = images[torch.arange(n, device=images.device)[:, None, None], 0, down[:, :, None], right[:, None, :]]
    return moved[:, None] + 0.1 * torch.randn(images.shape, generator=generator, device=images.device)


def make_codes(scores: Tensor, kind: str) -> Tensor:
    """Codes ``(B, K)`` from scores, constants."""
    if kind == "sinkhorn":
        return sinkhorn(scores, EPSILON)
    if kind == "softmax":
        return (scores / EPSILON).softmax(1)
    return nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(scores)


def train_digits(images: Tensor, kind: str, seed: int, steps: int) -> tuple[nn.Sequential, Tensor, list[float]]:
    """Swapped prediction with these codes; returns network, prototypes and losses."""
    seed_everything(seed)
    encoder = nn.Sequential(nn.Flatten(), MLP([64, 128, 64]))
    network = nn.Sequential(encoder, ProjectionHead(64, 32, hidden=64)).to(device())
    prototypes = nn.Parameter(normalize(torch.randn(PROTOTYPES, 32)).to(device()))
    optimizer = torch.optim.Adam([*network.parameters(), prototypes], lr=1e-3)
    generator = torch.Generator(device()).manual_seed(seed)
    losses = []
    for _ in range(steps):
        batch = images[torch.randint(len(images), (256,), generator=generator, device=images.device)]
        with torch.no_grad():
            prototypes.copy_(normalize(prototypes))
        z = normalize(network(torch.cat([shifted(batch, generator), shifted(batch, generator)])))
        s1, s2 = (z @ prototypes.T).chunk(2)
        q1, q2 = (make_codes(s.detach(), kind) for s in (s1, s2))
        swapped = [-(q * (s / TEMPERATURE).log_softmax(1)).sum(1).mean() for q, s in ((q1, s2), (q2, s1))]
        loss = (swapped[0] + swapped[1]) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, normalize(prototypes.detach()), losses


def collapse(seed: int, code: str) -> dict[str, float]:
    """Usage of the prototypes and quality of features on test digits."""
    train, test = pictures()
    network, prototypes, losses = train_digits(train.images, code, seed, 0 if code == "untrained" else STEPS)
    scores = normalize(embed(network, test.images)) @ prototypes.T
    usage = (scores / EPSILON).softmax(1).mean(0)
    nearest = scores.argmax(1)
    known, features = embed(network[0], train.images), embed(network[0], test.images)
    return {
        "loss": losses[-1] if losses else 0.0,
        "entropy": torch.special.entr(usage).sum().item() / math.log(PROTOTYPES),
        "used": float(len(nearest.unique())),
        "nmi": float(normalized_mutual_info_score(test.labels.cpu().numpy(), nearest.cpu().numpy())),
        "knn": 100 * knn_accuracy(known, train.labels, features, test.labels, k=5),
    }


# --- crops -----------------------------------------------------------------------------------------------------------


def train_garments(seed: int, arm: str, rate: float) -> nn.Sequential:
    """SwAV with or without small crops."""
    small, share = ARMS[arm]
    seed_everything(seed)
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]  # 28 x 28 gives a map of 4 x 4, 14 x 14 one of 2 x 2
    encoder = nn.Sequential(ConvEncoder(width=16).convolutions, *pool)
    network = nn.Sequential(encoder, ProjectionHead(128, 64, hidden=128)).to(device())
    method = SwAV(64, 64, temperature=TEMPERATURE, epsilon=EPSILON).to(device())
    generator = torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        crops = network(torch.cat([FULL(batch, generator) for _ in range(2)])).view(2, len(batch), -1)
        if small:
            more = network(torch.cat([SMALL(batch, generator) for _ in range(small)])).view(small, len(batch), -1)
            crops = torch.cat([crops, more])
        return method(crops)

    fit(
        nn.ModuleList([network, method]),
        step,
        garments(SIZE).train.images,
        epochs=round(share * EPOCHS),
        batch_size=at_scale(128, 128, smoke=32),
        learning_rate=rate,
        weight_decay=1e-4,
        seed=seed,
        after_step=after_step(method),
        progress=False,
    )
    return network


@torch.no_grad()
def recalibrate(network: nn.Sequential, images: Tensor) -> None:
    """Take the statistics of batch normalization anew, from whole images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    network.train()
    for batch in images.split(250):
        network(batch)


def score(seed: int, arm: str, rate: float) -> float:
    """KNN accuracy on the images to tune on."""
    return knn(train_garments(seed, arm, rate)[0], garments(SIZE).train, garments().held_out)


def crops(seed: int, arm: str, rate: float) -> dict[str, float]:
    """KNN accuracy in percent, before and after recalibration."""
    data, _, test = garments(SIZE)
    network = train_garments(seed, arm, rate)
    first = knn(network[0], data, test)
    recalibrate(network, data.images)
    return {"knn": first, "recalibrated": knn(network[0], data, test)}


SHARE = (0.05, "A twentieth of the whole range.")
ENTROPY = Metric("Entropy of the use of prototypes, over log K", "entropy", "", *SHARE)
NMI = Metric("Mutual information with the classes", "nmi", "", *SHARE)
KNN = Metric("kNN accuracy", "knn", "points")
RECALIBRATED = Metric("kNN accuracy, normalization recalibrated", "recalibrated", "points")
USE, NAME = "Balanced codes keep the prototypes in use.", "Balanced codes make prototypes that name classes."
MORE, EQUAL = "Small crops help.", "Small crops help at equal cost in pixels."
EXPERIMENTS = (
    Experiment(
        "swav",
        {code: {"code": code} for code in CODES},
        collapse,
        [
            Claim("even-use-against-softmax", USE, ENTROPY, "softmax", "sinkhorn"),
            Claim("even-use-against-argmax", USE, ENTROPY, "argmax", "sinkhorn"),
            Claim("classes-against-softmax", NAME, NMI, "softmax", "sinkhorn", origin="ours"),
            Claim(
                "classes-against-untrained",
                "Training makes prototypes that name classes.",
                NMI,
                "untrained",
                "sinkhorn",
                origin="ours",
            ),
            Claim(
                "knn-against-softmax",
                "Balanced codes give better features than codes that collapse.",
                KNN,
                "softmax",
                "sinkhorn",
                origin="ours",
            ),
        ],
        {
            "untrained": "no training",
            "sinkhorn": "balanced codes",
            "softmax": "softmax codes",
            "argmax": "argmax codes",
        },
        f"Digits, {PROTOTYPES} prototypes, batch 256, {STEPS} steps; only the codes differ.",
        runs="swav-collapse",
    ),
    Experiment(
        "swav",
        {arm: {"arm": arm} for arm in ARMS},
        crops,
        [
            Claim("small-crops", MORE, KNN, "two", "multi"),
            Claim("small-crops-recalibrated", MORE, RECALIBRATED, "two", "multi", origin="post hoc"),
            Claim("small-crops-equal-pixels", EQUAL, KNN, "longer", "multi", origin="ours"),
            Claim("small-crops-equal-pixels-recalibrated", EQUAL, RECALIBRATED, "longer", "multi", origin="post hoc"),
        ],
        {"two": "two crops", "multi": "four small crops in addition", "longer": "two crops, as many pixels"},
        f"{SIZE} garments, {EPOCHS} epochs, batch 128, 64 prototypes; each at its best learning rate.",
        tuning=Tuning({"rate": (3e-3, 1e-2, 3e-2)}, score),
        runs="swav-crops",
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
