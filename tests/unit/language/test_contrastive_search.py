"""Su and Collier (2022): among the likely tokens, the one whose state resembles none so far."""

import math
from types import SimpleNamespace

import pytest
import torch
from unit_helpers import draw

from cl_teach.core import normalize
from cl_teach.datasets.texts import toy_text
from cl_teach.language.contrastive_search import (
    coherence,
    contrastive_choice,
    contrastive_search,
    diversity,
    isotropy,
    repetition,
    simctg_contrast,
    simctg_terms,
    valid_tokens,
)
from cl_teach.models import LanguageModel
from cl_teach.models.reading import Reading, reader, select_rows, transformer_reader

CONTEXT, CANDIDATES = draw(3, 5, 6), draw(3, 4, 6, seed=1)
P = torch.tensor([[0.4, 0.3, 0.1, 0.05], [0.3, 0.3, 0.2, 0.1], [0.9, 0.04, 0.03, 0.01]], dtype=torch.float64)


def model(vocabulary=12, seed=0):
    torch.manual_seed(seed)
    return LanguageModel(vocabulary, 16).double()


def test_choice_equals_the_loops_and_scores_are_bounded():
    c, h, got = normalize(CONTEXT), normalize(CANDIDATES), contrastive_choice(CONTEXT, CANDIDATES, P, 0.6)
    for b in range(3):
        for v in range(4):
            worst = max(float(h[b, v] @ c[b, j]) for j in range(5))
            assert got.penalty[b, v].item() == pytest.approx(worst)
            assert got.scores[b, v].item() == pytest.approx(0.4 * P[b, v].item() - 0.6 * worst)
    assert got.chosen.tolist() == got.scores.argmax(1).tolist()
    assert got.scores.min() >= -0.6 and got.scores.max() <= 1


def test_alpha_0_is_greedy_and_alpha_1_takes_the_least_similar():
    assert contrastive_choice(CONTEXT, CANDIDATES, P, 0.0).chosen.tolist() == [0, 0, 0]  # also on the tie of row 1
    choice = contrastive_choice(CONTEXT, CANDIDATES, P, 1.0)
    assert torch.equal(choice.chosen, choice.penalty.argmin(1))


def test_choice_ignores_rotation_and_the_scale_of_every_state():
    base = contrastive_choice(CONTEXT, CANDIDATES, P)
    turn = torch.linalg.qr(draw(6, 6, seed=2)).Q
    turned = contrastive_choice(CONTEXT @ turn, CANDIDATES @ turn, P)
    scale = draw(3, 9, 1, seed=3).exp()
    scaled = contrastive_choice(CONTEXT * scale[:, :5], CANDIDATES * scale[:, 5:], P)
    for other in (turned, scaled):
        assert torch.equal(other.chosen, base.chosen) and torch.allclose(other.scores, base.scores)


def test_a_repeated_state_has_the_worst_penalty_and_a_zero_state_none():
    candidates = CANDIDATES.clone()
    candidates[:, 0], candidates[:, 1] = CONTEXT[:, 2], 0
    penalty = contrastive_choice(CONTEXT, candidates, P).penalty
    assert torch.allclose(penalty[:, 0], torch.ones(3).double()) and (penalty[:, 1] == 0).all()
    assert (penalty <= 1 + 1e-12).all()


@torch.no_grad()
def slow_search(net, prefix, steps, k, alpha):
    """One row, without a cache: every candidate is appended and everything is read again."""
    ids = prefix.tolist()
    for _ in range(steps):
        states, logits = net(torch.tensor([ids]))
        p = logits[0, -1].softmax(0)
        best = None
        for v in p.argsort(descending=True, stable=True)[:k].tolist():
            after = net(torch.tensor([[*ids, v]]))[0][0, -1]
            penalty = max(float(torch.cosine_similarity(after, h, dim=0)) for h in states[0])
            score = (1 - alpha) * float(p[v]) - alpha * penalty
            if best is None or score > best[0]:
                best = score, v
        ids.append(best[1])
    return ids


def test_search_equals_reading_everything_again_and_rows_do_not_disturb_each_other():
    net, prefixes = model(), torch.tensor([[1, 2, 3], [7, 7, 0]])
    together = contrastive_search(reader(net), prefixes, 8, k=3, alpha=0.5).ids
    for row, prefix in zip(together, prefixes, strict=True):
        assert row.tolist() == slow_search(net, prefix, 8, 3, 0.5)
        assert torch.equal(contrastive_search(reader(net), prefix[None], 8, k=3, alpha=0.5).ids[0], row)


