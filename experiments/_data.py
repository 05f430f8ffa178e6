"""What several experiments share: garments to train, tune and test on, a network, kNN in percent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.datasets import ImageSet, fashion_mnist, long_tailed
from cl_teach.evaluation import embed, knn_accuracy, linear_probe
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.readouts import mutual_information
from cl_teach.training import at_scale, device

POOL = 8000  # of the 10,000 embedded training images; the other 2,000 are for tuning
PATCH = 6
SMOKE = 130  # images to test on at the smoke scale; twice as many to train on


class Garments(NamedTuple):
    """Fashion-MNIST: images to train on, to tune on, and to test on."""

    train: ImageSet
    held_out: ImageSet
    test: ImageSet


@cache
def garments(size: int = POOL, shuffle_seed: int | None = None) -> Garments:
    """The embedded images, ``size`` of the pool to train on, in the stored order or in that of a seed."""
    full, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    order = torch.arange(len(full.labels))
    if shuffle_seed is not None:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(shuffle_seed))
    held_out, few = order[POOL:], at_scale(None, None, smoke=SMOKE)
    return Garments(rows(full, order[:size][: few and 2 * few]), rows(full, held_out[:few]), rows(test, slice(few)))


def rows(data: ImageSet, which: Any) -> ImageSet:
    """Some images with their labels."""
    return ImageSet(data.images[which], data.labels[which], data.classes)


def per_class(data: ImageSet, each: int) -> ImageSet:
    """The first so many images of every class."""
    even = long_tailed(data, 1.0)
    return rows(even, torch.cat([(even.labels == c).nonzero()[:each, 0] for c in range(len(data.classes))]))


def clutter(images: Tensor, generator: torch.Generator, pieces: int = 4) -> Tensor:
    """Garments at half their size, anywhere in the image, among pieces of other garments of the batch.

    Where it is and what is around it says nothing of a garment, but is most of what a pixel sees. An untrained encoder
    finds a fifth of the classes, one that was trained with labels more than half: room to tell methods apart.
    """
    n, small = len(images), F.avg_pool2d(images, 2)[:, 0]  # (n, 14, 14)
    canvas = torch.zeros(n, 28, 28, device=images.device)
    each = torch.arange(n, device=images.device)[:, None, None]

    def draw(limit: int) -> Tensor:
        return torch.randint(0, limit, (2, n), generator=generator, device=images.device)

    def window(corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
        steps = torch.arange(side, device=images.device)
        return (corner[0][:, None] + steps)[:, :, None], (corner[1][:, None] + steps)[:, None, :]

    def put(what: Tensor) -> None:
        y, x = window(draw(28 - what.shape[1] + 1), what.shape[1])
        canvas[each, y, x] = torch.maximum(canvas[each, y, x], what)

    for _ in range(pieces):
        whose = torch.randperm(n, generator=generator, device=images.device)[:, None, None]
        put(small[whose, *window(draw(14 - PATCH + 1), PATCH)])
    put(small)
    return canvas[:, None]


class Network(nn.Module):
    """Encoder and head; the head is dropped after training."""

    def __init__(self, *, width: int = 16, dim: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = ConvEncoder(width=width)
        self.head = ProjectionHead(self.encoder.feature_dim, dim, hidden=hidden)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, dim)``."""
        return self.head(self.encoder(images))

    def pair(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of both views in one pass."""
        z1, z2 = self(torch.cat([view1, view2])).chunk(2)
        return z1, z2


def knn(encoder: nn.Module, bank: ImageSet, test: ImageSet, k: int = 10) -> float:
    """KNN accuracy of the encoder's features in percent."""
    known, features = embed(encoder, bank.images), embed(encoder, test.images)
    return 100 * knn_accuracy(known, bank.labels, features, test.labels, k=k)


def probe(known: Tensor, labels: Tensor, features: Tensor, unknown: Tensor) -> float:
    """Linear-probe accuracy in percent."""
    return 100 * linear_probe(known, labels, features, unknown, max_iter=at_scale(300, 300, smoke=2))


def nodes(features: Tensor, labels: Tensor, known: Tensor, asked: Tensor, seed: int) -> dict[str, float]:
    """What features of a graph's nodes tell: accuracy of a linear probe that knows some labels, and NMI of K-means."""
    found = KMeans(int(labels.max()) + 1, n_init=5, random_state=seed).fit(features.double().numpy())
    return {
        "probe": 100 * linear_probe(features[known], labels[known], features[asked], labels[asked]),
        "nmi": mutual_information(torch.from_numpy(found.labels_).long(), labels),
    }


def after_step(module: nn.Module) -> Callable[[], None] | None:
    """What a method does after the optimizer, None where there is nothing."""
    return getattr(module, "after_step", None)
