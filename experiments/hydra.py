"""Can arbitrary pairs of classes be positives if a gate chooses the dimensions, and what do the gates know?

Forty classes, each a shape and a color of its own (`crossed_classes`): related classes share one of the two. A small
backbone, a projector to 16 dimensions, 240 steps. Everything is measured on the backbone's features of new points, by
a linear probe and by the effective rank, and on the gates.

Arms: *gated* (the method: the partner class is arbitrary, the gate belongs to the pair), *open* (the same without
gates: in all dimensions), *product* (the form that the code took up later), *SupCon* (the partner class is the own, no
gate: the supervised loss with the same masks) and *untrained* (the same backbone before training).

How related two classes are according to a set of vectors, one a class: the centered cosines, and the area under the
curve (AUC) by which they tell pairs that share shape or color from pairs that share neither. Vectors are the gates (of
a class with itself) and, to compare with, the class means of the features and of the raw points. Nothing is tuned; the
settings come from trial runs on other seeds.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.core import normalize
from cl_teach.datasets import CrossedClasses, crossed_classes
from cl_teach.evaluation import effective_rank, linear_probe
from cl_teach.models import MLP
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.hydra import Hydra

SHAPES, COLORS = 8, 5
CLASSES = SHAPES * COLORS
N, BATCH, EPOCHS = 3072, 256, at_scale(20, 60, smoke=1)
KINDS = {
    "gated": {"kind": "arbitrary"},
    "open": {"kind": "arbitrary", "gating": False},
    "product": {"kind": "arbitrary", "form": "product"},
    "supcon": {"kind": "identical", "gating": False},
    "untrained": {"kind": "identical", "gating": False},
}


def relations(vectors: Tensor) -> float:
    """The AUC of the centered cosines of ``(40, d)`` vectors, one a class."""
    z = normalize(vectors - vectors.mean(0))
    i, j = torch.triu_indices(CLASSES, CLASSES, 1)
    similarity = (z @ z.mT)[i, j]
    related = (i // COLORS == j // COLORS) | (i % COLORS == j % COLORS)
    above = similarity[related][:, None] - similarity[~related]
    return float((above > 0).float().mean() + (above == 0).float().mean() / 2)


def means(x: Tensor, labels: Tensor) -> Tensor:
    """The mean of every class."""
    return torch.stack([x[labels == c].mean(0) for c in range(CLASSES)])


def make(seed: int, arm: str) -> Hydra:
    """The untrained network."""
    seed_everything(seed)
    backbone = nn.Sequential(MLP([24, 64, 16], norm="batch"), nn.BatchNorm1d(16))
    return Hydra(backbone, 16, CLASSES, width=16, hidden=64, embedding_dim=32, gate_hidden=64, **KINDS[arm])


@torch.no_grad()
def gates(hydra: Hydra) -> Tensor:
    """The gate of every class with itself."""
    assert hydra.gate is not None
    each = torch.arange(CLASSES)
    return hydra.gate.eval()(each, each)


@torch.no_grad()
def contrast(hydra: Hydra, data: CrossedClasses, draws: torch.Generator) -> float:
    """The loss on new points, without the monitoring classifier."""
    parts = zip(data.points.split(BATCH), data.labels.split(BATCH), strict=True)
    found = [hydra.loss(x, y, generator=draws).contrast for x, y in parts if len(x) == BATCH]
    return float(torch.stack(found).mean())


def trial(seed: int, arm: str) -> dict[str, float | None]:
    """Train one arm and measure it."""
    train, test = crossed_classes(N, world=seed, seed=seed), crossed_classes(2048, world=seed, seed=seed + 1000)
    hydra, draws = make(seed, arm), torch.Generator().manual_seed(seed)
    gated = hydra.gate is not None
    before = relations(gates(hydra)) if gated else None
    if arm != "untrained":

        def loss(x: Tensor, labels: Tensor) -> Tensor:
            return hydra.loss(x, labels, generator=draws).loss

        options = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 3e-3, "seed": seed, "progress": False}
        fit(hydra, loss, (train.points, train.labels), **options)
    hydra.eval()
    with torch.no_grad():
        known, unknown = hydra.backbone(train.points), hydra.backbone(test.points)
    return {
        "probe": 100 * linear_probe(known, train.labels, unknown, test.labels, max_iter=at_scale(100, 300)),
        "rank": float(effective_rank(unknown)),
        "loss": contrast(hydra, test, draws),
        "gates_before": before,
        "gates": relations(gates(hydra)) if gated else None,
        "class_means": relations(means(known, train.labels)),
        "raw_means": relations(means(train.points, train.labels)),
    }


PROBE = Metric("Accuracy of a linear probe on the backbone, 40 classes", "probe", "points", 0.5, "Half a point.")
RANK = Metric("Effective rank of the backbone's 16 features", "rank", "", 0.5, "Half a dimension.")
LOSS = Metric("Contrast on new points", "loss", "", 0.1, "Guessing costs about 5.5.")
AUC = Metric(
    "AUC of related against unrelated classes", "gates", "", 0.05, "A tenth of the way from chance to certainty."
)
NAMES = {
    "gated": "arbitrary pairs, gated",
    "open": "arbitrary pairs, all dimensions",
    "product": "arbitrary pairs, gated by the later form",
    "supcon": "pairs of one class (SupCon)",
    "untrained": "untrained backbone",
    "gated:gates_before": "gates before training",
    "gated:class_means": "class means of the features",
    "gated:raw_means": "class means of the raw points",
}
EXPERIMENT = Experiment(
    "hydra",
    {arm: {"arm": arm} for arm in KINDS},
    trial,
    [
        Claim(
            "gate",
            "With gates, arbitrary pairs of classes teach a better representation than without.",
            PROBE,
            "open",
            "gated",
            headline=True,
        ),
        Claim("learnable", "With gates the loss of arbitrary pairs can be lowered.", LOSS, "open", "gated", "lower"),
        Claim("untrained", "Training on gated arbitrary pairs helps.", PROBE, "untrained", "gated", origin="ours"),
        Claim("supcon", "Gated arbitrary pairs beat pairs of one class.", PROBE, "supcon", "gated"),
        Claim("rank-supcon", "Arbitrary pairs keep more dimensions in use.", RANK, "supcon", "gated"),
        Claim("rank-open", "The gates keep more dimensions in use.", RANK, "open", "gated"),
        Claim("product", "The later form of the gate is no worse.", PROBE, "gated", "product", origin="ours"),
        Claim("relations", "Gates discover which classes are related.", AUC, "gated:gates_before", "gated"),
        Claim(
            "relations-features",
            "Gates know more of the relations than the class means of the features.",
            AUC,
            "gated:class_means",
            "gated",
            origin="ours",
        ),
        Claim(
            "relations-raw",
            "Gates know more of the relations than the class means of the raw points.",
            AUC,
            "gated:raw_means",
            "gated",
            origin="ours",
        ),
    ],
    NAMES,
    f"{N} points of 40 classes (8 shapes, 5 colors) in 24 dimensions with noise 0.5; MLP 24-64-16, projector to 16, "
    f"{EPOCHS * (N // BATCH)} steps, batches of {BATCH}, temperature 0.1; nothing tuned.",
    seeds=range(20),
    looks=LOOKS,
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
