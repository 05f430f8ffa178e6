"""What the processes of `test_distributed.py` run: ``worker.py train OUT [CHECKPOINT]|several FOLDER``."""

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
from cl_teach.distributed import gather, process_group
from cl_teach.training import fit, pretrain


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


def mirrored(images, generator):
    """Draws nothing, so any number of processes sees the same."""
    return images + 0.1 * images.flip(-1)


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


def sums(out):
    """A gradient that autograd shares: that of a sum of two gathered tensors, and of a summand that is not gathered."""
    everything = torch.randn(2, 4 * dist.get_world_size(), 3, generator=torch.Generator().manual_seed(2))
    z1, z2 = (x.chunk(dist.get_world_size())[dist.get_rank()].clone().requires_grad_() for x in everything)
    other = torch.ones(everything.shape[1:], requires_grad=True)
    seed = torch.ones(everything.shape[1:])
    (gather(z1) + gather(z2) + other).square().sum().backward()
    gather(z1).backward(seed)
    if dist.get_rank() == 0:
        torch.save((z1.grad, other.grad, seed, everything), out)


def plain(out):
    train(out, augment=mirrored)


def train(out, checkpoint=None, augment=add_noise):
    network = make_network()
    stop, spoil = int(os.environ.get("KILL_AT", "0")), int(os.environ.get("SPOIL_AT", "0"))
    steps = []

    def after_step():
        steps.append(1)
        if len(steps) == stop and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(steps) == spoil:
            with torch.no_grad():
                network[1].weight.fill_(torch.nan)

    history = pretrain(
        network[:2],
        network[2:],
        make_images(48),
        loss=LOSSES["nt_xent"],
        augment=augment,
        epochs=4,
        batch_size=12,
        learning_rate=1e-2,
        seed=3,
        checkpoint=checkpoint,
        checkpoint_every=3,
        after_step=after_step,
        progress=False,
    )
    if dist.get_rank() == 0:
        torch.save((network.state_dict(), history.losses), out)


def regression(out):
    """Any loss of `fit`: here a mean over rows, with batch normalization and a layer that only process 0 uses."""
    torch.manual_seed(dist.get_rank())  # other weights in every process, until they are sent
    network = nn.ModuleDict(
        {"used": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "first": nn.Linear(3, 1)}
    )
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))

    def loss_fn(x):
        z = network["used"](x) + (network["first"](x) if dist.get_rank() == 0 else 0)
        return (z - x.sum(1, keepdim=True)).square().mean()

    history = fit(network, loss_fn, x, epochs=8, batch_size=24, learning_rate=0.05, progress=False)
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, network.state_dict())
    if dist.get_rank() == 0:
        torch.save((states, history.losses), out)


def several(folder):
    """Starting processes costs more than what they do here."""
    for work in (gradients, sums, regression, plain):
        work(folder / f"{work.__name__}.pt")


@record
def main():
    with process_group(60):
        {"train": train, "several": several}[sys.argv[1]](*map(Path, sys.argv[2:]))


if __name__ == "__main__":
    main()
