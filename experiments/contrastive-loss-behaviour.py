"""A temperature sweep: uniformity, tolerance and neighbors of features learned at different temperatures.

For each of five seeds one small encoder is trained from the same initial weights at every temperature, and once with
the simple loss, which is the limit of high temperature. Everything else is equal: data, views, batch size, steps,
optimizer, learning rate. Two data sets:

- the embedded Fashion-MNIST, where the semantic neighbors of a garment are those with its label;
- sprites, where they are known by construction: the views keep shape and color of a sprite, so sprites that share both
  are semantic neighbors, and differ in texture, place and size.

Uniformity and tolerance are those of the embeddings that the loss sees, on test images; kNN is that of the features
below the head. ``make evidence ONLY=contrastive-loss-behaviour`` writes the records and the single runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.augment import Compose, gaussian_noise, random_resized_crop, simclr_augment
from cl_teach.core import info_nce
from cl_teach.datasets import fashion_mnist, sprites
from cl_teach.evaluation import alignment, embed, knn_accuracy, tolerance, uniformity
from cl_teach.evidence import record, save_runs
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.theory.contrastive_loss_behaviour import simple_loss
from cl_teach.training import at_scale, device, pretrain, seed_everything

SLUG = "contrastive-loss-behaviour"
SEEDS = (0, 1, 2, 3, 4)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
OPTIONS: dict[str, Any] = {
    "epochs": at_scale(6, 100),
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}


def losses() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name to loss: the softmax loss at every temperature, and its linear limit."""
    table: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        str(t): partial(info_nce, temperature=t) for t in TEMPERATURES
    }
    table["simple"] = partial(simple_loss, negative_weight=1 / (OPTIONS["batch_size"] - 1))
    return table


def fashion() -> tuple[Tensor, Tensor, Tensor, Tensor, Compose]:
    """Training images and labels, test images and labels, views."""
    train, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    return train.images, train.labels, test.images, test.labels, simclr_augment(scale=(0.3, 1.0))


def shapes() -> tuple[Tensor, Tensor, Tensor, Tensor, Compose]:
    """Sprites; a label is a pair of shape and color, which the views keep."""
    train, test = sprites(6000, seed=0, device=device()), sprites(2000, seed=1, device=device())
    views = Compose([partial(random_resized_crop, scale=(0.4, 1.0), flip=0.5), partial(gaussian_noise, std=0.05)])

    def label(factors: dict[str, Tensor]) -> Tensor:
        return factors["shape"] * 6 + factors["color"]

    return train.images, label(train.factors), test.images, label(test.factors), views


def run(
    data: tuple[Tensor, Tensor, Tensor, Tensor, Compose], loss: Callable[[Tensor, Tensor], Tensor], seed: int
) -> dict[str, float]:
    """Train once and measure."""
    images, labels, test_images, test_labels, views = data
    seed_everything(seed)
    encoder = ConvEncoder(images.shape[1], images.shape[-1], width=16)
    head = ProjectionHead(encoder.feature_dim, 64, hidden=128)
    pretrain(encoder, head, images, loss=loss, augment=views, seed=seed, **OPTIONS)
    model = nn.Sequential(encoder, head)
    z = embed(model, test_images)
    generator = torch.Generator(device()).manual_seed(1234)  # the same pair of views of the test images for every run
    pair = [embed(model, views(test_images, generator)) for _ in range(2)]
    features, test_features = embed(encoder, images), embed(encoder, test_images)
    return {
        "uniformity": uniformity(z).item(),
        "tolerance": tolerance(z, test_labels).item(),
        "alignment": alignment(*pair).item(),
        "knn": 100 * knn_accuracy(features, labels, test_features, test_labels, k=10),
    }


def best_temperature(data: tuple[Tensor, Tensor, Tensor, Tensor, Compose], temperature: float, seed: int) -> float:
    """Train at one temperature; return the one at which the trained network would have the lowest loss.

    Counted as a share of the temperature of training: 1 means that the embeddings have the spread that the loss wants.
    """
    images, _, test_images, _, views = data
    seed_everything(seed)
    encoder = ConvEncoder(images.shape[1], images.shape[-1], width=16)
    head = ProjectionHead(encoder.feature_dim, 64, hidden=128)
    loss = partial(info_nce, temperature=temperature)
    pretrain(encoder, head, images, loss=loss, augment=views, seed=seed, **OPTIONS)
    generator = torch.Generator(device()).manual_seed(1234)
    model = nn.Sequential(encoder, head)
    z1, z2 = (embed(model, views(test_images[:256], generator)) for _ in range(2))
    choices = [0.005 * 1.05**k for k in range(120)]  # up to 1.7
    return min(choices, key=lambda t: info_nce(z1, z2, temperature=t).item()) / temperature


