"""From two classes to the dimensions in which they are to agree."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.checks import check_batch, check_count, check_flag, check_labels, check_shapes

__all__ = ["ClassPairGate"]


class ClassPairGate(nn.Module):
    r"""From two classes to the gate of their subspace, symmetric in the classes.

    .. math:: g = \sigma\Big(\mathrm{MLP}\big(\tfrac12(E_y+E_{y'})\big)\Big) \in (0,1)^k

    Batch normalization uses the pairs of the batch in training mode and running statistics in evaluation mode.
    """

    def __init__(
        self, num_classes: int, width: int, *, embedding_dim: int = 64, hidden: int = 128, fuse: bool = True
    ) -> None:
        """Make the table of class embeddings and the small network.

        Args:
            num_classes: number of classes.
            width: number of dimensions to gate.
            embedding_dim: size of a class embedding (512 in the code of Hydra).
            hidden: width of the hidden layer (1024 in the code of Hydra).
            fuse: whether to average the two embeddings; otherwise the gates of the two classes are multiplied.
        """
        super().__init__()
        check_count(num_classes=num_classes, width=width, embedding_dim=embedding_dim, hidden=hidden)
        check_flag(fuse=fuse)
        self.fuse = fuse
        self.embedding = nn.Embedding(num_classes, embedding_dim)
        self.first = nn.Linear(embedding_dim, hidden)
        self.second = nn.Linear(hidden, width)
        self.norms = nn.ModuleList([nn.BatchNorm1d(embedding_dim), nn.BatchNorm1d(hidden)])

    def forward(self, labels: Tensor, partners: Tensor) -> Tensor:
        """Gates of class pairs.

        Args:
            labels: ``(N,)`` integer classes; in training mode at least two, for the statistics of the batch.
            partners: ``(N,)`` integer classes.

        Returns:
            ``(N, width)`` in (0, 1).
        """
        check_shapes(labels=(labels, "n", int), partners=(partners, "n", int))
        classes = self.embedding.num_embeddings
        labels = check_labels(labels, num_classes=classes)
        partners = check_labels(partners, len(labels), name="partners", num_classes=classes)
        if self.training:
            check_batch(len(labels), 2, name="labels", why="for the batch statistics of the gate")
        a, b = self.embedding(labels), self.embedding(partners)  # (N, e)
        return self._gate((a + b) / 2) if self.fuse else self._gate(a) * self._gate(b)

    def _gate(self, e: Tensor) -> Tensor:
        h = self.first(self.norms[0](e.relu()))  # (N, h)
        return self.second(self.norms[1](h.relu())).sigmoid()
