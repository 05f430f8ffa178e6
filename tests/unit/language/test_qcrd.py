"""Wang et al. (2025), reconstructed: good rationales from a teacher, bad ones from the student's own past."""

import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.language.qcrd import (
    QCRD,
    Discriminator,
    Student,
    discriminator_loss,
    quality_weights,
    rationale_loss,
    self_consistency_split,
    student_loss,
)

ANSWER, LABEL = draw(3), torch.tensor(1)
GOOD, BAD = draw(2, seed=1), draw(3, seed=2)
POS, NEG = draw(2, seed=3).abs() + 1, draw(3, seed=4).abs() + 1
TOKENS = torch.tensor([3, 0, 2, 3])


def loss(pos=POS, neg=NEG, good=GOOD, bad=BAD, **numbers):
    return student_loss(ANSWER, LABEL, pos, neg, *quality_weights(good, bad), **numbers)


def test_losses_equal_the_loops():
    quality = [1 / (1 + math.exp(-d)) for d in GOOD.tolist()]
    positive = sum(q / sum(quality) * p for q, p in zip(quality, POS.tolist(), strict=True))
    contrast = 0.0
    for d, n in zip(BAD.tolist(), NEG.tolist(), strict=True):
        contrast += (1 - 1 / (1 + math.exp(-d))) * max(0.0, 0.8 + positive - n) / 3
    label = -math.log(math.exp(ANSWER[1]) / sum(math.exp(a) for a in ANSWER))
    terms = loss(margin=0.8, rationale_weight=0.7, contrast_weight=0.3)
    assert [t.item() for t in terms[1:]] == pytest.approx([label, positive, contrast], rel=1e-10)
    assert terms.total.item() == pytest.approx(label + 0.7 * positive + 0.3 * contrast, rel=1e-10)
    judge = sum(math.log1p(math.exp(-d)) for d in GOOD.tolist()) + sum(math.log1p(math.exp(d)) for d in BAD.tolist())
    assert discriminator_loss(GOOD, BAD).item() == pytest.approx(judge / 5, rel=1e-10)


def test_rationale_loss_is_a_mean_over_tokens():
    logits = draw(4, 5)
    expected = -sum(logits[t].log_softmax(0)[TOKENS[t]].item() for t in range(4)) / 4
    assert rationale_loss(logits, TOKENS).item() == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(rationale_loss(logits.repeat(3, 1), TOKENS.repeat(3)), rationale_loss(logits, TOKENS))


def test_one_positive_and_no_negative_is_plain_distillation():
    terms = loss(POS[:1], NEG[:0], GOOD[:1], BAD[:0], rationale_weight=0.7)
    assert torch.allclose(terms.total, F.cross_entropy(ANSWER, LABEL) + 0.7 * POS[0])
    assert terms.contrast.item() == 0


def test_weights_are_shares_of_probability_not_a_softmax():
    same = torch.full((4,), 0.7, dtype=torch.float64)
    assert torch.allclose(quality_weights(same, BAD)[0], torch.full_like(same, 0.25))
    assert torch.allclose(quality_weights(same + 3, BAD)[0], torch.full_like(same, 0.25))
    assert (quality_weights(GOOD + 3, BAD)[0] - quality_weights(GOOD, BAD)[0]).abs().max() > 0.01


def test_negatives_beyond_the_margin_get_exactly_no_gradient():
    neg = (POS.max() + 0.5 + torch.arange(1.0, 4.0)).double().requires_grad_()
    terms = loss(neg=neg)
    assert terms.contrast.item() == 0
    (grad,) = torch.autograd.grad(terms.total, neg)
    assert not grad.any()


def test_a_negative_that_looks_good_is_ignored():
    neg = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(loss(neg=neg, bad=torch.tensor([800.0, 0.0, 0.0]).double()).total, neg)
    assert grad[0] == 0 and (grad[1:] < 0).all()


def test_descent_pushes_the_tokens_of_a_negative_down():
    logits = draw(4, 5).requires_grad_()
    nll = rationale_loss(logits, TOKENS)
    (plain,) = torch.autograd.grad(nll, logits, retain_graph=True)
    (grad,) = torch.autograd.grad(loss(POS + 9, nll[None], GOOD, BAD[:1]).total, logits)
    assert (grad.gather(1, TOKENS[:, None]) > 0).all()
    assert torch.allclose(grad, -0.5 * torch.sigmoid(-BAD[0]) * plain)


def test_contrast_is_bounded_and_order_does_not_matter():
    terms = loss(neg=torch.zeros(3).double())
    assert terms.contrast <= 0.5 + terms.positive
    flipped = loss(POS.flip(0), NEG.flip(0), GOOD.flip(0), BAD.flip(0), margin=2.0)
    assert torch.allclose(torch.stack(flipped), torch.stack(loss(margin=2.0)))


