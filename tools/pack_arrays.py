"""Arrays in an ordinary ``.npz`` that is the same file for the same arrays, packed with LZMA."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def pack_arrays(target: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the file, and print its size and both checksums: of the file, and of what is in it.

    A packer of another version may write other bytes for the same arrays; the second checksum stays.
    """
    with zipfile.ZipFile(target, "w", compression=zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            # A fixed date, so that the same arrays give the same file.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), compress_type=zipfile.ZIP_LZMA)
    content = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    print(f"{target}: {target.stat().st_size} bytes")
    print(f"SHA-256 of the file:   {hashlib.sha256(target.read_bytes()).hexdigest()}")
    print(f"SHA-256 of the arrays: {content}")
