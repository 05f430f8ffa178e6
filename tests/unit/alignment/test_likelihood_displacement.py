"""Razin et al. (2025): why the preferred response can lose, and a score that says where."""

import pytest
import torch
from unit_helpers import draw

from cl_teach.alignment.likelihood_displacement import (
    FilteredDPO,
    ches,
    keep_lowest,
    pair_velocity,
    token_velocity,
)
from cl_teach.core.preference import preference_loss
from cl_teach.models.language_model import LanguageModel
from cl_teach.models.sequence import predicting_states, response_log_probability

PLUS, MINUS = draw(3, 6, 4), draw(3, 5, 4, seed=1)
MASKS = predicting_states(6, torch.tensor([1, 2, 0])), predicting_states(5, torch.tensor([0, 1, 3]))
W, H = draw(6, 4, seed=2), draw(4, seed=3)


def score(plus=PLUS, minus=MINUS):
    return ches(plus, MASKS[0], minus, MASKS[1])


def test_ches_equals_a_loop_that_leaves_out_the_state_after_the_last_token():
    found = score()
    for i, (start, other) in enumerate(((1, 0), (2, 1), (0, 3))):
        a = sum(PLUS[i, t] for t in range(start, 5))
        b = sum(MINUS[i, t] for t in range(other, 4))
        m, n = 5 - start, 4 - other
        assert torch.isclose(found.score[i], a @ b - a @ a)
        assert torch.isclose(found.length_normalized[i], a @ b / (m * n) - a @ a / m**2)
        assert found.lengths[i].tolist() == [m, n]
    with_last = ches(PLUS, MASKS[0].roll(1, 1) | MASKS[0], MINUS, MASKS[1])  # what the ranking script counts
    assert not torch.allclose(with_last.score, found.score)


def test_padding_on_either_side_gives_the_same_score():
    right = predicting_states(9, torch.tensor([1, 2, 0]), torch.tensor([5, 5, 5]))
    padded = torch.cat([PLUS, 100 * draw(3, 3, 4, seed=9)], dim=1)
    assert torch.allclose(ches(padded, right, MINUS, MASKS[1]).score, score().score)


