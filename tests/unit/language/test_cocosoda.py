"""Shi et al. (2023): queues, a slow encoder and soft augmentation for code search."""

import copy
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.datasets.soft_changes import KINDS, SoftDraws, augment_tokens, draw_soft, soft_pair
from cl_teach.evaluation import mean_reciprocal_rank
from cl_teach.language.cocosoda import (
    CoCoSoDa,
    Queues,
    cocosoda_terms,
    fine_tuning_loss,
    language_probabilities,
    queued_contrast,
)
from cl_teach.models.pooling import masked_mean

CODE, QUERY, CODE_KEY, QUERY_KEY = (draw(4, 6, seed=s) for s in range(4))
QUEUES = Queues(*(draw(5, 6, seed=s) for s in range(4, 8)))
EMPTY = Queues(*(torch.empty(0, 6, dtype=torch.float64) for _ in range(4)))
STREAMS = (CODE, QUERY, CODE_KEY, QUERY_KEY)


def naive(anchor, key, queue, tau):
    (a, k, q), total = (nn.functional.normalize(x, dim=1) for x in (anchor, key, queue)), 0.0
    for i in range(len(a)):
        bottom = sum(math.exp(a[i] @ x / tau) for x in k) + sum(math.exp(a[i] @ x / tau) for x in q)
        total -= math.log(math.exp(a[i] @ k[i] / tau) / bottom)
    return total / len(a)


def test_terms_equal_the_loops():
    expected = [
        naive(CODE, QUERY, QUEUES.query, 0.2),
        naive(CODE, QUERY_KEY, QUEUES.query_key, 0.2),
        naive(QUERY, CODE, QUEUES.code, 0.2),
        naive(QUERY, CODE_KEY, QUEUES.code_key, 0.2),
        naive(CODE, CODE_KEY, QUEUES.code_key, 0.2),
        naive(QUERY, QUERY_KEY, QUEUES.query_key, 0.2),
    ]
    assert cocosoda_terms(*STREAMS, QUEUES, 0.2).tolist() == pytest.approx(expected, rel=1e-12)
    assert cocosoda_terms(*STREAMS, QUEUES, 0.2, intra_modal=False).tolist() == pytest.approx(expected[:4], rel=1e-12)
    assert torch.allclose(cocosoda_terms(*STREAMS, QUEUES, 0.2), cocosoda_terms(*STREAMS, QUEUES, 4.0, scale=20))


def test_with_empty_queues_and_no_augmentation_pairs_of_terms_coincide_and_are_clip():
    terms = cocosoda_terms(CODE, QUERY, CODE, QUERY, EMPTY, 0.2)
    assert torch.allclose(terms[0], terms[1]) and torch.allclose(terms[2], terms[3])
    clip = clip_loss(CODE, QUERY, math.log(1 / 0.2))
    assert torch.allclose((terms[0] + terms[2]) / 2, clip)


def test_one_more_queued_vector_raises_exactly_the_terms_that_use_its_queue():
    before = cocosoda_terms(*STREAMS, QUEUES)
    used = {"code": [2], "query": [0], "code_key": [3, 4], "query_key": [1, 5]}
    for name, terms in used.items():
        larger = QUEUES._replace(**{name: torch.cat([getattr(QUEUES, name), draw(1, 6, seed=9)])})
        rise = cocosoda_terms(*STREAMS, larger) - before
        assert (rise > 0).nonzero()[:, 0].tolist() == terms


def test_k_copies_of_the_positive_cost_at_least_log_k_plus_1():
    loss = queued_contrast(CODE[:1], QUERY[:1], QUERY[:1].repeat(7, 1))
    assert loss.item() == pytest.approx(math.log(8), rel=1e-9)
    assert queued_contrast(CODE, QUERY, QUERY[:1].repeat(7, 1)) > 0


def test_keys_and_queues_are_constants_and_both_sides_of_a_plain_pair_are_not():
    streams = [x.clone().requires_grad_() for x in STREAMS]
    queues = Queues(*(x.clone().requires_grad_() for x in QUEUES))
    for term, moved in ((0, [True, True]), (1, [True, False]), (4, [True, False])):
        loss = cocosoda_terms(*streams, queues)[term]
        found = torch.autograd.grad(loss, [*streams, *queues], allow_unused=True, materialize_grads=True)
        assert [bool(x.any()) for x in found] == moved + 6 * [False]


def test_gradcheck():
    leaves = [CODE.clone().requires_grad_(), QUERY.clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda c, n: cocosoda_terms(c, n, *STREAMS[2:], QUEUES, 0.3), leaves)


