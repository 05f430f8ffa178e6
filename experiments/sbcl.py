"""Does a head class keep its inner structure, and does that help the tail? SBCL on blobs and digits.

Three worlds. *Blobs*: four classes made of 6, 3, 1 and 1 Gaussian clusters, equally large. *Coarse digits*: the digits
0 to 5 are one class, 6 and 7, 8, 9 the others; real images, and a head made of six kinds of things. *Long-tailed
garments*: ten classes from 300 images down to 3, as in the paper, halved to 14x14 pixels.

Arms: SupCon on the classes, SBCL, SBCL whose subclasses are drawn at random in the same sizes (are clusters needed?),
NT-Xent, which sees no labels (is keeping the structure worth a method?), and a network that was not trained. Accuracy
is that of a linear classifier on frozen features, fitted to draws in which all classes are equally frequent. The
learning rate is tuned for every arm alike, by that accuracy on training images which were left out; on the blobs, where
all arms name all classes, it is that of the chapter's first figure. The temperature is the published one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import gaussian_noise, random_resized_crop
from cl_teach.core import nt_xent
from cl_teach.core.clusters import cluster_directions
from cl_teach.datasets import ImageSet, digits, fashion_mnist, long_tailed, nested_blobs
from cl_teach.evaluation import embed, linear_probe
from cl_teach.labels.sbcl import SBCL, draw_balanced
from cl_teach.models import MLP
from cl_teach.readouts import mutual_information
from cl_teach.training import at_scale, fit, seed_everything

IMBALANCE, HEAD = 100.0, 300
COARSE = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
WARM_UP, EVERY = 5, 5
EPOCHS = {"blobs": at_scale(80, 80, smoke=6), "coarse": at_scale(30, 60, smoke=6), "tail": at_scale(30, 200, smoke=6)}
PLAIN, TEMPERATURE = 3e-3, 0.1


class World(NamedTuple):
    """Inputs, classes and finer kinds, to train and to test on."""

    x: Tensor
    classes: Tensor
    kinds: Tensor
    test_x: Tensor
    test_classes: Tensor
    test_kinds: Tensor


def world(name: str, seed: int, tuning: bool = False) -> World:
    """Draw one. For tuning it is tested on training images that it left out."""
    if name == "tail":
        return garments(seed, tuning)
    if name == "blobs":
        found = nested_blobs(each=60, seed=seed)
        half = torch.arange(len(found.points)) % 2 == 0
        return World(*(part for part in (*(x[half] for x in found), *(x[~half] for x in found))))
    train, test = digits("train"), digits("test")
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    if tuning:
        test = ImageSet(train.images[order[600:]], train.labels[order[600:]], train.classes)
    y, other = train.labels[order[:600]], test.labels
    return World(train.images[order[:600]].flatten(1), COARSE[y], y, test.images.flatten(1), COARSE[other], other)


def garments(seed: int, tuning: bool) -> World:
    """The long tail."""
    train, test = fashion_mnist("train"), fashion_mnist("test")
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[train.labels[order] == c][:HEAD] for c in range(10)])
    if tuning:
        others = torch.cat([order[train.labels[order] == c][HEAD : HEAD + 150] for c in range(10)])
        test = ImageSet(train.images[others], train.labels[others], train.classes)
    tail = long_tailed(ImageSet(train.images[chosen], train.labels[chosen], train.classes), IMBALANCE, seed=seed)
    y = tail.labels
    x, test_x = (F.avg_pool2d(images, 2).flatten(1) for images in (tail.images, test.images))
    return World(x, y, y, test_x, test.labels, test.labels)


def views(x: Tensor, generator: torch.Generator) -> Tensor:
    """One view: noise on points, a crop with noise on digits."""
    side = math.isqrt(x.shape[1])
    if side * side != x.shape[1]:
        return x + 0.3 * torch.randn(x.shape, generator=generator)
    crop = random_resized_crop(x.view(-1, 1, side, side), (0.6, 1.0), generator=generator)
    return gaussian_noise(crop, 0.1, generator=generator).flatten(1)


def train(data: World, loss: str, epochs: int, learning_rate: float, seed: int) -> MLP:
    """Train the encoder with one loss; its output is what is contrasted and what is kept."""
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    network = MLP([data.x.shape[1], 128, 32], norm="none")
    method = SBCL(data.classes, temperature=TEMPERATURE)

    def step(x: Tensor, index: Tensor) -> Tensor:
        z1, z2 = network(torch.cat([views(x, draws), views(x, draws)])).chunk(2)
        return nt_xent(z1, z2, TEMPERATURE) if loss == "nt-xent" else method.loss(z1, z2, index)

    def refresh(epoch: int) -> None:
        if loss in ("sbcl", "random") and epoch >= WARM_UP and epoch % EVERY == 0:
            method.refresh(network(data.x), generator=draws)
            if loss == "random":
                for c in range(int(data.classes.max()) + 1):
                    mine = (data.classes == c).nonzero()[:, 0]
                    method.subclasses[mine] = method.subclasses[mine[torch.randperm(len(mine), generator=draws)]]

    rows = torch.arange(len(data.x))
    options = {"epochs": epochs, "batch_size": 256, "learning_rate": learning_rate, "seed": seed, "progress": False}
    if loss != "untrained":
        fit(nn.ModuleList([network]), step, (data.x, rows), after_epoch=refresh, **options)
    return network


def measured(network: MLP, data: World, seed: int) -> dict[str, float]:
    """Balanced accuracy in percent, and how much of the head class's kinds k-means finds."""
    generator = torch.Generator().manual_seed(seed)
    z, test_z = embed(network, data.x), embed(network, data.test_x)
    rows = draw_balanced(data.classes, 600, generator=generator)
    head = data.test_classes == 0
    kinds = data.test_kinds[head]
    found = 0.0
    if len(kinds.unique()) > 1:
        clusters, _ = cluster_directions(test_z[head], len(kinds.unique()), generator=generator)
        found = mutual_information(clusters, kinds)
    accuracy = linear_probe(z[rows], data.classes[rows], test_z, data.test_classes, max_iter=100)
    return {"accuracy": 100 * accuracy, "nmi": found}


