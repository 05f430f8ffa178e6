"""The page "Coming from another library": each of its lines gives the number that the other library's formula gives.

The page is read here: a comment in its code is the other library's call, the lines under it are ours. `THEIRS` has the
other library's formula for every comment, written without ``cl_teach``; `PEERS` asks the library itself, where it is
installed (``make bench`` puts most of them into ``.bench``).
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from unit_helpers import draw

from cl_teach.core import FeatureQueue, clip_loss, info_nce, nt_xent, sup_con
from cl_teach.evaluation import knn_accuracy, mean_reciprocal_rank, ndcg, recall_at_k
from cl_teach.losses.dcl import dcl, dclw

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "coming_from.md").read_text(encoding="utf-8")


def pairs() -> dict[str, str]:
    """The page's code by the comment above it, with its block's imports."""
    found: dict[str, str] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        imports, *chunks = block.strip().split("\n\n")
        for chunk in chunks:
            comment, code = chunk.split("\n", 1)
            assert comment.startswith("# ") and comment[2:] not in found, comment
            found[comment[2:]] = f"{imports}\n{code}"
    return found


PAIRS = pairs()


def scattering_case() -> dict[str, Any]:
    """What kymatio gave for one image."""
    cases = json.loads((ROOT / "tests" / "golden" / "data" / "scatsimclr.json").read_text(encoding="utf-8"))["cases"]
    return next(case for case in cases if case["params"].get("J") == 2)


def world(dtype: torch.dtype = torch.float64) -> SimpleNamespace:
    """Everything that the page's lines name."""
    names = ("z1", "z2", "z", "query", "positive", "negatives", "more", "image", "text", "prediction", "target")
    w = {name: draw(6, 5, seed=seed).to(dtype) for seed, name in enumerate((*names, "users", "positives"))}
    w["labels"] = torch.tensor([0, 1, 0, 2, 1, 0])  # 2 occurs once
    w["scores"] = draw(6, 4, seed=20).to(dtype)
    w["bank"], w["features"] = draw(20, 5, seed=21).to(dtype), draw(12, 5, seed=22).to(dtype)
    w["bank_labels"], w["feature_labels"] = torch.arange(20) % 3, torch.arange(12) % 3
    w["queue"] = FeatureQueue(8, 5)
    w["queue"].push(draw(8, 5, seed=23))
    w["start"] = F.normalize(draw(8, 5, seed=24).float())
    w["batches"] = [F.normalize(draw(size, 5, seed=30 + i).float()) for i, size in enumerate((3, 3, 3, 11, 2))]
    w["logit_scale"] = torch.tensor(math.log(1 / 0.07), dtype=dtype)
    w["logit_bias"] = torch.tensor(-10.0, dtype=dtype)
    w["similarity"] = draw(4, 6, seed=25).to(dtype)
    w["relevant"] = torch.tensor([[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0], [0] * 6, [0, 0, 1, 1, 1, 0]]).bool()
    w["grades"] = torch.tensor([[0, 3, 0, 0, 1, 0], [1, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 2], [0, 0, 1, 1, 1, 0]])
    w["preds"], w["target"] = w["similarity"].flatten(), w["target"]
    w["indexes"] = torch.arange(4).repeat_interleave(6)
    w["n"] = 5
    w["edges"] = torch.tensor([[0, 0, 1, 2, 2, 2, 3, 3, 1], [1, 1, 0, 3, 3, 3, 3, 3, 2]])
    w["x"], w["weight"], w["bias"] = (draw(*shape, seed=26).float() for shape in ((5, 5), (3, 5), (3,)))
    for seed, name in enumerate(("chosen", "rejected", "reference_chosen", "reference_rejected")):
        w[name] = -20 - 5 * draw(4, seed=40 + seed).abs()
    w["chosen_tokens"], w["rejected_tokens"] = torch.tensor([3, 12, 7, 20]), torch.tensor([5, 12, 30, 2])
    w["images"] = torch.tensor(scattering_case()["inputs"]["x"], dtype=dtype)[None, None]
    return SimpleNamespace(**w)


def ours(comment: str, w: SimpleNamespace) -> Any:
    """Run the lines under a comment and give the value of the last."""
    tree = ast.parse(PAIRS[comment])
    assert isinstance(tree.body[-1], ast.Expr), f"{comment}: the last line is the answer"
    names = {"torch": torch, **vars(w)}
    exec(compile(ast.Module(tree.body[:-1], []), "page", "exec"), names)
    return eval(compile(ast.Expression(tree.body[-1].value), "page", "eval"), names)


