"""Everything a run needs to go on, in one file: weights, optimizer, schedule, losses, and every random state.

The file is written beside the old one and then put in its place, so whenever the power fails one of them is whole; and
only after the losses and the weights have been looked at, so it is always a good one.
"""

from __future__ import annotations

import os
import random
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from .batches import Source
from .processes import everybodys, rank, wait_for_all, world_size

__all__: list[str] = []

FORMAT = 1


class Checkpoint:
    """A file to go on from, or none.

    Args:
        file: its path; None for no checkpoint.
        settings: what a run that goes on must have in common with the one that stopped.
        parts: what has a ``state_dict``: the module first.
        generators: whose states belong to the run.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        settings: dict[str, Any],
        parts: dict[str, Any],
        generators: list[Generator],
    ) -> None:
        self.file = None if file is None else Path(file)
        self.settings, self.parts, self.generators = settings, parts, generators
        self.at_epoch: dict[str, Any] | None = None  # random states at the start of this epoch
        self.now: dict[str, Any] | None = None  # and where a run goes on
        self.saved_step = 0
        if self.file is not None and self.file.is_dir():
            raise ValueError(f"checkpoint: expected a file, {self.file} is a folder")

    def load(self) -> tuple[Tensor, list[dict[str, Any]], float]:
        """Put everything back: losses, metrics and seconds of the run so far."""
        state = None if self.file is None or not self.file.is_file() else self._read(self.file)
        if state is None:
            return torch.empty(0), [], 0.0
        for name, value in self.settings.items():
            if state["settings"].get(name) != value:
                raise ValueError(
                    f"checkpoint: {self.file} is of a run with {name}={state['settings'].get(name)}, this one has "
                    f"{value}; use the same settings to go on, or another file to begin"
                )
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state["parts"][name])
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                what = str(error).splitlines()
                raise ValueError(
                    f"checkpoint: the {name} of {self.file} does not fit this one ({' '.join(what[:2]).strip()}); "
                    "use the same one to go on, or another file to begin"
                ) from None
        mine = state["random"][rank()]
        self.at_epoch, self.now = mine["epoch"], mine["now"]
        self._set_random(self.now)
        self.saved_step = len(state["losses"])
        return state["losses"], state["metrics"], state["seconds"]

    def batches(self, source: Source, epoch: int, done: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch; of one that was broken off after ``done``, the others."""
        if self.file is None:
            yield from source.epoch(epoch)
            return
        if done:
            assert self.at_epoch is not None and self.now is not None
            self._set_random(self.at_epoch)
            stream = source.epoch(epoch)
            for _ in range(done):
                next(stream)
            self._set_random(self.now)
        else:
            self.at_epoch = self._random()
            stream = source.epoch(epoch)
        yield from stream

    def save(self, losses: Tensor, metrics: list[dict[str, Any]], seconds: float) -> None:
        """Write it; every process comes here, process 0 writes."""
        if self.file is None:
            return
        states = everybodys({"epoch": self.at_epoch, "now": self._random()})
        if rank() == 0:
            state = {
                "format": FORMAT,
                "settings": self.settings,
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "random": states,
                "losses": losses,
                "metrics": [{name: _plain(name, value) for name, value in row.items()} for row in metrics],
                "seconds": seconds,
            }
            _write(self.file, state)
        self.saved_step = len(losses)
        wait_for_all()

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickles: what cannot be read is answered below
                state = torch.load(file, map_location="cpu", weights_only=True)
        except OSError as error:
            raise OSError(error.errno, f"checkpoint: {file} cannot be read ({error.strerror})") from None
        except Exception:  # a damaged file fails in as many ways as it has bytes
            raise ValueError(
                f"checkpoint: {file} is damaged, or no checkpoint at all; delete it to begin anew, or take another file"
            ) from None
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise ValueError(
                f"checkpoint: {file} holds something else than a run of fit or pretrain; delete it to begin anew, "
                "or take another file"
            )
        if state["settings"].get("processes") != world_size():
            raise ValueError(
                f"checkpoint: {file} is of a run with processes={state['settings'].get('processes')}, this one has "
                f"{world_size()}; use as many to go on, or another file to begin"
            )
        return state

    def _random(self) -> dict[str, Any]:
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        version, words, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "gpu": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
            "python": (version, torch.tensor(words), gauss),
            "generators": [generator.get_state() for generator in self.generators],
        }

    def _set_random(self, state: dict[str, Any]) -> None:
        if len(state["generators"]) != len(self.generators):
            raise ValueError(
                f"checkpoint: {self.file} is of a run with {len(state['generators'])} random generators, this one has "
                f"{len(self.generators)}; use the same functions to go on, or another file to begin"
            )
        torch.set_rng_state(state["torch"])
        if state["gpu"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["gpu"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words.tolist()), gauss))
        for generator, value in zip(self.generators, state["generators"], strict=True):
            generator.set_state(value)


def _plain(name: str, value: Any) -> Any:
    """What ``torch.load`` reads again without running foreign code."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(name, x) for x in value]
    if isinstance(value, dict):
        return {key: _plain(name, x) for key, x in value.items()}
    raise TypeError(
        f"after_epoch: with checkpoint= its dictionary may hold numbers, strings, tensors and lists of them, "
        f"{name!r} is {type(value).__name__}"
    )


def _write(file: Path, state: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.parent / f".{file.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("xb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise OSError(f"checkpoint: {file} was not written, and is as it was ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
