"""Does a translator that takes the easy way make views in which the easy way is lost?

Handwritten digits of 8x8 pixels in ten colors. In the training images the color goes with the digit, always (or in
95 %); test images have colors drawn at random. A translator learns to move images into the class of another digit
(`TranslatorTrainer`); nobody tells it that there are colors. With kernels of size 1 it cannot change a shape; with
size 3 it can.

*With labels.* Cross-entropy alone (*plain*), on translated views (*translated*, weight of the contrast 0: it decides
what the contrast adds), and CDvG; *paint* is the bound that knows what the bias is: views are painted in colors at
random. *Without labels.* The contrastive term alone: on views with pixel noise (SimCLR), on translated views with the
same noise, on painted ones. (The translator saw the labels even there.) *Untrained* and *pixels* train nothing.

All arms have the same network, noise, batches and steps; the learning rate is tuned on images with free colors, which
somebody who has only biased images could not do. Digit and color are read from the features by linear probes, fitted
on held-out images with free colors.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn

from cl_teach.datasets import color_by_label, digits
from cl_teach.evaluation import linear_probe
from cl_teach.models import MLP, ClassCritic, ClassTranslator
from cl_teach.models.class_translator import TranslatorTrainer
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.cdvg import CDvG

TRAIN, BATCH, NOISE, COPIES = 1100, 128, 0.15, 3
EPOCHS = at_scale(30, 60, smoke=1)
TRANSLATOR_STEPS = at_scale(500, 1000, smoke=5)


TURNS = torch.arange(10)[:, None] / 10 - torch.arange(3) / 3
HUES = 0.55 + 0.45 * torch.cos(2 * math.pi * TURNS)  # (10, 3), around the circle of hues


def paint(gray: Tensor, colors: Tensor, *, generator: torch.Generator) -> Tensor:
    """One of ten hues each, a little off."""
    return color_by_label(gray, HUES[colors], 0.05 * torch.randn(len(colors), 3, generator=generator))


class Parts:
    """Digits of one seed: gray images with their labels, to train on, to tune on and fit probes, to test on."""

    def __init__(self, seed: int) -> None:
        pool, test = digits("train"), digits("test")
        order = torch.randperm(len(pool.labels), generator=torch.Generator().manual_seed(seed))
        self.train = pool.images[order[:TRAIN]], pool.labels[order[:TRAIN]]
        self.held_out = pool.images[order[TRAIN:]], pool.labels[order[TRAIN:]]
        self.test = test.images.repeat(COPIES, 1, 1, 1), test.labels.repeat(COPIES)


def biased(seed: int, aligned: float) -> tuple[Tensor, Tensor]:
    """Training images whose color is their label, but for a share with a free color."""
    gray, labels = Parts(seed).train
    draws = torch.Generator().manual_seed(seed)
    free = torch.rand(len(labels), generator=draws) >= aligned
    colors = torch.where(free, torch.randint(10, labels.shape, generator=draws), labels)
    return paint(gray, colors, generator=draws), labels


def unbiased(data: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images in free colors, labels and colors."""
    gray, labels = data
    draws = torch.Generator().manual_seed(seed)
    colors = torch.randint(10, labels.shape, generator=draws)
    return paint(gray, colors, generator=draws), labels, colors


@cache
def translator(seed: int, kernel: int, aligned: float) -> ClassTranslator:
    """A translator that was trained on the biased images."""
    seed_everything(seed)
    images, labels = biased(seed, aligned)
    network = ClassTranslator(3, 10, kernel_size=kernel)
    trainer = TranslatorTrainer(network, ClassCritic(3, 10), 10)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(TRANSLATOR_STEPS):
        rows = torch.randint(len(labels), (64,), generator=draws)
        trainer.step((images[rows], labels[rows]), generator=draws)
    return network


def noisy(views: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """What all arms have in common."""
    return views + NOISE * torch.randn(views.shape, generator=generator)


def train(seed: int, kind: str, kernel: int, aligned: float, labels: float, contrast: float, lr: float) -> CDvG:
    """Train one arm; kind says where the views come from."""
    images, targets = biased(seed, aligned)
    draws = torch.Generator().manual_seed(seed)

    def painted(x: Tensor, _: Tensor) -> Tensor:
        return paint(x.amax(1, keepdim=True), torch.randint(10, (len(x),), generator=draws), generator=draws)

    def same(x: Tensor, _: Tensor) -> Tensor:
        return x

    how = {"paint": painted, "learned": None}.get(kind, same) or translator(seed, kernel, aligned)
    seed_everything(seed)
    encoder = nn.Sequential(nn.Flatten(), MLP([192, 128, 64], norm="none"))
    method = CDvG(encoder, 64, 10, how, augment=noisy)
    if kind in ("untrained", "pixels"):
        return method

    def loss(x: Tensor, y: Tensor) -> Tensor:
        terms = method.loss(x, y, generator=draws)
        return labels * terms.cross_entropy + contrast * terms.contrastive

    options = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": lr, "seed": seed}
    fit(method, loss, (images, targets), progress=False, **options)
    return method


@torch.no_grad()
def features(method: CDvG, kind: str, images: Tensor) -> Tensor:
    """What is probed."""
    return images.flatten(1) if kind == "pixels" else method.encoder(images)


def score(seed: int, kind: str, kernel: int, aligned: float, labels: float, contrast: float, lr: float) -> float:
    """Digits of held-out images in free colors: by the classifier, or by a probe on the other half of them."""
    method = train(seed, kind, kernel, aligned, labels, contrast, lr)
    images, y, _ = unbiased(Parts(seed).held_out, seed)
    method.eval()
    if labels:
        with torch.no_grad():
            return float((method(images).argmax(1) == y).float().mean())
    x, half = features(method, kind, images), len(y) // 2
    return linear_probe(x[:half], y[:half], x[half:], y[half:], max_iter=at_scale(100, 100))


def trial(
    seed: int, kind: str, kernel: int, aligned: float, labels: float, contrast: float, lr: float
) -> dict[str, float | None]:
    """Train one arm and read digit and color."""
    method = train(seed, kind, kernel, aligned, labels, contrast, lr).eval()
    held, held_y, held_color = unbiased(Parts(seed).held_out, seed)
    test, y, color = unbiased(Parts(seed).test, seed + 1000)
    x, unknown = features(method, kind, held), features(method, kind, test)
    found: dict[str, float | None] = {
        "digit": 100 * linear_probe(x, held_y, unknown, y, max_iter=at_scale(200, 200)),
        "color": 100 * linear_probe(x, held_color, unknown, color, max_iter=at_scale(200, 200)),
    }
    with torch.no_grad():
        found["accuracy"] = 100 * float((method(test).argmax(1) == y).float().mean()) if labels else None
    return found


def moved(seed: int, kernel: int, aligned: float) -> dict[str, float]:
    """What a translator changes: whether a reader of shapes still finds the digit, and the hue is the target's."""
    network = translator(seed, kernel, aligned)
    gray, y = Parts(seed).train
    seed_everything(seed)
    shape = nn.Sequential(nn.Flatten(), MLP([64, 64, 10], norm="none"))
    ask = nn.CrossEntropyLoss()
    options = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 2e-3, "seed": seed, "progress": False}
    fit(shape, lambda a, b: ask(shape(a), b), (gray, y), **options)
    test, y, _ = unbiased(Parts(seed).test, seed + 1000)
    targets = torch.randint(10, y.shape, generator=torch.Generator().manual_seed(seed + 2000))
    with torch.no_grad():
        made = network(test, targets)
        bright = made.amax(1, keepdim=True)
        hue = (made * bright).sum((2, 3))
        nearest = nn.functional.normalize(hue, dim=1) @ nn.functional.normalize(HUES, dim=1).mT
        return {
            "content": 100 * float((shape(bright).argmax(1) == y).float().mean()),
            "content_before": 100 * float((shape(test.amax(1, keepdim=True)).argmax(1) == y).float().mean()),
            "bias": 100 * float((nearest.argmax(1) == targets).float().mean()),
        }


def arm(
    kind: str, labels: float, contrast: float, kernel: int = 1, aligned: float = 1.0, **more: float
) -> dict[str, object]:
    """Settings of an arm."""
    return {"kind": kind, "kernel": kernel, "aligned": aligned, "labels": labels, "contrast": contrast} | more


