r"""When Noisy Labels Meet Long Tail Dilemmas: A Representation Calibration Method (RCAL). Manyi Zhang, Xuyang Zhao,
Jun Yao, Chun Yuan, Weiran Huang; ICCV 2023; https://arxiv.org/abs/2211.10955.

Features :math:`z_i` come from contrastive training without labels. Each class is a Gaussian, repaired twice: outliers
inside each noisy class are dropped (local outlier factor), then a tail class k borrows from its q nearest head classes
:math:`C_k`. Heads are the most frequent classes that together hold half of the samples:

.. math::
    \mu'_k &= \gamma\sum_{c\in C_k}\omega_c\hat\mu_c + (1-\gamma)\hat\mu_k, \qquad
        \omega_c \propto n_c\lVert\hat\mu_c-\hat\mu_k\rVert^2, \\
    \Sigma'_k &= \gamma\sum_{c\in C_k}\omega_c\hat\Sigma_c + (1-\gamma)\hat\Sigma_k + \alpha\,\mathbf 1\mathbf 1^\top .

Features drawn from :math:`N(\mu'_k, \Sigma'_k)` balance the classes while encoder and classifier are trained with

.. math::
    L = \frac1N\sum_i\big[\lambda\,\mathrm{CE}(h_i,\tilde y_i) + (1-\lambda)\,\mathrm{CE}(h_i,\tilde y_{j(i)})\big]
        + \beta\,\frac1N\sum_i\lVert z_i - z_i^{con}\rVert^2 .

What changes and why: wrong labels and a long tail break each other's cures. Keeping samples of small loss throws the
tail away, weighting the tail up weights its wrong labels up. Features made without labels cannot be bent by wrong
ones, so what a class looks like can be repaired there, before a classifier sees it.

Paper versus code. No code was found; the equations are the paper's. (1) The squared distance stands in the *numerator*
of :math:`\omega`: of the chosen heads the nearer ones weigh less (the paper says so in words, too). Equal weights,
which its proof uses, are here as a control. (2) With an imbalance of 100 CIFAR-10 has two heads, fewer than q = 3:
then all heads are used. Heads that coincide with the tail's mean give 0/0: then all weigh the same. (3) Open in the
paper, chosen here: :math:`\gamma`, neighbors and threshold of the outlier factor, the Beta distribution of mixup, and
how many features are drawn (so many that every class is seen as often as the largest). (4) Also chosen: the distance is
taken on images that are not mixed, and drawn features enter as a plain cross-entropy of the classifier, trained by the
same optimizer (the paper gives them one of their own). (5) :math:`\mathbf 1\mathbf 1^\top` has rank one and does not
make a covariance of few samples invertible; features are drawn through an eigendecomposition, which needs no inverse.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
    finite_result,
)
from ..core.draws import draw_beta
from ..core.frozen import evaluating
from ..core.gaussians import covariance_roots, draw_by_roots, local_outlier_factor
from ..core.precision import full_precision
from ..core.pseudo_labels import count_classes
from ..models.apply import apply_network, weight_dtype

__all__ = [
    "RCAL",
    "Calibrated",
    "RCALTerms",
    "RobustGaussians",
    "calibrate_tails",
    "classifier_loss",
    "head_classes",
    "robust_gaussians",
]

# Images that are encoded at a time.
CHUNK = 1024
# Squares of longer features leave the range of float32.
LARGEST = 1e15
WEIGHTINGS = ("size_times_squared_distance", "uniform")


class RobustGaussians(NamedTuple):
    """Classes without outliers: factor ``(n,)``, who stayed ``(n,)``, means ``(K, m)``, covariances ``(K, m, m)``."""

    lof: Tensor
    inlier: Tensor
    means: Tensor
    covs: Tensor


class Calibrated(NamedTuple):
    """Classes after borrowing: means, covariances, and for each class its heads (nearest first) with their weights."""

    means: Tensor
    covs: Tensor
    heads: list[Tensor]
    weights: list[Tensor]


class RCALTerms(NamedTuple):
    """Scalars: the sum, the mixup loss with the distance term, and the cross-entropy of drawn features."""

    loss: Tensor
    real: Tensor
    drawn: Tensor


@torch.no_grad()
@full_precision
def robust_gaussians(
    z: Tensor, labels: Tensor, *, n_neighbors: int = 20, lof_threshold: float = 1.5, removed: Tensor | None = None
) -> RobustGaussians:
    """Step 2: mean and covariance of every noisy class without its outliers.

    Args:
        z: ``(n, m)`` contrastive features of images without augmentation.
        labels: ``(n,)`` noisy labels; every class below the largest label must occur.
        n_neighbors: of the outlier factor. It must exceed the largest group of equally mislabeled samples in a class,
            or such a group looks like a cluster of its own.
        lof_threshold: at least 1; samples above are dropped. The densest sample of a class always stays.
        removed: ``(K,)`` shares in [0, 1] to drop in each class, the largest factors first, never all; replaces the
            threshold.

    Returns:
        The covariances are divided by inliers - 1; zero for a single inlier.
    """
    check_shapes(z=(z, "n m"), labels=(labels, "n", int))
    labels = check_labels(labels)
    check_in_range(1, math.inf, lof_threshold=lof_threshold)
    sizes = count_classes(labels)
    if removed is not None:
        check_shapes(removed=(removed, "k"))
        if len(removed) != len(sizes):
            raise ValueError(f"labels, removed: expected a share for each of {len(sizes)} classes, got {len(removed)}")
        check_entries(0, 1, removed=removed)
    lof, inlier = torch.ones_like(z[:, 0]), torch.ones(len(z), dtype=torch.bool, device=z.device)
    means, covs = [], []
    for k in range(len(sizes)):
        rows = (labels == k).nonzero()[:, 0]
        lof[rows] = local_outlier_factor(z[rows], n_neighbors)
        if removed is None:
            inlier[rows] = lof[rows] <= max(lof_threshold, float(lof[rows].min()))
        else:
            count = min(round(float(removed[k]) * len(rows)), len(rows) - 1)
            inlier[rows[lof[rows].argsort(descending=True)[:count]]] = False
        kept = z[rows[inlier[rows]]]
        means.append(kept.mean(0))
        centered = kept - means[-1]
        covs.append(centered.mT @ centered / max(len(kept) - 1, 1))
    return RobustGaussians(lof, inlier, torch.stack(means), finite_result(torch.stack(covs), z=z))


def head_classes(class_sizes: Tensor, share: float = 0.5) -> Tensor:
    """The most frequent classes that together hold at least ``share`` of the samples.

    Args:
        class_sizes: ``(K,)`` integers, samples of each class.
        share: in (0, 1].

    Returns:
        Class numbers, most frequent first, equal sizes by number.

    Example:
        >>> head_classes(torch.tensor([10, 40, 30, 20])).tolist()
        [1, 2]
    """
    sizes = check_labels(class_sizes, name="class_sizes")
    check_in_range(0, 1, share=share)
    sizes, order = sizes.sort(descending=True, stable=True)
    reached = sizes.cumsum(0).double() >= share * sizes.sum().double()
    if not reached.any() or not sizes[0]:
        raise ValueError("class_sizes: expected at least one class with samples")
    return order[: int(reached.long().argmax()) + 1]


@torch.no_grad()
@full_precision
def calibrate_tails(
    means: Tensor,
    covs: Tensor,
    class_sizes: Tensor,
    heads: Tensor,
    *,
    q: int = 3,
    gamma: float = 0.3,
    alpha: float = 0.001,
    weighting: str = "size_times_squared_distance",
) -> Calibrated:
    r"""Step 3: every tail class borrows from its nearest heads, heads stay.

    Args:
        means: ``(K, m)``.
        covs: ``(K, m, m)``.
        class_sizes: ``(K,)`` integers, samples in each class.
        heads: ``(H,)`` class numbers, from `head_classes`; the others are the tail.
        q: heads to borrow from; all of them where there are fewer.
        gamma: :math:`\gamma \in [0, 1]`, the share of the heads.
        alpha: :math:`\alpha \ge 0`, added to every entry of a tail covariance.
        weighting: ``"size_times_squared_distance"``, or ``"uniform"`` as a control.
    """
    check_shapes(means=(means, "k m"), covs=(covs, "k m m"), class_sizes=(class_sizes, "k", int))
    sizes = check_labels(class_sizes, name="class_sizes")
    heads = check_labels(heads, name="heads", num_classes=len(means))
    check_count(q=q)
    check_in_range(0, 1, gamma=gamma)
    check_in_range(0, math.inf, alpha=alpha)
    check_choice(WEIGHTINGS, weighting=weighting)
    if len(heads) == 0:
        raise ValueError("heads: expected at least one class number, got none")
    new_means, new_covs = means.clone(), covs.clone()
    chosen_heads, weights = [heads[:0]] * len(means), [means[0, :0]] * len(means)
    for k in sorted(set(range(len(means))) - set(heads.tolist())):
        distance, order = torch.linalg.vector_norm(means[heads] - means[k], dim=1).sort(stable=True)
        chosen, distance = heads[order[:q]], distance[:q]
        omega = torch.ones_like(distance)
        if weighting == "size_times_squared_distance" and distance.any():
            omega = sizes[chosen].to(distance) * (distance / distance.max()).square()
        if not omega.any():  # heads that coincide with the tail or hold no samples
            omega = torch.ones_like(distance)
        omega = omega / omega.sum()
        new_means[k] = gamma * (omega @ means[chosen]) + (1 - gamma) * means[k]
        new_covs[k] = gamma * (omega[:, None, None] * covs[chosen]).sum(0) + (1 - gamma) * covs[k] + alpha
        chosen_heads[k], weights[k] = chosen, omega
    new_covs = finite_result(new_covs, means=means, covs=covs, alpha=alpha)
    return Calibrated(new_means, new_covs, chosen_heads, weights)


@full_precision
def classifier_loss(
    features: Tensor,
    contrastive: Tensor,
    logits: Tensor,
    labels: Tensor,
    permutation: Tensor,
    share: float = 1.0,
    *,
    beta: float = 0.5,
) -> Tensor:
    r"""Step 4: mixup cross-entropy, and the features stay near the contrastive ones.

    Args:
        features: ``(N, m)`` of the encoder in training.
        contrastive: ``(N, m)`` of the same images before it started; a constant.
        logits: ``(N, K)`` of the mixed images ``share * x + (1 - share) * x[permutation]``.
        labels: ``(N,)`` noisy labels.
        permutation: ``(N,)`` each image's partner.
        share: :math:`\lambda \in [0, 1]`.
        beta: weight of the squared distance (the paper's), at least 0.

    Returns:
        Scalar.
    """
    check_shapes(features=(features, "n m"), contrastive=(contrastive, "n m"), logits=(logits, "n k"))
    labels = check_labels(labels, len(logits))
    check_labels(labels, name="labels, logits", num_classes=logits.shape[1])
    permutation = check_labels(permutation, len(logits), name="permutation", num_classes=len(logits))
    check_in_range(0, 1, share=share)
    check_in_range(0, math.inf, beta=beta)
    mixup = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[permutation])
    loss = mixup + beta * (features - contrastive.detach()).square().sum(1).mean()
    return finite_result(loss, features=features, contrastive=contrastive, logits=logits, beta=beta)


class RCAL(nn.Module):
    """Steps 2 to 4 around a contrastively trained encoder.

    State: the contrastive features, the repaired Gaussians and the number of features each class lacks.

    Example:
        >>> images, labels = torch.randn(30, 5), torch.arange(30) % 4 // 2
        >>> net = RCAL(nn.Linear(5, 3), nn.Linear(3, 2), images, labels)
        >>> net.means.shape, net(images).shape
        (torch.Size([2, 3]), torch.Size([30, 2]))
        >>> bool(net.loss(images, labels, torch.arange(30)).loss > 0)
        True
    """

    contrastive: Tensor
    means: Tensor
    covs: Tensor
    missing: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        heads: Tensor | None = None,
        *,
        n_neighbors: int = 20,
        lof_threshold: float = 1.5,
        removed: Tensor | None = None,
        q: int = 3,
        gamma: float = 0.3,
        alpha: float = 0.001,
        weighting: str = "size_times_squared_distance",
        beta: float = 0.5,
        mixup: float = 1.0,
        drawn_weight: float = 1.0,
    ) -> None:
        """Store the contrastive features of all images and repair the classes, once.

        Args:
            encoder: images to features ``(n, m)``, trained without labels (`models.moco.MoCo`).
            classifier: features to logits.
            images: ``(n, ...)`` the whole training set, not augmented.
            labels: ``(n,)`` noisy labels.
            heads: ``(H,)`` class numbers; `head_classes` if None.
            n_neighbors: see `robust_gaussians`.
            lof_threshold: likewise.
            removed: likewise.
            q: see `calibrate_tails`.
            gamma: likewise.
            alpha: likewise.
            weighting: likewise.
            beta: see `classifier_loss`.
            mixup: a in Beta(a, a), from which the share of an image in its mixture is drawn; 0 mixes nothing.
            drawn_weight: of the cross-entropy of drawn features; 0 draws none.
        """
        super().__init__()
        check_module(encoder=encoder, classifier=classifier)
        check_in_range(0, math.inf, beta=beta, mixup=mixup, drawn_weight=drawn_weight)
        self.encoder, self.classifier = encoder, classifier
        self.beta, self.mixup, self.drawn_weight = beta, mixup, drawn_weight
        check_shapes(images=(images, "..."))
        labels = check_labels(labels)
        check_same_length(images=images, labels=labels)
        with evaluating(encoder), torch.no_grad():
            z = torch.cat([apply_network(encoder, "n m", images=part) for part in images.split(CHUNK)])
        check_entries(-LARGEST, LARGEST, open_low=False, **{"images (their features)": z})
        labels = labels.to(z.device)
        sizes = count_classes(labels)
        robust = robust_gaussians(z, labels, n_neighbors=n_neighbors, lof_threshold=lof_threshold, removed=removed)
        heads = head_classes(sizes) if heads is None else heads
        given = (robust.means, robust.covs, sizes, heads)
        repaired = calibrate_tails(*given, q=q, gamma=gamma, alpha=alpha, weighting=weighting)
        self.register_buffer("contrastive", z)
        self.register_buffer("means", repaired.means)
        self.register_buffer("covs", repaired.covs)
        self.register_buffer("missing", sizes.max() - sizes)
        self._known: tuple[Tensor, int, Tensor] | None = None  # covariances, their version, their roots

    def _roots(self) -> Tensor:
        """Of the covariances, decomposed anew only where they have changed."""
        if self._known is None or self._known[0] is not self.covs or self._known[1] != self.covs._version:
            self._known = (self.covs, self.covs._version, covariance_roots(self.covs))
        return self._known[2]

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self._classify(apply_network(self.encoder, "n m", images=images))

    def _classify(self, features: Tensor) -> Tensor:
        return apply_network(self.classifier, "n k", **{"images (their features)": features})

    def loss(
        self, images: Tensor, labels: Tensor, index: Tensor, *, generator: torch.Generator | None = None
    ) -> RCALTerms:
        """Terms of images ``(N, ...)`` with noisy labels ``(N,)``, whose rows in the training set are ``index (N,)``.

        Mixing partners, the share of mixing and as many features as this batch's part of the missing ones are drawn.
        The drawn features go through the classifier only.
        """
        check_generator(generator)
        check_shapes(images=(images, "..."))
        labels = check_labels(labels, num_classes=len(self.means))
        index = check_labels(index, name="index", num_classes=len(self.contrastive))
        check_same_length(images=images, labels=labels, index=index)
        images = images.to(weight_dtype(self.encoder) or images.dtype)
        permutation = torch.randperm(len(images), generator=generator)
        share = float(draw_beta(self.mixup, self.mixup, generator=generator)) if self.mixup else 1.0
        permutation = permutation.to(images.device)
        mixed = share * images + (1 - share) * images[permutation]
        features, target = apply_network(self.encoder, "n m", images=images), self.contrastive[index]
        check_entries(-LARGEST, LARGEST, open_low=False, **{"images (their features)": features})
        real = classifier_loss(features, target, self(mixed), labels, permutation, share, beta=self.beta)
        count = round(len(images) * int(self.missing.sum()) / len(self.contrastive))
        if not self.drawn_weight or not count:
            return RCALTerms(real, real, torch.zeros_like(real))
        classes = self.missing.double().cpu().multinomial(count, replacement=True, generator=generator)
        classes = classes.to(self.means.device)
        invented = draw_by_roots(self.means, self._roots(), classes, generator=generator)
        drawn = F.cross_entropy(self._classify(invented).float(), classes)
        return RCALTerms(real + self.drawn_weight * drawn, real, drawn)
