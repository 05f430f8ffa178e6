"""Valid calls of the ground floor's `core`."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.core import (
    against_queue,
    assignment,
    by_hand,
    checks,
    contrast,
    draws,
    fastest,
    pairwise,
    precision,
    preference,
    products,
    queue,
    ranking,
    regression,
    similarity,
    tables,
    teacher,
    tiles,
)

EYE = torch.eye(5, 7, dtype=torch.bool)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def filled_queue() -> queue.FeatureQueue:
    """A queue of eight with five rows."""
    made = queue.FeatureQueue(8, 4)
    made.push(normal(5, 4))
    return made


CALLS = {
    assignment.sinkhorn: lambda: dict(scores=normal(6, 3), epsilon=0.5, iterations=3),
    contrast.softmax_contrast: [
        lambda: dict(logits=normal(5, 7), positives=EYE, candidates=None, variant="out", reduction="mean"),
        lambda: dict(logits=normal(5, 7), positives=EYE, candidates=EYE | EYE.roll(1, 1), variant="in"),
    ],
    contrast.weighted_contrast: [
        lambda: dict(logits=normal(5, 7), positives=uniform(5, 7), candidates=uniform(5, 7, seed=1), variant="out"),
        lambda: dict(logits=normal(5, 7), positives=uniform(5, 7), candidates=EYE, variant="in", reduction="sum"),
    ],
    contrast.info_nce: [
        lambda: dict(query=normal(6, 4), positive=normal(6, 4, seed=1), negatives=None, temperature=0.1),
        lambda: dict(query=normal(6, 4), positive=normal(6, 4, seed=1), negatives=normal(9, 4), reduction="sum"),
        lambda: dict(query=normal(6, 4), positive=normal(6, 4, seed=1), negatives=normal(6, 3, 4), temperature=0.1),
        lambda: dict(query=normal(6, 4), positive=normal(6, 4, seed=1), negatives=normal(9, 4), in_batch=True),
    ],
    contrast.one_positive_contrast: lambda: dict(positive=normal(6), negatives=normal(6, 3), reduction="mean"),
    contrast.nt_xent: lambda: dict(z1=normal(6, 4), z2=normal(6, 4, seed=1), temperature=0.5, reduction="mean"),
    contrast.sup_con: [
        lambda: dict(z=normal(6, 4), labels=LABELS, temperature=0.1, variant="in", reduction="mean"),
        lambda: dict(z=normal(6, 4), labels=torch.tensor([0, 1, 2, 0, 1, 3]), singletons="skip", reduction="none"),
    ],
    contrast.clip_loss: lambda: dict(image=normal(6, 4), text=normal(6, 4, seed=1), log_scale=2.0),
    contrast.siglip_loss: lambda: dict(image=normal(6, 4), text=normal(6, 4, seed=1), log_scale=2.0, bias=-10.0),
    contrast.check_temperature: lambda: dict(temperature=0.1),
    contrast.check_scale: lambda: dict(log_scale=0.1),
    contrast.reduce: lambda: dict(loss=normal(6), reduction="mean"),
    draws.draw_beta: lambda: {"*": (), "a": 0.5, "b": 2.0, "generator": generator()},
    draws.draw_seed: lambda: dict(generator=generator()),
    precision.full_precision: lambda: dict(function=torch.sum),
    preference.preference_loss: [
        lambda: dict(gap=normal(5), reference_gap=normal(5, seed=1), beta=0.1, kind="dpo"),
        lambda: dict(gap=normal(5), reference_gap=0.5, beta=0.1, kind="ipo"),
    ],
    queue.FeatureQueue: lambda: dict(size=8, dim=4),
    queue.FeatureQueue.push: lambda: (filled_queue(), dict(features=normal(5, 4))),
    ranking.bpr: lambda: dict(users=normal(5, 4), positives=normal(5, 4, seed=1), negatives=normal(5, 4, seed=2)),
    regression.regression_loss: lambda: dict(prediction=normal(5, 4), target=normal(5, 4, seed=1), reduction="mean"),
    similarity.normalize: lambda: dict(x=normal(5, 4), dim=1),
    similarity.cosine_similarity: lambda: dict(a=normal(5, 4), b=normal(6, 4)),
    similarity.self_mask: lambda: dict(n=4, device="cpu"),
    similarity.other_view_mask: lambda: dict(n=4, device="cpu"),
    similarity.same_label_mask: [lambda: dict(a=whole(3, 5), b=None), lambda: dict(a=whole(3, 5), b=whole(3, 4))],
    teacher.MomentumTeacher: lambda: dict(student=nn.Linear(3, 2), momentum=0.9),
    teacher.MomentumTeacher.update: lambda: (teacher.MomentumTeacher(nn.Linear(3, 2)), dict(student=nn.Linear(3, 2))),
    tiles.use_tiles: lambda: dict(temperature=0.1),
}

EXEMPT = {
    **{getattr(checks, name): "a check is what everything else is tested with" for name in checks.__all__},
    teacher.MomentumTeacher.forward: "hands whatever it gets to the network it holds",
    by_hand.gradient_by_hand: "takes no arguments",
    precision.without_autocast: "a decorator; every loss runs through it",
    fastest.fastest: "an inner function of the tiles; tested with tasks whose speed is known",
    tiles.tiled_contrast: "the inner form of the losses, which check; tested against the plain formula",
    tiles.tiling: "a switch for tests and benchmarks, a context manager",
    **{getattr(products, name): "an inner product of the tiles, for tensors they made" for name in products.__all__},
    **dict.fromkeys((tables.make_table, tables.tile_side), "an inner function of the tiles"),
    **{
        getattr(module, name): "an inner form of a loss"
        for module in (against_queue, pairwise)
        for name in module.__all__
    },
    **{
        value: "inner forms of the losses, which check; tested against the plain formula"
        for table in (tables.WholeTable, tables.TiledTable)
        for value in (table, *(getattr(table, name) for name in vars(table) if not name.startswith("_")))
    },
}
