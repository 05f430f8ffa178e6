"""One training loop for the whole book.

A method is a function from a batch to a loss. Everything else about training, drawing batches, stepping, the learning
rate, the progress bar, the device, is the same for all of them and lives here, on one page.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from .core.checks import check_batch, check_choice, check_positive, check_same_length

__all__ = ["History", "at_scale", "batches", "device", "fit", "in_chunks", "pretrain", "seed_everything"]

T = TypeVar("T")


class History(NamedTuple):
    """What a training run leaves behind.

    Attributes:
        losses: ``(steps,)`` loss of every step, on the CPU.
        metrics: what ``after_epoch`` returned, one dictionary an epoch.
        seconds: wall-clock time.
    """

    losses: Tensor
    metrics: list[dict[str, Any]]
    seconds: float


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def at_scale(small: T, full: T) -> T:
    """``small``, or ``full`` where the environment says ``CL_TEACH_SCALE=full`` (the larger runs, for a GPU).

    Raises:
        ValueError: the variable holds something else.
    """
    scale = os.environ.get("CL_TEACH_SCALE", "small")
    check_choice(("small", "full"), CL_TEACH_SCALE=scale)
    return small if scale == "small" else full


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, NumPy and torch, and return a fresh generator on `device()` with the same seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator(device()).manual_seed(seed)


def batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index tensors of one shuffled pass; an incomplete last batch is dropped, so that every loss sees equal batches.

    Raises:
        ValueError: fewer rows than one batch.
    """
    check_batch(n, batch_size, name="data", why=f"to fill one batch of batch_size={batch_size}")
    order = torch.randperm(n, generator=generator, device=generator.device)
    yield from order[: n - n % batch_size].split(batch_size)


