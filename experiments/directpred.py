"""Learning without negatives on Fashion-MNIST: with a trained, a computed and no predictor; with and without
stop-gradient.

Every arm has the same encoder, the same initial weights for a seed, the same views, batch size, number of steps,
optimizer and momentum teacher; nothing is tuned for any of them. The embeddings have no batch normalization at their
end, which would hide a collapse.

- ``trained``: a linear predictor, trained with the rest (the baseline of the paper);
- ``mlp``: a predictor with one hidden layer, as in BYOL and SimSiam;
- ``directpred``, ``directcopy``: a linear predictor that is set from the correlation of the embeddings;
- ``no-predictor``: the identity;
- ``no-stop-gradient``: a trained linear predictor, the online network as its own target, gradient on both sides.

kNN is that of the features below the head; the effective rank is that of the test embeddings that the loss sees.
``make evidence ONLY=directpred`` writes the records and the single runs.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.augment import simclr_augment
from cl_teach.core import MomentumTeacher, normalize
from cl_teach.datasets import fashion_mnist
from cl_teach.evaluation import effective_rank, embed, knn_accuracy
from cl_teach.evidence import record, save_runs
from cl_teach.models import ConvEncoder, PredictionHead, ProjectionHead
from cl_teach.theory.directpred import DirectPredictor, byol_loss
from cl_teach.training import at_scale, device, fit, seed_everything

SLUG = "directpred"
SEEDS = (0, 1, 2, 3, 4)
ARMS = ("trained", "mlp", "directpred", "directcopy", "no-predictor", "no-stop-gradient")
DIM = 64
OPTIONS: dict[str, Any] = {
    "epochs": at_scale(6, 100),
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}


def make_predictor(arm: str) -> nn.Module:
    """The predictor of an arm."""
    if arm == "mlp":
        return PredictionHead(DIM)
    if arm in ("directpred", "directcopy"):
        return DirectPredictor(DIM, form="code" if arm == "directpred" else "copy")
    if arm == "no-predictor":
        return nn.Identity()
    return nn.Linear(DIM, DIM, bias=False)


def train(arm: str, images: Tensor, seed: int) -> tuple[nn.Module, nn.Module, Tensor]:
    """One run; returns encoder, head and the loss of every step."""
    seed_everything(seed)
    encoder = ConvEncoder(width=16)
    head = ProjectionHead(encoder.feature_dim, DIM, hidden=128)
    online = nn.Sequential(encoder, head).to(device())
    predictor = make_predictor(arm).to(device())
    teacher = MomentumTeacher(online, momentum=0.99)
    augment, generator = simclr_augment(scale=(0.3, 1.0)), torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        views = torch.cat([augment(batch, generator), augment(batch, generator)])
        z1, z2 = online(views).chunk(2)
        if isinstance(predictor, DirectPredictor):
            predictor.update(z1, z2)
        p1, p2 = predictor(torch.cat([z1, z2])).chunk(2)
        if arm == "no-stop-gradient":  # byol_loss detaches its targets, so the cosines are written out here
            cosines = (normalize(p1) * normalize(z2)).sum(1) + (normalize(p2) * normalize(z1)).sum(1)
            return -2 * cosines.mean()
        t1, t2 = teacher(views).chunk(2)
        return byol_loss(p1, p2, t2, t1)

    everything = nn.ModuleList([online, predictor])
    history = fit(everything, step, images, seed=seed, after_step=lambda: teacher.update(online), **OPTIONS)
    return encoder, head, history.losses


def main() -> None:
    """Run all arms and seeds and write records and runs."""
    data, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    start, runs = time.perf_counter(), []
    for arm, seed in tqdm([(arm, seed) for arm in ARMS for seed in SEEDS], desc="runs"):
        encoder, head, losses = train(arm, data.images, seed)
        z = normalize(embed(nn.Sequential(encoder, head), test.images))
        found = {
            "loss": losses[-20:].mean().item(),
            "rank": effective_rank(z).item(),
            "spread": (z.std(0) * DIM**0.5)
            .mean()
            .item(),  # 1 for directions spread over the whole sphere, 0 if collapsed
            "knn": 100
            * knn_accuracy(embed(encoder, data.images), data.labels, embed(encoder, test.images), test.labels, k=10),
        }
        runs.append({"arm": arm, "seed": seed, **found})
        print(runs[-1], flush=True)
    save_runs(SLUG, runs)

    # method, baseline, metric, what the claim expects of the method, the claim
    claims = {
        "predictor-needed": (
            "no-predictor",
            "trained",
            "spread",
            "lower",
            "Without a predictor the embeddings spread less.",
        ),
        "stop-gradient-needed": (
            "no-stop-gradient",
            "trained",
            "spread",
            "lower",
            "Without the stop-gradient the embeddings spread less, down to collapse.",
        ),
        "directpred-keeps-rank": (
            "directpred",
            "no-predictor",
            "rank",
            "higher",
            "A computed predictor keeps more dimensions than none.",
        ),
        "directpred-beats-linear": (
            "directpred",
            "trained",
            "knn",
            "higher",
            "DirectPred learns better features than a trained linear predictor.",
        ),
        "directcopy-beats-linear": (
            "directcopy",
            "trained",
            "knn",
            "higher",
            "DirectCopy learns better features than a trained linear predictor.",
        ),
    }
    metrics = {
        "knn": ("kNN accuracy", "points"),
        "rank": ("Effective rank of the embeddings", ""),
        "spread": ("Spread", ""),
    }
    seconds = time.perf_counter() - start
    for claim_id, (method, baseline, metric, expected, claim) in claims.items():
        result = record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metrics[metric][0],
            unit=metrics[metric][1],
            expected=expected,
            baseline_name=baseline.replace("-", " "),
            method_name=method.replace("-", " "),
            seeds=SEEDS,
            baseline=[r[metric] for r in runs if r["arm"] == baseline],
            method=[r[metric] for r in runs if r["arm"] == method],
            seconds=seconds,
            note=f"Fashion-MNIST subset, {OPTIONS['epochs']} epochs, the same settings for every arm.",
        )
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
