"""Zhu et al. (2021): positives pushed apart, negatives mixed."""

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import info_nce, normalize
from cl_teach.losses.feature_transformation import (
    draw_transformation,
    extrapolate,
    feature_transformation,
    interpolate,
    transformed_scores,
)

Q, K, QUEUE = draw(4, 6), draw(4, 6, seed=1), draw(9, 6, seed=2)
PERM = torch.randperm(9, generator=torch.Generator().manual_seed(0))


def test_weights_of_one_give_mocos_loss():
    assert torch.allclose(feature_transformation(Q, K, QUEUE, 0.2), info_nce(Q, K, QUEUE, 0.2))
    swapped = feature_transformation(Q, K, QUEUE, 0.2, interpolation=0.0, permutation=PERM)
    assert torch.allclose(swapped, info_nce(Q, K, QUEUE, 0.2))  # a permuted queue is the same set


@pytest.mark.parametrize("weight", [1.0, 1.4, 2.0])
def test_score_and_norm_identities(weight):
    q, k = normalize(Q), normalize(K)
    moved_q, moved_k = extrapolate(q, k, weight)
    s = (q * k).sum(1)
    assert torch.allclose(moved_q + moved_k, q + k)
    assert torch.allclose(moved_q - moved_k, (2 * weight - 1) * (q - k))
    scores = transformed_scores(Q, K, QUEUE, extrapolation=weight)
    assert torch.allclose(scores.positive, s - 2 * weight * (weight - 1) * (1 - s))
    assert (scores.positive <= scores.before + 1e-12).all()
    assert torch.allclose(moved_q.square().sum(1), 1 + 2 * weight * (weight - 1) * (1 - s))


def test_dimension_level_score_identity_and_constant_masks():
    q, k = normalize(Q), normalize(K)
    weight = 1 + torch.rand(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scores = transformed_scores(Q, K, QUEUE, extrapolation=weight)
    assert torch.allclose(scores.positive, scores.before - (weight * (weight - 1) * (q - k) ** 2).sum(1))
    constant = torch.full((4, 6), 1.3, dtype=torch.float64)
    assert torch.allclose(
        feature_transformation(Q, K, QUEUE, extrapolation=constant),
        feature_transformation(Q, K, QUEUE, extrapolation=1.3),
    )


def test_mixing_keeps_the_mean_and_shrinks_the_length():
    n = normalize(QUEUE)
    mixed = interpolate(n, 0.3, PERM)
    assert torch.allclose(mixed.sum(0), n.sum(0))
    assert (mixed.norm(dim=1) <= 1 + 1e-12).all()


def test_gradient_reaches_the_query_through_both_positives_and_nothing_else():
    q, k, queue = Q.clone().requires_grad_(), K.clone().requires_grad_(), QUEUE.clone().requires_grad_()
    feature_transformation(q, k, queue, extrapolation=1.5, interpolation=0.4, permutation=PERM).backward()
    assert k.grad is None and queue.grad is None
    assert torch.autograd.gradcheck(
        lambda x: feature_transformation(x, K, QUEUE, extrapolation=1.5, interpolation=0.4, permutation=PERM),
        (Q.clone().requires_grad_(),),
    )


def test_half_precision_queries_beside_a_wide_queue():
    settings = {"extrapolation": 1.5, "interpolation": 0.4, "permutation": PERM.to(torch.int32)}
    with torch.autocast("cpu", torch.bfloat16):
        loss = feature_transformation(Q.bfloat16(), K.float(), QUEUE.float(), **settings)
    assert torch.allclose(loss, feature_transformation(Q.bfloat16().float(), K.float(), QUEUE.float(), **settings))


def test_draws_lie_in_their_ranges_and_repeat_with_the_seed():
    for seed in range(50):
        ex, inside, perm = draw_transformation(9, generator=torch.Generator().manual_seed(seed))
        assert 1 < ex < 2 and 0 < inside < 1
        assert sorted(perm.tolist()) == list(range(9))
    again = [draw_transformation(9, generator=torch.Generator().manual_seed(3))[:2] for _ in range(2)]
    assert again[0] == again[1]
    generator = torch.Generator().manual_seed(0)
    mean = sum(draw_transformation(2, generator=generator).interpolation for _ in range(400)) / 400
    assert mean == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: feature_transformation(Q, K, QUEUE, extrapolation=0.9), "extrapolation"),
        (lambda: feature_transformation(Q, K, QUEUE, interpolation=1.2, permutation=PERM), "interpolation"),
        (lambda: feature_transformation(Q, K, QUEUE, interpolation=0.5, permutation=PERM[:3]), "permutation"),
        (lambda: feature_transformation(Q, K[:2], QUEUE), "key"),
        (lambda: feature_transformation(Q, K, QUEUE, 0.0), "temperature"),
        (lambda: feature_transformation(Q, K, QUEUE, interpolation=0.5), "permutation"),
        (lambda: interpolate(QUEUE, 0.5, torch.zeros_like(PERM)), "permutation"),
        (lambda: interpolate(QUEUE, torch.full((1, QUEUE.shape[1]), 0.5), PERM), "weight"),
        (lambda: draw_transformation(9, alpha_positive=0.0), "alpha_positive"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