def test_undecided_discriminator_costs_log_two_and_weights_are_constants():
    assert discriminator_loss(torch.zeros(2), torch.zeros(3)).item() == pytest.approx(math.log(2))
    weights = quality_weights(GOOD.clone().requires_grad_(), BAD.clone().requires_grad_())
    assert not weights[0].requires_grad and not weights[1].requires_grad
    extreme = quality_weights(torch.tensor([-800.0, -801.0]), torch.tensor([900.0]))
    assert all(torch.isfinite(w).all() for w in extreme)


def test_gradcheck():
    leaves = [t.clone().requires_grad_() for t in (POS, NEG)]
    assert torch.autograd.gradcheck(lambda p, n: loss(p, n, margin=2.0).total, leaves)
    assert torch.autograd.gradcheck(discriminator_loss, [t.clone().requires_grad_() for t in (GOOD, BAD)])


def test_majority_keeps_its_samples_and_a_tie_goes_to_the_first():
    assert self_consistency_split("ABAAC") == ("A", [0, 2, 3], [1, 4])
    assert self_consistency_split("BBAAC") == ("B", [0, 1], [2, 3, 4])


def test_student_sees_only_earlier_tokens():
    torch.manual_seed(0)
    student, question = Student(6, 3, 8), torch.tensor([1, 2])
    a, b = student(question, torch.tensor([1, 2, 3])), student(question, torch.tensor([1, 5, 3]))
    assert torch.equal(a[:2], b[:2]) and not torch.equal(a[2], b[2])


def test_copies_of_a_positive_are_no_negatives():
    torch.manual_seed(0)
    student = Student(4, 2, 8)
    method = QCRD(student, Discriminator(4, 8))
    method.ring.append(student)
    good = [torch.tensor([t]) for t in range(3)]
    bad = method.negatives(torch.tensor([1]), good, 50, torch.Generator().manual_seed(0))
    assert 0 < len(bad) < 50 and all(r.item() == 3 for r in bad)


def questions():
    """(a + b) mod 5 with the rationale a, b, sum; tokens 1 to 5 are the digits."""
    for a in range(5):
        for b in range(5):
            total = (a + b) % 5
            yield torch.tensor([a + 1, b + 1]), torch.tensor(total), [torch.tensor([a + 1, b + 1, total + 1])]


def train(contrast_weight):
    """The only snapshot is the untrained student, so both runs see the same negatives."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    data, numbers = list(questions()), {"contrast_weight": contrast_weight, "margin": 3.0}
    method = QCRD(Student(6, 5), Discriminator(6), every=1000)
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (method.student, method.discriminator)]
    history = []
    for _ in range(40):
        batch = [data[i] for i in torch.randperm(25, generator=generator)[:8]]
        history.append(torch.stack(method.step(batch, optimizers, generator, **numbers)))
    return torch.stack(history)


def test_training_lowers_both_losses_and_the_contrast_widens_the_gap_inside_the_margin():
    plain, contrast = train(0.0), train(2.0)
    assert contrast[-10:, 0].mean() < 0.7 * contrast[:10, 0].mean()
    assert contrast[-10:, 1].mean() < 0.9 * contrast[:10, 1].mean()
    assert torch.allclose(contrast[:, 1], plain[:, 1])  # the student does not reach the discriminator
    assert contrast[-10:, 2].mean() > plain[-10:, 2].mean() + 0.3


def test_negatives_come_from_an_earlier_student():
    torch.manual_seed(0)
    method, seen = QCRD(Student(6, 5, 8), Discriminator(6, 8), every=2), []
    optimizers = [torch.optim.Adam(m.parameters()) for m in (method.student, method.discriminator)]
    for _ in range(5):
        seen.append(method.student.label_head.weight.detach().clone())
        method.step(list(questions())[:2], optimizers, torch.Generator().manual_seed(0))
    assert torch.equal(method.ring[0].label_head.weight, seen[2])
    assert not torch.equal(seen[2], seen[4])
    assert len(list(method.parameters())) == len([p for o in optimizers for g in o.param_groups for p in g["params"]])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: self_consistency_split([]), ValueError, "answers"),
        (lambda: rationale_loss(draw(4, 5), TOKENS[:2]), ValueError, "tokens"),
        (lambda: rationale_loss(draw(4, 5).long(), TOKENS), TypeError, "logits"),
        (lambda: rationale_loss(draw(4, 3), TOKENS), ValueError, "tokens"),
        (lambda: quality_weights(GOOD[:0], BAD), ValueError, "good"),
        (lambda: quality_weights(GOOD, BAD * math.nan), ValueError, "bad"),
        (lambda: loss(POS[:1]), ValueError, "positive"),
        (lambda: loss(neg=NEG[:1]), ValueError, "negative"),
        (lambda: loss(margin=0.0), ValueError, "margin"),
        (lambda: loss(contrast_weight=-1.0), ValueError, "contrast_weight"),
        (lambda: discriminator_loss(GOOD * math.inf, BAD), ValueError, "logits"),
        (lambda: QCRD(Student(4, 2), Discriminator(4), every=0), ValueError, "every"),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
