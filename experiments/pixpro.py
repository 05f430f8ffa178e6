"""Does a loss on cells make features that know where things are, and for which encoder?

Scenes of 20 by 20 pixels: three squares, each with one of six textures and its hue, on a plain ground; every pixel has
a label. The encoder returns a map of 5 by 5 cells. Its cells see 15 pixels (*local*), or the whole picture (*wide*,
three more convolutions on the map). Losses: SimCLR on pooled maps (*pooled*), PixContrast, PixPro without propagation
(*plain*) and PixPro, on the same crops with the same change of color. *Untrained* and *pixels* (the four by four of the
cell) train nothing.

A linear probe names the texture of each cell of new scenes, from 60 labeled scenes; accuracy is the mean over the seven
classes, so that background does not decide.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import nt_xent
from cl_teach.core.crop_geometry import crop, draw_boxes
from cl_teach.datasets import textured_scenes
from cl_teach.models import MLP, MapEncoder
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.pixpro import PixPro

SIDE, CELL, CHANNELS = 20, 4, 32
SCENES, LABELED, JUDGED = 640, 60, 200
BATCH, STEPS = 32, at_scale(200, 400, smoke=20)
SCALE = (0.3, 1.0)


def recolor(crops: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Another brightness and tint, and noise; no pixel moves."""
    tint = 0.8 + 0.4 * torch.rand(len(crops), 3, 1, 1, generator=generator)
    return crops * tint + 0.1 * torch.randn(crops.shape, generator=generator)


def represent(seed: int, world: int, reach: str, arm: str, lr: float) -> nn.Module:
    """Train one arm."""
    seed_everything(seed)
    draws, images = torch.Generator().manual_seed(seed), textured_scenes(SCENES, world=world, seed=seed).images
    network = MapEncoder(wide=reach == "wide")
    options = {"epochs": STEPS * BATCH // SCENES, "batch_size": BATCH, "learning_rate": lr, "seed": seed}
    if arm == "pooled":
        head = MLP([CHANNELS, 64, 32], norm="none")

        def loss(batch: Tensor) -> Tensor:
            views = [crop(batch, draw_boxes(len(batch), SCALE, generator=draws), SIDE, SIDE) for _ in range(2)]
            z1, z2 = (head(network(recolor(v, generator=draws)).mean((2, 3))) for v in views)
            return nt_xent(z1, z2, 0.3)

        fit(nn.ModuleList([network, head]), loss, images, progress=False, **options)
    elif arm != "untrained":
        more = {"objective": arm, "augment": recolor, "scale": SCALE, "momentum": 0.97}
        method = PixPro(network, CHANNELS, total_steps=STEPS, **more)
        fit(
            method,
            lambda batch: method.loss(batch, generator=draws),
            images,
            progress=False,
            after_step=method.after_step,
            **options,
        )
    return network.eval()


def cell_accuracy(known: Tensor, y: Tensor, unknown: Tensor, truth: Tensor) -> float:
    """Mean over the classes, in percent; the probe's classes weigh the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    mean, spread = known.mean(0), known.std(0) + 1e-6
    probe = LogisticRegression(class_weight="balanced", max_iter=200)
    probe.fit(((known - mean) / spread).numpy(), y.numpy())
    return 100 * float(balanced_accuracy_score(truth.numpy(), probe.predict(((unknown - mean) / spread).numpy())))


def trial(seed: int, reach: str, arm: str, lr: float, shift: int = 0) -> dict[str, float]:
    """Train one arm, and name cells of new scenes."""
    known, y = textured_scenes(LABELED, world=seed, seed=seed + 1000 + shift)
    unknown, truth = textured_scenes(JUDGED, world=seed, seed=seed + 2000 + shift)
    if arm == "pixels":
        x, new = (F.unfold(images, CELL, stride=CELL).mT.flatten(0, 1) for images in (known, unknown))
    else:
        network = represent(seed, seed, reach, arm, lr)
        with torch.no_grad():
            x, new = (network(images).flatten(2).mT.flatten(0, 1) for images in (known, unknown))
    return {"cells": cell_accuracy(x, y.flatten(), new, truth.flatten())}


def score(seed: int, reach: str, arm: str, lr: float) -> float:
    """For tuning: cells of scenes of another world."""
    return trial(seed, reach, arm, lr)["cells"]


CELLS = Metric("Balanced accuracy of a linear probe on cells (chance: 14 %)", "cells", "points", 2.0, "Of 86.")
LOSSES = {
    "untrained": "untrained",
    "pooled": "pooled NT-Xent",
    "contrast": "PixContrast",
    "plain": "PixPro without propagation",
    "pixpro": "PixPro",
}
ARMS = {f"{r}-{a}": {"reach": r, "arm": a} for r in ("wide", "local") for a in LOSSES}
EXPERIMENT = Experiment(
    "pixpro",
    ARMS | {"pixels": {"reach": "none", "arm": "pixels"}},
    trial,
    [
        Claim(
            "cells",
            "A loss on cells makes features that say better what is where than one on pooled maps.",
            CELLS,
            "wide-pooled",
            "wide-pixpro",
            headline=True,
        ),
        Claim("cells-contrast", "So does PixContrast.", CELLS, "wide-pooled", "wide-contrast"),
        Claim("propagation", "Propagation adds to it.", CELLS, "wide-plain", "wide-pixpro"),
        Claim(
            "cells-local", "It holds for an encoder with local cells as well.", CELLS, "local-pooled", "local-pixpro"
        ),
        Claim("contrast-local", "And for PixContrast.", CELLS, "local-pooled", "local-contrast"),
        Claim("reach", "Local cells say better what is where.", CELLS, "wide-pooled", "local-pooled", origin="ours"),
        Claim("learned", "PixPro's cells beat untrained ones.", CELLS, "wide-untrained", "wide-pixpro", origin="ours"),
        Claim("learned-local", "Also local ones.", CELLS, "local-untrained", "local-pixpro", origin="ours"),
        Claim(
            "pixels", "Local features of the pooled loss beat pixels.", CELLS, "pixels", "local-pooled", origin="ours"
        ),
        Claim("contrast-pixels", "Those of PixContrast do.", CELLS, "pixels", "local-contrast", origin="post hoc"),
    ],
    {f"{r}-{a}": f"{word}, {r}" for r in ("wide", "local") for a, word in LOSSES.items()}
    | {"pixels": "pixels of the cell"},
    f"{SCENES} scenes of 20x20 pixels with three of six textures, maps of 5x5 cells, {STEPS} steps of {BATCH}; "
    "learning rate tuned on the local encoder; probe on 60 labeled scenes, judged on 200.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"lr": (1e-3, 4e-3, 1.6e-2)},
        score,
        like={
            "wide-untrained": "local-pooled",
            "local-untrained": "local-pooled",
            "pixels": "local-pooled",
            "wide-pooled": "local-pooled",
            "wide-contrast": "local-pixpro",
            "wide-plain": "local-pixpro",
            "wide-pixpro": "local-pixpro",
            "local-contrast": "local-pixpro",
            "local-plain": "local-pixpro",
        },
        widen=0,
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
