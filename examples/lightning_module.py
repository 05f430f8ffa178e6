"""The losses inside a loop of Lightning: ``pip install lightning``.

In several processes Lightning averages gradients itself; the loss then needs `gather`, as here, to see the negatives of
all of them. In one process `gather` does nothing.
"""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from cl_teach.augment import simclr_augment
from cl_teach.datasets import digits
from cl_teach.evaluation import embed, knn_accuracy
from cl_teach.losses import nt_xent
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import gather


class SimCLR(lightning.LightningModule):
    """Encoder and head, trained with NT-Xent."""

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.encoder = ConvEncoder(1, 8)
        self.head = ProjectionHead(self.encoder.feature_dim, 32)
        self.augment, self.temperature = simclr_augment(scale=(0.5, 1.0), flip=0.0), temperature

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        """Two views in one pass, as the book does it."""
        views = torch.cat([self.augment(batch[0]), self.augment(batch[0])])
        z1, z2 = self.head(self.encoder(views)).chunk(2)
        loss = nt_xent(gather(z1), gather(z2), self.temperature)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


if __name__ == "__main__":
    lightning.seed_everything(0)
    train, test, model = digits("train"), digits("test"), SimCLR()
    loader = DataLoader(TensorDataset(train.images), batch_size=128, shuffle=True, drop_last=True)
    trainer = lightning.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(model, loader)
    bank, queries = embed(model.encoder, train.images), embed(model.encoder, test.images)
    print(f"kNN accuracy {knn_accuracy(bank, train.labels, queries, test.labels):.3f}")
