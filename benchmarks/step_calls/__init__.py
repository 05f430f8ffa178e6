"""One training step of every method of the survey, and the plain step of its family on the same inputs.

A part of the survey is a module here; its ``CASES`` say for every slug what n counts, what stands beside, how large n
is, how to make the two steps, and why the cost must grow faster than n where it does. Encoders are as small as possible
or left out: what is measured is what the method itself adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

DIM = 128
SIZES = (64, 256, 1024)

#: Runs forward and backward, and what the method does after a step; gives what was trained, with gradients.
Trained = Callable[[], list[Tensor]]


class Case(NamedTuple):
    """How a method is measured.

    Attributes:
        n: what the sizes count.
        baseline: the plain step beside it.
        make: both steps at a size, the method's first.
        why: why time or memory must grow faster than n; empty where they do not.
        sizes: three of them, increasing.
        note: what the step contains, where that is not obvious.
    """

    n: str
    baseline: str
    make: Callable[[int], tuple[Trained, Trained]]
    why: str = ""
    sizes: tuple[int, int, int] = SIZES
    note: str = ""


def rows(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Standard normal ``(n, ...)``, ``(n, 128)`` by default."""
    return torch.randn(n, *(shape or (DIM,)), generator=torch.Generator().manual_seed(seed))


def trainable(n: int, *shape: int, seed: int = 0) -> Tensor:
    """The same as embeddings that get a gradient."""
    return rows(n, *shape, seed=seed).requires_grad_()


def whole(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Integers from 0 to ``high - 1``."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def in_views(n: int, count: int = 2) -> list[Tensor]:
    """Embeddings ``(n, 128)`` of several views of the same samples."""
    common = rows(n)
    return [(0.5 * common + rows(n, seed=v + 1)).requires_grad_() for v in range(count)]


def in_classes(n: int, classes: int = 10) -> Tensor:
    """Classes, evenly spread."""
    return torch.arange(n) % classes


def descend(loss: Callable[[], Any], trained: Iterable[Tensor], *after: Callable[[], Any]) -> Trained:
    """A step without an optimizer: forward, backward, and what the method does afterward."""
    wanted = [x for x in trained if x.requires_grad]

    def step() -> list[Tensor]:
        for x in wanted:
            x.grad = None
        found = loss()
        (found if isinstance(found, Tensor) else found[0]).backward()
        for act in after:
            act()
        return wanted

    return step


def own(step: Callable[[], Any], method: nn.Module) -> Trained:
    """A step of a method that has its optimizers itself."""

    def run() -> list[Tensor]:
        step()
        return list(method.parameters())

    return run


class Bigram(nn.Module):
    """The smallest language model: states are embeddings of the last token, logits a product with them."""

    def __init__(self, vocabulary: int = 256) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(vocabulary, DIM), nn.Linear(DIM, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States ``(n, T, 128)`` and logits ``(n, T, vocabulary)``."""
        states = self.embedding(tokens)
        return states, self.output(states)


def cases() -> dict[str, Case]:
    """All of them, by slug."""
    from . import alignment, crossmodal, graphs, labels, language, losses, signals, theory, views

    parts = (theory, losses, views, labels, language, crossmodal, graphs, signals, alignment)
    return {slug: case for part in parts for slug, case in part.CASES.items()}
