"""Optimizers and schedules, by name or as a function; mixed precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.checks import check_choice, check_count, check_in_range, check_positive

__all__ = ["cosine"]

OptimizerLike = str | Optimizer | Callable[..., Optimizer]
ScheduleLike = str | LRScheduler | Callable[[int, int], float]


def cosine(warmup: int = 0) -> Callable[[int, int], float]:
    """A schedule for `fit`: a straight rise over ``warmup`` steps, then half a cosine that reaches zero at the end.

    Args:
        warmup: steps of the rise; 0 for none.

    Returns:
        ``schedule(step, steps)``, a factor for the learning rate, with ``step`` from 0.

    Example:
        >>> [round(cosine(warmup=2)(step, 6), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    check_count(0, warmup=warmup)

    def schedule(step: int, steps: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2

    return schedule


def make_optimizer(module: nn.Module, optimizer: OptimizerLike, learning_rate: float, weight_decay: float) -> Optimizer:
    """An optimizer from a name, a class of ``torch.optim``, a function of the parameters, or one that exists."""
    parameters = list(module.parameters())
    if not parameters:
        raise ValueError("module: has no parameters, so there is nothing to train")
    if isinstance(optimizer, Optimizer):
        return optimizer
    make: Any = optimizer
    if isinstance(make, type) and issubclass(make, Optimizer):
        made = cast(Callable[..., Optimizer], make)(parameters, lr=learning_rate, weight_decay=weight_decay)
    elif callable(make):
        made = make(parameters)
    else:
        check_choice(("adamw", "sgd"), optimizer=make)
        if make == "adamw":
            return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
        return SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    if not isinstance(made, Optimizer):
        raise TypeError(f"optimizer: expected a function that returns a torch optimizer, got {type(made).__name__}")
    return made


class Schedule:
    """The learning rate of every step: a factor of each parameter group's own initial rate."""

    def __init__(self, schedule: ScheduleLike, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.scheduler: LRScheduler | None = None
        # As torch's schedulers do: an optimizer that is used again still knows where it began.
        self.initial = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        if isinstance(schedule, LRScheduler):
            if schedule.optimizer is not optimizer:
                raise ValueError("schedule: it moves another optimizer; pass optimizer=schedule.optimizer as well")
            self.scheduler = schedule
            return
        if isinstance(schedule, type) or not (callable(schedule) or isinstance(schedule, str)):
            raise TypeError(
                "schedule: expected 'cosine', 'constant', a function of (step, steps) that returns a factor, "
                f"or a torch scheduler made from the optimizer, got {schedule!r}"
            )
        if isinstance(schedule, str):
            check_choice(("cosine", "constant"), schedule=schedule)
            schedule = cosine() if schedule == "cosine" else (lambda step, steps: 1.0)
        self.factor = schedule

    def before(self, step: int, steps: int) -> None:
        """Set the rate for step number ``step``, from 0."""
        if self.scheduler is None:
            factor = self.factor(step, steps)
            if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
                raise ValueError(f"schedule: expected a finite factor of at least 0 at step {step}, got {factor!r}")
            for group, rate in zip(self.optimizer.param_groups, self.initial, strict=True):
                group["lr"] = rate * factor

    def after(self) -> None:
        """A torch scheduler counts steps itself."""
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """A factor follows from the step; a scheduler has a state."""
        return {} if self.scheduler is None else self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put a scheduler back."""
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state)


def autocast_dtype(amp: bool | torch.dtype, where: torch.device) -> torch.dtype | None:
    """The dtype of mixed precision; None for full precision."""
    if isinstance(amp, torch.dtype):
        if amp not in (torch.float16, torch.bfloat16):
            raise ValueError(f"amp: expected True, False, torch.bfloat16 or torch.float16, got {amp}")
        return amp
    if not isinstance(amp, bool):
        raise TypeError(f"amp: expected True, False, torch.bfloat16 or torch.float16, got {type(amp).__name__}")
    if not amp:
        return None
    return torch.bfloat16 if where.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16


def autocast(dtype: torch.dtype | None, where: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass."""
    return nullcontext() if dtype is None else torch.autocast(where.type, dtype=dtype)


def parts_of(batch: Any, count: int) -> Iterator[Any]:
    """Equal parts of a batch, through tuples and lists."""
    if count == 1:
        yield batch
    elif isinstance(batch, tuple | list):
        for part in zip(*(parts_of(x, count) for x in batch), strict=True):
            yield type(batch)(part)
    else:
        if len(batch) % count:
            raise ValueError(f"accumulate: expected a divisor of the {len(batch)} rows of a batch, got {count}")
        size = len(batch) // count
        for i in range(count):
            yield batch[i * size : (i + 1) * size]


def check_rates(learning_rate: float, weight_decay: float) -> None:
    """A learning rate above zero, a weight decay of at least zero."""
    check_positive(learning_rate=learning_rate)
    check_in_range(0, math.inf, weight_decay=weight_decay)
