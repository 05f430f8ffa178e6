"""Data sets: the promised shapes, always the same content, and clear words when something is missing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from cl_teach import datasets as datasets_module
from cl_teach.datasets import (
    SPRITE_FACTORS,
    cifar10,
    common,
    digits,
    emoji,
    emoji_names,
    fashion,
    fashion_mnist,
    gaussian_moments,
    gaussian_views,
    name_pieces,
    sprites,
)
from cl_teach.datasets.common import data_root
from cl_teach.datasets.digits import _table

REPOSITORY = Path(__file__).parents[2]


def assert_is_image_set(data, n, channels, size, classes=10):
    assert data.images.shape == (n, channels, size, size)
    assert data.images.dtype == torch.float32 and data.labels.dtype == torch.int64
    assert data.images.min() == 0 and data.images.max() == 1
    assert data.images.is_contiguous()
    assert data.labels.shape == (n,)
    assert len(data.classes) == classes
    assert data.labels.unique().tolist() == list(range(classes))


class TestFashionMnist:
    def test_embedded_subset_has_the_promised_shapes_and_is_balanced(self):
        for split, n in (("train", 10_000), ("test", 2_000)):
            data = fashion_mnist(split)
            assert_is_image_set(data, n, 1, 28)
            assert data.labels.bincount().tolist() == [n // 10] * 10

    def test_classes_are_mixed_so_that_a_slice_is_a_fair_sample(self):
        counts = fashion_mnist("train").labels[:1000].bincount(minlength=10)
        assert counts.min() > 60 and counts.max() < 140

    def test_labels_belong_to_the_images(self):
        # Trousers leave the corners dark and have a gap; bags fill the picture: known means of the classes.
        data = fashion_mnist("test")
        brightness = torch.stack([data.images[data.labels == k].mean() for k in range(10)])
        assert data.classes[int(brightness.argmin())] == "Sandal"
        assert brightness[data.classes.index("Pullover")] > 1.5 * brightness[data.classes.index("Trouser")]

    def test_no_test_image_is_a_training_image(self):
        train = {image.numpy().tobytes() for image in fashion_mnist("train").images}
        assert not any(image.numpy().tobytes() in train for image in fashion_mnist("test").images)

    def test_content_is_the_documented_one(self):
        readme = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
        assert hashlib.sha256(fashion.SUBSET.read_bytes()).hexdigest() == fashion.SUBSET_SHA256
        assert fashion.SUBSET_SHA256 in readme
        with np.load(fashion.SUBSET) as arrays:
            content = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
        assert content in readme
        assert f"{fashion.SUBSET.stat().st_size:,} bytes" in readme

    def test_damaged_file_is_named_with_both_checksums(self, tmp_path, monkeypatch):
        damaged = tmp_path / "subset.npz"
        damaged.write_bytes(fashion.SUBSET.read_bytes()[:-1] + b"x")
        monkeypatch.setattr(fashion, "SUBSET", damaged)
        found = hashlib.sha256(damaged.read_bytes()).hexdigest()
        with pytest.raises(RuntimeError) as error:
            fashion_mnist()
        for words in (str(damaged), fashion.SUBSET_SHA256, found, "Install cl_teach again"):
            assert words in str(error.value)

    def test_missing_file_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(fashion, "SUBSET", tmp_path / "nowhere.npz")
        with pytest.raises(FileNotFoundError, match=r"nowhere.npz.*is missing.*Install cl_teach again"):
            fashion_mnist()

    def test_checksum_is_computed_once_a_process(self, monkeypatch):
        calls = []
        monkeypatch.setattr(common, "sha256", lambda path: calls.append(path) or fashion.SUBSET_SHA256)
        common._verify.cache_clear()
        fashion_mnist("test")
        fashion_mnist("test")
        assert len(calls) == 1
        common._verify.cache_clear()


class TestEmojiNames:
    def test_every_picture_has_a_name_of_its_own_in_every_language(self):
        data = emoji_names()
        assert data.images.shape == (1377, 3, 16, 16) and data.images.dtype == torch.float32
        assert data.images.min() >= 0 and data.images.max() == 1
        assert len(set(data.signs)) == 1377
        assert tuple(data.names) == emoji.EMOJI_LANGUAGES
        for names in data.names.values():
            assert len(set(names)) == 1377 and all(name == name.strip() != "" for name in names)

    def test_picture_and_names_belong_together(self):
        data = emoji_names(("de", "en"))
        assert tuple(data.names) == ("de", "en")
        color = {name: data.images[data.names["en"].index(name)] for name in ("red heart", "blue heart", "green apple")}
        for name, channel in (("red heart", 0), ("blue heart", 2), ("green apple", 1)):
            painted = color[name][:, color[name].min(0).values < 0.6]  # what is not white
            assert painted.mean(1).argmax() == channel
        assert data.names["de"][data.names["en"].index("octopus")] == "oktopus"

    def test_content_is_the_documented_one(self):
        readme = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
        with np.load(emoji.FILE) as arrays:
            content = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
        assert content in readme and emoji.SHA256 in readme
        assert f"{emoji.FILE.stat().st_size:,} bytes" in readme

    def test_names_share_the_pieces_that_they_have_in_common(self):
        bags = name_pieces(["red heart", "blue heart", "octopus"])
        red, blue, octopus = (set(bag[bag > 0].tolist()) for bag in bags)
        assert len(red & blue) >= 11  # " h he ea ar rt t  he hea ear art rt "
        assert len(red & octopus) < len(red & blue) / 2
        assert torch.equal(name_pieces(["red heart"]), bags[:1]) and bags.max() < 2048

    @pytest.mark.parametrize(("wrong", "words"), [((), "at least one"), (("en", "en"), "each once"), (("xx",), "'en'")])
    def test_wrong_languages_are_named(self, wrong, words):
        with pytest.raises(ValueError, match=rf"languages.*{words}"):
            emoji_names(wrong)


class TestFullFashionMnist:
    """With four small files in place of the real ones, and their checksums."""

    @pytest.fixture
    def raw(self, tmp_path, monkeypatch):
        rng, folder = np.random.default_rng(0), tmp_path / "FashionMNIST" / "raw"
        folder.mkdir(parents=True)
        content = {}
        for name in fashion.CONTENT:
            head, size = (16, 3 * 784) if "images" in name else (8, 3)
            content[name] = bytes(head) + rng.integers(0, 10, size, dtype=np.uint8).tobytes()
        sums = {name: (len(x), hashlib.sha256(x).hexdigest()) for name, x in content.items()}
        monkeypatch.setattr(fashion, "CONTENT", sums)
        monkeypatch.setattr(fashion.urllib.request, "urlopen", self.offline)
        return folder, content

    @staticmethod
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    def fill(self, raw, packed=False):
        folder, content = raw
        for name, x in content.items():
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(x) if packed else x)
        return folder.parents[1]

    def test_reads_what_torchvision_left_there(self, raw):
        data = fashion_mnist("train", full=True, root=self.fill(raw))
        pixels = np.frombuffer(raw[1]["train-images-idx3-ubyte"], np.uint8, offset=16)
        assert data.images.shape == (3, 1, 28, 28)
        torch.testing.assert_close(data.images.flatten(), torch.tensor(pixels / 255, dtype=torch.float32))
        assert data.labels.tolist() == list(raw[1]["train-labels-idx1-ubyte"][8:])

    def test_a_file_that_was_half_unpacked_is_unpacked_again(self, raw):
        root = self.fill(raw, packed=True)
        half = raw[0] / "train-images-idx3-ubyte"
        half.write_bytes(raw[1][half.name][:100])
        fashion_mnist("train", full=True, root=root)
        assert half.read_bytes() == raw[1][half.name]

    def test_a_file_of_other_data_is_named_and_left_alone(self, raw):
        root = self.fill(raw)
        foreign = raw[0] / "train-labels-idx1-ubyte"
        foreign.write_bytes(bytes(len(raw[1][foreign.name])))
        with pytest.raises(RuntimeError, match=f"{foreign}: this is not Fashion-MNIST's file.*delete it"):
            fashion_mnist("train", full=True, root=root)
        assert foreign.read_bytes() == bytes(len(raw[1][foreign.name]))

    def test_a_damaged_archive_and_no_network_say_what_is_missing(self, raw):
        root = self.fill(raw, packed=True)
        archive = raw[0] / "t10k-images-idx3-ubyte.gz"
        archive.write_bytes(archive.read_bytes()[:-20])
        with pytest.raises(RuntimeError, match=r"not in .*raw and could not be.*no route.*fashion_mnist\(\)"):
            fashion_mnist("test", full=True, root=root)

    def test_an_archive_that_expands_to_anything_is_read_no_further_than_the_real_one(self):
        bomb = gzip.compress(bytes(50_000_000))
        assert len(bomb) < 100_000
        assert len(fashion._unpacked(bomb, size=1000)) == 1001

    def test_a_download_comes_over_https_and_is_compared_with_its_checksum(self, raw, monkeypatch):
        asked = []

        def answer(address, timeout):
            asked.append(address)
            return io.BytesIO(gzip.compress(raw[1][address.split("/")[-1].removesuffix(".gz")]))

        monkeypatch.setattr(fashion.urllib.request, "urlopen", answer)
        root = raw[0].parents[1]
        fashion_mnist("test", full=True, root=root)
        assert len(asked) == 2 and all(address.startswith("https://") for address in asked)
        fashion_mnist("test", full=True, root=root)
        assert len(asked) == 2  # kept
        monkeypatch.setattr(fashion.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(gzip.compress(b"other")))
        with pytest.raises(RuntimeError, match="what came is not Fashion-MNIST"):
            fashion_mnist("train", full=True, root=root)


@pytest.mark.parametrize("load", [fashion_mnist, cifar10, digits])
def test_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="split: expected one of 'train', 'test', got 'validation'"):
        load("validation")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_land_on_the_wanted_device():
    data = fashion_mnist("test", device="cuda")
    assert data.images.is_cuda and data.labels.is_cuda
    assert digits(device="cuda").images.is_cuda
    assert sprites(3, device="cuda").images.is_cuda
    assert gaussian_views(3, [1.0], device="cuda").view1.is_cuda


def test_downloads_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CL_TEACH_DATA", str(tmp_path))
    assert data_root(None) == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")


class TestDigits:
    def test_split_is_fixed_stratified_and_complete(self):
        train, test = digits("train"), digits("test")
        assert_is_image_set(train, 1442, 1, 8)
        assert_is_image_set(test, 355, 1, 8)
        assert torch.equal(train.images, digits("train").images)
        share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
        assert share.min() > 0.18 and share.max() <= 0.2

    def test_the_file_is_read_as_scikit_learn_reads_it(self, monkeypatch):
        read = _table()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as if its files lay elsewhere
        by_the_library = _table()
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(read, by_the_library, strict=True))


def write_pictures(folder: Path, images: dict[str, np.ndarray], labels: dict[str, list[int]]) -> None:
    """Write images ``(n, 32, 32, 3)`` in the layout of the npm package: a row of 1,024 pixels an image."""
    pillow = pytest.importorskip("PIL.Image")
    for name, pixels in images.items():
        pillow.fromarray(pixels.reshape(len(pixels), 1024, 3)).save(folder / f"{name}.png")
    for name, values in labels.items():
        (folder / f"{name}.json").write_text(json.dumps(values))


class TestCifarFromLocalFolder:
    def pixels(self, n: int, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)

    def test_reads_rows_of_pixels_in_the_order_of_the_batches(self, tmp_path):
        batches = {f"data_batch_{k}": self.pixels(3, k) for k in (1, 2, 10)}
        test = self.pixels(2, 9)
        write_pictures(
            tmp_path,
            {**batches, "test_batch": test},
            {"train_lables": list(range(9)), "test_lables": [7, 3]},
        )
        data = cifar10("train", root=tmp_path)
        expected = torch.from_numpy(np.concatenate(list(batches.values()))).permute(0, 3, 1, 2) / 255
        torch.testing.assert_close(data.images, expected)
        assert data.labels.tolist() == list(range(9))
        assert data.classes[:2] == ("airplane", "automobile")
        held_out = cifar10("test", root=tmp_path)
        torch.testing.assert_close(held_out.images, torch.from_numpy(test).permute(0, 3, 1, 2) / 255)
        assert held_out.images.is_contiguous() and held_out.labels.tolist() == [7, 3]

    def test_accepts_the_usual_spelling_of_the_labels(self, tmp_path):
        write_pictures(tmp_path, {"test_batch": self.pixels(2, 0)}, {"test_labels": [1, 2]})
        assert cifar10("test", root=tmp_path).labels.tolist() == [1, 2]

    def test_missing_labels_are_named(self, tmp_path):
        write_pictures(tmp_path, {"test_batch": self.pixels(2, 0)}, {})
        with pytest.raises(FileNotFoundError, match=r"test_batch.png, but no test_lables.json or test_labels.json"):
            cifar10("test", root=tmp_path)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [([1], "expected 2 labels, one an image, got 1"), ([1, 10], "expected labels 0 to 9")],
    )
    def test_wrong_labels_are_refused(self, tmp_path, labels, message):
        write_pictures(tmp_path, {"test_batch": self.pixels(2, 0)}, {"test_lables": labels})
        with pytest.raises(ValueError, match=message):
            cifar10("test", root=tmp_path)

    def test_other_pictures_are_refused(self, tmp_path):
        pillow = pytest.importorskip("PIL.Image")
        pillow.fromarray(np.zeros((4, 100, 3), dtype=np.uint8)).save(tmp_path / "test_batch.png")
        with pytest.raises(ValueError, match="expected rows of 1024 pixels, got 100"):
            cifar10("test", root=tmp_path)

    @pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut"])
    def test_a_damaged_picture_is_named(self, tmp_path, content):
        pytest.importorskip("PIL.Image")
        (tmp_path / "test_batch.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"test_batch.png: not a picture.*delete it"):
            cifar10("test", root=tmp_path)

    @pytest.mark.parametrize("content", [b"[1, 2", b"\xff\xfe", b'{"a": 1}', b"[true, 1]"])
    def test_a_damaged_label_file_is_named(self, tmp_path, content):
        write_pictures(tmp_path, {"test_batch": self.pixels(2, 0)}, {})
        (tmp_path / "test_lables.json").write_bytes(content)
        with pytest.raises(ValueError, match="test_lables.json: "):
            cifar10("test", root=tmp_path)

    def test_a_damaged_archive_is_one_sentence_with_the_folder(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("torchvision.datasets")

        def damaged(*args, **kwargs):
            raise pickle.UnpicklingError("invalid load key")

        monkeypatch.setattr(datasets, "CIFAR10", damaged)
        with pytest.raises(RuntimeError, match=f"{tmp_path}.*damaged: delete it"):
            cifar10(root=tmp_path)

    def test_offline_without_files_says_what_to_do(self, tmp_path, monkeypatch):
        datasets = pytest.importorskip("torchvision.datasets")

        def offline(*args, **kwargs):
            raise urllib.error.URLError("no route to host")

        monkeypatch.setattr(datasets, "CIFAR10", offline)
        with pytest.raises(RuntimeError, match=r"could not be downloaded .*no route to host.*root=.*sprites\(\)"):
            cifar10(root=tmp_path)


class TestSprites:
    def test_has_the_promised_shapes(self):
        data = sprites(50, seed=1)
        assert data.images.shape == (50, 3, 32, 32) and data.images.dtype == torch.float32
        assert data.images.min() >= 0 and data.images.max() <= 1
        assert data.factors.keys() == SPRITE_FACTORS.keys() == data.names.keys()
        for name, values in data.factors.items():
            assert values.shape == (50,) and values.dtype == torch.int64
            assert values.max() < len(data.names[name])
        assert data.latents.keys() == {"x", "y", "radius", "brightness"}
        assert sprites(4, size=48).images.shape == (4, 3, 48, 48)

    def test_seed_decides_everything(self):
        assert torch.equal(sprites(20, seed=5).images, sprites(20, seed=5).images)
        assert not torch.equal(sprites(20, seed=5).images, sprites(20, seed=6).images)

    def test_factors_are_independent_and_uniform(self):
        stats = pytest.importorskip("scipy.stats")
        n = 20_000
        factors = sprites(n, size=16, noise=0).factors
        names = list(factors)
        for i, name in enumerate(names):
            count = len(SPRITE_FACTORS[name])
            assert stats.chisquare(factors[name].bincount(minlength=count)).pvalue > 1e-4
            for other in names[i + 1 :]:
                width = len(SPRITE_FACTORS[other])
                table = (factors[name] * width + factors[other]).bincount(minlength=count * width)
                assert stats.chi2_contingency(table.reshape(count, width)).pvalue > 1e-4

    def test_correlated_factor_follows_with_the_given_share(self):
        n = 20_000
        factors = sprites(n, size=16, noise=0, correlate={"color": ("shape", 0.9)}).factors
        agree = (factors["color"] == factors["shape"]).float().mean()
        assert abs(agree - (0.9 + 0.1 / 6)) < 0.01  # a free draw agrees by chance in one case of six
        assert abs((factors["texture"] == factors["shape"]).float().mean() - 1 / 6) < 0.02

    def test_share_one_ties_factors_of_different_counts(self):
        factors = sprites(500, correlate={"texture": ("shape", 1.0)}).factors
        assert torch.equal(factors["texture"], factors["shape"] % 5)

    def test_fixing_a_factor_changes_nothing_else(self):
        free = sprites(30, seed=2, noise=0)
        red = sprites(30, seed=2, noise=0, fix={"color": "red"})
        assert (red.factors["color"] == 0).all()
        for name in ("shape", "texture", "column", "row", "size"):
            assert torch.equal(free.factors[name], red.factors[name])
        same = free.factors["color"] == 0
        assert same.any() and torch.equal(free.images[same], red.images[same])
        assert not torch.equal(free.images[~same], red.images[~same])

    def test_the_same_objects_with_one_thing_changed(self):
        first = sprites(30, seed=2, correlate={"color": ("shape", 0.5)})
        again = sprites(30, seed=2, fix=first.factors)
        assert torch.equal(first.images, again.images)

    def test_latents_say_where_the_object_is(self):
        data = sprites(200, seed=3, noise=0, fix={"shape": "circle", "texture": "plain", "size": "small"})
        mass = data.images.sum(1) - data.images.sum(1).amin((1, 2), keepdim=True)  # (n, 32, 32), 0 outside
        at = (2 * torch.arange(32) + 1) / 32 - 1
        total = mass.sum((1, 2))
        torch.testing.assert_close((mass.sum(1) @ at) / total, data.latents["x"], atol=0.01, rtol=0)
        torch.testing.assert_close((mass.sum(2) @ at) / total, data.latents["y"], atol=0.01, rtol=0)
        assert (data.latents["x"][data.factors["column"] == 0] < -0.2).all()
        assert (data.latents["y"][data.factors["row"] == 2] > 0.2).all()

    def test_color_is_what_it_is_called(self):
        names = SPRITE_FACTORS["color"]
        data = sprites(6, noise=0, fix={"color": torch.arange(6), "shape": "circle", "texture": "plain"})
        peak = data.images.amax((2, 3)) > 0.6  # which of red, green and blue are strong
        expected = {"red": [1, 0, 0], "yellow": [1, 1, 0], "green": [0, 1, 0]} | {
            "cyan": [0, 1, 1],
            "blue": [0, 0, 1],
            "magenta": [1, 0, 1],
        }
        assert peak.int().tolist() == [expected[name] for name in names]

    def test_every_pair_of_values_of_a_factor_looks_different(self):
        plain = {"shape": 0, "color": 0, "texture": 0, "column": 1, "row": 1, "size": 2}
        for name, values in SPRITE_FACTORS.items():
            count = len(values)
            images = sprites(count, noise=0, jitter=0, fix={**plain, name: torch.arange(count)}).images.flatten(1)
            distance = torch.cdist(images, images) + 99 * torch.eye(count)
            assert distance.min() > 2.0, name

    def test_shapes_cover_about_the_same_area(self):
        data = sprites(
            6,
            noise=0,
            jitter=0,
            fix={"shape": torch.arange(6), "color": 0, "texture": 0, "size": 2, "row": 1},
        )
        area = (data.images[:, 0] > 0.5).float().mean((1, 2))
        assert area.max() / area.min() < 1.4

    def test_noise_has_the_given_level(self):
        clean, noisy = sprites(100, seed=1, noise=0), sprites(100, seed=1, noise=0.02)
        assert abs((noisy.images - clean.images).std() - 0.02) < 0.002

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n": 0}, "n: expected a whole number of at least 1"),
            ({"size": 8}, "size: expected a whole number of at least 16"),
            ({"fix": {"hue": 1}}, r"fix\['hue'\]: expected one of 'shape'"),
            ({"fix": {"color": "beige"}}, r"fix\['color'\]: expected one of 'red'"),
            ({"fix": {"color": 6}}, r"fix\['color'\]: expected a whole number in \[0, 5\], got 6"),
            ({"correlate": {"color": ("form", 0.5)}}, r"correlate\['color'\]\[0\]: expected one of"),
            ({"correlate": {"color": ("shape", 1.5)}}, r"correlate\['color'\]\[1\]"),
            ({"correlate": {"color": ("color", 0.5)}}, "must be a factor that is not correlated itself"),
            ({"correlate": {"color": ("shape", 0.5)}, "fix": {"color": 1}}, "fixed already"),
            ({"noise": -0.1}, "noise"),
        ],
    )
    def test_names_the_bad_argument(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            sprites(**{"n": 4, **arguments})


def test_sprites_take_factors_as_whole_numbers_only():
    with pytest.raises(TypeError, match=r"fix\['color'\]: expected an integer dtype"):
        sprites(3, fix={"color": torch.zeros(3)})


class TestGaussianViews:
    strengths, augmentation, noise = (2.0, 1.0, 0.5), (0.1, 0.5, 1.0), 0.25

    def views(self, n: int, **arguments):
        return gaussian_views(n, self.strengths, self.augmentation, self.noise, **arguments)

    def test_moments_match_the_closed_form_within_monte_carlo_error(self):
        n = 100_000
        data = self.views(n, dim=5, rotate=True, dtype=torch.float64)
        moment, cross = gaussian_moments(self.strengths, self.augmentation, self.noise, data.features)
        pairs = (
            (data.view1, data.view1, moment),
            (data.view2, data.view2, moment),
            (data.view1, data.view2, cross),
        )
        for a, b, expected in pairs:
            products = a[:, :, None] * b[:, None, :]  # (n, 5, 5)
            error = products.std(0) / n**0.5
            assert ((products.mean(0) - expected).abs() < 5 * error).all()

    def test_moments_along_the_axes_are_the_written_ones(self):
        moment, cross = gaussian_moments(self.strengths, self.augmentation, self.noise)
        torch.testing.assert_close(moment, torch.tensor([4.25, 1.25, 0.5]).double().diag())
        torch.testing.assert_close(cross, torch.tensor([3.6, 0.5, 0.0]).double().diag())

    def test_signs_change_in_half_of_the_drawn_anew(self):
        data = self.views(50_000)
        changed = (data.signs1 != data.signs2).float().mean(0)
        torch.testing.assert_close(changed, torch.tensor([0.05, 0.25, 0.5]), atol=0.01, rtol=0)

    def test_without_noise_the_view_is_the_signed_sum_of_its_features(self):
        data = gaussian_views(20, self.strengths, 0.0, rotate=True, dim=4)
        torch.testing.assert_close(data.view1, (data.signs1 * torch.tensor(self.strengths)) @ data.features.T)
        assert torch.equal(data.view1, data.view2)
        torch.testing.assert_close(data.features.T @ data.features, torch.eye(3), atol=1e-6, rtol=0)

    def test_seed_decides_the_draws_and_n_not_the_features(self):
        assert torch.equal(self.views(10, seed=1).view2, self.views(10, seed=1).view2)
        assert not torch.equal(self.views(10, seed=1).view2, self.views(10, seed=2).view2)
        assert torch.equal(self.views(10, rotate=True).features, self.views(20, rotate=True).features)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0, [1.0]), "n: expected a whole number of at least 1"),
            ((5, [-1.0]), "strengths"),
            ((5, [1.0], [1.5]), "augmentation"),
            ((5, [1.0, 2.0], [0.1]), "strengths, augmentation: expected equal shapes"),
            ((5, [1.0], 0.1, -1.0), "noise"),
            ((5, []), "strengths"),
        ],
    )
    def test_names_the_bad_argument(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gaussian_views(*arguments)

    def test_needs_a_direction_a_feature(self):
        with pytest.raises(ValueError, match="dim: expected a whole number of at least 2"):
            gaussian_views(5, [1.0, 2.0], dim=1)
        with pytest.raises(ValueError, match=r"features: expected shape \(d, 2\)"):
            gaussian_moments([1.0, 2.0], features=torch.eye(3))


def test_checksum_is_that_of_the_standard_tool(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert common.sha256(tmp_path / "a") == known


class TestNamesFromElsewhere:
    def test_a_class_of_torchvision_is_answered_with_the_function_from_here(self):
        with pytest.raises(AttributeError, match=r"no CIFAR10; use cifar10"):
            _ = datasets_module.CIFAR10
        with pytest.raises(ImportError, match=r"no FashionMNIST; use fashion_mnist"):
            from cl_teach.datasets import FashionMNIST  # noqa: F401

    def test_other_unknown_names_are_plain_attribute_errors(self):
        assert not hasattr(datasets_module, "nonsense")
        with pytest.raises(ImportError, match="cannot import name"):
            from cl_teach.datasets import nonsense  # noqa: F401
