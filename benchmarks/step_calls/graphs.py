"""Part 8."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import info_nce
from cl_teach.core.ranking import bpr
from cl_teach.graphs.clhe import CLHE
from cl_teach.graphs.cold_start import ColdStart, draw_batch
from cl_teach.graphs.csgcl import CSGCL
from cl_teach.graphs.lightgcl import LightGCL
from cl_teach.graphs.mclrec import MCLRec
from cl_teach.graphs.meow import MEOW
from cl_teach.models.item_sequences import SequenceEncoder
from cl_teach.models.meta_paths import MetaPath, MetaPathNetwork

from . import DIM, Case, Trained, descend, in_classes, own, rows, whole


def met(n: int) -> Tensor:
    """Who met what, ``(n, n)``: ten items or so for every user, never all."""
    table = torch.rand(n, n, generator=torch.Generator().manual_seed(0)) < min(10 / n, 0.5)
    table[torch.arange(n), torch.arange(n)] = True
    table[:, -1] = torch.arange(n) == n - 1
    table[-1, 0] = False
    return table


def with_csgcl(n: int) -> tuple[Trained, Trained]:
    """Nodes with ten neighbors in eight communities."""
    features, tail = rows(n), torch.arange(n).repeat_interleave(5)
    head = (tail + 8 * whole(n // 8, len(tail)) + 1) % n
    edges = torch.stack([torch.cat([tail, head]), torch.cat([head, tail])])
    method = CSGCL(features, edges, in_classes(n, 8), DIM, start=0)

    def plain() -> Tensor:
        z1, z2 = (method.head(method.encoder(F.dropout(features, 0.2), edges)) for _ in range(2))
        return info_nce(z1, z2, temperature=0.5)

    weights = list(method.parameters())
    return descend(method.loss, weights, method.after_step), descend(plain, weights)


def with_meow(n: int) -> tuple[Trained, Trained]:
    """One meta-path over n / 4 context nodes."""
    path = MetaPath(rows(n // 4, seed=1), (torch.rand(n, n // 4) < 8 / n).float())
    method = MEOW(MetaPathNetwork(rows(n), [path], DIM, top=4))

    def plain() -> Tensor:
        coarse, fine = (method.head(z) for z in method.network())
        return info_nce(coarse, fine, temperature=0.4)

    weights = list(method.parameters())
    return descend(method.loss, weights), descend(plain, weights)


def with_lightgcl(n: int) -> tuple[Trained, Trained]:
    """As many items as users; every user in the batch once."""
    table, users = met(n), torch.arange(n)
    method, items = LightGCL(table, DIM, rank=5), torch.multinomial(table.float(), 1)[:, 0]
    unseen = torch.multinomial((~table).float(), 1)[:, 0]

    def plain() -> Tensor:
        e = method()
        return bpr(e.users[users], e.items[items], e.items[unseen])

    weights = list(method.parameters())
    return descend(lambda: method.loss(users, items, unseen), weights), descend(plain, weights)


def with_mclrec(n: int) -> tuple[Trained, Trained]:
    """Sequences of four of a hundred items; the baseline predicts the next item."""
    method, encoder = MCLRec(SequenceEncoder(100, DIM, 4)), SequenceEncoder(100, DIM, 4)
    sequences, targets = 1 + whole(100, n, 4), 1 + whole(100, n, seed=1)
    optimizer = torch.optim.Adam(encoder.parameters())

    def plain() -> Tensor:
        return F.cross_entropy(encoder(sequences) @ encoder.items.weight[1:].mT, targets - 1)

    return own(lambda: method.step((sequences, targets)), method), descend(plain, encoder.parameters(), optimizer.step)


def with_fusion(n: int) -> tuple[Trained, Trained]:
    """Three fields of twenty categories on either side."""
    fields = [whole(20, n, 3, seed=k) for k in range(2)]
    method, batch = ColdStart(*fields, in_classes(n, 5) == 0, DIM), draw_batch(met(n), n)

    def plain() -> Tensor:
        return bpr(method.fuse_users(batch.users).z, *(method.fuse_items(ids).z for ids in (batch.items, batch.unseen)))

    weights = list(method.parameters())
    return descend(lambda: method.loss(*batch), weights), descend(plain, weights)


def with_clhe(n: int) -> tuple[Trained, Trained]:
    """Bundles of five of 512 items; the baseline is a table of item vectors and the same softmax over all items."""
    items, bundles = 512, whole(512 // 5, n, 5) + torch.arange(5) * (512 // 5)
    method = CLHE([rows(items, seed=k) for k in range(3)], torch.ones(items, dtype=torch.bool), DIM)
    table, members = nn.Parameter(0.1 * rows(items)), torch.zeros(n, items).scatter(1, bundles, 0.2)

    def plain() -> Tensor:
        return F.cross_entropy(table[bundles].mean(1) @ table.mT, members)

    return descend(lambda: method.loss(list(bundles)), method.parameters()), descend(plain, [table])


CASES = {
    "csgcl": Case(
        "nodes",
        "InfoNCE of the same network",
        with_csgcl,
        "every pair of nodes is compared; the graph is a dense table",
    ),
    "meow": Case(
        "nodes",
        "InfoNCE of the same network",
        with_meow,
        "a table of n x n because each pair has its own weight; the graph is a dense table",
        note="two k-means of all nodes a step",
    ),
    "lightgcl": Case(
        "users",
        "BPR on the same graph",
        with_lightgcl,
        "every pair of users and of items in the batch is compared",
        note="n items, two layers",
    ),
    "mclrec": Case(
        "sequences",
        "next item with the same encoder",
        with_mclrec,
        "every pair is compared, in four tables of 2n x 2n",
        note="three updates a step",
    ),
    "cold-start": Case("pairs", "BPR with the same fusion", with_fusion, "every pair is compared, known ones left out"),
    "clhe": Case("bundles", "softmax over all items", with_clhe, "every pair of bundles is compared", note="512 items"),
}
