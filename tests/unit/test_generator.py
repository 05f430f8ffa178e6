"""Two small generators: into a class, and around an image."""

from functools import partial

import pytest
import torch
import unit_helpers
from torch.nn import functional as F

from cl_teach.models import ClassCritic, ClassTranslator, VariationGenerator, noise_embeddings

draw = partial(unit_helpers.draw, dtype=torch.float32)  # as the networks
IMAGES = draw(4, 3, 6, 6).sigmoid()
TARGETS = torch.tensor([0, 1, 2, 1])


def test_kernel_of_one_maps_colors_and_keeps_places():
    torch.manual_seed(0)
    for size, moves_only in ((1, True), (3, False)):
        translator = ClassTranslator(3, 3, kernel_size=size)
        order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
        shuffled = IMAGES.flatten(2)[..., order].unflatten(2, (6, 6))
        expected = translator(IMAGES, TARGETS).flatten(2)[..., order].unflatten(2, (6, 6))
        assert torch.allclose(translator(shuffled, TARGETS), expected, atol=1e-6) == moves_only


def test_target_decides_about_the_translation():
    torch.manual_seed(0)
    translator = ClassTranslator(3, 3)
    same, other = translator(IMAGES[:1].repeat(3, 1, 1, 1), torch.tensor([0, 0, 1])).split([2, 1])
    assert torch.equal(same[0], same[1]) and (same[0] - other[0]).abs().max() > 1e-3
    assert same.min() >= 0 and same.max() <= 1


def test_translator_learns_to_paint_the_target():
    torch.manual_seed(0)
    translator = ClassTranslator(3, 3)
    optimizer = torch.optim.Adam(translator.parameters(), lr=0.02)
    wanted = torch.eye(3)[TARGETS][:, :, None, None].expand_as(IMAGES)
    for _ in range(60):
        loss = F.mse_loss(translator(IMAGES, TARGETS), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def test_critic_gives_a_score_and_classes_for_images_of_any_size():
    torch.manual_seed(0)
    critic = ClassCritic(3, 5, width=4)
    for side in (6, 11):
        score, classes = critic(draw(2, 3, side, side))
        assert score.shape == (2,) and classes.shape == (2, 5)


def test_noise_keeps_unit_variance_between_its_two_ends():
    e, noise = draw(4000, 2), draw(4000, 2, seed=1)
    at = {level: noise_embeddings(e, torch.full((4000,), level), noise) for level in (0, 300, 1000)}
    assert torch.allclose(at[0], e) and torch.allclose(at[1000], noise, atol=1e-6)
    assert at[300].var().item() == pytest.approx(1, abs=0.05)
    cosine = F.cosine_similarity(at[300].flatten(), e.flatten(), dim=0)
    assert cosine.item() == pytest.approx(0.891, abs=0.02)  # cos(0.3 * pi / 2)


def test_trained_variations_are_near_the_image_and_spread_with_the_level():
    torch.manual_seed(0)
    images = F.interpolate(draw(50, 1, 3, 3), (6, 6), mode="bilinear")
    model = VariationGenerator((1, 6, 6), dim=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses, generator = [], torch.Generator().manual_seed(0)
    for _ in range(200):
        loss = model.loss(images, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    with torch.no_grad():
        far = [(model(images, torch.full((50,), k), draw(50, 16)) - images).square().mean() for k in (0, 200, 400)]
    assert far[0] < far[1] < far[2] and far[0] < 0.1 * images.var()


@pytest.mark.parametrize(
    ("call", "says", "error"),
    [
        (lambda: ClassTranslator(3, 3, kernel_size=2), "kernel_size", ValueError),
        (lambda: ClassCritic(3, 0), "num_classes", ValueError),
        (lambda: ClassTranslator(0, 3), "channels", ValueError),
        (lambda: ClassTranslator(1, 3)(IMAGES, TARGETS), "images: expected shape .n, 1, h, w.", ValueError),
        (lambda: ClassTranslator(3, 2)(IMAGES, TARGETS), "targets.*below", ValueError),
        (lambda: ClassTranslator(3, 3)(IMAGES, TARGETS.float()), "targets", TypeError),
        (lambda: noise_embeddings(draw(4, 2), TARGETS, draw(4, 3)), "noise", ValueError),
        (lambda: noise_embeddings(draw(4, 2), TARGETS + 999, draw(4, 2)), "levels", ValueError),
        (lambda: VariationGenerator((1, 6, 6), dim=0), "dim", ValueError),
        (lambda: VariationGenerator((1, 6, 6))(IMAGES, TARGETS, draw(4, 32)), "images", ValueError),
    ],
)
def test_bad_input_is_named(call, says, error):
    with pytest.raises(error, match=says):
        call()
