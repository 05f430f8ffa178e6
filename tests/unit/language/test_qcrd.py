"""Wang et al. (2025), first arXiv version: the easiest good rationale, the hardest bad one, a margin and a judge."""

import copy
import io
import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.core.voting import majority_mask, self_consistency_split
from cl_teach.datasets.rationales import RATIONALE_TOKENS, arithmetic_rationales, rationale_text, spoil_rationales
from cl_teach.language.qcrd import (
    QCRD,
    Discriminator,
    Questions,
    Student,
    discriminator_loss,
    qcrd_terms,
    rationale_loss,
    rationale_scores,
)

ANSWER, LABEL = draw(2, 3), torch.tensor([1, 0])
POS, NEG = draw(2, 2, seed=3).abs() + 1, draw(2, 3, seed=4).abs() + 1
GOOD, BAD = draw(2, 2, seed=1), draw(2, 3, seed=2)
TOKENS = torch.tensor([3, 0, 2, 3])


def terms(pos=POS, neg=NEG, good=GOOD, bad=BAD, **numbers):
    return qcrd_terms(ANSWER, LABEL, pos, neg, good, bad, **numbers)


def test_terms_equal_the_loops():
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    label = positive = negative = judge = 0.0
    for i in range(2):
        label -= ANSWER[i].log_softmax(0)[LABEL[i]].item() / 2
        easy = min(range(2), key=lambda j: POS[i, j].item())
        hard = max(range(3), key=lambda j: NEG[i, j].item())
        positive += sigmoid(GOOD[i, easy]) * POS[i, easy].item() / 2
        negative += (1 - sigmoid(BAD[i, hard])) * min(NEG[i, hard].item() - 2.5, 0) / 2
        above, below = (sum(math.exp(sigmoid(d)) for d in row[i].tolist()) for row in (GOOD, BAD))
        judge -= math.log(above / below) / 2
    weights = {"label_weight": 0.7, "contrast_weight": 0.3, "discriminator_weight": 0.2}
    found = terms(beta=0.4, margin=2.5, **weights)
    contrast = positive - 0.4 * negative
    expected = [0.7 * label + 0.3 * contrast + 0.2 * judge, label, positive, negative, contrast, judge]
    assert [x.item() for x in found[:6]] == pytest.approx(expected, rel=1e-10)
    assert negative < 0
    assert torch.equal(found.chosen_positive, POS.argmin(1)) and torch.equal(found.chosen_negative, NEG.argmax(1))


def test_rationale_loss_is_a_mean_over_the_valid_tokens():
    logits = draw(4, 5)
    expected = -sum(logits[t].log_softmax(0)[TOKENS[t]].item() for t in range(4)) / 4
    assert rationale_loss(logits, TOKENS).item() == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(rationale_loss(logits.repeat(3, 1), TOKENS.repeat(3)), rationale_loss(logits, TOKENS))
    padded, valid = torch.cat([logits, draw(2, 5, seed=9)]), torch.arange(6) < 4
    found = rationale_loss(padded[None], F.pad(TOKENS, (0, 2))[None], valid[None])
    assert torch.allclose(found, rationale_loss(logits, TOKENS)[None])


def test_one_positive_with_a_full_score_and_no_negative_is_plain_distillation():
    sure, none = torch.full((2, 1), 800.0).double(), torch.zeros(2, 0).double()
    found = terms(POS[:, :1], none, sure, none, label_weight=1.0, contrast_weight=0.7)
    assert torch.allclose(found.loss, F.cross_entropy(ANSWER, LABEL) + 0.7 * POS[:, 0].mean())
    assert found.negative == 0 and found.discriminator == 0 and found.chosen_negative.tolist() == [-1, -1]


def test_only_the_easiest_positive_and_the_hardest_negative_have_a_gradient():
    pos, neg = POS.clone().requires_grad_(), NEG.clone().requires_grad_()
    found = terms(pos, neg, margin=9.0, beta=0.4, contrast_weight=0.5)
    own, other = torch.autograd.grad(found.loss, (pos, neg))
    rows = torch.arange(2)
    assert torch.allclose(own[rows, found.chosen_positive], 0.5 * GOOD.sigmoid()[rows, found.chosen_positive] / 2)
    scores = BAD.sigmoid()[rows, found.chosen_negative]
    assert torch.allclose(other[rows, found.chosen_negative], -0.5 * 0.4 * (1 - scores) / 2)  # descent raises its loss
    assert (own != 0).sum() == 2 and (other != 0).sum() == 2


@pytest.mark.parametrize(("settings", "raised"), [({"margin": 0.9}, 0), ({"margin": 9.0}, 900), ({"beta": 0.0}, 0)])
def test_beyond_the_margin_with_a_full_score_or_without_weight_negatives_get_exactly_none(settings, raised):
    neg = NEG.clone().requires_grad_()
    (grad,) = torch.autograd.grad(terms(neg=neg, bad=BAD + raised, **settings).loss, neg)
    assert not grad.any()


