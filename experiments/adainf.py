"""Do generated data want a weaker augmentation? Exactly, in the augmentation graph; and trained, on garments.

*Graph.* Two classes on the intervals [0.02, 0.44] and [0.56, 0.98], 30 real points, and 0, 300 or 3,000 further points
of the same law, from a perfect generator. The augmentation is a Gaussian of some width on 80 nodes. Widths ascend by a
twelfth of a doubling; *useful* is the smallest at which the third eigenvalue reaches 0.01, so that each class hangs
together; there the labeling error is read.

*Garments.* 256 real images of 14 by 14 pixels and 5,000 others of the same source, again a perfect generator. SimCLR
with a small convolutional encoder, the same number of steps for all. Arms: real images alone and inflated ones, each
with the strong and the weak augmentation; *adainf*, inflated with the real ones ten times and weak augmentation; the
encoder *untrained*; *pixels*. A linear probe has 2,000 other labeled images. Nothing is tuned.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor
from torch.nn import functional as F

from cl_teach.datasets import fashion_mnist
from cl_teach.evaluation import embed, linear_probe
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.adainf import (
    STRONG,
    WEAK,
    AdaInf,
    gaussian_augmentation,
    labeling_error,
    laplacian_eigenvalues,
    mix_real_and_generated,
)

REAL, BATCH, STEPS = 256, 128, at_scale(205, 2000, smoke=3)
GENERATED = at_scale(5000, 7000, smoke=200)
POOL = 8000  # images to train on; the other 2,000 are for the probe
NODES, CONNECTED = 80, 0.01
WIDTHS = [0.004 * 2 ** (k / 12) for k in range(66)]


def interval_points(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of two classes with a gap between them."""
    labels = torch.randint(2, (n,), generator=generator)
    return 0.02 + 0.42 * torch.rand(n, generator=generator).double() + 0.54 * labels, labels


def graph(seed: int, extra: int) -> dict[str, float]:
    """The smallest useful width, and the labeling error there and at a width of 0.05."""
    generator = torch.Generator().manual_seed(seed)
    points, labels = interval_points(30 + extra, generator)
    nodes, weights = torch.linspace(0, 1, NODES).double(), torch.full((len(points),), 1 / len(points)).double()

    def error(width: float) -> float:
        return float(labeling_error(gaussian_augmentation(points, nodes, width), weights, labels))

    for width in WIDTHS:
        if laplacian_eigenvalues(gaussian_augmentation(points, nodes, width), weights)[2] >= CONNECTED:
            return {"width": math.log2(width), "error": 100 * error(width), "error_wide": 100 * error(0.05)}
    raise ValueError(f"no width connects the classes of seed {seed}")


