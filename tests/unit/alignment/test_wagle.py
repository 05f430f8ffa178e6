"""Jia et al. (2024): which weights may move when a model unlearns."""

import functools
import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.wagle import (
    OBJECTIVES,
    Unlearning,
    answer_accuracy,
    attribution,
    grad_diff,
    keep_largest,
    mean_token_loss,
    npo,
    with_retain,
)
from cl_teach.core.gradients import loss_gradients, squared_gradients
from cl_teach.datasets.facts import named_facts
from cl_teach.models.language_model import LanguageModel


def named(seed):
    return {"W": draw(3, 4, seed=seed), "b": draw(3, seed=seed + 1)}


THETA, FORGET, RETAIN = named(0), named(10), named(20)
LOG_P, REFERENCE = draw(5), draw(5, seed=1)


def test_scores_equal_their_loop():
    found = attribution(THETA, FORGET, RETAIN, 0.3)
    for i in range(3):
        for j in range(4):
            theta, f, r = (x["W"][i, j].item() for x in (THETA, FORGET, RETAIN))
            assert found["W"][i, j].item() == pytest.approx(theta * f - r * f / 0.3)
        assert found["b"][i].item() == pytest.approx(
            (THETA["b"][i] * FORGET["b"][i] - RETAIN["b"][i] * FORGET["b"][i] / 0.3).item()
        )


def test_limits_of_the_curvature_are_pruning_sensitivity_and_conflict():
    zero = {k: torch.zeros_like(v) for k, v in THETA.items()}
    flat = attribution(THETA, FORGET, RETAIN, float("inf"))
    steep = attribution(THETA, FORGET, RETAIN, 1e-9)
    for k in THETA:
        assert torch.allclose(flat[k], THETA[k] * FORGET[k])
        assert torch.equal(attribution(THETA, FORGET, zero, 0.1)[k], flat[k])
        assert attribution(THETA, zero, RETAIN, 0.1)[k].abs().max() == 0
        order = (RETAIN[k] * FORGET[k]).abs().flatten().argsort()
        assert torch.equal(steep[k].abs().flatten().argsort(), order)


def test_a_sign_of_the_forget_gradient_changes_no_mask_but_one_of_the_retain_gradient_does():
    masks = keep_largest(attribution(THETA, FORGET, RETAIN, 1.0), 0.4)
    minus = [{k: -v for k, v in x.items()} for x in (FORGET, RETAIN)]
    same = keep_largest(attribution(THETA, minus[0], RETAIN, 1.0), 0.4)
    other = keep_largest(attribution(THETA, FORGET, minus[1], 1.0), 0.4)
    assert all(torch.equal(masks[k], same[k]) for k in masks)
    assert any(not torch.equal(masks[k], other[k]) for k in masks)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_masks_keep_the_floor_of_the_share_over_all_tensors(ratio):
    masks = keep_largest(THETA, ratio)
    kept = torch.cat([THETA[k][masks[k]] for k in THETA]).abs()
    dropped = torch.cat([THETA[k][~masks[k]] for k in THETA]).abs()
    assert len(kept) == math.floor(round(ratio * 15, 6))
    assert len(kept) == 0 or len(dropped) == 0 or kept.min() >= dropped.max()


def test_of_equal_scores_the_first_are_kept():
    assert keep_largest({"a": torch.ones(3), "b": -torch.ones(2)}, 0.8)["b"].tolist() == [True, False]
    assert int(keep_largest({"a": torch.ones(100)}, 0.29)["a"].sum()) == 29


def test_gradients_are_means_or_sums_over_batches_and_the_curvature_a_mean_of_squares():
    theta, batches = {"w": draw(3).requires_grad_()}, [draw(3, seed=s) for s in (1, 2, 3, 4)]

    def loss(batch):
        return theta["w"] @ batch

    total = loss_gradients(loss, theta, batches, reduction="sum")["w"]
    assert torch.allclose(total, torch.stack(batches).sum(0))
    assert torch.allclose(loss_gradients(loss, theta, batches)["w"], total / 4)
    curvature = squared_gradients(loss, theta, batches)
    assert torch.allclose(curvature["w"], torch.stack(batches).square().mean(0))
    gradient = {"w": torch.ones(3).double()}
    found = attribution(theta, gradient, gradient, curvature)["w"]
    assert torch.allclose(found, theta["w"] - 1 / curvature["w"])
    assert squared_gradients(lambda b: 0 * loss(b), theta, batches)["w"].min() > 0


