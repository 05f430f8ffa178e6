"""Valid calls of Part 2."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform
from torch import nn

from cl_teach.exercises import linear_contrast, what_is_identified
from cl_teach.exercises import one_operator as exercises_of_the_operator
from cl_teach.exercises import projection_head as exercises_of_the_head
from cl_teach.models.fixed_head import FixedHead
from cl_teach.theory import contrastive_loss_behaviour as behavior
from cl_teach.theory import directpred, linear_byol, linear_model, one_operator, projection_head

KEPT = ~torch.eye(5, dtype=torch.bool)
TIMES = torch.tensor([0.0, 0.5, 2.0])
LABELS = torch.tensor([0, 1, 0, 1, 2])


def cosines() -> torch.Tensor:
    """Of five anchors and five keys."""
    return 2 * uniform(5, 5) - 1


def moment(d: int = 3, seed: int = 0) -> torch.Tensor:
    """Symmetric, positive definite."""
    x = normal(20, d, seed=seed)
    return x.T @ x / 20


def sizes(n: int = 4, seed: int = 0) -> torch.Tensor:
    """Positive numbers."""
    return 0.2 + uniform(n, seed=seed)


def pairs() -> torch.Tensor:
    """Probabilities of pairs of four views."""
    views = torch.softmax(normal(5, 4), 1)
    return views.T @ views / 5


def method() -> directpred.DirectPred:
    """On a network of width 4 to 3."""
    torch.manual_seed(0)
    return directpred.DirectPred(nn.Linear(4, 3), 3)


FLOW = dict(predictor_rate=1.0, noise=0.2, weight_decay=0.05, target_scale=1.0)

CALLS = {
    behavior.hardest_negatives: lambda: dict(similarity=cosines(), alpha=0.5),
    behavior.contrast_terms: lambda: dict(similarity=cosines(), temperature=0.1, alpha=0.5),
    behavior.hard_contrastive_loss: lambda: dict(
        anchors=normal(5, 4), keys=normal(5, 4, seed=1), temperature=0.3, alpha=0.5, reduction="mean"
    ),
    behavior.simple_terms: lambda: dict(similarity=cosines(), negative_weight=0.2, alpha=0.5),
    behavior.simple_loss: lambda: dict(
        anchors=normal(5, 4), keys=normal(5, 4, seed=1), negative_weight=0.2, alpha=0.5, reduction="mean"
    ),
    behavior.relative_penalty: lambda: dict(similarity=cosines(), temperature=0.1, kept=KEPT),
    behavior.penalty_entropy: lambda: dict(penalty=torch.softmax(normal(5, 4), 1)),
    behavior.entropy_slope: lambda: dict(similarity=cosines(), temperature=0.1),
    behavior.low_temperature_limit: lambda: dict(similarity=cosines(), temperature=0.1),
    behavior.high_temperature_limit: lambda: dict(similarity=cosines(), temperature=9.0),
    behavior.literal_tolerance: lambda: dict(z=normal(5, 4), labels=LABELS),
    directpred.predictor_weights: [
        lambda: dict(correlation=moment(), epsilon=0.01, form="code"),
        lambda: dict(correlation=moment(), epsilon=0.01, form="paper"),
        lambda: dict(correlation=moment(), epsilon=0.01, form="copy"),
    ],
    directpred.DirectPredictor: lambda: dict(dim=3, decay=0.3, epsilon=0.01, form="code"),
    directpred.DirectPredictor.update: lambda: (
        directpred.DirectPredictor(3),
        dict(z1=normal(5, 3), z2=normal(5, 3, seed=1)),
    ),
    directpred.DirectPredictor.forward: lambda: (directpred.DirectPredictor(3), dict(z=normal(5, 3))),
    directpred.byol_loss: lambda: dict(
        prediction1=normal(5, 3), prediction2=normal(5, 3, seed=1), target1=normal(5, 3), target2=normal(5, 3, seed=2)
    ),
    directpred.DirectPred: lambda: dict(
        online=nn.Linear(4, 3), dim=3, momentum=0.9, decay=0.3, epsilon=0.01, form="code"
    ),
    directpred.DirectPred.loss: lambda: (
        method(),
        dict(view1=normal(5, 4), view2=normal(5, 4, seed=1), generator=None),
    ),
    directpred.DirectPred.forward: lambda: (method(), dict(view1=normal(5, 4), view2=normal(5, 4, seed=1))),
    directpred.DirectPred.after_step: lambda: (method(), dict()),
    linear_byol.linear_flow: lambda: dict(
        online=normal(2, 3),
        predictor=normal(2, 2),
        target=normal(2, 3, seed=1),
        signal=moment(),
        noise=moment(seed=1),
        predictor_rate=1.0,
        target_rate=0.4,
        weight_decay=0.1,
    ),
    linear_byol.symmetric_flow: lambda: dict(predictor=moment(), correlation=moment(seed=1), **FLOW),
    linear_byol.decoupled_flow: lambda: dict(p=sizes(), s=sizes(seed=1), **FLOW),
    linear_byol.fixed_points: lambda: dict(noise=0.2, weight_decay=0.05, target_scale=1.0),
    linear_byol.decoupled_trajectory: lambda: dict(p0=sizes(2), s0=sizes(2, seed=1), times=TIMES, **FLOW),
    linear_byol.matrix_trajectory: lambda: dict(
        predictor=0.3 * moment(2), correlation=0.3 * moment(2, seed=1), times=TIMES, **FLOW
    ),
    linear_model.spectral_loss: lambda: dict(z1=normal(5, 3), z2=normal(5, 3, seed=1)),
    linear_model.population_loss: lambda: dict(W=normal(2, 3), M=moment(), C=moment(seed=1)),
    linear_model.population_gradient: lambda: dict(W=normal(2, 3), M=moment(), C=moment(seed=1)),
    linear_model.minimizer: lambda: dict(M=moment(), C=moment(seed=1), rank=2),
    linear_model.one_layer_weight: [
        lambda: dict(times=TIMES, c=sizes(), m=1 + sizes(), start=0.01),
        lambda: dict(times=TIMES, c=sizes(), m=1 + sizes(), start=sizes(seed=1)),
    ],
    linear_model.two_layer_time: lambda: dict(s=0.1 * sizes(), c=sizes(), m=1 + sizes(), start=0.01),
    linear_model.two_layer_weight: [
        lambda: dict(times=TIMES, c=sizes(), m=1 + sizes(), start=0.01),
        lambda: dict(times=TIMES, c=torch.tensor([0.0, 1.0]), m=1 + sizes(2), start=sizes(2)),
    ],
    linear_model.escape_time: lambda: dict(c=sizes(), start=0.01),
    linear_model.weight_decay_threshold: lambda: dict(c=sizes(), m=1 + sizes()),
    linear_model.weight_decay_fixed_point: lambda: dict(c=sizes(), m=1 + sizes(), weight_decay=0.1),
    FixedHead: lambda: dict(dim=4, kappa=1.5),
    FixedHead.forward: lambda: (FixedHead(4), dict(representation=normal(5, 4))),
    projection_head.end_to_end_weight: lambda: dict(strength=sizes(), disruption=uniform(4), noise=0.2),
    projection_head.balanced_layers: lambda: dict(depth=2, dim=3, size=0.5, generator=generator(), dtype=torch.float32),
    projection_head.feature_weights: lambda: dict(layers=[normal(3, 4), normal(2, 3)], features=normal(4, 2)),
    projection_head.diagonal_model: lambda: dict(w1=normal(4), w2=normal(4, seed=1), strength=sizes(), threshold=0.1),
    projection_head.diagonal_loss: lambda: dict(
        w1=normal(4), w2=normal(4, seed=1), strength=sizes(), disruption=uniform(4), threshold=0.1
    ),
}

CALLS |= {
    one_operator.positive_pair_kernel: lambda: dict(joint=pairs()),
    one_operator.eigenfunctions: lambda: dict(joint=pairs()),
    one_operator.probe_residual: lambda: dict(features=normal(4, 2), target=normal(4, seed=1), p=pairs().sum(1)),
    one_operator.canonical_directions: lambda: dict(M=moment() + 0.1 * torch.eye(3), C=moment(seed=1)),
    one_operator.largest_angle: lambda: dict(
        W=normal(2, 3), directions=normal(3, 2, seed=1), M=moment() + 0.1 * torch.eye(3)
    ),
    one_operator.batch_moments: lambda: dict(z1=normal(6, 3), z2=normal(6, 3, seed=1)),
    one_operator.barlow_twins: lambda: dict(gram=moment(), cross=moment(seed=1), off_diagonal=0.1),
    one_operator.vicreg: lambda: dict(
        gram=moment(), cross=moment(seed=1), invariance=25.0, variance=25.0, covariance=1.0
    ),
    one_operator.whitened_invariance: lambda: dict(gram=moment(), cross=moment(seed=1), invariance=1.0),
}

REFERENCE = "the reference answer of an exercise, called by its checker only"
EXEMPT = {
    linear_contrast.decayed_one_layer_weight: REFERENCE,
    linear_contrast.deep_escape_time: REFERENCE,
    exercises_of_the_operator.pair_correlations: REFERENCE,
    exercises_of_the_operator.residual_bound: REFERENCE,
    what_is_identified.collision_floor: REFERENCE,
    what_is_identified.coverage: REFERENCE,
    exercises_of_the_head.layer_gram: REFERENCE,
    exercises_of_the_head.threshold_end: REFERENCE,
}