def test_zero_vectors_duplicates_and_a_tiny_temperature_stay_finite():
    c = torch.cat([torch.zeros(2, 6), CODE.float()[:1].repeat(2, 1)]).requires_grad_()
    loss = cocosoda_terms(c, c, c, c, Queues(*(x.float() for x in QUEUES)), 0.07, scale=20).mean()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(c.grad).all()


def test_fine_tuning_equals_the_loops():
    assert fine_tuning_loss(QUERY, CODE).item() == pytest.approx(naive(QUERY, CODE, EMPTY.code, 1 / 20), rel=1e-12)


def test_padding_does_not_reach_the_pooled_vector():
    states = draw(2, 4, 3)
    keep = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.allclose(masked_mean(states, keep), torch.stack([states[0, :2].mean(0), states[1].mean(0)]))


def test_queues_keep_the_last_batches_and_forget_the_random_start():
    method = CoCoSoDa(nn.Identity(), 6, queue_size=8).double()
    start = method.queues
    method.push(*STREAMS)
    assert torch.equal(method.queues.query[:4], normalize(QUERY))
    assert all(torch.equal(a[4:], b[4:]) for a, b in zip(method.queues, start, strict=True))
    method.push(*STREAMS[::-1])
    assert torch.equal(method.queues.query, normalize(torch.cat([QUERY, CODE_KEY])))
    assert all(int(queue.cursor) == 0 for queue in method.memory.values())


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_slow_encoder_moves_after_the_step_and_the_loss_sees_the_old_queues(momentum):
    torch.manual_seed(0)
    encoder = nn.Linear(6, 6).double()
    method = CoCoSoDa(encoder, 6, queue_size=8, momentum=momentum).double()
    old, queues = encoder.weight.detach().clone(), method.queues
    with torch.no_grad():
        encoder.weight += 1
    loss = method(encoder, *STREAMS)
    keys = [x @ old.T + encoder.bias.detach() for x in STREAMS[2:]]
    expected = cocosoda_terms(encoder(CODE), encoder(QUERY), *keys, queues).mean()
    assert torch.allclose(loss, expected)
    assert all(torch.equal(a, b) for a, b in zip(method.queues, queues, strict=True))
    method.after_step()
    slow = momentum * old + (1 - momentum) * encoder.weight.detach()
    assert torch.allclose(method.teacher.network.weight, slow)
    assert torch.allclose(method.queues.code_key[:4], normalize(keys[0]))
    before = copy.deepcopy(method.state_dict())
    method.after_step()  # nothing new
    assert all(torch.equal(x, before[k]) for k, x in method.state_dict().items())


def test_evaluation_changes_nothing_and_two_losses_before_one_step_are_both_stored():
    encoder = nn.Linear(6, 6).double()
    method = CoCoSoDa(encoder, 6, queue_size=8).double()
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        method.eval()(nn.Linear(6, 6).double(), *STREAMS)
    method.after_step()
    assert all(torch.equal(x, before[k]) for k, x in method.state_dict().items())
    method.train()
    (method(encoder, *STREAMS) + method(encoder, *STREAMS[::-1])).backward()
    method.after_step()
    stored = normalize(torch.cat([encoder(CODE), encoder(QUERY_KEY)])).detach()
    assert torch.allclose(method.queues.code, stored)


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped():
    def step(encoder, method, seed):
        loss = method(encoder, *(draw(4, 6, seed=seed + i) for i in range(4)))
        encoder.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in encoder.parameters():
                p -= 0.1 * p.grad
        method.after_step()
        return loss.detach()

    torch.manual_seed(0)
    encoder, other = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()
    method, fresh = (CoCoSoDa(e, 6, queue_size=8, momentum=0.9).double() for e in (encoder, other))
    for seed in range(3):
        step(encoder, method, seed)
    other.load_state_dict(encoder.state_dict())
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    for seed in range(3, 6):
        assert torch.equal(step(encoder, method, seed), step(other, fresh, seed))
    assert all(torch.equal(x, fresh.state_dict()[k]) for k, x in method.state_dict().items())


