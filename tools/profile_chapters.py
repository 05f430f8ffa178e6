"""Where chapters wait: the processor seconds of every cell, and what the slowest ones spend them on.

``python tools/profile_chapters.py`` runs all chapters one after another, each in a process of its own with one core,
and writes ``data/chapter_cells.json``; ``... 1_foundations/01_learning_by_comparison`` only the named ones, whose
entries it replaces. Nothing of a chapter is stored. ``--optional FOLDER`` looks only at cells that use packages which a
reader may not have, and which lie in that folder.

A second thread looks every few milliseconds at what the cell is doing: a profiler that counted every call would make
short calls look dear. It sees Python's functions, and whatever they call in C++ as part of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
import torch
from execute_chapters import CHAPTERS, ROOT, find
from tqdm import tqdm

from cl_teach import files
from cl_teach.core.fastest import device_name

RECORD = ROOT / "data" / "chapter_cells.json"
# Cells kept for each chapter, shares kept for each cell, seconds between two looks.
CELLS, SHARES, INTERVAL = 3, 4, 0.005
PACKAGE = str(ROOT / "cl_teach") + os.sep
# Calls that need a package which does not come with the book; without it the cell says so and goes on.
OPTIONAL = ("smollm2()", "cora()", "imdb()", "movielens_100k()")

#: What a function is busy with, by the beginning of its module's name. The innermost function that is listed counts.
WORK = {
    "torch.autograd": "backward passes",
    "torch.optim": "optimizer steps",
    "torch.nn.modules.conv": "convolutions",
    "torch.nn.modules.linear": "linear layers",
    "torch.nn.modules.rnn": "recurrent layers",
    "torch.nn.modules.batchnorm": "batch normalization",
    "torch.utils.data": "collecting batches",
    "subprocess": "waiting for the processes it started",
    "matplotlib": "drawing",
    "PIL": "packing pictures",
    "ast": "parsing Python",
    "tokenize": "parsing Python",
    "zipfile": "unpacking data",
    "sklearn": "scikit-learn",
    "scipy": "SciPy",
    "transformers": "reading a language model",
    "gguf": "reading a language model",
    "cl_teach.augment": "random views",
    "cl_teach.evaluation": "scores",
    "cl_teach.datasets": "data",
    "cl_teach.models": "the rest of the networks",
    "cl_teach.core.checks": "checks of arguments",
    "cl_teach.core": "what losses are built of",
    "cl_teach.theory": "formulas of the theory",
    "cl_teach.training": "the training loop",
    "cl_teach.figures": "drawing",
    "cl_teach": "the method",
    "__main__": "the chapter's own lines",
}


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame, the one that called it, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def name(frame: FrameType) -> str:
    """A function as a reader would find it: ``cl_teach.training.loop.fit``, or ``train`` of the chapter."""
    file, function = frame.f_code.co_filename, frame.f_code.co_qualname.partition(".<locals>")[0]
    if not file.startswith(PACKAGE):
        return "the cell itself" if function == "<module>" else function
    module = file.removeprefix(str(ROOT) + os.sep).removesuffix(".py").removesuffix(os.sep + "__init__")
    return f"{module.replace(os.sep, '.')}.{function}"


def ours(frame: FrameType) -> bool:
    """Whether a frame belongs to the package or to the chapter."""
    return frame.f_code.co_filename.startswith((PACKAGE, "<ipython", "/tmp/ipykernel"))


def work(frame: FrameType) -> str:
    """What is done there, in the words of `WORK`."""
    modules = [str(each.f_globals.get("__name__", "")) for each in outward(frame)]
    if "importlib._bootstrap" in modules:
        return "importing libraries"
    for module in modules:
        parts = module.split(".")
        for length in range(len(parts), 0, -1):
            if (known := WORK.get(".".join(parts[:length]))) is not None:
                return known
    return "other"


class Looker(threading.Thread):
    """Counts, every few milliseconds, what is done and in which function of ours."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.work: Counter[str] = Counter()
        self.own: Counter[str] = Counter()
        self.finished = threading.Event()
        self.watched = threading.main_thread().ident

    def run(self) -> None:
        """Until `finished` is set."""
        while not self.finished.wait(INTERVAL):
            frame = sys._current_frames().get(self.watched or 0)
            if frame is not None:
                self.work[work(frame)] += 1
                self.own[next((name(each) for each in outward(frame) if ours(each)), "outside")] += 1