def trial(seed: int, world_name: str, loss: str, learning_rate: float, tuning: bool = False) -> dict[str, float]:
    """Train and measure one arm."""
    data = world(world_name, seed, tuning)
    network = train(data, loss, EPOCHS[world_name], learning_rate, seed)
    return measured(network, data, seed)


def score(seed: int, **settings: Any) -> float:
    """Balanced accuracy on training images that were left out."""
    return trial(seed, tuning=True, **settings)["accuracy"]


WORDS = {
    "supcon": "SupCon",
    "sbcl": "SBCL",
    "random": "random subclasses",
    "nt-xent": "NT-Xent, no labels",
    "untrained": "a network that was not trained",
}
UNTRAINED = {"learning_rate": 0.0}
NMI = Metric(
    "Mutual information of k-means clusters and the kinds inside the head class (NMI)",
    "nmi",
    smallest_effect=0.05,
    reason="A twentieth of the way from no structure to all of it.",
)
BALANCED = Metric("Accuracy of a linear classifier, all classes equally frequent in the test", "accuracy", "points")
NOTE = "MLP with a 32-dimensional output, 60 to 160 steps of AdamW, batches of 256, temperature 0.1."
TUNED = (
    "Learning rate tuned for every arm alike by balanced accuracy on other training images; random subclasses take "
    "that of SBCL."
)
RATES = {"learning_rate": (1e-3, 3e-3, 1e-2)}
STRUCTURE = Experiment(
    "sbcl",
    {f"blobs-{loss}": {"world_name": "blobs", "loss": loss, "learning_rate": PLAIN} for loss in list(WORDS)[:4]}
    | {
        f"coarse-{loss}": {"world_name": "coarse", "loss": loss} | (UNTRAINED if loss == "untrained" else {})
        for loss in WORDS
    },
    trial,
    [
        Claim(
            "structure-blobs",
            "SBCL keeps the blobs of a head class apart where SupCon merges them.",
            NMI,
            "blobs-supcon",
            "blobs-sbcl",
        ),
        Claim(
            "structure-digits",
            "SBCL keeps six digits in one head class apart where SupCon merges them.",
            NMI,
            "coarse-supcon",
            "coarse-sbcl",
        ),
        Claim(
            "clusters-digits",
            "Clusters keep the structure, random subclasses of the same sizes do not.",
            NMI,
            "coarse-random",
            "coarse-sbcl",
            origin="ours",
        ),
        Claim(
            "no-labels-digits",
            "SBCL keeps more of the structure than a loss without labels.",
            NMI,
            "coarse-nt-xent",
            "coarse-sbcl",
            origin="ours",
        ),
        Claim(
            "classes-digits",
            "Keeping the structure costs no accuracy on the coarse classes.",
            BALANCED,
            "coarse-supcon",
            "coarse-sbcl",
            origin="ours",
        ),
        Claim(
            "labels-digits",
            "SBCL names the coarse classes better than a loss without labels.",
            BALANCED,
            "coarse-nt-xent",
            "coarse-sbcl",
            origin="ours",
        ),
    ],
    {f"{w}-{loss}": word for w in ("blobs", "coarse") for loss, word in WORDS.items()},
    f"{NOTE} {TUNED} Blobs: 0.003 for all.",
    tuning=Tuning(RATES, score, like={"coarse-random": "coarse-sbcl"}),
    runs="sbcl-structure",
)
TAIL = Experiment(
    "sbcl",
    {loss: {"world_name": "tail", "loss": loss} | (UNTRAINED if loss == "untrained" else {}) for loss in WORDS},
    trial,
    [
        Claim(
            "accuracy",
            "On a long tail SBCL gives better features than SupCon.",
            BALANCED,
            "supcon",
            "sbcl",
            headline=True,
        ),
        Claim(
            "clusters-tail",
            "On a long tail clusters make better subclasses than chance.",
            BALANCED,
            "random",
            "sbcl",
            origin="ours",
        ),
        Claim(
            "untrained-tail",
            "On a long tail SBCL gives better features than a network that was not trained.",
            BALANCED,
            "untrained",
            "sbcl",
            origin="ours",
        ),
        Claim(
            "labels-tail",
            "On a long tail SBCL gives better features than a loss without labels.",
            BALANCED,
            "nt-xent",
            "sbcl",
            origin="ours",
        ),
    ],
    WORDS,
    f"{NOTE} Garments, imbalance 100, 300 images in the largest class; linear classifier on balanced draws. {TUNED}",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(RATES, score, like={"random": "sbcl"}),
)
EXPERIMENTS = (STRUCTURE, TAIL)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
