"""What the processes of `test_distributed.py` run: ``worker.py gradients|train OUT [CHECKPOINT]``."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel

from cl_teach.core import clip_loss, nt_xent
from cl_teach.distributed import gather, pretrain, process_group


def make_network():
    """In double precision, so that sums in another order differ in the fifteenth digit."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8)).double()


def make_images(n=24):
    return torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()


LOSSES = {
    "nt_xent": lambda z1, z2: nt_xent(z1, z2, 0.2),
    "clip": lambda z1, z2: clip_loss(z1, z2, 1.5),
}


def add_noise(images, generator):
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def gradients(out):
    network = make_network()
    parallel = DistributedDataParallel(network)
    images = make_images()
    found = {}
    for name, loss in LOSSES.items():
        own = images.chunk(dist.get_world_size())[dist.get_rank()]
        z1, z2 = parallel(torch.cat([own, own.flip(2)])).chunk(2)
        network.zero_grad()
        value = loss(gather(z1), gather(z2))
        value.backward()
        found[name] = (value.detach(), [p.grad.clone() for p in network.parameters()])
    if dist.get_rank() == dist.get_world_size() - 1:  # any process has the same
        torch.save(found, out)


def train(out, checkpoint=None):
    network = make_network()
    stop = int(os.environ.get("KILL_AT", "0"))

    def after_step(step):
        if step == stop and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    losses = pretrain(
        network[:2],
        network[2:],
        make_images(48),
        loss=LOSSES["nt_xent"],
        augment=add_noise,
        device=torch.device("cpu"),
        epochs=4,
        batch_size=int(os.environ.get("BATCH", "12")),
        learning_rate=1e-2,
        seed=3,
        checkpoint=checkpoint,
        every=3,
        after_step=after_step,
    )
    if dist.get_rank() == 0:
        torch.save((network.state_dict(), losses), out)


@record
def main():
    with process_group(60):
        {"gradients": gradients, "train": train}[sys.argv[1]](*map(Path, sys.argv[2:]))


if __name__ == "__main__":
    main()
