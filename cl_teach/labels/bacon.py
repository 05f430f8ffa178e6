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
default here is the parser's 0.8. (6) The branches have separate optimizers; no gradient passes between them, so one
sum of both losses and one optimizer with two groups of parameters do the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_shapes,
    finite_result,
)
from ..core.contrast import check_temperature, nt_xent, reduce, sup_con
from ..core.draws import draw_seed
from ..core.precision import full_precision
from ..core.pseudo_labels import (
    check_class_counts,
    estimate_counts,
    labels_where,
    sampling_rates,
    select_confident,
)
from ..core.similarity import normalize, self_mask

__all__ = [
    "BaCon",
    "BaConTerms",
    "debiased_probabilities",
    "distribution_regularizer",
    "pair_weights",
    "self_distillation",
    "soft_contrast",
]

FORMS = ("released", "kl")
# Of the contrasts with labels, of the one without, and of the classifier.
TEMPERATURE, FREE_TEMPERATURE, LOGIT_TEMPERATURE = 0.07, 1.0, 0.1
# Of self-distillation, at the first step and after the ramp.
TEACHER_TEMPERATURES = (0.07, 0.04)
# Softmax in half precision sums to one only roughly.
ROUNDING = 1e-2


class BaConTerms(NamedTuple):
    """Scalars: the sum, and the losses of the two branches."""

    loss: Tensor
    classifier: Tensor
    contrastive: Tensor


@full_precision
def pair_weights(probs: Tensor) -> Tensor:
    """How much two samples count as a pair: inner product of soft labels ``(N, C)``; 1 for a sample with itself."""
    check_shapes(probs=(probs, "n c"))
    check_entries(0, 1 + ROUNDING, probs=probs)
    probs = probs.detach()
    return (probs @ probs.mT).masked_fill(self_mask(len(probs), probs.device), 1.0)


@full_precision
def soft_contrast(z: Tensor, weights: Tensor, temperature: float = TEMPERATURE, *, reduction: str = "mean") -> Tensor:
    r"""SupCon with graded positives, :math:`L_{soft}`.

    Args:
        z: ``(2N, d)`` embeddings, second views below the first, any scale (normalized here).
        weights: ``(N, N)`` of pairs of samples, at least 0, from `pair_weights`; constants.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Source: Bai et al. (2023), released loss.

    Example:
        >>> z, labels = torch.eye(4)[[0, 1, 2, 0, 1, 3]], torch.tensor([0, 1, 1])
        >>> sure = soft_contrast(z, pair_weights(F.one_hot(labels).float()))
        >>> torch.allclose(sure, sup_con(z, labels.repeat(2), 0.07))  # hard labels give SupCon
        True
    """
    check_shapes(z=(z, "m d"), weights=(weights, "n n"))
    check_temperature(temperature)
    check_entries(0, math.inf, weights=weights)
    if len(z) != 2 * len(weights):
        raise ValueError(f"weights: expected (N, N) for z of 2N = {len(z)} rows, got {tuple(weights.shape)}")
    z, itself = normalize(z), self_mask(len(z), z.device)
    pairs = weights.detach().repeat(2, 2).masked_fill(itself, 0.0)  # (2N, 2N)
    if not torch.compiler.is_compiling() and not pairs.any(1).all():
        raise ValueError("weights: every anchor needs a positive weight; let the two views of a sample have one")
    logits = z @ z.mT / temperature  # (2N, 2N)
    pull = (pairs / pairs.sum(1, keepdim=True) * logits).sum(1)
    return reduce(logits.masked_fill(itself, -math.inf).logsumexp(1) - pull, reduction)


