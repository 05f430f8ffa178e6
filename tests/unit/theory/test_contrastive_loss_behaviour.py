"""Wang and Liu (2021): what the temperature does to the softmax loss."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import cosine_similarity, info_nce
from cl_teach.theory.contrastive_loss_behaviour import (
    contrast_terms,
    entropy_slope,
    hard_contrastive_loss,
    hardest_negatives,
    high_temperature_limit,
    literal_tolerance,
    low_temperature_limit,
    penalty_entropy,
    relative_penalty,
    simple_loss,
    simple_terms,
)

F, G = draw(12, 6), draw(12, 6, seed=1)
S = cosine_similarity(F, G)


def test_gradients_are_the_boltzmann_weights():
    s = S.clone().requires_grad_()
    terms = contrast_terms(s, 0.3)
    (g,) = torch.autograd.grad(terms.loss.sum(), s)
    assert torch.allclose(g, (terms.probability - torch.eye(12)) / 0.3)
    negatives = ~torch.eye(12, dtype=torch.bool)
    ratio = g / -g.diagonal()[:, None]
    assert torch.allclose(ratio[negatives], terms.penalty[negatives])


def test_penalties_sum_to_one_and_ignore_a_common_shift_of_the_negatives():
    r = relative_penalty(S, 0.2)
    assert torch.allclose(r.sum(1), torch.ones(12, dtype=torch.float64))
    shifted = S + 0.7 * (1 - torch.eye(12))
    assert torch.allclose(relative_penalty(shifted, 0.2), r)


def test_penalty_survives_temperatures_where_a_gradient_quotient_is_nan():
    assert torch.isfinite(relative_penalty(S, 5e-4)).all()


def test_entropy_grows_with_temperature_with_the_stated_slope():
    temperatures = [0.05, 0.1, 0.3, 1.0, 5.0]
    entropies = [penalty_entropy(relative_penalty(S, t)) for t in temperatures]
    assert all((later > earlier).all() for earlier, later in zip(entropies, entropies[1:], strict=False))
    for t in temperatures:
        step = 1e-5 * t
        slope = (penalty_entropy(relative_penalty(S, t + step)) - penalty_entropy(relative_penalty(S, t - step))) / (
            2 * step
        )
        assert torch.allclose(slope, entropy_slope(S, t), rtol=1e-5, atol=1e-8)
    assert torch.allclose(penalty_entropy(relative_penalty(S, 1e5)), torch.tensor(math.log(11), dtype=torch.float64))
    assert penalty_entropy(relative_penalty(S, 1e-4)).max() < 1e-6


def test_entropy_has_a_gradient_although_the_diagonal_is_zero():
    s = S.clone().requires_grad_()
    (ours,) = torch.autograd.grad(penalty_entropy(relative_penalty(s, 0.3)).sum(), s)
    assert ours.isfinite().all()
    r = relative_penalty(S, 0.3)
    entropy = penalty_entropy(r)[:, None]
    log_r = torch.where(r > 0, r, 1.0).log()
    assert torch.allclose(ours, -r * (log_r + entropy) / 0.3)
    cold = S.clone().requires_grad_()
    (at_zeros,) = torch.autograd.grad(penalty_entropy(relative_penalty(cold, 1e-3)).sum(), cold)
    assert at_zeros.isfinite().all()


def test_half_precision_similarities_are_computed_in_float32():
    terms = contrast_terms(S.bfloat16(), 0.05)
    assert terms.loss.dtype == torch.float32
    assert torch.allclose(terms.loss, contrast_terms(S.bfloat16().float(), 0.05).loss)


def test_keeping_all_negatives_is_info_nce_and_dropping_some_lowers_the_loss():
    assert torch.allclose(hard_contrastive_loss(F, G, 0.3, alpha=1.0), info_nce(F, G, temperature=0.3))
    full = contrast_terms(S, 0.3).loss
    hard = contrast_terms(S, 0.3, alpha=0.4).loss
    assert ((hard > 0) & (hard < full)).all()


def test_one_kept_negative_takes_the_whole_penalty():
    terms = contrast_terms(S, 0.3, alpha=1 / 11)
    assert torch.equal((terms.penalty > 0).sum(1), torch.ones(12, dtype=torch.long))
    assert torch.allclose(terms.penalty.amax(1), torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize(("alpha", "kept"), [(1.0, 30), (0.1, 3), (0.11, 4), (1e-6, 1)])
def test_the_number_of_kept_negatives_is_the_ceiling(alpha, kept):
    mask, threshold = hardest_negatives(draw(31, 31), alpha)
    assert (mask.sum(1) == kept).all()
    assert threshold.shape == (31,)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_the_threshold_is_the_last_kept_one_in_order(alpha):
    mask, threshold = hardest_negatives(draw(31, 31), alpha)
    negatives = draw(31, 31).fill_diagonal_(-torch.inf).sort(dim=1, descending=True).values
    assert torch.equal(threshold, negatives.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0])


def test_ties_at_the_threshold_are_all_kept():
    mask, _ = hardest_negatives(torch.ones(5, 5), 0.25)
    assert (mask.sum(1) == 4).all()


def test_low_temperature_limit_is_off_by_at_most_log_n():
    for t in (0.5, 0.05, 0.005):
        error = contrast_terms(S, t).loss - low_temperature_limit(S, t)
        assert (error >= -1e-9).all() and (error <= math.log(12) + 1e-9).all()


def test_high_temperature_limit_has_an_error_of_second_order():
    errors = [
        (contrast_terms(S, t).loss - high_temperature_limit(S, t)).abs().max() * t**2 for t in (10.0, 100.0, 1000.0)
    ]
    assert max(errors) < 1.0
    assert errors[2] == pytest.approx(errors[1].item(), rel=0.05)


def test_simple_loss_pushes_every_negative_alike_whatever_the_similarities():
    s = S.clone().requires_grad_()
    (g,) = torch.autograd.grad(simple_terms(s, negative_weight=0.2).loss.sum(), s)
    expected = torch.full((12, 12), 0.2, dtype=torch.float64).fill_diagonal_(-1.0)
    assert torch.allclose(g, expected)


def test_literal_tolerance_is_the_conditional_mean_times_the_share_of_pairs():
    labels = torch.arange(3).repeat(4)
    total = sum(
        torch.dot(F[i], F[j]) / (F[i].norm() * F[j].norm())
        for i in range(12)
        for j in range(12)
        if i != j and labels[i] == labels[j]
    )
    assert torch.allclose(literal_tolerance(F, labels), total / (12 * 11))


@pytest.mark.parametrize(
    "loss",
    [
        lambda f, g: hard_contrastive_loss(f, g, 0.3, alpha=0.4),
        lambda f, g: simple_loss(f, g, negative_weight=0.2, alpha=0.5),
    ],
)
def test_gradcheck(loss):
    assert torch.autograd.gradcheck(loss, (F.clone().requires_grad_(), G.clone().requires_grad_()))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: hard_contrastive_loss(F, G[:3], 0.3, alpha=0.5), "keys"),
        (lambda: hard_contrastive_loss(F, G, 0.3, alpha=0.0), "alpha"),
        (lambda: hard_contrastive_loss(F, G, 0.3, alpha=1.5), "alpha"),
        (lambda: hard_contrastive_loss(F, G, 0.0, alpha=0.5), "temperature"),
        (lambda: hard_contrastive_loss(F[:1], G[:1], alpha=1.0), "at least 2 rows"),
        (lambda: simple_loss(F, G, negative_weight=0.0), "negative_weight"),
        (lambda: contrast_terms(S[:3], 0.1), "square"),
        (lambda: relative_penalty(S, 0.1, torch.zeros(12, 12, dtype=torch.bool)), "kept"),
        (lambda: entropy_slope(1e30 * S.float(), 0.1), "similarity, temperature"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
