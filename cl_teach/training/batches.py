"""Where the batches come from: tensors in memory, a ``Dataset``, or a ``DataLoader``.

All three look the same to the loop: ``steps`` batches an epoch, and ``epoch()`` gives them, on the device. In several
processes each gets its part of every batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from ..core.checks import check_batch, check_count, check_same_length, check_type
from .processes import own_part, world_size

__all__ = ["batches"]


def batches(n: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    """Index tensors of one shuffled pass; an incomplete last batch is dropped, so that every loss sees equal batches.

    Args:
        n: number of rows.
        batch_size: rows in a batch, at most ``n``.
        generator: source of the order.
    """
    check_count(n=n, batch_size=batch_size)
    check_type(Generator, generator=generator)
    check_batch(n, batch_size, name="data", why=f"to fill one batch of batch_size={batch_size}")
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from order[: n - n % batch_size].split(batch_size)


class Source(Protocol):
    """What the loop needs to know of its data."""

    steps: int
    rows: int
    generators: list[Generator]

    def epoch(self, number: int) -> Iterator[tuple[Any, ...]]:
        """The batches of pass ``number``, from 1."""
        ...

    def blame(self) -> str | None:
        """Where NaN or infinity lies in the data, if it is there."""
        ...


def open_data(data: Any, batch_size: int | None, seed: int, workers: int, where: torch.device) -> Source:
    """The source for what the caller has."""
    check_count(0, workers=workers)
    if isinstance(data, DataLoader):
        if batch_size is not None:
            raise ValueError(f"batch_size: the DataLoader has its own, {data.batch_size}; leave batch_size out")
        return LoaderSource(data, where)
    if batch_size is None:
        raise TypeError("batch_size: it is needed, unless data is a DataLoader, which has its own")
    check_count(batch_size=batch_size)
    if batch_size % world_size():
        raise ValueError(f"batch_size: expected a multiple of the {world_size()} processes, got {batch_size}")
    if isinstance(data, Dataset):
        return DatasetSource(data, batch_size, seed, workers, where)
    if workers:
        raise ValueError(f"workers: tensors in memory need none, got {workers}; they are for a Dataset")
    return TensorSource(_tensors(data), batch_size, seed, where)


def _tensors(data: Any) -> tuple[Tensor, ...]:
    tensors = data if isinstance(data, tuple) else (data,)
    if hasattr(data, "images") and hasattr(data, "labels"):
        raise TypeError("data: got a whole ImageSet; write data=train.images, or data=(train.images, train.labels)")
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            hint = "; use torch.from_numpy(...)" if isinstance(x, np.ndarray) else ""
            name = f"data[{i}]" if isinstance(data, tuple) else "data"
            raise TypeError(
                f"{name}: expected a torch.Tensor, a tuple of tensors, a Dataset or a DataLoader, "
                f"got {type(x).__name__}{hint}"
            )
    if not tensors:
        raise ValueError("data: expected at least one tensor, got an empty tuple")
    check_same_length(**{f"data[{i}]": x for i, x in enumerate(tensors)})
    return tensors


class TensorSource:
    """Rows of tensors that lie on the device."""

    def __init__(self, tensors: tuple[Tensor, ...], batch_size: int, seed: int, where: torch.device) -> None:
        self.rows, self.batch_size = len(tensors[0]), batch_size
        check_batch(self.rows, batch_size, name="data", why=f"to fill one batch of batch_size={batch_size}")
        self.tensors = tuple(x.detach().to(where) for x in tensors)
        self.order = Generator(where).manual_seed(seed)
        self.generators, self.steps = [self.order], self.rows // batch_size

    def epoch(self, number: int) -> Iterator[tuple[Any, ...]]:
        """One shuffled pass."""
        for rows in batches(self.rows, self.batch_size, self.order):
            yield tuple(x[own_part(rows)] for x in self.tensors)

    def blame(self) -> str | None:
        """Look at all rows: this is asked once, when a loss is lost."""
        for i, x in enumerate(self.tensors):
            if (
                x.is_floating_point()
                and not (good := x.isfinite().flatten(1).all(1) if x.ndim > 1 else x.isfinite()).all()
            ):
                first, bad = int((~good).int().argmax()), int((~good).sum())
                return f"data[{i}]: row {first} holds NaN or infinity, as do {bad} of {self.rows} rows"
        return None


class _Blamed:
    """Batches come and go, so each is looked at when it comes: one sum a tensor, read only when a loss is lost."""

    def __init__(self) -> None:
        self.finite: list[Tensor] = []

    def look(self, batch: tuple[Any, ...]) -> None:
        sums = [x.sum().isfinite() for x in _leaves(batch) if x.is_floating_point()]
        self.finite.append(torch.stack(sums).all() if sums else torch.ones((), dtype=torch.bool))
        del self.finite[:-1000]

    def blame(self) -> str | None:
        for i, good in enumerate(self.finite):
            if not good:
                return f"data: a batch holds NaN or infinity, {len(self.finite) - i - 1} steps before the last"
        return None


class DatasetSource(_Blamed):
    """Items of a ``Dataset``, read by this process or by workers.

    What an item's random transforms draw depends on the seed, the epoch and the row alone: any number of workers and of
    processes gives the same, and so does a run that goes on from a checkpoint.
    """

    def __init__(self, data: Dataset[Any], batch_size: int, seed: int, workers: int, where: torch.device) -> None:
        super().__init__()
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise TypeError("data: a Dataset without a length and an order cannot be shuffled; pass a DataLoader of it")
        self.rows, self.batch_size, self.where = len(cast(Sized, data)), batch_size, where
        check_batch(self.rows, batch_size, name="data", why=f"to fill one batch of batch_size={batch_size}")
        self.order = Generator().manual_seed(seed)
        self.generators, self.steps = [self.order], self.rows // batch_size
        self.today: list[list[tuple[int, int]]] = []  # rows and their seeds, batch by batch; the sampler of the loader
        self.loader: DataLoader[Any] = DataLoader(
            cast(Dataset[Any], _Seeded(data)),
            batch_sampler=self.today,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=where.type == "cuda",
            generator=Generator(),  # so that torch's global state is left alone
        )

    def epoch(self, number: int) -> Iterator[tuple[Any, ...]]:
        """One shuffled pass."""
        seeds = torch.randint(2**62, (self.rows,), generator=self.order)
        parts = [own_part(rows) for rows in batches(self.rows, self.batch_size, self.order)]
        self.today[:] = [list(zip(rows.tolist(), seeds[rows].tolist(), strict=True)) for rows in parts]
        for batch in self.loader:
            batch = _as_arguments(batch)
            self.look(batch)
            yield _moved(batch, self.where)


class _Seeded:
    """A data set that is asked for ``(row, seed)`` and draws from that seed; the state of everything else stays."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(cast(Sized, self.data))

    def __getitem__(self, key: tuple[int, int]) -> Any:
        row, seed = key
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPU
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            return self.data[row]
        finally:
            torch.set_rng_state(states[0])
            random.setstate(states[1])
            np.random.set_state(states[2])


