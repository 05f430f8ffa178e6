"""A temperature sweep: uniformity, tolerance and neighbors of features learned at different temperatures.

For each of five seeds one small encoder is trained from the same initial weights at every temperature, and once with
the simple loss, which is the limit of high temperature. Everything else is equal: data, views, batch size, steps,
optimizer, learning rate. Two data sets:

- the embedded Fashion-MNIST, where the semantic neighbors of a garment are those with its label;
- sprites, where they are known by construction: the views keep shape and color of a sprite, so sprites that share both
  are semantic neighbors, and differ in texture, place and size.

Uniformity and tolerance are those of the embeddings that the loss sees, on test images; kNN is that of the features
below the head. ``calibrated`` is the temperature at which the trained network would have the lowest loss, as a share of
the temperature of training: 1 means that the embeddings have the spread that the loss wants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from _data import rows
from _runner import Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.augment import Compose, gaussian_noise, random_resized_crop, simclr_augment
from cl_teach.core import info_nce
from cl_teach.datasets import fashion_mnist, sprites
from cl_teach.evaluation import alignment, embed, knn_accuracy, tolerance, uniformity
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.theory.contrastive_loss_behaviour import simple_loss
from cl_teach.training import at_scale, device, pretrain, seed_everything

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SETS = {"fashion": "Fashion-MNIST", "sprites": "sprites"}
OPTIONS: dict[str, Any] = {
    "epochs": at_scale(6, 100, smoke=1),
    "batch_size": at_scale(256, 256, smoke=64),
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}


class Data(NamedTuple):
    """Images and labels to train on and to test on, and the views."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    views: Compose


@cache
def pictures(where: str) -> Data:
    """Garments; or sprites, whose label is a pair of shape and color, which the views keep."""
    few = at_scale(None, None, smoke=200)
    if where == "fashion":
        train, test = (rows(fashion_mnist(part, device=device()), slice(few)) for part in ("train", "test"))
        return Data(train.images, train.labels, test.images, test.labels, simclr_augment(scale=(0.3, 1.0)))
    known, other = sprites(few or 6000, seed=0, device=device()), sprites(few or 2000, seed=1, device=device())
    views = Compose([partial(random_resized_crop, scale=(0.4, 1.0), flip=0.5), partial(gaussian_noise, std=0.05)])

    def label(factors: dict[str, Tensor]) -> Tensor:
        return factors["shape"] * 6 + factors["color"]

    return Data(known.images, label(known.factors), other.images, label(other.factors), views)


def of_name(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The softmax loss at a temperature, or its linear limit."""
    if name == "simple":
        return partial(simple_loss, negative_weight=1 / (OPTIONS["batch_size"] - 1))
    return partial(info_nce, temperature=float(name))


def trial(seed: int, data: str, loss: str) -> dict[str, float]:
    """Train once and measure."""
    images, labels, test_images, test_labels, views = pictures(data)
    seed_everything(seed)
    encoder = ConvEncoder(images.shape[1], images.shape[-1], width=16)
    head = ProjectionHead(encoder.feature_dim, 64, hidden=128)
    pretrain(encoder, head, images, loss=of_name(loss), augment=views, seed=seed, **OPTIONS)
    model = nn.Sequential(encoder, head)
    z = embed(model, test_images)
    generator = torch.Generator(device()).manual_seed(1234)  # the same pair of views of the test images for every run
    pair = [embed(model, views(test_images, generator)) for _ in range(2)]
    features, test_features = embed(encoder, images), embed(encoder, test_images)
    found = {
        "uniformity": uniformity(z).item(),
        "tolerance": tolerance(z, test_labels).item(),
        "alignment": alignment(*pair).item(),
        "knn": 100 * knn_accuracy(features, labels, test_features, test_labels, k=10),
    }
    if loss != "simple":
        found["calibrated"] = best_temperature(model, test_images[:256], views) / float(loss)
    return found


def best_temperature(model: nn.Module, images: Tensor, views: Compose) -> float:
    """The temperature at which a trained network has the lowest loss."""
    generator = torch.Generator(device()).manual_seed(1234)
    z1, z2 = (embed(model, views(images, generator)) for _ in range(2))
    choices = [0.005 * 1.05**k for k in range(120)]  # up to 1.7
    return min(choices, key=lambda t: info_nce(z1, z2, temperature=t).item())


EFFECTS: dict[str, tuple[str, str, float | None, str]] = {
    "uniformity": (
        "Uniformity",
        "",
        0.05,
        "A change of 0.05 nats is what a tenth of a change of the temperature brings.",
    ),
    "tolerance": ("Tolerance", "", 0.01, "A hundredth of a cosine."),
    "knn": ("kNN accuracy", "points", None, ""),
}
# claim: baseline, method, metric, what the claim expects of the method, whose it is, the sentence
CLAIMS = {
    "uniformity-falls": (
        "1.0",
        "0.2",
        "uniformity",
        "lower",
        "paper",
        "A lower temperature spreads embeddings more evenly.",
    ),
    "tolerance-falls": (
        "1.0",
        "0.2",
        "tolerance",
        "lower",
        "paper",
        "A lower temperature is less tolerant to semantically similar samples.",
    ),
    "middle-beats-high": (
        "1.0",
        "0.2",
        "knn",
        "higher",
        "paper",
        "A middle temperature learns better features than a high one.",
    ),
    "middle-beats-low": (
        "0.02",
        "0.2",
        "knn",
        "higher",
        "paper",
        "A middle temperature learns better features than a very low one.",
    ),
    "softmax-beats-simple": (
        "simple",
        "0.2",
        "knn",
        "higher",
        "paper",
        "Hardness awareness helps: the softmax beats the simple loss.",
    ),
    "reversal": (
        "0.2",
        "0.02",
        "uniformity",
        "higher",
        "ours",
        "Below a small temperature the trend reverses: embeddings become less uniform.",
    ),
}
CALIBRATED = Metric(
    "Best evaluation temperature over training temperature, on Fashion-MNIST",
    "calibrated",
    smallest_effect=0.1,
    reason="A tenth of the temperature of training.",
)
EXPERIMENT = Experiment(
    "contrastive-loss-behaviour",
    {
        f"{where} {name}": {"data": where, "loss": name}
        for where in SETS
        for name in (*(str(t) for t in TEMPERATURES), "simple")
    },
    trial,
    [
        *(
            Claim(
                f"{claim_id}-{where}",
                sentence,
                Metric(f"{EFFECTS[key][0]} on {SETS[where]}", key, *EFFECTS[key][1:]),
                f"{where} {baseline}",
                f"{where} {method}",
                expected,
                origin,
                headline=(claim_id, where) == ("tolerance-falls", "fashion"),
            )
            for where in SETS
            for claim_id, (baseline, method, key, expected, origin, sentence) in CLAIMS.items()
        ),
        *(
            Claim(
                f"calibrated-{low}-against-{high}".replace(".", ""),
                "Below the border a network has the spread that its loss wants, above it has not.",
                CALIBRATED,
                f"fashion {high}",
                f"fashion {low}",
                origin="ours",
            )
            for low, high in (("0.05", "0.2"), ("0.02", "1.0"))
        ),
    ],
    {f"{where} {t}": f"temperature {t}" for where in SETS for t in TEMPERATURES}
    | {f"{where} simple": "simple loss" for where in SETS},
    f"{OPTIONS['epochs']} epochs, batch 256; uniformity and tolerance above the head, kNN below it.",
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
