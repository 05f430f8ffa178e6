"""How good is a representation? Probes, geometry and retrieval scores.

Accuracies and ranking scores come back as Python floats. The geometric quantities (`alignment`,
`uniformity`, `tolerance`, `effective_rank`) come back as 0-d tensors through which gradients flow, so that
a chapter can plot them and also train on them. Nothing here ever holds an n x n matrix for large n.

Sources:
    Wang and Isola (2020), Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, https://arxiv.org/abs/2005.10242 (alignment, uniformity).
    Wang and Liu (2021), Understanding the Behaviour of Contrastive Loss,
    https://arxiv.org/abs/2012.09740 (tolerance).
    Roy and Vetterli (2007), The Effective Rank: A Measure of Effective Dimensionality, EUSIPCO.
    Järvelin and Kekäläinen (2002), Cumulated Gain-Based Evaluation of IR Techniques, ACM TOIS 20(4).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .core.checks import (
    FLOATING,
    check_batch,
    check_callable,
    check_choice,
    check_count,
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_shape,
    check_shapes,
    check_type,
)
from .core.contrast import check_temperature
from .core.precision import full_precision
from .core.similarity import normalize

__all__ = [
    "alignment",
    "effective_rank",
    "embed",
    "knn_accuracy",
    "linear_probe",
    "mean_reciprocal_rank",
    "ndcg",
    "recall_at_k",
    "tolerance",
    "uniformity",
]

# One block of a pairwise matrix has at most this many entries: 64 MiB in float32.
BLOCK_ENTRIES = 2**24
# Nearest neighbors read a block once more after its product. On a processor it then still lies in the cache: 4 MiB.
CACHED_ENTRIES = 2**20
LARGEST_POWER, SHARPEST = 100.0, 1e6  # beyond them float32 knows nothing but 0 and infinity


def embed(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 1024) -> Tensor:
    """Features of all images, in evaluation mode and without a graph.

    Every submodule gets its own training mode back afterwards, also when the model raises.

    Args:
        model: a module, or any function from a batch to features, such as `lambda x: x.flatten(1)` for raw
            pixels.
        images: (n, ...) tensor; batches move to the model's device one at a time.
        batch_size: images per call.

    Returns:
        (n, ...) tensor on the model's device, detached.
    """
    check_callable(model=model)
    check_type(Tensor, images=images)
    if images.ndim < 1 or len(images) == 0:
        raise ValueError(f"images: expected at least one row, got shape {tuple(images.shape)}")
    if images.is_floating_point():
        check_embeddings(ndim=images.ndim, images=images)
    check_count(batch_size=batch_size)
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device = images.device if parameter is None else parameter.device
    modes = [module.training for module in modules]
    try:
        if isinstance(model, nn.Module):
            model.eval()
        with torch.no_grad():
            found = [model(batch.to(device)) for batch in images.split(batch_size)]
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode  # one by one: a frozen part in eval mode stays frozen
    check_type(Tensor, **{"model: its result": found[0]})
    if len(found[0]) != min(batch_size, len(images)):
        raise ValueError(f"model: expected a row for each image, got shape {tuple(found[0].shape)}")
    return torch.cat(found)


def knn_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    k: int = 10,
    temperature: float | None = None,
) -> float:
    """Share of test rows whose k nearest training rows (by cosine) vote for the right class.

    One neighbor, one vote, unless a temperature gives near ones more. Tie rule: among the classes with most votes the
    one whose voters are more similar in sum wins; if these sums tie too, the smaller label wins.

    Args:
        train_x: (n, d) features to vote.
        train_y: (n,) integer labels.
        test_x: (m, d) features to classify.
        test_y: (m,) integer labels.
        k: number of neighbors, at most n.
        temperature: None, or a number above 0: a neighbor of cosine s then has exp(s / temperature) votes.

    Returns:
        Accuracy in [0, 1].
    """
    train_y, test_y = _check_probe(train_x, train_y, test_x, test_y)
    check_count(k=k)
    if temperature is not None:
        check_temperature(temperature)
    if k > len(train_x):
        raise ValueError(f"k: expected at most the number of training rows, {len(train_x)}, got {k}")
    dtype = torch.promote_types(_at_least_single(train_x).dtype, _at_least_single(test_x).dtype)
    bank, queries = normalize(train_x.detach().to(dtype)), normalize(test_x.detach().to(dtype))
    # Labels become their place among those that vote: the tables below are as wide as there are classes, whatever the
    # labels are called. A test label that nobody votes for is never right.
    names, train_y = train_y.unique(return_inverse=True)
    place = torch.searchsorted(names, test_y).clamp(max=len(names) - 1)
    test_y = torch.where(names[place] == test_y, place, -1)
    classes = len(names)
    train_y, test_y, queries = (x.to(bank.device) for x in (train_y, test_y, queries))
    rows = max(1, (CACHED_ENTRIES if bank.device.type == "cpu" else BLOCK_ENTRIES) // len(bank))
    correct = 0
    for query, label in zip(queries.split(rows), test_y.split(rows), strict=True):
        similarity, neighbor = (query @ bank.T).topk(k, dim=1)  # (b, k)
        voters = train_y[neighbor]  # (b, k)
        shape = (len(query), classes)
        weight = torch.ones_like(similarity)
        if temperature is not None:  # relative to the nearest one, so that none overflows
            weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = similarity.new_zeros(shape).scatter_add_(1, voters, weight)
        closeness = similarity.new_zeros(shape).scatter_add_(1, voters, similarity)
        tied = votes == votes.amax(dim=1, keepdim=True)
        correct += int((closeness.masked_fill(~tied, -math.inf).argmax(dim=1) == label).sum())
    return correct / len(queries)


def linear_probe(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    regularization: float = 1.0,
    max_iter: int = 300,
) -> float:
    """Test accuracy of multinomial logistic regression on frozen features.

    Features are standardized with the training mean and deviation (a constant feature becomes 0). The solver
    is scikit-learn's L-BFGS, which draws no random numbers: the same features give the same accuracy. It
    stops at convergence or after `max_iter` steps, whichever comes first, without a warning.

    Args:
        train_x: (n, d) features.
        train_y: (n,) integer labels with at least two classes.
        test_x: (m, d) features.
        test_y: (m,) integer labels.
        regularization: strength of the squared penalty on the weights, the inverse of scikit-learn's `C`.
        max_iter: limit on solver steps.

    Returns:
        Accuracy in [0, 1].
    """
    # Imported late: scikit-learn costs a second that readers of the other scores need not pay.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train_y, test_y = _check_probe(train_x, train_y, test_x, test_y)
    check_in_range(1e-12, 1e12, regularization=regularization)
    check_count(max_iter=max_iter)
    if train_y.unique().numel() < 2:
        raise ValueError("train_y: expected at least 2 classes, got 1; there is nothing to separate")
    scale = StandardScaler()
    size = train_x.detach().abs().max().double().clamp(min=1e-300).cpu()  # squares of huge features would overflow
    train = scale.fit_transform((train_x.detach().double().cpu() / size).numpy()).astype("float32")
    test = scale.transform((test_x.detach().double().cpu() / size).numpy()).clip(-1e30, 1e30).astype("float32")
    probe = LogisticRegression(C=1 / float(regularization), max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train, train_y.numpy())
    return float(probe.score(test, test_y.numpy()))


@full_precision
def alignment(z1: Tensor, z2: Tensor, alpha: float = 2) -> Tensor:
    """Mean distance of the two views of a sample, to the power alpha; 0 when they agree.

    mean_i ||u1_i - u2_i||^alpha with unit vectors u = z / ||z||. For alpha = 2 this is 2 - 2 mean cos.

    Args:
        z1: (n, d) embeddings of one view, normalized here.
        z2: (n, d) embeddings of the other view, row i of the same sample.
        alpha: positive exponent.

    Returns:
        0-d tensor.

    Source: Wang and Isola (2020), section 4.1.1.
    """
    check_shapes(z1=(z1, "n d"), z2=(z2, "n d"))
    check_positive(alpha=alpha)
    check_in_range(0, LARGEST_POWER, alpha=alpha)
    square = (normalize(z1) - normalize(z2)).square().sum(dim=1)  # (n,)
    apart = square > 0  # a power of 0 may have an infinite gradient; that of equal views is 0
    return torch.where(apart, torch.where(apart, square, 1.0).pow(alpha / 2), 0.0).mean()


@full_precision
def uniformity(z: Tensor, t: float = 2) -> Tensor:
    """Log of the mean Gaussian potential over distinct pairs; lower is more uniform, 0 is collapsed.

    log mean_{i<j} exp(-t ||u_i - u_j||^2) with unit vectors u, as a log-sum-exp that cannot underflow.
    Two antipodal points give -4 t, the lowest value of all.

    Args:
        z: (n, d) embeddings, n >= 2, normalized here.
        t: positive sharpness of the potential.

    Returns:
        0-d tensor. Without a graph the work goes block by block in about 200 MiB; a graph keeps all blocks.

    Source: Wang and Isola (2020), section 4.1.2.
    """
    check_embeddings(z=z)
    check_batch(len(z), 2, name="z", why="for a mean over distinct pairs")
    check_positive(t=t)
    check_in_range(0, SHARPEST, t=t)
    unit = normalize(z)
    n, rows = len(unit), max(1, BLOCK_ENTRIES // len(unit))
    squares = unit.square().sum(dim=1)  # 1, or 0 for a zero vector
    blocks = []
    for start in range(0, n - 1, rows):  # the last row has no later partner
        top, rest = slice(start, min(start + rows, n - 1)), slice(start, n)
        distance = squares[top, None] + squares[None, rest] - 2 * unit[top] @ unit[rest].T  # (b, m)
        later = torch.ones_like(distance, dtype=torch.bool).triu(1)  # partner j > i: each pair once
        blocks.append((-t * distance.clamp(min=0)).masked_fill(~later, -math.inf).flatten().logsumexp(0))
    return torch.stack(blocks).logsumexp(0) - math.log(n * (n - 1) / 2)


@full_precision
def tolerance(z: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine similarity of distinct samples with the same label; 1 when every class is one point.

    The mean is conditional: it runs over pairs i != j with equal labels only. (An average over *all* pairs,
    in which pairs of different labels count as 0, is this number times the share of same-label pairs.) It
    needs no n x n matrix: with the class sums s_c of the unit vectors, the sum over ordered pairs is sum_c
    ||s_c||^2 - sum_i ||u_i||^2.

    Args:
        z: (n, d) embeddings, normalized here.
        labels: (n,) integer labels of which at least two agree.

    Returns:
        0-d tensor in [-1, 1].

    Source: Wang and Liu (2021), section 3.4, conditional on equal labels.
    """
    check_shapes(z=(z, "n d"), labels=(labels, "n", int))
    labels = check_labels(labels)
    unit = normalize(z)
    _, group, counts = labels.to(unit.device).unique(return_inverse=True, return_counts=True)
    pairs = (counts * (counts - 1)).sum()  # ordered pairs
    if pairs == 0:
        raise ValueError(f"labels: expected two equal entries to make a pair, got {len(z)} different ones")
    sums = unit.new_zeros(len(counts), unit.shape[1]).index_add(0, group, unit)  # (classes, d)
    return (sums.square().sum() - unit.square().sum()) / pairs


