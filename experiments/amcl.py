"""Several heads and a temperature a pair, against one head and one temperature, under one and under five augmentations.

Sprites are seen through a random crop only, or through crop, blur, loss of color, color jitter and mirror images. The
arms share encoder, initial weights of the encoder, views, batches, optimizer and number of steps; nothing is tuned.

- ``one``: one head, temperature 0.2 for all pairs (the decoupled NT-Xent);
- ``three``: three heads, temperature 0.2 for all pairs;
- ``warm``: three heads, temperature 1.025 for all pairs, the middle of the interval that the networks below work in
  (added after the other arms were seen, since ``dot`` ends there);
- ``dot``: three heads, and the shared network of the authors' README, a sigmoid of a dot product;
- ``concat``: three heads, a shared network on the concatenation of both embeddings, the idea of the released code;
- ``distance``: three heads, a shared network on the absolute difference of both embeddings (not in the paper).

Overlap of positives and negatives is measured by the area under the ROC curve (AUC) of the cosine, averaged over heads,
that decides whether two views of held-out sprites show the same sprite. ``make evidence ONLY=amcl`` writes the records.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.augment import (
    Compose,
    Transform,
    color_jitter,
    gaussian_blur,
    horizontal_flip,
    random_grayscale,
    random_resized_crop,
)
from cl_teach.core import normalize
from cl_teach.datasets import Sprites, sprites
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.evidence import record, save_runs
from cl_teach.losses.amcl import AMCL
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

SLUG = "amcl"
SEEDS = (0, 1, 2, 3, 4)
ARMS = ("one", "three", "warm", "dot", "concat", "distance")
DIM, LOW, HIGH = 16, 0.05, 2.0
OPTIONS: dict[str, Any] = {
    "epochs": at_scale(5, 60),
    "batch_size": 64,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}


def views(types: int) -> Compose:
    """The first so many augmentations of a list of five."""
    jitter = partial(color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8)
    every: list[Transform] = [
        partial(random_resized_crop, scale=(0.3, 1.0), flip=0.0),
        partial(gaussian_blur, probability=0.5),
        partial(random_grayscale, probability=0.3),
        jitter,
        horizontal_flip,
    ]
    return Compose(every[:types])


class Constant(nn.Module):
    """The same temperature for all pairs."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, heads: Tensor) -> Tensor:
        """``(C, m, m)``."""
        return torch.full((len(heads), heads.shape[1], heads.shape[1]), self.temperature, device=heads.device)


class Concat(nn.Module):
    """Two layers on both embeddings side by side; not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Linear(DIM, 32), nn.Linear(DIM, 32, bias=False), nn.Linear(32, 1)

    def forward(self, heads: Tensor) -> Tensor:
        """``(C, m, m)``."""
        hidden = (self.left(heads)[:, :, None] + self.right(heads)[:, None]).relu()  # (C, m, m, 32)
        return LOW + (HIGH - LOW) * self.top(hidden).squeeze(-1).sigmoid()


class Distance(nn.Module):
    """Two layers on the absolute difference of the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(DIM, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, heads: Tensor) -> Tensor:
        """``(C, m, m)``."""
        apart = (heads[:, :, None] - heads[:, None]).abs()  # (C, m, m, DIM)
        return LOW + (HIGH - LOW) * self.layers(apart).squeeze(-1).sigmoid()


def train(arm: str, types: int, images: Tensor, seed: int) -> tuple[ConvEncoder, AMCL]:
    """One run."""
    seed_everything(seed)
    encoder = ConvEncoder(3, 32, width=8)
    heads: list[nn.Module] = [
        ProjectionHead(encoder.feature_dim, DIM, hidden=64) for _ in range(1 if arm == "one" else 3)
    ]
    method = AMCL(heads, DIM, low=LOW, high=HIGH)
    if arm in ("concat", "distance"):
        method.add_module("temperature", Concat() if arm == "concat" else Distance())
    elif arm != "dot":
        method.add_module("temperature", Constant((LOW + HIGH) / 2 if arm == "warm" else 0.2))
    augment, generator = views(types), torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        return method(*encoder(torch.cat([augment(batch, generator) for _ in range(2)])).chunk(2))

    fit(nn.ModuleList([encoder, method]), step, images, seed=seed, **OPTIONS)
    return encoder, method