# --- the other libraries' formulas ------------------------------------------------------------------------------------


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T


def plain_nt_xent(z1: Tensor, z2: Tensor, t: float) -> Tensor:
    z = torch.cat([z1, z2])
    logits = cosines(z, z) / t
    logits.fill_diagonal_(-math.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z1)))


def plain_dcl(z1: Tensor, z2: Tensor, t: float, weights: Tensor | None = None) -> Tensor:
    """lightly: minus the weighted positive, plus the log-sum over negatives of both views; both directions."""
    n, total = len(z1), 0
    for a, b in ((z1, z2), (z2, z1)):
        same, other = cosines(a, a) / t, cosines(a, b) / t
        for i in range(n):
            negatives = torch.stack([row[i, j] for row in (same, other) for j in range(n) if j != i])
            total = total - (1 if weights is None else weights[i]) * other[i, i] + negatives.logsumexp(0)
    return total / (2 * n)


def mises_fisher(z1: Tensor, z2: Tensor, sigma: float) -> Tensor:
    return 2 - len(z1) * (cosines(z1, z2).diagonal() / sigma).softmax(0)


def plain_sup_con(z: Tensor, labels: Tensor, t: float) -> list[Tensor | None]:
    """Per anchor; None where there is no positive."""
    s, losses = cosines(z, z) / t, []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_p = [s[i, j] - s[i, others].logsumexp(0) for j in others if labels[j] == labels[i]]
        losses.append(-torch.stack(log_p).mean() if log_p else None)
    return losses


def several_positives(z: Tensor, labels: Tensor, t: float) -> Tensor:
    """pytorch-metric-learning's NTXentLoss: each positive pair against the negatives of its anchor."""
    s, losses = cosines(z, z) / t, []
    for i in range(len(z)):
        negatives = s[i, labels != labels[i]].exp().sum()
        for j in range(len(z)):
            if j != i and labels[j] == labels[i]:
                losses.append(-torch.log(s[i, j].exp() / (s[i, j].exp() + negatives)))
    return torch.stack(losses).mean()


def ring(start: Tensor, batches: list[Tensor]) -> Tensor:
    """What lightly's memory bank does."""
    stored, at = start.clone(), 0
    for batch in batches:
        if at + len(batch) >= len(stored):
            stored[at:] = batch[: len(stored) - at]
            at = 0
        else:
            stored[at : at + len(batch)] = batch
            at += len(batch)
    return stored


def plain_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    q = (scores / epsilon).exp().T
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True)
        q = q / q.sum(0, keepdim=True) / len(scores)
    return (q * len(scores)).T


def weighted_votes(bank: Tensor, labels: Tensor, features: Tensor, truth: Tensor, k: int, t: float) -> float:
    right = 0
    for row, label in zip(cosines(features, bank), truth, strict=True):
        near = row.topk(k)
        votes = [sum((near.values[labels[near.indices] == c] / t).exp().tolist()) for c in range(3)]
        right += votes.index(max(votes)) == int(label)
    return right / len(features)


def order(row: Tensor) -> list[int]:
    return sorted(range(len(row)), key=lambda i: -float(row[i]))


def leave_one_out(z: Tensor, labels: Tensor) -> Iterator[list[bool]]:
    """Of every row with company, whether the others have its label, nearest first."""
    for i, row in enumerate(cosines(z, z)):
        right = [bool(labels[j] == labels[i]) for j in order(row) if j != i]
        if any(right):
            yield right


def ranked(w: SimpleNamespace, shift: bool = True) -> list[tuple[list[bool], int]]:
    """torchmetrics: each query's targets in the order of the scores, those above 0 only; and how many there are."""
    scores = w.similarity - w.similarity.min() + 1 if shift else w.similarity
    return [
        ([bool(target[i] and row[i] > 0) for i in order(row)], int(target.sum()))
        for row, target in zip(scores, w.relevant, strict=True)
    ]


def reciprocal(found: list[bool], k: int) -> float:
    return 1 / (found.index(True) + 1) if any(found[:k]) else 0.0