class Attention(torch.nn.Module):
    """One causal attention layer that is called as the models of transformers are; keys and values are its cache."""

    def __init__(self, cache):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.qkv, self.out = (torch.nn.Embedding(12, 8), torch.nn.Linear(8, 24), torch.nn.Linear(8, 12))
        self.cache = cache

    def forward(self, input_ids, past_key_values, use_cache, output_hidden_states):
        q, k, v = self.qkv(self.table(input_ids)).chunk(3, -1)
        if past_key_values is not None:
            old = past_key_values.layers if isinstance(past_key_values, Kept) else past_key_values
            k, v = torch.cat([old[0][0], k], 1), torch.cat([old[0][1], v], 1)
        time, whole = q.shape[1], k.shape[1]
        later = torch.ones(time, whole, dtype=torch.bool).triu(whole - time + 1)
        states = (q @ k.mT).masked_fill(later, -math.inf).softmax(-1) @ v
        kept = ((k, v),)
        kept = Kept(kept) if self.cache == "object" else kept
        return SimpleNamespace(hidden_states=(states,), logits=self.out(states), past_key_values=kept)


class Kept:
    """A cache that changes in place."""

    def __init__(self, layers):
        self.layers = layers

    def reorder_cache(self, rows):
        self.layers = tuple((k[rows], v[rows]) for k, v in self.layers)


@pytest.mark.parametrize("cache", ["tuple", "object"])
def test_the_caches_of_real_models_give_what_reading_everything_again_gives(cache):
    net = Attention(cache).double()

    def again(tokens, cache):  # the cache is the text
        whole = tokens if cache is None else torch.cat([cache["said"][0], tokens], 1)
        read = transformer_reader(net)(whole, None)
        time = tokens.shape[1]
        return Reading(read.states[:, -time:], read.logits[:, -time:], {"said": [whole]})

    prefix = torch.tensor([[1, 2, 3], [7, 7, 0]])
    a, b = (contrastive_search(read, prefix, 8, k=3, alpha=0.5) for read in (transformer_reader(net), again))
    assert torch.equal(a.ids, b.ids) and torch.allclose(a.scores, b.scores)


def test_rows_of_a_cache_are_taken_wherever_its_tensors_are():
    x, rows = draw(3, 2), torch.tensor([2, 0, 0], dtype=torch.uint8)
    cache = {"a": [x, (x, None)], "time": 3, "b": Reading(x, x, ())}
    found = select_rows(cache, rows)
    assert found["time"] == 3 and found["a"][1][1] is None and isinstance(found["b"], Reading)
    for part in (found["a"][0], found["a"][1][0], found["b"].states):
        assert torch.equal(part, x[[2, 0, 0]])
    with pytest.raises(TypeError, match="cache"):
        select_rows(object(), rows)


def test_one_candidate_or_alpha_0_is_greedy_search():
    net, ids = model(), torch.tensor([[1, 2]])
    greedy = ids
    for _ in range(10):
        greedy = torch.cat([greedy, net(greedy)[1][:, -1].argmax(1, keepdim=True)], 1)
    for k, alpha in ((1, 0.6), (1, 1.0), (4, 0.0), (12, 0.0)):
        assert torch.equal(contrastive_search(reader(net), ids, 10, k=k, alpha=alpha).ids, greedy)
    assert not torch.equal(contrastive_search(reader(net), ids, 10, k=4, alpha=0.8).ids, greedy)


def test_the_prompt_counts_in_the_penalty():
    net = model()
    whole = reader(net)
    prefix = torch.tensor([[1, 2, 3, 4]])

    def forgetful(tokens, cache):
        reading = whole(tokens, cache)
        return reading._replace(states=reading.states[:, -1:])

    a, b = (contrastive_search(read, prefix, 10, alpha=0.9).ids for read in (whole, forgetful))
    assert not torch.equal(a, b)


def test_a_common_vector_in_all_states_brings_greedy_search_back():
    net, prefix = model(), torch.tensor([[1, 2], [5, 3]])
    whole = reader(net)

    def cone(tokens, cache):
        reading = whole(tokens, cache)
        return reading._replace(states=reading.states + 1e5)

    greedy = contrastive_search(whole, prefix, 12, k=1).ids
    assert not torch.equal(contrastive_search(whole, prefix, 12).ids, greedy)
    assert torch.equal(contrastive_search(cone, prefix, 12).ids, greedy)
    assert isotropy(cone(prefix, None).states).item() < 1e-8


