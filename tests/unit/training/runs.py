"""Small runs that the tests of this folder share: noise, dropout, batch normalization, so that everything is drawn."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cl_teach.core import nt_xent
from cl_teach.training import pretrain, seed_everything


def pictures(n: int = 48) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def add_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 0.1 * torch.randn(images.shape, generator=generator, device=images.device)


def network(seed: int = 0) -> nn.Sequential:
    seed_everything(seed)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(encoder, nn.Linear(16, 8))


class RandomViews(Dataset):
    """Pairs of views with noise from torch's global state, as torchvision's transforms draw theirs."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[list[Tensor], int]:
        return [self.images[row] + 0.1 * torch.randn(1, 4, 4) for _ in range(2)], row


class Stop(Exception):
    """Instead of a power cut."""


def stop_at(step: int):
    def on_step(now: int, loss: Tensor) -> None:
        if now == step:
            raise Stop

    return on_step


def train(images, model: nn.Sequential | None = None, **options):
    model = network() if model is None else model
    settings = {"epochs": 4, "batch_size": 12, "learning_rate": 1e-2, "progress": False, "seed": 3} | options
    if isinstance(images, Tensor):
        settings.setdefault("augment", add_noise)
    history = pretrain(model[0], model[1], images, loss=lambda a, b: nt_xent(a, b, 0.2), **settings)
    return model, history