def calibration() -> None:
    """Record whether small temperatures are calibrated and large ones are not."""
    start, data = time.perf_counter(), fashion()
    found = {t: [best_temperature(data, t, seed) for seed in SEEDS] for t in (0.02, 0.05, 0.2, 1.0)}
    for low, high in ((0.05, 0.2), (0.02, 1.0)):
        result = record(
            SLUG,
            f"calibrated-{low}-against-{high}".replace(".", ""),
            claim="Below the border a network has the spread that its loss wants, above it has not.",
            metric="Best evaluation temperature over training temperature, on Fashion-MNIST",
            unit="",
            expected="higher",
            baseline_name=f"temperature {high}",
            method_name=f"temperature {low}",
            seeds=SEEDS,
            baseline=found[high],
            method=found[low],
            seconds=time.perf_counter() - start,
            note=f"{OPTIONS['epochs']} epochs, batch 256, 256 test images; 1 means calibrated.",
        )
        print(f"{result.claim_id}: {result.verdict}, {result.interval}", result.baseline, result.method)


def main() -> None:
    """Run the sweep and write records and runs."""
    calibration()
    start, runs = time.perf_counter(), []
    data_sets = {"fashion": fashion(), "sprites": shapes()}
    todo = [(d, name, seed) for d in data_sets for name in losses() for seed in SEEDS]
    for where, name, seed in tqdm(todo, desc="runs"):
        found = run(data_sets[where], losses()[name], seed)
        runs.append({"data": where, "loss": name, "seed": seed, **found})
        print(runs[-1], flush=True)
    save_runs(SLUG, runs)

    def values(where: str, name: str, metric: str) -> list[float]:
        return [r[metric] for r in runs if r["data"] == where and r["loss"] == name]

    # baseline, method, metric, what the claim expects of the method, the claim
    claims = {
        "uniformity-falls": (
            "1.0",
            "0.2",
            "uniformity",
            "lower",
            "A lower temperature spreads embeddings more evenly.",
        ),
        "tolerance-falls": (
            "1.0",
            "0.2",
            "tolerance",
            "lower",
            "A lower temperature is less tolerant to semantically similar samples.",
        ),
        "middle-beats-high": (
            "1.0",
            "0.2",
            "knn",
            "higher",
            "A middle temperature learns better features than a high one.",
        ),
        "middle-beats-low": (
            "0.02",
            "0.2",
            "knn",
            "higher",
            "A middle temperature learns better features than a very low one.",
        ),
        "softmax-beats-simple": (
            "simple",
            "0.2",
            "knn",
            "higher",
            "Hardness awareness helps: the softmax beats the simple loss.",
        ),
        "reversal": (
            "0.2",
            "0.02",
            "uniformity",
            "higher",
            "Below a small temperature the trend reverses: embeddings become less uniform.",
        ),
    }
    names = {"uniformity": ("Uniformity", ""), "tolerance": ("Tolerance", ""), "knn": ("kNN accuracy", "points")}
    for where in data_sets:
        for claim_id, (baseline, method, metric, expected, claim) in claims.items():
            result = record(
                SLUG,
                f"{claim_id}-{where}",
                claim=claim,
                metric=f"{names[metric][0]} on {'Fashion-MNIST' if where == 'fashion' else 'sprites'}",
                unit=names[metric][1],
                expected=expected,
                baseline_name="simple loss" if baseline == "simple" else f"temperature {baseline}",
                method_name=f"temperature {method}",
                seeds=SEEDS,
                baseline=values(where, baseline, metric),
                method=values(where, method, metric),
                seconds=time.perf_counter() - start,
                note=f"{OPTIONS['epochs']} epochs, batch 256; uniformity and tolerance above the head, kNN below it.",
            )
            print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
