"""Part 5."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import nt_xent, sup_con
from cl_teach.labels.bacon import BaCon
from cl_teach.labels.conr import conr
from cl_teach.labels.rcal import RCAL
from cl_teach.labels.sbcl import sbcl
from cl_teach.labels.supremix import draw_shares, supremix

from . import DIM, Case, Trained, descend, in_classes, rows, trainable


def with_sbcl(n: int) -> tuple[Trained, Trained]:
    """Ten classes of four subclasses."""
    z, y = trainable(2 * n), in_classes(n).repeat(2)
    subclasses, warm = in_classes(n, 40).repeat(2), torch.full((10,), 0.1)
    return descend(lambda: sbcl(z, y, subclasses, warm), (z,)), descend(lambda: sup_con(z, y), (z,))


def with_bacon(n: int) -> tuple[Trained, Trained]:
    """Half of the samples of five classes have labels, ten classes in all."""
    z, logits, y, method = trainable(2 * n), trainable(2 * n, 10, seed=1), in_classes(n), BaCon(10, 5)
    labeled = (y < 5) & (torch.arange(n) % 2 == 0)
    both = descend(lambda: method.loss(z, logits, y, labeled), (z, logits), method.after_step)

    def alone() -> Tensor:
        return nt_xent(*z.chunk(2), 1.0) + F.cross_entropy(logits[: len(y)][labeled], y[labeled])

    return both, descend(alone, (z, logits))


def with_rcal(n: int) -> tuple[Trained, Trained]:
    """Ten classes, the first with half of the samples."""
    x, y = rows(n), torch.cat([torch.zeros(n - n // 2, dtype=torch.long), in_classes(n // 2)])
    encoder, classifier = nn.Linear(DIM, DIM), nn.Linear(DIM, 10)
    method, index = RCAL(encoder, classifier, x, y), torch.arange(n)
    weights = list(method.parameters())
    return (
        descend(lambda: method.loss(x, y, index), weights),
        descend(lambda: F.cross_entropy(classifier(encoder(x)), y), weights),
    )


def numbers(n: int) -> Tensor:
    """Whole numbers below 64 as labels, two rows with each."""
    return torch.arange(n // 2).repeat(2).remainder(64).float()


def with_supremix(n: int) -> tuple[Trained, Trained]:
    """Positives are mixed from the numbers next to the anchor's."""
    z, y = trainable(n), numbers(n)
    mixed = descend(lambda: supremix(z, y, draw_shares(n).float(), window=2.0), (z,))
    return mixed, descend(lambda: sup_con(z, y.long(), 0.3), (z,))


def with_conr(n: int) -> tuple[Trained, Trained]:
    """Predictions are wrong by two or three."""
    z, y = trainable(n), numbers(n)
    guess = y + 3 * rows(n, 1)[:, 0]
    return descend(lambda: conr(z, y, guess), (z,)), descend(lambda: sup_con(z, y.long(), 0.2), (z,))


CASES = {
    "sbcl": Case("pairs", "SupCon", with_sbcl, "a table of 2n x 2n: candidates are chosen pair by pair"),
    "bacon": Case(
        "pairs", "NT-Xent and cross-entropy", with_bacon, "a table of 2n x 2n because each pair has its own weight"
    ),
    "rcal": Case(
        "samples",
        "cross-entropy",
        with_rcal,
        note="a feature is drawn for every second sample, from Gaussians of 128 x 128",
    ),
    "supremix": Case(
        "rows",
        "SupCon",
        with_supremix,
        "mixed negatives are pairs, mixed positives are pairs around each anchor: n triples become n x n x n",
        note="64 numbers, the next ones on either side are mixed",
    ),
    "conr": Case("rows", "SupCon", with_conr, "a table of n x n because each pair has its own weight"),
}
