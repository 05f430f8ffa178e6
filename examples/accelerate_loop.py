"""The losses in a loop of one's own with Accelerate: ``pip install accelerate``.

``python examples/accelerate_loop.py`` or ``accelerate launch examples/accelerate_loop.py``. `gather` lets the loss see
the negatives of all processes (Accelerate's own ``gather`` gives numbers without a gradient); in one process it does
nothing.
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.losses import nt_xent
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import gather, seed_everything

seed_everything(0)
accelerator = Accelerator()
train, test, encoder = digits("train"), digits("test"), ConvEncoder(1, 8)
model = nn.Sequential(encoder, ProjectionHead(encoder.feature_dim, 32))
augment = simclr_augment(scale=(0.5, 1.0), flip=0.0)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
loader = DataLoader(TensorDataset(train.images), batch_size=128, shuffle=True, drop_last=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

for _ in range(3):
    for (images,) in loader:
        with accelerator.autocast():
            z1, z2 = model(torch.cat([augment(images), augment(images)])).chunk(2)
        loss = nt_xent(gather(z1), gather(z2), 0.2)  # outside autocast or inside: it computes in float32
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()

if accelerator.is_main_process:
    bank, queries = embed(encoder, train.images), embed(encoder, test.images)
    print(f"kNN accuracy {knn_accuracy(bank, train.labels, queries, test.labels):.3f}")
