"""Is the loss still a number? Which step lost it, and was it the data?

Reading a loss makes a GPU wait, so there the losses stay on the device and are read fifty at a time; on a CPU each is
read at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .processes import largest, world_size

__all__: list[str] = []

TOGETHER = 50  # losses that are read with one transfer


class Losses:
    """The losses of a run, watched.

    Args:
        where: the device they lie on.
        known: ``(steps,)`` losses of a run that goes on.
        blame: says where NaN lies in the data, or nothing.
        advice: ends the sentence about a lost loss.
    """

    def __init__(self, where: torch.device, known: Tensor, blame: Callable[[], str | None], advice: str) -> None:
        self.every = 1 if where.type == "cpu" and world_size() == 1 else TOGETHER
        self.read, self.waiting = [known] if len(known) else [], list[Tensor]()
        self.count, self.blame, self.advice = len(known), blame, advice
        self.last = float("nan")

    def add(self, loss: Tensor) -> None:
        """One more."""
        self.waiting.append(loss)
        self.count += 1
        if len(self.waiting) >= self.every:
            self.check()

    def check(self) -> None:
        """Read what is waiting; every process comes here at the same steps, and all stop together."""
        if not self.waiting:
            return
        losses = torch.stack(self.waiting).cpu()
        first = self.count - len(losses)
        self.waiting = []
        bad = (~losses.isfinite()).nonzero()[:, 0]
        steps_left = largest(float(len(losses) - bad[0]) if len(bad) else 0.0)
        if steps_left:
            i = len(losses) - int(steps_left)
            step, value = first + i + 1, losses[i].item()
            if (why := self.blame()) is not None:
                raise ValueError(f"{why}; the loss became {value} at step {step}")
            raise FloatingPointError(f"the loss became {value} at step {step}, from finite data; {self.advice}")
        self.read.append(losses)
        self.last = losses[-1].item()

    def all(self) -> Tensor:
        """``(steps,)``, on the CPU."""
        self.check()
        if len(self.read) > 1:
            self.read = [torch.cat(self.read)]
        return self.read[0] if self.read else torch.empty(0)


def check_weights(module: nn.Module, step: int, advice: str) -> None:
    """A last finite loss may have had a gradient that is not: look before the weights are kept."""
    sums = [p.detach().sum().float() for p in module.parameters() if p.is_floating_point()]
    if sums and not torch.stack([x.to(sums[0].device) for x in sums]).isfinite().all():
        for name, p in module.named_parameters():  # a sum of large numbers may overflow: look at each
            if not p.detach().isfinite().all():
                raise FloatingPointError(f"the weights {name} hold NaN or infinity after step {step}; {advice}")