def plain_ndcg(similarity: Tensor, grades: Tensor, k: int) -> float:
    total = 0.0
    for row, grade in zip(similarity, grades.tolist(), strict=True):
        gains = [[grade[i] for i in order(row)], sorted(grade, reverse=True)]
        dcg, best = (sum(g / math.log2(r + 2) for r, g in enumerate(x[:k])) for x in gains)
        total += dcg / best
    return total / len(similarity)


def gcn_norm(edges: Tensor, n: int) -> Tensor:
    """PyTorch Geometric: loops of the list go, one loop of weight 1 a node comes; weights by both in-degrees, added."""
    kept = [(int(a), int(b)) for a, b in edges.T if a != b] + [(i, i) for i in range(n)]
    degree = [sum(b == i for _, b in kept) for i in range(n)]
    matrix = torch.zeros(n, n)
    for a, b in kept:
        matrix[b, a] += (degree[a] * degree[b]) ** -0.5 if degree[a] else 0.0
    return matrix


def ranking_loss(query: Tensor, *documents: Tensor) -> Tensor:
    return F.cross_entropy(20 * cosines(query, torch.cat(documents)), torch.arange(len(query)))


def both_ways(a: Tensor, b: Tensor, scale: float | Tensor) -> Tensor:
    own = torch.arange(len(a))
    return (F.cross_entropy(scale * cosines(a, b), own) + F.cross_entropy(scale * cosines(b, a), own)) / 2


def gaps(w: SimpleNamespace, means: bool) -> Tensor:
    up, down = (w.chosen_tokens, w.rejected_tokens) if means else (1, 1)
    return (w.chosen - w.reference_chosen) / up - (w.rejected - w.reference_rejected) / down


LIGHTLY_KNN = "knn_predict(...) with knn_k=5 and knn_t=0.1, the share of right answers"
LIGHTLY_RING = "MemoryBankModule((8, 5)), given `batches` one by one"
LIGHTLY_BANK = "NTXentLoss(temperature=0.1, memory_bank_size=(8, 5))(query, positive)"
PRECISION = 'AccuracyCalculator(...).get_accuracy(z, labels)["precision_at_1"]'
FIRST_RANK = 'AccuracyCalculator(...).get_accuracy(z, labels)["mean_reciprocal_rank"]'
CLIP = "ClipLoss()(F.normalize(image, dim=1), F.normalize(text, dim=1), logit_scale.exp())"
SIGLIP = "SigLipLoss()(F.normalize(image, dim=1), F.normalize(text, dim=1), logit_scale.exp(), logit_bias)"
MNRL = "MultipleNegativesRankingLoss(model, scale=20), "
MNRL_BOTH = (
    'MultipleNegativesRankingLoss(model, scale=20, directions=("query_to_doc", "doc_to_query"), '
    'partition_mode="per_direction")'
)
MNRL_DOT = "MultipleNegativesRankingLoss(model, scale=1, similarity_fct=dot_score)"
PML_VIEWS = "NTXentLoss(temperature=0.1)(torch.cat([z1, z2]), torch.arange(len(z1)).repeat(2))"
RECALL = "RetrievalRecall(top_k=3)(preds - preds.min() + 1, target, indexes)"
HIT_RATE = "RetrievalHitRate(top_k=3)(preds, target, indexes)"
MRR = "RetrievalMRR(top_k=3)(preds - preds.min() + 1, target, indexes)"
MRR_SKIP = 'RetrievalMRR(empty_target_action="skip")(preds - preds.min() + 1, target, indexes)'
NDCG = "RetrievalNormalizedDCG(top_k=3)(preds, grades, indexes)"

