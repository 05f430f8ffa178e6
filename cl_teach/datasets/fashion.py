"""Fashion-MNIST: photographs of garments, ten classes, 28x28 gray pixels.

Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms" (arXiv 1708.07747). Copyright Zalando SE, MIT license. ``data/README.md`` says how the subset was
drawn.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ..core.checks import check_choice
from .common import ImageSet, from_bytes, sha256, through_torchvision

__all__ = ["fashion_mnist"]

SUBSET = Path(__file__).with_name("fashion_mnist_subset.npz")
SUBSET_SHA256 = "88978a0442de2d1c53172de07b3e57486508970938bed10ba647cff2f2885f58"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(
    split: str = "train",
    *,
    full: bool = False,
    root: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
) -> ImageSet:
    """Load Fashion-MNIST: by default the subset that ships with `cl_teach`, which needs no network.

    Args:
        split: "train" (10,000 images, 1,000 a class) or "test" (2,000 images, 200 a class). The subset's two
            parts come from the original training and test images, so no test image is ever a training image.
        full: the whole set (60,000 or 10,000) through torchvision, downloaded at the first call.
        root: folder of the full set; ``$CL_TEACH_DATA`` or ``~/.cache/cl_teach`` if None.
        device: where the tensors go.

    Returns:
        images ``(n, 1, 28, 28)``, labels ``(n,)``, the ten class names.

    Raises:
        ValueError: unknown split.
        FileNotFoundError: the subset's file is missing.
        RuntimeError: the subset's file is damaged, or the full set cannot be downloaded.
        ImportError: ``full=True`` without torchvision.
    """
    check_choice(("train", "test"), split=split)
    if full:
        instead = "The embedded subset of 12,000 images needs no network: fashion_mnist(), the default."
        images, labels, _ = through_torchvision("FashionMNIST", split, root, instead)
        return from_bytes(images, labels, CLASSES, device)
    _verify(SUBSET, SUBSET_SHA256)
    with np.load(SUBSET) as arrays:
        return from_bytes(arrays[f"{split}_images"], arrays[f"{split}_labels"], CLASSES, device)


@cache  # once a process is enough; a failed check is not kept
def _verify(path: Path, expected: str) -> None:
    repair = "Install cl_teach again, or restore the file with: git checkout -- cl_teach/datasets"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the embedded Fashion-MNIST subset is missing. {repair}")
    found = sha256(path)
    if found != expected:
        raise RuntimeError(f"{path}: expected SHA-256 {expected}, got {found}; the file is damaged. {repair}")
