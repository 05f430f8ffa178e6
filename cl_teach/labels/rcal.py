r"""When Noisy Labels Meet Long Tail Dilemmas: A Representation Calibration Method (RCAL). Manyi Zhang, Xuyang Zhao,
Jun Yao, Chun Yuan, Weiran Huang; ICCV 2023; https://arxiv.org/abs/2211.10955.

Features :math:`z_i` come from contrastive training without labels. Each class is a Gaussian, repaired twice: outliers
inside each noisy class are dropped (local outlier factor), then a tail class k borrows from its q nearest head classes
:math:`C_k`:

.. math::
    \mu'_k = \gamma\hat\mu_k + (1-\gamma)\sum_{c\in C_k}\omega_c\hat\mu_c, \qquad
    \Sigma'_k = \gamma\hat\Sigma_k + (1-\gamma)\sum_{c\in C_k}\omega_c\hat\Sigma_c + \alpha\,\mathbf 1\mathbf 1^\top .

Features drawn from :math:`N(\mu'_k, \Sigma'_k)` balance the classes while encoder and classifier are trained with

.. math::
    L = \frac1N\sum_i\big[\lambda\,\mathrm{CE}(h_i,\tilde y_i) + (1-\lambda)\,\mathrm{CE}(h_i,\tilde y_{j(i)})\big]
        + \beta\,\frac1N\sum_i\lVert z_i - z_i^{con}\rVert^2 .

What changes and why: wrong labels and a long tail break each other's cures. Keeping samples of small loss throws the
tail away, weighting the tail up weights its wrong labels up. Features made without labels cannot be bent by wrong
ones, so what a class looks like can be repaired there, before a classifier sees it.

Paper versus code. No code was found and the equations of the paper were not accessible to us, so parts are a
*reconstruction*. (1) From the paper: contrastive features without labels, one Gaussian a class, outlier removal
inside noisy classes, borrowing from the nearest heads, the noise model of `polluted_moments`. (2) Chosen here: the
outlier threshold, the form of the two sums above, the weights :math:`\omega`, all default values, topping every class
up to the largest one. (3) Chosen here: the squared distance in L, taken on the features of images that are not mixed,
and a plain cross-entropy on drawn features. (4) :math:`\mathbf 1\mathbf 1^\top` has rank one and does not make a
covariance of few samples invertible; features are drawn through an eigendecomposition, which needs no inverse.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.contrast import info_nce
from ..core.queue import FeatureQueue
from ..core.teacher import MomentumTeacher

__all__ = [
    "RCAL",
    "Calibrated",
    "RobustGaussians",
    "calibrate_tails",
    "classifier_loss",
    "flip_labels",
    "local_outlier_factor",
    "moco_step",
    "polluted_moments",
    "robust_gaussians",
    "sample_features",
]


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


def moco_step(
    encoder: nn.Module,
    teacher: MomentumTeacher,
    queue: FeatureQueue,
    query: Tensor,
    key: Tensor,
    temperature: float = 0.2,
) -> Tensor:
    """Step 1, contrastive training without labels: the query finds its key among the keys of the past.

    Args:
        encoder: images to embeddings (with its head).
        teacher: its slow copy, which makes the keys; update it after the optimizer step.
        queue: past keys, pushed here; while it is empty, the other keys of the batch are the negatives.
        query: ``(n, ...)`` first views.
        key: ``(n, ...)`` second views.
        temperature: greater than 0.
    """
    keys = teacher(key)
    negatives = queue.features
    loss = info_nce(encoder(query), keys, negatives if len(negatives) else None, temperature)
    queue.push(keys)
    return loss


@torch.no_grad()
def local_outlier_factor(z: Tensor, n_neighbors: int = 20) -> Tensor:
    r"""How much sparser it is around a point than around its neighbors; close to 1 inside a cluster.

    .. math::
        r(a,b) = \max(d_\kappa(b), \lVert a-b\rVert),\quad lrd(a) = 1/\mathrm{mean}_b\,r(a,b),\quad
        LOF(a) = \mathrm{mean}_b\,lrd(b)/lrd(a), \qquad b \in N_\kappa(a) .

    Args:
        z: ``(n, m)`` points.
        n_neighbors: :math:`\kappa`, at most n - 1 are used; the point itself does not count.

    Returns:
        ``(n,)``; 1 for a single point.

    Raises:
        TypeError: not a floating tensor. ValueError: NaN, empty, ``n_neighbors`` below 1.

    Source: Breunig, Kriegel, Ng and Sander, LOF: Identifying Density-Based Local Outliers (2000).
    """
    check_embeddings(z=z)
    check_positive(n_neighbors=n_neighbors)
    if len(z) == 1:
        return torch.ones(1, dtype=z.dtype, device=z.device)
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")  # exact zeros for duplicates
    distance = distance.fill_diagonal_(math.inf)
    near, neighbors = distance.topk(min(n_neighbors, len(z) - 1), largest=False)  # (n, k), increasing
    reach = torch.maximum(near, near[neighbors, -1])  # near[:, -1] is the distance to the k-th neighbor
    density = 1 / (reach.mean(1) + 1e-10)  # duplicates would be infinitely dense
    return density[neighbors].mean(1) / density


@torch.no_grad()
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
        removed: ``(K,)`` shares in [0, 1) to drop in each class, the largest factors first; replaces the threshold.

    Returns:
        The covariances are divided by inliers - 1; zero for a single inlier.

    Raises:
        TypeError: wrong dtype. ValueError: shapes do not fit, NaN, a class without samples, a value out of range.
    """
    check_embeddings(z=z)
    check_labels(labels, len(z))
    classes = int(labels.max()) + 1
    check_in_range(1, math.inf, lof_threshold=lof_threshold)
    if removed is not None:
        check_labels(torch.arange(len(removed)), classes, name="removed")
        check_in_range(0, 1, removed=removed)
    lof, inlier = torch.ones_like(z[:, 0]), torch.ones(len(z), dtype=torch.bool, device=z.device)
    means, covs = [], []
    for k in range(classes):
        rows = (labels == k).nonzero()[:, 0]
        if len(rows) == 0:
            raise ValueError(f"labels: every class needs a sample, class {k} has none")
        lof[rows] = local_outlier_factor(z[rows], n_neighbors)
        if removed is None:
            inlier[rows] = lof[rows] <= lof_threshold
        else:
            count = min(round(float(removed[k]) * len(rows)), len(rows) - 1)
            inlier[rows[lof[rows].argsort(descending=True)[:count]]] = False
        kept = z[rows[inlier[rows]]]
        means.append(kept.mean(0))
        centered = kept - means[-1]
        covs.append(centered.mT @ centered / max(len(kept) - 1, 1))
    return RobustGaussians(lof, inlier, torch.stack(means), torch.stack(covs))