ACCURACY = Metric("Accuracy on digits in free colors", "accuracy", "points", 2.0, "Of 90.")
DIGIT = Metric("Accuracy of a linear probe for the digit", "digit", "points", 2.0, "Of 90.")
COLOR = Metric("Accuracy of a linear probe for the color (chance: 10 %)", "color", "points", 5.0, "Of 90.")
WORDS = {
    "plain": "cross-entropy",
    "translated": "cross-entropy on translated views",
    "cdvg": "CDvG",
    "painted": "cross-entropy on painted views",
    "translated-3": "cross-entropy on translated views, kernel 3",
    "cdvg-3": "CDvG, kernel 3",
    "plain-95": "cross-entropy, 5 % free colors",
    "cdvg-95": "CDvG, 5 % free colors",
    "noise": "SimCLR, pixel noise",
    "views": "contrast of translated views",
    "views-3": "contrast of translated views, kernel 3",
    "painted-views": "contrast of painted views",
    "untrained": "untrained network",
    "pixels": "pixels",
}
BROKE = "In four of five seeds the translator with kernel 3 broke down: its pictures are black."
DEBIASING = Experiment(
    "cdvg",
    {
        "plain": arm("none", 1, 0),
        "translated": arm("learned", 1, 0),
        "cdvg": arm("learned", 1, 1),
        "painted": arm("paint", 1, 0),
        "translated-3": arm("learned", 1, 0, 3),
        "cdvg-3": arm("learned", 1, 1, 3),
        "plain-95": arm("none", 1, 0, aligned=0.95),
        "cdvg-95": arm("learned", 1, 1, aligned=0.95),
        "noise": arm("none", 0, 1),
        "views": arm("learned", 0, 1),
        "views-3": arm("learned", 0, 1, 3),
        "painted-views": arm("paint", 0, 1),
        "untrained": arm("untrained", 0, 0),
        "pixels": arm("pixels", 0, 0),
    },
    trial,
    [
        Claim(
            "unbiased-accuracy",
            "Trained on images whose color always goes with the digit, CDvG recognizes digits in other colors.",
            ACCURACY,
            "plain",
            "cdvg",
            headline=True,
        ),
        Claim("contrast", "The contrast adds to cross-entropy on the same views.", ACCURACY, "translated", "cdvg"),
        Claim(
            "kernel",
            "A translator that can change shapes serves less well.",
            ACCURACY,
            "cdvg",
            "cdvg-3",
            "lower",
            "ours",
            note=BROKE,
        ),
        Claim(
            "contrast-3",
            "With such a translator the contrast adds.",
            ACCURACY,
            "translated-3",
            "cdvg-3",
            origin="ours",
            note=BROKE,
        ),
        Claim("bound", "Knowing the bias is better still.", ACCURACY, "cdvg", "painted", origin="ours"),
        Claim("some-free", "With 5 % of free colors CDvG still gains.", ACCURACY, "plain-95", "cdvg-95"),
        Claim(
            "free-digit",
            "Without labels in the loss, translated views keep the digit.",
            DIGIT,
            "noise",
            "views",
            origin="ours",
        ),
        Claim("free-color", "And lose the color.", COLOR, "noise", "views", "lower", "ours"),
        Claim(
            "color-left",
            "Even so they keep more color than painted views.",
            COLOR,
            "painted-views",
            "views",
            origin="ours",
        ),
        Claim("pixels", "Their digit is read better than from pixels.", DIGIT, "pixels", "views", origin="ours"),
        Claim("color-kept", "With labels, CDvG's features lose color.", COLOR, "plain", "cdvg", "lower"),
    ],
    WORDS,
    f"1,100 digits of 8x8 pixels in ten colors, all as their label; MLP 192-128-64, {EPOCHS} epochs in batches of "
    f"{BATCH}, pixel noise in all arms, learning rate tuned on free colors; tested on 355 digits in three colors each.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"lr": (5e-4, 2e-3, 8e-3)},
        score,
        like={
            "painted": "translated",
            "translated-3": "translated",
            "cdvg-3": "cdvg",
            "views-3": "views",
            "painted-views": "views",
            "untrained": "noise",
            "pixels": "noise",
        },
        widen=0,
    ),
)
MOVES = Experiment(
    "cdvg",
    {f"kernel-{k}": {"kernel": k, "aligned": 1.0} for k in (1, 3)},
    moved,
    [
        Claim(
            "shape-kept",
            "A translator that only sees single pixels keeps the shape of the digit.",
            Metric(
                "Digits that a reader of shapes still finds after the translation", "content", "points", 2.0, "Of 90."
            ),
            "kernel-3",
            "kernel-1",
            origin="ours",
            note=BROKE,
        ),
        Claim(
            "color-moved",
            "And it moves the color as well as one that sees neighbors.",
            Metric("Translations whose color is that of the target", "bias", "points", 10.0, "Of 90."),
            "kernel-3",
            "kernel-1",
            origin="ours",
            note=BROKE,
        ),
    ],
    {"kernel-1": "kernel 1", "kernel-3": "kernel 3"},
    "The same translators, on test digits in free colors; targets drawn at random.",
    runs="cdvg-translator",
)
EXPERIMENTS = (DEBIASING, MOVES)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