@cache
def garments() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images of 14 by 14 pixels and labels, to train and to test."""
    train, test = fashion_mnist("train"), fashion_mnist("test")
    few = at_scale(None, None, smoke=200)
    return F.avg_pool2d(train.images, 2), train.labels, F.avg_pool2d(test.images, 2)[:few], test.labels[:few]


def trial(seed: int, inflated: bool, copies: int, strength: str) -> dict[str, float]:
    """Train one arm; probe accuracy in percent."""
    images, labels, test, test_labels = garments()
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(POOL, generator=draws)
    made = images[order[REAL : REAL + GENERATED]] if inflated else images[:0]
    mixed = mix_real_and_generated(images[order[:REAL]], made, copies)
    encoder = ConvEncoder(width=8, image_size=14)
    method = AdaInf(
        encoder,
        ProjectionHead(encoder.feature_dim, 32, hidden=64),
        strengths=(STRONG if strength == "strong" else WEAK,) * 2,
    )
    if strength in ("strong", "weak"):
        each = max(1, len(mixed.images) // BATCH)  # steps of an epoch
        data = (mixed.images, mixed.ids)
        count = math.ceil(STEPS / each) * each

        class Enough(Exception):
            """The number of steps that all arms have is reached."""

        def stop(step: int, loss: Tensor) -> None:
            if step >= STEPS:
                raise Enough

        options = {"epochs": count // each, "batch_size": BATCH, "learning_rate": 3e-3, "seed": seed}
        try:
            fit(method, lambda x, i: method.loss(x, i, generator=draws), data, progress=False, on_step=stop, **options)
        except Enough:
            pass
    method.eval()
    if strength == "pixels":
        known, unknown = images[POOL:].flatten(1), test.flatten(1)
    else:
        known, unknown = embed(method, images[POOL:]), embed(method, test)
    return {"probe": 100 * linear_probe(known, labels[POOL:], unknown, test_labels, max_iter=at_scale(100, 300))}


PROBE = Metric("Linear-probe accuracy", "probe", "points")
WIDTH = Metric("Smallest useful width, in doublings", "width", "", 0.25, "A quarter of a doubling.")
ERROR = Metric("Labeling error at the smallest useful width", "error", "points", 0.1, "One label in a thousand.")
ERROR_WIDE = Metric("Labeling error at a width of 0.05", "error_wide", "points", 0.1, "One label in a thousand.")
GRAPH = Experiment(
    "adainf",
    {f"extra-{extra}": {"extra": extra} for extra in (0, 300, 3000)},
    graph,
    [
        Claim(
            "width",
            "With more data a weaker augmentation connects the classes.",
            WIDTH,
            "extra-0",
            "extra-300",
            "lower",
        ),
        Claim("width-3000", "With still more data, a still weaker one.", WIDTH, "extra-300", "extra-3000", "lower"),
        Claim("error", "There the labels are wrong less often.", ERROR, "extra-0", "extra-300", "lower"),
        Claim(
            "error-wide",
            "At one and the same strength, more data lower the error.",
            ERROR_WIDE,
            "extra-0",
            "extra-3000",
            "lower",
            "ours",
        ),
    ],
    {"extra-0": "30 real points", "extra-300": "and 300 generated", "extra-3000": "and 3,000 generated"},
    "Two classes on intervals, Gaussian augmentation on 80 nodes, perfect generator; exact linear algebra.",
    seeds=range(20),
    runs="adainf-graph",
)
ARMS = {
    "real-strong": (False, 1, "strong"),
    "real-weak": (False, 1, "weak"),
    "vanilla": (True, 1, "strong"),
    "inflated-weak": (True, 1, "weak"),
    "adainf": (True, 10, "weak"),
    "untrained": (False, 1, "untrained"),
    "pixels": (False, 1, "pixels"),
}
TRAINED = Experiment(
    "adainf",
    {name: dict(zip(("inflated", "copies", "strength"), given, strict=True)) for name, given in ARMS.items()},
    trial,
    [
        Claim(
            "adainf",
            "AdaInf beats inflation with the augmentation left as it was.",
            PROBE,
            "vanilla",
            "adainf",
            headline=True,
        ),
        Claim("inflation", "Inflation helps at all.", PROBE, "real-strong", "vanilla", origin="ours"),
        Claim(
            "weak-real",
            "On real images alone a weaker augmentation is worse.",
            PROBE,
            "real-strong",
            "real-weak",
            "lower",
        ),
        Claim("weak-inflated", "On inflated ones it is better.", PROBE, "vanilla", "inflated-weak"),
        Claim("copies", "Ten copies of the real images help.", PROBE, "inflated-weak", "adainf"),
        Claim("untrained", "Training helps.", PROBE, "untrained", "adainf", origin="ours"),
        Claim("pixels", "The features beat the pixels.", PROBE, "pixels", "adainf", origin="ours"),
    ],
    {
        "real-strong": "256 real images, strong augmentation",
        "real-weak": "256 real images, weak augmentation",
        "vanilla": "inflated, strong augmentation",
        "inflated-weak": "inflated, weak augmentation",
        "adainf": "AdaInf",
        "untrained": "untrained encoder",
        "pixels": "pixels",
    },
    f"Garments of 14x14 pixels, {GENERATED} held-out images as a perfect generator, small convolutional encoder, "
    f"{STEPS} steps of {BATCH}, temperature 0.2; nothing tuned.",
    seeds=range(20),
    looks=LOOKS,
)
EXPERIMENTS = (GRAPH, TRAINED)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
