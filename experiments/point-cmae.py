"""Does pulling doubly masked tokens together help a masked autoencoder of point clouds, and which pairing collapses?

*Objects*: eight kinds of two parts, upright, with noise and varying proportions (drawn, no scans). A small
autoencoder is trained without labels; its features are read out linearly: which object a cloud is, from three labeled
clouds of each kind, and which part a token lies on.

Arms: no contrast (the masked autoencoder alone), the contrast at the authors' weight 1, at weight 10 (in so few steps a
weight of 1 moves little), at weight 10 with the pairing of the released code (every doubly masked token to *all* tokens
of the other branch), and the untrained network.

*Free tokens*: no network; two sets of tokens under the contrast alone, with either pairing.
"""

from __future__ import annotations

from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import nn

from cl_teach.datasets import AssembledClouds, assembled_clouds
from cl_teach.evaluation import effective_rank, linear_probe
from cl_teach.models.point_transformer import farthest_points, make_patches
from cl_teach.signals.point_cmae import PointCMAE, comask_contrast, draw_masks
from cl_teach.training import at_scale, fit, seed_everything

CLOUDS, LABELED, TEST = at_scale(512, 4096, smoke=32), 24, at_scale(320, 640, smoke=16)
EPOCHS, BATCH = at_scale(8, 40, smoke=1), 32
GROUPS, SIZE, DIM = 16, 16, 32
STEPS, FREE_CLOUDS, FREE_TOKENS, FREE_DIM = at_scale(400, 400, smoke=20), 4, 32, 16


def objects(n: int, seed: int) -> AssembledClouds:
    """Clouds of 128 noisy points; upright, as in the authors' collection of models."""
    return assembled_clouds(n, 128, noise=0.06, spread=0.4, rotate=False, seed=seed)


def trial(seed: int, arm: str, weight: float, pairing: str, learning_rate: float) -> dict[str, float]:
    """Train and measure one arm."""
    seed_everything(seed)
    model = PointCMAE(GROUPS, SIZE, DIM, depth=2, contrast_weight=weight, pairing=pairing)
    draws = torch.Generator().manual_seed(seed)
    if arm != "untrained":
        options = {
            "batch_size": BATCH,
            "learning_rate": learning_rate,
            "weight_decay": 0.05,
            "seed": seed,
            "progress": False,
        }
        clouds = objects(CLOUDS, 3 * seed).points
        fit(model, lambda x: model.loss(x, generator=draws), clouds, epochs=EPOCHS, **options)
    return measured(model.eval(), objects(LABELED, 3 * seed + 1), objects(TEST, 3 * seed + 2), draws)


@torch.no_grad()
def measured(
    model: PointCMAE, train: AssembledClouds, test: AssembledClouds, draws: torch.Generator
) -> dict[str, float]:
    """Linear readouts of objects and parts in percent, and what the contrast did to the tokens of unseen clouds."""
    x, test_x = model(train.points), model(test.points)
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    standard = ((x - mean) / deviation, train.labels, (test_x - mean) / deviation, test.labels)
    tokens, parts = [], []
    for data in (train, test):
        tokens.append(model.encode(data.points).tokens.flatten(0, 1))
        parts.append(data.parts.gather(1, farthest_points(data.points, GROUPS)).flatten())
    mean, deviation = tokens[0].mean(0), tokens[0].std(0) + 1e-6
    first, second = ((t - mean) / deviation for t in tokens)
    centers, patches = make_patches(test.points, GROUPS, SIZE)
    masks = [draw_masks(len(test.points), GROUPS, generator=draws) for _ in range(2)]
    decoded1, decoded2 = (found.tokens for found in model.decode(centers, patches, *masks))
    same = 1 - comask_contrast(decoded1, decoded2, *masks)
    other = 1 - comask_contrast(decoded1, decoded2, *masks, pairing="all")  # the same token is one of the G
    return {
        "objects": 100 * linear_probe(*standard, max_iter=200),
        "parts": 100 * linear_probe(first, parts[0], second, parts[1], max_iter=100),
        "same": float(same),
        "gap": float(same - (GROUPS * other - same) / (GROUPS - 1)),
        "reconstruction": float(model.terms(test.points, *masks).reconstruction),
    }


def score(seed: int, **settings: Any) -> float:
    """Readouts of objects and parts, on clouds that no record has."""
    found = trial(seed, **settings)
    return found["objects"] + found["parts"]


