"""Losses and kNN accuracy of every epoch in a table."""

import csv

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.losses import nt_xent
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import online_knn, pretrain

train, test, encoder = digits("train"), digits("test"), ConvEncoder(1, 8)
with open("log.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["epoch", "loss", "knn"])
    pretrain(
        encoder,
        ProjectionHead(encoder.feature_dim),
        train.images,
        loss=nt_xent,
        augment=simclr_augment(scale=(0.5, 1.0), flip=0.0),
        epochs=3,
        batch_size=128,
        after_epoch=online_knn(encoder, train, test),
        on_epoch=lambda epoch, loss, metrics: table.writerow([epoch, loss, metrics["knn"]]),
    )
