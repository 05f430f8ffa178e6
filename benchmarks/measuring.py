"""How the benchmarks measure: sides that take turns, the largest memory of one pass, and on what machine.

A *step* is a function without arguments that does one forward and one backward pass.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from cl_teach.core.fastest import device_name

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative

Step = Callable[[], Any]


def wait() -> None:
    """Let a GPU finish what it was asked to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Step) -> float:
    """One call."""
    wait()
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def take_turns(steps: dict[str, Step], seconds: float, *, least: int = 3, most: int = 400) -> dict[str, float]:
    """Median seconds of each step. They take turns, so that what else the machine does hits all of them.

    Args:
        steps: by name of the side.
        seconds: about how long this may take; from it, and from one call of each, follows the number of rounds.
        least: rounds at least.
        most: rounds at the most.
    """
    once = sum([seconds_of(step) for step in steps.values()])  # also warms up
    rounds = min(max(round(seconds / once), least), most)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(rounds), leave=False, disable=rounds * once < 5):
        for name, step in steps.items():
            times[name].append(seconds_of(step))
    return {name: statistics.median(each) for name, each in times.items()}


def peak_of(step: Step) -> int:
    """Largest number of bytes allocated at once during one call, beyond what was there before."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def largest_resident_mib() -> float:
    """High-water mark of this process's memory; on Linux ru_maxrss would include the parent's before the start."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine(packages: Collection[str] = ()) -> dict[str, str]:
    """What the numbers were measured on, with the versions of the packages compared with."""
    gpu = {"gpu": torch.cuda.get_device_name()} if DEVICE.type == "cuda" else {}
    return {
        "processor": device_name(torch.device("cpu")),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **gpu,
        **{name: importlib.metadata.version(name) for name in packages},
    }