class LoaderSource(_Blamed):
    """Batches of somebody's ``DataLoader``, as they come."""

    def __init__(self, loader: DataLoader[Any], where: torch.device) -> None:
        super().__init__()
        try:
            self.steps = len(loader)
            self.rows = len(cast(Sized, loader.dataset))
        except TypeError:
            raise TypeError(
                "data: expected a DataLoader with a length, so that epochs and schedules have one"
            ) from None
        if self.steps == 0:
            raise ValueError(
                "data: the DataLoader has no batch; is its batch_size larger than the data, with drop_last?"
            )
        sampler = getattr(loader, "sampler", None)
        if world_size() > 1 and not hasattr(sampler, "set_epoch"):
            raise ValueError(
                f"data: in {world_size()} processes this DataLoader would give everyone the same rows; give it a "
                "DistributedSampler, or pass its Dataset and batch_size="
            )
        self.loader, self.where = loader, where
        self.generators = [g for g in (loader.generator, getattr(sampler, "generator", None)) if g is not None]

    def epoch(self, number: int) -> Iterator[tuple[Any, ...]]:
        """One pass; a sampler that shuffles by the number of the epoch is told it."""
        if isinstance(self.loader.sampler, DistributedSampler):
            self.loader.sampler.set_epoch(number)
        for batch in self.loader:
            batch = _as_arguments(batch)
            self.look(batch)
            yield _moved(batch, self.where)


def _as_arguments(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, tuple | list) else (batch,)


def _moved(thing: Any, where: torch.device) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(where, non_blocking=True)
    if isinstance(thing, dict):
        return {name: _moved(value, where) for name, value in thing.items()}
    if isinstance(thing, tuple | list):
        return type(thing)(_moved(x, where) for x in thing)
    return thing


def _leaves(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict):
        yield from _leaves(list(thing.values()))
    elif isinstance(thing, tuple | list):
        for x in thing:
            yield from _leaves(x)
