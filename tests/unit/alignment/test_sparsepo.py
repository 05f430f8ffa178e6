"""Christopoulou et al. (2025): token weights in preference optimization."""

import math

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.sparsepo import (
    SparsePO,
    TokenWeights,
    activation_mask,
    sparse_preference_loss,
    token_terms,
)
from cl_teach.datasets.preferences import planted_preferences
from cl_teach.models.language_model import LanguageModel
from cl_teach.models.token_mask import TokenMask


def labels(*shape, seed=0):
    return torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(seed))


LOGITS = draw(3, 5, 6), draw(3, 4, 6, seed=1)
REFERENCE = draw(3, 5, 6, seed=2), draw(3, 4, 6, seed=3)
LABELS = labels(3, 5), labels(3, 4, seed=1)
VALID = torch.tensor([[1, 1, 1, 1, 0]] * 3).bool(), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool()
WEIGHTS = [TokenWeights(draw(3, t, seed=t).abs(), draw(3, t, seed=9 + t).abs()) for t in (5, 4)]


def loss(logits=LOGITS, weights=WEIGHTS, reference=REFERENCE, **settings):
    terms = [token_terms(*x) for x in zip(logits, reference, LABELS, VALID, strict=True)]
    return sparse_preference_loss(*terms, *weights, **settings)


def constant(reward, divergence):
    return [TokenWeights(torch.full((3, t), reward).double(), torch.full((3, t), divergence).double()) for t in (5, 4)]


def test_equals_a_loop_over_tokens_and_words():
    found = loss(beta=0.7, lambda_u=0.1, lambda_d=0.2)
    for i in range(3):
        u, k, price = [0.0, 0.0], [0.0, 0.0], 0.0
        for side in (0, 1):
            for t in range(LABELS[side].shape[1]):
                if not VALID[side][i, t]:
                    continue
                p, q = LOGITS[side][i, t].softmax(0), REFERENCE[side][i, t].softmax(0)
                y = LABELS[side][i, t]
                reward, divergence = WEIGHTS[side].reward[i, t].item(), WEIGHTS[side].divergence[i, t].item()
                u[side] += reward * math.log(p[y] / q[y])
                k[side] += divergence * sum(q[v].item() * math.log(q[v] / p[v]) for v in range(6))
                price += 0.1 * reward + 0.2 * divergence
        assert found.u[i].item() == pytest.approx(u[0] - u[1])
        assert found.delta[i].item() == pytest.approx(k[1] - k[0])
        expected = math.log1p(math.exp(-0.7 * (u[0] - u[1] - k[1] + k[0]))) + price
        assert found.per_pair[i].item() == pytest.approx(expected)
    assert torch.isclose(found.loss, found.per_pair.mean())


def test_weights_of_one_and_zero_are_dpo():
    sums = [
        ((x.log_softmax(-1) - r.log_softmax(-1)).gather(2, y[..., None]).squeeze(2) * v).sum(1)
        for x, r, y, v in zip(LOGITS, REFERENCE, LABELS, VALID, strict=True)
    ]
    expected = -torch.nn.functional.logsigmoid(0.3 * (sums[0] - sums[1])).mean()
    assert torch.isclose(loss(weights=constant(1.0, 0.0), beta=0.3).loss, expected)


def test_weights_of_zero_push_nothing():
    x = LOGITS[0].clone().requires_grad_()
    value = loss((x, LOGITS[1]), constant(0.0, 0.0)).loss
    assert value.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(value, x)[0].abs().max() == 0


def test_at_the_reference_only_the_norms_are_left():
    found = loss(REFERENCE, lambda_u=0.1)
    price = 0.1 * sum((w.reward * v).sum(1) for w, v in zip(WEIGHTS, VALID, strict=True))
    assert found.u.abs().max() < 1e-12 and found.delta.abs().max() < 1e-12
    assert torch.allclose(found.per_pair, math.log(2) + price)


def test_exchanged_responses_turn_the_margin_around():
    there = loss()
    terms = [token_terms(*x) for x in zip(LOGITS, REFERENCE, LABELS, VALID, strict=True)]
    back = sparse_preference_loss(*terms[::-1], *WEIGHTS[::-1])
    assert torch.allclose(there.u - there.delta, back.delta - back.u)


def test_gradients_of_weights_have_the_signs_that_the_log_ratios_and_divergences_say():
    leaves = [TokenWeights(*(x.clone().requires_grad_() for x in w)) for w in WEIGHTS]
    grads = torch.autograd.grad(loss(weights=leaves).loss, [x for w in leaves for x in w])
    terms = [token_terms(*x) for x in zip(LOGITS, REFERENCE, LABELS, VALID, strict=True)]
    assert torch.equal(grads[0].sign(), -terms[0].log_ratio.sign())
    assert torch.equal(grads[2].sign(), terms[1].log_ratio.sign())
    assert (grads[1] <= 0).all() and grads[1].min() < -1e-3
    assert (grads[3] >= 0).all() and grads[3].max() > 1e-3


