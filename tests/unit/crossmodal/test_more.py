"""Thapa et al. (2024): two signals that meet through a report."""

import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.crossmodal.more import (
    DropKeyAttention,
    LoRALinear,
    MoRE,
    NormalizedHead,
    Tower,
    augment_ecg,
    draw_drop_mask,
    draw_triples,
    masked_mean,
    more_loss,
    zero_shot_scores,
)
from cl_teach.evaluation import recall_at_k
from cl_teach.models import MLP
from cl_teach.training import fit, seed_everything

N, X, E = (draw(6, 8, seed=s) for s in range(3))


def naive(a, b, temperature):
    total = 0.0
    for one, other in ((a, b), (b, a)):
        for i in range(len(a)):
            scores = [(normalize(one)[i] @ normalize(other)[j] / temperature).exp() for j in range(len(a))]
            total = total - (scores[i] / sum(scores)).log() / len(a) / 2
    return total


def test_the_loss_is_that_of_a_plain_loop():
    terms = more_loss(N, X, E, 0.3)
    torch.testing.assert_close(terms.xray, naive(N, X, 0.3))
    torch.testing.assert_close(terms.ecg, naive(N, E, 0.3))
    torch.testing.assert_close(terms.loss, terms.xray + terms.ecg)


def test_three_equal_modalities_cost_twice_clip_and_the_signals_may_change_places():
    torch.testing.assert_close(more_loss(N, N, N, 0.2).loss, 2 * clip_loss(N, N, -math.log(0.2)))
    torch.testing.assert_close(more_loss(N, X, E, 0.2).loss, more_loss(N, E, X, 0.2).loss)


def test_each_term_moves_its_own_signal_and_both_move_the_report():
    n, x, e = (v.clone().requires_grad_() for v in (N, X, E))
    terms = more_loss(n, x, e, 0.2)
    grad = torch.autograd.grad
    assert grad(terms.xray, e, retain_graph=True, allow_unused=True)[0] is None
    assert grad(terms.ecg, x, retain_graph=True, allow_unused=True)[0] is None
    both = grad(terms.xray, n, retain_graph=True)[0] + grad(terms.ecg, n, retain_graph=True)[0]
    torch.testing.assert_close(grad(terms.loss, n)[0], both)


def test_limits_one_patient_warmth_and_scale():
    assert more_loss(N[:1], X[:1], E[:1]).loss == 0
    assert more_loss(N, X, E, 1e9).loss.item() == pytest.approx(2 * math.log(6))
    torch.testing.assert_close(more_loss(7 * N, X, 0.1 * E).loss, more_loss(N, X, E).loss)
    assert torch.isfinite(more_loss(N.float(), X.float(), 0 * E.float(), 0.005).loss)


def test_gradcheck_of_loss_and_attention():
    leaves = [v[:4, :3].clone().requires_grad_() for v in (N, X, E)]
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: more_loss(*a).loss, (*leaves, temperature))
    attention = DropKeyAttention(4, 2).double()
    dropped = draw_drop_mask(2, 2, 3, 0.4, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: attention(x, dropped), (draw(2, 3, 4).requires_grad_(),))