def test_the_contrast_is_not_negative_and_continuous_in_the_margin():
    values = [terms(margin=m).contrast.item() for m in torch.linspace(0, 6, 601).tolist()]
    steps = [abs(a - b) for a, b in zip(values[:-1], values[1:], strict=True)]
    assert min(values) >= 0 and max(steps) <= 0.2 * 0.01 + 1e-9 and values[-1] > values[0]


def test_the_discriminator_learns_from_its_own_loss_only():
    good, bad = GOOD.clone().requires_grad_(), BAD.clone().requires_grad_()
    found = terms(good=good, bad=bad, margin=9.0)
    assert not found.contrast.requires_grad and found.discriminator.requires_grad
    s, b = rationale_scores(GOOD).requires_grad_(), rationale_scores(BAD).requires_grad_()
    first, second = torch.autograd.grad(discriminator_loss(s, b), (s, b))
    assert torch.allclose(first.sum(1), torch.full((2,), -0.5).double())
    assert torch.allclose(second.sum(1), torch.full((2,), 0.5).double())


def test_the_judge_has_its_limits_and_exchanging_the_sets_changes_the_sign():
    same = torch.full((2, 2), 0.3), torch.full((2, 3), 0.3)
    assert discriminator_loss(*same).item() == pytest.approx(math.log(3 / 2))
    scores = rationale_scores(5 * GOOD), rationale_scores(5 * BAD)
    assert abs(discriminator_loss(*scores) - math.log(3 / 2)) < 1
    assert torch.allclose(discriminator_loss(*scores), -discriminator_loss(*scores[::-1]))


def test_masked_rationales_do_not_exist_and_order_does_not_matter():
    pos, neg = torch.cat([POS, POS[:, :1] - 9], 1), torch.cat([NEG, NEG[:, :1] + 9], 1)
    good, bad = torch.cat([GOOD, GOOD[:, :1]], 1), torch.cat([BAD, BAD[:, :1]], 1)
    masks = {"positive_mask": torch.arange(3).expand(2, 3) < 2, "negative_mask": torch.arange(4).expand(2, 4) < 3}
    for one, other in zip(terms(pos, neg, good, bad, **masks)[:6], terms()[:6], strict=True):
        assert torch.allclose(one, other)
    flipped = terms(POS.flip(1), NEG.flip(1), GOOD.flip(1), BAD.flip(1))
    assert torch.allclose(torch.stack(flipped[:6]), torch.stack(terms()[:6]))
    half = terms(negative_mask=torch.tensor([[True] * 3, [False] * 3]), margin=9.0)  # one question without negatives
    assert half.chosen_negative[1] == -1 and half.negative < 0


def test_gradcheck():
    leaves = [t.clone().requires_grad_() for t in (POS, NEG, GOOD, BAD)]
    assert torch.autograd.gradcheck(lambda p, n, *_: terms(p, n, margin=9.0).loss, leaves)
    assert torch.autograd.gradcheck(
        lambda g, b: discriminator_loss(rationale_scores(g), rationale_scores(b)), leaves[2:]
    )


def test_half_precision_and_extremes_stay_finite():
    exact = terms(margin=9.0).loss
    half = terms(*(x.bfloat16() for x in (POS, NEG, GOOD, BAD)), margin=9.0).loss
    assert half.dtype in (torch.float32, torch.float64) and abs(half - exact) < 0.02
    wild = torch.tensor([[-800.0, 900.0]]).repeat(2, 1).requires_grad_()
    loss = terms(POS, POS, wild, wild).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(wild.grad).all()