def shares(counts: Counter[str]) -> dict[str, float]:
    """The largest of them, as parts of one."""
    total = max(1, counts.total())
    return {what: round(count / total, 2) for what, count in counts.most_common(SHARES)}


def known_by(sources: Sequence[str]) -> list[str]:
    """For each cell its first line that no other cell has: it finds the cell again however the others change."""
    lines = [[line.strip() for line in source.splitlines() if line.strip()] for source in sources]
    times = Counter(line for cell in lines for line in set(cell))
    return [next((line for line in cell if times[line] == 1 and line[0] != "#"), "") for cell in lines]


def processor_seconds() -> float:
    """What this process and those it waited for have had of a processor: a busy machine does not lengthen it."""
    return sum(os.times()[:4])


def profile(path: Path) -> list[dict[str, Any]]:
    """Run one chapter in this process; the processor time of every cell and what it went into."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    os.chdir(path.parent)
    # A thread that wants to look waits this long at most; with the usual 5 ms it sees mostly functions that wait too.
    sys.setswitchinterval(1e-4)
    shell = InteractiveShell.instance()
    vars(shell)["enable_gui"] = lambda gui=None: None  # there are no windows here
    shell.run_line_magic("matplotlib", "inline")
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    cells = []
    for cell, starts in zip(code, known_by([cell.source for cell in code]), strict=True):
        looker = Looker()
        looker.start()
        started = processor_seconds()
        with capture_output():
            result = shell.run_cell(cell.source, silent=False, store_history=True)
        seconds = processor_seconds() - started
        looker.finished.set()
        looker.join()
        if not result.success and "raises-exception" not in cell.metadata.get("tags", []):
            raise RuntimeError(f"{path.name}, {starts!r}: {result.error_in_exec or result.error_before_exec!r}")
        cells.append(
            {
                "starts": starts,
                "seconds": round(seconds, 2),
                "work": shares(looker.work),
                "by": shares(looker.own),
                "optional": any(call in cell.source for call in OPTIONAL),
            }
        )
    return cells


def summary(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a chapter."""
    kept = [{key: cell[key] for key in ("starts", "seconds", "work", "by")} for cell in cells]
    slowest = sorted(kept, key=lambda cell: -cell["seconds"])[:CELLS]
    return {"seconds": round(sum(cell["seconds"] for cell in kept), 1), "cells": len(kept), "slowest": slowest}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Time the cells of chapters and say what the slowest ones do.")
    parser.add_argument("names", nargs="*", help="for example 1_foundations/01_learning_by_comparison")
    parser.add_argument("--optional", metavar="FOLDER", help="only time cells that need the packages in this folder")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # one chapter, in this process; prints what it found
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(profile(Path(args.inside).resolve())))
        return
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    alone = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "PYTHONHASHSEED": "0"}
    env = {**os.environ, **alone}
    if args.optional:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), args.optional)))
    machine = f"{device_name(torch.device('cpu'))}, PyTorch {torch.__version__.partition('+')[0]}"
    for path in tqdm(find(args.names), unit="chapter"):
        command = [sys.executable, __file__, "--inside", str(path)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{path}:\n{done.stderr[-2000:]}")
        cells = json.loads(done.stdout.strip().splitlines()[-1])
        entry = record.setdefault(path.relative_to(CHAPTERS).with_suffix("").as_posix(), {})
        if args.optional:
            entry["optional"] = {cell["starts"]: cell["seconds"] for cell in cells if cell["optional"]}
        else:
            entry |= summary(cells) | {"machine": machine}
        files.write_text(RECORD, json.dumps(dict(sorted(record.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