def test_rows_stop_at_the_end_token():
    net, prefix = model(), torch.tensor([[1, 2], [5, 3]])
    free = contrastive_search(reader(net), prefix, 10).ids
    end = int(free[0, 4])
    ids = contrastive_search(reader(net), prefix, 10, end=end).ids
    for row, other in zip(ids.tolist(), free.tolist(), strict=True):
        at = other.index(end, 2) if end in other[2:] else len(other)
        assert row[: at + 1] == other[: at + 1][: len(row)] and set(row[at + 1 :]) <= {end}


def test_contrast_and_isotropy_equal_the_loops():
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    loss = total = pairs = 0.0
    for b in range(3):
        z = normalize(CONTEXT[b][valid[b]])
        for i in range(len(z)):
            for j in range(len(z)):
                if i != j:
                    loss += max(0.0, 0.7 - 1 + float(z[i] @ z[j]))
                    total += float(z[i] @ z[j])
                    pairs += 1
    assert pairs == 26
    assert simctg_contrast(CONTEXT, valid, 0.7).item() == pytest.approx(loss / pairs)
    assert isotropy(CONTEXT, valid).item() == pytest.approx(1 - total / pairs)
    assert torch.allclose(isotropy(CONTEXT, skip_first=True), isotropy(CONTEXT[:, 1:]))


def test_contrast_of_equal_orthogonal_and_any_states():
    equal, orthogonal = torch.ones(1, 4, 6), torch.eye(4)[None]
    assert simctg_contrast(equal, margin=0.3).item() == pytest.approx(0.3)
    assert simctg_contrast(orthogonal, margin=1.0).item() == 0
    assert simctg_contrast(CONTEXT, margin=-1.0).item() == pytest.approx(0, abs=1e-12)
    assert torch.allclose(
        simctg_contrast(CONTEXT[:, [3, 0, 4, 1, 2]], margin=0.8), simctg_contrast(CONTEXT, margin=0.8)
    )


def test_isotropy_of_equal_orthogonal_and_opposite_states():
    x = torch.ones(2, 3, 4)
    assert isotropy(x).item() == pytest.approx(0, abs=1e-6)
    assert isotropy(torch.eye(4)[None]).item() == 1
    assert isotropy(torch.stack([x[0, 0], -x[0, 0]])[None]).item() == pytest.approx(2)


def test_gradcheck():
    x = CONTEXT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda states: simctg_contrast(states, margin=0.9), x)


