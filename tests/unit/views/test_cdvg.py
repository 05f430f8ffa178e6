"""Jung et al. (2023): a biased translator makes the views that remove the bias."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.datasets import color_by_label
from cl_teach.models.class_translator import (
    ClassCritic,
    ClassTranslator,
    TranslatorTrainer,
    critic_loss,
    translator_loss,
)
from cl_teach.views.cdvg import (
    CDvG,
    bias_share,
    cdvg_loss,
    draw_targets,
    minimal_change,
    translated_views,
)

Z1, Z2, O1, O2 = draw(5, 6), draw(5, 6, seed=1), draw(5, 3, seed=2), draw(5, 3, seed=3)
LABELS = torch.tensor([0, 2, 1, 1, 0])


def test_loss_is_the_loop_over_views():
    z, o, y = F.normalize(torch.cat([Z1, Z2])), torch.cat([O1, O2]), LABELS.repeat(2)
    ce = sum(o[i].exp().sum().log() - o[i, y[i]] for i in range(10)).item() / 10
    contrast = 0.0
    for i in range(10):
        s = [(z[i] @ z[j] / 0.3).item() for j in range(10)]
        contrast += math.log(sum(math.exp(s[j]) for j in range(10) if j != i)) - s[(i + 5) % 10]
    terms = cdvg_loss(Z1, Z2, O1, O2, LABELS, 0.3, weight=0.7)
    assert terms.cross_entropy.item() == pytest.approx(ce) and terms.contrastive.item() == pytest.approx(contrast / 10)
    assert terms.loss.item() == pytest.approx(ce + 0.07 * contrast)


def test_order_of_views_and_of_samples_does_not_matter():
    expected, order = cdvg_loss(Z1, Z2, O1, O2, LABELS).loss, torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(cdvg_loss(Z2, Z1, O2, O1, LABELS).loss, expected)
    shuffled = (x[order] for x in (Z1, Z2, O1, O2, LABELS))
    assert torch.allclose(cdvg_loss(*shuffled).loss, expected)


def test_gradients_are_orthogonal_to_z_and_softmax_minus_label_on_logits():
    leaves = [x.clone().requires_grad_() for x in (Z1, Z2, O1, O2)]
    cdvg_loss(*leaves, LABELS).loss.backward()
    assert leaves[0].grad.abs().max() > 1e-3
    assert torch.allclose((leaves[0].grad * Z1).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(leaves[2].grad, (O1.softmax(1) - F.one_hot(LABELS)) / 10)
    assert torch.autograd.gradcheck(lambda *x: cdvg_loss(*x, LABELS).loss, leaves)


def test_single_sample_and_weight_zero_leave_cross_entropy():
    one = cdvg_loss(Z1[:1], Z2[:1], O1[:1], O2[:1], LABELS[:1])
    assert one.contrastive == 0 and torch.equal(one.loss, one.cross_entropy)
    zero = cdvg_loss(Z1, Z2, O1, O2, LABELS, weight=0.0)
    assert torch.equal(zero.loss, zero.cross_entropy) and zero.contrastive > 0


def test_low_temperature_zeros_and_duplicates_stay_finite():
    z = Z1.float()
    z[0], z[3] = 0, z[2]
    z.requires_grad_()
    loss = cdvg_loss(z, Z2.float(), O1.float(), O2.float(), LABELS, 0.005).loss
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_linear_translator_hits_its_score_by_the_shortest_way():
    x, w, m = draw(4, 5), draw(5, seed=1), draw(4, seed=2)
    moved = minimal_change(x, w, 0.1, m)
    assert torch.allclose(moved @ w + 0.1, m)
    assert torch.allclose(minimal_change(moved, w, 0.1, m), moved)
    sideways = draw(4, 5, seed=3)
    sideways -= (sideways @ w)[:, None] * w / w.square().sum()  # keeps the score
    assert ((moved + 0.1 * sideways - x).norm(dim=1) > (moved - x).norm(dim=1)).all()
    change = (moved - x).square()
    assert torch.allclose(change[:, 3:].sum(1) / change.sum(1), bias_share(w, 3))


def test_stronger_bias_takes_the_whole_change():
    w = draw(5)
    shares = [bias_share(torch.cat([w[:3], k * w[3:]]), 3).item() for k in (0.1, 1, 10, 1000)]
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.9999


def test_targets_cover_all_classes_or_are_common():
    generator = torch.Generator().manual_seed(0)
    a, b = draw_targets(2000, 4, generator=generator)
    assert ((a.bincount(minlength=4) / 2000 - 0.25).abs() < 0.05).all()
    assert (a == b).float().mean().item() == pytest.approx(0.25, abs=0.05)
    a, b = draw_targets(7, 1000, common=True, generator=generator)
    assert len(a.unique()) == len(b.unique()) == 1 and a[0] != b[0] and a.shape == (7,)


def test_losses_of_translator_and_critic_are_their_sums():
    real, fake, logits = draw(5), draw(5, seed=1), O1
    expected = (1 + (-real).exp()).log().mean() + (1 + fake.exp()).log().mean() + 2 * F.cross_entropy(logits, LABELS)
    assert torch.allclose(critic_loss(real, fake, logits, LABELS, class_weight=2.0), expected)
    images, back = draw(5, 3, 2, 2), draw(5, 3, 2, 2, seed=1)
    expected = (1 + (-fake).exp()).log().mean() + 2 * F.cross_entropy(logits, LABELS) + 3 * (images - back).abs().mean()
    weights = {"class_weight": 2.0, "reconstruction_weight": 3.0}
    assert torch.allclose(translator_loss(fake, logits, LABELS, back, images, **weights), expected)


def make(weight=1.0, translator=None):
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    return CDvG(encoder, 32, 4, ClassTranslator(3, 4) if translator is None else translator, weight=weight)


def test_translator_is_frozen_and_both_views_are_translated():
    translator = nn.Sequential(nn.BatchNorm2d(3))
    method = make(translator=translator).train()
    assert method.encoder.training and not translator.training
    method = make()
    images, targets = draw(6, 3, 8, 8).float().sigmoid(), draw_targets(6, 4, generator=torch.Generator().manual_seed(0))
    method.compare(images, LABELS.repeat(2)[:6], targets).loss.backward()
    assert all(p.grad is None for p in method.translator.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())
    views = translated_views(images, targets, method.translator)
    for view, target in zip(views, targets, strict=True):
        assert torch.equal(view, method.translator(images, target)) and not torch.allclose(view, images, atol=1e-2)


def test_perfect_translator_and_encoder_of_content_make_equal_views():
    """Colors by target; an encoder that reads the shape alone sees two equal views."""
    gray, palette = draw(6, 1, 8, 8).float().sigmoid(), torch.eye(4)[:, :3] + 0.1

    def translator(images, targets):
        return color_by_label(images.amax(1, keepdim=True), palette.clamp(max=1)[targets], torch.zeros(len(images), 3))

    targets = draw_targets(6, 4, generator=torch.Generator().manual_seed(0))
    a, b = translated_views(gray, targets, translator)
    shape = [(x / x.amax((1, 2, 3), keepdim=True)).amax(1).flatten(1) for x in (a, b)]
    assert not torch.allclose(a, b) and torch.allclose(*shape, atol=1e-6)


def biased_data(n, generator, *, aligned):
    """Four shapes (noisy templates) in four colors; aligned: color i goes with shape i."""
    shapes = F.interpolate(torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1)), (8, 8))
    labels = torch.randint(4, (n,), generator=generator)
    gray = (0.3 + 0.6 * shapes[labels] + 0.25 * torch.randn(n, 1, 8, 8, generator=generator)).clamp(0, 1)
    palette = torch.tensor([[1, 0.1, 0.1], [0.1, 1, 0.1], [0.1, 0.1, 1], [0.8, 0.8, 0.1]])
    colors = palette[labels if aligned else torch.randint(4, (n,), generator=generator)]
    return color_by_label(gray, colors, 0.05 * torch.randn(n, 3, generator=generator)), labels


class Identity(nn.Module):
    def forward(self, images, targets):
        return images


def fit(method, images, labels, generator, steps=120):
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        i = torch.randint(len(images), (64,), generator=generator)
        terms = method.loss(images[i], labels[i], generator=generator)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(terms.loss.item())
    return losses


def test_views_of_the_translator_remove_the_bias():
    """Color and shape go together in training only; a translator of colors is trained on the spot."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    images, labels = biased_data(600, generator, aligned=True)
    test_images, test_labels = biased_data(400, generator, aligned=False)
    translator = ClassTranslator(3, 4, width=24)
    trainer = TranslatorTrainer(translator, ClassCritic(3, 4, width=12), 4, learning_rate=5e-3)
    for _ in range(250):
        i = torch.randint(600, (64,), generator=generator)
        trainer.step((images[i], labels[i]), generator=generator)

    def accuracy(method, images, labels):
        with torch.no_grad():
            return (method(images).argmax(1) == labels).float().mean().item()

    plain = make(weight=0.0, translator=Identity())
    fit(plain, images, labels, generator)
    targets = draw_targets(400, 4, generator=generator)[0]
    with torch.no_grad():
        moved = translator(test_images, targets)
    method = make(translator=translator)
    losses = fit(method, images, labels, generator)
    before, after = accuracy(plain, test_images, test_labels), accuracy(method, test_images, test_labels)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert accuracy(plain, moved, targets) > 0.7  # the translator moved what the biased classifier reads
    assert before < 0.5 and after > 0.8


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda: cdvg_loss(Z1, Z2[:3], O1, O2, LABELS), "z2", ValueError),
        (lambda: cdvg_loss(Z1[:3], Z2[:3], O1, O2, LABELS), "logits1", ValueError),
        (lambda: cdvg_loss(Z1, Z2, O1, O2, LABELS + 1), "labels.*below", ValueError),
        (lambda: cdvg_loss(Z1, Z2, O1, O2, LABELS.double()), "labels", TypeError),
        (lambda: cdvg_loss(Z1, Z2, O1, O2, LABELS, 0.0), "temperature", ValueError),
        (lambda: cdvg_loss(Z1, Z2, O1, O2, LABELS, weight=-1.0), "weight", ValueError),
        (lambda: minimal_change(Z1, torch.zeros(6).double(), 0.0, Z1[:, 0]), "weights", ValueError),
        (lambda: bias_share(Z1[0], 7), "signal", ValueError),
        (lambda: draw_targets(3, 1), "num_classes", ValueError),
        (lambda: color_by_label(draw(2, 1, 4, 4), draw(3, 3), draw(3, 3)), "colors", ValueError),
        (lambda: translated_views(draw(5, 3, 4, 4), (LABELS, LABELS[:2]), Identity()), r"targets\[1\]", ValueError),
        (lambda: make(weight=-1.0), "weight", ValueError),
        (lambda: make().loss(draw(1, 3, 8, 8), LABELS[:1]), "at least 2 rows", ValueError),
    ],
)
def test_bad_input_is_named(call, says, error):
    with pytest.raises(error, match=says):
        call()
