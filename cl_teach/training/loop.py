"""The loop. `fit` minimizes any loss over any module; `pretrain` is SimCLR in a few lines on top of it.

A method is a function from a batch to a loss. Everything else about training, drawing batches, stepping, the learning
rate, the progress bar, the device, several processes, going on after a power cut, is the same for all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..core.checks import check_callable, check_count, check_flag, check_module, check_type
from .advice import knows_its_arguments
from .batches import open_data
from .checkpoints import Checkpoint
from .chunks import embedded
from .generators import generators_of
from .processes import average_gradients, gather, rank, send_state, world_size
from .settings import device
from .stepping import (
    OptimizerLike,
    Schedule,
    ScheduleLike,
    autocast,
    autocast_dtype,
    check_rates,
    make_optimizer,
    parts_of,
)
from .views import check_pictures, two_views
from .watching import Losses, check_weights

__all__ = ["History", "fit", "online_knn", "pretrain"]


class History(NamedTuple):
    """What a training run leaves behind, that of the time before a restart included.

    Attributes:
        losses: ``(steps,)`` loss of every step, on the CPU.
        metrics: what ``after_epoch`` returned, one dictionary an epoch.
        seconds: wall-clock time.
    """

    losses: Tensor
    metrics: list[dict[str, Any]]
    seconds: float


@knows_its_arguments
def fit(
    module: nn.Module,
    loss_fn: Callable[..., Any],
    data: Tensor | tuple[Tensor, ...] | Dataset[Any] | DataLoader[Any],
    *,
    epochs: int,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: OptimizerLike = "adamw",
    schedule: ScheduleLike = "cosine",
    seed: int = 0,
    amp: bool | torch.dtype = False,
    accumulate: int = 1,
    workers: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    after_step: Callable[[], None] | None = None,
    after_epoch: Callable[[int], dict[str, Any] | None] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    on_epoch: Callable[[int, float, dict[str, Any]], None] | None = None,
    description: str = "training",
    progress: bool = True,
) -> History:
    """Minimize ``loss_fn`` over the parameters of ``module``.

    Module and data move to `device()` once, before the first step. Inside `process_group` every process takes its part
    of each batch, and gradients are averaged; a loss that compares rows with one another must `gather` them first, as
    `pretrain` does.

    Args:
        module: holds everything that is trained; several networks go into one ``nn.ModuleList``.
        loss_fn: called with one batch of each tensor in ``data``, returns a scalar, or a tuple that begins with it.
        data: one tensor, or several of equal length whose rows belong together; or a ``Dataset``; or a ``DataLoader``.
        epochs: passes over the data.
        batch_size: rows in a step, over all processes together. A ``DataLoader`` has its own.
        learning_rate: its initial value.
        weight_decay: for AdamW decoupled, for SGD added to the gradient.
        optimizer: ``"adamw"``, ``"sgd"`` (momentum 0.9), a class of ``torch.optim``, a function of the parameters that
            returns an optimizer, or the optimizer itself; the last two say the learning rate themselves.
        schedule: ``"cosine"`` (to zero at the last step), ``"constant"``, a function of ``(step, steps)`` that returns
            a factor of the initial rate, such as ``cosine(warmup=100)``, or a torch scheduler.
        seed: for the order of the batches, and for what a ``Dataset`` draws; the caller seeds the rest.
        amp: mixed precision: True for bfloat16 where the device has it (else float16), or one of these two.
        accumulate: parts of a batch that are embedded one after the other and whose gradients are added. For a loss
            that is a mean over rows this changes nothing; a loss that compares rows would see those of its part only.
        workers: processes that read a ``Dataset``.
        checkpoint: file to go on from, if it exists, and to write to. A run of more ``epochs`` extends a finished one,
            along the schedule of the new length. What is kept beside the module has to be in it, or in an optimizer.
        checkpoint_every: write after so many steps too, not only after every epoch.
        after_step: called after every optimizer step (a momentum teacher updates here).
        after_epoch: called with the number of finished epochs in evaluation mode; its dictionary is kept.
        on_step: called, in process 0, with the number of the step and its loss, a 0-d tensor on the device.
        on_epoch: called, in process 0, with the number of the epoch, its mean loss, and what ``after_epoch`` returned.
        description: label of the progress bar.
        progress: whether to show the bar.

    Returns:
        The run's `History`.

    Raises:
        FloatingPointError: the loss or the weights became NaN or infinite; a checkpoint is still the last good one.
        ValueError: the data hold NaN or infinity, and the loss followed.
    """
    check_module(module=module)
    check_callable(loss_fn=loss_fn)
    check_count(epochs=epochs, accumulate=accumulate)
    check_count(0, seed=seed)
    check_rates(learning_rate, weight_decay)
    check_flag(progress=progress)
    check_type(str, description=description)
    calls = {"after_step": after_step, "after_epoch": after_epoch, "on_step": on_step, "on_epoch": on_epoch}
    check_callable(**{name: call for name, call in calls.items() if call is not None})
    if checkpoint_every is not None:
        check_count(checkpoint_every=checkpoint_every)
    if checkpoint is not None:
        check_type((str, os.PathLike), checkpoint=checkpoint)

    where = device()
    module.to(where)
    send_state(module)
    source = open_data(data, batch_size, int(seed), workers, where)
    if batch_size is not None and (batch_size // world_size()) % accumulate:
        raise ValueError(f"accumulate: expected a divisor of the {batch_size // world_size()} rows, got {accumulate}")
    steps = epochs * source.steps
    stepper = make_optimizer(module, optimizer, learning_rate, weight_decay)
    rate = Schedule(schedule, stepper)
    dtype = autocast_dtype(amp, where)
    scaler = torch.amp.GradScaler(where.type, enabled=dtype is torch.float16)

    settings = {
        "batch_size": batch_size,
        "seed": int(seed),
        "weight_decay": float(weight_decay),
        "processes": world_size(),
        "rows": source.rows,
        "optimizer": type(stepper).__name__,
    }
    parts = {"module": module, "optimizer": stepper, "schedule": rate, "scaler": scaler}
    own = generators_of(source.generators, module, loss_fn, after_step)
    saved = Checkpoint(checkpoint, settings, parts, own)
    known, metrics, before = saved.load()
    if len(known) > steps:
        raise ValueError(
            f"epochs: {checkpoint} has {len(known)} steps already, {epochs} epochs are {steps}; ask for more, "
            "or take another file"
        )
    advice = f"lower learning_rate={learning_rate:g}, or look for a logarithm or a division of 0 in the loss"
    if checkpoint is not None:
        advice += f". {checkpoint} is still the last good one"
    losses = Losses(where, known, source.blame, advice)

    start = time.perf_counter()
    quiet = {} if progress and rank() == 0 else {"disable": True}  # absent, not False: TQDM_DISABLE=1 works still
    with tqdm(total=steps, initial=len(known), desc=description, leave=False, **quiet) as bar:
        for epoch in range(len(known) // source.steps + 1, epochs + 1):
            module.train()
            for batch in saved.batches(source, epoch, losses.count - (epoch - 1) * source.steps):
                rate.before(losses.count, steps)
                stepper.zero_grad()
                total = torch.zeros((), device=where)
                for part in parts_of(batch, accumulate):
                    with autocast(dtype, where):
                        loss = checked_loss(loss_fn, part, module, losses) / accumulate
                    scaler.scale(loss).backward()
                    total = total + loss.detach()
                average_gradients(module)
                scaler.step(stepper)
                scaler.update()
                rate.after()
                if after_step is not None:
                    after_step()
                losses.add(total)
                if on_step is not None and rank() == 0:
                    on_step(losses.count, total)
                bar.update()
                if checkpoint_every and losses.count % checkpoint_every == 0 and losses.count % source.steps:
                    save(saved, losses, module, metrics, before + time.perf_counter() - start)

            losses.check()
            send_state(module)  # statistics of batch normalization differ between processes
            bar.set_postfix(loss=f"{losses.last:.3f}")
            module.eval()
            if after_epoch is not None:
                metrics.append(after_epoch(epoch) or {})
            if on_epoch is not None and rank() == 0:
                found = metrics[-1] if after_epoch is not None else {}
                on_epoch(epoch, losses.all()[-source.steps :].mean().item(), found)
            save(saved, losses, module, metrics, before + time.perf_counter() - start)
    module.eval()
    return History(losses.all(), metrics, before + time.perf_counter() - start)


@knows_its_arguments
def pretrain(
    encoder: nn.Module,
    head: nn.Module,
    images: Tensor | Dataset[Any] | DataLoader[Any],
    *,
    loss: Callable[[Tensor, Tensor], Any],
    augment: Callable[..., Tensor] | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    seed: int = 0,
    chunk: int | None = None,
    freeze_statistics: bool = False,
    compile: bool = False,
    **options: Any,
) -> History:
    """Contrastive pre-training as SimCLR does it: two random views of each image, encoder, head, loss.

    The same call trains on one device and, inside `process_group`, on many: every process embeds its part of the batch,
    and the loss sees the embeddings of all.

    Args:
        encoder: images ``(n, c, h, w)`` to features ``(n, f)``; what is kept afterwards.
        head: features to embeddings ``(n, d)``; what the loss sees.
        images: ``(m, c, h, w)``; or a ``Dataset`` of images, of ``(image, label)`` or of ``((view, view), label)``; or
            a ``DataLoader`` of such a ``Dataset``. Labels are not looked at.
        loss: of two batches of embeddings, row i of both from the same image.
        augment: random views of a whole batch on the device, called as ``augment(images, generator)``, for example
            ``simclr_augment()``.
        transform: random view of one image, called twice for each image and by ``workers`` of them at a time, for
            example torchvision's ``v2.Compose([...])``; instead of ``augment``, or before it.
        seed: for batches and augmentation.
        chunk: embed so many views at a time, see `in_chunks`; None for all at once.
        freeze_statistics: let batch normalization use its stored statistics, see `in_chunks`.
        compile: pass encoder and head through ``torch.compile``; worth its minute of preparation for long runs.
        **options: passed on to `fit` (``epochs``, ``batch_size``, ``learning_rate``, ``amp``, ``checkpoint``, ...).

    Returns:
        The run's `History`.

    Example:
        >>> from cl_teach import nt_xent
        >>> encoder, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU()), torch.rand(64, 1, 4, 4)
        >>> noisy = lambda x, generator: x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)
        >>> pretrain(encoder, nn.Linear(8, 4), images, loss=nt_xent, augment=noisy, epochs=2, batch_size=16,
        ...          progress=False).losses.shape
        torch.Size([8])

    Source:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (2020), algorithm 1.
    """
    check_module(encoder=encoder, head=head)
    check_callable(loss=loss)
    check_count(0, seed=seed)
    check_flag(freeze_statistics=freeze_statistics, compile=compile)
    if chunk is not None:
        check_count(chunk=chunk)
    elif freeze_statistics:
        raise ValueError("freeze_statistics: it belongs to chunk=; for a whole batch freeze the layers with .eval()")
    pictures = check_pictures(images, augment, transform, options.get("batch_size"))

    generator = torch.Generator(device()).manual_seed(int(seed) + (1_000_003 * (rank() + 1) if world_size() > 1 else 0))
    network: nn.Module = nn.Sequential(encoder, head)
    if world_size() > 1 and torch.cuda.is_available():
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    embed = cast(nn.Module, torch.compile(network)) if compile else network

    def step(*batch: Any) -> Any:
        # Both views in one pass: they share the statistics of batch normalization.
        views = two_views(batch, augment, generator)  # (2n, c, h, w)
        z1, z2 = embedded(embed, views, chunk, freeze_statistics).chunk(2)  # (n, d) each
        return loss(gather(z1), gather(z2))

    return fit(network, step, pictures, seed=seed, **options)


def online_knn(
    encoder: nn.Module,
    train: tuple[Any, ...],
    test: tuple[Any, ...],
    *,
    k: int = 10,
    every: int = 1,
) -> Callable[[int], dict[str, float]]:
    """Watch a run: ``after_epoch=online_knn(encoder, train, test)`` keeps the accuracy of a kNN vote after every epoch.

    Args:
        encoder: images to features.
        train: an `ImageSet`, or a tuple that begins with images and labels, who vote.
        test: those to classify; take a validation set if the number will decide anything.
        k: number of neighbors.
        every: epochs between two looks.

    Returns:
        A function of the number of finished epochs: ``{"knn": accuracy}``, or nothing between the looks.
    """
    from ..evaluation import embed, knn_accuracy

    check_module(encoder=encoder)
    check_count(k=k, every=every)
    for name, data in {"train": train, "test": test}.items():
        check_type(tuple, **{name: data})
        if len(data) < 2:
            raise ValueError(f"{name}: expected images and labels, got a tuple of length {len(data)}")
        check_type(Tensor, **{f"{name}[0]": data[0], f"{name}[1]": data[1]})

    def look(epoch: int) -> dict[str, float]:
        check_count(0, epoch=epoch)
        if epoch % every:
            return {}
        bank, queries = embed(encoder, train[0]), embed(encoder, test[0])
        return {"knn": knn_accuracy(bank, train[1], queries, test[1], k=k)}

    return look


def checked_loss(loss_fn: Callable[..., Any], batch: tuple[Any, ...], module: nn.Module, losses: Losses) -> Tensor:
    """The loss: the result itself, or the first field of a tuple of terms."""
    try:
        result = loss_fn(*batch)
    except ValueError as error:
        # A loss refuses embeddings that are not finite. Was it the data, or did the step before lose the weights?
        if (why := losses.blame()) is not None:
            raise ValueError(f"{why}; step {losses.count + 1} met it") from error
        check_weights(module, losses.count, losses.advice)
        raise
    loss = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_fn: expected a scalar tensor or a tuple that begins with it, got {type(loss).__name__}")
    if not loss.is_floating_point():
        raise TypeError(f"loss_fn: expected a floating loss, got {loss.dtype}")
    if loss.ndim > 0:
        raise ValueError(f"loss_fn: expected a scalar, got shape {tuple(loss.shape)}; take its mean")
    if not loss.requires_grad:
        raise ValueError("loss_fn: its result depends on no parameter that is trained")
    return loss


def save(saved: Checkpoint, losses: Losses, module: nn.Module, metrics: list[dict[str, Any]], seconds: float) -> None:
    """Write a checkpoint of a run that is still good."""
    losses.check()
    check_weights(module, losses.count, losses.advice)
    saved.save(losses.all(), metrics, seconds)
