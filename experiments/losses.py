"""Every loss of Parts 1 and 3 on one encoder: balanced and long-tailed Fashion-MNIST, equal steps, five seeds.

The embedded training images are split once: 8,000 to train on, 2,000 to tune on; the 2,000 test images are looked at
only with the chosen settings. ``long-tailed`` keeps nearly 800 images of the most frequent class and one fiftieth of
that of the rarest, about 2,200 in all; ``balanced`` has as many images, evenly spread. Both are judged alike: kNN
(k = 10) and a linear probe on the features before the head, fitted on the labels of the balanced images.

The grid is the same for all losses and for both sets: two learning rates times three degrees of sharpness, written as
a temperature, one run each with a seed that is not used again. What a loss makes of the temperature: CACR takes its
negative sharpness 1 / (2 temperature), GroCo its steepness 1 / (2 temperature), iSogCLR the temperature that all
samples begin with, AMCL the lower bound of its temperatures. SimSiam has none and tries only the learning rates. A
first look (NT-Xent, one seed) found 0.001 too small a rate for so few steps: the features stayed where the untrained
encoder has them.

``make evidence ONLY=losses`` writes the runs, the records of the methods and the costs. Costs are medians of single
steps in a process of their own, one thread, and want a quiet machine; ``.venv/bin/python experiments/losses.py cost``
measures them alone.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.augment import simclr_augment
from cl_teach.core import (
    FeatureQueue,
    MomentumTeacher,
    info_nce,
    normalize,
    nt_xent,
    regression_loss,
    sup_con,
)
from cl_teach.datasets import ImageSet, fashion_mnist, long_tailed
from cl_teach.evaluation import alignment, effective_rank, embed, knn_accuracy, linear_probe, uniformity
from cl_teach.evidence import record, save_runs
from cl_teach.losses.amcl import AMCL
from cl_teach.losses.cacr import cacr
from cl_teach.losses.dcl import dcl
from cl_teach.losses.feature_transformation import draw_transformation, feature_transformation
from cl_teach.losses.groco import groco
from cl_teach.losses.hallucinator import Hallucinator, draw_ratio, hallucinated_moco
from cl_teach.losses.isogclr import ISogCLR
from cl_teach.losses.mochi import draw_mixture, hardest_rows, mochi
from cl_teach.losses.swav import SwAV
from cl_teach.models import ConvEncoder, PredictionHead, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 99
SETS = ("balanced", "long-tailed")
TEMPERATURES = (0.1, 0.2, 0.5)
LEARNING_RATES = (3e-3, 1e-2)
EPOCHS = at_scale(20, 200)
BATCH = 128
DIM = 64
QUEUE = 1024
AUGMENT = simclr_augment(scale=(0.3, 1.0))


class Network(nn.Module):
    """Encoder and head; the head is dropped after training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ConvEncoder(width=16)
        self.head = ProjectionHead(self.encoder.feature_dim, DIM, hidden=128)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, DIM)``."""
        return self.head(self.encoder(images))

    def pair(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of both views in one pass."""
        z1, z2 = self(torch.cat([view1, view2])).chunk(2)
        return z1, z2