def test_gradients_are_right():
    x = LOGITS[0].clone().requires_grad_()
    w = WEIGHTS[0].reward.clone().requires_grad_()

    def value(x, w):
        weights = [TokenWeights(w, WEIGHTS[0].divergence), WEIGHTS[1]]
        return loss((x, LOGITS[1]), weights, lambda_u=0.1).loss

    assert torch.autograd.gradcheck(value, (x, w))
    assert torch.autograd.grad(loss((x, LOGITS[1])).loss, x)[0][:, 4].abs().max() == 0  # not a response token


def test_huge_margins_stay_finite():
    x = (1e4 * LOGITS[0]).requires_grad_()
    value = loss((x, 1e4 * LOGITS[1])).loss
    assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, x)[0]).all()


def test_activation_masks_span_zero_to_one_and_ignore_affine_maps():
    one = activation_mask([[draw(3, 5, 7)]], VALID[0])
    assert torch.allclose(one.masked_fill(~VALID[0], 2.0).amin(1), torch.zeros(3).double())
    assert torch.allclose(one.amax(1), torch.ones(3).double())
    assert (one[~VALID[0]] == 0).all()
    a, b, c = (draw(3, 5, 7, seed=s) for s in range(3))
    mask = activation_mask([[a, b], [c]], VALID[0])
    assert torch.allclose(activation_mask([[3 * a - 2, b], [0.1 * c + 5]], VALID[0]), mask)
    parts = [activation_mask([[x]], VALID[0]) for x in (a, b, c)]
    assert torch.allclose(mask, (parts[0] + parts[1]) / 4 + parts[2] / 2)


def test_equal_activations_weigh_one():
    valid = torch.tensor([[True, False, False], [True, True, True]])
    mask = activation_mask([[torch.ones(2, 3, 4)]], valid)
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


def test_learned_masks_equal_their_loop_and_are_sparse_when_told():
    network = TokenMask(2, 8).double().eval()
    states = draw(2, 3, 5, 8)
    with torch.no_grad():
        network.weight.copy_(draw(2, 8, seed=4))
        network.mixer.copy_(torch.tensor([1.0, -0.5]))
        found = network(states)
        for i in range(3):
            for t in range(5):
                total = 0.0
                for layer in range(2):
                    h = states[layer, i, t]
                    h = (h - h.mean()) / (h.var(correction=0) + network.norm.eps).sqrt()
                    total += network.mixer[layer] * max(network.weight[layer] @ h + network.bias[layer], 0)
                assert torch.isclose(found[i, t], torch.as_tensor(max(total, 0.0)).double())
        assert 0 < (found == 0).double().mean() < 1
        network.bias.fill_(-100)
    dead = network(states)  # every activation is negative: no weight, and no gradient that could bring one back
    dead.sum().backward()
    assert dead.abs().max() == 0 and network.bias.grad.abs().max() == 0


