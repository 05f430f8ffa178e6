"""The fastest of several ways that give the same numbers, found by measuring once on a machine.

A constant found on one processor is wrong on another: caches differ. So the ways are timed at first use, and what was
found is remembered in a small file of the user's cache folder, for this processor, this torch and this number of
threads.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch

from .. import files

__all__ = ["fastest"]

# Another way must be so much faster than the usual one to be taken: timings on a busy machine differ by as much.
CLEARLY = 0.9
ROUNDS = 5
_found: dict[str, int] = {}


def fastest(task: str, ways: Sequence[int], run: Callable[[int], None], device: torch.device) -> int:
    """The way in which ``run`` takes the least time; the first, unless another is clearly faster.

    Args:
        task: under which the answer is remembered.
        ways: numbers to choose from, the usual one first.
        run: does a typical piece of work in one of the ways, without a trace (no global random numbers, no gradient).
        device: on which it works.
    """
    key = f"{task}, {device_name(device)}, torch {torch.__version__}"
    if device.type == "cpu":
        key += f", {torch.get_num_threads()} threads"
    if key not in _found:
        remembered = _read().get(key)
        if remembered is not None and remembered in ways:
            _found[key] = remembered
        else:
            _found[key] = _measure(ways, run, device)
            _remember(key, _found[key])
    return _found[key]


def _measure(ways: Sequence[int], run: Callable[[int], None], device: torch.device) -> int:
    # On a CPU the time that was worked, not the time that passed: others may hold the processor in between.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    least = dict.fromkeys(ways, float("inf"))
    for round_ in range(ROUNDS + 1):
        for way in ways:
            start = clock()
            run(way)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:  # the first only warms up
                least[way] = min(least[way], clock() - start)
    best = min(ways, key=least.__getitem__)
    return best if least[best] < CLEARLY * least[ways[0]] else ways[0]


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "cl_teach" / "fastest.json"


def _read() -> dict[str, int]:
    """What was found before; nothing, where the file is missing or damaged."""
    with suppress(OSError, ValueError, RuntimeError):
        content = json.loads(_file().read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _remember(key: str, way: int) -> None:
    with suppress(OSError, RuntimeError):  # a home that cannot be written to: measured again next time
        files.write_json(_file(), _read() | {key: way})


@lru_cache(maxsize=8)
def device_name(device: torch.device) -> str:
    """The model of a processor or of a card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