THEIRS: dict[str, Callable[[SimpleNamespace], Any]] = {
    # lightly
    "NTXentLoss(temperature=0.5)(z1, z2)": lambda w: plain_nt_xent(w.z1, w.z2, 0.5),
    LIGHTLY_BANK: lambda w: F.cross_entropy(
        torch.cat([cosines(w.query, w.positive).diagonal()[:, None], cosines(w.query, w.queue.features.double())], 1)
        / 0.1,
        torch.zeros(6, dtype=torch.long),
    ),
    LIGHTLY_RING: lambda w: ring(w.start, w.batches),
    "DCLLoss(temperature=0.1)(z1, z2)": lambda w: plain_dcl(w.z1, w.z2, 0.1),
    "DCLWLoss(temperature=0.1, sigma=0.5)(z1, z2)": lambda w: plain_dcl(w.z1, w.z2, 0.1, mises_fisher(w.z1, w.z2, 0.5)),
    "SupConLoss(temperature=0.1)(z1, z2, labels)": lambda w: (
        0.1 * torch.stack(plain_sup_con(torch.cat([w.z1, w.z2]), w.labels.repeat(2), 0.1)).mean()
    ),
    "NegativeCosineSimilarity()(prediction, target)": lambda w: -cosines(w.prediction, w.target).diagonal().mean(),
    "sinkhorn(scores, iterations=3, epsilon=0.05)": lambda w: plain_sinkhorn(w.scores, 0.05, 3),
    LIGHTLY_KNN: lambda w: weighted_votes(w.bank, w.bank_labels, w.features, w.feature_labels, 5, 0.1),
    # pytorch-metric-learning
    "SupConLoss(temperature=0.1)(z, labels)": lambda w: torch.stack(
        [loss for loss in plain_sup_con(w.z, w.labels, 0.1) if loss is not None]
    ).mean(),
    PML_VIEWS: lambda w: several_positives(torch.cat([w.z1, w.z2]), torch.arange(6).repeat(2), 0.1),
    "NTXentLoss(temperature=0.1)(z, labels)": lambda w: several_positives(w.z, w.labels, 0.1),
    PRECISION: lambda w: sum(right[0] for right in leave_one_out(w.z, w.labels)) / 5,
    FIRST_RANK: lambda w: sum(1 / (right.index(True) + 1) for right in leave_one_out(w.z, w.labels)) / 5,
    # open_clip
    CLIP: lambda w: both_ways(w.image, w.text, 1 / 0.07),
    SIGLIP: lambda w: (
        -F.logsigmoid((2 * torch.eye(6) - 1) * (cosines(w.image, w.text) / 0.07 + w.logit_bias)).sum() / 6
    ),
    # sentence-transformers
    MNRL + "pairs": lambda w: ranking_loss(w.query, w.positive),
    MNRL + "triplets": lambda w: ranking_loss(w.query, w.positive, w.negatives),
    MNRL + "two negatives a query": lambda w: ranking_loss(w.query, w.positive, w.negatives, w.more),
    MNRL_BOTH: lambda w: both_ways(w.query, w.positive, 20),
    MNRL_DOT: lambda w: F.cross_entropy(w.query @ w.positive.T, torch.arange(6)),
    "cos_sim(query, positive)": lambda w: cosines(w.query, w.positive),
    # torchmetrics
    RECALL: lambda w: sum(sum(found[:3]) / max(1, total) for found, total in ranked(w)) / 4,
    HIT_RATE: lambda w: sum(any(found[:3]) for found, _ in ranked(w)) / 4,
    MRR: lambda w: sum(reciprocal(found, 3) for found, _ in ranked(w)) / 4,
    MRR_SKIP: lambda w: sum(reciprocal(found, 6) for found, total in ranked(w) if total) / 3,
    NDCG: lambda w: plain_ndcg(w.similarity, w.grades, 3),
    # PyTorch Geometric
    "gcn_norm(coalesce(edges), num_nodes=n), as a matrix": lambda w: gcn_norm(w.edges.unique(dim=1), 5),
    "gcn_norm(edges, num_nodes=n), as a matrix": lambda w: gcn_norm(w.edges, 5),
    "GCNConv(5, 3)(x, coalesce(edges))": lambda w: gcn_norm(w.edges.unique(dim=1), 5) @ (w.x @ w.weight.T) + w.bias,
    "BPRLoss()((users * positives).sum(1), (users * negatives).sum(1))": lambda w: (
        (1 + (-(w.users * (w.positives - w.negatives)).sum(1)).exp()).log().mean()
    ),
    # TRL
    'DPOConfig(loss_type="sigmoid", beta=0.1)': lambda w: (1 + (-0.1 * gaps(w, False)).exp()).log().mean(),
    'DPOConfig(loss_type="ipo", beta=0.1)': lambda w: ((gaps(w, True) - 5) ** 2).mean(),
    'DPOConfig(loss_type="sigmoid_norm", beta=0.1)': lambda w: (1 + (-0.1 * gaps(w, True)).exp()).log().mean(),
    # kymatio, as stored: it makes its filters in single precision
    "Scattering2D(J=2, shape=(16, 16), L=4)(images)": lambda w: torch.tensor(scattering_case()["outputs"]["S"])[
        None, None
    ],
}