def free(seed: int, pairing: str) -> dict[str, float]:
    """Two sets of free tokens under the contrast alone."""
    draws = torch.Generator().manual_seed(seed)
    d1, d2 = (nn.Parameter(torch.randn(FREE_CLOUDS, FREE_TOKENS, FREE_DIM, generator=draws)) for _ in range(2))
    optimizer = torch.optim.Adam([d1, d2], lr=0.02)
    for _ in range(STEPS):
        masks = [draw_masks(FREE_CLOUDS, FREE_TOKENS, generator=draws) for _ in range(2)]
        loss = comask_contrast(d1, d2, *masks, pairing=pairing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    everything = torch.ones(FREE_CLOUDS, FREE_TOKENS, dtype=torch.bool)
    d1, d2 = d1.detach(), d2.detach()
    ranks = [float(effective_rank(nn.functional.normalize(cloud, dim=1))) for cloud in d1]
    return {
        "rank": sum(ranks) / len(ranks),
        "same": 1 - float(comask_contrast(d1, d2, everything, everything)),
        "all": 1 - float(comask_contrast(d1, d2, everything, everything, pairing="all")),
    }


KIND = Metric(
    "Accuracy of a linear readout of the object, three labeled clouds of each of eight kinds",
    "objects",
    "points",
    1.0,
    "Three of 320 clouds; smaller differences depend on which clouds are labeled.",
)
PART = Metric("Accuracy of a linear readout of the part a token lies on", "parts", "points")
SAME = Metric(
    "Cosine of the two imaginations of a doubly masked token",
    "same",
    smallest_effect=0.05,
    reason="A twentieth of the way from unrelated to equal.",
)
GAP = Metric(
    "Cosine of the same doubly masked token minus that of other tokens of the cloud",
    "gap",
    smallest_effect=0.05,
    reason="A twentieth of the way from unrelated to equal.",
)
RECONSTRUCTION = Metric(
    "Chamfer distance of the drawn patches, both branches",
    "reconstruction",
    smallest_effect=0.002,
    reason="A few percent of what an autoencoder without contrast reaches.",
)
WORDS = {
    "none": "masked autoencoder, no contrast",
    "same-1": "same token, weight 1",
    "same-10": "same token, weight 10",
    "all-10": "all tokens, weight 10",
    "untrained": "untrained network",
}
ARMS = {
    "none": (0.0, "same"),
    "same-1": (1.0, "same"),
    "same-10": (10.0, "same"),
    "all-10": (10.0, "all"),
    "untrained": (0.0, "same"),
}
TRANSFER = Experiment(
    "point-cmae",
    {
        name: {"arm": name, "weight": weight, "pairing": pairing}
        | ({"learning_rate": 0.0} if name == "untrained" else {})
        for name, (weight, pairing) in ARMS.items()
    },
    trial,
    [
        Claim(
            "objects",
            "The contrast of doubly masked tokens gives a masked autoencoder better features of objects.",
            KIND,
            "none",
            "same-1",
            headline=True,
        ),
        Claim("objects-10", "So it does at ten times the weight.", KIND, "none", "same-10", origin="ours"),
        Claim("parts", "It gives better features of parts.", PART, "none", "same-1"),
        Claim("training", "Masked autoencoding gives better features than no training.", KIND, "untrained", "none"),
        Claim(
            "agreement",
            "The contrast makes two imaginations of one token alike.",
            SAME,
            "none",
            "same-10",
        ),
        Claim(
            "pairing-gap",
            "Pairing the same token keeps tokens of one cloud apart better than pairing all.",
            GAP,
            "all-10",
            "same-10",
            origin="ours",
        ),
        Claim(
            "pairing-objects",
            "Pairing the same token gives better features of objects than pairing all.",
            KIND,
            "all-10",
            "same-10",
            origin="ours",
        ),
        Claim(
            "drawing",
            "The contrast at ten times the weight costs reconstruction.",
            RECONSTRUCTION,
            "none",
            "same-10",
            origin="ours",
        ),
    ],
    WORDS,
    "Drawn objects of two parts, 512 clouds of 128 points without labels; 16 patches of 16 points, width 32, two "
    "blocks, 128 steps of AdamW; learning rate tuned alike on other clouds, at weight 10 that of weight 1.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (1e-3, 2e-3, 4e-3)}, score, like={"same-10": "same-1", "all-10": "same-1"}),
)
FREE = Experiment(
    "point-cmae",
    {f"free-{pairing}": {"pairing": pairing} for pairing in ("same", "all")},
    free,
    [
        Claim(
            "free-rank",
            "Without a reconstruction, pairing all tokens makes them one direction, pairing the same token does not.",
            Metric(
                "Effective rank of the 32 tokens of a cloud in 16 dimensions",
                "rank",
                smallest_effect=1.0,
                reason="One direction.",
            ),
            "free-all",
            "free-same",
            origin="ours",
        )
    ],
    {"free-same": "same token", "free-all": "all tokens"},
    "Free tokens, four clouds of 32 in 16 dimensions, 400 steps of Adam, fresh masks in every step.",
    runs="point-cmae-free",
)
EXPERIMENTS = (TRANSFER, FREE)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
