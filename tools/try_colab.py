"""Run chapters as Colab would: alone in an empty folder, with Colab's packages at our lowest versions and nothing else.

``make colab`` makes the environment ``.colab`` from ``tools/colab_requirements.txt`` and calls this with it. Each
chapter is copied out of the repository; its first cell installs `cl_teach` from a bare clone of the last commit, where
the public address would be. Checked: the chapter runs to its end, the first cell takes less than 20 seconds, and torch
is the one that was there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_CELL_SECONDS = 20

# What runs inside the environment: nothing of ours can be imported there before the first cell.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
client = NotebookClient(notebook, timeout=900, kernel_name="python3", record_timing=True)
try:
    client.execute()
finally:
    nbformat.write(notebook, sys.argv[1])
"""


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A command that may fail, with its output."""
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]


def torch_version(python: Path) -> str:
    """The version of torch in the environment."""
    return run(python, "-c", "import torch; print(torch.__version__)", cwd="/").stdout.strip()


def first_cell_seconds(notebook: Path) -> float:
    """How long the cell took that installs and greets."""
    import nbformat

    cell = next(c for c in nbformat.read(notebook, as_version=4).cells if c.cell_type == "code")
    times = cell.metadata["execution"]
    begin, end = (
        datetime.fromisoformat(times[k].replace("Z", "+00:00")) for k in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - begin).total_seconds()


def try_chapter(python: Path, source: Path, address: str) -> str | None:
    """Run one chapter; returns what went wrong, or None."""
    run(python, "-m", "pip", "uninstall", "--yes", "cl-teach", cwd="/")
    before = torch_version(python)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        text = re.sub(
            r"git\+https://github\.com/[\w-]+/[\w.-]*\w", f"git+{address}", source.read_text(encoding="utf-8")
        )
        if f"git+{address}" not in text:
            return "its first cell does not install from the public address"
        copy.write_text(text, encoding="utf-8")
        start = time.perf_counter()
        result = run(python, "-c", RUN, copy, cwd=folder, env=environment)
        seconds = time.perf_counter() - start
        if result.returncode:
            return f"failed after {seconds:.0f} s:\n{result.stderr[-3000:]}"
        first = first_cell_seconds(copy)
    print(f"  {seconds:.0f} s, of which the first cell {first:.0f} s")
    if first > FIRST_CELL_SECONDS:
        return f"the first cell took {first:.0f} s, more than {FIRST_CELL_SECONDS}"
    if torch_version(python) != before:
        return f"torch was {before} and is {torch_version(python)}"
    return None


def main() -> int:
    """Try all chapters, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("only", nargs="*", help="e.g. 1_foundations/01_learning_by_comparison")
    parser.add_argument("--python", type=Path, default=ROOT / ".colab" / "bin" / "python", help="the environment")
    options = parser.parse_args()
    python = options.python
    chapters = sorted((ROOT / "chapters").glob("*/*.ipynb"))
    if options.only:
        chapters = [ROOT / "chapters" / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.only]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "cl-teach.git"
        subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(bare)], check=True)
        for chapter in chapters:
            name = str(chapter.relative_to(ROOT / "chapters"))
            print(name, flush=True)
            if problem := try_chapter(python, chapter, f"file://{bare}"):
                failed.append(name)
                print(f"  {problem}", flush=True)
    print(f"{len(chapters) - len(failed)} of {len(chapters)} chapters run with torch {torch_version(python)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