class Method(NamedTuple):
    """A loss with what it needs around it.

    Attributes:
        loss: of two views, the rows' numbers in the data set, and their labels (only SupCon looks at them).
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
    return feature_transformation(
        query,
        key,
        queue,
        temperature,
        extrapolation=outward,
        interpolation=inward,
        permutation=order.to(queue.device),
    )


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
        return module(*network.encoder(torch.cat([v1, v2])).chunk(2))

    return Method(step, module)


def make_hallucinator(network: Network, temperature: float) -> Method:
    """MoCo with a second positive from a small network."""
    module = Hallucinator(DIM).to(device())
    return with_queue(
        lambda q, k, queue: hallucinated_moco(module, q, k, queue, draw_ratio(), temperature)[0],
        network,
        trained=module,
    )


def make(name: str, network: Network, n: int, temperature: float) -> Method:
    """The method of this name for a data set of n images."""
    half = 1 / (2 * temperature)
    if name == "nt-xent":
        return of_pairs(partial(nt_xent, temperature=temperature), network)
    if name == "sup-con":
        return Method(lambda v1, v2, rows, y: sup_con(torch.cat(network.pair(v1, v2)), y.repeat(2), temperature))
    if name == "moco":
        return with_queue(lambda q, k, queue: info_nce(q, k, queue, temperature), network)
    if name == "simsiam":
        return make_simsiam(network)
    if name == "dcl":
        return of_pairs(partial(dcl, temperature=temperature), network)
    if name == "cacr":
        return of_pairs(lambda z1, z2: cacr(torch.stack([z1, z2]), negative_sharpness=half), network)
    if name == "isogclr":
        memory = ISogCLR(n, temperature=temperature).to(device())
        return Method(lambda v1, v2, rows, y: memory(*network.pair(v1, v2), rows))
    if name == "amcl":
        return make_amcl(network, temperature)
    if name == "mochi":
        return with_queue(partial(mochi_loss, temperature=temperature), network)
    if name == "feature-transformation":
        return with_queue(partial(transformed, temperature=temperature), network)
    if name == "hallucinator":
        return make_hallucinator(network, temperature)
    if name == "groco":
        return of_pairs(lambda z1, z2: groco(torch.stack([z1, z2]), steepness=half).mean(), network)
    clusters = SwAV(DIM, 64, temperature=temperature).to(device())
    return Method(lambda v1, v2, rows, y: clusters(torch.stack(network.pair(v1, v2))), clusters)


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


def split() -> dict[str, ImageSet]:
    """The two training sets, the images to tune on and those to test on."""
    train = fashion_mnist(device=device())
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0))
    pool, validation = (ImageSet(train.images[r], train.labels[r], train.classes) for r in (order[:8000], order[8000:]))
    tail = long_tailed(pool, 50.0)
    even = long_tailed(pool, 1.0)
    each = round(len(tail.labels) / len(train.classes))
    rows = torch.cat([(even.labels == c).nonzero()[:each, 0] for c in range(len(train.classes))])
    balanced = ImageSet(even.images[rows], even.labels[rows], train.classes)
    return {"balanced": balanced, "long-tailed": tail, "validation": validation, "test": fashion_mnist("test")}


def train(name: str, data: ImageSet, temperature: float, learning_rate: float, seed: int) -> Network:
    """One run."""
    seed_everything(seed)
    network = Network().to(device())
    generator = torch.Generator(device()).manual_seed(seed)
    method = make(name, network, len(data.labels), temperature)

    def step(images: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        return method.loss(AUGMENT(images, generator), AUGMENT(images, generator), rows, labels)

    fit(
        nn.ModuleList([network] if method.trained is None else [network, method.trained]),
        step,
        (data.images, torch.arange(len(data.labels)), data.labels),
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=learning_rate,
        weight_decay=1e-4,
        seed=seed,
        after_step=method.after_step,
        progress=False,
    )
    return network


def judge(network: Network, bank: ImageSet, test: ImageSet) -> dict[str, float]:
    """All metrics of the features before the head."""
    generator = torch.Generator(device()).manual_seed(0)
    test_images = test.images.to(device())
    features, known = embed(network.encoder, test_images), embed(network.encoder, bank.images)
    rows = (known, bank.labels, features, test.labels.to(device()))
    views = [normalize(embed(network.encoder, AUGMENT(test_images, generator))) for _ in range(2)]
    return {
        "knn": 100 * knn_accuracy(*rows, k=10),
        "probe": 100 * linear_probe(*rows),
        "alignment": float(alignment(*views)),
        "uniformity": float(uniformity(normalize(features))),
        "rank": float(effective_rank(features)),
    }


def tune(name: str, kind: str, data: dict[str, ImageSet]) -> tuple[float, float, list[float]]:
    """Temperature and learning rate with the best kNN accuracy on the tuning images, and all accuracies tried."""
    temperatures = TEMPERATURES if name != "simsiam" else TEMPERATURES[:1]
    grid = list(product(temperatures, LEARNING_RATES))
    tried = [
        judge(train(name, data[kind], *point, TUNING_SEED), data["balanced"], data["validation"])["knn"]
        for point in grid
    ]
    return *grid[tried.index(max(tried))], tried


def _cost(name: str, queue: Any) -> None:
    torch.set_num_threads(1)
    data = split()["balanced"]
    seed_everything(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = Network().to(device())
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


def main() -> None:
    """Tune, run and record everything."""
    data, start, runs, chosen = split(), time.perf_counter(), [], []
    for seed in SEEDS:
        seed_everything(seed)
        untrained = judge(Network().to(device()), data["balanced"], data["test"])
        settings = {"method": "untrained", "set": "none", "temperature": 0.0, "learning_rate": 0.0, "seed": seed}
        runs.append(settings | untrained)
    for name in tqdm(NAMES, desc="losses"):
        for kind in SETS:
            temperature, learning_rate, tried = tune(name, kind, data)
            settings = {"method": name, "set": kind, "temperature": temperature, "learning_rate": learning_rate}
            chosen.append(settings | {"tuning_knn": tried})
            for seed in SEEDS:
                network = train(name, data[kind], temperature, learning_rate, seed)
                runs.append(settings | {"seed": seed} | judge(network, data["balanced"], data["test"]))
            print(runs[-1], flush=True)
        save_runs("losses", runs)
        save_runs("losses-tuning", chosen)
    seconds = time.perf_counter() - start

    def values(name: str, kind: str) -> list[float]:
        return [run["knn"] for run in runs if run["method"] == name and run["set"] == kind]

    for name, host in HOSTS.items():
        for kind in SETS:
            record(
                name,
                f"knn-{kind}",
                claim=f"{NAMES[name]} gives better features than {NAMES[host]} on {kind} Fashion-MNIST.",
                metric="kNN accuracy",
                unit="points",
                expected="higher",
                baseline_name=NAMES[host],
                method_name=NAMES[name],
                seeds=SEEDS,
                baseline=values(host, kind),
                method=values(name, kind),
                seconds=seconds / len(NAMES),
                note=f"{len(data[kind].labels)} training images, {EPOCHS} epochs, batch {BATCH}; temperature and "
                "learning rate of both chosen from the same grid on other images.",
            )


def costs() -> None:
    """Measure and keep the costs."""
    save_runs("losses-cost", [cost(name) for name in tqdm(NAMES)])


if __name__ == "__main__":
    if sys.argv[1:] == ["cost"]:
        costs()
    else:
        main()
        costs()
