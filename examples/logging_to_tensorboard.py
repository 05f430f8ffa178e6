"""Every loss and every kNN accuracy in TensorBoard: ``pip install tensorboard``, then ``tensorboard --logdir runs``."""

from torch.utils.tensorboard import SummaryWriter

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.losses import nt_xent
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import online_knn, pretrain

train, test, encoder = digits("train"), digits("test"), ConvEncoder(1, 8)
with SummaryWriter("runs") as board:
    pretrain(
        encoder,
        ProjectionHead(encoder.feature_dim),
        train.images,
        loss=nt_xent,
        augment=simclr_augment(scale=(0.5, 1.0), flip=0.0),
        epochs=3,
        batch_size=128,
        after_epoch=online_knn(encoder, train, test),
        on_step=lambda step, loss: board.add_scalar("loss", loss, step),
        on_epoch=lambda epoch, loss, metrics: board.add_scalars("epochs", {"loss": loss, **metrics}, epoch),
    )
