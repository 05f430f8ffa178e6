"""The coupling multiplier and what it costs: NT-Xent and DCL at several batch sizes on Fashion-MNIST.

1. *Batch sizes.* From the same initial weights one small encoder is trained with NT-Xent and with DCL, at batch sizes
   8, 32 and 256: the same images, views, temperature 0.1, number of epochs and optimizer (AdamW, hence nearly blind to
   the mean size of a gradient), each at its best learning rate. Measured on test images: kNN accuracy of the features;
   mean and coefficient of variation of the multiplier over anchors, in batches as large as in training.
2. *Step sizes.* Does DCL only make longer steps? Plain SGD with momentum, batch 8, both losses at the same four
   learning rates, fewer epochs. If so, its curve is that of NT-Xent at a smaller learning rate.
3. *Where DCL should win* (the headline): small batches and SGD, whose steps do shrink with the multiplier. Batch 32,
   the learning rate of each loss tuned alike, until decided.

The stored runs of 1 were tuned on one seed and three learning rates; the range of rates in 2 was chosen with one seed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from _data import Garments, garments, knn
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn

from cl_teach.augment import simclr_augment
from cl_teach.core import nt_xent
from cl_teach.datasets import ImageSet
from cl_teach.evaluation import embed
from cl_teach.losses.dcl import dcl, decoupled_terms
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, pretrain, seed_everything

RATES = (5e-4, 2e-3, 8e-3)
BATCHES = (8, 32, 256)
SGD_RATES, SGD_BATCH = (3e-4, 1e-3, 3e-3, 1e-2), 8
TEMPERATURE = 0.1
IMAGES = at_scale(3072, 8000, smoke=256)
BANK = at_scale(5000, 8000)
EPOCHS = {"adamw": at_scale(6, 60, smoke=1), "sgd": at_scale(3, 30, smoke=1)}
LOSSES = {"NT-Xent": nt_xent, "DCL": dcl}


def split() -> Garments:
    """The first 8,000 images to train on, the others to tune on."""
    return garments()


def multiplier(model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    """Coupling multiplier of all anchors of two views of the images, batch by batch."""
    augment, generator = simclr_augment(scale=(0.3, 1.0)), torch.Generator(device()).manual_seed(1234)
    z1, z2 = (embed(model, augment(images, generator)) for _ in range(2))
    pairs = zip(z1.split(batch_size), z2.split(batch_size), strict=True)
    found = [decoupled_terms(a, b, TEMPERATURE).coupling for a, b in pairs if len(a) == min(batch_size, len(images))]
    return torch.cat(found)


def train(seed: int, optimizer: str, loss: str, batch: int, rate: float) -> nn.Sequential:
    """One run; returns encoder and head."""
    seed_everything(seed)
    encoder = ConvEncoder(width=8)
    head = ProjectionHead(encoder.feature_dim, 64)
    pretrain(
        encoder,
        head,
        split().train.images[:IMAGES],
        loss=partial(LOSSES[loss], temperature=TEMPERATURE),
        augment=simclr_augment(scale=(0.3, 1.0)),
        seed=seed,
        batch_size=batch,
        learning_rate=rate,
        weight_decay=1e-4,
        optimizer=optimizer,
        epochs=EPOCHS[optimizer],
        progress=False,
    )
    return nn.Sequential(encoder, head)


def bank() -> ImageSet:
    """The labeled images."""
    train = split().train
    return ImageSet(train.images[:BANK], train.labels[:BANK], train.classes)


def trial(seed: int, optimizer: str, loss: str, batch: int, rate: float) -> dict[str, float]:
    """KNN accuracy on test images in percent, mean and relative spread of the multiplier there."""
    model, test = train(seed, optimizer, loss, batch, rate), split().test
    q = multiplier(model, test.images, batch)
    return {
        "knn": knn(model[0], bank(), test),
        "q": q.mean().item(),
        "variation": (q.std() / q.mean()).item(),
    }


def score(seed: int, **settings: Any) -> float:
    """KNN accuracy on the images to tune on."""
    return knn(train(seed, **settings)[0], bank(), split().held_out)


def gains(rows: dict[str, Any]) -> dict[str, float]:
    """What DCL gains at each batch size."""
    return {f"gain {n}": rows[f"DCL {n}"]["knn"] - rows[f"NT-Xent {n}"]["knn"] for n in BATCHES}


KNN = Metric("kNN accuracy", "knn", "points")
MULTIPLIER = Metric(
    "Mean multiplier of test anchors after training with NT-Xent",
    "q",
    smallest_effect=0.05,
    reason="A gradient longer or shorter by a twentieth.",
)
TUNING = Tuning({"rate": RATES}, score)
HOW = f"Fashion-MNIST, {IMAGES} images, temperature {TEMPERATURE}"
EXPERIMENTS = (
    Experiment(
        "dcl",
        {f"{loss} {n}": {"optimizer": "adamw", "loss": loss, "batch": n} for loss in LOSSES for n in BATCHES},
        trial,
        [
            Claim(
                "coupling-small-batch",
                "The coupling multiplier is smaller in a small batch.",
                MULTIPLIER,
                "NT-Xent 256",
                "NT-Xent 8",
                expected="lower",
                names=("batch 256", "batch 8"),
            ),
            Claim(
                "gain-grows-in-small-batches",
                "Decoupling gains more in a small batch than in a large one.",
                Metric("kNN accuracy of DCL minus that of NT-Xent", "", "points"),
                "derived:gain 256",
                "derived:gain 32",
            ),
            *(
                Claim(
                    f"knn-batch-{n}",
                    f"With batches of {n}, DCL learns better features than NT-Xent.",
                    KNN,
                    f"NT-Xent {n}",
                    f"DCL {n}",
                )
                for n in BATCHES
            ),
        ],
        {f"{loss} {n}": loss for loss in LOSSES for n in BATCHES}
        | {"derived:gain 256": "batch 256", "derived:gain 32": "batch 32"},
        f"{HOW}, {EPOCHS['adamw']} epochs of AdamW; each loss and batch size at its best learning rate.",
        tuning=TUNING,
        derive=gains,
    ),
    Experiment(
        "dcl",
        {
            f"{loss} at rate {rate:g}": {"optimizer": "sgd", "loss": loss, "batch": SGD_BATCH, "rate": rate}
            for rate in SGD_RATES
            for loss in LOSSES
        },
        trial,
        [
            Claim(
                "sgd-equal-rate",
                "With SGD at one small learning rate, DCL learns faster in small batches.",
                KNN,
                "NT-Xent at rate 0.0003",
                "DCL at rate 0.0003",
                origin="ours",
            ),
            Claim(
                "sgd-longer-steps",
                "DCL at a learning rate still beats NT-Xent at about three times that rate.",
                KNN,
                "NT-Xent at rate 0.001",
                "DCL at rate 0.0003",
                origin="ours",
            ),
        ],
        note=f"{HOW}, batch {SGD_BATCH}, {EPOCHS['sgd']} epochs of SGD with momentum 0.9; the range of the rates was "
        "chosen with one other seed.",
    ),
    Experiment(
        "dcl",
        {loss: {"optimizer": "sgd", "loss": loss, "batch": 32} for loss in LOSSES},
        trial,
        [
            Claim(
                "knn-sgd",
                "With batches of 32 and SGD, DCL learns better features than NT-Xent, each at its best learning rate.",
                KNN,
                "NT-Xent",
                "DCL",
                headline=True,
            )
        ],
        note=f"{HOW}, batch 32, {EPOCHS['sgd']} epochs of SGD with momentum 0.9.",
        seeds=range(LOOKS[-1]),
        looks=LOOKS,
        tuning=Tuning({"rate": (1e-3, 3e-3, 1e-2)}, score),
        runs="dcl-sgd",
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
