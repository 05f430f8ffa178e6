r"""Is it similarity that helps, or merely softer targets? CWCL beside LiT and controls.

A *frozen* space, 16-dimensional, in which classes are clusters, two and two near one another; the other modality,
:math:`\tanh(zA)` plus noise, 32-dimensional, is trained on a few pairs. Zero-shot: which class center of the frozen
space is nearest to a new input of the other modality. Arms differ in the weights of the frozen anchors only:

- *LiT*: the identity; *CWCL*: cosine / 2 + 1/2; *sharp*: its eighth power, not part of the method;
- *flat*: every other sample of the batch gets the mean of CWCL's weights in its row. The target has the mass of CWCL's,
  and no similarity: label smoothing;
- *same class*: 1 for samples of one class, an oracle that sees labels.

*Tight* classes have a deviation of 0.2 in each direction, *wider* ones more; *many pairs* has 2,000 instead of 400.
*New classes* are never in the training. The learning rate is tuned for every loss alike, on tight classes, by new
samples of another world than those of the records; the scale is learned.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn

from cl_teach.core import cosine_similarity, same_label_mask, self_mask
from cl_teach.crossmodal.cwcl import CWCL, cwcl_terms, intra_modal_weights
from cl_teach.models import MLP
from cl_teach.training import at_scale, fit, seed_everything

CLASSES, DIM, INPUT = 8, 16, 32
STEPS, BATCH = at_scale(400, 4000, smoke=5), 128
SPREADS = (0.1, 0.2, 0.4, 0.6, 0.8)
TIGHT = 0.2


class World(NamedTuple):
    """Centers ``(2 C, DIM)`` of training classes, then of new ones, and the map to the other modality."""

    centers: Tensor
    map: Tensor
    spread: float

    def draw(self, n: int, new: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Frozen embeddings, inputs of the other modality, and classes of n pairs."""
        labels = torch.randint(CLASSES, (n,), generator=generator) + (CLASSES if new else 0)
        z = self.centers[labels] + self.spread * torch.randn(n, DIM, generator=generator)
        return z, torch.tanh(z @ self.map) + 0.4 * torch.randn(n, INPUT, generator=generator), labels


def make_world(spread: float, generator: torch.Generator) -> World:
    """Classes two and two near one another."""
    pairs = torch.randn(CLASSES, 1, DIM, generator=generator)
    centers = pairs + 0.5 * torch.randn(CLASSES, 2, DIM, generator=generator)  # 2 CLASSES in all
    return World(centers.flatten(0, 1), torch.randn(DIM, INPUT, generator=generator) / 4, spread)


def weights_of(loss: str, frozen: Tensor, labels: Tensor) -> Tensor:
    """How positive every sample is for every other one, ``(n, n)``."""
    own, similar = self_mask(len(frozen)).float(), intra_modal_weights(frozen)
    if loss == "flat":
        others = (similar.sum(1, keepdim=True) - 1) / (len(frozen) - 1)
        return own + (1 - own) * others
    return {
        "lit": own,
        "cwcl": similar,
        "sharp": similar**8,
        "same class": same_label_mask(labels).float(),
    }[loss]


