"""MoCo on digits, small enough to run a hundred times: the host of the methods that change features, not images.

A perceptron on 8x8 pixels, a queue of 512 keys from a momentum teacher, 25 epochs. A method is a function of the query
(raw), the key (unit) and the queue that returns the loss and the scores which that loss saw. In the first five epochs
every arm is the host, except where a method trains a network of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from _runner import Metric
from torch import Tensor, nn

from cl_teach.augment import Compose, gaussian_noise, random_resized_crop
from cl_teach.core import FeatureQueue, MomentumTeacher, info_nce, normalize
from cl_teach.datasets import digits
from cl_teach.evaluation import embed, knn_accuracy, uniformity
from cl_teach.models import MLP, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

DIM, QUEUE, BATCH, TEMPERATURE = 32, 512, 64, 0.2
EPOCHS, WARM_UP = at_scale(25, 200, smoke=2), at_scale(5, 10, smoke=1)
VIEWS = Compose([partial(random_resized_crop, scale=(0.6, 1.0)), partial(gaussian_noise, std=0.1)])


class Seen(NamedTuple):
    """A loss and the scores it saw: ``(B,)`` of the positives, ``(B, M)`` of the negatives."""

    loss: Tensor
    positive: Tensor
    negatives: Tensor


Method = Callable[[Tensor, Tensor, Tensor], Seen]


def moco(query: Tensor, key: Tensor, queue: Tensor) -> Seen:
    """The host's loss."""
    q = normalize(query)
    return Seen(info_nce(query, key, queue, TEMPERATURE), (q * key).sum(1), q @ queue.mT)


class Network(nn.Module):
    """Encoder and head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), MLP([64, 128, 64]))
        self.head = ProjectionHead(64, DIM, hidden=64)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, DIM)``, not normalized."""
        return self.head(self.encoder(images))


class Trained(NamedTuple):
    """What a run leaves behind."""

    network: Network
    queue: Tensor
    labels: Tensor  # of the queue's entries
    last: dict[str, float]


def train(method: Method, seed: int, *, trained: nn.Module | None = None, warm_up: int = WARM_UP) -> Trained:
    """Train once; the scores are means over the last epoch."""
    data, test = digits("train", device=device()), digits("test", device=device())
    seed_everything(seed)
    network = Network().to(device())
    teacher, queue = MomentumTeacher(network, momentum=0.99), FeatureQueue(QUEUE, DIM).to(device())
    queue.push(torch.randn(QUEUE, DIM, device=device()))
    names = torch.full((QUEUE,), -1, device=device())
    generator = torch.Generator(device()).manual_seed(seed)
    log: list[dict[str, float]] = []
    first = warm_up * (len(data.labels) // BATCH)
    keep = (EPOCHS - 1) * (len(data.labels) // BATCH)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        query, key = (net(VIEWS(images, generator=generator)) for net in (network, teacher))
        key = normalize(key)
        seen = (method if len(log) >= first else moco)(query, key, queue.features)
        plain = seen if method is moco else moco(query, key, queue.features)
        log.append({} if len(log) < keep else scores(seen, plain, query))
        where = int(queue.cursor)
        names[(where + torch.arange(len(key))) % QUEUE] = labels
        queue.push(key)
        return seen.loss

    fit(
        nn.ModuleList([network] if trained is None else [network, trained]),
        step,
        (data.images, data.labels),
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=2e-3,
        weight_decay=1e-4,
        seed=seed,
        after_step=lambda: teacher.update(network),
        progress=False,
    )
    rows = log[keep:]
    last = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    bank, unknown = embed(network.encoder, data.images), embed(network.encoder, test.images)
    last["knn"] = 100 * knn_accuracy(bank, data.labels, unknown, test.labels, k=10)
    last["uniformity"] = float(uniformity(embed(network, test.images)))
    return Trained(network, queue.features, names, last)


@torch.no_grad()
def scores(seen: Seen, plain: Seen, query: Tensor) -> dict[str, float]:
    """Means over a batch; ``queue`` is the plain task against the plain queue, ``proxy`` what the loss saw."""
    return {
        "loss": seen.loss.item(),
        "proxy": 100 * proxy(seen),
        "queue": 100 * proxy(plain),
        "positive": plain.positive.mean().item(),
        "positive_seen": seen.positive.mean().item(),
        "spread": plain.negatives.std().item(),
        "spread_seen": seen.negatives.std().item(),
        "length": query.norm(dim=1).mean().item(),
    }


def proxy(seen: Seen) -> float:
    """How often the positive has the highest score."""
    return (seen.positive > seen.negatives.amax(1)).float().mean().item()


def measured(result: Trained) -> dict[str, float]:
    """What a run leaves behind, for the file of runs."""
    return {key: round(value, 5) for key, value in result.last.items()}


NOTE = f"Digits, {EPOCHS} epochs, queue of {QUEUE}, temperature {TEMPERATURE}."
UNIFORMITY = Metric(
    "Uniformity of the test images",
    "uniformity",
    smallest_effect=0.05,
    reason="A change of 0.05 nats is what a tenth of a change of the temperature brings.",
)
KNN = Metric("kNN accuracy", "knn", "points")