def assert_same(got: Any, expected: Any, tolerance: float) -> None:
    got, expected = (torch.as_tensor(x).detach().double() for x in (got, expected))
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_every_line_of_the_page_is_checked():
    assert PAIRS.keys() == THEIRS.keys() and PEERS.keys() < PAIRS.keys()


@pytest.mark.parametrize("comment", PAIRS)
def test_our_line_gives_the_number_of_their_formula(comment: str):
    w = world()
    got = ours(comment, w)
    single = isinstance(got, Tensor) and got.dtype == torch.float32
    assert_same(got, THEIRS[comment](w), 1e-4 if "Scattering" in comment else 1e-5 if single else 1e-9)


# --- the libraries themselves, where they are installed ---------------------------------------------------------------


def one_file(package: str, *path: str) -> Any:
    """One module of a package whose others want packages that are not installed."""
    if (found := find_spec(package)) is None:
        raise ImportError(package)
    spec = spec_from_file_location("one_file", Path(found.submodule_search_locations[0], *path))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lightly_bank(w: SimpleNamespace) -> Tensor:
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=0.1, memory_bank_size=(8, 5))
    loss.memory_bank.bank = w.queue.features
    return loss(w.query, w.positive)


def lightly_ring(w: SimpleNamespace) -> Tensor:
    from lightly.models.modules.memory_bank import MemoryBankModule

    module = MemoryBankModule((8, 5))
    module.bank = w.start.clone()
    for batch in w.batches:
        module(batch, update=True)
    return module.bank


def lightly_loss(name: str, *arguments: str, **settings: float) -> Callable[[SimpleNamespace], Tensor]:
    def call(w: SimpleNamespace) -> Tensor:
        from lightly import loss

        return getattr(loss, name)(**settings)(*(getattr(w, each) for each in arguments))

    return call


def lightly_sinkhorn(w: SimpleNamespace) -> Tensor:
    from lightly.loss.swav_loss import sinkhorn

    return sinkhorn(w.scores, iterations=3, epsilon=0.05)


def lightly_knn(w: SimpleNamespace) -> float:
    knn_predict = one_file("lightly", "utils", "benchmarking", "knn.py").knn_predict
    bank, features = F.normalize(w.bank).T, F.normalize(w.features)
    answers = knn_predict(features, bank, w.bank_labels, num_classes=3, knn_k=5, knn_t=0.1)[:, 0]
    return float((answers == w.feature_labels).float().mean())


def metric_learning(name: str, views: bool = False) -> Callable[[SimpleNamespace], Tensor]:
    def call(w: SimpleNamespace) -> Tensor:
        from pytorch_metric_learning import losses

        z, labels = (torch.cat([w.z1, w.z2]), torch.arange(6).repeat(2)) if views else (w.z, w.labels)
        return getattr(losses, name)(temperature=0.1)(z, labels)

    return call


def accuracy(name: str) -> Callable[[SimpleNamespace], float]:
    def call(w: SimpleNamespace) -> float:
        from pytorch_metric_learning.distances import CosineSimilarity
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
        from pytorch_metric_learning.utils.inference import CustomKNN

        calculator = AccuracyCalculator(include=("precision_at_1", name), knn_func=CustomKNN(CosineSimilarity()))
        return calculator.get_accuracy(w.z, w.labels)[name]

    return call


def open_clip_loss(name: str, *more: str) -> Callable[[SimpleNamespace], Tensor]:
    def call(w: SimpleNamespace) -> Tensor:
        module = one_file("open_clip", "loss.py")
        rest = (getattr(w, each) for each in more)
        return getattr(module, name)()(F.normalize(w.image), F.normalize(w.text), w.logit_scale.exp(), *rest)

    return call


def sentences(*documents: str, scale: float = 20, **settings: Any) -> Callable[[SimpleNamespace], Tensor]:
    def call(w: SimpleNamespace) -> Tensor:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        if scale == 1:
            from sentence_transformers.util import dot_score

            settings["similarity_fct"] = dot_score
        loss = MultipleNegativesRankingLoss(None, scale=scale, **settings)
        return loss.compute_loss_from_embeddings([w.query, *(getattr(w, each) for each in documents)], None)

    return call


