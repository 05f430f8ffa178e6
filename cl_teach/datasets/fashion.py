"""Fashion-MNIST: photographs of garments, ten classes, 28x28 gray pixels.

Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms" (arXiv 1708.07747). Copyright Zalando SE, MIT license. ``data/README.md`` says how the subset was
drawn.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import urllib.request
import zlib
from gzip import BadGzipFile, GzipFile
from pathlib import Path

import numpy as np
import torch

from ..core.checks import check_choice, check_device, check_flag
from .common import MEBIBYTE, ImageSet, data_root, from_bytes, verify

__all__ = ["fashion_mnist"]

SUBSET = Path(__file__).with_name("fashion_mnist_subset.npz")
SUBSET_SHA256 = "88978a0442de2d1c53172de07b3e57486508970938bed10ba647cff2f2885f58"
# The full set: what the four files hold, unpacked, and where the authors keep them.
CONTENT = {
    "train-images-idx3-ubyte": (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}
ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
INSTEAD = "The embedded subset of 12,000 images needs no network: fashion_mnist(), the default."
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
        full: the whole set (60,000 or 10,000), downloaded at the first call, in torchvision's layout (the same folder
            serves both). Every file is compared with its checksum.
        root: folder of the full set; ``$CL_TEACH_DATA`` or ``~/.cache/cl_teach`` if None.
        device: where the tensors go.

    Returns:
        images ``(n, 1, 28, 28)``, labels ``(n,)``, the ten class names.

    Raises:
        FileNotFoundError: the subset's file is missing.
        RuntimeError: a file is damaged, or the full set cannot be downloaded.
    """
    check_choice(("train", "test"), split=split)
    check_device(device)
    check_flag(full=full)
    if full:
        folder, name = data_root(root) / "FashionMNIST" / "raw", "train" if split == "train" else "t10k"
        images = np.frombuffer(_content(folder, f"{name}-images-idx3-ubyte"), np.uint8, offset=16)
        labels = np.frombuffer(_content(folder, f"{name}-labels-idx1-ubyte"), np.uint8, offset=8)
        return from_bytes(images.reshape(-1, 28, 28), labels, CLASSES, device)
    verify(SUBSET, SUBSET_SHA256)
    with np.load(SUBSET) as arrays:
        return from_bytes(arrays[f"{split}_images"], arrays[f"{split}_labels"], CLASSES, device)


def _content(folder: Path, name: str) -> bytes:
    """One file of the full set: unpacked, or packed beside it, or downloaded. What is half there is repaired."""
    size, _ = CONTENT[name]
    plain, packed = folder / name, folder / f"{name}.gz"
    found = _read(plain)
    if found is not None and _is_right(name, found):
        return found
    if found is not None and len(found) >= size:
        raise RuntimeError(
            f"{plain}: this is not Fashion-MNIST's file of that name, or it is damaged; delete it. {INSTEAD}"
        )
    # Missing, or shorter than it should be: unpacking was broken off.
    archive = _read(packed)
    content = None if archive is None else _unpacked(archive, size)
    if content is None or not _is_right(name, content):
        archive = _download(f"{ADDRESS}/{packed.name}", folder, size)
        content = _unpacked(archive, size)
        if content is None or not _is_right(name, content):
            raise RuntimeError(f"{ADDRESS}/{packed.name}: what came is not Fashion-MNIST; try again later. {INSTEAD}")
        _write(packed, archive)
    _write(plain, content)
    return content


def _read(file: Path) -> bytes | None:
    if not file.is_file():
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise RuntimeError(f"{file}: cannot be read ({error.strerror}). {INSTEAD}") from error


def _is_right(name: str, content: bytes) -> bool:
    size, digest = CONTENT[name]
    return len(content) == size and hashlib.sha256(content).hexdigest() == digest


def _unpacked(archive: bytes, size: int) -> bytes | None:
    """At most one byte more than there should be, whatever the archive would expand to."""
    try:
        with GzipFile(fileobj=io.BytesIO(archive)) as file:
            return file.read(size + 1)
    except (BadGzipFile, EOFError, zlib.error):
        return None


def _download(address: str, folder: Path, size: int) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.read(size + MEBIBYTE)
    except OSError as error:  # URLError and timeouts are
        raise RuntimeError(
            f"Fashion-MNIST is not in {folder} and could not be downloaded ({type(error).__name__}: {error}). {INSTEAD}"
        ) from error


def _write(file: Path, content: bytes) -> None:
    temporary = file.parent / f".{file.name}.{secrets.token_hex(6)}.tmp"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as error:
        raise RuntimeError(f"{file}: could not be written ({error.strerror}). {INSTEAD}") from error
    finally:
        temporary.unlink(missing_ok=True)