def test_equal_responses_score_zero_and_have_no_gradient():
    found = ches(PLUS, MASKS[0], PLUS, MASKS[0])
    assert torch.allclose(found.score, torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(found.length_normalized, torch.zeros(3).double(), atol=1e-12)
    assert token_velocity(W, H, 2, 2).velocity.abs().max() == 0


def test_ches_is_quadratic_invariant_to_rotations_and_not_symmetric():
    rotation = torch.linalg.qr(draw(4, 4, seed=5)).Q
    assert torch.allclose(score(3 * PLUS, 3 * MINUS).score, 9 * score().score)
    assert torch.allclose(score(PLUS @ rotation, MINUS @ rotation).score, score().score)
    back = ches(MINUS, MASKS[1], PLUS, MASKS[0]).score
    assert not torch.allclose(back, score().score)
    sums = [(x * m[..., None]).sum(1) for x, m in ((PLUS, MASKS[0]), (MINUS, MASKS[1]))]
    assert torch.allclose(back + score().score, -(sums[0] - sums[1]).square().sum(1))


def test_one_token_responses_to_one_prompt_score_zero():
    mask = predicting_states(3, torch.tensor([1]))
    assert ches(PLUS[:1, :3], mask, PLUS[:1, :3], mask).score.abs() < 1e-12


def test_half_precision_sums_do_not_overflow():
    states = torch.full((1, 400, 2), 300.0, dtype=torch.float16)
    mask = predicting_states(400, torch.tensor([0]))
    assert torch.isfinite(ches(states, mask, states, mask).score).all()


@pytest.mark.parametrize("train", [True, False])
def test_token_velocity_is_the_derivative_along_the_gradient_flow(train):
    w, h = W.clone().requires_grad_(), H.clone().requires_grad_()

    def log_p(a, b):
        return (a @ b).log_softmax(0)

    x = log_p(w, h)
    loss = preference_loss(x[1] - x[3], 0.4, 0.2)
    dw, dh = torch.autograd.grad(loss, [w, h])
    _, expected = torch.func.jvp(log_p, (W, H), (-dw * train, -dh))
    found = token_velocity(W, H, 1, 3, 0.2, 0.4, train_unembedding=train)
    assert torch.allclose(found.velocity, expected)
    assert torch.isclose(found.loss, loss)
    assert (found.probabilities @ found.velocity).abs() < 1e-12


def test_the_gap_always_grows():
    found = token_velocity(W, H, 1, 3)
    expected = found.slope * ((W[1] - W[3]).square().sum() + 2 * H.square().sum())
    assert torch.isclose(found.velocity[1] - found.velocity[3], expected)


def test_orthogonal_unembeddings_never_lower_the_preferred_token():
    for seed in range(20):
        rows = torch.linalg.qr(draw(6, 6, seed=seed)).Q
        assert token_velocity(rows, 3 * draw(6, seed=seed + 50), 1, 3, train_unembedding=False).velocity[1] >= 0


def test_pair_velocity_is_the_derivative_along_the_gradient_flow():
    w, first, a, b = W, draw(1, 4, seed=6), draw(2, 4, seed=7), draw(1, 4, seed=8)
    plus, minus = torch.tensor([1, 4, 0]), torch.tensor([1, 2])

    def log_p(w, first, rest, tokens):
        return (torch.cat([first, rest]) @ w.mT).log_softmax(-1)[torch.arange(len(tokens)), tokens].sum()

    leaves = [x.clone().requires_grad_() for x in (w, first, a, b)]
    gap = log_p(leaves[0], leaves[1], leaves[2], plus) - log_p(leaves[0], leaves[1], leaves[3], minus)
    flow = [-g for g in torch.autograd.grad(preference_loss(gap, 0.3, 0.2), leaves)]
    _, expected = torch.func.jvp(lambda *x: log_p(*x, plus), (w, first, a), tuple(flow[:3]))
    _, from_w = torch.func.jvp(lambda x: log_p(x, first, a, plus), (w,), (flow[0],))
    found = pair_velocity(w, torch.cat([first, a]), torch.cat([first, b]), plus, minus, 0.2, 0.3)
    assert torch.isclose(found.velocity, expected)
    assert torch.isclose(found.from_unembedding, from_w)


def test_high_scores_go_with_slow_or_falling_preferred_responses():
    ranks = []
    mask = torch.ones(1, 5, dtype=torch.bool)
    for i in range(150):
        share = torch.rand((), generator=torch.Generator().manual_seed(i)).item()
        plus, noise = draw(5, 16, seed=i), draw(5, 16, seed=i + 500)
        minus = share * plus + (1 - share) * noise
        minus[0] = plus[0]
        tokens, others = torch.randint(0, 50, (2, 5), generator=torch.Generator().manual_seed(i + 1000))
        kept = torch.arange(5) < 5 * share  # similar states go with equal tokens
        velocity = pair_velocity(0.3 * draw(50, 16), plus, minus, tokens, torch.where(kept, tokens, others)).velocity
        ranks.append([ches(plus[None], mask, minus[None], mask).score.item(), velocity.item()])
    order = torch.tensor(ranks).argsort(0).argsort(0).double()
    assert torch.corrcoef(order.mT)[0, 1] < -0.5


def test_losses_have_their_known_values_and_gradients():
    gap = draw(4).requires_grad_()
    assert torch.allclose(preference_loss(gap, gap), torch.tensor(2.0).double().log())
    assert torch.allclose(preference_loss(gap, gap, 0.1, kind="ipo"), torch.tensor(25.0).double())
    assert torch.autograd.gradcheck(lambda x: preference_loss(x, 0.2, 0.5), gap)
    assert torch.autograd.gradcheck(lambda x: preference_loss(x, 0.2, 0.5, kind="ipo"), gap)


def test_log_probability_is_the_sum_over_response_tokens():
    logits, tokens = draw(3, 6, 7), torch.randint(0, 7, (3, 6), generator=torch.Generator().manual_seed(0))
    found = response_log_probability(logits, tokens, MASKS[0])
    for i, start in enumerate((1, 2, 0)):
        expected = sum(logits[i, t].log_softmax(0)[tokens[i, t + 1]] for t in range(start, 5))
        assert torch.isclose(found[i], expected)


def test_the_lowest_scores_are_kept_in_order():
    assert keep_lowest(torch.tensor([3.0, 1.0, 2.0, 0.0]), 0.5).tolist() == [1, 3]


def test_no_against_never_makes_yes_likely_when_unembeddings_are_frozen():
    u, v = torch.linalg.qr(draw(24, 2)).Q.mT
    for cosine in (0.0, 0.5, 0.9):
        w = 0.1 * draw(40, 24, seed=4)
        w[0], w[1] = 2 * u, 2 * (cosine * u + (1 - cosine**2) ** 0.5 * v)
        w[2] = 2.5 * torch.nn.functional.normalize(w[0] - w[1], dim=0)  # yes
        h = (1.2 * u).requires_grad_()
        before = (w @ h).log_softmax(0).detach()
        losses = []
        for _ in range(200):
            x = (w @ h).log_softmax(0)
            loss = preference_loss(x[0] - x[1], before[0] - before[1])
            losses.append(loss.item())
            h = (h - 0.5 * torch.autograd.grad(loss, h)[0]).detach().requires_grad_()
        change = (w @ h).log_softmax(0).detach() - before
        assert losses[-1] < losses[0] - 0.05
        assert change[0] < -1 and change.argmax() == 2


def filtered(seed=0):
    torch.manual_seed(seed)
    model = LanguageModel(12, 16)
    plus, minus = torch.randint(0, 12, (40, 7)), torch.randint(0, 12, (40, 7))
    minus[:, :3] = plus[:, :3]
    minus[:20, :6] = plus[:20, :6]  # the first half: responses that differ in the last token only
    mask = predicting_states(7, torch.full((40,), 2))
    return FilteredDPO(model, plus, minus, mask, mask, share=0.5)


def test_filtered_training_widens_the_gap_on_the_kept_pairs():
    method = filtered()
    assert torch.allclose(method.ches[:20], torch.zeros(20), atol=1e-4)
    assert (method.kept >= 20).all()  # unlike responses have the lower score
    optimizer = torch.optim.Adam(method.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = method.loss(method.kept)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    change = method.displacement(method.kept).mean(0)
    assert losses[-1] < losses[0] - 0.2
    assert change[0] - change[1] > 2


def test_a_loaded_object_has_the_first_start_and_the_first_choice():
    there, fresh = filtered(0), filtered(1)
    with torch.no_grad():
        there.model.output.weight.mul_(1.5)
    fresh.load_state_dict(there.state_dict())
    index = torch.arange(40)
    assert torch.equal(there.loss(index), fresh.loss(index))
    assert torch.equal(there.kept, fresh.kept) and torch.equal(there.ches, fresh.ches)
    assert torch.equal(there.displacement(index), fresh.displacement(index))
    assert there.displacement(index).abs().max() > 0.1


def test_displacement_is_measured_without_dropout_whatever_the_mode():
    class Dropping(LanguageModel):
        def forward(self, tokens):
            states, logits = super().forward(tokens)
            return states, torch.nn.functional.dropout(logits, 0.5, self.training)

    torch.manual_seed(0)
    plus, minus = torch.randint(0, 12, (2, 6, 5))
    mask = predicting_states(5, torch.ones(6, dtype=torch.int32))
    method = FilteredDPO(Dropping(12, 8), plus.int(), minus.to(torch.uint8), mask, mask, share=0.5).train()
    assert method.displacement(torch.arange(6)).abs().max() == 0
    assert method.training and method.model.training


def test_labels_of_every_width_give_one_velocity():
    plus, minus = torch.tensor([1, 4, 0]), torch.tensor([1, 2])
    states = draw(1, 4, seed=6), draw(2, 4, seed=7), draw(1, 4, seed=8)
    a, b = torch.cat(states[:2]), torch.cat(states[::2])
    right = pair_velocity(W, a, b, plus, minus).velocity
    for dtype in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(pair_velocity(W, a, b, plus.to(dtype), minus.to(dtype)).velocity, right)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ches(PLUS.long(), MASKS[0], MINUS, MASKS[1]), TypeError, "states_plus"),
        (lambda: ches(PLUS, MASKS[1], MINUS, MASKS[1]), ValueError, "mask_plus"),
        (lambda: ches(PLUS, ~MASKS[0] & MASKS[0], MINUS, MASKS[1]), ValueError, "mask_plus.*empty"),
        (lambda: predicting_states(4, torch.tensor([3])), ValueError, "last_token"),
        (lambda: keep_lowest(draw(3), 0.0), ValueError, "share"),
        (lambda: token_velocity(W, H, 6, 0), ValueError, "plus"),
        (lambda: token_velocity(W, H, 1, 0, 0.0), ValueError, "beta"),
        (
            lambda: pair_velocity(W, PLUS[0, :2], MINUS[0, :1], torch.tensor([0, 1]), torch.tensor([0])),
            ValueError,
            "states_minus",
        ),
        (lambda: preference_loss(H, 0.0, kind="other"), ValueError, "kind"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
