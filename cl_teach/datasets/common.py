"""What all data sets share: the result type, and the ways from files to tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_choice, check_device, check_type

__all__ = ["ImageSet", "data_root", "from_bytes", "sha256", "through_torchvision", "verify"]

MEBIBYTE = 2**20


class ImageSet(NamedTuple):
    """Labeled images.

    Attributes:
        images: ``(n, channels, height, width)``, float32 in [0, 1].
        labels: ``(n,)``, int64.
        classes: the name of each label.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def from_bytes(
    images: np.ndarray, labels: Any, classes: tuple[str, ...], device: torch.device | str | None
) -> ImageSet:
    """Turn unsigned bytes ``(n, h, w)`` or ``(n, h, w, channels)`` into an `ImageSet` on ``device``."""
    check_device(device)
    check_type(tuple, classes=classes)
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise ValueError(
            f"images: expected bytes of shape (n, h, w) or (n, h, w, channels), got {images.dtype} of {images.shape}"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels: expected {len(images)} whole numbers, got {labels.dtype} of {labels.shape}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels: expected 0 to {len(classes) - 1}, one of the classes, got {labels.max()}")
    # Moved as bytes: a quarter of the transfer.
    pixels = torch.from_numpy(np.require(images, requirements=("C", "W"))).to(device)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    floats = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return ImageSet(floats, torch.as_tensor(labels.astype(np.int64), device=device), classes)


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """Folder for downloads: the argument, or ``$CL_TEACH_DATA``, or ``~/.cache/cl_teach``."""
    if root is not None:
        check_type((str, os.PathLike), root=root)
        return Path(root).expanduser()
    return Path(os.environ.get("CL_TEACH_DATA", Path.home() / ".cache" / "cl_teach"))


def sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    check_type(Path, path=path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str) -> None:
    """Refuse an embedded file that is missing or damaged.

    Args:
        path: the file inside the package.
        expected: its SHA-256 as hexadecimal digits.

    Raises:
        FileNotFoundError: the file is missing.
        RuntimeError: its checksum is another.
    """
    check_type(Path, path=path)
    check_type(str, expected=expected)
    _verify(path, expected)


@cache  # once a process is enough; a failed check is not kept
def _verify(path: Path, expected: str) -> None:
    repair = "Install cl_teach again, or restore the file with: git checkout -- cl_teach/datasets"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this embedded file is missing. {repair}")
    found = sha256(path)
    if found != expected:
        raise RuntimeError(f"{path}: expected SHA-256 {expected}, got {found}; the file is damaged. {repair}")


def through_torchvision(
    name: str, split: str, root: str | os.PathLike[str] | None, instead: str
) -> tuple[np.ndarray, Any, tuple[str, ...]]:
    """Images, labels and class names of ``torchvision.datasets.<name>``, downloaded where they are missing.

    Args:
        name: class name in ``torchvision.datasets``.
        split: "train" or "test".
        root: folder for the download.
        instead: sentence that says what to do when the data cannot be had.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: neither in the folder nor to be downloaded (no network, or a damaged file).
    """
    check_type(str, name=name, instead=instead)
    check_choice(("train", "test"), split=split)
    folder = data_root(root)
    try:
        import torchvision.datasets
    except ImportError as error:
        raise ImportError(f"{name} needs torchvision: pip install torchvision. {instead}") from error
    make: Callable[..., Any] | None = getattr(torchvision.datasets, name, None)
    if make is None:
        raise ValueError(f"name: expected a class of torchvision.datasets, got {name!r}")
    try:
        data = make(folder, train=split == "train", download=True)
    except Exception as error:  # URLError, a damaged archive or pickle, a full disk: in as many ways as there are bytes
        raise RuntimeError(
            f"{name} is not in {folder} and could not be downloaded ({type(error).__name__}: {error}); if it is there, "
            f"it is damaged: delete it. {instead}"
        ) from error
    return np.asarray(data.data), data.targets, tuple(data.classes)
