"""Losses and layers beside those of the libraries that people use for them; called by ``make bench``.

A row is one thing that both sides compute: the same inputs, both values and both gradients compared, then time and
memory of one forward and one backward pass, the sides taking turns on one thread. Results go to ``data/peers.json``;
``benchmarks/peers_page.py`` makes the table of the book's performance page from it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from measuring import DEVICE, Step, machine, peak_of, take_turns
from stand_ins import stand_ins
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from cl_teach import files
from cl_teach.alignment.likelihood_displacement import FilteredDPO
from cl_teach.core import FeatureQueue, info_nce, nt_xent, siglip_loss, sup_con
from cl_teach.core.ranking import bpr
from cl_teach.graphs.csgcl import team_up
from cl_teach.graphs.lightgcl import LightGCL
from cl_teach.losses.dcl import dcl
from cl_teach.losses.groco import soft_sort
from cl_teach.losses.swav import swav
from cl_teach.models import GCN, Scattering
from cl_teach.models.sequence import predicting_states
from cl_teach.signals.comet import observation_loss, sample_loss
from cl_teach.training import in_chunks

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "peers.json"
DIM = 128
SECONDS = 3.0  # about how long one size of one row takes


class Contest(NamedTuple):
    """Both sides of a row at one size.

    Attributes:
        ours: gives a tensor; one that is no scalar is pulled back along a fixed direction.
        peer: gives the same.
        leaves: what ours is differentiated by.
        peer_leaves: the same of the peer, if it has parameters of its own.
    """

    ours: Step
    peer: Step
    leaves: Sequence[Tensor]
    peer_leaves: Sequence[Tensor] | None = None


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the row, as ``--only`` takes it.
        package: as it is installed.
        ours: what is called here.
        peer: what is called there.
        sizes: what `make` is called with.
        make: both sides at one size.
        note: what differs or has to be known.
        value: tolerated `deviation` of the value.
        gradient: the same of the gradients.
    """

    name: str
    package: str
    ours: str
    peer: str
    sizes: dict[str, tuple[int, ...]]
    make: Callable[..., Contest]
    note: str = ""
    value: float = 1e-5
    gradient: float = 1e-4


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of a normal distribution, with a gradient."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE).requires_grad_()


def integers(high: int, *shape: int, seed: int = 0) -> Tensor:
    """Numbers from 0 to ``high - 1``."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def two_views(n: int) -> tuple[Tensor, Tensor]:
    """Embeddings of two views, alike but not equal."""
    z1 = draw(n, DIM)
    return z1, (0.5 * z1.detach() + draw(n, DIM, seed=1).detach()).requires_grad_()


def one_file(package: str, *path: str) -> ModuleType:
    """One module of a package that imports too much as a whole."""
    spec = find_spec(package)
    if spec is None:
        raise ImportError(package)
    file = Path(next(iter(spec.submodule_search_locations or ())), *path)
    part = spec_from_file_location(f"{package}_{file.stem}", file)
    assert part is not None and part.loader is not None
    module = module_from_spec(part)
    part.loader.exec_module(module)
    return module


# --- losses of two views ----------------------------------------------------------------------------------------------


def ntxent_pml(n: int) -> Contest:
    """Every pair of views is a class."""
    from pytorch_metric_learning.losses import NTXentLoss

    z1, z2 = two_views(n)
    loss, ids = NTXentLoss(temperature=0.1), torch.arange(n, device=DEVICE).repeat(2)
    return Contest(lambda: nt_xent(z1, z2, 0.1), lambda: loss(torch.cat([z1, z2]), ids), (z1, z2))


def supcon_pml(n: int) -> Contest:
    """Ten classes."""
    from pytorch_metric_learning.losses import SupConLoss

    z1, z2 = two_views(n)
    loss, labels = SupConLoss(temperature=0.1), integers(10, n).repeat(2)
    return Contest(
        lambda: sup_con(torch.cat([z1, z2]), labels, 0.1), lambda: loss(torch.cat([z1, z2]), labels), (z1, z2)
    )


def dcl_lightly(n: int) -> Contest:
    """The loss without weights."""
    from lightly.loss import DCLLoss

    (z1, z2), loss = two_views(n), DCLLoss(temperature=0.1)
    return Contest(lambda: dcl(z1, z2, 0.1), lambda: loss(z1, z2), (z1, z2))


def moco_lightly(n: int, size: int) -> Contest:
    """The loss against a full queue and the push after it."""
    from lightly.loss import NTXentLoss

    (query, key), loss = two_views(n), NTXentLoss(temperature=0.1, memory_bank_size=(size, DIM)).to(DEVICE)
    key.requires_grad_(False)  # of the momentum encoder
    queue = FeatureQueue(size, DIM).to(DEVICE)
    queue.push(loss.memory_bank.bank)

    def ours() -> Tensor:
        result = info_nce(query, key, queue.features, 0.1)
        queue.push(key)
        return result

    return Contest(ours, lambda: loss(query, key), (query,))


def swav_lightly(n: int, count: int) -> Contest:
    """Two crops that assign and four that only predict."""
    from lightly.loss import SwaVLoss

    views, prototypes = draw(6, n, DIM), F.normalize(draw(count, DIM, seed=1).detach()).requires_grad_()
    loss = SwaVLoss()

    def peer() -> Tensor:
        scores = [F.normalize(view, dim=1) @ prototypes.mT for view in views]
        return loss(scores[:2], scores[2:])[0]

    return Contest(lambda: swav(views, prototypes).loss, peer, (views, prototypes))


def siglip_open_clip(n: int) -> Contest:
    """With the scale and the bias that the authors start from."""
    image, text = two_views(n)
    log_scale, bias = (torch.tensor(x, device=DEVICE, requires_grad=True) for x in (math.log(10.0), -10.0))
    loss = one_file("open_clip", "loss.py").SigLipLoss()

    def peer() -> Tensor:
        return loss(F.normalize(image, dim=1), F.normalize(text, dim=1), log_scale.exp(), bias)

    return Contest(lambda: siglip_loss(image, text, log_scale, bias), peer, (image, text, log_scale, bias))


# --- sentences --------------------------------------------------------------------------------------------------------


class Reader(nn.Module):
    """A transformer of two layers that is called in either library's way."""

    def __init__(self, vocabulary: int, causal: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, DIM)
        layer = nn.TransformerEncoderLayer(DIM, 4, 4 * DIM, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.causal = causal

    def states(self, tokens: Tensor) -> Tensor:
        """``(n, T, DIM)``."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device) if self.causal else None
        return self.body(self.embedding(tokens), mask=mask, is_causal=self.causal)

    def forward(self, tokens: Any) -> Any:
        """Mean of the states; a dictionary comes from sentence-transformers and wants one back."""
        if isinstance(tokens, dict):
            return {"sentence_embedding": self.states(tokens["input_ids"]).mean(1)}
        return self.states(tokens).mean(1)


def ranking_loss(name: str, model: nn.Module | None, **settings: Any) -> Any:
    """A loss of sentence-transformers with the temperature 1/20, its default."""
    with stand_ins():
        from sentence_transformers.sentence_transformer import losses

        return getattr(losses, name)(model, scale=20, **settings)


def pairs_sentences(n: int) -> Contest:
    """Queries and their answers."""
    (query, answer), loss = two_views(n), ranking_loss("MultipleNegativesRankingLoss", None)
    return Contest(
        lambda: info_nce(query, answer, None, 1 / 20),
        lambda: loss.compute_loss_from_embeddings([query, answer], None),
        (query, answer),
    )


def triplets_sentences(n: int) -> Contest:
    """Queries, their answers and a wrong answer each."""
    query, answer = two_views(n)
    wrong, loss = draw(n, DIM, seed=2), ranking_loss("MultipleNegativesRankingLoss", None)
    return Contest(
        lambda: info_nce(query, answer, wrong, 1 / 20, in_batch=True),
        lambda: loss.compute_loss_from_embeddings([query, answer, wrong], None),
        (query, answer, wrong),
    )


def chunks_sentences(n: int, chunk: int) -> Contest:
    """Both sides embed everything twice and keep the activations of one chunk."""
    torch.manual_seed(0)
    ours = Reader(1000).to(DEVICE)
    theirs = copy.deepcopy(ours)
    tokens = [integers(1000, n, 32, seed=seed) for seed in (1, 2)]
    loss = ranking_loss("CachedMultipleNegativesRankingLoss", nn.Sequential(theirs), mini_batch_size=chunk)
    features = [{"input_ids": t, "attention_mask": torch.ones_like(t)} for t in tokens]

    def cached() -> Tensor:
        query, answer = (in_chunks(ours, t, chunk) for t in tokens)
        return info_nce(query, answer, None, 1 / 20)

    return Contest(cached, lambda: loss(features, None), list(ours.parameters()), list(theirs.parameters()))


# --- preferences ------------------------------------------------------------------------------------------------------


class Writer(Reader):
    """The transformer with an output layer, as cl_teach wants it and as TRL does."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(vocabulary, causal=True)
        self.output = nn.Linear(DIM, vocabulary, bias=False)
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(model_type="small"))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States and logits."""
        states = self.states(tokens)
        return states, self.output(states)

    def base_model(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """As a model of transformers gives its states."""
        return SimpleNamespace(last_hidden_state=self.states(input_ids))

    def get_output_embeddings(self) -> nn.Linear:
        """As a model of transformers gives its output layer."""
        return self.output


def dpo_trl(n: int, vocabulary: int) -> Contest:
    """``DPOTrainer`` itself wants a data set and a folder; its loss of a batch needs the settings below and no more."""
    with stand_ins():
        from trl.trainer import dpo_trainer, utils
    utils.maybe_gather_lm_head_ctx = lambda *_: nullcontext()  # it asks transformers whether DeepSpeed is on
    torch.manual_seed(0)
    length, prompt = 64, 16
    ours = Writer(vocabulary).to(DEVICE)
    theirs, start = copy.deepcopy(ours), integers(vocabulary, n, prompt)
    chosen, rejected = (torch.cat([start, integers(vocabulary, n, length - prompt, seed=s)], 1) for s in (1, 2))
    mask = predicting_states(length, torch.full((n,), prompt - 1, device=DEVICE))
    method, every = FilteredDPO(ours, chosen, rejected, mask, mask, share=1.0), torch.arange(n, device=DEVICE)
    with torch.no_grad():  # away from the reference, where every gap is 0
        for first, second in zip(ours.parameters(), theirs.parameters(), strict=True):
            first.mul_(1.05)
            second.mul_(1.05)

    def same(x: Tensor) -> Tensor:
        return x

    trainer = SimpleNamespace(
        model=theirs,
        accelerator=SimpleNamespace(device=DEVICE, gather=same, gather_for_metrics=same),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=method.beta,
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    utils.add_fused_lm_head(theirs, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))  # as the trainer does
    tokens = torch.cat([chosen, rejected])
    batch = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "completion_mask": (torch.arange(length, device=DEVICE) >= prompt).long().expand(2 * n, -1),
        "ref_chosen_logps": method.initial[:, 0],
        "ref_rejected_logps": method.initial[:, 1],
    }
    return Contest(
        lambda: method.loss(every),
        lambda: dpo_trainer.DPOTrainer._compute_loss(trainer, theirs, batch, False),
        list(ours.parameters()),
        list(theirs.parameters()),
    )


# --- graphs -----------------------------------------------------------------------------------------------------------


def edges_of(n: int, degree: int) -> Tensor:
    """``(2, m)`` an undirected random graph without self-loops, each direction once."""
    a, b = integers(n, 2, n * degree // 2)
    pairs = torch.stack([a, b])[:, a != b]
    return torch.cat([pairs, pairs.flip(0)], 1).unique(dim=1)


def grace_pygcl(n: int) -> Contest:
    """Two views of all nodes; candidates are the nodes of both."""
    with stand_ins():
        from GCL.losses import InfoNCE
        from GCL.models import DualBranchContrast

    (z1, z2), strength = two_views(n), torch.zeros(n, device=DEVICE)
    contrast = DualBranchContrast(InfoNCE(tau=0.5), mode="L2L", intraview_negs=True)
    every = torch.ones(n, 2 * n, dtype=torch.bool, device=DEVICE)
    return Contest(
        lambda: team_up(z1, z2, strength, 0.0, 0.5), lambda: contrast(z1, z2, extra_neg_mask=every), (z1, z2)
    )


def gcn_geometric(n: int) -> Contest:
    """Two layers."""
    with stand_ins():
        from torch_geometric.nn import GCNConv

    torch.manual_seed(0)
    x, edges, ours = draw(n, DIM), edges_of(n, 10), GCN(DIM, 64).to(DEVICE)
    theirs = nn.ModuleList([GCNConv(DIM, 128), GCNConv(128, 64)]).to(DEVICE)
    with torch.no_grad():
        for layer, conv in zip((ours.first, ours.second), theirs, strict=True):
            layer.bias.zero_()  # ours gathers the bias as well, theirs adds it afterward
            conv.lin.weight.copy_(layer.weight)
    return Contest(
        lambda: ours(x, edges),
        lambda: theirs[1](theirs[0](x, edges).relu(), edges).relu(),
        (x, ours.first.weight, ours.second.weight),
        (x, theirs[0].lin.weight, theirs[1].lin.weight),
    )


def lightgcn_geometric(users: int, items: int, degree: int) -> Contest:
    """One batch: both layers of all nodes, and the ranking of triples."""
    with stand_ins():
        from torch_geometric.nn.models import LightGCN

    generator = torch.Generator().manual_seed(0)
    met = torch.rand(users, items, generator=generator) < degree / items
    met[:, 0] = met[0] = True  # nobody without an edge
    ours = LightGCL(met, 64, rank=0, layers=2).to(DEVICE)
    theirs = LightGCN(users + items, 64, 2, alpha=torch.ones(3)).to(DEVICE)
    with torch.no_grad():
        theirs.embedding.weight.copy_(torch.cat([ours.users, ours.items]))
    pairs = met.nonzero().T.to(DEVICE) + torch.tensor([[0], [users]], device=DEVICE)
    edges = torch.cat([pairs, pairs.flip(0)], 1)
    chosen = pairs[:, integers(pairs.shape[1], 1024)]
    user, item, other = chosen[0], chosen[1] - users, integers(items, 1024, seed=1)
    asked = torch.stack([user.repeat(2), torch.cat([item, other]) + users])

    def peer() -> Tensor:
        ranks = theirs(edges, asked)
        return theirs.recommendation_loss(*ranks.chunk(2), lambda_reg=0.0)

    def lightgcn() -> Tensor:
        e = ours()
        return bpr(e.users[user], e.items[item], e.items[other])

    return Contest(lightgcn, peer, (ours.users, ours.items), (theirs.embedding.weight,))


# --- signals, images, sorting -----------------------------------------------------------------------------------------


def instances_ts2vec(n: int, time: int) -> Contest:
    """At each time stamp, the windows."""
    losses, r1, r2 = one_file("ts2vec", "models", "losses.py"), draw(n, time, 32), draw(n, time, 32, seed=1)
    return Contest(lambda: sample_loss(r1, r2), lambda: losses.instance_contrastive_loss(r1, r2), (r1, r2))


def times_ts2vec(n: int, time: int) -> Contest:
    """In each window, the time stamps."""
    losses, r1, r2 = one_file("ts2vec", "models", "losses.py"), draw(n, time, 32), draw(n, time, 32, seed=1)
    return Contest(lambda: observation_loss(r1, r2), lambda: losses.temporal_contrastive_loss(r1, r2), (r1, r2))


def scattering_kymatio(n: int, side: int, scales: int) -> Contest:
    """Maps of zeroth to second order."""
    with stand_ins():
        from kymatio.torch import Scattering2D

    images, theirs = draw(n, 1, side, side), Scattering2D(J=scales, shape=(side, side), L=8).to(DEVICE)
    ours = Scattering((side, side), scales=scales, angles=8).to(DEVICE)
    return Contest(lambda: ours(images), lambda: theirs(images).flatten(1, 2), (images,))


def sort_diffsort(n: int, wires: int) -> Contest:
    """A layer for each wire."""
    from diffsort import DiffSortNet

    x, theirs = draw(n, wires), DiffSortNet("odd_even", wires, device=DEVICE, steepness=1.0, distribution="cauchy")
    return Contest(lambda: soft_sort(x, 1.0)[1], lambda: theirs(x)[1], (x,))


ROWS = (
    Row(
        "NT-Xent",
        "pytorch-metric-learning",
        "nt_xent",
        "NTXentLoss",
        {"32 pairs": (32,), "64 pairs": (64,), "128 pairs": (128,)},
        ntxent_pml,
        "Theirs takes any number of positives and holds a table of pairs by negatives, of the third power of the "
        "batch; with one positive an anchor it is NT-Xent.",
    ),
    Row(
        "SupCon",
        "pytorch-metric-learning",
        "sup_con",
        "SupConLoss",
        {"64 pairs": (64,), "256 pairs": (256,), "1,024 pairs": (1024,)},
        supcon_pml,
    ),
    Row(
        "DCL",
        "lightly",
        "dcl",
        "DCLLoss",
        {"64 pairs": (64,), "256 pairs": (256,), "1,024 pairs": (1024,)},
        dcl_lightly,
    ),
    Row(
        "MoCo's queue",
        "lightly",
        "info_nce, FeatureQueue",
        "NTXentLoss(memory_bank_size)",
        {"256 queries, 4,096 keys": (256, 4096), "256 queries, 65,536 keys": (256, 65536)},
        moco_lightly,
        "The loss and the push of the batch. The check is that of the first step: the rings are filled differently "
        "at their end.",
    ),
    Row(
        "SwAV",
        "lightly",
        "swav",
        "SwaVLoss",
        {"64 images, 300 prototypes": (64, 300), "256 images, 3,000 prototypes": (256, 3000)},
        swav_lightly,
        "Two large crops and four small ones. Theirs takes the scores, so its side normalizes and multiplies first.",
    ),
    Row(
        "SigLIP",
        "open-clip-torch",
        "siglip_loss",
        "SigLipLoss",
        {"64 pairs": (64,), "1,024 pairs": (1024,), "4,096 pairs": (4096,)},
        siglip_open_clip,
    ),
    Row(
        "sentence pairs",
        "sentence-transformers",
        "info_nce",
        "MultipleNegativesRankingLoss",
        {"64 pairs": (64,), "512 pairs": (512,), "2,048 pairs": (2048,)},
        pairs_sentences,
        "From embeddings.",
    ),
    Row(
        "sentence triplets",
        "sentence-transformers",
        "info_nce(in_batch=True)",
        "MultipleNegativesRankingLoss",
        {"64 triplets": (64,), "512 triplets": (512,), "2,048 triplets": (2048,)},
        triplets_sentences,
        "From embeddings.",
    ),
    Row(
        "gradient caching",
        "sentence-transformers",
        "in_chunks, info_nce",
        "CachedMultipleNegativesRankingLoss",
        {"64 pairs, 16 at a time": (64, 16), "256 pairs, 32 at a time": (256, 32)},
        chunks_sentences,
        "With a transformer of two layers, 128 wide, on 32 tokens.",
    ),
    Row(
        "DPO",
        "trl",
        "FilteredDPO.loss",
        "DPOTrainer",
        {"4 pairs, 1,000 words": (4, 1000), "16 pairs, 1,000 words": (16, 1000), "4 pairs, 32,000 words": (4, 32000)},
        dpo_trl,
        "With a causal transformer of two layers, 128 wide, on 64 tokens, and with stored log-probabilities of the "
        "reference. Theirs computes the output layer in tiles of 32,768 words, takes their memory for fewer, too, and "
        "counts accuracies, entropies and other things to log.",
    ),
    Row(
        "GRACE's contrast",
        "PyGCL",
        "team_up(gamma=0)",
        "DualBranchContrast(InfoNCE)",
        {"256 nodes": (256,), "1,024 nodes": (1024,), "2,708 nodes": (2708,)},
        grace_pygcl,
        "CSGCL without its bonus; 2,708 is Cora. Theirs is given an `extra_neg_mask` of ones: without one, 0.1.2 has "
        "the anchor itself among its negatives.",
    ),
    Row(
        "graph convolution",
        "torch-geometric",
        "GCN",
        "GCNConv, twice",
        {"256 nodes": (256,), "1,024 nodes": (1024,), "2,708 nodes": (2708,)},
        gcn_geometric,
        "Ten neighbors a node. Ours multiplies with a dense matrix, theirs follows the edges. The biases are 0 and "
        "left out of the gradient: ours are gathered from the neighbors too, theirs are not.",
    ),
    Row(
        "LightGCN",
        "torch-geometric",
        "LightGCL.forward, bpr",
        "LightGCN",
        {
            "200 users, 300 items, 20 a user": (200, 300, 20),
            "943 users, 1,682 items, 20 a user": (943, 1682, 20),
            "943 users, 1,682 items, 106 a user": (943, 1682, 106),
        },
        lightgcn_geometric,
        "Batches of 1,024 triples; the last size is that of MovieLens 100K. Ours multiplies with a matrix, sparse if "
        "few entries are not 0, and scales it once; theirs follows the edges.",
    ),
    Row(
        "windows of series",
        "ts2vec",
        "sample_loss",
        "instance_contrastive_loss",
        {"16 windows, 64 steps": (16, 64), "64 windows, 256 steps": (64, 256)},
        instances_ts2vec,
        "One scale of the sample level of COMET.",
    ),
    Row(
        "steps of series",
        "ts2vec",
        "observation_loss",
        "temporal_contrastive_loss",
        {"16 windows, 64 steps": (16, 64), "32 windows, 256 steps": (32, 256)},
        times_ts2vec,
        "One scale of the observation level of COMET.",
    ),
    Row(
        "scattering",
        "kymatio",
        "Scattering",
        "Scattering2D",
        {"16 images of 28², J = 2": (16, 28, 2), "8 images of 64², J = 3": (8, 64, 3)},
        scattering_kymatio,
        "Eight angles. Theirs makes its filters in single precision.",
        value=1e-4,
        gradient=1e-4,
    ),
    Row(
        "soft sorting",
        "diffsort",
        "soft_sort",
        "DiffSortNet(odd_even, cauchy)",
        {"64 lists of 11": (64, 11), "256 lists of 16": (256, 16), "256 lists of 64": (256, 64)},
        sort_diffsort,
        "The matrix; GroCo sorts its k hardest negatives and the positives with it.",
    ),
)


def deviation(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest entry of its tensor.

    A tensor whose entries are all below a thousandth of the others' is compared with that: its entries are rounding.
    """
    least = max(float(x.abs().max()) for x in expected) / 1000
    return max(float((x - y).abs().max() / y.abs().max().clamp_min(least)) for x, y in zip(got, expected, strict=True))