def test_npo_equals_its_loop_and_its_push_is_bounded():
    log_p = LOG_P.clone().requires_grad_()
    loss = npo(log_p, REFERENCE, 0.5)
    ratios = (LOG_P - REFERENCE).tolist()
    assert loss.item() == pytest.approx(sum(4 * math.log1p(math.exp(0.5 * x)) for x in ratios) / 5)
    (gradient,) = torch.autograd.grad(loss, log_p)
    assert torch.allclose(gradient, 2 * torch.sigmoid(0.5 * (LOG_P - REFERENCE)) / 5)
    assert torch.autograd.gradcheck(lambda x: npo(x, REFERENCE, 0.5), log_p)
    far = torch.tensor([800.0, -800.0]).double().requires_grad_()
    value = npo(far, torch.zeros(2).double(), 1.0)
    assert torch.isfinite(value)
    assert torch.allclose(torch.autograd.grad(value, far)[0], torch.tensor([1.0, 0.0]).double())


def test_npo_is_a_constant_at_the_reference_and_gradient_ascent_for_small_beta():
    assert npo(LOG_P, LOG_P, 0.1).item() == pytest.approx(20 * math.log(2))
    log_p = LOG_P.clone().requires_grad_()
    gap = (LOG_P - REFERENCE).mean().item()
    assert (npo(log_p, REFERENCE, 1e-6) - 2e6 * math.log(2)).item() == pytest.approx(gap, 1e-3)
    assert torch.allclose(torch.autograd.grad(npo(log_p, REFERENCE, 1e-6), log_p)[0], torch.full((5,), 0.2).double())


def test_grad_diff_is_a_difference():
    assert with_retain(torch.tensor(2.0), torch.tensor(3.0), 0.5).item() == 3.5
    assert grad_diff(torch.tensor(2.0), torch.tensor(3.0), 0.5).item() == -0.5


