"""The random views: drawn per image, reproducible, and harmless at zero strength."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from unit_helpers import rounding

from cl_teach.augment import (
    Compose,
    color_jitter,
    cutout,
    gaussian_blur,
    gaussian_noise,
    horizontal_flip,
    random_grayscale,
    random_resized_crop,
    simclr_augment,
)

ON_COLOR: dict[str, Callable[..., Tensor]] = {
    "crop": random_resized_crop,
    "crop and flip": partial(random_resized_crop, flip=0.5),
    "flip": horizontal_flip,
    "jitter": partial(color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "gray": partial(random_grayscale, probability=0.5),
    "blur": gaussian_blur,
    "noise": gaussian_noise,
    "cutout": cutout,
    "simclr": simclr_augment(channels=3, blur=0.5, noise=0.05),
}
ON_GRAY: dict[str, Callable[..., Tensor]] = {
    name: transform for name, transform in ON_COLOR.items() if name not in ("jitter", "gray", "simclr")
} | {
    "jitter": partial(color_jitter, brightness=0.4, contrast=0.4),
    "simclr": simclr_augment(channels=1, blur=0.5, noise=0.05),
}
EVERYTHING = [pytest.param(f, 3, id=f"{name}, color") for name, f in ON_COLOR.items()] + [
    pytest.param(f, 1, id=f"{name}, gray") for name, f in ON_GRAY.items()
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(n: int = 16, channels: int = 3, height: int = 20, width: int = 20, seed: int = 7) -> Tensor:
    return torch.rand(n, channels, height, width, generator=seeded(seed))


@pytest.mark.parametrize(("transform", "channels"), EVERYTHING)
class TestEveryTransform:
    def test_same_generator_state_gives_the_same_views(self, transform, channels):
        images = some_images(channels=channels)
        assert torch.equal(transform(images, generator=seeded(1)), transform(images, generator=seeded(1)))
        assert not torch.equal(transform(images, generator=seeded(1)), transform(images, generator=seeded(2)))

    def test_does_not_touch_the_global_random_state_when_given_a_generator(self, transform, channels):
        before = torch.get_rng_state()
        transform(some_images(channels=channels), generator=seeded())
        assert torch.equal(before, torch.get_rng_state())

    def test_without_generator_follows_the_global_random_state(self, transform, channels):
        images = some_images(channels=channels)
        torch.manual_seed(3)
        first = transform(images)
        torch.manual_seed(3)
        assert torch.equal(first, transform(images))

    def test_each_image_has_its_own_draw(self, transform, channels):
        copies = some_images(1, channels).expand(32, -1, -1, -1)
        views = transform(copies, generator=seeded())
        distinct = torch.unique(views.flatten(1), dim=0)
        coins = transform is horizontal_flip or getattr(transform, "func", None) is random_grayscale
        assert len(distinct) == 2 if coins else len(distinct) > 16

    def test_keeps_the_input_shape_and_range_and_tracks_no_gradient(self, transform, channels):
        images = some_images(channels=channels, height=18, width=24).requires_grad_()
        before = images.detach().clone()
        views = transform(images, generator=seeded())
        assert torch.equal(images, before)
        assert views.shape == images.shape
        assert not views.requires_grad
        assert views.min() >= 0 and views.max() <= 1 + 1e-6
        assert views.data_ptr() != images.data_ptr()

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_keeps_the_dtype_and_draws_the_same(self, transform, channels, dtype):
        images = some_images(channels=channels)
        views = transform(images.to(dtype), generator=seeded())
        assert views.dtype == dtype
        difference = (views.double() - transform(images, generator=seeded()).double()).abs()
        assert difference.mean() < (1e-5 if dtype == torch.float64 else 3e-2)

    def test_works_on_a_batch_of_one(self, transform, channels):
        assert torch.isfinite(transform(some_images(1, channels), generator=seeded())).all()

    def test_refuses_bytes_and_single_images(self, transform, channels):
        with pytest.raises(TypeError, match="images: expected a floating dtype, got torch.uint8"):
            transform(torch.zeros(2, channels, 8, 8, dtype=torch.uint8))
        with pytest.raises(ValueError, match=r"images: expected a batch of shape \(n, c, h, w\), got"):
            transform(torch.zeros(channels, 8, 8))
        with pytest.raises(ValueError, match="images"):
            transform(torch.zeros(0, channels, 8, 8))

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_one_cpu_generator_gives_the_same_views_on_cpu_and_gpu(self, transform, channels):
        images = some_images(channels=channels)
        on_gpu = transform(images.cuda(), generator=seeded())
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), transform(images, generator=seeded()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "transform",
    [
        partial(random_resized_crop, scale=(1, 1), ratio=(1, 1)),
        partial(horizontal_flip, probability=0),
        color_jitter,
        partial(color_jitter, brightness=1, contrast=1, saturation=1, hue=0.5, probability=0),
        partial(random_grayscale, probability=0),
        partial(gaussian_blur, sigma=(0, 0)),
        partial(gaussian_blur, probability=0),
        partial(gaussian_noise, std=0),
        partial(cutout, size=0),
        partial(cutout, probability=0),
        simclr_augment(strength=0, scale=(1, 1), ratio=(1, 1), flip=0, grayscale=0.0),
    ],
    ids="crop flip jitter never-jitter gray blur never-blur noise cutout never-cutout simclr".split(),
)
def test_zero_strength_is_the_identity(transform):
    images = some_images(height=18, width=24)
    torch.testing.assert_close(transform(images, generator=seeded()), images, **rounding(32))


class TestCrop:
    def test_a_linear_ramp_stays_a_ramp_of_the_drawn_scale(self):
        # On a ramp the slope of the view tells how wide the crop was: sqrt(area) where the ratio is 1.
        ramp = torch.linspace(0, 1, 64).expand(200, 1, 64, 64)
        views = random_resized_crop(ramp, (0.25, 0.25), (1, 1), generator=seeded())
        slope = (views[..., 33] - views[..., 31]) / 2 * 63
        torch.testing.assert_close(slope, torch.full_like(slope, 0.5), rtol=1e-3, atol=1e-4)
        starts = views[:, 0, 0, 0]  # left edges are spread over what the crop leaves free
        assert starts.min() < 0.05 and 0.45 < starts.max() < 0.52

    def test_equals_slicing_and_resizing_by_torch(self):
        # A crop of a quarter of the area whose place is read off a picture of the coordinates.
        columns = torch.arange(32.0).expand(32, 32)
        coordinates = torch.stack([columns, columns.T])[None].expand(8, -1, -1, -1)
        views = random_resized_crop(coordinates, (0.25, 0.25), (1, 1), generator=seeded())
        images = some_images(8, 2, 32, 32)
        cropped = random_resized_crop(images, (0.25, 0.25), (1, 1), generator=seeded())
        # Plain bilinear reading, one image at a time, at exactly these coordinates.
        for image, where, view in zip(images, views, cropped, strict=True):
            x, y = where
            left, top = x.floor().long(), y.floor().long()
            right, bottom = (left + 1).clamp(max=31), (top + 1).clamp(max=31)
            dx, dy = x - left, y - top
            plain = (1 - dy) * ((1 - dx) * image[:, top, left] + dx * image[:, top, right]) + dy * (
                (1 - dx) * image[:, bottom, left] + dx * image[:, bottom, right]
            )
            torch.testing.assert_close(view, plain, rtol=1e-4, atol=1e-4)

    def test_wide_ratio_gives_wide_crops(self):
        columns = torch.arange(64.0).expand(64, 64)
        coordinates = torch.stack([columns, columns.T])[None].expand(100, -1, -1, -1)
        views = random_resized_crop(coordinates, (0.25, 0.25), (4.0, 4.0), generator=seeded())
        width = views[:, 0, 32, 33] - views[:, 0, 32, 32]  # source columns a target column
        height = views[:, 1, 33, 32] - views[:, 1, 32, 32]
        torch.testing.assert_close(width / height, torch.full_like(width, 4.0), rtol=1e-3, atol=1e-3)

    def test_size_changes_the_shape(self):
        images = some_images(4, 3, 32, 32)
        assert random_resized_crop(images, size=12).shape == (4, 3, 12, 12)
        assert random_resized_crop(images, size=(10, 14)).shape == (4, 3, 10, 14)

    def test_full_crop_to_half_the_size_is_bilinear_interpolation(self):
        images = some_images(4, 3, 32, 32)
        small = random_resized_crop(images, (1, 1), (1, 1), size=16)
        torch.testing.assert_close(small, F.interpolate(images, size=16, mode="bilinear", align_corners=False))

    def test_flip_one_mirrors_every_image(self):
        images = some_images()
        torch.testing.assert_close(random_resized_crop(images, (1, 1), (1, 1), flip=1.0), images.flip(-1))

    def test_area_is_uniform_within_the_interval(self):
        columns = torch.arange(64.0).expand(64, 64)
        coordinates = torch.stack([columns, columns.T])[None].expand(4000, -1, -1, -1)
        views = random_resized_crop(coordinates, (0.2, 0.8), (1, 1), size=8, generator=seeded())
        step = views[:, 0, 4, 4] - views[:, 0, 4, 3]  # 8 sides in the whole image are 64 columns
        area = (step / 8).square()
        assert abs(area.mean() - 0.5) < 0.01
        assert area.min() > 0.19 and area.max() < 0.81

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"scale": (0.5, 0.2)}, "scale: expected a pair"),
            ({"scale": (0.0, 1.0)}, r"scale\[0\]: expected a finite number greater than 0"),
            ({"scale": (0.2, 1.5)}, r"scale\[1\]: expected a number in \[0, 1\], got 1.5"),
            ({"ratio": (-1.0, 1.0)}, "ratio"),
            ({"flip": 2.0}, "flip"),
            ({"size": 0}, "size: expected at least 1 pixel"),
        ],
    )
    def test_names_the_bad_argument(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            random_resized_crop(some_images(), **arguments)


def test_flip_gives_each_image_or_its_mirror_image_in_equal_parts():
    images = some_images(2000, 1, 4, 4)
    views = horizontal_flip(images, generator=seeded())
    mirrored = (views == images.flip(-1)).flatten(1).all(1)
    same = (views == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 900 < mirrored.sum() < 1100


class TestColor:
    def test_brightness_multiplies_by_one_factor_an_image(self):
        images = some_images() * 0.5
        factors = color_jitter(images, brightness=0.5, generator=seeded()) / images
        spread = factors.flatten(1).amax(1) - factors.flatten(1).amin(1)
        assert spread.max() < 1e-4
        assert factors.min() >= 0.5 - 1e-4 and factors.max() <= 1.5 + 1e-4

    def test_contrast_keeps_the_mean_luma(self):
        images = 0.4 + 0.2 * some_images()
        views = color_jitter(images, contrast=0.5, generator=seeded())
        luma = torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(views.mean((2, 3)) @ luma, images.mean((2, 3)) @ luma)
        assert not torch.allclose(views, images)

    def test_saturation_keeps_the_luma_of_every_pixel(self):
        images = 0.4 + 0.2 * some_images()
        views = color_jitter(images, saturation=1.0, generator=seeded())
        luma = torch.tensor([0.299, 0.587, 0.114])
        torch.testing.assert_close(torch.einsum("nchw,c->nhw", views, luma), torch.einsum("nchw,c->nhw", images, luma))
        assert not torch.allclose(views, images)

    def test_hue_turns_red_into_green_after_a_third_of_the_circle(self):
        from cl_teach.augment import _rotate_hue

        red = torch.tensor([1.0, 0.0, 0.0])
        torch.testing.assert_close(_rotate_hue(torch.tensor([1 / 3]))[0] @ red, torch.tensor([0.0, 1.0, 0.0]))

    def test_hue_leaves_gray_alone(self):
        gray = some_images(8, 1).expand(-1, 3, -1, -1)
        torch.testing.assert_close(color_jitter(gray, hue=0.5, generator=seeded()), gray)

    def test_agrees_with_torchvision_on_one_factor(self):
        functional = pytest.importorskip("torchvision.transforms.v2.functional")
        images = 0.3 + 0.3 * some_images(4)
        views = color_jitter(images, saturation=0.5, generator=seeded())
        for image, view in zip(images, views, strict=True):
            gray = functional.rgb_to_grayscale(image, num_output_channels=3)
            factor = ((view - gray).flatten() @ (image - gray).flatten()) / (image - gray).square().sum()
            torch.testing.assert_close(view, functional.adjust_saturation(image, float(factor)), atol=2e-4, rtol=0)

    def test_saturation_needs_three_channels(self):
        with pytest.raises(ValueError, match="saturation, hue and grayscale need 3 channels, got 1"):
            color_jitter(some_images(channels=1), saturation=0.4)
        with pytest.raises(ValueError, match="expected 3 channels"):
            random_grayscale(some_images(channels=1))

    def test_jitter_takes_the_color_of_as_many_images_as_asked_and_leaves_the_others(self):
        images = some_images(2000, height=2, width=2)
        views = color_jitter(images, grayscale=0.3, generator=seeded())
        gray = (views[:, 0] - views[:, 2]).abs().flatten(1).amax(1) < 1e-6
        assert abs(gray.float().mean().item() - 0.3) < 0.04
        torch.testing.assert_close(views[gray], random_grayscale(images[gray], probability=1.0))
        torch.testing.assert_close(views[~gray], images[~gray])

    def test_grayscale_makes_three_equal_channels(self):
        views = random_grayscale(some_images(), probability=1.0)
        assert torch.equal(views[:, 0], views[:, 1]) and torch.equal(views[:, 0], views[:, 2])


class TestBlur:
    def test_constant_image_stays_constant(self):
        images = torch.full((8, 1, 20, 24), 0.7)
        torch.testing.assert_close(gaussian_blur(images, (0.5, 3.0), generator=seeded()), images)

    def test_a_point_spreads_to_a_gaussian_of_the_given_width(self):
        point = torch.zeros(1, 1, 41, 41)
        point[..., 20, 20] = 1
        blurred = gaussian_blur(point, (2.0, 2.0))[0, 0]
        at = torch.arange(41.0) - 20
        profile = torch.exp(-at.square() / 8)
        profile = profile / profile.sum()
        torch.testing.assert_close(blurred, profile[:, None] * profile, atol=1e-6, rtol=1e-4)

    def test_rows_and_columns_are_not_mixed_up(self):
        line = torch.zeros(2, 3, 16, 30)
        line[:, :, 5] = 1  # a horizontal line blurs downwards and upwards only
        blurred = gaussian_blur(line, (1.0, 1.0))
        torch.testing.assert_close(blurred, blurred[..., :1].expand_as(blurred))
        assert (blurred[:, :, 5] < 0.5).all()


class TestNoise:
    def test_has_the_given_standard_deviation(self):
        noise = gaussian_noise(torch.full((64, 1, 28, 28), 0.5), 0.1, generator=seeded()) - 0.5
        assert abs(noise.std() - 0.1) < 0.002
        assert abs(noise.mean()) < 0.002

    def test_interval_gives_each_image_its_own_level(self):
        noise = gaussian_noise(torch.zeros(64, 1, 28, 28), (0.0, 1.0), clip=False, generator=seeded())
        levels = noise.flatten(1).std(1)
        assert levels.min() < 0.1 and levels.max() > 0.9

    def test_clip_can_be_left_out(self):
        assert gaussian_noise(torch.zeros(4, 1, 8, 8), 0.1, clip=False).min() < 0
        assert gaussian_noise(torch.zeros(4, 1, 8, 8), 0.1).min() == 0

    def test_negative_level_is_refused(self):
        with pytest.raises(ValueError, match="std"):
            gaussian_noise(some_images(), -0.1)


class TestCutout:
    def test_hole_is_one_rectangle_of_the_given_size_or_cut_at_the_border(self):
        views = cutout(torch.ones(500, 1, 20, 20), 0.5, generator=seeded())
        holes = views[:, 0] == 0
        rows, columns = holes.any(2), holes.any(1)
        assert torch.equal(holes, rows[:, :, None] & columns[:, None, :])
        assert rows.sum(1).max() == 10 and rows.sum(1).min() >= 5
        assert (rows.sum(1) == 10).float().mean() > 0.4

    def test_fill_is_the_value_in_the_hole(self):
        views = cutout(torch.ones(4, 3, 8, 8), 0.5, fill=0.25)
        assert set(views.unique().tolist()) == {0.25, 1.0}


class TestCompose:
    def test_equals_its_parts_one_after_the_other(self):
        first, second = random_resized_crop, partial(gaussian_noise, std=0.1)
        images, generator = some_images(), seeded()
        expected = second(first(images, generator=generator), generator=generator)
        assert torch.equal(Compose([first, second])(images, seeded()), expected)

    def test_shows_its_parameters(self):
        text = repr(simclr_augment(0.5, scale=(0.6, 1.0)))
        assert "random_resized_crop(scale=(0.6, 1.0)" in text and "simclr_color(strength=0.5, grayscale=0.2)" in text

    def test_refuses_what_cannot_be_called(self):
        with pytest.raises(TypeError, match=r"transforms\[0\]: expected a function, got int"):
            Compose([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"channels": 2}, "channels: expected 1"), ({"strength": 3.0}, "strength"), ({"blur": -1.0}, "blur")],
)
def test_simclr_augment_names_the_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        simclr_augment(**arguments)


class TestSimclrAugment:
    def test_color_images_get_all_changes_of_color_without_being_announced(self):
        gray_pixels = torch.rand(64, 1, 8, 8).expand(-1, 3, -1, -1).contiguous()
        assert torch.allclose(simclr_augment()(gray_pixels, seeded()).std(1), torch.zeros(()), atol=1e-6)
        views = simclr_augment(scale=(1, 1), ratio=(1, 1), flip=0.0)(some_images(256), seeded())
        became_gray = (views.std(1).amax((1, 2)) < 1e-6).float().mean()
        assert 0.12 < became_gray < 0.28  # a fifth
        pure = some_images(256) * torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        turned = simclr_augment(scale=(1, 1), ratio=(1, 1), flip=0.0, grayscale=0.0)(pure, seeded())
        assert (turned[:, 1:].amax((1, 2, 3)) > 0.01).float().mean() > 0.7  # hue and saturation moved in 80 %

    def test_strength_is_that_of_the_colors_alone(self):
        columns = torch.linspace(0, 1, 32).expand(200, 1, 32, 32)
        weak, strong = (simclr_augment(strength, scale=(0.25, 0.25))(columns, seeded()) for strength in (0.0, 2.0))
        assert torch.equal(weak, random_resized_crop(columns, (0.25, 0.25), flip=0.5, generator=seeded()))
        assert not torch.equal(weak, strong)

    def test_announced_channels_are_checked(self):
        with pytest.raises(ValueError, match=r"images: expected 1 channels, as channels= says, got shape \(16, 3"):
            simclr_augment(channels=1)(some_images())
        with pytest.raises(ValueError, match=r"images: expected 1 channel \(gray\) or 3 \(color\), got shape \(4, 2"):
            simclr_augment()(some_images(4, 2))

    @pytest.mark.parametrize(
        ("preset", "parts"),
        [
            ("cifar10", ["scale=(0.08, 1.0)", "flip=0.5", "strength=0.5", "grayscale=0.2"]),
            ("imagenet", ["scale=(0.08, 1.0)", "strength=1.0", "sigma=(0.1, 2.0)", "probability=0.5"]),
        ],
    )
    def test_presets_are_the_published_ones(self, preset, parts):
        text = repr(simclr_augment(preset=preset))
        assert all(part in text for part in parts), text
        assert ("gaussian_blur" in text) == (preset == "imagenet")

    def test_a_setting_of_its_own_wins_over_the_preset(self):
        assert "strength=0.7" in repr(simclr_augment(0.7, preset="cifar10"))
        with pytest.raises(ValueError, match="preset: expected one of 'small', 'cifar10', 'imagenet', got 'cifar'"):
            simclr_augment(preset="cifar")


@pytest.mark.parametrize(("transform", "channels"), EVERYTHING)
def test_images_that_hold_nan_are_refused_not_passed_on(transform, channels):
    images = some_images(4, channels)
    images[2, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="images: .*NaN"):
        transform(images, generator=seeded())


def test_two_views_of_an_image_differ():
    images, generator = some_images(), seeded()
    augment = simclr_augment(channels=3)
    assert (augment(images, generator) - augment(images, generator)).flatten(1).abs().amax(1).min() > 0.01