def train(kind, price=0.0, steps=100):
    torch.manual_seed(0)
    data = planted_preferences(400, seed=10)
    model, both = LanguageModel(20, 24), torch.cat([data.chosen, data.rejected])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):  # the reference knows the language and has no preference
        batch = both[torch.randint(0, 800, (96,))]
        value = torch.nn.functional.cross_entropy(model(batch[:, :-1])[1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    layers = ("recurrence",) if kind == "activation" else ()
    method = SparsePO(model, 24, kind=kind, layers=layers, beta=0.5, lambda_u=price, lambda_d=price)
    optimizer = torch.optim.AdamW(method.parameter_groups(5e-3))
    losses = []
    for _ in range(steps):
        index = torch.randint(0, 400, (48,))
        value = method.loss(data.chosen[index], data.rejected[index]).loss
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    method.eval()
    key = torch.arange(10) == data.key_chosen[:, None]
    with torch.no_grad():
        _, weights = method.terms(data.chosen, torch.ones_like(key))
        good = model(data.chosen[:, :-1])[1].softmax(-1)[..., 2][key].mean().item()
    return losses, weights.reward, key, good


def test_learned_weights_find_the_token_that_decides_and_a_price_makes_them_sparse():
    zeros = []
    for price in (0.0, 0.01):
        losses, weights, key, good = train("common", price)
        assert losses[-1] < losses[0] - 0.5
        assert good > 0.8
        assert weights[key].mean() > 3 * weights[~key].mean()
        zeros.append((weights == 0).double().mean().item())
    assert zeros[1] > 0.8 and zeros[1] > zeros[0] + 0.2


@pytest.mark.parametrize("kind", ["independent", "activation", "ones", "dpo"])
def test_every_kind_of_weight_learns_the_preference(kind):
    losses, _, _, good = train(kind, steps=50)
    assert losses[0] > 0.69 and losses[-1] < 0.3
    assert good > 0.7


def test_the_reference_stays_and_only_masks_decay():
    model = LanguageModel(20, 8)
    method = SparsePO(model, 8, kind="independent")
    before = [p.clone() for p in method.reference.parameters()]
    groups = method.parameter_groups(1e-2, 0.1)
    assert [g["weight_decay"] for g in groups] == [0.0, 0.1]
    data = planted_preferences(8)
    policy = [p.clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(groups)
    method.loss(data.chosen, data.rejected).loss.backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, method.reference.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(policy, model.parameters(), strict=True))


def test_raw_activations_tell_tokens_apart_and_normalized_ones_are_refused():
    torch.manual_seed(0)
    data = planted_preferences(8)
    raw = SparsePO(LanguageModel(20, 16), 16, kind="activation", layers=("embedding", "recurrence"))
    _, weights = raw.terms(data.chosen, torch.ones(8, 10, dtype=torch.bool))
    assert weights.reward.std() > 0.1 and weights.reward.amin() >= 0
    normalized = SparsePO(raw.policy, 16, kind="activation", layers=("norm",))
    with pytest.raises(ValueError, match="layers.*norm"):
        normalized.loss(data.chosen, data.rejected)


def test_means_that_differ_by_rounding_only_are_equal_means():
    states = torch.nn.functional.layer_norm(draw(3, 5, 64, dtype=torch.float32), (64,))
    assert torch.equal(activation_mask([[states]], VALID[0]), VALID[0].float())


def test_learned_masks_read_as_many_layers_as_are_named():
    torch.manual_seed(0)
    data = planted_preferences(8)
    method = SparsePO(LanguageModel(20, 16), 16, layers=("embedding", "recurrence", "norm"))
    assert len(method.masks[0].weight) == 3
    loss = method.loss(data.chosen, data.rejected, generator=torch.Generator().manual_seed(0)).loss
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.masks.parameters())


def test_the_reference_has_no_dropout_and_comes_back_from_its_state():
    class Dropping(LanguageModel):
        def forward(self, tokens):
            states, logits = super().forward(tokens)
            return states, torch.nn.functional.dropout(logits, 0.5, self.training)

    torch.manual_seed(0)
    tokens = planted_preferences(4).chosen
    there, fresh = (SparsePO(Dropping(20, 8), 8).train() for _ in range(2))
    assert torch.equal(there.reference(tokens)[1], there.reference(tokens)[1])
    fresh.load_state_dict(there.state_dict())
    assert torch.equal(there.eval()(tokens, tokens.flip(0)).u, fresh.eval()(tokens, tokens.flip(0)).u)


def test_log_ratios_of_half_precision_logits_are_those_of_the_same_numbers():
    half = (3 * draw(2, 50, 300)).bfloat16(), (3 * draw(2, 50, 300)).bfloat16() + 0.01 * draw(2, 50, 300).bfloat16()
    y, valid = torch.randint(0, 300, (2, 50)), torch.ones(2, 50, dtype=torch.bool)
    found, exact = token_terms(*half, y, valid), token_terms(*(x.double() for x in half), y, valid)
    assert (found.log_ratio.sum(1) - exact.log_ratio.sum(1)).abs().max() < 1e-3
    assert found.divergence.min() > -1e-6
    with torch.autocast("cpu", torch.bfloat16):
        method = SparsePO(LanguageModel(20, 8), 8)
        data = planted_preferences(6)
        assert method.loss(data.chosen.int(), data.rejected.to(torch.uint8)).loss.isfinite()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: token_terms(LOGITS[0], REFERENCE[1], LABELS[0], VALID[0]), ValueError, "reference_logits"),
        (lambda: token_terms(LOGITS[0].long(), REFERENCE[0], LABELS[0], VALID[0]), TypeError, "logits"),
        (lambda: token_terms(LOGITS[0], REFERENCE[0], LABELS[0], LABELS[0]), TypeError, "valid"),
        (lambda: loss(weights=constant(-1.0, 0.0)), ValueError, r"weights_chosen\.reward"),
        (lambda: loss(weights=WEIGHTS[::-1]), ValueError, "weights_chosen"),
        (lambda: loss(lambda_u=-1.0), ValueError, "lambda_u"),
        (lambda: loss(beta=0.0), ValueError, "beta"),
        (lambda: SparsePO(LanguageModel(20, 8), 8, kind="activation"), ValueError, "layers"),
        (lambda: SparsePO(LanguageModel(20, 8), 8, layers=("nowhere",)), ValueError, "layers.*nowhere"),
        (lambda: activation_mask([[]], VALID[0]), ValueError, "activations"),
        (lambda: TokenMask(2, 8)(torch.zeros(1, 3, 5, 8)), ValueError, "states"),
        (lambda: TokenMask(2, 8, dropout=2.0), ValueError, "dropout"),
        (lambda: SparsePO(torch.nn.Identity(), 4, kind="other"), ValueError, "kind"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
