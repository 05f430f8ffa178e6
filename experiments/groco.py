"""Sorting or softmax, all negatives or the ten hardest: which of the two makes GroCo?

Garments, one small encoder, a head that ends in batch normalization without parameters, as the method's own. Four
losses differ in two things only. All compare an anchor with the positive of the other view and with negatives of its
own view, and stop the gradient of both:

- ``softmax-all``, ``softmax-top``: InfoNCE against all 63 negatives of the batch, or the 10 hardest;
- ``sort-all``, ``sort-top``: the sorting network over all of them, or the 10 hardest (this is GroCo).

``nt-xent`` is the usual loss beside them. Sharpness is tuned alike for all, written as a temperature t: softmax at t,
steepness 1 / (2 t). GroCo's published steepness is 1, and that is what the chapter analyzes: ``sort-top-beta-1`` has it
(t = 0.5), untuned. The three losses that keep gradients and negatives apart from NT-Xent are also trained with a head
that does not end in batch normalization (``-plain``), at the sharpness found before, to see whether their embeddings
contract. The stored runs were tuned on one seed and the values 0.1, 0.2 and 0.5, those of steepness 1 not at all.

These are records of the mechanism; the method's headline is in ``losses.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _data import garments, knn
from _runner import Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import simclr_augment
from cl_teach.core import normalize, nt_xent
from cl_teach.evaluation import embed, uniformity
from cl_teach.losses.groco import _permute, group_order
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.training import at_scale, device, fit, seed_everything

TOP, BATCH, DIM = 10, at_scale(64, 64, smoke=32), 32
SIZE, EPOCHS = at_scale(2000, 8000), at_scale(12, 100, smoke=1)
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
    marked = (torch.arange(x.shape[-1], device=x.device) >= low).to(x).expand_as(x)
    return _permute(marked.movedim(-1, 0), x.movedim(-1, 0), steepness).movedim(0, -1)


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
    "sort-top-beta-1": lambda z1, z2, t: sort(z1, z2, t, TOP),
}
PLAIN = ("softmax-all", "softmax-top", "sort-top")


def train(seed: int, loss: str, temperature: float, batch_norm: bool) -> nn.Sequential:
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
        return LOSSES[loss](z1, z2, temperature)

    options: dict[str, Any] = {"batch_size": BATCH, "learning_rate": 3e-3, "weight_decay": 1e-4, "progress": False}
    fit(network, step, garments(SIZE).train.images, epochs=EPOCHS, seed=seed, **options)
    return network


def score(seed: int, **settings: Any) -> float:
    """KNN accuracy on the images to tune on."""
    return knn(train(seed, **settings)[0], garments(SIZE).train, garments().held_out)


def trial(seed: int, loss: str, temperature: float, batch_norm: bool) -> dict[str, float]:
    """KNN accuracy of the features, and how the embeddings of two views of the test images lie."""
    network, (bank, _, test) = train(seed, loss, temperature, batch_norm), garments(SIZE)
    generator = torch.Generator(device()).manual_seed(0)
    z1, z2 = (embed(network, AUGMENT(test.images, generator)) for _ in range(2))
    rows = torch.arange(len(z1) // BATCH * BATCH).split(BATCH)  # as in training, negatives come from the batch
    scores = torch.cat([group_order(z1[r], z2[None, r], z1[r], top_negatives=TOP).scores for r in rows])
    z = normalize(z1)
    n = len(z)
    return {
        "knn": knn(network[0], bank, test),
        "violated": (scores[:, :TOP] > scores[:, TOP:]).float().sum(1).mean().item(),
        "uniformity": float(uniformity(z)),
        "cosine": float(((z @ z.mT).sum() - n) / (n * (n - 1))),
    }


KNN = Metric("kNN accuracy", "knn", "points")
VIOLATED = Metric(
    "Negatives above the positive, of the ten hardest, on test images",
    "violated",
    smallest_effect=0.1,
    reason="One more negative above the positive for every tenth anchor.",
)
UNIFORMITY = Metric(
    "Uniformity of the embeddings of test images",
    "uniformity",
    smallest_effect=0.05,
    reason="A change of 0.05 nats is what a tenth of a change of the temperature brings.",
)
COSINE = Metric("Mean cosine of two images", "cosine", smallest_effect=0.01, reason="A hundredth of a cosine.")
FEWER = "Sorting leaves fewer negatives above the positive."
EXPERIMENT = Experiment(
    "groco",
    {
        loss: {"loss": loss, "batch_norm": True} | ({"temperature": 0.5} if loss == "sort-top-beta-1" else {})
        for loss in LOSSES
    }
    | {f"{loss}-plain": {"loss": loss, "batch_norm": False} for loss in PLAIN},
    trial,
    [
        Claim(
            "selection-under-softmax",
            "Keeping the ten hardest negatives helps a softmax.",
            KNN,
            "softmax-all",
            "softmax-top",
            origin="ours",
        ),
        Claim(
            "selection-under-sorting",
            "Keeping the ten hardest negatives helps the sorting.",
            KNN,
            "sort-all",
            "sort-top",
            origin="ours",
        ),
        Claim(
            "sorting-top-ten",
            "Sorting beats a softmax over the same ten negatives.",
            KNN,
            "softmax-top",
            "sort-top",
            origin="ours",
        ),
        Claim(
            "sorting-all",
            "Sorting beats a softmax over all negatives.",
            KNN,
            "softmax-all",
            "sort-all",
            origin="ours",
        ),
        Claim("knn-against-nt-xent", "GroCo beats NT-Xent.", KNN, "nt-xent", "sort-top"),
        Claim(
            "knn-against-nt-xent-beta-1",
            "GroCo with its published steepness of 1 beats NT-Xent.",
            KNN,
            "nt-xent",
            "sort-top-beta-1",
        ),
        Claim("violated-pairs", FEWER, VIOLATED, "softmax-top", "sort-top", "lower"),
        Claim("violated-pairs-beta-1", FEWER, VIOLATED, "softmax-top", "sort-top-beta-1", "lower"),
        Claim(
            "violated-selection-softmax",
            "Selection leaves fewer above.",
            VIOLATED,
            "softmax-all",
            "softmax-top",
            "lower",
            "post hoc",
        ),
        Claim(
            "violated-selection-sorting",
            "Selection leaves fewer above.",
            VIOLATED,
            "sort-all",
            "sort-top",
            "lower",
            "post hoc",
        ),
        Claim(
            "spread-selection",
            "Selection spreads the embeddings.",
            UNIFORMITY,
            "softmax-all",
            "softmax-top",
            "lower",
            "post hoc",
        ),
        Claim(
            "spread-sorting",
            "Sorting spreads the embeddings.",
            UNIFORMITY,
            "softmax-top",
            "sort-top",
            "lower",
            "post hoc",
        ),
        Claim(
            "cone-without-batch-norm",
            "Without batch normalization at its end the head's embeddings contract to a cone.",
            COSINE,
            "sort-top",
            "sort-top-plain",
            origin="ours",
            names=("GroCo", "GroCo, plain head"),
        ),
    ],
    {
        "nt-xent": "NT-Xent",
        "softmax-all": "softmax over all negatives",
        "softmax-top": "softmax over the ten hardest",
        "sort-all": "sorting all negatives",
        "sort-top": "GroCo (sorting the ten hardest)",
        "sort-top-beta-1": "GroCo at steepness 1",
        "sort-top-plain": "GroCo, plain head",
    },
    f"{SIZE} garments, {EPOCHS} epochs, batch {BATCH}; anchors, positives, negatives and stop-gradients alike; each "
    "loss at its best sharpness.",
    tuning=Tuning(
        {"temperature": (0.1, 0.2, 0.5)},
        score,
        like={f"{loss}-plain": loss for loss in PLAIN},
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