def test_half_precision_anchors_meet_a_float32_queue():
    exact = cocosoda_terms(*STREAMS, QUEUES, 0.2)
    half = cocosoda_terms(*(x.bfloat16() for x in STREAMS), Queues(*(x.float() for x in QUEUES)), 0.2)
    assert half.dtype == torch.float32 and torch.allclose(half.double(), exact, atol=0.05)
    encoder = nn.Linear(6, 6)
    method = CoCoSoDa(encoder, 6, queue_size=8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method(encoder, *(x.float() for x in STREAMS))
    loss.backward()
    method.after_step()
    assert torch.isfinite(loss) and method.queues.code.dtype == torch.float32


IDS = torch.randint(5, 50, (40, 30), generator=torch.Generator().manual_seed(0))
IDS[:, 25:] = 1  # padding
TYPES = torch.where(IDS == 1, 1, 100 + IDS % 4)
OPTIONS = {"mask_id": 4, "special_ids": [0, 1, 2, 3, 4]}
DRAWS = draw_soft(IDS, torch.arange(200, 300), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_equals_the_loops(kind):
    got = augment_tokens(IDS, TYPES, DRAWS, kind=kind, rate=0.4, target_type=102, protect_first=2, **OPTIONS)
    for b in range(40):
        for t in range(30):
            new = IDS[b, t]
            eligible = t >= 2 and new != 1 and (not kind.endswith("type") or TYPES[b, t] == 102)
            if eligible and DRAWS.select[b, t] < 0.4:
                if DRAWS.change[b, t] < 0.8:
                    new = 4 if kind.startswith("mask") else TYPES[b, t]
                elif kind == "mask" and DRAWS.swap[b, t] < 0.5:
                    new = DRAWS.words[b, t]
            assert got[b, t] == new


@pytest.mark.parametrize("kind", KINDS)
def test_rate_zero_changes_nothing_and_rate_one_never_touches_padding_or_the_prefix(kind):
    assert torch.equal(augment_tokens(IDS, TYPES, DRAWS, kind=kind, rate=0.0, target_type=100, **OPTIONS), IDS)
    got = augment_tokens(IDS, TYPES, DRAWS, kind=kind, rate=1.0, target_type=100, **OPTIONS)
    assert got.shape == IDS.shape and not torch.equal(got, IDS)
    assert torch.equal(got[:, :3], IDS[:, :3]) and torch.equal(got[:, 25:], IDS[:, 25:])


def test_the_expected_share_of_masks_is_four_fifths_of_the_rate():
    ids = torch.full((200, 200), 7)
    draws = draw_soft(ids, torch.tensor([9]), generator=torch.Generator().manual_seed(0))
    got = augment_tokens(ids, ids, draws, rate=0.3, protect_first=0, **OPTIONS)
    assert (got == 4).float().mean().item() == pytest.approx(0.8 * 0.3, abs=0.01)
    assert (got == 9).float().mean().item() == pytest.approx(0.1 * 0.3, abs=0.005)


def test_the_released_test_for_a_type_leaves_almost_everything_alone():
    settings = {"kind": "mask_type", "rate": 1.0, "target_type": 102, **OPTIONS}
    assert torch.equal(augment_tokens(IDS, TYPES, DRAWS, match_ids=True, **settings), IDS)
    assert (augment_tokens(IDS, TYPES, DRAWS, **settings) == 4).any()


def test_code_takes_the_four_kinds_in_turn_and_queries_are_masked():
    settings = {"vocabulary": torch.tensor([200]), "rate": 1.0, "protect_first": 0, **OPTIONS}
    for step in range(8):
        code, query = soft_pair(IDS, TYPES, IDS, step, generator=torch.Generator().manual_seed(step), **settings)
        masked, named = bool((code == 4).any()), bool(((code >= 100) & (code < 104)).any())
        assert (masked, named) == ((True, False) if step % 2 == 0 else (False, True))
        assert ((code == 200).any()).item() == (step % 4 == 0)
        assert (query == 4).any() and (query == 200).any()


def test_the_one_type_is_never_that_of_padding():
    ids = torch.cat([IDS[:, :4], torch.ones(40, 26, dtype=torch.int64)], 1)  # one free token a row
    types = torch.where(ids == 1, 1, 100 + ids % 4)
    settings = {"vocabulary": torch.tensor([200]), "rate": 1.0, **OPTIONS}
    for step in (2, 3, 6, 7) * 10:
        code, _ = soft_pair(ids, types, IDS, step, generator=torch.Generator().manual_seed(step), **settings)
        assert (code != ids).any()
    nothing = torch.ones_like(ids)
    code, _ = soft_pair(nothing, nothing, IDS, 2, **settings)
    assert torch.equal(code, nothing)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_ids_of_any_width_are_changed_alike(dtype):
    settings = {"kind": "replace", "rate": 0.4, **OPTIONS}
    right = augment_tokens(IDS, TYPES, DRAWS, **settings)
    assert torch.equal(augment_tokens(IDS.to(dtype), TYPES.to(dtype), DRAWS, **settings), right)


def test_rare_languages_are_drawn_more_often_than_their_share():
    p = language_probabilities(torch.tensor([90.0, 10.0]))
    assert p.sum().item() == pytest.approx(1) and 0.1 < p[1] < 0.5
    assert torch.allclose(language_probabilities(torch.tensor([90.0, 10.0]), 1.0), torch.tensor([0.9, 0.1]))


class Bag(nn.Module):
    """Mean of token vectors and one linear map."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(110, 32), nn.Linear(32, 32)

    def forward(self, ids):
        return self.out(masked_mean(self.table(ids), ids != 1))


def test_training_finds_code_and_a_slow_encoder_keeps_old_keys_comparable():
    generator = torch.Generator().manual_seed(0)
    meaning = torch.stack([torch.randperm(40, generator=generator)[:6] for _ in range(300)])  # shared ideas
    noise = torch.randint(90, 100, (2, 300, 4), generator=generator)
    code, query = torch.cat([10 + meaning, noise[0]], 1), torch.cat([50 + meaning, noise[1]], 1)  # other words

    def run(momentum):
        torch.manual_seed(0)
        encoder = Bag()
        method = CoCoSoDa(encoder, 32, queue_size=128, momentum=momentum)
        optimizer, losses, kept = torch.optim.Adam(encoder.parameters(), lr=5e-3), [], []
        options = {"vocabulary": torch.arange(90, 100), "protect_first": 0, **OPTIONS}
        for step in range(200):
            rows = torch.randperm(200, generator=torch.Generator().manual_seed(step))[:32]
            types, chance = 100 + code[rows] % 4, torch.Generator().manual_seed(step)
            views = soft_pair(code[rows], types, query[rows], step, generator=chance, **options)
            loss = method(encoder, code[rows], query[rows], *views)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
            losses.append(loss.item())
            kept.append(views[0])
            if step == 39:  # encode the stored keys again while the encoder still moves fast
                again = normalize(method.teacher(torch.cat(kept[-4:])))
                stored = method.queues.code_key  # 40 batches of 32: the ring is back at its start
                drift = 1 - (again * stored).sum(1)[:32].mean().item()  # of the oldest batch
        assert sum(losses[-20:]) < 0.8 * sum(losses[4:24])
        with torch.no_grad():
            similarity = normalize(encoder(query[200:])) @ normalize(encoder(code[200:])).T
        return drift, mean_reciprocal_rank(similarity, torch.eye(100, dtype=torch.bool))

    drift, rank = zip(*(run(m) for m in (0.0, 0.9, 0.99)), strict=True)
    assert drift[0] > 2 * drift[1] > 4 * drift[2] > 0
    assert min(rank) > 0.8  # chance is 0.05


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: queued_contrast(CODE, QUERY[:3], QUEUES.code), ValueError, "key"),
        (lambda: queued_contrast(CODE, QUERY, QUEUES.code[:, :2]), ValueError, "queue"),
        (lambda: queued_contrast(CODE.long(), QUERY, QUEUES.code), TypeError, "anchor"),
        (lambda: cocosoda_terms(*STREAMS, QUEUES, 0.0), ValueError, "temperature"),
        (lambda: cocosoda_terms(*STREAMS, QUEUES, scale=-1.0), ValueError, "scale"),
        (lambda: masked_mean(draw(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool)), ValueError, "valid"),
        (lambda: augment_tokens(IDS, TYPES[:3], DRAWS, **OPTIONS), ValueError, "types"),
        (lambda: augment_tokens(IDS.float(), TYPES, DRAWS, **OPTIONS), TypeError, "ids"),
        (lambda: augment_tokens(IDS, TYPES, DRAWS, kind="drop", **OPTIONS), ValueError, "kind"),
        (lambda: augment_tokens(IDS, TYPES, DRAWS, kind="mask_type", **OPTIONS), ValueError, "target_type"),
        (lambda: augment_tokens(IDS, TYPES, SoftDraws(*(x[:2] for x in DRAWS)), **OPTIONS), ValueError, "draws.select"),
        (lambda: augment_tokens(IDS, TYPES, DRAWS, rate=2.0, **OPTIONS), ValueError, "rate"),
        (lambda: draw_soft(IDS, torch.empty(0).long()), ValueError, "vocabulary"),
        (lambda: CoCoSoDa(nn.Identity(), 6, momentum=2.0), ValueError, "momentum"),
        (lambda: fine_tuning_loss(QUERY, CODE, scale=0.0), ValueError, "scale"),
        (lambda: language_probabilities(torch.tensor([1.0, 0.0])), ValueError, "counts"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
