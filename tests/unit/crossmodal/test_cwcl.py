"""Srinivasa et al. (2023): positives by degree."""

import copy
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.crossmodal.cwcl import CWCL, cwcl, cwcl_terms, intra_modal_weights

P, Q = draw(6, 4), draw(6, 4, seed=1)


def test_equals_the_loops():
    p, q, s = normalize(P), normalize(Q), math.e
    weighted = plain = 0.0
    for i in range(6):
        w = [float(q[i] @ q[j]) / 2 + 0.5 for j in range(6)]
        bottom = sum(math.exp(s * q[i] @ p[k]) for k in range(6))
        weighted -= sum(w[j] * (s * float(q[i] @ p[j]) - math.log(bottom)) for j in range(6)) / sum(w) / 6
        plain -= float(s * p[i] @ q[i] - math.log(sum(math.exp(s * p[i] @ q[k]) for k in range(6)))) / 6
    terms = cwcl_terms(P, Q, 1.0)
    assert terms.weighted.item() == pytest.approx(weighted) and terms.plain.item() == pytest.approx(plain)


def test_identity_weights_are_twice_the_clip_loss():
    assert torch.allclose(cwcl(P, Q, 1.0, torch.eye(6, dtype=torch.float64)), 2 * clip_loss(P, Q, 1.0))


def test_opposite_frozen_vectors_make_it_lit_exactly():
    q = torch.cat([Q[:1], -Q[:1]])
    assert torch.allclose(cwcl(P[:2], q, 1.0), 2 * clip_loss(P[:2], q, 1.0))


def test_duplicated_frozen_samples_get_equal_target_rows_and_attract_each_other():
    q = Q.clone()
    q[1] = q[0]
    weights = intra_modal_weights(q)
    assert torch.allclose(weights[0], weights[1]) and weights[0, 1].item() == pytest.approx(1)


def test_the_weighted_term_is_at_least_the_entropy_of_its_targets():
    targets = intra_modal_weights(Q)
    targets = targets / targets.sum(1, keepdim=True)
    assert cwcl_terms(P, Q, 2.0).weighted >= torch.special.entr(targets).sum(1).mean()
    same = torch.ones(6, 4, dtype=torch.float64)
    assert cwcl_terms(same, same, 2.0).weighted.item() == pytest.approx(math.log(6))


def test_a_single_pair_is_zero_and_only_the_trained_tower_gets_gradient():
    assert cwcl(P[:1], Q[:1], 1.0).item() == pytest.approx(0, abs=1e-12)
    p, q = P.clone().requires_grad_(), Q.clone().requires_grad_()
    cwcl(p, q, 1.0).backward()
    assert q.grad is None and torch.allclose((p.grad * P).sum(1), torch.zeros(6).double(), atol=1e-12)


def test_rotations_and_scales_change_nothing():
    R = torch.linalg.qr(draw(4, 4, seed=3)).Q
    for a, b in [(P @ R, Q @ R), (3 * P, 0.1 * Q)]:
        assert torch.allclose(cwcl(a, b, 1.0), cwcl(P, Q, 1.0))


def test_gradcheck():
    t = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, t: cwcl(p, Q, t), (P.clone().requires_grad_(), t))


def test_training_leaves_mass_on_false_negatives_that_lit_pushes_away():
    def run(identity):
        generator = torch.Generator().manual_seed(0)
        centers = normalize(torch.randn(8, 16, generator=generator))
        label = torch.arange(8).repeat(32)
        z = centers[label] + 0.1 * torch.randn(256, 16, generator=generator)
        u, q = torch.tanh(z @ torch.randn(16, 32, generator=generator)), normalize(z)
        torch.manual_seed(0)
        net, t = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)), nn.Parameter(torch.tensor(2.66))
        optimizer = torch.optim.Adam([*net.parameters(), t], lr=2e-3)
        losses = []
        for _ in range(300):
            loss = cwcl(net(u), q, t, torch.eye(256) if identity else None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        with torch.no_grad():
            share = (t.exp() * q @ normalize(net(u)).T).softmax(1)
        false_negatives = (label[:, None] == label[None, :]) & ~torch.eye(256, dtype=torch.bool)
        return (share[false_negatives].mean() / share.diagonal().mean()).item()

    assert run(False) > 4 * run(True)  # per sample, relative to the own partner


def towers(seed=0, scale=10.0):
    torch.manual_seed(seed)
    frozen = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5))
    return CWCL(frozen, nn.Linear(3, 4), scale=scale).train()


def test_the_module_trains_one_tower_and_the_scale_within_its_bounds():
    model, u, v = towers(), draw(6, 5, dtype=torch.float32), draw(6, 3, seed=1, dtype=torch.float32)
    assert not model.frozen_tower.training and torch.equal(model(u, v), model(u, v))
    terms = model.loss(u, v)
    terms.loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"log_scale", "trained_tower.weight", "trained_tower.bias"}
    assert torch.allclose(terms.loss, cwcl(model.trained_tower(v), model.frozen_tower(u), math.log(10)))
    assert torch.allclose(
        model.loss(u, v, u).weighted,
        cwcl_terms(model.trained_tower(v), model.frozen_tower(u), math.log(10), intra_modal_weights(u)).weighted,
    )
    for start, end in ((9.0, math.log(100)), (-3.0, 0.0)):
        model.log_scale.data.fill_(start)
        model.after_step()
        assert model.log_scale.item() == pytest.approx(end)


def test_zero_shot_finds_the_prompt_of_the_same_direction_in_either_tower():
    model = CWCL(nn.Identity(), nn.Identity())
    names, things = torch.eye(3), torch.eye(3)[[2, 0, 1, 1]] + 0.1
    for side in ("trained", "frozen"):
        assert model.zero_shot(things, names, prompts_go_to=side).tolist() == [2, 0, 1, 1]


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped_and_evaluation_changes_nothing():
    u, v = draw(6, 5, dtype=torch.float32), draw(6, 3, seed=1, dtype=torch.float32)

    def step(model, optimizer):
        loss = model.loss(u, v).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        return loss.detach()

    models = [towers(seed, scale=99.0) for seed in (0, 1)]
    optimizers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.5) for m in models]
    step(models[0], optimizers[0])
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    for _ in range(2):
        assert torch.equal(*(step(m, o) for m, o in zip(models, optimizers, strict=True)))
    before = copy.deepcopy(models[0].state_dict())
    models[0].eval().loss(u, v)
    assert all(torch.equal(x, before[name]) for name, x in models[0].state_dict().items())


def test_half_precision_and_autocast():
    right = cwcl(P, Q, 2.0)
    assert abs(cwcl(P.bfloat16(), Q.float(), 2.0) - right) < 0.05
    model, u, v = towers(), draw(6, 5, dtype=torch.float32), draw(6, 3, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(u, v).loss
    assert found.dtype == torch.float32 and abs(found - model.loss(u, v).loss) < 0.05


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cwcl(P, Q[:3], 1.0), "frozen"),
        (lambda: cwcl(P, Q, math.nan), "log_scale"),
        (lambda: cwcl(P, Q, 1.0, torch.eye(5)), "weights"),
        (lambda: cwcl(P, Q, torch.tensor(100.0)), "log_scale"),
        (lambda: towers(scale=0.0), "scale"),
        (lambda: towers().loss(draw(4, 5).float(), draw(3, 3).float()), "trained"),
        (lambda: cwcl(P, Q, 1.0, 2 * torch.eye(6)), "weights"),
        (lambda: cwcl(P, Q, 1.0, torch.zeros(6, 6)), "every row"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
