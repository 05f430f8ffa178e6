"""Valid calls of Part 3."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.losses import amcl, cacr, dcl, feature_transformation, groco, hallucinator, isogclr, mochi, swav
from cl_teach.models.hallucinator import Hallucinator

INDEX = torch.tensor([7, 2, 0, 4])
ORDER = torch.tensor([2, 0, 1, 4, 3, 6, 5])


def warm(*shape: int, seed: int = 0) -> torch.Tensor:
    """Temperatures."""
    return 0.2 + uniform(*shape, seed=seed)


def mixture() -> mochi.Mixture:
    """For four queries and a queue of seven."""
    rows = [whole(7, 4, 3, seed=seed) for seed in range(2)]
    return mochi.Mixture(*rows, uniform(4, 3), whole(7, 4, 2), uniform(4, 2) / 2)


def hallucinate() -> Hallucinator:
    """Of width 4."""
    torch.manual_seed(0)
    return Hallucinator(4)


def method() -> amcl.AMCL:
    """Two heads of width 4."""
    torch.manual_seed(0)
    return amcl.AMCL([nn.Linear(4, 4), nn.Identity()], 4)


def views() -> dict[str, torch.Tensor]:
    """Two views of four samples, with their numbers."""
    return dict(z1=normal(4, 3), z2=normal(4, 3, seed=1), index=INDEX)


MOCO = dict(query=normal(4, 3), key=normal(4, 3, seed=1), queue=normal(7, 3, seed=2))
HEADS = dict(query=normal(2, 4, 3), key=normal(2, 4, 3, seed=1), queue=normal(2, 7, 3, seed=2))
ROWS = dict(positive_temperatures=warm(2, 4), negative_temperatures=warm(2, 4, 7))
MEMORY = dict(n=10, temperature=0.1, low=0.05, high=1.0, rho=0.4, gamma=0.8, learning_rate=0.03, momentum=0.5, clip=3.0)

CALLS = {
    amcl.regularizer: lambda: dict(temperature=warm(2, 3), dim=4),
    amcl.amcl: [
        lambda: dict(heads=normal(2, 8, 3), temperatures=warm(2, 8, 8), beta=1.0, form="lse", reduction="mean"),
        lambda: dict(heads=normal(2, 8, 3), temperatures=warm(2, 8, 8), beta=0.1, form="topk", topk=3),
        lambda: dict(heads=normal(2, 8, 3), temperatures=warm(2, 8, 8), beta=0.1, form="released", topk=3),
    ],
    amcl.amcl_moco: [
        lambda: dict(**HEADS, **ROWS, key_temperatures=None, beta=1.0, form="lse", reduction="mean"),
        lambda: dict(**HEADS, **ROWS, key_temperatures=warm(2, 4, 7), beta=0.1, form="released", topk=3),
    ],
    amcl.amcl_simsiam: lambda: dict(
        p1=normal(2, 4, 3),
        z2=normal(2, 4, 3, seed=1),
        p2=normal(2, 4, 3, seed=2),
        z1=normal(2, 4, 3, seed=3),
        temperatures1=warm(2, 4),
        temperatures2=warm(2, 4, seed=1),
        beta=1.0,
        reduction="mean",
    ),
    amcl.amcl_barlow_twins: lambda: dict(
        z1=normal(2, 5, 3), z2=normal(2, 5, 3, seed=1), temperatures=warm(2, 3, 3), beta=0.01, off_diagonal=5e-3
    ),
    amcl.pair_temperature: lambda: dict(phi1=normal(5, 3), phi2=normal(5, 3, seed=1), low=0.05, high=2.0),
    amcl.PairTemperature: lambda: dict(dim=3, hidden=8, low=0.05, high=2.0),
    amcl.PairTemperature.forward: [
        lambda: (amcl.PairTemperature(3), dict(heads=normal(2, 5, 3), others=None)),
        lambda: (amcl.PairTemperature(3), dict(heads=normal(2, 5, 3), others=normal(2, 6, 3))),
    ],
    amcl.PairTemperature.of_pairs: lambda: (
        amcl.PairTemperature(3),
        dict(heads=normal(2, 5, 3), others=normal(2, 5, 3, seed=1)),
    ),
    amcl.AMCL: lambda: dict(
        heads=[nn.Linear(4, 4), nn.Identity()], dim=4, beta=1.0, form="topk", topk=5, low=0.05, high=2.0
    ),
    amcl.AMCL.loss: lambda: (method(), dict(features1=normal(5, 4), features2=normal(5, 4, seed=1), generator=None)),
    amcl.AMCL.forward: lambda: (method(), dict(features1=normal(5, 4), features2=normal(5, 4, seed=1))),
    cacr.squared_distance: lambda: dict(a=normal(2, 5, 3), b=normal(2, 4, 3, seed=1)),
    cacr.cacr_terms: lambda: dict(
        views=normal(3, 5, 4), positive_sharpness=1.0, negative_sharpness=2.0, alpha=1.0, beta=1.0
    ),
    cacr.cacr: lambda: dict(views=normal(3, 5, 4), positive_sharpness=1.0, negative_sharpness=2.0, alpha=1.0, beta=1.0),
    cacr.cacr_moco: lambda: dict(
        queries=normal(3, 5, 4),
        keys=normal(3, 5, 4, seed=1),
        queue=normal(7, 4),
        positive_sharpness=1.0,
        negative_sharpness=2.0,
        alpha=1.0,
        beta=1.0,
        in_batch=True,
    ),
    cacr.cacr_momentum: lambda: dict(queries=normal(3, 5, 4), key=normal(5, 4, seed=1), temperature=0.5),
    dcl.decoupled_terms: lambda: dict(z1=normal(5, 4), z2=normal(5, 4, seed=1), temperature=0.1),
    dcl.dcl: lambda: dict(z1=normal(5, 4), z2=normal(5, 4, seed=1), temperature=0.1, reduction="mean"),
    dcl.dcl_moco: lambda: dict(**MOCO, temperature=0.2, reduction="mean"),
    dcl.positive_weight: lambda: dict(z1=normal(5, 4), z2=normal(5, 4, seed=1), sigma=0.5),
    dcl.dclw: lambda: dict(
        z1=normal(5, 4),
        z2=normal(5, 4, seed=1),
        temperature=0.1,
        sigma=0.5,
        attach_weight=True,
        reduction="mean",
    ),
    feature_transformation.extrapolate: [
        lambda: dict(query=normal(4, 3), key=normal(4, 3, seed=1), weight=1.5),
        lambda: dict(query=normal(4, 3), key=normal(4, 3, seed=1), weight=1 + uniform(4, 3)),
    ],
    feature_transformation.interpolate: [
        lambda: dict(queue=normal(7, 3), weight=0.5, permutation=ORDER),
        lambda: dict(queue=normal(7, 3), weight=uniform(7, 3), permutation=ORDER),
    ],
    feature_transformation.draw_transformation: lambda: dict(
        queue_size=7, alpha_positive=2.0, alpha_negative=1.6, generator=generator()
    ),
    feature_transformation.transformed_scores: lambda: dict(
        **MOCO, extrapolation=1.5, interpolation=0.5, permutation=ORDER
    ),
    feature_transformation.feature_transformation: [
        lambda: dict(
            **MOCO, temperature=0.2, extrapolation=1.5, interpolation=0.5, permutation=ORDER, reduction="mean"
        ),
        lambda: dict(**MOCO, extrapolation=1 + uniform(4, 3), interpolation=uniform(7, 3), permutation=ORDER),
    ],
    groco.soft_sort: lambda: dict(x=normal(2, 5), steepness=1.0),
    groco.group_order: lambda: dict(
        anchors=normal(6, 4),
        positives=normal(2, 6, 4),
        negatives=normal(6, 4, seed=1),
        top_negatives=3,
        steepness=1.0,
    ),
    groco.groco: lambda: dict(
        views=normal(3, 6, 4), top_negatives=3, steepness=1.0, positive_views=2, stop_gradient=True
    ),
    hallucinator.draw_ratio: lambda: dict(largest=0.1, generator=generator()),
    Hallucinator: lambda: dict(dim=4, hidden=6),
    Hallucinator.forward: lambda: (hallucinate(), dict(query=normal(5, 4), key=normal(5, 4, seed=1), ratio=0.05)),
    hallucinator.hallucinated_moco: lambda: dict(
        hallucinator=hallucinate(),
        query=normal(5, 4),
        key=normal(5, 4, seed=1),
        queue=normal(7, 4),
        ratio=0.05,
        temperature=0.2,
    ),
    hallucinator.hallucinated_simclr: lambda: dict(
        hallucinator=hallucinate(), query=normal(5, 4), key=normal(5, 4, seed=1), ratio=0.05, temperature=0.5
    ),
    hallucinator.hallucinated_simsiam: lambda: dict(
        hallucinator=hallucinate(),
        prediction1=normal(5, 4),
        prediction2=normal(5, 4, seed=1),
        target1=normal(5, 4, seed=2),
        target2=normal(5, 4, seed=3),
        ratio1=0.05,
        ratio2=0.02,
    ),
    isogclr.negative_similarities: lambda: dict(z1=normal(4, 3), z2=normal(4, 3, seed=1)),
    isogclr.robust_objective: lambda: dict(z1=normal(4, 3), z2=normal(4, 3, seed=1), temperatures=warm(4), rho=0.4),
    isogclr.SogCLR: lambda: dict(n=10, temperature=0.1, gamma=0.9, dtype=torch.float64),
    isogclr.SogCLR.loss: lambda: (isogclr.SogCLR(10), dict(**views(), first_visit=None, generator=None)),
    isogclr.SogCLR.forward: lambda: (isogclr.SogCLR(10), dict(**views(), first_visit=True)),
    isogclr.ISogCLR: lambda: dict(**MEMORY, dtype=None),
    isogclr.ImageTextISogCLR: lambda: dict(**MEMORY, dtype=None),
    isogclr.ImageTextISogCLR.loss: lambda: (
        isogclr.ImageTextISogCLR(10),
        dict(image=normal(4, 3), text=normal(4, 3, seed=1), index=INDEX, generator=None),
    ),
    isogclr.ImageTextISogCLR.forward: lambda: (
        isogclr.ImageTextISogCLR(10),
        dict(image=normal(4, 3), text=normal(4, 3, seed=1), index=INDEX),
    ),
    mochi.hardest_rows: lambda: dict(query=normal(4, 3), queue=normal(7, 3), count=5),
    mochi.draw_mixture: lambda: dict(hard=whole(7, 4, 5), mixed=3, mixed_with_query=2, generator=generator()),
    mochi.mix: lambda: dict(query=normal(4, 3), queue=normal(7, 3), mixture=mixture()),
    mochi.mochi: lambda: dict(**MOCO, mixture=mixture(), temperature=0.2, reduction="mean"),
    swav.push_front: lambda: dict(queue=normal(7, 3), features=normal(4, 3)),
    swav.swav: [
        lambda: dict(
            views=normal(3, 5, 4), prototypes=normal(6, 4), temperature=0.1, epsilon=0.05, iterations=3, assign=(0, 1)
        ),
        lambda: dict(views=normal(3, 5, 4), prototypes=normal(6, 4), assign=(2,), queue=normal(1, 7, 4)),
    ],
    swav.SwAV: lambda: dict(dim=4, prototypes=6, temperature=0.1, epsilon=0.05, iterations=3, queue_size=8),
    swav.SwAV.loss: lambda: (swav.SwAV(4, 6, queue_size=8), dict(views=normal(3, 5, 4), generator=None)),
    swav.SwAV.forward: lambda: (swav.SwAV(4, 6), dict(views=normal(3, 5, 4))),
    swav.SwAV.after_step: lambda: (swav.SwAV(4, 6), dict()),
}

EXEMPT = {
    amcl.optimal_positive_temperature: "its documented answer is NaN where a pair has no temperature at rest",
}
