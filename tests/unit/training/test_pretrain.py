"""SimCLR from tensors, data sets and loaders: the same views, two of each image, and answers to what people try."""

from functools import partial

import numpy as np
import pytest
import torch
from runs import add_noise, network, pictures, train
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from cl_teach.augment import simclr_augment
from cl_teach.core import nt_xent
from cl_teach.datasets import fashion_mnist
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import TwoViews, online_knn, pretrain, seed_everything


class Labeled(Dataset):
    """Items of ``(image, label)``, as torchvision's data sets have them."""

    def __init__(self, images, make=lambda image: image):
        self.images, self.make = images, make

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.make(self.images[row]), row % 10


def noisy(image):
    """A random view of one image, from torch's global state."""
    return image + 0.1 * torch.randn(image.shape)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_run(workers):
    alone, helped = (train(Labeled(pictures()), transform=noisy, workers=w, epochs=2)[1].losses for w in (0, workers))
    assert torch.equal(alone, helped)


def test_views_differ_from_each_other_and_from_epoch_to_epoch():
    seen = []

    def loss(a, b):
        seen.append((a.detach(), b.detach()))
        return nt_xent(a, b, 0.2)

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    options = {"epochs": 2, "batch_size": 48, "learning_rate": 1e-9, "progress": False}
    pretrain(model, nn.Identity(), Labeled(pictures()), loss=loss, transform=noisy, **options)
    (a1, b1), (a2, b2) = ([z[z[:, 0].argsort()] for z in pair] for pair in seen)
    assert all((x - y).abs().mean() > 1e-3 for x, y in [(a1, b1), (a2, b2), (a1, a2)])


def test_a_data_set_of_images_a_data_set_of_tuples_and_a_loader_are_one():
    """With views that draw nothing, the same rows in the same order give the same losses."""
    images = pictures()

    def mirrored(batch, generator):
        return batch.flip(-1)

    options = {"augment": mirrored, "epochs": 1}
    plain, labeled, pairs = (
        train(data, **options)[1].losses
        for data in (
            Labeled(images),
            TensorDataset(images, torch.arange(48)),
            Labeled(images, lambda image: (image, image)),
        )
    )
    assert torch.equal(plain, labeled) and torch.equal(plain, pairs)
    loaders = [DataLoader(data, 12, shuffle=False) for data in (Labeled(images), TensorDataset(images, images))]
    first, second = (train(loader, batch_size=None, augment=mirrored, epochs=1)[1].losses for loader in loaders)
    assert torch.equal(first, second)


def test_a_loader_of_two_views_needs_no_augmentation():
    loader = DataLoader(TwoViews(Labeled(pictures()), noisy), 12, shuffle=True)
    _, history = train(loader, batch_size=None)
    assert len(history.losses) == 16 and history.losses.isfinite().all()