def retrieval(name: str, shift: bool = True, target: str = "relevant", **settings: Any):
    def call(w: SimpleNamespace) -> Tensor:
        from torchmetrics import retrieval

        preds = w.preds - w.preds.min() + 1 if shift else w.preds
        return getattr(retrieval, name)(**settings)(preds, getattr(w, target).flatten(), indexes=w.indexes)

    return call


def geometric(once: bool) -> Callable[[SimpleNamespace], Tensor]:
    def call(w: SimpleNamespace) -> Tensor:
        from torch_geometric.nn.conv.gcn_conv import gcn_norm
        from torch_geometric.utils import coalesce

        edges, weight = gcn_norm(coalesce(w.edges) if once else w.edges, num_nodes=5)
        return torch.zeros(5, 5).index_put((edges[1], edges[0]), weight, accumulate=True)

    return call


def geometric_conv(w: SimpleNamespace) -> Tensor:
    from torch_geometric.nn import GCNConv
    from torch_geometric.utils import coalesce

    conv = GCNConv(5, 3)
    conv.load_state_dict({"lin.weight": w.weight, "bias": w.bias})
    return conv(w.x, coalesce(w.edges))


def geometric_bpr(w: SimpleNamespace) -> Tensor:
    from torch_geometric.nn.models.lightgcn import BPRLoss

    return BPRLoss()((w.users * w.positives).sum(1), (w.users * w.negatives).sum(1))


def kymatio(w: SimpleNamespace) -> Tensor:
    from kymatio.torch import Scattering2D

    return Scattering2D(J=2, shape=(16, 16), L=4)(w.images)


