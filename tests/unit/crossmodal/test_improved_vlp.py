"""Fini et al. (2023): recipe and extra losses of image-text training, apart."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.augment import gaussian_noise, random_resized_crop
from cl_teach.core import clip_loss, sinkhorn
from cl_teach.crossmodal.improved_vlp import (
    EXTRAS,
    CLIPRocket,
    Views,
    barlip,
    clip_rocket,
    directed_contrast,
    siamlip,
    swalip,
)
from cl_teach.datasets import digits
from cl_teach.datasets.captions import class_captions, class_synonyms
from cl_teach.datasets.text_changes import change_texts, draw_text_changes, remove_words

N, D = 6, 4
X, Y = draw(N, D), draw(N, D, seed=1)
IMAGE = Views(X, [draw(N, D, seed=2), draw(N, D, seed=3)])
TEXT = Views(Y, [draw(N, D, seed=4), draw(N, D, seed=5)])


def test_directed_contrast_equals_the_loops():
    s, eps, total = math.exp(1.3), 0.2, 0.0
    a, b = F.normalize(X, dim=1), F.normalize(Y, dim=1)
    for i in range(N):
        bottom = math.log(sum(math.exp(s * a[i] @ b[j]) for j in range(N)))
        total += (1 - eps) * (bottom - s * float(a[i] @ b[i]))
        total += eps / N * sum(bottom - s * float(a[i] @ b[k]) for k in range(N))
    assert directed_contrast(X, Y, 1.3, eps).item() == pytest.approx(total / N, rel=1e-12)


def test_full_smoothing_forgets_who_belongs_to_whom():
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    assert torch.allclose(directed_contrast(X, Y, 1.0, 1.0), directed_contrast(X, Y[order], 1.0, 1.0))
    assert not torch.allclose(directed_contrast(X, Y, 1.0, 0.5), directed_contrast(X, Y[order], 1.0, 0.5))


def test_rocket_equals_the_loops_and_its_special_cases_are_clip():
    got = clip_rocket(IMAGE, TEXT, 2.0, 1.0, 0.1)
    sides = []
    for one, other in ((IMAGE, TEXT), (TEXT, IMAGE)):
        local = sum(directed_contrast(a, b, 1.0, 0.1) for a in one.local for b in other.local) / 4
        sides.append((directed_contrast(one.whole, other.whole, 2.0) + 2 * local) / 3)
    assert torch.allclose(got.loss, sum(sides) / 2)
    assert torch.allclose(clip_rocket(IMAGE, TEXT, 2.0, 1.0, 0.1, doubled=True).loss, sum(sides))
    plain = clip_loss(X, Y, 2.0)
    assert torch.allclose(clip_rocket(Views(X, []), Views(Y, []), 2.0, 1.0).loss, plain)
    assert torch.allclose(clip_rocket(Views(X, [X, X]), Views(Y, [Y, Y]), 2.0, 2.0, 0.0).loss, plain)


def test_siamlip_sends_no_gradient_to_projections_and_vanishes_for_perfect_predictions():
    views = [Views(draw(N, D, seed=k).requires_grad_(), [draw(N, D, seed=10 + k).requires_grad_()]) for k in range(4)]
    loss = siamlip(*views)
    loss.backward()
    assert 0 < loss < 4
    for k, view in enumerate(views):
        for z in (view.whole, *view.local):
            assert (z.grad is not None and z.grad.abs().max() > 0.01) if k < 2 else z.grad is None
    same = Views(X, [X, X])
    assert siamlip(same, same, same, same).item() == pytest.approx(0, abs=1e-12)


def test_barlip_equals_the_loops_vanishes_at_its_aim_and_punishes_a_flipped_channel():
    c = torch.stack([torch.stack([(X[:, i] * Y[:, j]).mean() for j in range(D)]) for i in range(D)])
    total = sum((c[i, i] - 1) ** 2 for i in range(D))
    total += 5e-3 * sum(c[i, j] ** 2 for i in range(D) for j in range(D) if i != j)
    assert torch.allclose(barlip(X, Y), 0.025 * total)
    white = torch.linalg.qr(X).Q * N**0.5
    assert barlip(white, white).item() == pytest.approx(0, abs=1e-12)
    flipped = white * torch.tensor([-1.0, 1, 1, 1])
    assert barlip(white, flipped).item() == pytest.approx(4 * 0.025)


def test_swalip_equals_the_loops_and_is_log_n_without_differences():
    total = 0.0
    for one, other in ((IMAGE.local, TEXT.local), (TEXT.local, IMAGE.local)):
        x, y = ([F.normalize(v, dim=1) for v in views] for views in (one, other))
        for a in (0, 1):
            for b in (0, 1):
                code = sinkhorn(x[1 - a] @ y[1 - b].T)
                total -= (code * (math.e * x[a] @ y[b].T).log_softmax(1)).sum() / N / 8
    assert torch.allclose(swalip(IMAGE.local, TEXT.local, 1.0), total)
    same = [torch.ones(N, D, dtype=torch.float64)] * 2
    assert swalip(same, same, 1.0).item() == pytest.approx(math.log(N))


def test_gradchecks():
    inputs = (
        X[:3].clone().requires_grad_(),
        Y[:3].clone().requires_grad_(),
        torch.tensor(0.5).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda a, b, t: directed_contrast(a, b, t, 0.1), inputs)
    assert torch.autograd.gradcheck(barlip, inputs[:2])


def test_large_scales_and_zero_rows_stay_finite():
    image = torch.cat([X[:5], torch.zeros(1, D)]).float().requires_grad_()
    loss = directed_contrast(image, Y.float(), math.log(200), 0.1) + swalip([image] * 2, [Y.float()] * 2, math.log(200))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(image.grad).all()


def test_captions_keep_their_class_and_only_removable_words_go():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(30)
    texts = class_captions(labels, generator=generator)
    assert torch.equal(texts[:, 0], labels + 1) and texts[:, 1:].min() > 10 and texts.max() == 60
    stop = torch.arange(61) > 10
    fewer = remove_words(texts, stop, 0.8, generator=generator)
    assert torch.equal(fewer[:, 0], texts[:, 0])
    assert abs((fewer[:, 1:] == 0).float().mean() - 0.8) < 0.05


def test_strong_changes_keep_the_class_have_their_shares_and_do_what_they_say():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(300)
    texts, table = class_captions(labels, synonyms=2, generator=generator), class_synonyms(10, 2)
    assert sorted(table[3].tolist()) == sorted(table[13].tolist()) == [3, 13] and table[0].tolist() == [0, 0]
    draws = draw_text_changes(len(texts), texts.shape[1], generator=generator)
    assert torch.allclose(torch.bincount(draws.kind) / len(texts), torch.tensor([0.4, 0.4, 0.2]), atol=0.04)
    changed = change_texts(texts, table, draws, share=1.0)
    renamed, swapped, deleted = (draws.kind == kind for kind in range(3))
    meaning = (changed[renamed, 0] - 1) % 10
    assert torch.equal(meaning, labels[renamed]) and (changed[renamed, 0] != texts[renamed, 0]).float().mean() > 0.4
    assert torch.equal(changed[swapped].sort(1).values, texts[swapped].sort(1).values)
    assert (changed[swapped] != texts[swapped]).any() and not changed[deleted].any()
    assert torch.equal(change_texts(texts, table, draws, share=0.0)[~swapped], texts[~swapped])


def zero_shot_accuracy(extra, strong, seed=0, steps=150):
    """Train on 300 captioned digits; loss of the first and last steps, accuracy on the test digits."""
    train, test = digits("train"), digits("test")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train.images), generator=generator)[:300]
    images, texts = train.images[rows], class_captions(train.labels[rows], generator=generator)
    stop = torch.arange(61) > 10
    torch.manual_seed(seed)
    model = CLIPRocket(extra=extra, label_smoothing=0.0 if extra == "swalip" else 0.1)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []

    def change(x):
        return gaussian_noise(
            random_resized_crop(x, (0.5, 1.0), flip=0.0, generator=generator), 0.2, generator=generator
        )

    for _ in range(steps):
        batch = torch.randint(300, (64,), generator=generator)
        x, t = images[batch], texts[batch]
        image_local = [change(x) if strong else x for _ in range(2)]
        text_local = [remove_words(t, stop, 0.8, generator=generator) if strong else t for _ in range(2)]
        text = remove_words(t, stop, 0.8, generator=generator) if strong else t
        loss = model.loss(Views(x, image_local), Views(text, text_local)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        losses.append(loss.item())
    prompts = F.pad(torch.arange(1, 11)[:, None], (0, 5))
    model.eval()
    return losses, (model.zero_shot(test.images, prompts) == test.labels).float().mean().item()


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_variant_learns(extra):
    losses, accuracy = zero_shot_accuracy(extra, strong=True, steps=60)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert accuracy > 0.3


def test_the_recipe_is_worth_more_than_an_extra_loss():
    basic, strong, extra = (
        sum(zero_shot_accuracy(name, recipe, seed)[1] for seed in range(2)) / 2
        for name, recipe in (("none", False), ("none", True), ("barlip", False))
    )
    assert strong > basic + 0.05 and strong > extra + 0.05


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(8, 1, 8, 8, generator=generator) for _ in range(3)]
    texts = [torch.randint(61, (8, 5), generator=generator) for _ in range(3)]
    return Views(images[0], images[1:]), Views(texts[0], texts[1:])


def make(extra="byolip", seed=0, **settings):
    torch.manual_seed(seed)
    return CLIPRocket(extra=extra, label_smoothing=0.0 if extra == "swalip" else 0.1, **settings)


def test_doubling_touches_the_recipe_and_not_the_extra_loss():
    once, twice = (make("barlip", doubled=doubled).loss(*batch()) for doubled in (False, True))
    assert torch.allclose(twice.recipe, 2 * once.recipe) and torch.allclose(twice.extra, once.extra)
    assert torch.allclose(twice.loss, twice.recipe + twice.extra)
    swalip_loss = make("swalip").loss(*batch())
    assert torch.allclose(swalip_loss.loss, swalip_loss.recipe + 0.2 * swalip_loss.extra)


def test_text_dropout_reaches_local_texts_only():
    images, texts = batch()
    model = make("none", text_dropout=0.5)
    image, _, text, _ = model.towers(images, texts)
    again, _, other, _ = model.towers(images, texts)
    assert torch.equal(text.whole, other.whole) and not torch.equal(text.local[0], other.local[0])
    assert torch.equal(image.local[0], again.local[0])


@pytest.mark.parametrize("extra", EXTRAS)
def test_half_precision_autocast_and_two_losses_before_one_step(extra):
    model = make(extra)
    right = model.loss(*batch()).loss
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(*batch()).loss
    assert abs(found - right) < 0.1 * right
    (model.loss(*batch()).loss + model.loss(*batch(1)).loss).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    pair = directed_contrast(X.bfloat16(), Y.float(), 1.0)
    assert pair.dtype == torch.float32 and abs(pair - directed_contrast(X, Y, 1.0)) < 0.02


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped_and_evaluation_changes_nothing():
    def step(model, optimizer, seed):
        loss = model.loss(*batch(seed)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        return loss.detach()

    models = [make(seed=seed) for seed in (0, 1)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in models]
    step(models[0], optimizers[0], 0)
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    for seed in (1, 2):
        assert torch.equal(*(step(m, o, seed) for m, o in zip(models, optimizers, strict=True)))
    before = copy.deepcopy(models[0].state_dict())
    with torch.no_grad():
        models[0].eval().loss(*batch())
    assert all(torch.equal(x, before[name]) for name, x in models[0].state_dict().items())


def test_the_scales_stay_within_bounds_and_the_slow_copy_follows():
    model = CLIPRocket(extra="byolip")
    with torch.no_grad():
        model.log_scale.fill_(9.0)
        model.local_log_scale.fill_(-1.0)
        model.towers.image.z.weight.add_(1.0)
    before = model.slow.network.image.z.weight.clone()
    model.after_step()
    assert model.log_scale.item() == pytest.approx(math.log(100)) and model.local_log_scale == 0
    assert torch.allclose(model.slow.network.image.z.weight, before + 0.01, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: directed_contrast(X, Y[:3], 1.0), "candidates"),
        (lambda: directed_contrast(X, Y, math.nan), "log_scale"),
        (lambda: directed_contrast(X, Y, 100.0), "log_scale"),
        (lambda: swalip([X, X], [Y, Y], torch.tensor(100.0)), "local_log_scale"),
        (lambda: directed_contrast(X, Y, 1.0, 1.5), "label_smoothing"),
        (lambda: clip_rocket(IMAGE, Views(Y, []), 1.0, 1.0), "local views"),
        (lambda: siamlip(IMAGE, TEXT, IMAGE, Views(Y, [])), "local views"),
        (lambda: barlip(X, Y, -1.0), "off_diagonal"),
        (lambda: swalip([X], [Y], 1.0), "image_h: expected two views"),
        (lambda: swalip([X, X], [Y, Y], 1.0, epsilon=0.0), "epsilon"),
        (lambda: class_captions(torch.arange(10), words=5, generator=torch.Generator()), "words"),
        (lambda: remove_words(torch.tensor([[70]]), torch.ones(61).bool(), 0.5), "texts"),
        (lambda: change_texts(torch.tensor([[70]]), class_synonyms(), draw_text_changes(1, 1)), "texts"),
        (lambda: CLIPRocket(extra="slip"), "extra"),
        (lambda: CLIPRocket(extra="swalip"), "label_smoothing"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