def trial(
    seed: int, loss: str, spread: float, learning_rate: float, pairs: int, tuning: bool = False
) -> dict[str, float]:
    """Train the second tower and measure it on new samples."""
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    world = make_world(spread, draws)
    frozen, inputs, labels = world.draw(pairs, False, draws)
    model = CWCL(nn.Identity(), MLP([INPUT, 64, DIM]))

    def step(q: Tensor, u: Tensor, y: Tensor) -> Tensor:
        return cwcl_terms(model.trained_tower(u), q, model.log_scale, weights_of(loss, q, y)).loss

    options = {"batch_size": BATCH, "weight_decay": 0.0, "seed": seed, "progress": False}
    epochs = max(1, STEPS * BATCH // pairs)
    if loss != "untrained":
        data = (frozen, inputs, labels)
        fit(model, step, data, epochs=epochs, learning_rate=learning_rate, after_step=model.after_step, **options)
    model.eval()
    found = {}
    for new in (False, True):
        q, u, y = world.draw(1000, new, draws)
        with torch.no_grad():
            p = model.trained_tower(u)
            known = world.centers[CLASSES:] if new else world.centers[:CLASSES]
            guess = cosine_similarity(p, known).argmax(1) + (CLASSES if new else 0)
            found["new classes" if new else "accuracy"] = 100 * float((guess == y).double().mean())
            if not new:
                apart = ~self_mask(len(q))
                both = torch.stack([cosine_similarity(x, x)[apart] for x in (p, q)])
                found |= {"structure": float(torch.corrcoef(both)[0, 1]), "scale": float(model.log_scale.exp())}
    return found


def score(seed: int, **settings: Any) -> float:
    """Zero-shot accuracy in a world that no record has."""
    return trial(seed, tuning=True, **settings)["accuracy"]


LOSSES = {"lit": "LiT", "cwcl": "CWCL", "flat": "flat weights of the same mass", "sharp": "weights to the power 8"}
LOSSES |= {"same class": "weights from labels", "untrained": "untrained"}
WORLDS = {f"spread {s:g}": {"spread": s, "pairs": 400} for s in SPREADS}
WORLDS |= {"many pairs": {"spread": TIGHT, "pairs": 2000}}
TIGHT_WORLD = f"spread {TIGHT:g}"
WHERE = {"spread 0.8": ", wide classes", "many pairs": ", 2,000 pairs"}
ARMS = {
    f"{world}, {loss}": {"loss": loss} | given | ({"learning_rate": 0.0} if loss == "untrained" else {})
    for world, given in WORLDS.items()
    for loss in LOSSES
    if loss != "untrained" or world == TIGHT_WORLD
}
ACCURACY = Metric("Zero-shot accuracy on new samples", "accuracy", "points")
NEW = Metric("Zero-shot accuracy on classes never seen", "new classes", "points")
STRUCTURE = Metric(
    "Correlation of cosines in the trained and in the frozen space",
    "structure",
    smallest_effect=0.02,
    reason="A fiftieth of the way from no agreement to full agreement.",
)


def claim(name: str, sentence: str, one: str, other: str, metric: Metric = ACCURACY, **rest: Any) -> Claim:
    """One row; arms are named by world and loss."""
    return Claim(name, sentence, metric, one, other, **rest)


EXPERIMENT = Experiment(
    "cwcl",
    ARMS,
    trial,
    [
        claim(
            "tight",
            "With tight classes and few pairs, CWCL is better zero-shot than LiT.",
            f"{TIGHT_WORLD}, lit",
            f"{TIGHT_WORLD}, cwcl",
            headline=True,
        ),
        claim(
            "similarity",
            "CWCL is better than flat weights of the same mass: similarity helps, not softness.",
            f"{TIGHT_WORLD}, flat",
            f"{TIGHT_WORLD}, cwcl",
            origin="ours",
        ),
        claim(
            "softness",
            "Flat weights are better than LiT: softness helps.",
            f"{TIGHT_WORLD}, lit",
            f"{TIGHT_WORLD}, flat",
            origin="ours",
        ),
        claim(
            "sharp",
            "Weights to the power 8 are better than CWCL's own.",
            f"{TIGHT_WORLD}, cwcl",
            f"{TIGHT_WORLD}, sharp",
            origin="ours",
        ),
        claim(
            "labels",
            "Weights from labels are better than CWCL's.",
            f"{TIGHT_WORLD}, cwcl",
            f"{TIGHT_WORLD}, same class",
            origin="ours",
        ),
        claim("wide", "With wide classes, too, CWCL is better than LiT.", "spread 0.8, lit", "spread 0.8, cwcl"),
        claim(
            "many-pairs",
            "With five times as many pairs, too, CWCL is better than LiT.",
            "many pairs, lit",
            "many pairs, cwcl",
        ),
        claim(
            "new-classes",
            "On classes never seen, CWCL is better than LiT.",
            f"{TIGHT_WORLD}, lit",
            f"{TIGHT_WORLD}, cwcl",
            NEW,
        ),
        claim(
            "structure",
            "CWCL carries over the structure of the frozen space better than LiT.",
            f"{TIGHT_WORLD}, lit",
            f"{TIGHT_WORLD}, cwcl",
            STRUCTURE,
        ),
        claim(
            "structure-sharp",
            "Weights to the power 8 carry over more structure than LiT.",
            f"{TIGHT_WORLD}, lit",
            f"{TIGHT_WORLD}, sharp",
            STRUCTURE,
            origin="ours",
        ),
        claim(
            "untrained",
            "CWCL is better than an untrained tower.",
            f"{TIGHT_WORLD}, untrained",
            f"{TIGHT_WORLD}, cwcl",
            origin="ours",
        ),
    ],
    {f"{world}, {loss}": words + WHERE.get(world, "") for world in WORLDS for loss, words in LOSSES.items()},
    f"Clusters in 16 dimensions, deviation {TIGHT:g} where nothing else is said, 400 pairs, {STEPS} steps of AdamW in "
    f"batches of {BATCH}. Learning rate tuned for every loss alike in worlds of their own, with tight classes; scale "
    "learned.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"learning_rate": (1e-3, 3e-3, 1e-2)},
        score,
        like={
            f"{world}, {loss}": f"{TIGHT_WORLD}, {loss}"
            for world in WORLDS
            for loss in LOSSES
            if world != TIGHT_WORLD and loss != "untrained"
        },
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