@torch.no_grad()
def calibrate_tails(
    means: Tensor,
    covs: Tensor,
    class_sizes: Tensor,
    head_classes: Tensor,
    *,
    q: int = 3,
    gamma: float = 0.7,
    alpha: float = 0.0,
    weighting: str = "uniform",
) -> Calibrated:
    r"""Step 3: every tail class borrows from its nearest heads, heads stay. A reconstruction, see the module.

    Args:
        means: ``(K, m)``.
        covs: ``(K, m, m)``.
        class_sizes: ``(K,)`` samples in each class.
        head_classes: ``(H,)`` class numbers; the others are the tail.
        q: heads to borrow from, at most H.
        gamma: :math:`\gamma \in [0, 1]`, trust in the class's own estimate.
        alpha: :math:`\alpha \ge 0`, added to every entry of a tail covariance.
        weighting: ``"uniform"`` or ``"size_over_distance"``.

    Raises:
        TypeError: wrong dtype. ValueError: shapes do not fit, no head, a value out of range.
    """
    check_embeddings(means=means)
    check_embeddings(ndim=3, covs=covs)
    check_same_length(means=means, covs=covs, class_sizes=class_sizes)
    check_same_shape(covs=covs, **{"outer products of means": means[:, :, None] * means[:, None, :]})
    check_labels(head_classes, len(head_classes), name="head_classes", num_classes=len(means))
    check_positive(q=q, class_sizes=class_sizes)
    check_in_range(1, len(head_classes), q=q)
    check_in_range(0, 1, gamma=gamma)
    check_in_range(0, math.inf, alpha=alpha)
    check_choice(("uniform", "size_over_distance"), weighting=weighting)
    new_means, new_covs = means.clone(), covs.clone()
    none = head_classes[:0]
    heads, weights = [none] * len(means), [means[0, :0]] * len(means)
    for k in sorted(set(range(len(means))) - set(head_classes.tolist())):
        distance, order = torch.linalg.vector_norm(means[head_classes] - means[k], dim=1).sort(stable=True)
        chosen = head_classes[order[:q]]
        if weighting == "uniform":
            omega = torch.full_like(distance[:q], 1 / q)
        else:
            omega = F.normalize(class_sizes[chosen].to(means) / distance[:q].clamp_min(1e-12), p=1, dim=0)
        borrowed_mean = omega @ means[chosen]  # (m,)
        borrowed_cov = (omega[:, None, None] * covs[chosen]).sum(0)  # (m, m)
        new_means[k] = gamma * means[k] + (1 - gamma) * borrowed_mean
        new_covs[k] = gamma * covs[k] + (1 - gamma) * borrowed_cov + alpha
        heads[k], weights[k] = chosen, omega
    return Calibrated(new_means, new_covs, heads, weights)