@full_precision
def distribution_regularizer(
    logits: Tensor,
    class_counts: Tensor,
    *,
    power: float = 1.1,
    temperature: float = LOGIT_TEMPERATURE,
    form: str = "released",
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

    Source: Bai et al. (2023), released code; equation 2 for ``"kl"``.
    """
    log_prior = _log_prior(logits, class_counts)
    check_temperature(temperature)
    check_in_range(-math.inf, math.inf, power=power)
    check_choice(FORMS, form=form)
    log_mean = F.log_softmax(logits / temperature, dim=1).logsumexp(0) - math.log(len(logits))  # (C,)
    if form == "released":
        log_ratio = F.log_softmax(log_mean - power * log_prior, dim=0)
        loss = (log_ratio.exp() * log_ratio).sum() + math.log(len(log_prior))
    else:
        loss = (log_mean.exp() * (log_mean - F.log_softmax(power * log_prior, dim=0))).sum()
    return finite_result(loss, logits=logits, temperature=temperature, power=power)


@torch.no_grad()
@full_precision
def debiased_probabilities(
    logits: Tensor, class_counts: Tensor, *, kappa: float = 0.5, temperature: float = LOGIT_TEMPERATURE
) -> Tensor:
    """Soft labels without the advantage of frequent classes, mean over two views; no gradient.

    Args:
        logits: ``(2N, C)`` before the temperature, second views below the first.
        class_counts: ``(C,)`` greater than 0.
        kappa: how much of the log-frequency is taken off, at least 0.
        temperature: greater than 0.

    Returns:
        ``(N, C)``.
    """
    log_prior = _log_prior(logits, class_counts)
    check_temperature(temperature)
    check_in_range(0, math.inf, kappa=kappa)
    _check_two_views(logits)
    probs = (logits / temperature - kappa * log_prior).softmax(1).unflatten(0, (2, -1)).mean(0)
    return finite_result(probs, logits=logits, temperature=temperature, kappa=kappa)


@full_precision
def self_distillation(
    logits: Tensor,
    *,
    student_temperature: float = LOGIT_TEMPERATURE,
    teacher_temperature: float = TEACHER_TEMPERATURES[1],
) -> Tensor:
    """Each view predicts the sharpened prediction of the other view, which is a constant.

    Args:
        logits: ``(2N, C)``, second views below the first.
        student_temperature: greater than 0.
        teacher_temperature: greater than 0.

    Returns:
        Scalar, mean over all rows.
    """
    check_shapes(logits=(logits, "m c"))
    check_temperature(student_temperature, name="student_temperature")
    check_temperature(teacher_temperature, name="teacher_temperature")
    _check_two_views(logits)
    target = (logits.detach().roll(len(logits) // 2, dims=0) / teacher_temperature).softmax(1)
    loss = -(target * F.log_softmax(logits / student_temperature, dim=1)).sum(1).mean()
    temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    return finite_result(loss, logits=logits, **temperatures)


class BaCon(nn.Module):
    """The two losses and what connects them, the estimated ``class_counts`` (uniform until the first `refresh`).

    Give `loss` the outputs of both branches; their parameters can go to one optimizer or to two.
    """

    class_counts: Tensor
    steps: Tensor

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
        warm_up_steps: int = 0,
        ramp_steps: int = 0,
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
            warm_up_steps: so many steps without soft labels (one epoch in the paper).
            ramp_steps: steps in which the teacher's temperature falls from 0.07 to 0.04 (30 epochs in the paper).
        """
        super().__init__()
        check_count(num_classes=num_classes)
        check_count(1, num_classes, num_known=num_known)
        check_in_range(0, 1, rho=rho)
        check_in_range(0, math.inf, mu=mu, kappa=kappa, alpha=alpha, beta=beta)
        check_in_range(-math.inf, math.inf, power=power)
        check_count(0, warm_up_steps=warm_up_steps, ramp_steps=ramp_steps)
        self.num_known, self.rho, self.mu, self.power = num_known, rho, mu, power
        self.kappa, self.alpha, self.beta = kappa, alpha, beta
        self.warm_up_steps, self.ramp_steps = warm_up_steps, ramp_steps
        self.register_buffer("class_counts", torch.ones(num_classes))
        self.register_buffer("steps", torch.tensor(0))

    @property
    def teacher_temperature(self) -> float:
        """At the present step; it falls linearly."""
        first, last = TEACHER_TEMPERATURES
        done = min(int(self.steps) / self.ramp_steps, 1.0) if self.ramp_steps else 1.0
        return first + (last - first) * done

    @torch.no_grad()
    def refresh(
        self, features: Tensor, labels: Tensor, labeled: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Estimate the counts from ``(n, d)`` features of the contrastive branch; every 10 epochs in the paper.

        Returns:
            ``(n,)`` clusters.
        """
        check_shapes(features=(features, "n d"), labels=(labels, "n", int), labeled=(labeled, "n", bool))
        z, k = normalize(features.float()).cpu().double().numpy(), len(self.class_counts)
        if len(z) < k:
            raise ValueError(f"features: expected at least one row for each of {k} classes, got {len(z)}")
        found = KMeans(k, n_init=5, random_state=draw_seed(generator)).fit(z)
        clusters = torch.from_numpy(found.labels_).long().to(labels.device)
        if len(clusters.unique()) < k:
            raise ValueError(
                f"features: k-means found {len(clusters.unique())} clusters for {k} classes; they are too alike"
            )
        self.class_counts.copy_(estimate_counts(clusters, labels, labeled, k, self.num_known))
        return clusters

    def loss(
        self,
        z: Tensor,
        logits: Tensor,
        labels: Tensor,
        labeled: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> BaConTerms:
        """Both branches.

        Args:
            z: ``(2N, d)`` projections of the contrastive branch, second views below the first.
            logits: ``(2N, C)`` cosine logits of the classifier branch.
            labels: ``(N,)`` classes, read where ``labeled``.
            labeled: ``(N,)`` boolean.
            generator: of the selection.
        """
        classifier = self.classifier_loss(logits, labels, labeled)
        warm_up = int(self.steps) < self.warm_up_steps
        contrastive = self.contrastive_loss(z, logits, labels, labeled, warm_up=warm_up, generator=generator)
        return BaConTerms(classifier + contrastive, classifier, contrastive)

    def forward(
        self, z: Tensor, logits: Tensor, labels: Tensor, labeled: Tensor, *, generator: torch.Generator | None = None
    ) -> BaConTerms:
        """The loss, as with torch's own criteria."""
        return self.loss(z, logits, labels, labeled, generator=generator)

    def after_step(self) -> None:
        """Count the step, for warm-up and ramp."""
        if self.training:
            self.steps.add_(1)

    def classifier_loss(self, logits: Tensor, labels: Tensor, labeled: Tensor) -> Tensor:
        """Loss of the classifier branch; arguments as in `loss`."""
        check_shapes(logits=(logits, f"m {len(self.class_counts)}"))
        _check_two_views(logits)
        check_shapes(labels=(labels, f"{len(logits) // 2}", int))
        labels = labels_where(labels, labeled, len(self.class_counts))
        loss = self_distillation(
            logits, student_temperature=LOGIT_TEMPERATURE, teacher_temperature=self.teacher_temperature
        )
        loss = loss + self.mu * distribution_regularizer(logits, self.class_counts, power=self.power)
        rows = labeled.repeat(2)
        scaled = logits[rows].to(loss.dtype) / LOGIT_TEMPERATURE
        known = F.cross_entropy(scaled, labels.repeat(2)[rows]) if labeled.any() else torch.zeros_like(loss)
        return finite_result((1 - self.rho) * loss + self.rho * known, logits=logits)

    def contrastive_loss(
        self,
        z: Tensor,
        logits: Tensor,
        labels: Tensor,
        labeled: Tensor,
        *,
        warm_up: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Loss of the contrastive branch; no gradient reaches the classifier. Arguments as in `loss`.

        ``warm_up`` leaves the soft labels out.
        """
        check_shapes(z=(z, "m d"), logits=(logits, f"m {len(self.class_counts)}"))
        _check_two_views(z, "z")
        check_shapes(labels=(labels, f"{len(z) // 2}", int))
        labels = labels_where(labels, labeled, len(self.class_counts))
        check_generator(generator)
        rows = labeled.repeat(2)
        first, second = z.chunk(2)
        free = nt_xent(first, second, FREE_TEMPERATURE)
        nothing = torch.zeros_like(free)
        supervised = sup_con(z[rows], labels.repeat(2)[rows], TEMPERATURE) if labeled.any() else nothing
        if warm_up:
            return (1 - self.rho) * free + self.rho * supervised
        settings = {"kappa": self.kappa, "temperature": LOGIT_TEMPERATURE}
        probs = debiased_probabilities(logits, self.class_counts, **settings)
        rates = sampling_rates(self.class_counts, labels[labeled].unique(), alpha=self.alpha, beta=self.beta)
        used = labeled.clone()
        if not labeled.all():
            used[~labeled] = select_confident(probs[~labeled], rates, generator=generator)
        soft = soft_contrast(z[used.repeat(2)], pair_weights(probs[used]), TEMPERATURE) if used.any() else nothing
        return (1 - self.rho) * free + self.rho / 2 * (supervised + soft)


def _log_prior(logits: Tensor, class_counts: Tensor) -> Tensor:
    counts = check_class_counts(class_counts)
    check_shapes(logits=(logits, "n c"), class_counts=(counts, "c"))
    return counts.to(logits.dtype).log().log_softmax(0)  # of logarithms: the logarithm of the shares


def _check_two_views(rows: Tensor, name: str = "logits") -> None:
    if len(rows) % 2:
        raise ValueError(f"{name}: expected two stacked views, an even number of rows, got {len(rows)}")
