r"""Subclass-balancing Contrastive Learning for Long-tailed Recognition (SBCL). Chengkai Hou, Jieyu Zhang, Haonan Wang,
Tianyi Zhou; ICCV 2023; https://arxiv.org/abs/2306.15925. (SupCon, its base: Khosla et al. 2020,
https://arxiv.org/abs/2004.11362.)

Every large class is cut into subclasses g about as large as a small class, and the loss contrasts on two levels:

.. math::
    L = \tfrac{\tau}{\tau_0}\,T_1 + \gamma\,T_2,

where :math:`T_1` is SupCon (out) on the subclasses and :math:`T_2` is the contrast of class against class: positives
:math:`P_2(i)` are rows of the anchor's class in *other* subclasses plus its own other view, candidates are all rows
outside the anchor's subclass plus that view, at the temperature :math:`\tau_2` of the anchor's class,

.. math::
    \phi_c = \frac1{n_c\ln(n_c+10)}\sum_{i\in c}\lVert z_i-\bar z_c\rVert, \qquad
    \tau_2(c) = \tau\exp\big(\phi_c\big/\mathrm{mean}_{c'}\,\phi_{c'}\big) .

What changes and why: SupCon lets the many rows of a head class dominate, and re-balancing by class throws rows away or
overuses them. Subclasses have similar sizes, every instance keeps its weight, and a head class keeps its inner
structure. Then the encoder is frozen and a linear classifier sees all classes equally often (`draw_balanced`).

Paper versus code. (1) The paper's temperature is exponential and not clipped, so a class is always looser than its
subclasses; the released one is linear, :math:`\tau\phi_c/\mathrm{mean}\,\phi` with :math:`\phi` clipped to its 20th to
80th percentile, so about half of the classes get less than :math:`\tau` (``form="linear", clip=(20, 80)``). Which made
the published numbers is not known to us. (2) :math:`T_1` is scaled by :math:`\tau/\tau_0 = 0.1/0.07` in the release;
the paper has no such factor, and the default here is 1. (3) The training script never passes a temperature, so the loss
uses its own default of 0.1. (4) The paper limits the size of a subclass (``clustering="size_limited"``). How many
centers and updates is not in its main text: here as few as can hold a class, and 10. The released runs use plain
k-means (``"kmeans"``), and the release's balanced option is a third form (``"even"``). (5) The class center is a plain
mean, not normalized again. (6) With a queue (ImageNet-LT) anchors are compared with their own key and those of the
past. The paper's first half of training then draws few positives of a class; here the warm-up takes all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_numbers,
    check_shapes,
    finite_result,
)
from ..core.contrast import COLDEST, check_temperature, softmax_contrast, sup_con
from ..core.precision import full_precision
from ..core.pseudo_labels import count_classes
from ..core.queue import FeatureQueue
from ..core.similarity import normalize, same_label_mask, self_mask
from ..core.subclasses import split_classes, subclass_counts

__all__ = [
    "SBCL",
    "SubclassTerms",
    "class_concentration",
    "class_temperatures",
    "draw_balanced",
    "sbcl",
    "scaled_sup_con",
    "subclass_terms",
    "two_level_plain",
]

FORMS = ("exponential", "linear")
# Above this many times the mean concentration a class level is as good as infinitely warm.
WIDEST = 60.0


class SubclassTerms(NamedTuple):
    """Scalars: the loss, and its two levels without their factors."""

    loss: Tensor
    subclass: Tensor
    classes: Tensor


@full_precision
def class_concentration(features: Tensor, labels: Tensor, *, log_offset: float = 10.0) -> Tensor:
    r"""Spread :math:`\phi_c` of each class around its mean.

    Args:
        features: ``(n, d)``, any scale (normalized here).
        labels: ``(n,)`` integers; every class below the largest label must occur.
        log_offset: the 10 in the logarithm, at least 1.

    Returns:
        ``(C,)``.
    """
    check_shapes(features=(features, "n d"), labels=(labels, "n", int))
    labels = check_labels(labels)
    check_in_range(1, math.inf, log_offset=log_offset)
    z = normalize(features)
    count = count_classes(labels).to(z)
    center = torch.zeros(len(count), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, labels, z)
    center = center / count[:, None]
    distance = torch.linalg.vector_norm(z - center[labels], dim=1)
    return torch.zeros_like(count).index_add(0, labels, distance) / (count * (count + log_offset).log())


@full_precision
def class_temperatures(
    concentration: Tensor,
    subclasses: Tensor,
    temperature: float = 0.1,
    *,
    form: str = "exponential",
    clip: tuple[float, float] | None = None,
) -> Tensor:
    r"""Temperatures :math:`\tau_2` of the class level; spread classes get more.

    Args:
        concentration: ``(C,)`` from `class_concentration`.
        subclasses: ``(C,)`` from `subclass_counts`; a class with one subclass keeps ``temperature``.
        temperature: base temperature :math:`\tau`.
        form: ``"exponential"`` (the paper's, always above :math:`\tau`) or ``"linear"`` (the release's).
        clip: percentiles between which the concentration is kept (linear interpolation), (20, 80) in the release.

    Returns:
        ``(C,)``.
    """
    check_shapes(concentration=(concentration, "c"), subclasses=(subclasses, "c", int))
    check_entries(0, math.inf, concentration=concentration)
    check_temperature(temperature)
    check_choice(FORMS, form=form)
    kept = concentration
    if clip is not None:
        percentiles = check_numbers("clip", clip)
        if len(percentiles) != 2 or not 0 <= percentiles[0] <= percentiles[1] <= 100:
            raise ValueError(f"clip: expected two percentiles in [0, 100], the lower one first, got {clip}")
        kept = kept.clamp(*torch.quantile(kept, (percentiles / 100).to(kept)))
    mean = kept.mean()
    ratio = torch.where(mean > 0, kept / torch.where(mean > 0, mean, 1.0), 1.0)  # classes without any spread: all equal
    factor = ratio.clamp(max=WIDEST).exp() if form == "exponential" else ratio
    return finite_result(torch.where(subclasses > 1, temperature * factor, temperature), temperature=temperature)


@full_precision
def subclass_terms(
    z: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperatures: Tensor,
    temperature: float = 0.1,
    *,
    gamma: float = 0.25,
    base_temperature: float | None = None,
) -> SubclassTerms:
    """Two-level contrast with balanced subclasses, with its terms.

    Args:
        z: ``(2N, d)`` embeddings, second views below the first, any scale (normalized here).
        labels: ``(2N,)`` classes.
        subclasses: ``(2N,)`` subclass ids, unique over all classes, equal for both views of a sample.
        temperatures: ``(C,)`` of the class level, from `class_temperatures`; constants.
        temperature: of the subclass level.
        gamma: weight of the class level, at least 0.
        base_temperature: scales the subclass level by temperature / base_temperature; None means no scaling.

    Source: Hou et al. (2023), equation 4; the mean over anchors and the scaling are the release's.
    """
    check_shapes(z=(z, "m d"), labels=(labels, "m", int), subclasses=(subclasses, "m", int))
    if len(z) % 2:
        raise ValueError(f"z: expected two stacked views, an even number of rows, got {len(z)}")
    z, itself = normalize(z), self_mask(len(z), z.device)
    own = itself.roll(len(z) // 2, dims=1)
    return _levels(z @ z.mT, own, ~itself, labels, subclasses, temperatures, temperature, gamma, base_temperature)


def _levels(
    similarity: Tensor,
    own: Tensor,
    allowed: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperatures: Tensor,
    temperature: float,
    gamma: float,
    base_temperature: float | None,
) -> SubclassTerms:
    """Both levels of a table ``(n, m)`` of cosines, whose rows are the first n of its columns' samples."""
    check_shapes(temperatures=(temperatures, "c"))
    check_entries(COLDEST, math.inf, temperatures=temperatures)
    check_temperature(temperature)
    check_in_range(0, math.inf, gamma=gamma)
    labels, n = check_labels(labels), len(similarity)
    check_labels(labels, name="labels, temperatures", num_classes=len(temperatures))
    subclasses = check_labels(subclasses, name="subclasses")
    same_class, same_subclass = (same_label_mask(x[:n], x) for x in (labels, subclasses))
    if not (same_subclass & allowed).any(1).all():
        raise ValueError("subclasses: every anchor needs another row of its subclass; both views of a sample have one")
    first = softmax_contrast(similarity / temperature, same_subclass & allowed, allowed)
    logits = similarity / temperatures.detach()[labels[:n]][:, None]  # the anchor's class decides
    second = softmax_contrast(logits, (same_class & ~same_subclass) | own, (~same_subclass & allowed) | own)
    loss = _scale(temperature, base_temperature) * first + gamma * second
    return SubclassTerms(finite_result(loss, gamma=gamma, base_temperature=base_temperature), first, second)