@full_precision
def effective_rank(features: Tensor) -> Tensor:
    """Number of directions that the features really use: exp of the entropy of normalized singular values.

    With the singular values s_1, s_2, ... of the *centered* matrix (the column mean subtracted) and p_i = s_i
    / sum_j s_j, this is exp(-sum_i p_i log p_i). It is r when r singular values are equal and the others 0.
    The singular values themselves are normalized, not their squares. Rows that are all the same (a collapsed
    encoder) have no direction at all: the value is 0, by a rule of ours, because the paper leaves the zero
    matrix out.

    Args:
        features: (n, d), n >= 2. Not normalized here.

    Returns:
        0-d tensor in {0} or [1, min(n - 1, d)].

    Source: Roy and Vetterli (2007), definition 1.
    """
    check_embeddings(features=features)
    check_batch(len(features), 2, name="features", why="because centering makes a single row zero")
    # Of any scale: the rank does not depend on it, but sums of large numbers overflow.
    features = features / features.detach().abs().max().clamp(min=torch.finfo(features.dtype).tiny)
    centered = features - features.mean(dim=0)
    singular = torch.linalg.svdvals(centered)  # descending
    # Centering equal rows leaves rounding noise, whose "rank" would look healthy, and whose logarithm has no gradient.
    real = singular > torch.finfo(features.dtype).eps * max(features.shape)
    if not real.any():
        return singular.sum() * 0
    p = torch.where(real, singular, 0.0) / singular.sum()
    return torch.where(real, torch.special.entr(torch.where(real, p, 1.0)), 0.0).sum().exp()


