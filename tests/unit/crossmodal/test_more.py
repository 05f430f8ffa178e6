"""Thapa et al. (2024): two signals that meet through a report."""

import copy
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.crossmodal.more import MoRE, augment_ecg, draw_dropped, draw_ecg_changes, more_loss, zero_shot_scores
from cl_teach.datasets.patients import patients
from cl_teach.evaluation import recall_at_k
from cl_teach.models import MLP
from cl_teach.models.pooling import masked_mean
from cl_teach.models.signal_tower import DropKeyAttention, LoRALinear, NormalizedHead, SignalTower, draw_drop_mask
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
        (lambda: SignalTower(3, 4)(draw(2, 10)), "signals"),
        (lambda: MoRE({"report": SignalTower(3, 4)}, 32), "towers"),
        (lambda: zero_shot_scores(N, X, torch.tensor([0, 0, 2, 2, 2, 2])), "classes"),
        (lambda: patients(0), "n"),
        (
            lambda: augment_ecg(draw(2, 1, 9), torch.zeros(2).long(), torch.zeros(2, 4).long(), torch.zeros(2, 4)),
            "order",
        ),
    ],
)
def test_bad_input_is_named(call, word):
    with pytest.raises((TypeError, ValueError), match=word):
        call()


def test_the_waveform_has_four_beats_and_hides_the_first_factors():
    people, same = patients(200, noise=0.0), patients(200, noise=0.0)
    assert all(torch.equal(a, b) for a, b in zip(people, same, strict=True)) and people.ecg.shape == (200, 3, 96)
    beats = people.ecg.unflatten(2, (4, 24))
    assert torch.equal(beats[:, :, 0], beats[:, :, 3])
    for name, hidden in (("ecg", slice(0, 3)), ("xray", slice(7, 10)), ("report", slice(0, 0))):
        signal = getattr(people, name).flatten(1)
        design = torch.cat([people.factors, torch.ones(200, 1)], 1)
        weights = torch.linalg.lstsq(design, signal - signal.mean(0)).solution[:10]
        strength = weights.norm(dim=1)
        seen = torch.ones(10, dtype=torch.bool)
        seen[hidden] = False
        assert strength[seen].min() > 3 * strength[~seen].max() if (~seen).any() else strength.min() > 0.1


def make(seed=0, **settings):
    torch.manual_seed(seed)
    towers = {"report": SignalTower(6, 5, lora=True), "xray": SignalTower(6, 5), "ecg": SignalTower(8, 36)}
    return MoRE(towers, 32, temperature=0.1, **settings)


def test_the_ecg_is_changed_in_training_only_and_by_the_generator():
    towers = {"report": nn.Identity(), "xray": nn.Identity(), "ecg": nn.Flatten()}
    method = MoRE({**towers, "ecg": nn.Sequential(nn.Flatten(), nn.Linear(288, 30))}, 30)
    people = patients(16)
    found = [method.loss(*people[:3], generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert found[0].ecg == found[1].ecg != found[2].ecg and found[0].xray == found[2].xray
    method.eval()
    assert method.loss(*people[:3]).ecg == method.loss(*people[:3]).ecg
    draws = draw_ecg_changes(3000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.bincount(draws.kinds) / 3000, torch.full((3,), 1 / 3), atol=0.03)


def test_features_stand_side_by_side_and_a_dropped_ecg_is_zero():
    method, people = make().eval(), patients(500)
    dropped = draw_dropped(500, generator=torch.Generator().manual_seed(0))
    assert abs(dropped.float().mean() - 0.3) < 0.05
    fused = method.fuse(people.xray, people.ecg, dropped)
    assert fused.shape == (500, 64) and not fused[dropped, 32:].any() and fused[~dropped, 32:].any(1).all()
    assert torch.equal(fused[:, :32], method.towers["xray"](people.xray)) and not fused.requires_grad


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped_and_evaluation_changes_nothing():
    people = patients(32)

    def step(method, optimizer, seed):
        torch.manual_seed(seed)
        loss = method.loss(*people[:3], generator=torch.Generator().manual_seed(seed)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    methods = [make(seed) for seed in (0, 1)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in methods]
    step(methods[0], optimizers[0], 0)
    methods[1].load_state_dict(copy.deepcopy(methods[0].state_dict()))
    for seed in (1, 2):
        assert torch.equal(*(step(m, o, seed) for m, o in zip(methods, optimizers, strict=True)))
    before = copy.deepcopy(methods[0].state_dict())
    with torch.no_grad():
        methods[0].eval().loss(*people[:3])
    assert all(torch.equal(x, before[name]) for name, x in methods[0].state_dict().items())


def test_half_precision_and_autocast():
    assert abs(more_loss(N.bfloat16(), X.float(), E.bfloat16(), 0.3).loss - more_loss(N, X, E, 0.3).loss) < 0.05
    equal = torch.ones(4, 2, dtype=torch.float16)
    assert not zero_shot_scores(equal, equal, torch.tensor([0, 0, 1, 1], dtype=torch.uint8)).any()
    method, people = make(augment=False), patients(32)
    for tower in method.towers.values():
        tower.rate = 0.0
    with torch.autocast("cpu", torch.bfloat16):
        found = method.loss(*people[:3])
        (found.loss + method.loss(*people[:3]).loss).backward()
    assert torch.isfinite(found.loss) and found.loss.dtype == torch.float32


def train(seed, *, direct):
    """MoRE, or MoRE with a third term that compares the signals directly."""
    seed_everything(seed)
    people = patients(1500, seed=10 + seed)
    towers = {name: MLP([30, 64, 32], norm="none") for name in ("report", "xray")}
    ecg = nn.Sequential(nn.Flatten(), MLP([288, 64, 32], norm="none"))
    method = MoRE({**towers, "ecg": ecg}, 32, temperature=0.05, augment=False)

    def loss(*batch):
        report, xray, ecg = method(*batch)
        total = more_loss(report, xray, ecg, 0.05).loss
        return total + clip_loss(xray, ecg, -math.log(0.05)) if direct else total

    settings = {"epochs": 22, "batch_size": 64, "learning_rate": 3e-3, "progress": False, "seed": seed}
    history = fit(method, loss, people[:3], **settings)
    test = patients(300, seed=99)
    with torch.no_grad():
        z = dict(zip(("report", "xray", "ecg"), map(normalize, method(*test[:3])), strict=True))
    pairs = {"report-xray": ("report", "xray"), "report-ecg": ("report", "ecg"), "xray-ecg": ("xray", "ecg")}
    own = torch.eye(300, dtype=torch.bool)
    return {k: recall_at_k(z[a] @ z[b].mT, own, 1) for k, (a, b) in pairs.items()}, history.losses


def test_towers_with_dropped_keys_and_a_report_tower_that_only_trains_corrections_learn():
    method, people = make(), patients(512, seed=1)
    frozen = method.towers["report"].read.layer.weight.clone()
    settings = {"epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "progress": False}
    history = fit(method, lambda *batch: method.loss(*batch).loss, people[:3], **settings)
    assert history.losses[-8:].mean() < 0.8 * history.losses[:8].mean()
    assert torch.equal(method.towers["report"].read.layer.weight, frozen)


def test_the_signals_meet_through_the_report_and_less_closely_than_when_compared_directly():
    found, losses = train(0, direct=False)
    assert losses[-10:].mean() < 0.5 * losses[:10].mean()
    assert min(found["report-xray"], found["report-ecg"]) > 0.6
    assert found["xray-ecg"] > 10 / 300  # far above chance, never trained
    direct, _ = train(0, direct=True)
    assert direct["xray-ecg"] > found["xray-ecg"] + 0.15