def test_padding_changes_nothing_and_must_stand_at_the_end():
    net, tokens = model(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    padded = torch.cat([tokens, torch.zeros(2, 3, dtype=torch.int64)], 1)
    for a, b in zip(simctg_terms(net, tokens), simctg_terms(net, padded, pad=0), strict=True):
        assert torch.allclose(a, b)
    with pytest.raises(ValueError, match="ids"):
        valid_tokens(torch.tensor([[1, 0, 2]]), 0)


def test_zero_and_repeated_states_stay_finite():
    x = torch.cat([torch.zeros(1, 2, 6), torch.ones(1, 2, 6)], 1).requires_grad_()
    loss = simctg_contrast(x)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()


def test_half_precision_states_and_logits_are_compared_in_float32():
    choice = contrastive_choice(CONTEXT.bfloat16(), CANDIDATES.bfloat16(), P.bfloat16())
    exact = contrastive_choice(CONTEXT, CANDIDATES, P)
    assert choice.scores.dtype == torch.float32 and torch.allclose(choice.scores.double(), exact.scores, atol=0.02)
    assert isotropy(CONTEXT.bfloat16()).item() == pytest.approx(isotropy(CONTEXT).item(), abs=0.01)
    net, ids = model().float(), toy_text(4, 20, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right, mean = simctg_terms(net, ids), coherence(net, ids, 3)
        with torch.autocast("cpu", torch.bfloat16):
            assert abs(simctg_terms(net, ids).loss - right.loss) < 0.02
            assert torch.allclose(coherence(net, ids, 3), mean, atol=0.02)
        net.bfloat16()
        assert abs(simctg_terms(net, ids.to(torch.int16)).loss - right.loss) < 0.05


def test_repetition_and_diversity():
    assert diversity([list("abcdef")]) == 1
    assert repetition([list("ababab")], 2) == pytest.approx(1 - 2 / 5)
    assert repetition([list("ababab")], 2, released=True) == pytest.approx(1 - 2 / 4)
    assert repetition([list("aaa"), list("aaa")], 2) == pytest.approx(1 - 2 / 4)  # counted in each text on its own


def test_coherence_is_the_mean_log_probability_behind_the_prefix():
    net, ids = model(), torch.tensor([[1, 2, 3, 4, 5]])
    p = net(ids)[1].log_softmax(-1)[0]
    expected = (p[1, 3] + p[2, 4] + p[3, 5]) / 3
    assert torch.allclose(coherence(net, ids, 2), expected)


def test_toy_texts_follow_their_table():
    one, again, other = (
        toy_text(400, 30, 10, 3, language=language, generator=torch.Generator().manual_seed(seed))
        for language, seed in ((0, 0), (0, 1), (1, 0))
    )

    def pairs(text):
        return {pair for row in text.tolist() for pair in zip(row, row[1:], strict=False)}

    assert pairs(one) == pairs(again) != pairs(other) and len(pairs(one)) == 30


def train(margin):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = LanguageModel(40, 48)
    torch.nn.init.constant_(net.norm.bias, 3.0)  # a common vector: the states start in a narrow cone
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    steps = []
    for _ in range(200):
        terms = simctg_terms(net, toy_text(32, 24, generator=generator), margin=margin)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        steps.append([term.item() for term in terms])
    test = toy_text(100, 24, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return net, torch.tensor(steps), isotropy(net(test)[0]).item(), simctg_terms(net, test).likelihood.item()


def test_training_opens_the_cone_at_no_cost_and_search_ends_the_loops_of_greedy_search():
    _, _, plain_isotropy, plain_loss = train(-1.0)
    net, history, spread, loss = train(0.5)
    total, likelihood, contrast = (history[-20:].mean(0) / history[:20].mean(0)).tolist()
    assert max(total, likelihood, contrast) < 0.8
    assert spread > plain_isotropy + 0.06 and loss < plain_loss + 0.05
    prefix = toy_text(20, 4, generator=torch.Generator().manual_seed(7))
    greedy, search = (contrastive_search(reader(net), prefix, 30, k=k).ids for k in (1, 4))
    assert repetition(greedy[:, 4:].tolist(), 4) > 0.6 and repetition(search[:, 4:].tolist(), 4) < 0.15
    # The tokens are still likely: a random one of 40 words would have -3.7.
    assert coherence(net, search, 4).mean() > coherence(net, greedy, 4).mean() - 0.5 > -math.log(40) / 2


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: contrastive_choice(CONTEXT, CANDIDATES, P, 1.5), ValueError, "alpha"),
        (lambda: contrastive_choice(CONTEXT, CANDIDATES, 2 * P), ValueError, "probabilities"),
        (lambda: contrastive_choice(CONTEXT, CANDIDATES, P[:, :3]), ValueError, "probabilities"),
        (lambda: contrastive_choice(CONTEXT, CANDIDATES[..., :4], P), ValueError, "candidates"),
        (lambda: contrastive_choice(CONTEXT[:2], CANDIDATES, P), ValueError, "candidates"),
        (lambda: contrastive_choice(CONTEXT.long(), CANDIDATES, P), TypeError, "context"),
        (lambda: contrastive_search(reader(model()), torch.tensor([[1]]), 3, k=13), ValueError, "k:"),
        (lambda: contrastive_search(reader(model()), torch.tensor([[12]]), 3), ValueError, "prefix"),
        (lambda: contrastive_search(reader(model()), torch.tensor([[1]]), 0), ValueError, "steps"),
        (lambda: simctg_contrast(CONTEXT, margin=1.1), ValueError, "margin"),
        (lambda: simctg_contrast(CONTEXT, torch.zeros(3, 5)), TypeError, "valid"),
        (lambda: simctg_contrast(CONTEXT, torch.zeros(3, 5, dtype=torch.bool)), ValueError, "valid"),
        (lambda: isotropy(CONTEXT * math.nan), ValueError, "states"),
        (lambda: repetition([[1, 2]], 3), ValueError, "texts"),
        (lambda: repetition([[1, 2]], 0), ValueError, "n:"),
        (lambda: coherence(model(), torch.tensor([[1, 2]]), 2), ValueError, "prefix_length"),
        (lambda: toy_text(2, 3, 4, 5, generator=torch.Generator()), ValueError, "vocabulary"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
