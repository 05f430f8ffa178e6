"""The first line of every chapter: where am I running, on what, and how long will this take?"""

from __future__ import annotations

import platform
import sys

import torch

from .core.checks import check_in_range
from .training.settings import at_scale, device

__all__ = ["welcome"]


def welcome(*, cpu_seconds: float, gpu_seconds: float) -> None:
    """Print the versions, the device and the run time to expect of a chapter.

    Args:
        cpu_seconds: measured run time of the chapter on two CPU cores.
        gpu_seconds: run time of the full scale on one GPU, as far as it is known.
    """
    from . import __version__

    check_in_range(0, 1e9, cpu_seconds=cpu_seconds, gpu_seconds=gpu_seconds)
    where = device()
    threads = torch.get_num_threads()
    processor = "1 CPU thread" if threads == 1 else f"{threads} CPU threads"
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else processor
    seconds = at_scale(cpu_seconds, gpu_seconds)
    print(f"cl_teach {__version__}, torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}")
    print(f"running on {name} at {at_scale('small', 'full', 'smoke')} scale; expect about {seconds:.0f} seconds")
    if where.type == "cpu" and at_scale(False, True):
        print("CL_TEACH_SCALE=full wants a GPU; in Colab choose Runtime > Change runtime type", file=sys.stderr)