def test_transforms_of_torchvision_work_as_they_are(tmp_path):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    datasets = pytest.importorskip("torchvision.datasets")
    pillow = pytest.importorskip("PIL.Image")
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
            pillow.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    view = v2.Compose(
        [v2.RandomResizedCrop(16), v2.ColorJitter(0.4), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    )
    seed_everything(0)
    encoder = ConvEncoder(3, 16, width=4)
    head = ProjectionHead(encoder.feature_dim, 8)
    options = {"epochs": 2, "batch_size": 8, "progress": False, "loss": nt_xent}
    history = pretrain(encoder, head, datasets.ImageFolder(str(tmp_path)), transform=view, workers=2, **options)
    assert len(history.losses) == 4 and history.losses.isfinite().all()


def test_tensors_go_through_a_transform_of_single_images_too():
    assert torch.equal(
        train(pictures(), transform=noisy, augment=None, epochs=1)[1].losses,
        train(Labeled(pictures()), transform=noisy, epochs=1)[1].losses,
    )


def test_embeddings_in_half_precision_meet_a_loss_in_full():
    seen = []

    def loss(a, b):
        seen.append(a.dtype)
        return nt_xent(a, b, 0.2)

    model = network()
    pretrain(*model, pictures(), loss=loss, augment=add_noise, epochs=1, batch_size=12, amp=True, progress=False)
    assert set(seen) == {torch.float32}


def test_online_knn_keeps_the_accuracy_of_every_second_epoch():
    train_set, test_set = fashion_mnist("train"), fashion_mnist("test")
    rows = (train_set.images[:500], train_set.labels[:500]), (test_set.images[:200], test_set.labels[:200])
    seed_everything(0)
    encoder = ConvEncoder(width=4)
    watch = online_knn(encoder, *rows, every=2)
    head = ProjectionHead(encoder.feature_dim, 8)
    options = {"epochs": 3, "batch_size": 250, "progress": False, "after_epoch": watch}
    history = pretrain(encoder, head, rows[0][0], loss=nt_xent, augment=simclr_augment(), **options)
    assert history.metrics[0] == history.metrics[2] == {}
    assert 0.3 < history.metrics[1]["knn"] <= 1


def test_compiled_training_is_the_same_training(monkeypatch):
    def run(compile):
        seed_everything(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh())
        return train(pictures(), nn.Sequential(encoder, nn.Linear(16, 8)), epochs=1, compile=compile)[1].losses

    # Traced and differentiated ahead of time; what a C++ compiler would make of it takes a minute and a half.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.testing.assert_close(run(True), run(False), rtol=1e-4, atol=1e-5)


def pil_item():
    pillow = pytest.importorskip("PIL.Image")
    return pillow.fromarray(np.zeros((4, 4), dtype=np.uint8))


@pytest.mark.parametrize(
    ("images", "options", "error", "says"),
    [
        (lambda: fashion_mnist("test"), {}, TypeError, "images: got a whole ImageSet; write images=train.images"),
        (lambda: np.ones((8, 1, 4, 4)), {}, TypeError, r"images: .* got ndarray; use torch.from_numpy"),
        (
            lambda: (pictures() * 255).byte(),
            {},
            TypeError,
            r"images: expected a floating.*images.float\(\) / 255",
        ),
        (lambda: pictures().fill_(torch.nan), {}, ValueError, "images: .*NaN"),
        (lambda: pictures(), {"augment": None}, TypeError, r"augment: it is needed, for example augment=simclr_aug"),
        (lambda: Labeled(pictures()), {}, TypeError, "augment: the Dataset gives one view of each image"),
        (lambda: Labeled([pil_item()] * 12), {}, TypeError, r"item of the Dataset is a Image, but.*v2.ToImage\(\)"),
        (
            lambda: Labeled(pictures()),
            {"transform": lambda x: (255 * x).byte()},
            TypeError,
            "images: the result of transform is a tensor of torch.uint8",
        ),
        (
            lambda: DataLoader(Labeled(pictures()), 12),
            {"transform": noisy, "batch_size": None},
            ValueError,
            r"transform: a DataLoader reads its own Dataset; make it from TwoViews\(dataset, transform\)",
        ),
        (lambda: DataLoader(Labeled(pictures()), 12), {}, ValueError, "batch_size: the DataLoader has its own, 12"),
        (
            lambda: DataLoader(Labeled(pictures()), 12),
            {"batch_size": None},
            TypeError,
            "augment: the batches hold one view of each image",
        ),
        (lambda: pictures(), {"augment": lambda x, g: x[:3]}, ValueError, "augment: expected a view of each of the 12"),
        (lambda: pictures(), {"freeze_statistics": True}, ValueError, "freeze_statistics: it belongs to chunk="),
        (lambda: pictures(), {"chunk": 4}, ValueError, "network: 0.2 is batch normalization in training mode"),
    ],
)
def test_what_people_try_is_answered_with_what_to_write(images, options, error, says):
    with pytest.raises(error, match=says):
        train(images(), **options)


def test_a_transform_of_torchvision_in_place_of_augment_is_told_its_place():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    with pytest.raises(TypeError, match="augment: got torchvision's Compose, .*pass it as transform="):
        train(pictures(), augment=v2.Compose([v2.RandomHorizontalFlip()]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("lr", r"pretrain: there is no argument lr=; did you mean learning_rate=\?"),
        ("steps", "pretrain: there is no argument steps=; a run is as long as its epochs"),
        ("temperature", r"it belongs to the loss: loss=lambda z1, z2: nt_xent\(z1, z2, temperature\)"),
        ("num_workers", r"did you mean workers=\?"),
        ("learningrate", r"did you mean learning_rate=\?"),
    ],
)
def test_arguments_from_elsewhere_are_answered_in_the_name_of_pretrain(wrong, says):
    with pytest.raises(TypeError, match=says):
        train(pictures(), **{wrong: 1})
