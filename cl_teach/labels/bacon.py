r"""Towards Distribution-Agnostic Generalized Category Discovery (BaCon). Jianhong Bai, Zuozhu Liu, Hualiang Wang,
Ruizhe Chen, Lianrui Mu and others; NeurIPS 2023; https://arxiv.org/abs/2310.01376.

Some classes have a few labels, others none, all are long-tailed in unknown proportions. Two branches help each other.
The contrastive branch: k-means on its features gives the class counts :math:`\pi` (`estimate_counts`). The classifier
(cosine logits s, temperature T) is held to them, and hands back soft labels freed of the class bias,

.. math::
    L_{reg} = \mathrm{KL}(r\,\|\,\mathrm{uniform}),\quad r_c \propto \bar p_c\,\pi_c^{-p}, \qquad
    \tilde p_i = \tfrac12\sum_v \mathrm{softmax}\big(s_i^{(v)}/T - \kappa\ln\pi\big),

which grade the pairs of the contrastive branch, :math:`w_{ij} = \langle\tilde p_i,\tilde p_j\rangle` and 1 for two
views of a sample:

.. math::
    L_{soft} = \frac1M\sum_i\frac{-1}{\sum_{j\ne i}w_{ij}}\sum_{j\ne i}w_{ij}
        \log\frac{e^{z_i\cdot z_j/\tau}}{\sum_{a\ne i}e^{z_i\cdot z_a/\tau}} .

What changes and why: hard pseudo-labels of a long-tailed classifier favor its frequent classes, and contrast on them
engraves the mistake. A soft label says how sure it is: an unsure pair pulls a little, a sure one much.

Paper versus code. The paper was not accessible to us; its equations are known second-hand. (1) :math:`L_{reg}` above is
the released form, which made the results; the paper's is :math:`\mathrm{KL}(\bar p\,\|\,\pi^p)` (``form="kl"``). Both
are smallest at :math:`\bar p \propto \pi^p`, with other values and gradients. (2) w is a plain inner product, as
released. (3) Labeled samples enter w with their predicted soft labels, too. (4) The contrast without labels runs at
temperature 1.0. (5) The run scripts set alpha = 0, which keeps all samples of classes with labels in the batch; the
default here is the parser's 0.8.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_length,
)
from ..core.contrast import nt_xent, reduce, sup_con
from ..core.similarity import cosine_similarity, normalize, self_mask

__all__ = [
    "BaCon",
    "CosineClassifier",
    "debiased_probabilities",
    "distribution_regularizer",
    "estimate_counts",
    "pair_weights",
    "sampling_rates",
    "select_confident",
    "self_distillation",
    "soft_contrast",
]


class CosineClassifier(nn.Module):
    """Logits are cosines of the feature and one direction a class, so they lie in [-1, 1]."""

    def __init__(self, dim: int, num_classes: int) -> None:
        """Draw random directions."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, dim))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(n, dim)`` to ``(n, num_classes)``."""
        return cosine_similarity(features, self.weight)


def pair_weights(probs: Tensor) -> Tensor:
    """How much two samples count as a pair: inner product of soft labels ``(N, C)``; 1 for a sample with itself.

    Raises:
        TypeError: not a floating tensor.
        ValueError: NaN, or a number outside [0, 1].
    """
    check_embeddings(probs=probs)
    check_in_range(0, 1 + 1e-4, probs=probs)
    probs = probs.detach()
    return (probs @ probs.mT).masked_fill(self_mask(len(probs), probs.device), 1.0)


