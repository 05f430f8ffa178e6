"""Every loss of Parts 1 and 3 on one encoder and three sets of garments, with equal steps and equal tuning.

The embedded training images are split once: 8,000 to train on, 2,000 to tune on; the 2,000 test images are looked at
only with the chosen settings.

- ``long-tailed`` keeps nearly 800 images of the most frequent class and one fiftieth of that of the rarest, about 2,200
  in all; ``balanced`` has as many images, evenly spread. Views are those of SimCLR. Both are judged by kNN (k = 10) and
  a linear probe on features before the head, fitted on the balanced images.
- ``cluttered`` has room: a garment at half its size lies anywhere in the image among pieces of other garments, and a
  view puts it elsewhere among other pieces. Raw pixels find 24 % of the classes, an untrained encoder 22 %, the same
  encoder trained with labels and as many steps 53 % (``supervised``), so that a loss that learns something shows it.
  Queries and labeled images are cluttered once. The headlines of Part 3 are measured here, until decided.

Learning rate and sharpness, written as a temperature, are tuned alike for all losses. What a loss
makes of the temperature: CACR takes its negative sharpness 1 / (2 temperature), GroCo its steepness 1 / (2
temperature), iSogCLR the temperature that all samples begin with, AMCL the lower bound of its temperatures. SimSiam has
none and tries only the learning rates. iSogCLR moves its temperatures with steps of 0.3, ten times the published 0.03,
with which they stay where they began in so short a training.

The stored runs of ``balanced`` and ``long-tailed`` were tuned on one seed and a grid that could not grow;
``losses-tuning`` says so. AMCL's were made anew after the sign of its regularizer had been corrected: they have a file
of their own, ``losses-amcl``, with runs of NT-Xent that were tuned beside them on three seeds. ``python
experiments/losses.py cost`` measures the costs of a step: medians of single steps in a process of their own, one
thread; it wants a quiet machine.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Collection
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from _data import Network, after_step, clutter, garments, knn, per_class, probe
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from cl_teach.augment import simclr_augment
from cl_teach.core import FeatureQueue, MomentumTeacher, info_nce, normalize, nt_xent, regression_loss, sup_con
from cl_teach.datasets import ImageSet, long_tailed
from cl_teach.evaluation import alignment, effective_rank, embed, uniformity
from cl_teach.evidence import save_runs
from cl_teach.losses.amcl import AMCL
from cl_teach.losses.cacr import cacr
from cl_teach.losses.dcl import dcl
from cl_teach.losses.feature_transformation import draw_transformation, feature_transformation
from cl_teach.losses.groco import groco
from cl_teach.losses.hallucinator import Hallucinator, draw_ratio, hallucinated_moco
from cl_teach.losses.isogclr import ISogCLR
from cl_teach.losses.mochi import draw_mixture, hardest_rows, mochi
from cl_teach.losses.swav import SwAV
from cl_teach.models import PredictionHead, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

EPOCHS = {
    "balanced": at_scale(20, 200, smoke=1),
    "long-tailed": at_scale(20, 200, smoke=1),
    "cluttered": at_scale(12, 100, smoke=1),
}
CLUTTERED = at_scale(400, 800, smoke=10)  # images of a class
BATCH = at_scale(128, 128, smoke=32)
DIM = 64
QUEUE = 1024
AUGMENT = simclr_augment(scale=(0.3, 1.0))


class Method(NamedTuple):
    """A loss with what it needs around it.

    Attributes:
        loss: of two views, the rows' numbers in the data set, and their labels (SupCon and supervision look at them).
        trained: what is trained besides the network.
        after_step: called after every optimizer step.
    """

    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    trained: nn.Module | None = None
    after_step: Callable[[], None] | None = None


def of_pairs(loss: Callable[[Tensor, Tensor], Tensor], network: Network) -> Method:
    """A loss of the two batches of embeddings and nothing else."""
    return Method(lambda v1, v2, rows, labels: loss(*network.pair(v1, v2)))


def with_queue(loss: Callable[[Tensor, Tensor, Tensor], Tensor], network: Network, **rest: Any) -> Method:
    """A loss of query, key and queue: keys come from a momentum teacher and enter the queue after the loss."""
    teacher = MomentumTeacher(network, momentum=0.99)
    queue = FeatureQueue(QUEUE, DIM).to(device())
    queue.push(torch.randn(QUEUE, DIM, device=device()))  # as MoCo's: full of noise at the first step

    def step(v1: Tensor, v2: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        query, key = network(v1), normalize(teacher(v2))
        value = loss(query, key, queue.features)
        queue.push(key)
        return value

    return Method(step, after_step=lambda: teacher.update(network), **rest)


def mochi_loss(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Hard negatives of every query mixed anew."""
    mixture = draw_mixture(hardest_rows(query.detach(), queue, 64), 32, 16)
    return mochi(query, key, queue, mixture, temperature)


def transformed(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Positives pushed apart, negatives mixed, with new draws."""
    outward, inward, order = draw_transformation(len(queue))
    draws = {"extrapolation": outward, "interpolation": inward, "permutation": order.to(queue.device)}
    return feature_transformation(query, key, queue, temperature, **draws)


def make_simsiam(network: Network) -> Method:
    """No negatives: a predictor and a stop-gradient."""
    predictor = PredictionHead(DIM).to(device())

    def step(v1: Tensor, v2: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        z1, z2 = network.pair(v1, v2)
        p1, p2 = predictor(torch.cat([z1, z2])).chunk(2)
        return (regression_loss(p1, z2) + regression_loss(p2, z1)) / 2

    return Method(step, predictor)


def make_amcl(network: Network, temperature: float) -> Method:
    """Three heads, the network's own among them."""
    width = network.encoder.feature_dim
    heads = [network.head, *(ProjectionHead(width, DIM, hidden=128).to(device()) for _ in range(2))]
    module = AMCL(heads, DIM, low=temperature).to(device())

    def step(v1: Tensor, v2: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        return module.loss(*network.encoder(torch.cat([v1, v2])).chunk(2))

    return Method(step, module)


def make_hallucinator(network: Network, temperature: float) -> Method:
    """MoCo with a second positive from a small network."""
    module = Hallucinator(DIM).to(device())
    return with_queue(
        lambda q, k, queue: hallucinated_moco(module, q, k, queue, draw_ratio(), temperature)[0],
        network,
        trained=module,
    )


def make_isogclr(network: Network, n: int, temperature: float) -> Method:
    """A temperature for every image; all begin alike, within the range that the method leaves them."""
    memory = ISogCLR(n, temperature=max(temperature, 0.05), learning_rate=0.3).to(device())
    return Method(lambda v1, v2, rows, y: memory(*network.pair(v1, v2), rows), after_step=after_step(memory))


def make_swav(network: Network, temperature: float) -> Method:
    """Prototypes beside the network."""
    clusters = SwAV(DIM, 64, temperature=temperature).to(device())
    return Method(
        lambda v1, v2, rows, y: clusters(torch.stack(network.pair(v1, v2))), clusters, after_step=after_step(clusters)
    )


def make_supervised(network: Network) -> Method:
    """Cross-entropy with labels, on the same views."""
    classifier = nn.Linear(network.encoder.feature_dim, 10).to(device())

    def step(v1: Tensor, v2: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(classifier(network.encoder(torch.cat([v1, v2]))), labels.repeat(2))

    return Method(step, classifier)


def make(name: str, network: Network, n: int, temperature: float) -> Method:
    """The method of this name for a data set of n images."""
    half = 1 / (2 * temperature) if temperature else 0.0
    pairs: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "nt-xent": partial(nt_xent, temperature=temperature),
        "dcl": partial(dcl, temperature=temperature),
        "cacr": lambda z1, z2: cacr(torch.stack([z1, z2]), negative_sharpness=half),
        "groco": lambda z1, z2: groco(torch.stack([z1, z2]), steepness=half).mean(),
    }
    queues: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "moco": lambda q, k, queue: info_nce(q, k, queue, temperature),
        "mochi": partial(mochi_loss, temperature=temperature),
        "feature-transformation": partial(transformed, temperature=temperature),
    }
    if name in pairs:
        return of_pairs(pairs[name], network)
    if name in queues:
        return with_queue(queues[name], network)
    others: dict[str, Callable[[], Method]] = {
        "sup-con": lambda: Method(
            lambda v1, v2, rows, y: sup_con(torch.cat(network.pair(v1, v2)), y.repeat(2), temperature)
        ),
        "simsiam": lambda: make_simsiam(network),
        "isogclr": lambda: make_isogclr(network, n, temperature),
        "amcl": lambda: make_amcl(network, temperature),
        "hallucinator": lambda: make_hallucinator(network, temperature),
        "swav": lambda: make_swav(network, temperature),
        "supervised": lambda: make_supervised(network),
    }
    return others[name]()


NAMES = {
    "nt-xent": "NT-Xent",
    "moco": "MoCo",
    "simsiam": "SimSiam",
    "sup-con": "SupCon (sees the labels)",
    "dcl": "DCL",
    "cacr": "CACR",
    "isogclr": "iSogCLR",
    "amcl": "AMCL",
    "mochi": "MoCHi",
    "feature-transformation": "Feature transformation",
    "hallucinator": "Hallucinator",
    "groco": "GroCo",
    "swav": "SwAV",
}
# The host is what the paper compares with: the queue methods change MoCo, the others NT-Xent.
HOSTS = {name: "nt-xent" for name in ("dcl", "cacr", "isogclr", "amcl", "groco", "swav")} | {
    name: "moco" for name in ("mochi", "feature-transformation", "hallucinator")
}
# Methods whose central claim is this comparison; the others' is measured in a file of their own.
HEADLINES = ("mochi", "feature-transformation", "hallucinator", "swav", "groco", "amcl", "isogclr")


@cache
def split(kind: str) -> tuple[ImageSet, ImageSet, ImageSet, ImageSet]:
    """Images to train on, labeled images for kNN, images to tune on and to test on."""
    pool, validation, test = garments(shuffle_seed=0)
    if kind == "cluttered":
        train = per_class(pool, CLUTTERED)
        generator = torch.Generator(device()).manual_seed(5)
        still = [s._replace(images=clutter(s.images, generator)) for s in (train, validation, test)]
        return train, *still
    tail = long_tailed(pool, 50.0)
    balanced = per_class(pool, round(len(tail.labels) / len(pool.classes)))
    return tail if kind == "long-tailed" else balanced, balanced, validation, test


def train(name: str, kind: str, temperature: float, learning_rate: float, seed: int) -> Network:
    """One run."""
    data = split(kind)[0]
    seed_everything(seed)
    network = Network(dim=DIM).to(device())
    if name == "untrained":
        return network
    generator = torch.Generator(device()).manual_seed(seed)
    method = make(name, network, len(data.labels), temperature)
    view = clutter if kind == "cluttered" else AUGMENT

    def step(images: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        return method.loss(view(images, generator), view(images, generator), rows, labels)

    fit(
        nn.ModuleList([network] if method.trained is None else [network, method.trained]),
        step,
        (data.images, torch.arange(len(data.labels)), data.labels),
        epochs=EPOCHS[kind],
        batch_size=BATCH,
        learning_rate=learning_rate,
        weight_decay=1e-4,
        seed=seed,
        after_step=method.after_step,
        progress=False,
    )
    return network


def score(seed: int, method: str, set: str, temperature: float, learning_rate: float) -> float:
    """KNN accuracy on the images to tune on."""
    _, bank, validation, _ = split(set)
    return knn(train(method, set, temperature, learning_rate, seed).encoder, bank, validation)


def trial(seed: int, method: str, set: str, temperature: float, learning_rate: float) -> dict[str, float]:
    """All metrics of the features before the head; the probe, which takes longest, not for every set."""
    _, bank, _, test = split("balanced" if set == "none" else set)
    network = train(method, "balanced" if set == "none" else set, temperature, learning_rate, seed)
    generator = torch.Generator(device()).manual_seed(0)
    view = clutter if set == "cluttered" else AUGMENT
    images = garments(shuffle_seed=0).test.images if set == "cluttered" else test.images
    features, known = embed(network.encoder, test.images), embed(network.encoder, bank.images)
    views = [normalize(embed(network.encoder, view(images, generator))) for _ in range(2)]
    probed = {} if set == "cluttered" else {"probe": probe(known, bank.labels, features, test.labels)}
    return probed | {
        "knn": knn(network.encoder, bank, test),
        "alignment": float(alignment(*views)),
        "uniformity": float(uniformity(normalize(features))),
        "rank": float(effective_rank(features)),
    }


KNN = Metric("kNN accuracy", "knn", "points")


def arms(kind: str, *more: str) -> dict[str, dict[str, Any]]:
    """A row of settings a method; SimSiam and supervision have no temperature."""
    plain = {name: {"method": name, "set": kind} for name in (*NAMES, *more)}
    return {
        name: row | ({"temperature": 0.1} if name in ("simsiam", "supervised") else {}) for name, row in plain.items()
    }


def claims(kind: str, headlines: tuple[str, ...] = (), names: Collection[str] = tuple(HOSTS)) -> list[Claim]:
    """These methods, each against its host."""
    return [
        Claim(
            f"knn-{kind}",
            f"{NAMES[name]} gives better features than {NAMES[host]} on {kind} Fashion-MNIST.",
            KNN,
            host,
            name,
            slug=name,
            headline=name in headlines,
        )
        for name, host in HOSTS.items()
        if name in names
    ]


TUNING = Tuning({"learning_rate": (2e-3, 5e-3, 1.2e-2), "temperature": (0.1, 0.2, 0.4)}, score)
NO_TRAINING = {"method": "untrained", "temperature": 0.0, "learning_rate": 0.0}
NOTE = "Learning rate and temperature of both tuned alike on other images."
OLDER = [name for name in NAMES if name != "amcl"]
EXPERIMENTS = (
    *(
        Experiment(
            "losses",
            {name: row for name, row in arms(kind).items() if name in OLDER}
            | ({"untrained": NO_TRAINING | {"set": "none"}} if kind == "balanced" else {}),
            trial,
            claims(kind, names=OLDER),
            NAMES,
            f"About 2,200 training images, {EPOCHS[kind]} epochs, batch {BATCH}. {NOTE}",
            tuning=TUNING,
        )
        for kind in ("balanced", "long-tailed")
    ),
    *(
        Experiment(
            "losses",
            {name: row for name, row in arms(kind).items() if name in ("nt-xent", "amcl")},
            trial,
            claims(kind, names=("amcl",)),
            NAMES,
            f"About 2,200 training images, {EPOCHS[kind]} epochs, batch {BATCH}. {NOTE}",
            tuning=TUNING,
            runs="losses-amcl",
        )
        for kind in ("balanced", "long-tailed")
    ),
    Experiment(
        "losses",
        arms("cluttered", "supervised") | {"untrained": NO_TRAINING | {"set": "cluttered"}},
        trial,
        claims("cluttered", HEADLINES),
        NAMES,
        f"{10 * CLUTTERED} training images, {EPOCHS['cluttered']} epochs, batch {BATCH}. {NOTE}",
        seeds=range(LOOKS[-1]),
        looks=LOOKS,
        tuning=TUNING,
        runs="losses-cluttered",
    ),
)


# --- costs -----------------------------------------------------------------------------------------------------------


def _cost(name: str, queue: Any) -> None:
    torch.set_num_threads(1)
    data = split("balanced")[0]
    seed_everything(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = Network(dim=DIM).to(device())
    method = make(name, network, len(data.labels), 0.2)
    parameters = [*network.parameters(), *(method.trained.parameters() if method.trained else ())]
    optimizer = torch.optim.AdamW({id(p): p for p in parameters}.values())
    rows, times = torch.arange(BATCH), []
    views = AUGMENT(data.images[:BATCH]), AUGMENT(data.images[:BATCH])
    for _ in range(40):
        start = time.perf_counter()
        optimizer.zero_grad()
        method.loss(*views, rows, data.labels[:BATCH]).backward()
        optimizer.step()
        if method.after_step:
            method.after_step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    queue.put({"seconds_per_step": torch.tensor(times[5:]).median().item(), "peak_mib": peak / 1024})


def cost(name: str) -> dict[str, Any]:
    """Median time of a training step without augmentation, and how far the process grew, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_cost, args=(name, queue))
    process.start()
    result = queue.get(timeout=300)
    process.join()
    return {"method": name, **result}


if __name__ == "__main__":
    if sys.argv[1:] == ["cost"]:
        save_runs("losses-cost", [cost(name) for name in tqdm(NAMES)])
    else:
        main(__file__, *EXPERIMENTS)
