"""Handwritten digits of 8x8 pixels, from scikit-learn, which has them from the UCI repository."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import torch

from ..core.checks import check_choice, check_device, check_type
from .common import ImageSet

__all__ = ["digits"]

TEST_SHARE = 5  # every fifth image is a test image


def digits(
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
) -> ImageSet:
    """Load scikit-learn's 1,797 digits, always split in the same way.

    Every fifth image of each class, in scikit-learn's order, is a test image. Both parts may hold digits by one
    writer: this measures recognition of digits, not of new hands.

    Args:
        split: "train" or "test", 1,442 and 355 images.
        root: not used; there so that all loaders have the same call.
        device: where the tensors go.

    Returns:
        images ``(n, 1, 8, 8)``, labels ``(n,)``, the class names "0" to "9".
    """
    if root is not None:
        check_type((str, os.PathLike), root=root)
    check_choice(("train", "test"), split=split)
    check_device(device)
    pixels, labels = _table()
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[TEST_SHARE - 1 :: TEST_SHARE]] = True
    chosen = is_test if split == "test" else ~is_test
    images = torch.from_numpy(pixels[chosen]).to(device, torch.float32).div_(16)[:, None]  # were 0 to 16
    return ImageSet(images, torch.from_numpy(labels[chosen]).to(device, torch.int64), tuple("0123456789"))


def _table() -> tuple[np.ndarray, np.ndarray]:
    """All pixels ``(1797, 8, 8)`` float64 and labels ``(1797,)`` int64."""
    # The file is read where scikit-learn keeps it: importing the library takes a second, in every process.
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations if found else None) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # another layout of its files

    data = load_digits()
    return np.asarray(data.images), np.asarray(data.target)
