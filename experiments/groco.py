"""Sorting or softmax, all negatives or the ten hardest: which of the two makes GroCo?

Garments, one small encoder, a head that ends in batch normalization without parameters, as the method's own. Four
losses differ in two things only. All compare an anchor with the positive of the other view and with negatives of its
own view, and stop the gradient of both:

- ``softmax-all``, ``softmax-top``: InfoNCE against all 63 negatives of the batch, or the 10 hardest;
- ``sort-all``, ``sort-top``: the sorting network over all of them, or the 10 hardest (this is GroCo).

``nt-xent`` is the usual loss beside them. Each loss takes the best of the same three degrees of sharpness, written as
a temperature t: softmax at t, steepness 1 / (2 t); by kNN on other images and a seed that is not used again. The three
losses that keep gradients and negatives apart from NT-Xent are also trained with a head that does not end in batch
normalization (``-plain``), at the sharpness found before, to see whether their embeddings contract.

``make evidence ONLY=groco`` writes the records of the mechanism and the single runs; the comparison of all losses is in
``losses.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from cl_teach.augment import simclr_augment
from cl_teach.core import normalize, nt_xent
from cl_teach.datasets import ImageSet, fashion_mnist
from cl_teach.evaluation import embed, knn_accuracy, uniformity
from cl_teach.evidence import record, save_runs
from cl_teach.losses.groco import _exchange, group_order
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

SLUG = "groco"
SEEDS = (0, 1, 2, 3, 4)
TUNING_SEED = 100
TEMPERATURES = (0.1, 0.2, 0.5)
TOP, BATCH, DIM = 10, 64, 32
EPOCHS = at_scale(12, 100)
AUGMENT = simclr_augment(scale=(0.3, 1.0))


def top_info_nce(z1: Tensor, z2: Tensor, temperature: float, top: int) -> Tensor:
    """InfoNCE with GroCo's pairs: hardest ``top`` negatives of the anchor's own view, gradient to the anchor only.

    Args:
        z1: ``(N, d)`` first views, any scale.
        z2: ``(N, d)`` second views.
        temperature: of the softmax.
        top: number of negatives, at most N - 1.
    """
    scores = torch.cat([ordered(z1, z2, top), ordered(z2, z1, top)]) / temperature
    return (scores.logsumexp(1) - scores[:, -1]).mean()


def top_ranks(x: Tensor, low: int, steepness: float) -> Tensor:
    """Probability that each input of the sorting network ends above the ``low`` lowest ranks, without the matrix P.

    P is a product of n symmetric layers and we want P v, where v marks the upper ranks. From the last layer to the
    first that needs n numbers a layer instead of n * n.

    Args:
        x: ``(..., n)`` inputs.
        low: number of ranks below the group.
        steepness: of the comparators.

    Returns:
        ``(..., n)``.
    """
    n, layers = x.shape[-1], []
    for layer in range(n):
        first = layer % 2
        stop = first + (n - first) // 2 * 2
        keep = torch.arctan(steepness * (x[..., first + 1 : stop : 2] - x[..., first:stop:2])) / torch.pi + 0.5
        layers.append((first, stop, keep))
        x = _exchange(x, keep, first, stop, dim=-1)
    marked = (torch.arange(n, device=x.device) >= low).to(x).expand_as(x)
    for first, stop, keep in reversed(layers):
        marked = _exchange(marked, keep, first, stop, dim=-1)
    return marked


def ordered(anchor: Tensor, other: Tensor, top: int) -> Tensor:
    """GroCo's inputs ``(N, top + 1)``: the hardest negatives of the anchor's view, ascending, then the positive."""
    a, constant = normalize(anchor), normalize(anchor.detach())
    positive = (a * normalize(other.detach())).sum(1, keepdim=True)
    eye = torch.eye(len(a), dtype=torch.bool, device=a.device)
    negative = (a @ constant.mT).masked_fill(eye, -torch.inf).topk(top, dim=1).values.flip(1)
    return torch.cat([negative, positive], dim=1)


def sort(z1: Tensor, z2: Tensor, temperature: float, top: int) -> Tensor:
    """GroCo with ``top`` negatives: `cl_teach.losses.groco.groco`, in the order that needs no matrix."""
    target = (torch.arange(top + 1, device=z1.device) == top).to(z1).expand(len(z1), -1)
    ranks = [top_ranks(ordered(*pair, top), top, 1 / (2 * temperature)).clamp(0, 1) for pair in ((z1, z2), (z2, z1))]
    return torch.stack([F.binary_cross_entropy(rank, target) for rank in ranks]).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "nt-xent": nt_xent,
    "softmax-all": lambda z1, z2, t: top_info_nce(z1, z2, t, BATCH - 1),
    "softmax-top": lambda z1, z2, t: top_info_nce(z1, z2, t, TOP),
    "sort-all": lambda z1, z2, t: sort(z1, z2, t, BATCH - 1),
    "sort-top": lambda z1, z2, t: sort(z1, z2, t, TOP),
}
PLAIN = ("softmax-all", "softmax-top", "sort-top")


def train(images: Tensor, name: str, temperature: float, seed: int, *, batch_norm: bool = True) -> nn.Sequential:
    """One run; returns encoder and head."""
    seed_everything(seed)
    encoder = ConvEncoder(width=8)
    head: nn.Module = ProjectionHead(encoder.feature_dim, DIM, hidden=128)
    if batch_norm:
        head = nn.Sequential(head, nn.BatchNorm1d(DIM, affine=False))
    network = nn.Sequential(encoder, head).to(device())
    generator = torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        z1, z2 = network(torch.cat([AUGMENT(batch, generator), AUGMENT(batch, generator)])).chunk(2)
        return LOSSES[name](z1, z2, temperature)

    options: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 3e-3, "weight_decay": 1e-4, "progress": False}
    fit(network, step, images, epochs=EPOCHS, seed=seed, **options)
    return network


def judge(network: nn.Sequential, bank: ImageSet, test: ImageSet) -> dict[str, float]:
    """KNN accuracy of the features, and how the embeddings of two views of the test images lie."""
    known, features = embed(network[0], bank.images), embed(network[0], test.images)
    generator = torch.Generator(device()).manual_seed(0)
    z1, z2 = (embed(network, AUGMENT(test.images, generator)) for _ in range(2))
    rows = torch.arange(len(z1) // BATCH * BATCH).split(BATCH)  # as in training, negatives come from 64 images
    scores = torch.cat([group_order(z1[r], z2[None, r], z1[r], top_negatives=TOP).scores for r in rows])
    z = normalize(z1)
    n = len(z)
    return {
        "knn": 100 * knn_accuracy(known, bank.labels, features, test.labels, k=10),
        "violated": (scores[:, :TOP] > scores[:, TOP:]).float().sum(1).mean().item(),
        "uniformity": float(uniformity(z)),
        "cosine": float(((z @ z.mT).sum() - n) / (n * (n - 1))),
    }


def main() -> None:
    """Tune, run, record."""
    start = time.perf_counter()
    full, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
    size = at_scale(2000, 8000)
    data = ImageSet(full.images[:size], full.labels[:size], full.classes)
    held_out = ImageSet(full.images[8000:], full.labels[8000:], full.classes)

    chosen = {}
    for name in tqdm(LOSSES, desc="sharpness"):
        found = {t: judge(train(data.images, name, t, TUNING_SEED), data, held_out)["knn"] for t in TEMPERATURES}
        chosen[name] = max(found, key=lambda t: found[t])
        print(name, found, f"{time.perf_counter() - start:.0f} s", flush=True)

    runs: list[dict[str, Any]] = []
    for seed in tqdm(SEEDS, desc="seeds"):
        for name, temperature in chosen.items():
            row = {"loss": name, "temperature": temperature, "batch_norm": True, "seed": seed}
            runs.append(row | judge(train(data.images, name, temperature, seed), data, test))
            print(runs[-1], flush=True)
        for name in PLAIN:
            row = {"loss": name, "temperature": chosen[name], "batch_norm": False, "seed": seed}
            runs.append(row | judge(train(data.images, name, chosen[name], seed, batch_norm=False), data, test))
            print(runs[-1], flush=True)
    save_runs(SLUG, runs)
    write(runs, time.perf_counter() - start)


def write(runs: list[dict[str, Any]], seconds: float) -> None:
    """The records."""

    def values(name: str, metric: str, batch_norm: bool = True) -> list[float]:
        return [r[metric] for r in runs if r["loss"] == name and r["batch_norm"] == batch_norm]

    names = {
        "nt-xent": "NT-Xent",
        "softmax-all": "softmax over all negatives",
        "softmax-top": "softmax over the ten hardest",
        "sort-all": "sorting all negatives",
        "sort-top": "GroCo (sorting the ten hardest)",
    }
    note = (
        f"{at_scale(2000, 8000)} garments, {EPOCHS} epochs, batch {BATCH}; anchors, positives, negatives and "
        "stop-gradients alike; best of three degrees of sharpness for each loss."
    )
    common: dict[str, Any] = {"seeds": SEEDS, "seconds": seconds, "note": note}
    claims = [
        ("selection-under-softmax", "Keeping the ten hardest negatives helps a softmax.", "softmax-all", "softmax-top"),
        ("selection-under-sorting", "Keeping the ten hardest negatives helps the sorting.", "sort-all", "sort-top"),
        ("sorting-top-ten", "Sorting beats a softmax over the same ten negatives.", "softmax-top", "sort-top"),
        ("sorting-all", "Sorting beats a softmax over all negatives.", "softmax-all", "sort-all"),
        ("knn-against-nt-xent", "GroCo beats NT-Xent.", "nt-xent", "sort-top"),
    ]
    results = [
        record(
            SLUG,
            claim_id,
            claim=claim,
            metric="kNN accuracy",
            unit="points",
            expected="higher",
            baseline_name=names[base],
            method_name=names[method],
            baseline=values(base, "knn"),
            method=values(method, "knn"),
            **common,
        )
        for claim_id, claim, base, method in claims
    ]
    violated = "Negatives above the positive, of the ten hardest, on test images"
    geometry = [
        ("violated-pairs", "Sorting leaves fewer negatives above the positive.", "violated", "softmax-top", "sort-top"),
        # The next four were added after the results were known.
        ("violated-selection-softmax", "Selection leaves fewer above.", "violated", "softmax-all", "softmax-top"),
        ("violated-selection-sorting", "Selection leaves fewer above.", "violated", "sort-all", "sort-top"),
        ("spread-selection", "Selection spreads the embeddings.", "uniformity", "softmax-all", "softmax-top"),
        ("spread-sorting", "Sorting spreads the embeddings.", "uniformity", "softmax-top", "sort-top"),
    ]
    results += [
        record(
            SLUG,
            claim_id,
            claim=claim,
            metric=violated if metric == "violated" else "Uniformity of the embeddings of test images",
            unit="",
            expected="lower",
            baseline_name=names[base],
            method_name=names[method],
            baseline=values(base, metric),
            method=values(method, metric),
            **common,
        )
        for claim_id, claim, metric, base, method in geometry
    ]
    results.append(
        record(
            SLUG,
            "cone-without-batch-norm",
            claim="Without batch normalization at its end the head's embeddings contract to a cone.",
            metric="Mean cosine of two images",
            unit="",
            expected="higher",
            baseline_name="GroCo",
            method_name="GroCo, plain head",
            baseline=values("sort-top", "cosine"),
            method=values("sort-top", "cosine", False),
            **common,
        )
    )
    for result in results:
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
