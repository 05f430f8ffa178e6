"""Files that are whole or untouched: the one way in which the project writes what it keeps.

:func:`write_text` writes beside the file and then puts the new one in its place, in one step of the operating system. A
reader sees the old file or the new one; a kill, a full disk or an error while writing leaves the old one as it was.
:func:`locked` makes reading, changing and writing one step for all processes of a machine, so that of two writers none
overwrites what the other has just added.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout  # comes with torch

__all__ = ["locked", "write_json", "write_text"]

PATIENCE = 120.0  # seconds that a writer waits for another; holding the lock takes milliseconds


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` in UTF-8, all of it or nothing; missing folders are made.

    Raises:
        OSError: it cannot be written, for example because the disk is full; the message names the file.
    """
    file = Path(os.path.realpath(path))  # through a link: the link stays
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.parent / f".{file.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())  # else the new name can outlive the content when the power goes
        if file.exists():
            temporary.chmod(file.stat().st_mode)
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, f"{file}: not written, and left as it was ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any, *, indent: int | None = 1) -> None:
    """Write ``content`` as JSON, all of it or nothing.

    Raises:
        TypeError, ValueError: something in it has no JSON form, NaN and infinity included; nothing is written.
        OSError: it cannot be written.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Keep every other process and thread that locks ``path`` out while the block runs.

    The lock lies in the user's temporary folder and not beside the file, where it would stay behind. A process that is
    killed gives it back.

    Raises:
        TimeoutError: another process has held the lock for two minutes.
    """
    file = os.path.realpath(path)
    user = getattr(os, "getuid", lambda: 0)()
    folder = Path(tempfile.gettempdir()) / f"cl_teach-locks-{user}"
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(file.encode()).hexdigest()[:32]}.lock")
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout as error:
        raise TimeoutError(f"{file}: another process has been writing it for {PATIENCE:g} s") from error
    try:
        yield
    finally:
        lock.release()