@torch.no_grad()
def measure(encoder: ConvEncoder, method: AMCL, types: int, data: Sprites, test: Sprites) -> dict[str, Any]:
    """Overlap, neighbors, and where the temperatures are."""
    generator = torch.Generator(device()).manual_seed(1234)  # the same views for every run
    n = 256
    x = torch.cat([views(types)(test.images[:n], generator) for _ in range(2)])
    features = encoder(x)
    z = normalize(torch.stack([head(features) for head in method.heads]))
    s, tau = (z @ z.mT)[:, :n, n:], method.temperature(z)[:, :n, n:]  # (C, n, n), positives on the diagonal
    same = torch.eye(n, dtype=torch.bool, device=s.device)
    positive, warm = s[:, same].flatten(), tau[:, same].flatten()
    adaptive = not isinstance(method.get_submodule("temperature"), Constant)
    rows, test_rows = embed(encoder, data.images), embed(encoder, test.images)
    labels = data.factors["shape"], test.factors["shape"]
    return {
        "auc": float(roc_auc_score(same.flatten().cpu(), s.mean(0).flatten().cpu())),
        "knn": 100 * knn_accuracy(rows, labels[0], test_rows, labels[1], k=10),
        "order": float(spearmanr(positive.cpu(), warm.cpu())[0]) if adaptive else 0.0,
        "tau_positive": warm.mean().item(),
        "tau_negative": tau[:, ~same].mean().item(),
        "tau_deviation": tau.std().item(),
    }


def main() -> None:
    """Run all arms and write the records."""
    data, test = sprites(2000, seed=0, device=device()), sprites(1000, seed=1, device=device())
    start, runs = time.perf_counter(), []
    todo = [(arm, types, seed) for seed in SEEDS for types in (1, 5) for arm in ARMS]
    for arm, types, seed in tqdm(todo, desc="runs"):
        encoder, method = train(arm, types, data.images, seed)
        runs.append({"arm": arm, "types": types, "seed": seed, **measure(encoder, method, types, data, test)})
        print(runs[-1], flush=True)
    save_runs(SLUG, runs)
    write(runs, time.perf_counter() - start)


def write(runs: list[dict[str, Any]], seconds: float) -> None:
    """Write the records."""

    def values(arm: str, types: int, key: str) -> list[float]:
        return [r[key] for r in runs if r["arm"] == arm and r["types"] == types]

    def gaps(arm: str, types: int) -> list[float]:
        """AUC over that of one head."""
        return [a - b for a, b in zip(values(arm, types, "auc"), values("one", types, "auc"), strict=True)]

    auc = ("Area under the ROC curve", "")
    one = "one head, one temperature"
    better = "Under five augmentations, several heads with adaptive temperatures tell positives from negatives better."
    grows = "The advantage of several heads with adaptive temperatures grows with the number of augmentations."
    names = {"three": "three heads, one temperature", "warm": "three heads, one temperature of 1.025"} | {
        arm: f"three heads, {arm} network" for arm in ARMS[3:]
    }
    rows: list[tuple[Any, ...]] = []
    for arm in ("dot", "concat", "distance"):
        rows += [
            (f"overlap-{arm}", better, *auc, "higher", one, names[arm], values("one", 5, "auc"), values(arm, 5, "auc")),
            (
                f"gap-{arm}",
                grows,
                "Advantage in the area under the ROC curve",
                "",
                "higher",
                f"{names[arm]}, one augmentation",
                f"{names[arm]}, five augmentations",
                gaps(arm, 1),
                gaps(arm, 5),
            ),
        ]
    rows += [
        (
            "heads-only",
            "Under five augmentations, several heads tell positives from negatives better.",
            *auc,
            "higher",
            one,
            names["three"],
            values("one", 5, "auc"),
            values("three", 5, "auc"),
        ),
        (
            "shape-dot",
            "Under five augmentations, several heads with adaptive temperatures learn better features.",
            "kNN accuracy for shape",
            "points",
            "higher",
            one,
            names["dot"],
            values("one", 5, "knn"),
            values("dot", 5, "knn"),
        ),
        (
            "shape-dot-beyond-warmth",
            "Temperatures of pairs learn better features than the constant in their middle.",
            "kNN accuracy for shape",
            "points",
            "higher",
            names["warm"],
            names["dot"],
            values("warm", 5, "knn"),
            values("dot", 5, "knn"),
        ),
        (
            "overlap-distance-beyond-warmth",
            "Temperatures of pairs separate positives from negatives better than the constant in their middle.",
            *auc,
            "higher",
            names["warm"],
            names["distance"],
            values("warm", 5, "auc"),
            values("distance", 5, "auc"),
        ),
        (
            "unlike-pairs-are-hotter",
            "A network that sees the distance gives unlike positives a larger temperature, one that sees the dot "
            "product does not.",
            "Rank correlation of temperature and cosine, positives, five augmentations",
            "",
            "lower",
            names["dot"],
            names["distance"],
            values("dot", 5, "order"),
            values("distance", 5, "order"),
        ),
    ]
    note = f"Sprites, {OPTIONS['epochs']} epochs, batch 64, embeddings of width 16, log-sum-exp form."
    for claim_id, claim, metric, unit, expected, baseline_name, method_name, baseline, method_values in rows:
        result = record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metric,
            unit=unit,
            expected=expected,
            baseline_name=baseline_name,
            method_name=method_name,
            seeds=SEEDS,
            baseline=baseline,
            method=method_values,
            seconds=seconds,
            note=note,
        )
        print(f"{result.claim_id}: {result.verdict}, {result.interval}", result.baseline, result.method)


if __name__ == "__main__":
    main()