def fit(
    module: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: Tensor | tuple[Tensor, ...],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: str = "adamw",
    schedule: str = "cosine",
    seed: int = 0,
    after_step: Callable[[], None] | None = None,
    after_epoch: Callable[[int], dict[str, Any] | None] | None = None,
    description: str = "training",
    progress: bool = True,
) -> History:
    """Minimize ``loss_fn`` over the parameters of ``module``.

    Module and data move to `device()` once, before the first step.

    Args:
        module: holds everything that is trained; several networks go into one ``nn.ModuleList``.
        loss_fn: called with one batch of each tensor in ``data``, returns a scalar.
        data: one tensor, or several of equal length whose rows belong together.
        epochs: passes over the data.
        batch_size: rows in a step.
        learning_rate: its initial value.
        weight_decay: for AdamW decoupled, for SGD added to the gradient.
        optimizer: ``"adamw"`` or ``"sgd"`` (momentum 0.9).
        schedule: ``"cosine"`` (to zero at the last step) or ``"constant"``.
        seed: for the order of the batches only; the caller seeds initialization and augmentation.
        after_step: called after every optimizer step (a momentum teacher updates here).
        after_epoch: called with the number of finished epochs in evaluation mode; its dictionary is kept.
        description: label of the progress bar.
        progress: whether to show the bar.

    Returns:
        The run's `History`.

    Raises:
        ValueError: bad settings, data of unequal length or smaller than a batch.
        FloatingPointError: the loss became NaN or infinite.
    """
    tensors = data if isinstance(data, tuple) else (data,)
    check_same_length(**{f"data[{i}]": x for i, x in enumerate(tensors)})
    check_positive(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    check_choice(("adamw", "sgd"), optimizer=optimizer)
    check_choice(("cosine", "constant"), schedule=schedule)

    where = device()
    module.to(where)
    tensors = tuple(x.to(where) for x in tensors)
    if optimizer == "adamw":
        stepper: torch.optim.Optimizer = torch.optim.AdamW(
            module.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
    else:
        stepper = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
    steps = epochs * (len(tensors[0]) // batch_size)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, max(steps, 1)) if schedule == "cosine" else None
    generator = torch.Generator(where).manual_seed(seed)

    losses: list[Tensor] = []
    metrics: list[dict[str, Any]] = []
    start = time.perf_counter()
    quiet = {} if progress else {"disable": True}  # absent, not False: TQDM_DISABLE=1 then still silences every bar
    with tqdm(total=steps, desc=description, leave=False, **quiet) as bar:
        for epoch in range(1, epochs + 1):
            module.train()
            for rows in batches(len(tensors[0]), batch_size, generator):
                loss = loss_fn(*(x[rows] for x in tensors))
                stepper.zero_grad()
                loss.backward()
                stepper.step()
                if rate is not None:
                    rate.step()
                if after_step is not None:
                    after_step()
                losses.append(loss.detach())
                bar.update()
            last = losses[-1].item()  # once an epoch: reading the loss every step would make a GPU wait
            if not np.isfinite(last):
                raise FloatingPointError(
                    f"the loss became {last} in epoch {epoch}; lower learning_rate={learning_rate}"
                )
            bar.set_postfix(loss=f"{last:.3f}")
            if after_epoch is not None:
                module.eval()
                metrics.append(after_epoch(epoch) or {})
    module.eval()
    return History(torch.stack(losses).cpu(), metrics, time.perf_counter() - start)


def pretrain(
    encoder: nn.Module,
    head: nn.Module,
    images: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    augment: Callable[..., Tensor],
    seed: int = 0,
    chunk: int | None = None,
    **options: Any,
) -> History:
    """Contrastive pre-training as SimCLR does it: two augmented views of each image, encoder, head, loss.

    Args:
        encoder: images ``(n, c, h, w)`` to features ``(n, f)``; what is kept afterwards.
        head: features to embeddings ``(n, d)``; what the loss sees.
        images: ``(m, c, h, w)``.
        loss: of two batches of embeddings, row i of both from the same image.
        augment: called as ``augment(images, generator)``.
        seed: for batches and augmentation.
        chunk: embed so many views at a time, see `in_chunks`; None for all at once.
        **options: passed on to `fit` (``epochs``, ``batch_size``, ``learning_rate``, ...).

    Returns:
        The run's `History`.

    Source:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (2020), algorithm 1.
    """
    generator = torch.Generator(device()).manual_seed(seed)
    network = nn.Sequential(encoder, head)

    def step(batch: Tensor) -> Tensor:
        # Both views in one pass: they share the statistics of batch normalization.
        views = torch.cat([augment(batch, generator), augment(batch, generator)])
        z1, z2 = (network(views) if chunk is None else in_chunks(network, views, chunk)).chunk(2)
        return loss(z1, z2)

    return fit(network, step, images, seed=seed, **options)


def in_chunks(network: nn.Module, inputs: Tensor, chunk: int) -> Tensor:
    """Embed a batch of any size with the activations of ``chunk`` rows in memory: gradient caching.

    Forward, each chunk's activations are thrown away and only its embeddings are kept; backward, each chunk is embedded
    once more, with the same random numbers, and used up before the next. The loss still sees the whole batch, so value
    and gradient are those of ``network(inputs)``, for the price of one more forward pass.

    Args:
        network: its training mode must treat rows independently. Batch normalization does not: each chunk would be
            normalized by itself, so it is refused.
        inputs: ``(n, ...)``.
        chunk: rows at a time, at least 1; the last chunk may be smaller.

    Returns:
        ``(n, d)``, what ``network(inputs)`` gives.

    Raises:
        ValueError: ``chunk`` below 1, or batch normalization in training mode.

    Source:
        Gao, Zhang, Han and Callan, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (2021).
        Here PyTorch's activation checkpointing does both passes.
    """
    check_positive(chunk=chunk)
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"network: {name or 'it'} is batch normalization in training mode, whose statistics would be those of "
                f"chunks of {chunk} rows; use LayerNorm or GroupNorm, or batches that fit"
            )
    return torch.cat([checkpoint(network, rows, use_reentrant=False) for rows in inputs.split(chunk)])