def test_a_head_standardizes_every_channel_and_ignores_a_common_shift():
    head = NormalizedHead(8, 5, 4).double()
    out = head(N)
    torch.testing.assert_close(out.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(out.var(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(head(N + draw(8, seed=5)), out)
    with pytest.raises(ValueError, match="more than 1 value"):
        head(N[:1])


class TestDropKey:
    attention = DropKeyAttention(6, 3).double()
    tokens = draw(2, 5, 6)

    def test_nothing_dropped_is_plain_attention(self):
        nothing = torch.zeros(2, 3, 5, 5, dtype=torch.bool)
        torch.testing.assert_close(self.attention(self.tokens, nothing), self.attention(self.tokens))
        q, k, v = self.attention.qkv(self.tokens).chunk(3, -1)
        heads = [
            ((q[..., h] @ k[..., h].mT / math.sqrt(2)).softmax(-1) @ v[..., h])
            for h in (slice(0, 2), slice(2, 4), slice(4, 6))
        ]
        torch.testing.assert_close(self.attention(self.tokens), self.attention.out(torch.cat(heads, -1)))

    def test_a_key_dropped_everywhere_is_a_token_that_is_not_there(self):
        dropped = torch.zeros(2, 3, 5, 5, dtype=torch.bool)
        dropped[..., 3] = True
        kept = [0, 1, 2, 4]
        torch.testing.assert_close(self.attention(self.tokens, dropped)[:, kept], self.attention(self.tokens[:, kept]))

    def test_constant_values_pass_unchanged_since_rows_sum_to_one(self):
        attention = DropKeyAttention(2, 1)
        with torch.no_grad():
            attention.qkv.weight.copy_(torch.cat([torch.randn(4, 2), torch.eye(2)]))
            attention.out.weight.copy_(torch.eye(2))
            attention.out.bias.zero_()
        tokens = torch.tensor([[1.0, -2.0]]).expand(1, 5, 2)
        dropped = draw_drop_mask(1, 1, 5, 0.6, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(attention(tokens, dropped), tokens)

    def test_draws_have_the_rate_and_leave_every_query_a_key(self):
        generator = torch.Generator().manual_seed(0)
        dropped = draw_drop_mask(50, 4, 20, 0.3, generator=generator)
        assert abs(dropped.double().mean().item() - 0.3) < 0.01
        assert not draw_drop_mask(50, 4, 3, 1.0, generator=generator).all(-1).any()
        assert not draw_drop_mask(5, 2, 4, 0.0, generator=generator).any()

    def test_refuses_a_query_without_a_key(self):
        with pytest.raises(ValueError, match="dropped"):
            self.attention(self.tokens, torch.ones(2, 3, 5, 5, dtype=torch.bool))


def test_lora_starts_as_the_frozen_layer_and_merges_into_one():
    layer = nn.Linear(5, 4)
    lora = LoRALinear(layer, rank=2, dropout=0.0)
    x = draw(3, 5, dtype=torch.float32)
    assert torch.equal(lora(x), layer(x))
    with torch.no_grad():
        lora.up.normal_()
    assert not torch.allclose(lora(x), layer(x))
    torch.testing.assert_close(lora.merged()(x), lora(x))
    trained = {name for name, parameter in lora.named_parameters() if parameter.requires_grad}
    assert trained == {"down", "up", "layer.bias"}


def test_masked_mean_leaves_padding_out():
    states, valid = draw(2, 4, 3), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    found = masked_mean(states, valid)
    torch.testing.assert_close(found[0], states[0, :2].mean(0))
    torch.testing.assert_close(found[1], states[1].mean(0))


class TestECG:
    signals = draw(3, 2, 20)
    order = torch.tensor([[2, 0, 3, 1]]).expand(3, 4)

    def test_each_kind_does_what_it_says(self):
        speeds = torch.full((3, 4), 0.5, dtype=torch.float64)
        found = augment_ecg(self.signals, torch.tensor([0, 1, 2]), self.order, speeds)
        torch.testing.assert_close(found[0], self.signals[0])  # even speeds: nothing warps
        parts = self.signals[1].split(5, dim=1)
        torch.testing.assert_close(found[1], torch.cat([parts[k] for k in (2, 0, 3, 1)], dim=1))
        assert torch.equal(found[2], self.signals[2])

    def test_warping_keeps_the_ends_and_the_order_of_moments(self):
        ramp = torch.linspace(0, 1, 20, dtype=torch.float64).expand(3, 2, 20).contiguous()
        speeds = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = augment_ecg(ramp, torch.zeros(3, dtype=torch.int64), self.order, speeds)
        torch.testing.assert_close(found[..., [0, -1]], ramp[..., [0, -1]])
        assert (found.diff(dim=2) > 0).all()
        assert (found - ramp).abs().max() > 0.01


def test_zero_shot_takes_the_best_prompt_and_standardizes_every_class():
    signals, prompts = draw(40, 8), draw(5, 8, seed=1)
    found = zero_shot_scores(signals, prompts, torch.tensor([0, 1, 1, 2, 0]))
    cosines = normalize(signals) @ normalize(prompts).mT
    second = torch.maximum(cosines[:, 1], cosines[:, 2])
    torch.testing.assert_close(found[:, 1], (second - second.mean()) / second.std())
    torch.testing.assert_close(found.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: more_loss(N, X[:5], E), "xray"),
        (lambda: more_loss(N, X, E, 0.0), "temperature"),
        (lambda: more_loss(N, X, E * math.nan), "ecg"),
        (lambda: DropKeyAttention(5, 2), "heads"),
        (lambda: LoRALinear(nn.Linear(2, 2), rank=0), "rank"),
        (lambda: masked_mean(draw(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)), "valid"),
        (lambda: Tower(3, 4)(draw(2, 10)), "signals"),
        (lambda: MoRE({"report": Tower(3, 4)}, 32), "towers"),
        (lambda: zero_shot_scores(N, X, torch.tensor([0, 0, 2, 2, 2, 2])), "classes"),
        (lambda: draw_triples(0), "n"),
        (lambda: augment_ecg(draw(2, 1, 9), torch.zeros(2).long(), torch.zeros(2, 4).long(), torch.zeros(2, 4)), "9"),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises((TypeError, ValueError), match=word):
        call()


def train(seed, *, direct):
    """MoRE, or MoRE with a third term that compares the signals directly."""
    seed_everything(seed)
    patients = draw_triples(1500, seed=10 + seed)
    towers = {name: MLP([30, 64, 32], norm="none") for name in ("report", "xray", "ecg")}
    method = MoRE(towers, 32, temperature=0.05)

    def loss(report, xray, ecg):
        terms = method(report, xray, ecg).loss
        if direct:
            terms = terms + clip_loss(method.embed("xray", xray), method.embed("ecg", ecg), -math.log(0.05))
        return terms

    settings = {"epochs": 22, "batch_size": 64, "learning_rate": 3e-3, "progress": False, "seed": seed}
    history = fit(method, loss, patients[:3], **settings)
    test = draw_triples(300, seed=99)
    with torch.no_grad():
        z = {name: normalize(method.embed(name, getattr(test, name))) for name in towers}
    pairs = {"report-xray": ("report", "xray"), "report-ecg": ("report", "ecg"), "xray-ecg": ("xray", "ecg")}
    own = torch.eye(300, dtype=torch.bool)
    return {k: recall_at_k(z[a] @ z[b].mT, own, 1) for k, (a, b) in pairs.items()}, history.losses


def test_towers_with_dropped_keys_and_a_report_tower_that_only_trains_corrections_learn():
    seed_everything(0)
    patients = draw_triples(512, seed=1)
    towers = {name: Tower(6, 5, lora=name == "report") for name in ("report", "xray", "ecg")}
    frozen = towers["report"].read.layer.weight.clone()
    method = MoRE(towers, 32, temperature=0.1)
    settings = {"epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "progress": False}
    history = fit(method, lambda *batch: method(*batch).loss, patients[:3], **settings)
    assert history.losses[-8:].mean() < 0.7 * history.losses[:8].mean()
    assert torch.equal(towers["report"].read.layer.weight, frozen)


def test_the_signals_meet_through_the_report_and_less_closely_than_when_compared_directly():
    found, losses = train(0, direct=False)
    assert losses[-10:].mean() < 0.5 * losses[:10].mean()
    assert min(found["report-xray"], found["report-ecg"]) > 0.6
    assert found["xray-ecg"] > 10 / 300  # far above chance, never trained
    direct, _ = train(0, direct=True)
    assert direct["xray-ecg"] > found["xray-ecg"] + 0.15
