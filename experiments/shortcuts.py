"""Which views, which features: tinted garments, and what the game lets a network get away with.

Every garment of the embedded Fashion-MNIST is tinted in a random hue. Two crops of one picture then share their color,
and color alone wins nearly every game. Three sets of views: crops (and mirroring), colors (brightness, contrast,
saturation, hue and grayscale), both. Features are judged by kNN (k = 10) on 2,000 test images against a bank of the
training images: clean, with queries cropped at random, and with queries in a new hue. Settings are those of
``simclr.py``; nothing was tuned for any of the views.

``make evidence ONLY=shortcuts`` writes ``data/evidence/shortcuts.json``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from _runner import Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.augment import Compose, horizontal_flip, random_resized_crop, simclr_augment
from cl_teach.core import nt_xent
from cl_teach.datasets import fashion_mnist
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, pretrain, seed_everything

IMAGES, EPOCHS, CROP = at_scale(4000, 60_000, smoke=512), at_scale(8, 60, smoke=1), (0.3, 1.0)
VIEWS = {
    "crop": Compose([partial(random_resized_crop, scale=CROP), horizontal_flip]),
    "color": simclr_augment(1.0, channels=3, scale=(1.0, 1.0), ratio=(1.0, 1.0)),
    "both": simclr_augment(1.0, channels=3, scale=CROP),
}


def tint(images: Tensor, seed: int) -> Tensor:
    """Gray pictures ``(n, 1, h, w)`` in one random hue each, ``(n, 3, h, w)``; the brightest channel is the picture."""
    hue = torch.rand(len(images), 1, generator=torch.Generator().manual_seed(seed)).to(images.device)
    color = 1 + torch.cos(2 * math.pi * (hue - torch.tensor([0, 1 / 3, 2 / 3], device=images.device)))  # (n, 3)
    return images * (color / color.amax(1, keepdim=True))[:, :, None, None]


def mean_color(images: Tensor) -> Tensor:
    """``(n, 3)`` share of red, green and blue in the light of a picture."""
    light = images.sum((2, 3))
    return light / light.sum(1, keepdim=True).clamp_min(1e-6)


def trial(seed: int, views: str) -> dict[str, Any]:
    """Train with one set of views (or not at all) and judge."""
    train, test = fashion_mnist("train"), fashion_mnist("test")
    images, labels = tint(train.images[:IMAGES], seed), train.labels[:IMAGES]
    queries = tint(test.images, 1000 + seed)
    draw = torch.Generator().manual_seed(seed)
    crop = VIEWS["crop"]
    shown = {
        "clean": queries,
        "cropped": crop(queries, generator=draw),
        "recolored": tint(test.images, 2000 + seed),
    }
    first, second = crop(queries[:256], generator=draw), crop(queries[:256], generator=draw)
    nearest = torch.cdist(mean_color(first), mean_color(second)).argmin(1)
    row: dict[str, Any] = {"color_wins": 100 * (nearest == torch.arange(256)).double().mean().item()}

    seed_everything(seed)
    encoder = ConvEncoder(3)
    head = ProjectionHead(encoder.feature_dim, 64, hidden=256)
    if views != "none":
        pretrain(
            encoder,
            head,
            images,
            loss=lambda z1, z2: nt_xent(z1, z2, 0.2),
            augment=VIEWS[views],
            seed=seed,
            epochs=EPOCHS,
            batch_size=256,
            learning_rate=2e-3,
            weight_decay=1e-4,
            progress=False,
        )
    bank = embed(encoder, images)
    for name, pictures in shown.items():
        row[name] = 100 * knn_accuracy(bank, labels, embed(encoder, pictures), test.labels, k=10)
    return row


CLEAN, CROPPED = Metric("kNN accuracy", "clean", "points"), Metric("kNN accuracy, queries cropped", "cropped", "points")
EXPERIMENT = Experiment(
    slug="shortcuts",
    arms={name: {"views": name} for name in ("none", *VIEWS)},
    trial=trial,
    names={"none": "untrained encoder", "crop": "crops", "color": "colors", "both": "crops and colors"},
    note=f"{IMAGES} tinted garments, {EPOCHS} epochs, batch 256, temperature 0.2; nothing tuned.",
    claims=(
        Claim(
            "color-shortcut",
            "Where crops share their color, training on crops alone makes features worse than an untrained encoder's.",
            CLEAN,
            "none",
            "crop",
            expected="lower",
            origin="ours",
        ),
        Claim(
            "color-in-the-views",
            "Changing the color in the views as well removes the shortcut.",
            CLEAN,
            "crop",
            "both",
            origin="paper",
            headline=True,
        ),
        Claim(
            "no-crop",
            "On centered garments, views that change only the color serve clean queries better than crops and colors.",
            CLEAN,
            "both",
            "color",
            origin="ours",
        ),
        Claim(
            "cropped-queries",
            "Queries that are cropped need views that are cropped.",
            CROPPED,
            "color",
            "both",
            origin="ours",
        ),
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
