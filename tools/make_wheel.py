"""Build sdist and wheel into ``dist/``, and try the wheel where nothing of ours is: ``make wheel``.

The wheel is installed with its requirements into an empty environment; there every public name of every module is
imported and every example in a docstring runs. A tag on the commit has to say the version (``v0.1.0``).
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from setuptools import build_meta

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 8_000_000  # bytes; the embedded garments have 4.5 MB, emoji and records 1.5

# Runs inside the empty environment, in an empty folder.
TRY = """
import doctest, importlib, pkgutil, sys, warnings
import cl_teach
names = examples = 0
for info in pkgutil.walk_packages(cl_teach.__path__, "cl_teach."):
    if info.name.endswith("__main__"):
        continue
    module = importlib.import_module(info.name)
    for name in getattr(module, "__all__", ()):
        getattr(module, name)
        names += 1
    result = doctest.testmod(module)
    examples += result.attempted
    if result.failed:
        sys.exit(f"{info.name}: {result.failed} examples fail")
print(f"{names} public names, {examples} lines of examples, cl_teach {cl_teach.__version__} in {cl_teach.__file__}")
"""


def version() -> str:
    """The version in pyproject.toml; a tag on this commit has to say the same."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    command = ["git", "tag", "--points-at", "HEAD", "--list", "v*"]
    tags = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if tags and f"v{found}" not in tags:
        raise SystemExit(f"pyproject.toml says {found}, the tag on this commit {', '.join(tags)}: make them agree.")
    return found


def check_contents(names: list[str], what: str) -> None:
    """No chapters, tests or pictures of the book in what people install."""
    strange = [name for name in names if any(f"{folder}/" in name for folder in ("chapters", "tests", "book", "tools"))]
    if strange:
        raise SystemExit(f"{what} holds what it should not: {', '.join(strange[:5])}")


def try_wheel(wheel: Path) -> str:
    """Install it into an empty environment and use all of it; returns what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, cwd=folder)
        seen = subprocess.run([python, "-c", TRY], cwd=folder, capture_output=True, text=True)
    if seen.returncode:
        raise SystemExit(f"{seen.stdout}{seen.stderr}\nThe wheel does not work where nothing else of ours is.")
    return seen.stdout.strip()


def main() -> int:
    """Build, look, try; returns the exit status."""
    number, out = version(), ROOT / "dist"
    out.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):  # setuptools names every file
        sdist = out / build_meta.build_sdist(str(out))
        wheel = out / build_meta.build_wheel(str(out))
    with tarfile.open(sdist) as archive:
        check_contents(archive.getnames(), sdist.name)
    with zipfile.ZipFile(wheel) as archive:
        check_contents(archive.namelist(), wheel.name)
    for file in (sdist, wheel):
        if file.stat().st_size > LARGEST:
            raise SystemExit(f"{file.name} has {file.stat().st_size} bytes, more than {LARGEST}")
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.2f} MB")
    print(f"cl_teach {number}: {try_wheel(wheel)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
