"""A folder of pictures through torchvision's transforms and two workers, in mixed precision.

``python examples/folder_of_pictures.py FOLDER`` with one folder a class in FOLDER; without an argument it draws some.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from cl_teach.datasets import sprites
from cl_teach.losses import nt_xent
from cl_teach.models import ProjectionHead, cifar_resnet18
from cl_teach.training import cosine, pretrain, seed_everything


def draw_pictures(folder: Path) -> None:
    """Sixty-four pictures of shapes."""
    drawn = sprites(64, seed=0)
    for i, (image, shape) in enumerate(zip(drawn.images, drawn.factors["shape"].tolist(), strict=True)):
        (folder / str(shape)).mkdir(exist_ok=True)
        to_pil_image(image).save(folder / str(shape) / f"{i}.png")


def main(folder: Path) -> None:
    """One epoch, as an example."""
    seed_everything(0)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.2, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    encoder = cifar_resnet18(norm="group")
    history = pretrain(
        encoder,
        ProjectionHead(encoder.feature_dim, 128, norm="group"),
        ImageFolder(str(folder)),
        loss=lambda z1, z2: nt_xent(z1, z2, temperature=0.2),
        transform=view,  # called twice for each picture, in the workers
        workers=2,
        chunk=16,  # embed sixteen views at a time; the loss still compares the whole batch
        amp=True,
        epochs=1,
        batch_size=32,
        schedule=cosine(warmup=1),
    )
    print(f"{len(history.losses)} steps, last loss {history.losses[-1]:.3f}")


if __name__ == "__main__":  # workers import this file
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            draw_pictures(Path(folder))
            main(Path(folder))