def sample_features(means: Tensor, covs: Tensor, counts: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``counts[k]`` features of class k from ``(K, m)`` means and ``(K, m, m)`` covariances, singular ones too.

    Returns ``(counts.sum(), m)`` features and their labels. Raises TypeError or ValueError where dtypes or shapes do
    not fit. Negative eigenvalues count as 0.
    """
    check_embeddings(means=means)
    check_embeddings(ndim=3, covs=covs)
    check_labels(counts, len(means), name="counts")
    check_same_length(means=means, covs=covs)
    values, vectors = torch.linalg.eigh(covs)
    root = vectors * values.clamp_min(0).sqrt()[:, None, :]  # (K, m, m), root root^T is the covariance
    labels = torch.arange(len(means), device=counts.device).repeat_interleave(counts).to(means.device)
    noise = torch.randn(len(labels), means.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return means[labels] + (root[labels] @ noise.to(means)[:, :, None])[:, :, 0], labels


def flip_labels(labels: Tensor, eta: float, *, seed: int = 0) -> Tensor:
    r"""The paper's label noise: with probability :math:`\eta` a label is drawn anew from the class frequencies.

    A label k then becomes :math:`j \ne k` with probability :math:`\eta p_j`, so frequent classes attract wrong labels.
    """
    check_labels(labels, len(labels))
    check_in_range(0, 1, eta=eta)
    generator = torch.Generator().manual_seed(seed)
    anew = torch.multinomial(labels.bincount().double().cpu(), len(labels), replacement=True, generator=generator)
    flipped = torch.rand(len(labels), generator=generator) < eta
    return torch.where(flipped.to(labels.device), anew.to(labels), labels)


def polluted_moments(means: Tensor, cov: Tensor, priors: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""What label noise does to class Gaussians. With :math:`c_k = \mu_k - \bar\mu`, distance to the global mean,

    .. math::
        E[z\mid\tilde y=k] = \bar\mu + (1-\eta)c_k, \qquad
        \mathrm{Cov}[z\mid\tilde y=k] = \Sigma + \eta(1-\eta)c_kc_k^\top + \eta\sum_j p_jc_jc_j^\top .

    All means shrink toward the global one, and every class becomes wide along the differences between classes.

    Args:
        means: ``(K, m)`` of the true classes.
        cov: ``(m, m)``, shared by them.
        priors: ``(K,)`` class frequencies p, summing to one.
        eta: noise rate in [0, 1].

    Returns:
        Frequencies ``(K,)`` (unchanged by this noise), means ``(K, m)`` and covariances ``(K, m, m)`` of noisy classes.

    Raises:
        TypeError: not floating tensors. ValueError: shapes do not fit, priors that do not sum to one, eta out of range.

    Source: noise model of Zhang et al. (2023), assumptions of their theory; the moments are derived here.
    """
    check_embeddings(means=means, cov=cov)
    check_embeddings(ndim=1, priors=priors)
    check_same_length(means=means, priors=priors)
    check_in_range(0, 1, eta=eta, priors=priors)
    if cov.shape != (means.shape[1], means.shape[1]):
        raise ValueError(f"cov: expected shape {(means.shape[1], means.shape[1])}, got {tuple(cov.shape)}")
    if abs(float(priors.sum()) - 1) > 1e-4:
        raise ValueError(f"priors: expected numbers that sum to 1, got {float(priors.sum()):g}")
    overall = priors @ means
    c = means - overall
    outer = c[:, :, None] * c[:, None, :]  # (K, m, m)
    between = (priors[:, None, None] * outer).sum(0)
    return priors, overall + (1 - eta) * c, cov + eta * (1 - eta) * outer + eta * between


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
        beta: weight of the distance, at least 0.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype. ValueError: shapes do not fit, NaN, a value out of range.
    """
    check_embeddings(features=features, contrastive=contrastive, logits=logits)
    check_same_shape(features=features, contrastive=contrastive)
    check_same_length(features=features, logits=logits)
    check_labels(labels, len(logits), num_classes=logits.shape[1])
    check_labels(permutation, len(logits), name="permutation", num_classes=len(logits))
    check_in_range(0, 1, share=share)
    check_in_range(0, math.inf, beta=beta)
    mixup = share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[permutation])
    return mixup + beta * (features - contrastive.detach()).square().sum(1).mean()


class RCAL(nn.Module):
    """Steps 2 to 4 around a contrastively trained encoder.

    State: the contrastive features, the repaired Gaussians and the number of features each class lacks.
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
        head_classes: Tensor,
        *,
        n_neighbors: int = 20,
        beta: float = 0.5,
        **calibration: Any,
    ) -> None:
        """Store the contrastive features of all images and repair the classes, once.

        Args:
            encoder: images to features ``(n, m)``, trained without labels (`moco_step`).
            classifier: features to logits.
            images: ``(n, ...)`` the whole training set, not augmented.
            labels: ``(n,)`` noisy labels.
            head_classes: ``(H,)`` class numbers.
            n_neighbors: see `robust_gaussians`.
            beta: see `classifier_loss`.
            **calibration: of `calibrate_tails` (q, gamma, alpha, weighting).
        """
        super().__init__()
        self.encoder, self.classifier, self.beta = encoder, classifier, beta
        training = encoder.training
        with torch.no_grad():
            z = encoder.eval()(images)
        encoder.train(training)
        sizes = labels.bincount()
        robust = robust_gaussians(z, labels, n_neighbors=n_neighbors)
        repaired = calibrate_tails(robust.means, robust.covs, sizes, head_classes, **calibration)
        self.register_buffer("contrastive", z)
        self.register_buffer("means", repaired.means)
        self.register_buffer("covs", repaired.covs)
        self.register_buffer("missing", sizes.max() - sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.encoder(images))

    def balancing_features(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Features and labels that top every class up to the size of the largest."""
        return sample_features(self.means, self.covs, self.missing, seed=seed)

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        permutation: Tensor,
        share: float,
        drawn: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Loss of one batch ``(N, ...)``, whose rows in the training set are ``index``. The draws come from outside.

        These are mixing partners, the share of the image itself (Beta(1, 1) here), and ``drawn``, some of
        `balancing_features`, which go through the classifier only.
        """
        mixed = share * images + (1 - share) * images[permutation]
        features, target = self.encoder(images), self.contrastive[index]
        loss = classifier_loss(features, target, self(mixed), labels, permutation, share, beta=self.beta)
        if drawn is not None:
            loss = loss + F.cross_entropy(self.classifier(drawn[0]), drawn[1])
        return loss