def soft_contrast(z: Tensor, weights: Tensor, temperature: float = 0.07, *, reduction: str = "mean") -> Tensor:
    r"""SupCon with graded positives, :math:`L_{soft}`.

    Args:
        z: ``(2N, d)`` embeddings, second views below the first, any scale (normalized here).
        weights: ``(N, N)`` of pairs of samples, at least 0, from `pair_weights`; constants.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, negative weights, an anchor whose weights are all 0, temperature not
            positive.

    Source: Bai et al. (2023), released loss.
    """
    check_embeddings(z=z, weights=weights)
    check_positive(temperature=temperature)
    check_in_range(0, math.inf, weights=weights)
    rows = len(z)
    if rows % 2 or weights.shape != (rows // 2, rows // 2):
        raise ValueError(f"weights: expected (N, N) for z of 2N = {rows} rows, got {tuple(weights.shape)}")
    z, itself = normalize(z), self_mask(rows, z.device)
    w = weights.detach().to(z).repeat(2, 2).masked_fill(itself, 0.0)  # (2N, 2N)
    total = w.sum(1)
    if not torch.compiler.is_compiling() and (total == 0).any():
        raise ValueError("weights: every anchor needs a positive weight; let the two views of a sample have one")
    log_p = F.log_softmax((z @ z.mT / temperature).masked_fill(itself, -math.inf), dim=1)
    return reduce(-(w * log_p.masked_fill(itself, 0.0)).sum(1) / total, reduction)


def distribution_regularizer(
    logits: Tensor, class_counts: Tensor, *, power: float = 1.1, temperature: float = 0.1, form: str = "released"
) -> Tensor:
    r"""Hold the average prediction to the estimated class counts: zero where :math:`\bar p \propto \pi^p`.

    Args:
        logits: ``(n, C)`` before the temperature.
        class_counts: ``(C,)`` :math:`\pi > 0`, any scale.
        power: p.
        temperature: greater than 0.
        form: ``"released"``, KL of :math:`\bar p/\pi^p` from uniform, or ``"kl"``, KL of :math:`\bar p` from
            :math:`\pi^p`.

    Returns:
        Scalar, at least 0.

    Raises:
        TypeError: not floating logits.
        ValueError: shapes do not fit, NaN, a count or temperature not positive, unknown form.

    Source: Bai et al. (2023), released code; equation 2 for ``"kl"``.
    """
    log_prior = _log_prior(logits, class_counts)
    check_positive(temperature=temperature)
    check_choice(("released", "kl"), form=form)
    log_mean = F.log_softmax(logits / temperature, dim=1).logsumexp(0) - math.log(len(logits))  # (C,)
    if form == "released":
        log_ratio = F.log_softmax(log_mean - power * log_prior, dim=0)
        return (log_ratio.exp() * log_ratio).sum() + math.log(len(log_prior))
    return (log_mean.exp() * (log_mean - F.log_softmax(power * log_prior, dim=0))).sum()


@torch.no_grad()
def debiased_probabilities(
    logits: Tensor, class_counts: Tensor, *, kappa: float = 0.5, temperature: float = 0.1
) -> Tensor:
    """Soft labels without the advantage of frequent classes, mean over two views; no gradient.

    Args:
        logits: ``(2N, C)`` before the temperature, second views below the first.
        class_counts: ``(C,)`` greater than 0.
        kappa: how much of the log-frequency is taken off, at least 0.
        temperature: greater than 0.

    Returns:
        ``(N, C)``.

    Raises:
        TypeError: not floating logits.
        ValueError: shapes do not fit, NaN, an odd number of rows, a value out of range.
    """
    log_prior = _log_prior(logits, class_counts)
    check_positive(temperature=temperature)
    check_in_range(0, math.inf, kappa=kappa)
    _check_two_views(logits)
    return (logits / temperature - kappa * log_prior).softmax(1).unflatten(0, (2, -1)).mean(0)


def sampling_rates(class_counts: Tensor, labeled_classes: Tensor, *, alpha: float = 0.8, beta: float = 0.5) -> Tensor:
    r"""How likely a pseudo-labeled sample is kept, :math:`(\pi_c/\min\pi)^{-\alpha}`, or with beta if c has no labels.

    Args:
        class_counts: ``(C,)`` greater than 0.
        labeled_classes: classes with labeled samples in the batch.
        alpha: for these, at least 0.
        beta: for the other classes, at least 0.

    Returns:
        ``(C,)`` in (0, 1]; 1 for the rarest class.
    """
    check_positive(class_counts=class_counts)
    check_in_range(0, math.inf, alpha=alpha, beta=beta)
    check_labels(labeled_classes, len(labeled_classes), name="labeled_classes", num_classes=len(class_counts))
    counts = class_counts if class_counts.is_floating_point() else class_counts.float()
    exponent = torch.full_like(counts, beta)
    exponent[labeled_classes] = alpha
    return (counts / counts.min()) ** -exponent


@torch.no_grad()
def select_confident(probs: Tensor, rates: Tensor, *, seed: int | None = None) -> Tensor:
    """Of the samples predicted as class c keep a Binomial(their number, rate of c), the most confident ones.

    Args:
        probs: ``(n, C)`` soft labels of samples without labels.
        rates: ``(C,)`` in [0, 1], from `sampling_rates`.
        seed: of the draw; the global state of torch if None.

    Returns:
        ``(n,)`` boolean.
    """
    check_embeddings(probs=probs)
    check_in_range(0, 1, rates=rates)
    confidence, predicted = probs.max(1)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    count = predicted.bincount(minlength=len(rates)).double().cpu()
    keep = torch.binomial(count, rates.double().cpu(), generator=generator).long().tolist()
    chosen = torch.zeros(len(probs), dtype=torch.bool, device=probs.device)
    for c, k in enumerate(keep):
        rows = (predicted == c).nonzero()[:, 0]
        chosen[rows[confidence[rows].argsort(descending=True, stable=True)[:k]]] = True
    return chosen


def self_distillation(logits: Tensor, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04) -> Tensor:
    """Each view predicts the sharpened prediction of the other view, which is a constant.

    Args:
        logits: ``(2N, C)``, second views below the first.
        student_temperature: greater than 0.
        teacher_temperature: greater than 0; the paper's code goes from 0.07 to 0.04 in 30 epochs.

    Returns:
        Scalar, mean over all rows.

    Raises:
        TypeError: not floating.
        ValueError: NaN, an odd number of rows, a temperature not positive.
    """
    check_embeddings(logits=logits)
    check_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    _check_two_views(logits)
    target = (logits.detach().roll(len(logits) // 2, dims=0) / teacher_temperature).softmax(1)
    return -(target * F.log_softmax(logits / student_temperature, dim=1)).sum(1).mean()


def estimate_counts(cluster_ids: Tensor, labels: Tensor, labeled: Tensor, num_classes: int, num_known: int) -> Tensor:
    """Class counts from cluster sizes: match clusters to known classes through labels, the rest is novel.

    Known classes get the sizes of their clusters, dealt anew by rank: the largest size to the class with most labels.

    Args:
        cluster_ids: ``(n,)`` in 0 .. num_classes - 1, from k-means on all training features.
        labels: ``(n,)`` classes, known ones first; read only where ``labeled``.
        labeled: ``(n,)`` boolean.
        num_classes: C.
        num_known: number of known classes, at most C.

    Returns:
        ``(C,)`` float64: known classes in their order, then novel sizes, largest first.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, an empty cluster, a known class without labels.

    Source: Bai et al. (2023), released distribution estimate.
    """
    check_labels(cluster_ids, len(cluster_ids), name="cluster_ids", num_classes=num_classes)
    check_mask(labeled, tuple(cluster_ids.shape), name="labeled")
    check_same_length(cluster_ids=cluster_ids, labels=labels)
    check_in_range(1, num_classes, num_known=num_known)
    check_labels(labels[labeled], int(labeled.sum()), name="labels where labeled", num_classes=num_known)
    sizes = cluster_ids.bincount(minlength=num_classes)
    hits = (cluster_ids[labeled] * num_known + labels[labeled]).bincount(minlength=num_classes * num_known)
    hits = hits.view(num_classes, num_known)
    if (sizes == 0).any():
        raise ValueError(f"cluster_ids: cluster {int((sizes == 0).nonzero()[0])} is empty; use fewer classes")
    if (hits.sum(0) == 0).any():
        raise ValueError(f"labeled: known class {int((hits.sum(0) == 0).nonzero()[0])} has no labeled sample")
    share = hits / sizes[:, None]  # (C, known)
    matched, _ = linear_sum_assignment(share.cpu().numpy(), maximize=True)
    is_matched = torch.zeros(num_classes, dtype=torch.bool, device=sizes.device)
    is_matched[torch.from_numpy(matched)] = True
    by_labels = hits.sum(0).argsort(descending=True, stable=True)
    known = torch.empty(num_known, dtype=sizes.dtype, device=sizes.device)
    known[by_labels] = sizes[is_matched].sort(descending=True).values
    return torch.cat([known, sizes[~is_matched].sort(descending=True).values]).double()


class BaCon(nn.Module):
    """The two losses and what connects them, the estimated ``class_counts`` (uniform until the first `refresh`)."""

    class_counts: Tensor

    def __init__(
        self,
        num_classes: int,
        num_known: int,
        *,
        rho: float = 0.35,
        mu: float = 1.0,
        power: float = 1.1,
        kappa: float = 0.5,
        alpha: float = 0.8,
        beta: float = 0.5,
    ) -> None:
        """Set the weights; known classes come first.

        Args:
            num_classes: known and novel together.
            num_known: classes with labels.
            rho: share of the labeled terms, in [0, 1].
            mu: weight of the regularizer.
            power: of the regularizer.
            kappa: of the soft labels.
            alpha: of the sampling rates.
            beta: likewise, for classes without labels in the batch.
        """
        super().__init__()
        check_in_range(1, num_classes, num_known=num_known)
        check_in_range(0, 1, rho=rho)
        check_in_range(0, math.inf, mu=mu)
        self.num_known, self.rho, self.mu, self.power = num_known, rho, mu, power
        self.kappa, self.alpha, self.beta = kappa, alpha, beta
        self.register_buffer("class_counts", torch.ones(num_classes))

    def refresh(self, features: Tensor, labels: Tensor, labeled: Tensor, *, seed: int = 0) -> Tensor:
        """Estimate the counts from ``(n, d)`` features of the contrastive branch; every 10 epochs in the paper."""
        check_embeddings(features=features)
        z, k = normalize(features.detach()).cpu().double().numpy(), len(self.class_counts)
        clusters = torch.from_numpy(KMeans(k, n_init=5, random_state=seed).fit(z).labels_).long().to(labels.device)
        self.class_counts.copy_(estimate_counts(clusters, labels, labeled, k, self.num_known))
        return clusters

    def classifier_loss(
        self, logits: Tensor, labels: Tensor, labeled: Tensor, teacher_temperature: float = 0.04
    ) -> Tensor:
        """Loss of the classifier branch: ``(2N, C)`` cosine logits of two views, ``(N,)`` labels and who has one."""
        check_mask(labeled, (len(logits) // 2,), name="labeled")
        loss = self_distillation(logits, teacher_temperature=teacher_temperature)
        loss = loss + self.mu * distribution_regularizer(logits, self.class_counts, power=self.power)
        rows = labeled.repeat(2)
        known = F.cross_entropy(logits[rows] / 0.1, labels.repeat(2)[rows]) if labeled.any() else 0.0
        return (1 - self.rho) * loss + self.rho * known

    def contrastive_loss(
        self,
        z: Tensor,
        logits: Tensor,
        labels: Tensor,
        labeled: Tensor,
        *,
        warm_up: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        """Loss of the contrastive branch; no gradient reaches the classifier.

        Args:
            z: ``(2N, d)`` projections, second views below the first.
            logits: ``(2N, C)`` of the classifier branch, for the soft labels.
            labels: ``(N,)`` classes, read where ``labeled``.
            labeled: ``(N,)`` boolean.
            warm_up: without soft labels, as in the first epoch.
            seed: of the selection.
        """
        check_same_length(z=z, logits=logits)
        check_mask(labeled, (len(z) // 2,), name="labeled")
        rows = labeled.repeat(2)
        first, second = z.chunk(2)
        free = nt_xent(first, second, 1.0)
        supervised = sup_con(z[rows], labels.repeat(2)[rows], 0.07) if labeled.any() else z.new_zeros(())
        if warm_up:
            return (1 - self.rho) * free + self.rho * supervised
        probs = debiased_probabilities(logits, self.class_counts, kappa=self.kappa)
        rates = sampling_rates(self.class_counts, labels[labeled].unique(), alpha=self.alpha, beta=self.beta)
        used = labeled.clone()
        if not labeled.all():
            used[~labeled] = select_confident(probs[~labeled], rates, seed=seed)
        soft = soft_contrast(z[used.repeat(2)], pair_weights(probs[used])) if used.any() else z.new_zeros(())
        return (1 - self.rho) * free + self.rho / 2 * (supervised + soft)


def _log_prior(logits: Tensor, class_counts: Tensor) -> Tensor:
    check_embeddings(logits=logits)
    check_positive(class_counts=class_counts)
    if class_counts.shape != (logits.shape[1],):
        raise ValueError(f"class_counts: expected shape ({logits.shape[1]},), got {tuple(class_counts.shape)}")
    return F.normalize(class_counts.to(logits), p=1, dim=0).log()


def _check_two_views(logits: Tensor) -> None:
    if len(logits) % 2:
        raise ValueError(f"logits: expected two stacked views, an even number of rows, got {len(logits)}")
