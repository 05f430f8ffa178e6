"""With few images: does a fixed scattering front end learn better features than a convolutional one?

Garments of 16 by 16 pixels, 200 images to train on without labels. Front ends: *scattering* (two scales, four angles,
25 maps of 4 by 4, fixed) or *convolution* (two layers to as many maps, trained). On both stands the same adapter, then
the same projection. Training: SimCLR alone (*none*), or with the paper's pretext task: the *rotation*, from the fifth
percent of the steps on as in the paper (40 of 1,000 epochs), or *now*, from the first; or the *jigsaw*. Controls that
train nothing: *pixels*, the *maps* of either front end, and the *untrained* adapter on scattering.

A fixed front end need be computed only once. So every image has 16 stored views, drawn beforehand and alike for all
arms, and as many of each of its rotations; scattering of these is computed once a seed. A step compares two of an
image's views. A linear probe reads the features (of the adapter; the flattened maps; the pixels) from 200 or 1,000
labeled images and is judged on all 2,000 test images.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import simclr_augment
from cl_teach.core import nt_xent
from cl_teach.datasets import fashion_mnist
from cl_teach.evaluation import linear_probe
from cl_teach.models.scattering import Scattering, ScatteringAdapter
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.scatsimclr import ScatSimCLR, cut_tiles, distant_permutations, rotations, scatsimclr_terms

SIDE, BATCH, STEPS = 16, 50, at_scale(200, 2000, smoke=4)
VIEWS, TILED = at_scale(16, 16, smoke=2), at_scale(4, 4, smoke=1)  # stored views of an image; those cut into tiles
POOL, FEW, MORE = 8000, 200, 1000  # images to train on come first, images to tune on after; labels of the probe
TEST = at_scale(None, None, smoke=100)
SCATTERING, AUGMENT = Scattering((SIDE, SIDE)), simclr_augment()


class Garments(NamedTuple):
    """Labeled images of 16 by 16 pixels to train and to judge on."""

    images: Tensor
    labels: Tensor
    asked: Tensor
    truth: Tensor


@lru_cache(2)
def garments(tuning: bool) -> Garments:
    """Test images, or for tuning those at the end of the training images."""
    train, test = fashion_mnist("train"), fashion_mnist("test")
    small, asked = (F.avg_pool2d(F.pad(each.images, (2, 2, 2, 2)), 2) for each in (train, test))
    if tuning:
        asked, test = small[POOL:], train._replace(labels=train.labels[POOL:])
    return Garments(small[:POOL], train.labels[:POOL], asked[:TEST], test.labels[:TEST])


def scattered(images: Tensor) -> Tensor:
    """Maps of many images, a part at a time."""
    return torch.cat([SCATTERING(part) for part in images.split(256)])


@lru_cache(2)
def asked_maps(tuning: bool) -> Tensor:
    """Scattering of the images that judge."""
    return scattered(garments(tuning).asked)


@lru_cache(4)
def stored_views(seed: int, images: int, scattering: bool) -> Tensor:
    """Views ``(n, 4, VIEWS, c, h, w)`` of the images of a seed in each rotation; images, or their maps."""
    draws = torch.Generator().manual_seed(seed)
    turned = rotations(chosen(seed, images))[0]
    views = torch.stack([AUGMENT(turned, generator=draws) for _ in range(VIEWS)], 1)
    if scattering:
        views = scattered(views.flatten(0, 1)).unflatten(0, (-1, VIEWS))
    return views.unflatten(0, (-1, 4))


@lru_cache(1)
def stored_tiles(seed: int, images: int) -> Tensor:
    """Scattering ``(n, TILED, 9, c, h, w)`` of the tiles of a few views; tiles can be put in any order later."""
    draws, plain = torch.Generator().manual_seed(seed), chosen(seed, images)
    tiles = [cut_tiles(AUGMENT(plain, generator=draws)).flatten(0, 1) for _ in range(TILED)]
    maps = [scattered(AUGMENT(each, generator=draws)).unflatten(0, (-1, 9)) for each in tiles]
    return torch.stack(maps, 1)


def order_of(seed: int) -> Tensor:
    """Which images a seed takes first."""
    return torch.randperm(POOL, generator=torch.Generator().manual_seed(seed))


def chosen(seed: int, images: int) -> Tensor:
    """The images to train on."""
    return garments(False).images[order_of(seed)[: at_scale(images, images, smoke=BATCH)]]


def convolution() -> nn.Module:
    """Two trained layers to as many maps as scattering has, of the same size."""
    layers: list[nn.Module] = []
    for a, b in ((1, 16), (16, SCATTERING.maps)):
        layers += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers)


def represent(seed: int, front: str, task: str, images: int, lr: float) -> tuple[nn.Module, ScatSimCLR]:
    """Train one arm; the front end and what stands on it."""
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    permutations = distant_permutations(generator=draws) if task == "jigsaw" else None
    adapter = ScatteringAdapter(SCATTERING.maps, blocks=1)
    method = ScatSimCLR(SCATTERING, adapter, AUGMENT, permutations=permutations)
    first = nn.Identity() if front == "scattering" else convolution()  # stored views are maps already
    trained = nn.ModuleList([first, method])
    if task in ("untrained", "maps"):
        return first, method
    views = stored_views(seed, images, front == "scattering")
    warmup = 0 if task in ("now", "none") else STEPS // 25

    def view(batch: Tensor, turn: Tensor | int, which: Tensor) -> Tensor:
        return adapter(first(views[batch, turn, which]))

    def loss(batch: Tensor) -> Tensor:
        n = len(batch)
        which = torch.rand(n, VIEWS, generator=draws).argsort(1)  # two different views of each image
        z1, z2 = (method.projection(view(batch, 0, which[:, k])) for k in range(2))
        if task == "none":
            return nt_xent(z1, z2, method.temperature)
        if task == "jigsaw":
            assert method.permutations is not None
            labels = torch.randint(len(method.permutations), (n,), generator=draws)
            tiles = stored_tiles(seed, images)[batch, torch.randint(TILED, (n,), generator=draws)]
            shuffled = tiles[torch.arange(n)[:, None], method.permutations[labels]]
            logits = method.pretext(adapter(shuffled.flatten(0, 1)).unflatten(0, (n, 9)))
        else:
            labels = torch.arange(4).repeat(n)
            any_view = torch.randint(VIEWS, (4 * n,), generator=draws)
            logits = method.pretext(view(batch.repeat_interleave(4), labels, any_view))
        weight = method.pretext_weight if int(method.steps) >= warmup else 0.0
        return scatsimclr_terms(z1, z2, logits, labels, method.temperature, pretext_weight=weight).loss

    fit(
        trained,
        loss,
        torch.arange(len(views)),
        epochs=max(1, STEPS * BATCH // len(views)),
        batch_size=BATCH,
        learning_rate=lr,
        seed=seed,
        progress=False,
        after_step=method.after_step,
    )
    return first, method


def accuracy(seed: int, tuning: bool, front: str, task: str, images: int, lr: float) -> dict[str, float]:
    """Train one arm; probe accuracy in percent."""
    data, first_more = garments(tuning), order_of(seed)[:MORE]
    known, asked = data.images[first_more], data.asked
    if front != "pixels":
        first, method = represent(seed, front, task, images, lr)
        if front == "scattering":
            known, asked = scattered(known), asked_maps(tuning)
        body = first if task == "maps" else nn.Sequential(first, method.adapter)
        with torch.no_grad():
            if task in ("untrained", "maps"):  # give the normalizations the mean and variance of the images
                for layer in body.modules():
                    if isinstance(layer, nn.BatchNorm2d):
                        layer.momentum = None
                body.train()(known[:FEW])
            body.eval()
            known, asked = body(known), body(asked)
    x, new, y = known.flatten(1), asked.flatten(1), data.labels[first_more]
    few, more = (100 * linear_probe(x[:k], y[:k], new, data.truth, max_iter=at_scale(100, 300)) for k in (FEW, MORE))
    return {"few": few, "more": more}


def trial(seed: int, front: str, task: str, images: int, lr: float) -> dict[str, float]:
    """One arm, judged on test images."""
    return accuracy(seed, False, front, task, images, lr)


def score(seed: int, front: str, task: str, images: int, lr: float) -> float:
    """For tuning."""
    return accuracy(seed, True, front, task, images, lr)["few"]


PROBE = Metric("Linear-probe accuracy with 200 labels", "few", "points", 1.0, "One garment in a hundred.")
LABELED = Metric("Linear-probe accuracy with 1,000 labels", "more", "points", 1.0, "One garment in a hundred.")
TRAINED = {
    f"{front}-{task}{'' if images == FEW else '-many'}": {"front": front, "task": task, "images": images}
    for images in (FEW, MORE)
    for front in ("convolution", "scattering")
    for task in ("none", "rotation")
}
ARMS = TRAINED | {
    "scattering-now": {"front": "scattering", "task": "now", "images": FEW},
    "scattering-jigsaw": {"front": "scattering", "task": "jigsaw", "images": FEW},
    "scattering-untrained": {"front": "scattering", "task": "untrained", "images": FEW},
    "scattering-maps": {"front": "scattering", "task": "maps", "images": FEW},
    "convolution-maps": {"front": "convolution", "task": "maps", "images": FEW},
    "pixels": {"front": "pixels", "task": "none", "images": FEW},
}
TUNED = ("convolution-none", "convolution-rotation", "scattering-none", "scattering-rotation")
EXPERIMENT = Experiment(
    "scatsimclr",
    ARMS,
    trial,
    [
        Claim(
            "few-images",
            "With few images, scattering and the rotation task make better features than SimCLR with a convolutional "
            "encoder.",
            PROBE,
            "convolution-none",
            "scattering-rotation",
            headline=True,
        ),
        Claim("front-end", "So does scattering alone.", PROBE, "convolution-none", "scattering-none"),
        Claim("rotation", "The rotation task adds to it.", PROBE, "scattering-none", "scattering-rotation"),
        Claim(
            "rotation-convolution",
            "The rotation task helps a convolutional encoder.",
            PROBE,
            "convolution-none",
            "convolution-rotation",
        ),
        Claim("jigsaw", "The jigsaw adds to scattering.", PROBE, "scattering-none", "scattering-jigsaw"),
        Claim(
            "warm-up",
            "The rotation task is better begun after a while than at once.",
            PROBE,
            "scattering-now",
            "scattering-rotation",
        ),
        Claim(
            "more-labels",
            "The advantage stays when the probe has 1,000 labels.",
            LABELED,
            "convolution-none",
            "scattering-rotation",
            origin="ours",
        ),
        Claim(
            "more-images",
            "The advantage stays with 1,000 images to train on.",
            PROBE,
            "convolution-none-many",
            "scattering-rotation-many",
            origin="ours",
        ),
        Claim(
            "trained",
            "Training adds to what the untrained scattering maps tell.",
            PROBE,
            "scattering-maps",
            "scattering-rotation",
            origin="ours",
        ),
        Claim(
            "trained-many",
            "It does with 1,000 images and labels.",
            LABELED,
            "scattering-maps",
            "scattering-rotation-many",
            origin="ours",
        ),
        Claim(
            "adapter",
            "Training the adapter is better than leaving it as it was drawn.",
            PROBE,
            "scattering-untrained",
            "scattering-rotation",
            origin="ours",
        ),
        Claim(
            "random-maps",
            "Untrained scattering beats untrained convolutions.",
            PROBE,
            "convolution-maps",
            "scattering-maps",
            origin="ours",
        ),
        Claim("pixels", "Untrained scattering beats pixels.", PROBE, "pixels", "scattering-maps", origin="ours"),
    ],
    {
        "convolution-none": "SimCLR, convolution",
        "convolution-rotation": "SimCLR and rotation, convolution",
        "scattering-none": "SimCLR, scattering",
        "scattering-rotation": "ScatSimCLR",
        "convolution-none-many": "SimCLR, convolution, 1,000 images",
        "convolution-rotation-many": "SimCLR and rotation, convolution, 1,000 images",
        "scattering-none-many": "SimCLR, scattering, 1,000 images",
        "scattering-rotation-many": "ScatSimCLR, 1,000 images",
        "scattering-now": "ScatSimCLR without warm-up",
        "scattering-jigsaw": "ScatSimCLR with the jigsaw",
        "scattering-untrained": "untrained adapter on scattering",
        "scattering-maps": "untrained scattering",
        "convolution-maps": "untrained convolutions",
        "pixels": "pixels",
    },
    f"Garments of 16x16 pixels, 16 stored views an image, {STEPS} steps of {BATCH}, temperature 0.5, weight 0.3 of the "
    "pretext task; learning rate tuned; the same adapter on both front ends; judged on 2,000 test images.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"lr": (1e-3, 3e-3, 1e-2)},
        score,
        like={arm: arm.removesuffix("-many") for arm in TRAINED if arm.endswith("-many")}
        | {arm: "scattering-rotation" for arm in ARMS if arm not in TRAINED},
        widen=1,
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