def recall_at_k(
    similarity: Tensor, relevant: Tensor, k: int, *, count: str = "fraction", empty: str = "refuse"
) -> float:
    """Recall among the k most similar items, averaged over queries.

    Equal similarities rank by position, the lower item index first.

    Args:
        similarity: (q, n) scores, higher is better. -inf takes an item out (such as a user's training items).
        relevant: (q, n) bool mask, or (q,) integer index of the one right item per query.
        k: how many items are looked at, at most n.
        count: "fraction" for the share of a query's relevant items that were found (recommendation),
            "any" for 1 if at least one was found (image-text retrieval). Both agree for one relevant item per
            query.
        empty: what becomes of a query without a relevant item: "refuse", "skip" leaves it out of the mean, "zero"
            counts it as 0.

    Returns:
        Recall in [0, 1].
    """
    mask = _check_relevant(similarity, relevant, empty)
    _check_depth(k, similarity.shape[1])
    check_choice(("fraction", "any"), count=count)
    hits = mask.gather(1, _ranking(similarity)[:, :k]).sum(dim=1)  # (q,)
    score = (hits > 0).double() if count == "any" else hits.double() / mask.sum(dim=1).clamp(min=1)
    return _mean_over_queries(score, mask, empty)


def mean_reciprocal_rank(similarity: Tensor, relevant: Tensor, k: int | None = None, *, empty: str = "refuse") -> float:
    """Mean over queries of 1 / (rank of the first relevant item), ranks from 1; 0 where the first k have none.

    Equal similarities rank by position, the lower item index first.

    Args:
        similarity: (q, n) scores, higher is better; -inf allowed.
        relevant: (q, n) bool mask, or (q,) integer index of the one right item per query.
        k: how many items are looked at, at most n; None for all.
        empty: what becomes of a query without a relevant item, as in `recall_at_k`.

    Returns:
        A number in [0, 1].
    """
    mask = _check_relevant(similarity, relevant, empty)
    k = similarity.shape[1] if k is None else k
    _check_depth(k, similarity.shape[1])
    hits = mask.gather(1, _ranking(similarity)[:, :k])  # (q, k)
    first = hits.int().argmax(dim=1)  # argmax gives the first maximum
    return _mean_over_queries(hits.any(dim=1) / (first + 1).double(), mask, empty)