def sbcl(
    z: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperatures: Tensor,
    temperature: float = 0.1,
    *,
    gamma: float = 0.25,
    base_temperature: float | None = None,
) -> Tensor:
    """The loss of `subclass_terms` alone, a scalar; arguments as there."""
    given = (z, labels, subclasses, temperatures, temperature)
    return subclass_terms(*given, gamma=gamma, base_temperature=base_temperature).loss


def scaled_sup_con(
    z: Tensor, labels: Tensor, temperature: float = 0.1, *, variant: str = "out", base_temperature: float | None = None
) -> Tensor:
    """`core.sup_con` with the factor temperature / base_temperature of the released code, which only rescales it."""
    loss = sup_con(z, labels, temperature, variant=variant)
    return finite_result(_scale(temperature, base_temperature) * loss, base_temperature=base_temperature)


def two_level_plain(
    z: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperature: float = 0.1,
    *,
    gamma: float = 0.25,
    base_temperature: float | None = None,
) -> Tensor:
    """The repository's ablation: SupCon on subclasses plus SupCon on classes, same temperature, same denominator.

    Arguments as in `subclass_terms`.
    """
    check_shapes(z=(z, "m d"), labels=(labels, "m", int), subclasses=(subclasses, "m", int))
    check_in_range(0, math.inf, gamma=gamma)
    subclasses = check_labels(subclasses, name="subclasses")
    if (subclasses.unique(return_counts=True)[1] < 2).any():
        raise ValueError("subclasses: every subclass must occur at least twice; pass two views of each sample")
    fine = scaled_sup_con(z, subclasses, temperature, base_temperature=base_temperature)
    return finite_result(fine + gamma * sup_con(z, labels, temperature), gamma=gamma)