PEERS: dict[str, Callable[[SimpleNamespace], Any]] = {
    "NTXentLoss(temperature=0.5)(z1, z2)": lightly_loss("NTXentLoss", "z1", "z2", temperature=0.5),
    LIGHTLY_BANK: lightly_bank,
    LIGHTLY_RING: lightly_ring,
    "DCLLoss(temperature=0.1)(z1, z2)": lightly_loss("DCLLoss", "z1", "z2", temperature=0.1),
    "DCLWLoss(temperature=0.1, sigma=0.5)(z1, z2)": lightly_loss("DCLWLoss", "z1", "z2", temperature=0.1, sigma=0.5),
    "NegativeCosineSimilarity()(prediction, target)": lightly_loss("NegativeCosineSimilarity", "prediction", "target"),
    "sinkhorn(scores, iterations=3, epsilon=0.05)": lightly_sinkhorn,
    LIGHTLY_KNN: lightly_knn,
    "SupConLoss(temperature=0.1)(z, labels)": metric_learning("SupConLoss"),
    PML_VIEWS: metric_learning("NTXentLoss", views=True),
    "NTXentLoss(temperature=0.1)(z, labels)": metric_learning("NTXentLoss"),
    PRECISION: accuracy("precision_at_1"),
    FIRST_RANK: accuracy("mean_reciprocal_rank"),
    CLIP: open_clip_loss("ClipLoss"),
    SIGLIP: open_clip_loss("SigLipLoss", "logit_bias"),
    MNRL + "pairs": sentences("positive"),
    MNRL + "triplets": sentences("positive", "negatives"),
    MNRL + "two negatives a query": sentences("positive", "negatives", "more"),
    MNRL_BOTH: sentences("positive", directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"),
    MNRL_DOT: sentences("positive", scale=1),
    RECALL: retrieval("RetrievalRecall", top_k=3),
    HIT_RATE: retrieval("RetrievalHitRate", shift=False, top_k=3),
    MRR: retrieval("RetrievalMRR", top_k=3),
    MRR_SKIP: retrieval("RetrievalMRR", empty_target_action="skip"),
    NDCG: retrieval("RetrievalNormalizedDCG", shift=False, target="grades", top_k=3),
    "gcn_norm(coalesce(edges), num_nodes=n), as a matrix": geometric(once=True),
    "gcn_norm(edges, num_nodes=n), as a matrix": geometric(once=False),
    "GCNConv(5, 3)(x, coalesce(edges))": geometric_conv,
    "BPRLoss()((users * positives).sum(1), (users * negatives).sum(1))": geometric_bpr,
    "Scattering2D(J=2, shape=(16, 16), L=4)(images)": kymatio,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("comment", PEERS)
def test_our_line_gives_the_number_of_the_library_itself(comment: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks"), str(ROOT / ".bench")])
    from stand_ins import stand_ins

    w = world(torch.float32)
    try:
        with stand_ins():
            expected = PEERS[comment](w)
    except ImportError as error:
        pytest.skip(f"not installed: {error}")
    assert_same(ours(comment, w), expected, 1e-4)


# --- what one would trip over -----------------------------------------------------------------------------------------


def test_scores_of_zero_and_below_count_as_not_found_in_torchmetrics_only():
    w = world()
    assert (w.similarity[w.relevant] < 0).any()
    theirs = sum(sum(found) / max(1, total) for found, total in ranked(w, shift=False)) / 4
    assert theirs < recall_at_k(w.similarity, w.relevant, 6, empty="zero") == 0.75


def test_conventions_that_are_errors_here():
    w = world()
    for refused in (
        lambda: nt_xent(w.z1[:1], w.z2[:1]),
        lambda: dcl(w.z1[:1], w.z2[:1]),
        lambda: info_nce(w.z1[:1], w.z2[:1]),
        lambda: sup_con(w.z, w.labels),
        lambda: clip_loss(w.image, w.text, 100.0),
        lambda: recall_at_k(w.similarity, w.relevant, 3),
        lambda: recall_at_k(w.similarity, w.relevant, 7, empty="zero"),
        lambda: mean_reciprocal_rank(w.similarity, torch.zeros(4, 6).bool(), empty="skip"),
        lambda: ndcg(w.similarity, w.relevant),
    ):
        with pytest.raises(ValueError):
            refused()
    assert clip_loss(w.image[:1], w.text[:1], 0.0) == 0


def test_leaving_out_the_anchor_is_not_leaving_out_the_row():
    w = world()
    kept = w.labels != 2
    assert sup_con(w.z, w.labels, 0.1, singletons="skip") > sup_con(w.z[kept], w.labels[kept], 0.1)


def test_factor_and_anchors_of_the_authors_sup_con():
    w = world()
    z, labels = torch.cat([w.z1, w.z2]), w.labels.repeat(2)
    losses = torch.stack(plain_sup_con(z, labels, 0.1))
    assert_same(sup_con(z, labels, 0.1, reduction="none")[:6].mean(), losses[:6].mean(), 1e-9)


def test_a_batch_of_one_label_has_at_least_the_logarithm_of_its_positives():
    assert sup_con(world().z, torch.zeros(6, dtype=torch.long), 0.1) >= math.log(5)


def test_several_positives_are_neither_out_nor_in_until_there_is_one():
    w = world()
    pairs_only = several_positives(w.z, w.labels, 0.1)
    for variant in ("out", "in"):
        assert abs(sup_con(w.z, w.labels, 0.1, variant=variant, singletons="skip") - pairs_only) > 0.01
    z, one = torch.cat([w.z1, w.z2]), torch.arange(6).repeat(2)
    assert_same(several_positives(z, one, 0.1), sup_con(z, one, 0.1), 1e-9)


def test_attach_weight_changes_the_gradient_of_dclw_and_not_its_value():
    w = world()
    grads, values = [], []
    for attach in (False, True):
        z1 = w.z1.clone().requires_grad_()
        values.append(dclw(z1, w.z2, 0.1, attach_weight=attach))
        grads += torch.autograd.grad(values[-1], z1)
    z1 = w.z1.clone().requires_grad_()
    plain = plain_dcl(z1, w.z2, 0.1, mises_fisher(w.z1, w.z2, 0.5))  # lightly: the weight is a constant
    assert_same(grads[0], torch.autograd.grad(plain, z1)[0], 1e-9)
    assert values[0] == values[1] and not torch.allclose(grads[0], grads[1])


def test_knn_on_the_training_set_finds_itself():
    w = world()
    assert knn_accuracy(w.z, w.labels, w.z, w.labels, k=1) == 1


def test_our_queue_wraps_and_keeps_the_last_rows():
    w, queue = world(), FeatureQueue(8, 5)
    assert len(queue.features) == 0
    queue.push(w.batches[3])
    assert_same(queue.features, w.batches[3][-8:], 1e-6)