def ndcg(scores: Tensor, relevance: Tensor, k: int | None = None, *, gain: str = "linear") -> float:
    """Normalized discounted cumulative gain of the first k items, averaged over queries.

    DCG@k = sum_{r=1..k} g(rel_r) / log2(r + 1), divided by the DCG@k of the best possible order. Equal scores
    rank by position, the lower item index first.

    Args:
        scores: (q, n) scores, higher is better; -inf allowed.
        relevance: (q, n) grades >= 0 (bool, integer or float), at least one positive per query.
        k: how many items count, at most n; None for all.
        gain: "linear" for g(rel) = rel, "exponential" for g(rel) = 2^rel - 1. Equal for grades 0 and 1.

    Returns:
        A number in [0, 1].

    Source: Järvelin and Kekäläinen (2002) for the linear gain, discount log2(r + 1) as now usual; Burges et
    al. (2005), Learning to Rank using Gradient Descent, for the exponential one.
    """
    _check_scores("scores", scores)
    if not isinstance(relevance, Tensor):
        raise TypeError(f"relevance: expected a torch.Tensor, got {type(relevance).__name__}")
    check_same_shape(scores=scores, relevance=relevance)
    k = scores.shape[1] if k is None else k
    _check_depth(k, scores.shape[1])
    check_choice(("linear", "exponential"), gain=gain)
    grades = relevance.to(scores.device, torch.float64)
    if not grades.isfinite().all() or (grades < 0).any():
        raise ValueError("relevance: expected finite grades >= 0")
    if (empty := (grades.amax(dim=1) == 0)).any():
        raise ValueError(f"relevance: expected a positive grade in every row, row {_first(empty)} has none")
    top = grades.amax(dim=1, keepdim=True)  # both gains relative to their row's largest: the quotient is the same
    gains = grades / top if gain == "linear" else torch.exp2(grades - top) - torch.exp2(-top)
    discount = 1 / torch.arange(2, k + 2, device=scores.device, dtype=torch.float64).log2()  # (k,)
    found = (gains.gather(1, _ranking(scores)[:, :k]) * discount).sum(dim=1)
    best = (gains.sort(dim=1, descending=True).values[:, :k] * discount).sum(dim=1)
    return float((found / best).mean())


