"""Do stages with in-cluster negatives find the factors that a first stage suppressed?

A world of three factors, one louder than the other (`graded_factors`), and encoders so narrow that each has to choose:
two outputs. Three stages of equal length. All encoders start fresh, and a probe reads each factor from the outputs of
all stages side by side, six numbers. Ten nearest neighbors read them once more (added after a look at the first
results: a factor that no linear map finds may still be there).

Arms: *ensemble* (three stages with ordinary negatives: as many networks, outputs and steps), *MCL*, *last* (negatives
from the last clustering alone, as the released script computes its labels), *random* (groups of the same number that
have nothing to do with the data: as few negatives, no clusters), *wide* (one encoder with six outputs, trained as long
as the three together) and *PCA* (the first six principal components, nothing trained). Nothing is tuned; the settings
come from trial runs on other seeds.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.datasets import graded_factors
from cl_teach.evaluation import knn_accuracy, linear_probe
from cl_teach.models import MLP
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.mcl import Multistage, Stage

N, BATCH, STAGES, OUTPUTS = 1920, 128, 3, 2
EPOCHS = at_scale(20, 60, smoke=1)
NOISE = 0.35


def view(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One view: noise, about as loud as the weakest factor."""
    return x + NOISE * torch.randn(x.shape, generator=generator)


def labels_of(arm: str, method: Multistage, generator: torch.Generator) -> Tensor:
    """Among whom the anchors of the next stage look for negatives."""
    if arm == "mcl":
        return method.labels
    if arm == "last":
        return method.labels % method.clusters
    if arm == "random" and len(method.encoders):
        return torch.randint(method.clusters ** len(method.encoders), (N,), generator=generator)
    return torch.zeros(N, dtype=torch.long)


def represent(seed: int, arm: str, clusters: int, x: Tensor) -> nn.Module:
    """Train one arm."""
    seed_everything(seed)
    draws, rows = torch.Generator().manual_seed(seed), torch.arange(N)
    method = Multistage(N, clusters)
    wide = arm == "wide"
    for s in range(1 if wide else STAGES):
        encoder = MLP([x.shape[1], 64, OUTPUTS * STAGES if wide else OUTPUTS], norm="none")
        stage = Stage(encoder, labels_of(arm, method, draws), augment=view)

        def loss(batch: Tensor, which: Tensor, stage: Stage = stage) -> Tensor:
            return stage.loss(batch, which, generator=draws)

        options = {"epochs": EPOCHS * (STAGES if wide else 1), "batch_size": BATCH, "learning_rate": 3e-3}
        fit(stage, loss, (x, rows), seed=seed + s, progress=False, **options)
        method.close_stage(encoder, x, generator=draws)
    return method


def trial(seed: int, arm: str, clusters: int) -> dict[str, float]:
    """Probe accuracy of every factor in percent."""
    train, test = graded_factors(N, world=seed, seed=seed), graded_factors(1000, world=seed, seed=seed + 1000)
    known, unknown = train.points, test.points
    if arm == "pca":
        mean = known.mean(0)
        basis = torch.linalg.svd(known - mean, full_matrices=False)[2][: OUTPUTS * STAGES].mT
        known, unknown = (known - mean) @ basis, (unknown - mean) @ basis
    else:
        method = represent(seed, arm, clusters, known)
        known, unknown = method(known), method(unknown)
    found = {}
    for name, y, truth in zip(("strong", "middle", "weak"), train.factors.mT, test.factors.mT, strict=True):
        y, truth = y.contiguous(), truth.contiguous()
        found[name] = 100 * linear_probe(known, y, unknown, truth, max_iter=at_scale(100, 300))
        found[f"{name}_knn"] = 100 * knn_accuracy(known, y, unknown, truth, k=10)
    return found


WEAK = Metric("Accuracy of a linear probe for the weakest factor (chance: 25 %)", "weak", "points", 5.0, "Of 75.")
MIDDLE = Metric("Accuracy of a linear probe for the middle factor (chance: 25 %)", "middle", "points", 5.0, "Of 75.")
WEAK_KNN = Metric(
    "Accuracy of ten neighbors for the weakest factor (chance: 25 %)", "weak_knn", "points", 5.0, "Of 75."
)
STRONG = Metric("Accuracy of a linear probe for the strongest factor (chance: 20 %)", "strong", "points", 5.0, "Of 80.")
WORDS = {
    "ensemble": "ensemble of three ordinary trainings",
    "mcl": "MCL",
    "last": "labels of the last clustering alone",
    "random": "random groups",
    "wide": "one encoder with six outputs",
    "pca": "six principal components",
    "mcl-3": "MCL with 3 clusters",
    "mcl-10": "MCL with 10 clusters",
}
EXPERIMENT = Experiment(
    "mcl",
    {arm: {"arm": arm, "clusters": 5} for arm in ("ensemble", "mcl", "last", "random", "wide", "pca")}
    | {f"mcl-{k}": {"arm": "mcl", "clusters": k} for k in (3, 10)},
    trial,
    [
        Claim(
            "weakest-factor",
            "Stages with in-cluster negatives find a factor that ordinary training suppresses.",
            WEAK,
            "ensemble",
            "mcl",
            headline=True,
        ),
        Claim(
            "weakest-factor-neighbors",
            "Neighbors, which read more than a linear map, find it better after stages as well.",
            WEAK_KNN,
            "ensemble",
            "mcl",
            origin="post hoc",
        ),
        Claim("middle-factor", "The second factor is found as well.", MIDDLE, "ensemble", "mcl"),
        Claim("kept", "The strongest factor is kept.", STRONG, "ensemble", "mcl"),
        Claim("clusters", "It takes clusters, not just fewer negatives.", WEAK, "random", "mcl", origin="ours"),
        Claim("all-stages", "The labels have to hold all earlier clusterings.", WEAK, "last", "mcl", origin="ours"),
        Claim("wide", "Stages find what one wider encoder misses.", WEAK, "wide", "mcl", origin="ours"),
        Claim("pca", "Stages find what principal components miss.", WEAK, "pca", "mcl", origin="ours"),
        Claim("three-clusters", "Fewer clusters than values find it too.", WEAK, "ensemble", "mcl-3", origin="ours"),
        Claim("ten-clusters", "Twice as many clusters find it too.", WEAK, "ensemble", "mcl-10", origin="ours"),
    ],
    WORDS,
    f"{N} points, three factors of 5, 4 and 4 values at amplitudes 1.5, 0.75 and 0.4; MLP 60-64-2, three stages of "
    f"{EPOCHS * (N // BATCH)} steps, batches of {BATCH}, temperature 0.2, five clusters; nothing tuned.",
    seeds=range(20),
    looks=LOOKS,
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