def draw_balanced(labels: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Rows ``(count,)`` of a set with ``labels (n,)`` in which all classes are equally likely: the second stage.

    On frozen features a linear classifier is fitted to these rows. They repeat the samples of rare classes.
    """
    check_shapes(labels=(labels, "n", int))
    _, kind, sizes = check_labels(labels).cpu().unique(return_inverse=True, return_counts=True)
    check_count(count=count)
    check_generator(generator)
    return (1 / sizes[kind].double()).multinomial(count, replacement=True, generator=generator)


class SBCL(nn.Module):
    """What SBCL keeps between steps: the subclass of every training sample and the temperature of every class.

    During warm-up the loss is SupCon on the classes. Call `refresh` with features of the whole training set after it
    and every few epochs; then the two-level loss is used. With ``queue_size`` above 0 the second views are keys, made
    by a slow copy of the network: constants, which the queries meet now and, from the queue, later.

    Example:
        >>> labels = torch.arange(3).repeat_interleave(torch.tensor([40, 20, 10]))
        >>> method = SBCL(labels)
        >>> method.refresh(torch.randn(70, 8))
        >>> method.subclasses.bincount().tolist()
        [10, 10, 10, 10, 10, 10, 10]
    """

    labels: Tensor
    counts: Tensor
    subclasses: Tensor
    temperatures: Tensor
    warm: Tensor
    queued: Tensor

    def __init__(
        self,
        labels: Tensor,
        *,
        temperature: float = 0.1,
        gamma: float = 0.25,
        min_size: int = 10,
        clustering: str = "size_limited",
        form: str = "exponential",
        clip: tuple[float, float] | None = None,
        queue_size: int = 0,
        dim: int | None = None,
    ) -> None:
        """Take the training labels.

        Args:
            labels: ``(n,)`` classes of the training set.
            temperature: of the subclass level.
            gamma: weight of the class level.
            min_size: smallest size of a subclass.
            clustering: see `split_classes`.
            form: see `class_temperatures`.
            clip: likewise.
            queue_size: keys in the queue; 0 for none.
            dim: width of the keys; needed with a queue.
        """
        super().__init__()
        labels = check_labels(labels)
        check_temperature(temperature)
        check_in_range(0, math.inf, gamma=gamma)
        check_count(0, queue_size=queue_size)
        counts = subclass_counts(count_classes(labels), min_size, clustering=clustering)
        self.temperature, self.gamma, self.min_size, self.clustering = temperature, gamma, min_size, clustering
        self.form, self.clip = form, clip
        self.register_buffer("labels", labels.clone())
        self.register_buffer("counts", counts)
        self.register_buffer("subclasses", labels.clone())
        self.register_buffer("temperatures", torch.full((len(counts),), temperature))
        self.register_buffer("warm", torch.tensor(True))
        self.register_buffer("queued", torch.zeros(queue_size, dtype=torch.int64))  # samples of the keys
        self.queue: FeatureQueue | None = None
        if queue_size:
            check_count(dim=dim)  # type: ignore[arg-type]
            self.queue = FeatureQueue(queue_size, dim)  # type: ignore[arg-type]
        self._pushed: tuple[Tensor, Tensor] | None = None  # keys and samples of the last loss
        class_temperatures(torch.ones(len(counts)), counts, temperature, form=form, clip=clip)  # checks the settings

    @torch.no_grad()
    def refresh(self, features: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Cluster the training features ``(n, d)`` anew and end the warm-up."""
        check_shapes(features=(features, f"{len(self.labels)} d"))
        found = split_classes(
            features, self.labels, min_size=self.min_size, clustering=self.clustering, generator=generator
        )
        self.subclasses.copy_(found)
        concentration = class_concentration(features, self.labels.to(features.device)).to(self.temperatures)
        found = class_temperatures(concentration, self.counts, self.temperature, form=self.form, clip=self.clip)
        self.temperatures.copy_(found)
        self.warm.fill_(False)

    def loss(self, z1: Tensor, z2: Tensor, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Loss of two views ``(N, d)`` of the training samples ``index (N,)``. Nothing is drawn here."""
        check_shapes(z1=(z1, "n d"), z2=(z2, "n d"), index=(index, "n", int))
        index = check_labels(index, name="index", num_classes=len(self.labels))
        check_generator(generator)
        gamma = 0.0 if self.warm else self.gamma
        if self.queue is None:
            rows = index.repeat(2)
            given = (torch.cat([z1, z2]), self.labels[rows], self.subclasses[rows], self.temperatures)
            return sbcl(*given, self.temperature, gamma=gamma)
        if self.training:
            self._pushed = (z2.detach(), index)
        rows = torch.cat([index, self.queued[: int(self.queue.count)]])  # samples of the keys, the anchors' own first
        keys = torch.cat([z2.detach().to(self.queue.storage), self.queue.features])
        ids = (self.labels[rows], self.subclasses[rows])
        return _against_keys(z1, keys, *ids, self.temperatures, self.temperature, gamma)

    def forward(self, z1: Tensor, z2: Tensor, index: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss, as with torch's own criteria."""
        return self.loss(z1, z2, index, generator=generator)

    def after_step(self) -> None:
        """Push the last keys."""
        if self.training and self.queue is not None and self._pushed is not None:
            keys, index = (x[-self.queue.size :] for x in self._pushed)
            places = (int(self.queue.cursor) + torch.arange(len(index), device=index.device)) % self.queue.size
            self.queued[places] = index
            self.queue.push(keys)
            self._pushed = None


@full_precision
def _against_keys(
    query: Tensor,
    keys: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    temperatures: Tensor,
    temperature: float,
    gamma: float,
) -> Tensor:
    """`sbcl` of N anchors against m keys, of which the first N are their own."""
    own = torch.eye(len(query), len(keys), dtype=torch.bool, device=query.device)
    similarity = normalize(query) @ normalize(keys).mT
    return _levels(similarity, own, own | True, labels, subclasses, temperatures, temperature, gamma, None).loss


def _scale(temperature: float, base_temperature: float | None) -> float:
    check_temperature(temperature)
    if base_temperature is None:
        return 1.0
    check_temperature(base_temperature, name="base_temperature")
    return temperature / base_temperature
