"""One program for one process and for many: ``python examples/several_processes.py``, or
``torchrun --nproc-per-node 4 examples/several_processes.py``.

Kill it and start it again in the same way: it goes on. Every process embeds its part of the batch and sees the
negatives of all.
"""

import os
from contextlib import nullcontext

import torch.distributed as dist

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.losses import nt_xent
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import online_knn, pretrain, process_group, seed_everything

with process_group() if "LOCAL_RANK" in os.environ else nullcontext():
    seed_everything(0)
    train, test = digits("train"), digits("test")
    encoder = ConvEncoder(1, 8, norm="group")  # batch normalization would see each process's part by itself
    history = pretrain(
        encoder,
        ProjectionHead(encoder.feature_dim, 32, norm="group"),
        train.images,
        loss=lambda z1, z2: nt_xent(z1, z2, temperature=0.2),
        augment=simclr_augment(scale=(0.5, 1.0), flip=0.0),
        epochs=5,
        batch_size=128,  # over all processes together
        learning_rate=2e-3,
        checkpoint="several.pt",
        checkpoint_every=5,
        after_epoch=online_knn(encoder, train, test),
    )
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(f"{len(history.losses)} steps, kNN accuracy {history.metrics[-1]['knn']:.3f}")
