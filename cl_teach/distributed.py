r"""Contrastive training on several devices: one process a device, one batch shared by all.

With W processes every process embeds its part of the batch, and the embeddings (not the images) are gathered, so that
each anchor still sees the negatives of the whole batch. Two things are easily done wrong.

- ``torch.distributed.all_gather`` cuts the graph: the others' embeddings arrive as constants. An embedding gets
  gradient as an anchor and as a candidate of *every* anchor, and the second part is computed where the other anchors
  are. `gather` sends it back.
- ``DistributedDataParallel`` *averages* gradients over processes. With `gather` and the same loss of the whole batch in
  every process, the average is exactly the gradient of one process with the whole batch. Without the backward pass of
  `gather` it would be that gradient divided by W.

Batch normalization is the exception: on a CPU its statistics are those of one process's part. On GPUs
``torch.nn.SyncBatchNorm`` takes its place here.

``torchrun --nproc-per-node 2 -m cl_teach.distributed --checkpoint run.pt`` trains SimCLR on the embedded Fashion-MNIST;
the same command again goes on where the checkpoint ends.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel

from .core.checks import check_batch, check_positive
from .training import batches

__all__ = ["gather", "pretrain", "process_group"]


@contextmanager
def process_group(timeout_seconds: float = 300.0) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, and give this one's device: NCCL on GPUs, gloo on CPUs.

    Args:
        timeout_seconds: after which a process that waits for another one gives up.

    Raises:
        RuntimeError: not started by ``torchrun``, or fewer GPUs than processes on this machine.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError(
            "no process group: start this program with torchrun, "
            "e.g. torchrun --nproc-per-node 2 -m cl_teach.distributed"
        )
    local = int(os.environ["LOCAL_RANK"])
    device, backend = torch.device("cpu"), "gloo"
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise RuntimeError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}; "
                "lower --nproc-per-node, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU"
            )
        device, backend = torch.device("cuda", local), "nccl"
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    try:
        yield device
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        parts = [torch.empty_like(z) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, z.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous()
        dist.all_reduce(total)  # what every process has to say about every embedding
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(z: Tensor) -> Tensor:
    """Embeddings of all processes, in the order of their ranks, with a gradient that finds its way back.

    Args:
        z: ``(n, d)``, the same shape in every process.

    Returns:
        ``(W n, d)``.
    """
    return _Gather.apply(z)


def pretrain(
    encoder: nn.Module,
    head: nn.Module,
    images: Tensor,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    augment: Callable[..., Tensor],
    device: torch.device,
    epochs: int,
    batch_size: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    every: int = 50,
    after_step: Callable[[int], None] | None = None,
) -> Tensor:
    """SimCLR's loop in every process of a group: equal weights everywhere, at every step.

    The order of the batches comes from one seed in all processes, augmentation from one seed a process.

    Args:
        encoder: images to features, trained in place.
        head: features to embeddings, trained in place.
        images: ``(m, c, h, w)``, the same in every process.
        loss: of two ``(batch_size, d)`` batches of embeddings.
        augment: called as ``augment(images, generator)``.
        device: of this process, from `process_group`.
        epochs: passes over the data.
        batch_size: rows in a step over all processes together, a multiple of their number.
        learning_rate: initial value; falls to zero along a cosine.
        weight_decay: of AdamW.
        seed: of the run.
        checkpoint: file that holds everything the run needs to go on; read at the start where it exists.
        every: steps between two writes.
        after_step: called with the number of finished steps.

    Returns:
        ``(steps,)`` losses of the run, those before a restart included.

    Raises:
        ValueError: a batch that cannot be shared evenly, too few images, or a checkpoint of another run.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    check_positive(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, every=every)
    if batch_size % world:
        raise ValueError(f"batch_size: expected a multiple of the {world} processes, got {batch_size}")
    check_batch(len(images), batch_size, name="images", why=f"to fill one batch of batch_size={batch_size}")
    network: nn.Module = nn.Sequential(encoder, head).to(device)
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    parallel = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    per_epoch = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * per_epoch)
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device).manual_seed(seed + 1_000_003 * (rank + 1))
    settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "processes": world, "images": len(images)}
    state = _read(checkpoint, settings)
    losses: list[float] = []
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        noise.set_state(state["noise"][rank])
        losses = state["losses"]

    images, done = images.to(device), len(losses)
    parallel.train()
    for epoch in range(epochs):
        for step, rows in enumerate(batches(len(images), batch_size, order), start=epoch * per_epoch + 1):
            if step <= done:
                continue  # drawing the order again is cheaper than keeping it
            own = images[rows.chunk(world)[rank].to(device)]
            z1, z2 = parallel(torch.cat([augment(own, noise), augment(own, noise)])).chunk(2)
            value = loss(gather(z1), gather(z2))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(value.item())
            if checkpoint is not None and (step % every == 0 or step == epochs * per_epoch):
                noises: list[Any] = [None] * world
                dist.all_gather_object(noises, noise.get_state())
                if rank == 0:
                    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
                    _write(
                        Path(checkpoint),
                        {name: part.state_dict() for name, part in parts.items()}
                        | {"settings": settings, "noise": noises, "losses": losses},
                    )
                dist.barrier()
            if after_step is not None:
                after_step(step)
    return torch.tensor(losses)


def _write(file: Path, state: dict[str, Any]) -> None:
    """Write beside the old checkpoint, then put it in its place: whenever the power fails, one of them is whole."""
    temporary = file.with_suffix(file.suffix + ".new")
    with temporary.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _read(checkpoint: Path | str | None, settings: dict[str, int]) -> dict[str, Any] | None:
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name, value in settings.items():
        if state["settings"][name] != value:
            raise ValueError(
                f"checkpoint: {checkpoint} is of a run with {name}={state['settings'][name]}, this one has {value}; "
                "use the same settings to go on, or another file to begin"
            )
    return state


@record
def main() -> None:
    """Train SimCLR on the embedded Fashion-MNIST and print how good the features are."""
    from .augment import simclr_augment
    from .core import nt_xent
    from .datasets import fashion_mnist
    from .evaluation import embed, knn_accuracy
    from .models import ConvEncoder, ProjectionHead

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256, help="over all processes together")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="file to write to, and to go on from")
    options = parser.parse_args()
    with process_group() as device:
        torch.manual_seed(options.seed)  # the same initial weights in every process
        encoder = ConvEncoder()
        head = ProjectionHead(encoder.feature_dim, 64, hidden=256)
        train = fashion_mnist()
        losses = pretrain(
            encoder,
            head,
            train.images,
            loss=lambda z1, z2: nt_xent(z1, z2, options.temperature),
            augment=simclr_augment(scale=(0.3, 1.0)),
            device=device,
            epochs=options.epochs,
            batch_size=options.batch_size,
            learning_rate=2e-3,
            weight_decay=1e-4,
            seed=options.seed,
            checkpoint=options.checkpoint,
        )
        if dist.get_rank() == 0:
            test = fashion_mnist("test")
            rows = (embed(encoder, train.images).cpu(), train.labels, embed(encoder, test.images).cpu(), test.labels)
            print(f"{len(losses)} steps, loss {losses[-1]:.3f}, kNN accuracy {knn_accuracy(*rows):.3f}")


if __name__ == "__main__":
    main()
