"""Nie et al. (2024): all languages of an image in one batch."""

import copy
import math

import pytest
import torch
from torch import nn
from unit_helpers import draw

from cl_teach.core import clip_loss, normalize
from cl_teach.crossmodal.one_to_k import OneToK, mean_rank_variance, one_to_k, one_to_k_terms, ranks

V, T = draw(4, 5), draw(12, 5, seed=1)


def test_equals_the_loops():
    v, t, tau = normalize(V), normalize(T).view(4, 3, 5), 0.3
    i2t = t2i = 0.0
    for i in range(4):
        every = sum(math.exp(v[i] @ t[j, k] / tau) for j in range(4) for k in range(3))
        for k in range(3):
            score = float(v[i] @ t[i, k]) / tau
            i2t += (math.log(every) - score) / 12
            t2i += (math.log(sum(math.exp(v[j] @ t[i, k] / tau) for j in range(4))) - score) / 12
    terms = one_to_k_terms(V, T, tau)
    assert terms.image_to_text.item() == pytest.approx(i2t) and terms.text_to_image.item() == pytest.approx(t2i)
    assert one_to_k(V, T, tau, released=True).item() == pytest.approx((i2t + t2i / 3) / 2)


def test_one_language_is_the_clip_loss():
    for released in (False, True):
        assert torch.allclose(one_to_k(V, T[:4], 0.3, released=released), clip_loss(V, T[:4], -math.log(0.3)))


def test_identical_languages_add_log_k_in_one_direction_only():
    one, three = one_to_k_terms(V, T[:4], 0.3), one_to_k_terms(V, T[:4].repeat_interleave(3, 0), 0.3)
    assert torch.allclose(three.image_to_text, one.image_to_text + math.log(3))
    assert torch.allclose(three.text_to_image, one.text_to_image)
    assert one_to_k_terms(V, T, 0.3).image_to_text >= math.log(3)


def test_permuting_instances_or_languages_and_scaling_rows_change_nothing():
    base, t = one_to_k(V, T, 0.3), T.view(4, 3, 5)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(one_to_k(V[order], t[order].flatten(0, 1), 0.3), base)
    assert torch.allclose(one_to_k(V, t[:, [1, 2, 0]].flatten(0, 1), 0.3), base)
    assert torch.allclose(one_to_k(3 * V, 0.1 * T, 0.3), base)


def test_rank_variance_is_zero_for_equal_languages_and_ignores_a_shift():
    s = draw(6, 1, 6, seed=2)
    assert mean_rank_variance(s.repeat(1, 4, 1)) == 0
    different = draw(6, 4, 6, seed=3)
    shifted = different + draw(6, 4, 1, seed=4)
    assert mean_rank_variance(shifted) == mean_rank_variance(different) > 0
    assert mean_rank_variance(different) <= 25 / 4


def test_ranks_count_strictly_better_images():
    s = torch.tensor([[[0.5, 0.9, 0.5]], [[0.1, 0.8, 0.2]], [[0.3, 0.2, 0.1]]])
    assert ranks(s).flatten().tolist() == [1, 0, 2]


def test_the_other_direction_ranks_texts_within_a_language():
    s = draw(5, 3, 5, seed=6)
    found = ranks(s, "image_to_text")
    for n in range(5):
        for k in range(3):
            assert found[n, k] == sum(s[m, k, n] > s[n, k, n] for m in range(5))
    expected = found.double().var(dim=1, correction=0).mean()
    assert torch.allclose(mean_rank_variance(s, "image_to_text"), expected)


def towers(seed=0, **settings):
    torch.manual_seed(seed)
    return OneToK(nn.Linear(6, 5), nn.Linear(7, 5), **settings)


def test_the_module_compares_all_languages_and_keeps_its_temperature():
    model, images, texts = towers(released=True), draw(4, 6).float(), draw(4, 3, 7, seed=1).float()
    image, text = model.image_tower(images), model.text_tower(texts).flatten(0, 1)
    assert torch.allclose(model.loss(images, texts).loss, one_to_k(image, text, 0.07, released=True))
    table = model(images, texts)
    assert table.shape == (4, 3, 4)
    assert torch.allclose(table[1, 2], normalize(image) @ normalize(text.view(4, 3, 5)[1, 2]), atol=1e-6)
    for start, end in ((-1.0, 0.001), (3.0, 0.5)):
        model.temperature.data.fill_(start)
        model.after_step()
        assert model.temperature.item() == pytest.approx(end)


def test_saved_and_loaded_it_goes_on_as_if_it_had_never_stopped():
    images, texts = draw(4, 6).float(), draw(4, 3, 7, seed=1).float()

    def step(model, optimizer):
        loss = model.loss(images, texts).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        return loss.detach()

    models = [towers(seed, temperature=0.01) for seed in (0, 1)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    step(models[0], optimizers[0])
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    for _ in range(3):
        assert torch.equal(*(step(m, o) for m, o in zip(models, optimizers, strict=True)))
    before = copy.deepcopy(models[0].state_dict())
    models[0].eval().loss(images, texts)
    assert all(torch.equal(x, before[name]) for name, x in models[0].state_dict().items())


def test_half_precision_and_autocast():
    assert abs(one_to_k(V.bfloat16(), T.float(), 0.3) - one_to_k(V, T, 0.3)) < 0.02
    model, images, texts = towers(), draw(4, 6).float(), draw(4, 3, 7, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(images, texts).loss
    assert found.dtype == torch.float32 and abs(found - model.loss(images, texts).loss) < 0.2


def test_gradcheck():
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    inputs = (V.clone().requires_grad_(), T.clone().requires_grad_(), tau)
    assert torch.autograd.gradcheck(one_to_k, inputs)


def test_training_on_all_languages_lowers_loss_and_rank_variance():
    generator = torch.Generator().manual_seed(0)
    lifts = torch.randn(4, 12, 24, generator=generator)

    def sample(n):
        z = torch.randn(n, 12, generator=generator)
        image = torch.tanh(z @ lifts[0] / 3)
        noisy = [z + 0.3 * torch.randn(n, 12, generator=generator) for _ in range(3)]
        texts = torch.stack([torch.tanh(x @ lift / 3) for x, lift in zip(noisy, lifts[1:], strict=True)], 1)
        return image, torch.cat([texts, torch.eye(3).expand(n, 3, 3)], 2)

    torch.manual_seed(0)
    see, read = (nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 16)) for d in (24, 27))
    optimizer = torch.optim.Adam([*see.parameters(), *read.parameters()], lr=2e-3)
    test_image, test_text = sample(100)

    def variance():
        with torch.no_grad():
            return mean_rank_variance(normalize(read(test_text)) @ normalize(see(test_image)).T).item()

    before, losses = variance(), []
    for _ in range(200):
        image, text = sample(64)
        loss = one_to_k(see(image), read(text).flatten(0, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < sum(losses[:20]) and variance() < 0.3 * before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: one_to_k(V, T[:5]), "text.*4 images, got 5"),
        (lambda: one_to_k(V, T[:, :3]), "text"),
        (lambda: one_to_k(V, T, 0.0), "temperature"),
        (lambda: ranks(draw(3, 2, 4)), "similarity"),
        (lambda: ranks(draw(3, 2, 3), "both"), "direction"),
        (lambda: towers(temperature=-1.0), "temperature"),
        (lambda: towers().loss(draw(4, 6).float(), draw(3, 3, 7).float()), "texts"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
