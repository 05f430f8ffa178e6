"""Files are whole or untouched, whatever happens while they are written."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl_teach import files

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits of POSIX")


def test_what_is_written_comes_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "a.txt"
    files.write_text(file, "é\n")
    files.write_text(file, "ü\n")
    assert file.read_bytes() == "ü\n".encode()
    assert list(file.parent.iterdir()) == [file]


def test_json_comes_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, 2.5, None]}


@pytest.mark.parametrize("content", [math.nan, {"a": math.inf}, object()])
def test_what_has_no_json_form_leaves_the_file_as_it_was(tmp_path: Path, content: object) -> None:
    files.write_json(tmp_path / "a.json", 1)
    with pytest.raises((TypeError, ValueError)):
        files.write_json(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_text() == "1\n"


@posix
def test_a_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "a.txt", tmp_path / "link.txt"
    files.write_text(file, "1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()
    file.chmod(0o640)
    link.symlink_to(file)
    files.write_text(link, "2")
    assert link.is_symlink() and file.read_text() == "2"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@posix
def test_a_full_disk_leaves_the_old_file_whole_and_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    files.write_text(file, "old")
    code = (
        "import resource, signal, sys; from cl_teach import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files.write_text(sys.argv[1], 'x' * 100_000)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert run.returncode == 1 and "a.txt: not written, and left as it was" in run.stderr
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


@posix
def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    size = 3_000_000
    code = (
        "import itertools, sys; from cl_teach import files\n"
        "for i in itertools.count(): files.write_text(sys.argv[1], chr(97 + i % 26) * int(sys.argv[2]))"
    )
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", code, str(file), str(size)])
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.003 * attempt)  # at another place each time
        process.send_signal(signal.SIGKILL)
        process.wait()
        text = file.read_text()
        assert len(text) == size and len(set(text)) == 1
        file.unlink()


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with files.locked(tmp_path / "a"):
        with pytest.raises(TimeoutError, match="another process has been writing"), files.locked(tmp_path / "a"):
            pass
        with files.locked(tmp_path / "b"):
            pass
    with files.locked(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []
