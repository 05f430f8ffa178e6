r"""Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning. Jihai Zhang, Xiang Lan, Xiaoye Qu,
Yu Cheng, Mengling Feng, Bryan Hooi; ECCV 2024; https://arxiv.org/abs/2402.11816.

Training in stages. After stage r the embeddings of the training set are clustered, :math:`c_i^{(r)}\in\{0..K-1\}`; in
stage s an anchor's negatives have its combined label :math:`y_i`, which holds the clusters of *all* earlier stages:

.. math::
    y_i^{(s)} = \sum_{r<s} K^{s-1-r} c_i^{(r)}, \qquad
    L = \frac1{2B}\sum_i\Big[-\frac{z_i\cdot z_{p(i)}}{\tau}
        + \log\!\!\sum_{j\ne i,\;y_j=y_i}\!\! e^{z_i\cdot z_j/\tau}\Big].

In the end the outputs of all stages are concatenated.

What changes and why: a contrastive loss is content with the features that already tell a sample from random negatives;
easy features are learned, others are suppressed. Negatives of one cluster share the learned features and cannot be
told apart by them, so the loss can fall only by learning something new. Concatenation keeps what was learned before.

Paper versus code. The release holds the CLIP form; the form with two views of an image is that rule put into NT-Xent,
and its settings here are ours. (1) The released clustering script loads the current stage's clusters in every round of
its loop, so that only the last clustering counts; here all stages do, as the abstract says. (2) The release draws
whole batches from one cluster; masking a mixed batch is the same loss, and both are here. (3) Clusters come from the
image tower alone. (4) Whether a stage starts fresh or from the last encoder is left to the caller. The authors' CLIP
run starts its first stage from the pretrained weights. (5) Outputs are concatenated raw: a stage with longer vectors
counts more in a cosine. (6) A cluster smaller than a batch is dropped by pure batches, and there are up to
:math:`K^s` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.contrast import reduce, softmax_contrast
from ..core.similarity import normalize, other_view_mask, same_label_mask, self_mask

__all__ = [
    "Multistage",
    "PureBatches",
    "TwoFeatures",
    "cluster",
    "combine_labels",
    "draw_two_features",
    "group_means",
    "integrate",
    "mcl_clip",
    "mcl_nt_xent",
    "pure_batches",
    "train_stage",
]


def combine_labels(stage_labels: Tensor, clusters: int) -> Tensor:
    """Combine the clusters of stage after stage into one label: multiply by K, add the new cluster.

    Args:
        stage_labels: ``(S, n)`` integers below ``clusters``, one row a stage.
        clusters: K.

    Returns:
        ``(S, n)``; row s tells apart what any of the clusterings 0 to s tells apart, and is the label of stage s + 1.

    Raises:
        TypeError: not integers.
        ValueError: not two-dimensional, or a cluster out of range.
    """
    if stage_labels.ndim != 2:
        raise ValueError(f"stage_labels: expected shape (S, n), one row a stage, got {tuple(stage_labels.shape)}")
    combined, rows = torch.zeros_like(stage_labels[0]), []
    for labels in stage_labels:
        check_labels(labels, stage_labels.shape[1], name="stage_labels", num_classes=clusters)
        combined = clusters * combined + labels
        rows.append(combined)
    return torch.stack(rows)


def cluster(features: Tensor, clusters: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """K-means on unit features.

    Args:
        features: ``(n, d)`` of the whole training set, without augmentation, any scale (normalized here).
        clusters: K, at most n.
        seed: of k-means; a different one may find other clusters.

    Returns:
        ``(n,)`` clusters and ``(K, d)`` centers.

    Raises:
        TypeError: not floating.
        ValueError: fewer samples than clusters, NaN.
    """
    check_embeddings(features=features)
    check_batch(len(features), clusters, name="features", why=f"for {clusters} clusters")
    found = KMeans(clusters, n_init=3, random_state=seed).fit(normalize(features.detach()).double().cpu().numpy())
    labels = torch.from_numpy(found.labels_).long().to(features.device)
    return labels, torch.from_numpy(found.cluster_centers_).to(features)


def mcl_nt_xent(z1: Tensor, z2: Tensor, labels: Tensor, temperature: float = 0.2, *, reduction: str = "mean") -> Tensor:
    """NT-Xent whose negatives have the anchor's label; with one label for all it is NT-Xent.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.
        labels: ``(B,)`` combined labels of the earlier stages.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2B anchors, first views first.

    Returns:
        Scalar, or ``(2B,)``. An anchor that is alone with its label costs nothing.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: Zhang et al. (2024); reconstructed from the released CLIP form.
    """
    check_embeddings(z1=z1, z2=z2)
    check_same_shape(z1=z1, z2=z2)
    check_labels(labels, len(z1))
    check_positive(temperature=temperature)
    z, rows = normalize(torch.cat([z1, z2])), 2 * len(z1)
    candidates = same_label_mask(labels.repeat(2)) & ~self_mask(rows, z.device)  # (2B, 2B)
    return softmax_contrast(z @ z.mT / temperature, other_view_mask(len(z1), z.device), candidates, reduction=reduction)


def mcl_clip(
    image: Tensor, text: Tensor, labels: Tensor, scale: float | Tensor = 1 / 0.07, *, reduction: str = "mean"
) -> Tensor:
    r"""The CLIP loss among pairs of one label; the clusters behind the labels come from the images.

    Args:
        image: ``(B, d)``, any scale (normalized here).
        text: ``(B, d)``, row i belongs to image i.
        labels: ``(B,)`` combined labels of the earlier stages.
        scale: :math:`\kappa = 1/\tau > 0`, learned and kept at most 100 by CLIP.
        reduction: over the B pairs.

    Returns:
        Scalar, or ``(B,)``, the mean of both directions.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, scale not positive.

    Source: Zhang et al. (2024), released ``ClipLoss`` on batches of one cluster.
    """
    check_embeddings(image=image, text=text)
    check_same_shape(image=image, text=text)
    check_labels(labels, len(image))
    check_positive(scale=scale)
    logits = scale * normalize(image) @ normalize(text).mT  # (B, B)
    own, candidates = self_mask(len(image), image.device), same_label_mask(labels)
    forth = softmax_contrast(logits, own, candidates, reduction="none")
    return reduce((forth + softmax_contrast(logits.mT, own, candidates, reduction="none")) / 2, reduction)


def group_means(losses: Tensor, labels: Tensor) -> Tensor:
    """Mean loss ``(groups,)`` of each label that occurs, in increasing order, from ``(n,)`` losses and labels."""
    check_embeddings(ndim=1, losses=losses)
    check_labels(labels, len(losses))
    _, group, count = labels.unique(return_inverse=True, return_counts=True)
    return losses.new_zeros(len(count)).index_add(0, group, losses) / count


class PureBatches(NamedTuple):
    """An epoch of batches that hold one label each.

    Attributes:
        rows: ``(m, B)`` which samples meet, no sample twice.
        labels: ``(m,)`` the label of each batch.
        dropped: ``(k,)`` samples that found no full batch.
    """

    rows: Tensor
    labels: Tensor
    dropped: Tensor


def pure_batches(labels: Tensor, batch_size: int, *, generator: torch.Generator | None = None) -> PureBatches:
    """Shuffle inside each label, cut into full batches, drop the rest, visit the labels in turn.

    Args:
        labels: ``(n,)`` combined labels.
        batch_size: B.
        generator: on the CPU; the global state of torch if None.

    Raises:
        TypeError: not integers.
        ValueError: a negative label, ``batch_size`` not positive, or no label with a full batch.

    Source: Zhang et al. (2024), released batch sampler, one process.
    """
    check_labels(labels, len(labels))
    check_positive(batch_size=batch_size)
    shuffled = torch.randperm(len(labels), generator=generator).to(labels.device)
    groups = [shuffled[labels[shuffled] == y] for y in labels.unique()]  # increasing label order
    cut = [group[: len(group) // batch_size * batch_size].view(-1, batch_size) for group in groups]
    rounds = max(len(batches) for batches in cut)
    if rounds == 0:
        largest = max(len(group) for group in groups)
        raise ValueError(f"batch_size: expected at most {largest}, the size of the largest group, got {batch_size}")
    rows = torch.stack([batches[r] for r in range(rounds) for batches in cut if r < len(batches)])
    rest = torch.cat([group[batches.numel() :] for group, batches in zip(groups, cut, strict=True)])
    return PureBatches(rows, labels[rows[:, 0]], rest)


def integrate(features: Sequence[Tensor]) -> Tensor:
    """Concatenate the raw outputs ``(n, d_s)`` of all stages to ``(n, sum of d_s)``.

    Raises:
        TypeError: not floating tensors.
        ValueError: none given, different numbers of rows, NaN.
    """
    named = {f"features[{s}]": h for s, h in enumerate(features)}
    if not named:
        raise ValueError("features: expected the output of at least one stage, got none")
    check_embeddings(ndim=2, **named)
    check_same_length(**named)
    return torch.cat(list(features), 1)


class TwoFeatures(NamedTuple):
    """Samples with an easy and a hard feature.

    Attributes:
        x: ``(n, 2 * width)``, the easy feature in the first half of the columns.
        easy: ``(n,)`` its class.
        hard: ``(n,)`` class of the hard feature.
    """

    x: Tensor
    easy: Tensor
    hard: Tensor


def draw_two_features(
    n: int,
    classes: tuple[int, int] = (5, 4),
    amplitudes: tuple[float, float] = (1.5, 0.6),
    *,
    width: int = 20,
    noise: float = 0.05,
    generator: torch.Generator | None = None,
) -> TwoFeatures:
    """Draw two independent classes a sample, each shown by a random vector of its own length, plus noise."""
    check_positive(n=n, width=width, **{f"amplitudes[{i}]": a for i, a in enumerate(amplitudes)})
    labels = [torch.randint(k, (n,), generator=generator) for k in classes]
    tables = [
        a * normalize(torch.randn(k, width, generator=generator)) for a, k in zip(amplitudes, classes, strict=True)
    ]
    x = torch.cat([table[y] for table, y in zip(tables, labels, strict=True)], 1)
    return TwoFeatures(x + noise * torch.randn(x.shape, generator=generator), *labels)


class Multistage(nn.Module):
    """What lasts between stages: encoders, their centers (``centers0``, ...), a label for each training sample."""

    labels: Tensor

    def __init__(self, n: int, clusters: int = 10) -> None:
        """Start with one label for all of ``n`` training samples and no encoder."""
        super().__init__()
        check_positive(n=n, clusters=clusters)
        self.clusters = clusters
        self.encoders = nn.ModuleList()
        self.register_buffer("labels", torch.zeros(n, dtype=torch.long))

    @torch.no_grad()
    def close_stage(self, encoder: nn.Module, data: Tensor, *, seed: int = 0) -> None:
        """Freeze a trained encoder, cluster the training set ``(n, ...)`` with it and refine the labels."""
        check_same_length(labels=self.labels, data=data)
        stage = len(self.encoders)
        self.encoders.append(encoder.eval().requires_grad_(False))
        found, centers = cluster(encoder(data), self.clusters, seed=seed)
        self.labels.copy_(self.clusters * self.labels + found)
        self.register_buffer(f"centers{stage}", centers)

    def forward(self, x: Tensor) -> Tensor:
        """The representation: outputs of all stages, side by side."""
        return integrate([encoder(x) for encoder in self.encoders])


def train_stage(
    encoder: nn.Module,
    data: Tensor,
    labels: Tensor,
    augment: Callable[[Tensor], Tensor],
    *,
    steps: int,
    batch_size: int = 128,
    temperature: float = 0.2,
    learning_rate: float = 3e-3,
    pure: bool = True,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Train one stage with the labels held fixed; returns the loss of each step.

    Args:
        encoder: ``(n, ...)`` to embeddings.
        data: ``(n, ...)`` training set.
        labels: ``(n,)`` `Multistage.labels`.
        augment: makes a view of a batch.
        steps: number of steps.
        batch_size: B.
        temperature: greater than 0.
        learning_rate: of Adam.
        pure: batches of one label; otherwise mixed batches, masked.
        generator: for the batches.
    """
    optimizer = torch.optim.Adam(encoder.parameters(), lr=learning_rate)
    losses: list[float] = []
    while len(losses) < steps:
        sampled = labels if pure else torch.zeros_like(labels)
        for rows in pure_batches(sampled, batch_size, generator=generator).rows[: steps - len(losses)]:
            view1, view2 = augment(data[rows]), augment(data[rows])
            loss = mcl_nt_xent(encoder(view1), encoder(view2), labels[rows], temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses
