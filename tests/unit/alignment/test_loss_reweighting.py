"""Sow et al. (2025): weights of samples from their losses."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.loss_reweighting import (
    STRATEGIES,
    ReweightedTraining,
    device_loss,
    effective_sample_size,
    place_in_range,
    reweighted_loss,
    sample_weights,
    scores,
    sequence_losses,
    temperature_at,
)
from cl_teach.datasets.redundant import redundant_regression
from cl_teach.models.language_model import LanguageModel
from cl_teach.training import fit

LOSSES = draw(9).exp()


def test_weights_equal_their_loop():
    rules = {
        "uniform": lambda h: 0.0,
        "linupper": lambda h: min(h + 1, 1),
        "quadratic": lambda h: 1 - h * h,
        "extremes": abs,
        "upper": lambda h: (h + 1) / 2,
    }
    values = LOSSES.tolist()
    low, high = min(values), max(values)
    for strategy in STRATEGIES:
        terms = [math.exp(rules[strategy]((2 * x - high - low) / (high - low)) / 0.3) for x in values]
        expected = torch.tensor([t / sum(terms) for t in terms]).double()
        assert torch.allclose(sample_weights(LOSSES, 0.3, strategy=strategy), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_are_a_distribution_with_a_bounded_ratio(strategy):
    for temperature in (0.005, 0.4, 100.0):
        weights = sample_weights(LOSSES, temperature, strategy=strategy)
        assert torch.isclose(weights.sum(), torch.tensor(1.0).double())
        assert torch.isfinite(weights).all() and (weights >= 0).all()
        assert weights.max().log() - weights.min().log() <= 1 / temperature + 1e-9


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_gradient_of_the_loss_is_the_weights(strategy):
    losses = LOSSES.clone().requires_grad_()
    found = reweighted_loss(losses, 0.4, strategy=strategy)
    assert torch.equal(torch.autograd.grad(found.loss, losses)[0], found.weights)
    assert not found.weights.requires_grad


def test_a_high_temperature_is_the_mean_and_a_low_one_selects_the_upper_half_of_the_range():
    assert torch.isclose(reweighted_loss(LOSSES, 1e9).loss, LOSSES.mean())
    losses = torch.tensor([0.0, 0.3, 1.0, 2.5, 4.0, 2.2]).double()  # the middle of the range is 2
    expected = torch.tensor([0, 0, 0, 1, 1, 1]).double() / 3
    assert torch.allclose(sample_weights(losses, 0.005), expected, atol=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_affine_maps_and_the_order_of_samples_do_not_matter(strategy):
    weights = sample_weights(LOSSES, 0.4, strategy=strategy)
    assert torch.allclose(sample_weights(5 * LOSSES + 3, 0.4, strategy=strategy), weights)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(sample_weights(LOSSES[order], 0.4, strategy=strategy), weights[order])


def test_linupper_rises_with_the_loss_up_to_the_middle_and_is_flat_above():
    losses = torch.linspace(0, 4, 9).double()
    steps = sample_weights(losses).diff()
    assert (steps[:4] > 0).all() and steps[4:].abs().max() < 1e-12
    assert (sample_weights(losses, strategy="upper").diff() > 0).all()


def test_quadratic_and_extremes_are_symmetric_and_complete_each_other():
    h = place_in_range(LOSSES)
    for strategy in ("quadratic", "extremes"):
        assert torch.equal(scores(h, strategy), scores(-h, strategy))
    assert torch.allclose(scores(h, "quadratic") + scores(h, "extremes").square(), torch.ones(9).double())


def test_the_weights_solve_the_regularized_problem():
    f, weights = scores(place_in_range(LOSSES)), sample_weights(LOSSES, 0.4)

    def value(p):
        return p @ f - 0.4 * (p * (p * 9).log()).sum()

    for seed in range(20):
        direction = draw(9, seed=seed)
        other = weights + 1e-3 * (direction - direction.mean())
        assert (other > 0).all() and value(other) < value(weights)


def test_equal_losses_and_tiny_batches():
    assert torch.equal(place_in_range(torch.full((5,), 0.1)), torch.zeros(5))
    for strategy in STRATEGIES:
        assert torch.allclose(sample_weights(torch.full((5,), 0.1), 0.01, strategy=strategy), torch.full((5,), 0.2))
        assert sample_weights(LOSSES[:1], 0.4, strategy=strategy).item() == 1
        near, far = (sample_weights(torch.tensor([1.0, x]), 0.4, strategy=strategy) for x in (1.1, 90.0))
        assert torch.allclose(near, far)  # of two samples only the order counts


def test_one_outlier_makes_the_capped_score_act_like_the_uncapped_one():
    outlier = torch.cat([LOSSES, torch.tensor([1000.0]).double()])
    assert (place_in_range(outlier)[:-1] < -0.98).all()
    ratios = []
    for losses in (LOSSES, outlier):
        weights = [sample_weights(losses, 0.4, strategy=s) for s in ("linupper", "upper")]
        ratios.append(effective_sample_size(weights[0]) / effective_sample_size(weights[1]))
    assert ratios[0] > 1.25 and abs(ratios[1] - 1) < 0.05


def test_devices_together_have_the_gradient_of_one():
    losses = LOSSES.clone().requires_grad_()
    weights = sample_weights(losses)
    parts = [torch.autograd.grad(device_loss(losses[3 * d : 3 * d + 3], weights, d, 3), losses)[0] for d in range(3)]
    assert torch.allclose(sum(parts) / 3, weights)


def test_effective_sample_size_is_between_one_and_all():
    assert effective_sample_size(torch.full((4,), 0.25)).item() == 4
    assert effective_sample_size(torch.tensor([0.0, 1.0])).item() == 1


def test_sequence_losses_are_means_over_the_tokens_that_count():
    logits, labels = draw(3, 4, 5), torch.randint(0, 5, (3, 4), generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool()
    found = sequence_losses(logits, labels, valid)
    for i in range(3):
        terms = [-logits[i, t].log_softmax(0)[labels[i, t]].item() for t in range(4) if valid[i, t]]
        assert found[i].item() == pytest.approx(sum(terms) / len(terms))
    assert torch.allclose(sequence_losses(logits, labels), sequence_losses(logits, labels, torch.ones_like(valid)))


def test_the_temperature_switches_at_its_stages():
    stages = ((0, 100.0), (10, 1.0), (20, 0.5))
    assert [temperature_at(s, stages) for s in (0, 9, 10, 19, 20, 999)] == [100, 100, 1, 1, 0.5, 0.5]


def regress(strategy, corrupted=0.0, rate=0.05, steps=400):
    data = redundant_regression(corrupted=corrupted)
    w, generator = torch.zeros(50), torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(0, 2000, (64,), generator=generator)
        w.requires_grad_()
        loss = reweighted_loss((data.inputs[index] @ w - data.targets[index]).square(), 0.4, strategy=strategy).loss
        w = (w - rate * torch.autograd.grad(loss, w)[0]).detach()
    return ((w - data.truth).norm() / data.truth.norm()).item() ** 2


def test_regression_is_faster_with_weights_for_high_losses_and_slower_with_weights_for_low_ones():
    error = {strategy: regress(strategy) for strategy in STRATEGIES}
    assert error["uniform"] < 0.8  # the error falls from 1
    assert error["linupper"] < 0.5 * error["uniform"]
    assert error["linupper"] < error["quadratic"] < error["uniform"] < error["extremes"]


def test_corrupted_targets_turn_the_order_around_at_the_end_and_the_cap_helps_little():
    uniform, capped, uncapped = (regress(s, 0.05, 2.0) for s in ("uniform", "linupper", "upper"))
    assert capped > 3 * uniform
    assert capped < uncapped < 2 * capped


def train(strategy):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(8, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    method = ReweightedTraining(model, optimizer, strategy=strategy, stages=((0, 100.0), (10, 0.2)))
    seen = []
    for _ in range(60):
        counts = (torch.randint(1, 8, (4, 1), generator=generator) + torch.arange(9)) % 7 + 1
        tokens = torch.cat([torch.zeros(28, 9, dtype=torch.int64), counts])  # 28 sequences that repeat one token
        seen.append(method.step(tokens))
    with torch.no_grad():
        return seen, sequence_losses(model(counts[:, :-1])[1], counts[:, 1:]).mean().item()


def test_a_language_model_spends_its_steps_on_what_it_cannot_say_yet():
    seen, left = train("linupper")
    plain, other = train("uniform")
    assert plain[-1].loss < plain[0].loss - 1
    assert seen[5].weights[-4:].sum() == pytest.approx(4 / 32, abs=0.01)  # burn-in
    assert seen[15].weights[-4:].sum() > 0.8
    assert left < 0.8 * other


def resumable():
    torch.manual_seed(0)
    model = LanguageModel(8, 8)
    return ReweightedTraining(model, torch.optim.Adam(model.parameters(), 0.01), stages=((0, 100.0), (3, 0.1)))


def test_training_goes_on_from_its_state():
    there, fresh = resumable(), resumable()
    tokens = torch.randint(8, (6, 5), generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        there.step(tokens)
    fresh.load_state_dict(there.state_dict())
    assert fresh.steps == 4
    for _ in range(2):
        a, b = there.step(tokens), fresh.step(tokens)
    assert torch.equal(a.loss, b.loss) and torch.equal(a.weights, b.weights)


def test_fit_counts_the_steps_and_looking_does_not():
    method = ReweightedTraining(LanguageModel(8, 8), stages=((0, 100.0), (3, 0.1)))
    tokens = torch.randint(8, (6, 5), generator=torch.Generator().manual_seed(0))
    method(tokens)
    assert method.steps == 0
    fit(method, method.loss, tokens, epochs=2, batch_size=3, after_step=method.after_step)
    assert method.steps == 4


def test_half_precision_losses_have_the_weights_of_the_same_numbers():
    for dtype in (torch.bfloat16, torch.float16):
        half = LOSSES.to(dtype)
        for strategy in STRATEGIES:
            exact = sample_weights(half.double(), strategy=strategy)
            assert torch.allclose(sample_weights(half, strategy=strategy).double(), exact, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: sample_weights(LOSSES.long()), TypeError, "losses"),
        (lambda: sample_weights(LOSSES[:, None]), ValueError, "losses"),
        (lambda: sample_weights(LOSSES, 0.0), ValueError, "temperature"),
        (lambda: sample_weights(LOSSES, 1.0, strategy="mid"), ValueError, "strategy"),
        (lambda: scores(LOSSES + 2), ValueError, "place"),
        (lambda: device_loss(LOSSES[:4], LOSSES, 0, 2), ValueError, "losses"),
        (lambda: device_loss(LOSSES[:3], LOSSES, 3, 3), ValueError, "device"),
        (lambda: effective_sample_size(10 * LOSSES), ValueError, "weights"),
        (
            lambda: sequence_losses(draw(1, 2, 3), torch.zeros(1, 2).long(), torch.zeros(1, 2).bool()),
            ValueError,
            "valid",
        ),
        (lambda: temperature_at(0, ((5, 1.0),)), ValueError, "stages"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