def test_majority_keeps_its_samples_and_a_tie_goes_to_the_first():
    assert self_consistency_split("ABAAC") == ("A", [0, 2, 3], [1, 4])
    assert self_consistency_split("BBAAC") == ("B", [0, 1], [2, 3, 4])
    answers = torch.tensor([[0, 1, 0, 0, 2], [7, 7, 0, 0, 2]], dtype=torch.uint8)
    assert majority_mask(answers).int().tolist() == [[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]


# --- the networks -----------------------------------------------------------------------------------------------------


def student(seed=0):
    torch.manual_seed(seed)
    return Student(6, 3, 8)


def test_the_student_sees_only_earlier_tokens_and_padding_changes_nothing():
    question = torch.tensor([[1, 2]])
    net, a, b = student(), torch.tensor([[[1, 2, 3]]]), torch.tensor([[[1, 5, 3]]])
    first, second = net(question, a)[0, 0], net(question, b)[0, 0]
    assert first.shape == (4, 6) and torch.equal(first[:2], second[:2]) and not torch.equal(first[2], second[2])
    padded = net(F.pad(question, (0, 3)), F.pad(a, (0, 2)))[0, 0]
    assert torch.allclose(padded[:4], first, atol=1e-6)
    assert torch.allclose(net.label(F.pad(question, (0, 3))), net.label(question), atol=1e-6)
    judge = Discriminator(6, 8)
    assert torch.allclose(judge(F.pad(question, (0, 3)), F.pad(a, (0, 2))), judge(question, a), atol=1e-6)


def test_writing_is_greedy_at_temperature_zero_and_rows_do_not_disturb_each_other():
    net, questions = student(), torch.tensor([[1, 2], [5, 3], [4, 4]])
    net.token_head.bias.data[0] += 0.3  # some end early
    together = net.write(questions, 6)
    for question, written in zip(questions, together, strict=True):
        tokens: list[int] = []
        while len(tokens) < 6 and 0 not in tokens:
            text = torch.tensor([[tokens]]) if tokens else torch.zeros(1, 1, 1, dtype=torch.int64)
            tokens.append(int(net(question[None], text)[0, 0, len(tokens)].argmax()))
        assert written.tolist() == tokens + [0] * (6 - len(tokens))
    generator = torch.Generator().manual_seed(0)
    drawn = net.write(questions[:1].repeat(4000, 1), 1, 2.0, generator=generator)
    p = (net(questions[:1], torch.zeros(1, 1, 1).long())[0, 0, 0] / 2).softmax(0)
    assert torch.allclose(torch.bincount(drawn[:, 0], minlength=6) / 4000, p, atol=0.03)


# --- training ---------------------------------------------------------------------------------------------------------


def questions(n=64, seed=0, **settings):
    data = arithmetic_rationales(n, seed=seed, **settings)
    return Questions(data.question, data.label, data.rationales, majority_mask(data.answers))


def method(seed=0, dim=32, **settings):
    torch.manual_seed(seed)
    tokens = len(RATIONALE_TOKENS)
    return QCRD(Student(tokens, 10, dim), Discriminator(tokens, dim), **settings)


def test_copies_of_a_positive_and_empty_rationales_are_no_negatives():
    made, batch = method(), questions(4)
    rationales = torch.cat([batch.rationales, batch.rationales[:, :1], torch.zeros(4, 1, 15).long()], 1)
    positive = F.pad(batch.positive, (0, 2))
    positive[:, 0] = True
    shown, bad = made.negatives(batch.question, rationales, positive)
    assert shown.shape == (4, 8, 15) and not bad[:, 5:7].any()
    assert not (bad[:, :7] & positive).any()


def test_the_dataset_slips_as_often_as_told_and_its_truth_is_right():
    data = arithmetic_rationales(2000, error=0.25)
    wrong = (data.rationales != data.truth[:, None]).any(-1)
    assert abs(wrong.float().mean() - 0.25) < 0.01
    for text, label in zip(rationale_text(data.truth[:200]), data.label[:200].tolist(), strict=True):
        first, second = text.split(";")
        assert all(eval(side.split("=")[0]) == int(side.split("=")[1]) for side in (first, second))
        assert int(text[-1]) == label
    assert (data.answers[~wrong] == data.label[:, None].expand_as(wrong)[~wrong]).all()
    spoiled = spoil_rationales(data.rationales, 15, 0.3, generator=torch.Generator().manual_seed(0))
    full = data.rationales != 0
    assert torch.equal(spoiled != 0, full) and abs((spoiled != data.rationales)[full].float().mean() - 0.3) < 0.01


def test_the_majority_of_five_is_right_as_often_as_the_binomial_says():
    data = arithmetic_rationales(4000, error=0.4, seed=2)
    right = data.answers == data.label[:, None]
    share = right.float().mean().item()
    voted = (majority_mask(data.answers) & right).any(1).float().mean().item()
    assert share < 0.75 and voted > share + 0.1
    p = 0.6
    assert sum(math.comb(5, k) * p**k * (1 - p) ** (5 - k) for k in (3, 4, 5)) < voted  # wrong answers scatter


def train(steps=60, data=None, **settings):
    made, generator = method(learning_rate=1e-2, **settings), torch.Generator().manual_seed(0)
    data, history = data or questions(400), []
    for _ in range(steps):
        rows = torch.randperm(400, generator=generator)[:64]
        history.append(made.step(Questions(*(x[rows] for x in data)), generator=generator))
    return made, torch.tensor([[float(x) for x in terms[:6]] for terms in history])


def test_training_lowers_the_parts_and_the_contrast_makes_the_hardest_negative_less_likely():
    _, contrast = train(margin=3.0, beta=2.0)
    _, plain = train(margin=3.0, beta=0.0)
    label, positive = (plain[-10:, i].mean() / plain[:10, i].mean() for i in (1, 2))
    assert label < 0.98 and positive < 0.7
    assert contrast[-10:, 2].mean() < 0.95 * contrast[:10, 2].mean()
    assert contrast[-10:, 3].mean() > plain[-10:, 3].mean() + 0.04  # nearer to the margin


def test_a_pretrained_judge_prefers_the_teacher_to_a_spoiled_copy():
    made, data = method(learning_rate=1e-2), questions(64)
    before = copy.deepcopy(made.student.state_dict())
    losses = [made.pretrain(data, generator=torch.Generator().manual_seed(i)).item() for i in range(40)]
    assert losses[-1] < losses[0] - 0.2
    assert all(torch.equal(x, before[name]) for name, x in made.student.state_dict().items())


def test_negatives_come_from_the_student_of_so_many_iterations_ago():
    made, seen, batch = method(dim=8, age=2, steps_per_iteration=2), [], questions(8)
    for _ in range(9):
        seen.append(made.student.label_head.weight.detach().clone())
        made.step(batch)
    assert made.steps == 9 and len(made.ring) == 3
    for snapshot, step in zip(made.ring, (4, 6, 8), strict=True):
        assert torch.equal(snapshot.label_head.weight, seen[step])
    assert not any(p.requires_grad for p in made.ring.parameters()) and not made.train().ring.training
    assert made.discriminator_weight == pytest.approx(0.5 * 0.9**4)


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped():
    made, batch = method(dim=8, age=3), questions(8)
    for _ in range(5):
        made.step(batch, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    fresh = method(seed=1, dim=8, age=3)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        one, other = (m.step(batch, generator=torch.Generator().manual_seed(7)) for m in (made, fresh))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(x, fresh.state_dict()[k]) for k, x in made.state_dict().items() if k != "_extra_state")
    assert made.steps == fresh.steps == 8


def test_a_loss_changes_nothing_and_two_of_them_add_up():
    made, batch = method(dim=8), questions(8)
    made.step(batch)
    for mode in (True, False):
        made.train(mode)
        before = copy.deepcopy(made.state_dict())
        first = made.loss(*batch, generator=torch.Generator().manual_seed(0)).loss
        (first + made.loss(*batch, generator=torch.Generator().manual_seed(1)).loss).backward()
        after = made.state_dict()
        assert all(torch.equal(x, after[k]) for k, x in before.items() if k != "_extra_state")
        assert before["_extra_state"]["steps"] == after["_extra_state"]["steps"]


def test_labels_and_tokens_of_any_width_and_autocast():
    made, batch = method(dim=8), questions(8)
    right = made.loss(*batch, generator=torch.Generator().manual_seed(0)).loss
    narrow = Questions(*(x.to(torch.uint8) for x in batch[:3]), batch.positive)
    assert torch.equal(made.loss(*narrow, generator=torch.Generator().manual_seed(0)).loss, right)
    assert made(batch.question).shape == (8, 10)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(made.loss(*batch).loss)


BATCH = questions(4)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: self_consistency_split([]), ValueError, "answers"),
        (lambda: rationale_loss(draw(4, 5), TOKENS[:2]), ValueError, "tokens"),
        (lambda: rationale_loss(draw(4, 5).long(), TOKENS), TypeError, "logits"),
        (lambda: rationale_loss(draw(4, 3), TOKENS), ValueError, "tokens"),
        (lambda: terms(POS[:, :1]), ValueError, "positive_logits"),
        (lambda: terms(neg=NEG[:, :1]), ValueError, "negative_logits"),
        (lambda: terms(bad=BAD * math.nan), ValueError, "negative_logits"),
        (lambda: terms(margin=-1.0), ValueError, "margin"),
        (lambda: terms(contrast_weight=-1.0), ValueError, "contrast_weight"),
        (lambda: terms(positive_mask=torch.zeros(2, 2).bool()), ValueError, "positive_mask"),
        (lambda: discriminator_loss(GOOD * math.inf, BAD), ValueError, "positive"),
        (lambda: method(age=0), ValueError, "age"),
        (lambda: method().step(BATCH[:2]), ValueError, "batch"),
        (lambda: method().step(BATCH._replace(label=BATCH.label + 10)), ValueError, "batch.label"),
        (lambda: method().step(BATCH._replace(question=BATCH.question + 40)), ValueError, "batch.question"),
        (lambda: method().loss(*BATCH._replace(positive=BATCH.positive & False)), ValueError, "positive"),
        (lambda: method().loss(*BATCH._replace(rationales=BATCH.rationales.flip(2))), ValueError, "rationales"),
        (lambda: student().write(BATCH.question[:, :1] * 0 + 1, 0), ValueError, "length"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
