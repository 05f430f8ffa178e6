"""Make the Fashion-MNIST subset that ships with `cl_teach`.

From the four original files (`train-images-idx3-ubyte.gz` and so on) this draws 1,000 training and 200 test
images of each of the ten classes with a fixed seed, in shuffled order, and writes them as unsigned bytes:

    python tools/make_fashion_mnist_subset.py FOLDER_WITH_THE_ORIGINALS

Debian's package `dataset-fashion-mnist` puts the originals into `/usr/share/datasets/fashion-mnist`. They are
checked against their SHA-256 first. The script prints the checksum of the file that it wrote; it belongs into
`cl_teach/datasets/fashion.py` and `data/README.md`. The file is an ordinary `.npz`, packed with LZMA (4.5 MB)
instead of deflate (5.3 MB). A packer of another version may write other bytes for the same arrays, so the
script prints the checksum of the unpacked arrays too.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
from pack_arrays import pack_arrays

SEED = 20240229
PER_CLASS = {"train": 1000, "test": 200}
ORIGINALS = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
TARGET = Path(__file__).parents[1] / "cl_teach" / "datasets" / "fashion_mnist_subset.npz"


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped IDX file of unsigned bytes, after checking its SHA-256."""
    packed = path.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != ORIGINALS[path.name]:
        raise ValueError(f"{path} has SHA-256 {found}, expected {ORIGINALS[path.name]}")
    raw = gzip.decompress(packed)
    # The header: two zeros, the type code, the number of dimensions, then each as big-endian int32.
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">i4", count=dimensions, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def main() -> None:
    """Draw the subset and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the four original .gz files")
    parser.add_argument("--target", type=Path, default=TARGET, help="the file to write")
    arguments = parser.parse_args()

    rng = np.random.default_rng(SEED)
    arrays: dict[str, np.ndarray] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(arguments.folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.folder / f"{prefix}-labels-idx1-ubyte.gz")
        of_class = [np.flatnonzero(labels == label) for label in range(10)]
        chosen = np.concatenate([rng.choice(rows, PER_CLASS[split], replace=False) for rows in of_class])
        chosen = rng.permutation(chosen)
        arrays[f"{split}_images"] = images[chosen]
        arrays[f"{split}_labels"] = labels[chosen]
    pack_arrays(arguments.target, arrays)


if __name__ == "__main__":
    main()