def _at_least_single(x: Tensor) -> Tensor:
    """Half precision up to float32: means over many pairs need the digits."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _ranking(similarity: Tensor) -> Tensor:
    """(q, n) item indices, best first; stable, so equal scores keep their order."""
    return similarity.argsort(dim=1, descending=True, stable=True)


def _first(mask: Tensor) -> int:
    """Position of the first true entry."""
    return int(mask.int().argmax())


def _check_depth(k: int, items: int) -> None:
    check_count(k=k)
    if k > items:
        raise ValueError(f"k: expected at most the number of items, {items}, got {k}")


def _check_probe(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> tuple[Tensor, Tensor]:
    """The labels as int64, on the CPU."""
    check_embeddings(train_x=train_x)  # one by one: training and test features may lie on different devices
    check_embeddings(test_x=test_x)
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"train_x, test_x: expected equal last dimensions, got {tuple(train_x.shape)} and {tuple(test_x.shape)}"
        )
    train_y = check_labels(train_y, len(train_x), name="train_y, one a row of train_x")
    return train_y.cpu(), check_labels(test_y, len(test_x), name="test_y, one a row of test_x").cpu()


def _check_scores(name: str, scores: Tensor) -> None:
    if not isinstance(scores, Tensor) or scores.dtype not in FLOATING:
        got = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"{name}: expected a floating tensor, got {got}")
    if scores.is_meta:
        raise ValueError(f"{name}: expected a tensor with values, got one on the meta device")
    if scores.ndim != 2 or scores.numel() == 0:
        raise ValueError(f"{name}: expected shape (queries, items), got {tuple(scores.shape)}")
    if scores.isnan().any() or (scores == math.inf).any():
        raise ValueError(f"{name}: expected no NaN and no +inf (-inf takes an item out)")


def _mean_over_queries(score: Tensor, relevant: Tensor, empty: str) -> float:
    return float((score[relevant.any(dim=1)] if empty == "skip" else score).mean())


def _check_relevant(similarity: Tensor, relevant: Tensor, empty: str) -> Tensor:
    """The relevant items as a (q, n) bool mask on the device of the scores."""
    _check_scores("similarity", similarity)
    check_choice(("refuse", "skip", "zero"), empty=empty)
    if not isinstance(relevant, Tensor) or relevant.is_floating_point() or relevant.is_complex():
        got = relevant.dtype if isinstance(relevant, Tensor) else type(relevant).__name__
        raise TypeError(f"relevant: expected a bool mask (q, n) or an integer index (q,), got {got}")
    if relevant.dtype != torch.bool:
        name = "relevant, the item of each row of similarity"
        relevant = check_labels(relevant, len(similarity), name=name, num_classes=similarity.shape[1])
        return torch.nn.functional.one_hot(relevant.to(similarity.device), similarity.shape[1]).bool()
    check_mask(relevant, tuple(similarity.shape), name="relevant, of the shape of similarity")
    none = ~relevant.any(dim=1)
    if none.any() and empty == "refuse":
        raise ValueError(f"relevant: expected an item in every row, row {_first(none)} has none (or choose empty)")
    if none.all() and empty == "skip":
        raise ValueError("relevant: expected an item in some row, there is none, so that nothing is left to average")
    return relevant.to(similarity.device)