@functools.cache
def learned():
    torch.manual_seed(0)
    facts = named_facts(seed=0)
    model = LanguageModel(facts.refusal + 1, 24)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = mean_token_loss(model(facts.tokens[:, :-1])[1][:, -1:], facts.tokens[:, -1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return facts.tokens[facts.forget], facts.tokens[~facts.forget], facts.refusal, model.state_dict()


def descend(method, optimizer, forget, retain):
    loss = method.loss(forget, retain)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    method.after_step()
    return loss.item()


def unlearn(objective="npo", ratio=0.02, masks=None, steps=30):
    forget, retain, refusal, state = learned()
    torch.manual_seed(1)
    model = LanguageModel(refusal + 1, 24)
    model.load_state_dict(state)
    method = Unlearning(model, forget, retain, ratio=ratio, objective=objective, refusal=refusal)
    if masks is not None:
        method.use_masks(keep_largest({k: masks(p.detach()) for k, p in model.named_parameters()}, ratio))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    assert answer_accuracy(model, forget) == answer_accuracy(model, retain) == 1
    losses = [descend(method, optimizer, forget, retain) for _ in range(steps)]
    return method, losses, answer_accuracy(model, forget), answer_accuracy(model, retain)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_falls_and_forgets_more_than_it_should_retain(objective):
    _, losses, forgotten, retained = unlearn(objective, 1.0)
    assert losses[-1] < losses[0] - 0.2
    assert forgotten < 0.7 and retained > 0.9


def test_few_well_chosen_weights_forget_where_random_and_large_ones_do_not():
    _, losses, forgotten, retained = unlearn()
    assert losses[-1] < losses[0] - 0.2
    assert forgotten < 0.85 and retained > forgotten
    for masks in (torch.rand_like, torch.abs):
        assert unlearn(masks=masks)[2] > forgotten + 0.1


def test_the_second_term_hardly_matters_for_a_converged_model_and_a_curvature_of_one():
    forget, retain, _, _ = learned()
    method = unlearn(steps=0)[0]
    parameters = dict(method.model.named_parameters())
    gradients = [loss_gradients(method.answer_loss, parameters, [x]) for x in (forget, retain)]
    masks = [keep_largest(attribution(parameters, *gradients, g), 0.02) for g in (1.0, float("inf"))]
    common = sum((a & b).sum() for a, b in zip(masks[0].values(), masks[1].values(), strict=True))
    assert common > 0.9 * sum(m.sum() for m in masks[0].values())


def small(ratio, seed=0):
    torch.manual_seed(seed)
    facts = named_facts(10, 2, 3)
    forget, retain = facts.tokens[facts.forget], facts.tokens[~facts.forget]
    return Unlearning(LanguageModel(16, 8), forget, retain, ratio=ratio), forget, retain


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_masked_weights_stay_bitwise_the_same_even_with_decay_and_momentum(ratio):
    method, forget, retain = small(ratio)
    start = {k: p.detach().clone() for k, p in method.model.named_parameters()}
    optimizer = torch.optim.AdamW(method.model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        descend(method, optimizer, forget, retain)
    for k, p in method.model.named_parameters():
        mask = method.masks[k]
        assert torch.equal(p[~mask], start[k][~mask])
        assert (p[mask] != start[k][mask]).double().mean() > 0.9 or not mask.any()
    assert sum(int(m.sum()) for m in method.masks.values()) == int(ratio * len(method.kept))


def test_a_full_mask_is_the_plain_optimizer():
    models = []
    for masked in (True, False):
        method, forget, retain = small(1.0)
        optimizer = torch.optim.Adam(method.model.parameters(), lr=0.1)
        method.loss(forget, retain).backward()
        optimizer.step()
        if masked:
            method.after_step()
        models.append(method.model.output.weight.detach())
    assert torch.equal(*models)


def test_unlearning_goes_on_from_its_state():
    (there, forget, retain), (fresh, _, _) = small(0.2), small(0.2, seed=1)
    descend(there, torch.optim.SGD(there.model.parameters(), 0.5), forget, retain)
    fresh.load_state_dict(there.state_dict())
    assert all(torch.equal(there.masks[k], fresh.masks[k]) for k in there.masks)
    assert all(torch.equal(there.scores[k], fresh.scores[k]) for k in there.scores)
    for method in (there, fresh):
        descend(method, torch.optim.SGD(method.model.parameters(), 0.5), forget, retain)
    for a, b in zip(there.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not fresh.train().reference.network.training


def test_masks_move_with_the_module():
    method, _, _ = small(0.2)
    assert {m.device.type for m in method.to("meta").masks.values()} == {"meta"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: loss_gradients(lambda b: b, {"w": torch.ones(2, requires_grad=True)}, []), "batches"),
        (lambda: loss_gradients(lambda b: b, THETA, [1]), "parameters.*requires a gradient"),
        (lambda: loss_gradients(lambda b: b, THETA, [], reduction="max"), "reduction"),
        (lambda: attribution(THETA, FORGET, {"W": RETAIN["W"]}), "retain"),
        (lambda: attribution(THETA, FORGET, RETAIN, 0.0), "gamma"),
        (lambda: attribution(THETA, FORGET, RETAIN, {"W": THETA["W"]}), "gamma"),
        (lambda: attribution(THETA, FORGET, {"W": draw(3), "b": draw(3)}), "W"),
        (lambda: keep_largest(THETA, 1.5), "ratio"),
        (lambda: keep_largest({"a": torch.tensor([float("nan")])}, 0.5), "scores"),
        (lambda: npo(LOG_P, REFERENCE[:3]), "reference"),
        (lambda: npo(LOG_P, REFERENCE, 0.0), "beta"),
        (lambda: grad_diff(LOG_P.sum(), LOG_P.sum(), -1.0), "retain_weight"),
        (lambda: grad_diff(LOG_P, LOG_P), "forget_loss"),
        (lambda: small(0.2)[0].use_masks({}), "masks"),
        (lambda: Unlearning(torch.nn.Identity(), LOG_P, LOG_P, ratio=1.0, objective="po"), "refusal"),
        (lambda: Unlearning(torch.nn.Identity(), LOG_P, LOG_P, ratio=1.0, objective="other"), "objective"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
