"""One set of sprites for all methods of Part 4: which factors did the views leave alone, which do the features keep?

Sprites of 16 by 16 pixels with six independent factors. The same small network is trained with the pairs that each
method would make here, and linear probes read every factor from its outputs. Arms: *noise* (two noisy copies, SimCLR),
*color* (the color is drawn anew: a perfect translator, CDvG), *place* (column, row and size are: pictures of a subject
in other views, CustomContrast; right variations, GenView), *wrong* (as place, and in 40 % of the pairs the shape as
well: a generator that errs), *stages* (MCL, two stages of noisy copies, outputs side by side), *hydra* (any two of the
36 classes of shape and color are a pair, behind gates), *common* and *salient* (SepCLR's codes; sprites with a texture
are the targets, plain ones the background). *Pixels*, *scattering* (ScatSimCLR's fixed layers) and *untrained* train
nothing. AdaInf changes how many images there are, not the views; PixPro compares cells, not pictures.

Nothing is tuned. What is recorded is one claim for each rule that the chapters state in words.
"""

from __future__ import annotations

import torch
from _runner import Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.core import nt_xent
from cl_teach.datasets import SPRITE_FACTORS, Sprites, sprites
from cl_teach.evaluation import linear_probe
from cl_teach.models import MLP
from cl_teach.models.scattering import Scattering
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.hydra import Hydra
from cl_teach.views.mcl import Multistage, Stage
from cl_teach.views.sepclr import SepCLR

N, PROBED, TESTED, OUT, BATCH = 1920, 800, 600, 24, 128
EPOCHS = at_scale(20, 40, smoke=1)
NOISE = 0.1
PLACE = ("column", "row", "size")


def noisy(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """What all arms have in common."""
    return x + NOISE * torch.randn(x.shape, generator=generator)


def redrawn(first: Sprites, seed: int, names: tuple[str, ...], shape: float = 0.0) -> Tensor:
    """The same sprites with some factors drawn anew, and the shape in a share of them."""
    draws = torch.Generator().manual_seed(seed + 500)
    fix = {
        name: torch.randint(len(values), (N,), generator=draws) if name in names else first.factors[name]
        for name, values in SPRITE_FACTORS.items()
    }
    other = torch.randint(len(SPRITE_FACTORS["shape"]), (N,), generator=draws)
    fix["shape"] = torch.where(torch.rand(N, generator=draws) < shape, other, fix["shape"])
    return sprites(N, seed=seed, size=16, fix=fix).images


def encoder(outputs: int = OUT) -> nn.Module:
    """A small network on pixels."""
    return nn.Sequential(nn.Flatten(), MLP([768, 128, outputs], norm="none"))


def represent(seed: int, arm: str) -> nn.Module:
    """Train one arm; returns what maps images to features."""
    data = sprites(N, seed=seed, size=16)
    seed_everything(seed)
    draws, x = torch.Generator().manual_seed(seed), data.images
    options = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 2e-3, "seed": seed, "progress": False}
    if arm in ("noise", "color", "place", "wrong"):
        names = {"noise": (), "color": ("color",)}.get(arm, PLACE)
        second = redrawn(data, seed, names, 0.4 if arm == "wrong" else 0.0)
        network = encoder()

        def loss(a: Tensor, b: Tensor) -> Tensor:
            return nt_xent(network(noisy(a, draws)), network(noisy(b, draws)), 0.2)

        fit(network, loss, (x, second), **options)
        return network
    if arm == "stages":
        method, rows = Multistage(N, 8), torch.arange(N)
        for _ in range(2):
            stage = Stage(encoder(OUT // 2), method.labels, augment=noisy)
            fit(stage, lambda a, i, stage=stage: stage.loss(a, i, generator=draws), (x, rows), **options)
            method.close_stage(stage.encoder, x, generator=draws)
        return method
    if arm == "hydra":
        backbone = encoder()
        hydra = Hydra(backbone, OUT, 36, width=16, embedding_dim=32, gate_hidden=64)
        classes = 6 * data.factors["shape"] + data.factors["color"]
        fit(hydra, lambda a, y: hydra.loss(noisy(a, draws), y, generator=draws).contrast, (x, classes), **options)
        return backbone
    codes = SepCLR(encoder(OUT // 2), encoder(OUT // 2))
    targets = (data.factors["texture"] > 0).long()
    fit(codes, lambda a, y: codes.loss(noisy(a, draws), noisy(a, draws), y).loss, (x, targets), **options)
    return codes.common if arm == "common" else codes.salient


def trial(seed: int, arm: str) -> dict[str, float]:
    """Accuracy of a linear probe for every factor, in percent."""
    known, unknown = sprites(PROBED, seed=seed + 1000, size=16), sprites(TESTED, seed=seed + 2000, size=16)
    seed_everything(seed)
    if arm == "untrained":
        network = encoder()
    elif arm == "pixels":
        network = nn.Flatten()
    elif arm == "scattering":
        network = nn.Sequential(Scattering((16, 16)), nn.Flatten())
    else:
        network = represent(seed, arm)
    network.eval()
    with torch.no_grad():
        x, new = network(known.images), network(unknown.images)
    return {
        name: 100 * linear_probe(x, known.factors[name], new, unknown.factors[name], max_iter=at_scale(60, 100))
        for name in SPRITE_FACTORS
    }


def of(name: str, chance: int) -> Metric:
    """The probe of one factor."""
    words = f"Accuracy of a linear probe for the {name} (chance: {chance} %)"
    return Metric(words, name, "points", 5.0, "Of what is above chance, about a fifteenth.")


COLOR, SHAPE, COLUMN, TEXTURE = of("color", 17), of("shape", 17), of("column", 33), of("texture", 20)
WORDS = {
    "pixels": "pixels",
    "scattering": "scattering, untrained",
    "untrained": "untrained network",
    "noise": "noisy copies",
    "color": "another color",
    "place": "another place and size",
    "wrong": "another place and size, 40 % another shape",
    "stages": "two stages of noisy copies",
    "hydra": "any two classes of shape and color, gated",
    "common": "common code, targets have a texture",
    "salient": "salient code, targets have a texture",
}
EXPERIMENT = Experiment(
    "views-of-sprites",
    {arm: {"arm": arm} for arm in WORDS},
    trial,
    [
        Claim(
            "color",
            "A color that positives do not share is lost.",
            COLOR,
            "noise",
            "color",
            "lower",
            "ours",
            headline=True,
        ),
        Claim("place", "A place that positives do not share is lost.", COLUMN, "noise", "place", "lower", "ours"),
        Claim("shape-color", "Without the color the shape is read better.", SHAPE, "noise", "color", origin="ours"),
        Claim("shape-place", "Without the place the shape is read better.", SHAPE, "noise", "place", origin="ours"),
        Claim("shape-wrong", "Wrong shapes cost the shape.", SHAPE, "place", "wrong", "lower", "ours"),
        Claim("stages", "A second stage finds the shape.", SHAPE, "noise", "stages", origin="ours"),
        Claim("salient", "The salient code holds the texture.", TEXTURE, "common", "salient", origin="ours"),
        Claim("salient-color", "And not the color.", COLOR, "common", "salient", "lower", "ours"),
    ],
    WORDS,
    f"{N} sprites of 16x16 pixels, MLP 768-128-{OUT}, {EPOCHS} epochs in batches of {BATCH}, nothing tuned; probes on "
    f"{PROBED} other sprites, tested on {TESTED}.",
    seeds=range(5),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
