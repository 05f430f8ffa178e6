"""What holds SwAV up, and what small crops buy.

1. Collapse, on digits: a perceptron, 20 prototypes, two noisy shifted views, three codes that differ in one line:

   - ``sinkhorn``: balanced over the batch, as published,
   - ``softmax``: softmax of the same scores at the same epsilon, nothing balanced,
   - ``argmax``: the nearest prototype.

   On test digits: how evenly the prototypes are used (entropy of the mean of softmax(S / epsilon), as a share of
   log K), how many are the nearest of at least one digit, how well the nearest prototype names the class (normalized
   mutual information), kNN on the features. A prototype starts as a random direction, so an encoder that was not
   trained is judged as well.

2. Multi-crop, on garments: a convolutional encoder that takes any size. ``two``: two crops of 28 x 28 pixels;
   ``multi``: four small ones of 14 x 14 pixels in addition, as many pixels as one more full crop; ``longer``: two crops
   and one and a half times the epochs, for as many pixels as ``multi``. The better of the same two learning rates for
   each, by kNN on other images and a seed that is not used again. Small crops also enter the running means of batch
   normalization, which then fit whole images badly. After the first results we saw that this matters and added
   ``recalibrated``: the same networks with means and variances taken anew from whole training images, in all arms.

``make evidence ONLY=swav`` writes records and single runs; the comparison of all losses is in ``losses.py``.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.augment import Compose, color_jitter, random_resized_crop, simclr_augment
from cl_teach.core import normalize
from cl_teach.core.assignment import sinkhorn
from cl_teach.datasets import ImageSet, digits, fashion_mnist
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.evidence import record, save_runs
from cl_teach.losses.swav import SwAV
from cl_teach.models import MLP, ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

SLUG = "swav"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
RATES = (3e-3, 1e-2)
PROTOTYPES, TEMPERATURE, EPSILON = 20, 0.1, 0.05
CODES = ("sinkhorn", "softmax", "argmax")
ARMS = {"two": (0, 1.0), "multi": (4, 1.0), "longer": (0, 1.5)}  # small crops, epochs
EPOCHS = at_scale(10, 100)
FULL = simclr_augment(scale=(0.3, 1.0))
SMALL = Compose(
    [
        partial(random_resized_crop, scale=(0.1, 0.3), size=14, flip=0.5),
        partial(color_jitter, brightness=0.4, contrast=0.4, probability=0.8),
    ]
)


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Digits moved by at most one pixel each way, with noise."""
    n = len(images)
    moves = torch.randint(-1, 2, (2, n), generator=generator, device=images.device)
    grid = torch.arange(8, device=images.device)
    rows, columns = ((grid + move[:, None]) % 8 for move in moves)  # the margin of a digit is nearly empty
    moved = images[torch.arange(n, device=images.device)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    return moved[:, None] + 0.1 * torch.randn(images.shape, generator=generator, device=images.device)


def code(scores: Tensor, kind: str) -> Tensor:
    """Codes ``(B, K)`` from scores, constants."""
    if kind == "sinkhorn":
        return sinkhorn(scores, EPSILON)
    if kind == "softmax":
        return (scores / EPSILON).softmax(1)
    return nn.functional.one_hot(scores.argmax(1), scores.shape[1]).to(scores)


def train_digits(images: Tensor, kind: str, seed: int, steps: int) -> tuple[nn.Sequential, Tensor, list[float]]:
    """Swapped prediction with these codes; returns network, prototypes and losses."""
    seed_everything(seed)
    encoder = nn.Sequential(nn.Flatten(), MLP([64, 128, 64]))
    network = nn.Sequential(encoder, ProjectionHead(64, 32, hidden=64)).to(device())
    prototypes = nn.Parameter(normalize(torch.randn(PROTOTYPES, 32)).to(device()))
    optimizer = torch.optim.Adam([*network.parameters(), prototypes], lr=1e-3)
    generator = torch.Generator(device()).manual_seed(seed)
    losses = []
    for _ in range(steps):
        batch = images[torch.randint(len(images), (256,), generator=generator, device=images.device)]
        with torch.no_grad():
            prototypes.copy_(normalize(prototypes))
        z = normalize(network(torch.cat([shifted(batch, generator), shifted(batch, generator)])))
        s1, s2 = (z @ prototypes.T).chunk(2)
        q1, q2 = (code(s.detach(), kind) for s in (s1, s2))
        swapped = [-(q * (s / TEMPERATURE).log_softmax(1)).sum(1).mean() for q, s in ((q1, s2), (q2, s1))]
        loss = (swapped[0] + swapped[1]) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return network, normalize(prototypes.detach()), losses


def judge_digits(network: nn.Sequential, prototypes: Tensor, train: ImageSet, test: ImageSet) -> dict[str, float]:
    """Usage of the prototypes and quality of features on test digits."""
    scores = normalize(embed(network, test.images)) @ prototypes.T
    usage = (scores / EPSILON).softmax(1).mean(0)
    nearest = scores.argmax(1)
    known, features = embed(network[0], train.images), embed(network[0], test.images)
    return {
        "entropy": torch.special.entr(usage).sum().item() / math.log(PROTOTYPES),
        "used": float(len(nearest.unique())),
        "nmi": float(normalized_mutual_info_score(test.labels.cpu().numpy(), nearest.cpu().numpy())),
        "knn": 100 * knn_accuracy(known, train.labels, features, test.labels, k=5),
    }


def train_garments(images: Tensor, arm: str, rate: float, seed: int) -> tuple[nn.Sequential, float]:
    """SwAV with or without small crops; returns the network and the seconds."""
    small, share = ARMS[arm]
    seed_everything(seed)
    pool = [nn.AdaptiveAvgPool2d(2), nn.Flatten()]  # 28 x 28 gives a map of 4 x 4, 14 x 14 one of 2 x 2
    encoder = nn.Sequential(ConvEncoder(width=16).convolutions, *pool)
    network = nn.Sequential(encoder, ProjectionHead(128, 64, hidden=128)).to(device())
    method = SwAV(64, 64, temperature=TEMPERATURE, epsilon=EPSILON).to(device())
    generator = torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        crops = network(torch.cat([FULL(batch, generator) for _ in range(2)])).view(2, len(batch), -1)
        if small:
            more = network(torch.cat([SMALL(batch, generator) for _ in range(small)])).view(small, len(batch), -1)
            crops = torch.cat([crops, more])
        return method(crops)

    start = time.process_time()
    fit(
        nn.ModuleList([network, method]),
        step,
        images,
        epochs=round(share * EPOCHS),
        batch_size=128,
        learning_rate=rate,
        weight_decay=1e-4,
        seed=seed,
        progress=False,
    )
    return network, time.process_time() - start


def knn(network: nn.Sequential, bank: ImageSet, test: ImageSet) -> float:
    """KNN accuracy in percent of the features below the head."""
    known, features = embed(network[0], bank.images), embed(network[0], test.images)
    return 100 * knn_accuracy(known, bank.labels, features, test.labels, k=10)


@torch.no_grad()
def recalibrate(network: nn.Sequential, images: Tensor) -> None:
    """Take the statistics of batch normalization anew, from whole images."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    network.train()
    for batch in images.split(250):
        network(batch)


def main() -> None:
    """Both parts, records and runs."""
    start = time.perf_counter()
    train, test = digits("train", device=device()), digits("test", device=device())
    runs: list[dict[str, Any]] = []
    for seed in tqdm(SEEDS, desc="collapse"):
        for kind, steps in [("untrained", 0), *((kind, at_scale(600, 3000)) for kind in CODES)]:
            network, prototypes, losses = train_digits(train.images, kind, seed, steps)
            row = {"code": kind, "seed": seed, "loss": losses[-1] if losses else 0.0}
            runs.append(row | judge_digits(network, prototypes, train, test))
            print(runs[-1], flush=True)
    save_runs(f"{SLUG}-collapse", runs)
    middle = time.perf_counter()

    full, garments = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    size = at_scale(3000, 8000)
    data = ImageSet(full.images[:size], full.labels[:size], full.classes)
    held_out = ImageSet(full.images[8000:], full.labels[8000:], full.classes)
    chosen = {}
    for arm in tqdm(ARMS, desc="learning rates"):
        found = {r: knn(train_garments(data.images, arm, r, TUNING_SEED)[0], data, held_out) for r in RATES}
        chosen[arm] = max(found, key=lambda rate: found[rate])
        print(arm, found, flush=True)
    crops: list[dict[str, Any]] = []
    for seed in tqdm(SEEDS, desc="crops"):
        for arm, rate in chosen.items():
            network, seconds = train_garments(data.images, arm, rate, seed)
            row = {"arm": arm, "rate": rate, "seed": seed, "seconds": seconds}
            row["knn"] = knn(network, data, garments)
            recalibrate(network, data.images)
            crops.append(row | {"recalibrated": knn(network, data, garments)})
            print(crops[-1], flush=True)
    save_runs(f"{SLUG}-crops", crops)
    write(runs, crops, middle - start, time.perf_counter() - middle)


def write(runs: list[dict[str, Any]], crops: list[dict[str, Any]], first: float, second: float) -> None:
    """The records."""

    def of_code(kind: str, metric: str) -> list[float]:
        return [r[metric] for r in runs if r["code"] == kind]

    def of_arm(arm: str, metric: str) -> list[float]:
        return [r[metric] for r in crops if r["arm"] == arm]

    note = f"Digits, {PROTOTYPES} prototypes, batch 256, {at_scale(600, 3000)} steps; only the codes differ."
    common: dict[str, Any] = {"seeds": SEEDS, "seconds": first, "note": note, "expected": "higher"}
    metrics = {"entropy": "Entropy of the use of prototypes, over log K", "nmi": "Mutual information with the classes"}
    claims = [
        ("even-use-against-softmax", "Balanced codes keep the prototypes in use.", "entropy", "softmax"),
        ("even-use-against-argmax", "Balanced codes keep the prototypes in use.", "entropy", "argmax"),
        ("classes-against-softmax", "Balanced codes make prototypes that name classes.", "nmi", "softmax"),
        ("classes-against-untrained", "Training makes prototypes that name classes.", "nmi", "untrained"),
    ]
    results = [
        record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metrics[metric],
            unit="",
            baseline_name="no training" if base == "untrained" else f"{base} codes",
            method_name="balanced codes",
            baseline=of_code(base, metric),
            method=of_code("sinkhorn", metric),
            **common,
        )
        for claim_id, claim, metric, base in claims
    ]
    common |= {"metric": "kNN accuracy", "unit": "points", "method_name": "balanced codes", "baseline_name": "softmax"}
    results.append(
        record(
            SLUG,
            "knn-against-softmax",
            claim="Balanced codes give better features than codes that collapse.",
            baseline=of_code("softmax", "knn"),
            method=of_code("sinkhorn", "knn"),
            **common,
        )
    )
    note = f"{at_scale(3000, 8000)} garments, {EPOCHS} epochs, batch 128, 64 prototypes; better of two learning rates."
    common |= {"seconds": second, "note": note, "method_name": "four small crops in addition"}
    for arm, claim_id, name, claim in (
        ("two", "small-crops", "two crops", "Small crops help."),
        (
            "longer",
            "small-crops-equal-pixels",
            "two crops, as many pixels",
            "Small crops help at equal cost in pixels.",
        ),
    ):
        for metric, ending, words in (
            ("knn", "", ""),
            ("recalibrated", "-recalibrated", ", normalization recalibrated"),
        ):
            common |= {"baseline_name": name, "metric": f"kNN accuracy{words}"}
            values: dict[str, Any] = {"baseline": of_arm(arm, metric), "method": of_arm("multi", metric)}
            results.append(record(SLUG, claim_id + ending, claim=claim, **values, **common))
    for result in results:
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
