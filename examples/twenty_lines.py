"""Own encoder, own data: train, evaluate, save, load."""

import torch
from torch import nn

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.losses import nt_xent
from cl_teach.models import ProjectionHead
from cl_teach.training import pretrain, seed_everything

seed_everything(0)
train, test = digits("train"), digits("test")  # yours: images (n, c, h, w) in [0, 1], or any Dataset
encoder = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 128), nn.ReLU())
head = ProjectionHead(128, 32)
pretrain(
    encoder,
    head,
    train.images,
    loss=lambda z1, z2: nt_xent(z1, z2, temperature=0.2),
    augment=simclr_augment(scale=(0.5, 1.0), flip=0.0),
    epochs=10,
    batch_size=128,
    checkpoint="digits.pt",  # the same program again goes on from here; delete the file to begin anew
)
bank, queries = embed(encoder, train.images), embed(encoder, test.images)
print(f"kNN accuracy {knn_accuracy(bank, train.labels, queries, test.labels):.3f}")
torch.save(encoder.state_dict(), "encoder.pt")
encoder.load_state_dict(torch.load("encoder.pt"))
