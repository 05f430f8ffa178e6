r"""Several processes that share one batch: one process a device.

With W processes every process embeds its part of the batch, and the embeddings (not the images) are gathered, so that
each anchor still sees the negatives of the whole batch. Two things are easily done wrong.

- ``torch.distributed.all_gather`` cuts the graph: the others' embeddings arrive as constants. An embedding gets
  gradient as an anchor and as a candidate of *every* anchor, and the second part is computed where the other anchors
  are. `gather` sends it back.
- Gradients are *averaged* over processes (`average_gradients` here, ``DistributedDataParallel`` elsewhere). With
  `gather` and the same loss of the whole batch in every process, the average is exactly the gradient of one process
  with the whole batch. Without the backward pass of `gather` it would be that gradient divided by W.

All functions of this file do the natural thing in a program that runs alone, so a loop calls them unconditionally.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core.checks import check_embeddings, check_positive, check_type

__all__ = ["gather", "process_group"]


@contextmanager
def process_group(timeout_seconds: float = 300.0) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, and give this one's device: NCCL on GPUs, gloo on CPUs.

    Args:
        timeout_seconds: after which a process that waits for another one gives up.

    Raises:
        RuntimeError: not started by ``torchrun``, or fewer GPUs than processes on this machine.
    """
    check_positive(timeout_seconds=timeout_seconds)
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


def gather(z: Tensor) -> Tensor:
    """Embeddings of all processes, in the order of their ranks, with a gradient that finds its way back.

    Args:
        z: ``(n, d)``, the same shape in every process.

    Returns:
        ``(W n, d)``; ``z`` itself in a program that runs alone.
    """
    check_type(Tensor, z=z)
    check_embeddings(ndim=z.ndim, z=z)
    return _Gather.apply(z) if world_size() > 1 else z


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        parts = [torch.empty_like(z, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, z.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A copy: autograd may hand the same tensor to others, and all_reduce writes into what it gets.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)  # what every process has to say about every embedding
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def own_part(rows: Tensor) -> Tensor:
    """This process's share of the rows of a batch."""
    return rows.chunk(world_size())[rank()]


def send_state(module: nn.Module) -> None:
    """Process 0's parameters and buffers to all others."""
    if world_size() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.detach(), src=0)


def average_gradients(module: nn.Module) -> None:
    """The mean over processes of every gradient, in one message a dtype."""
    if world_size() == 1:
        return
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    # A parameter may be used in one process and not in another, where it then counts as zero.
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    groups: dict[torch.dtype, list[Tensor]] = {}
    for parameter, anywhere in zip(parameters, used.tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            groups.setdefault(parameter.dtype, []).append(parameter.grad)
    for gradients in groups.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def largest(value: float) -> float:
    """The largest of what the processes say."""
    if world_size() == 1:
        return value
    told: list[Any] = [None] * world_size()
    dist.all_gather_object(told, value)
    return max(told)


def everybodys(thing: Any) -> list[Any]:
    """What every process holds, in the order of their ranks."""
    if world_size() == 1:
        return [thing]
    told: list[Any] = [None] * world_size()
    dist.all_gather_object(told, thing)
    return told


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        dist.barrier()