def gradients(result: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of every leaf, and none left behind."""
    backward(result)
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    clear(leaves)
    return found


def backward(result: Tensor) -> None:
    """Along a direction that is the same for both sides, with waves of no period that a layer could have."""
    result.backward(None if result.ndim == 0 else torch.arange(result.numel()).sin().view(result.shape).to(result))


def clear(leaves: Sequence[Tensor]) -> None:
    """Forget the gradients."""
    for leaf in leaves:
        leaf.grad = None


def check(contest: Contest) -> dict[str, float]:
    """How far the sides are apart."""
    leaves, peer_leaves = contest.leaves, contest.peer_leaves or contest.leaves
    value, expected = contest.ours(), contest.peer()
    found, wanted = gradients(value, leaves), gradients(expected, peer_leaves)
    if len(found) != len(wanted):  # one side has in one table what the other has in two
        found, wanted = ([torch.cat([x.flatten() for x in side])] for side in (found, wanted))
    return {
        "value": deviation([value.detach()], [expected.detach()]),
        "gradient": deviation(found, wanted),
    }


def steps_of(contest: Contest) -> dict[str, Step]:
    """One forward and backward pass of either side."""

    def step(side: Step, leaves: Sequence[Tensor]) -> Step:
        def run() -> None:
            backward(side())
            clear(leaves)  # a step that begins with it would free what the side before it was charged for

        return run

    leaves = contest.leaves
    return {"ours": step(contest.ours, leaves), "peer": step(contest.peer, contest.peer_leaves or leaves)}


def measure(row: Row, seconds: float = SECONDS) -> Iterator[dict[str, Any]]:
    """Check, time and memory at every size."""
    for size, arguments in row.sizes.items():
        contest = row.make(*arguments)
        apart = check(contest)
        if apart["value"] > row.value or apart["gradient"] > row.gradient:
            sys.exit(f"{row.name}, {size}: the sides differ by {apart}, tolerated are {row.value} and {row.gradient}")
        steps = steps_of(contest)
        times, peaks = take_turns(steps, seconds), {side: peak_of(step) for side, step in steps.items()}
        yield {
            "name": row.name,
            "package": row.package,
            "ours": row.ours,
            "peer": row.peer,
            "size": size,
            "milliseconds": {side: 1e3 * t for side, t in times.items()},
            "peak_mib": {side: peak / 2**20 for side, peak in peaks.items()},
            "deviation": apart,
            "tolerance": {"value": row.value, "gradient": row.gradient},
            "note": row.note,
        }


def main() -> None:
    """Measure all rows, or one, and write the results of this device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[row.name for row in ROWS], metavar="NAME", help="one row of the table")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="about how long one size of one row takes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # the others' warnings about each other
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    old = results.get(DEVICE.type, {}).get("rows", ())
    rows: list[dict[str, Any]] = []
    for row in tqdm(ROWS):
        if options.only in (None, row.name):
            rows += measure(row, options.seconds)
        else:
            rows += [each for each in old if each["name"] == row.name]
    results[DEVICE.type] = {"machine": machine(sorted({row.package for row in ROWS})), "rows": rows}
    files.write_json(RESULTS, results)
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
