r"""Subclass-balancing Contrastive Learning for Long-tailed Recognition. Chengkai Hou, Jieyu Zhang, Haonan Wang,
Tianyi Zhou; ICCV 2023; https://arxiv.org/abs/2306.15925. (SupCon, its base: Khosla et al. 2020,
https://arxiv.org/abs/2004.11362.)

Every large class is cut into subclasses g about as large as a small class, and the loss contrasts on two levels:

.. math::
    L = \tfrac{\tau}{\tau_0}\,T_1 + \gamma\,T_2,

where :math:`T_1` is SupCon (out) on the subclasses and :math:`T_2` is the contrast of class against class: positives
:math:`P_2(i)` are rows of the anchor's class in *other* subclasses plus its own other view, candidates are all rows
outside the anchor's subclass plus that view, at the temperature :math:`\tau_2` of the anchor's class. What changes
and why: SupCon lets the many rows of a head class dominate, and re-balancing by class throws rows away or overuses
them. Subclasses have similar sizes, every instance keeps its weight, and a head class keeps its inner structure.

Paper versus code. (1) The released temperature is linear in the concentration (`class_temperatures`); an exponential
form is present there but disabled. (2) :math:`T_1` is scaled by :math:`\tau/\tau_0 = 0.1/0.07` in the release; the
default here is 1. (3) The training script never passes a temperature, so the loss uses its own default of 0.1. (4)
Size-balanced clustering is off in all released runs; both are here (`split_classes`). (5) The class center is a plain
mean, not normalized again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ..core.checks import check_embeddings, check_in_range, check_labels, check_positive, check_same_length
from ..core.contrast import softmax_contrast, sup_con
from ..core.similarity import normalize, same_label_mask, self_mask

__all__ = [
    "SBCL",
    "SubclassTerms",
    "class_concentration",
    "class_temperatures",
    "sbcl",
    "scaled_sup_con",
    "split_classes",
    "subclass_counts",
    "subclass_terms",
    "two_level_plain",
]


class SubclassTerms(NamedTuple):
    """The two levels, unscaled.

    Attributes:
        subclass: scalar, contrast of subclasses.
        classes: scalar, contrast of classes.
    """

    subclass: Tensor
    classes: Tensor


def subclass_counts(class_counts: Tensor, min_size: int = 10) -> Tensor:
    r"""How many subclasses each class gets: :math:`K_c = \max(1, \lfloor n_c / \max(\min n, \delta)\rfloor)`.

    Args:
        class_counts: ``(C,)`` training samples of each class, at least 1.
        min_size: :math:`\delta`, the smallest size of a subclass.

    Returns:
        ``(C,)`` integers.

    Raises:
        TypeError: not integers.
        ValueError: an empty class, or ``min_size`` below 1.
    """
    check_labels(class_counts, len(class_counts), name="class_counts")
    check_positive(class_counts=class_counts, min_size=min_size)
    return (class_counts // max(int(class_counts.min()), min_size)).clamp_min(1)


def class_concentration(features: Tensor, labels: Tensor, *, log_offset: float = 10.0) -> Tensor:
    r"""Spread of each class around its mean, :math:`\phi_c = \frac{1}{n_c\ln(n_c+10)}\sum_i\lVert z_i-\bar z_c\rVert`.

    Args:
        features: ``(n, d)``, any scale (normalized here).
        labels: ``(n,)`` integers; every class below the largest label must occur.
        log_offset: the 10 in the logarithm.

    Returns:
        ``(C,)``.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, a class without samples.
    """
    check_embeddings(features=features)
    check_labels(labels, len(features))
    z = normalize(features)
    count = torch.bincount(labels)
    if (count == 0).any():
        raise ValueError(f"labels: every class needs a sample, class {int((count == 0).nonzero()[0])} has none")
    count = count.to(z)
    center = torch.zeros(len(count), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, labels, z)
    center = center / count[:, None]
    distance = torch.linalg.vector_norm(z - center[labels], dim=1)
    return torch.zeros_like(count).index_add(0, labels, distance) / (count * (count + log_offset).log())


def class_temperatures(
    concentration: Tensor, subclasses: Tensor, temperature: float = 0.1, *, clip: tuple[float, float] = (20.0, 80.0)
) -> Tensor:
    r"""Temperatures of the class level: :math:`\tau\phi_c/\mathrm{mean}\,\phi`, outliers clipped; spread classes get
    more.

    Args:
        concentration: ``(C,)`` from `class_concentration`.
        subclasses: ``(C,)`` from `subclass_counts`; a class with one subclass keeps ``temperature``.
        temperature: base temperature.
        clip: percentiles between which the concentration is kept (linear interpolation).

    Returns:
        ``(C,)``.

    Raises:
        ValueError: lengths differ, temperature not positive, percentiles out of order.
    """
    check_embeddings(ndim=1, concentration=concentration)
    check_same_length(concentration=concentration, subclasses=subclasses)
    check_positive(temperature=temperature)
    check_in_range(0, 100, **{"clip[0]": clip[0], "clip[1]": clip[1]})
    low, high = torch.quantile(concentration, torch.tensor(clip, dtype=concentration.dtype).to(concentration) / 100)
    kept = concentration.clamp(low, high)
    return torch.where(subclasses > 1, temperature * kept / kept.mean(), temperature)


def subclass_terms(
    z: Tensor, labels: Tensor, subclasses: Tensor, temperatures: Tensor, temperature: float = 0.1
) -> SubclassTerms:
    """Both levels of the loss; arguments and errors as in `sbcl`."""
    check_embeddings(z=z)
    rows = len(z)
    check_labels(labels, rows, num_classes=len(temperatures))
    check_labels(subclasses, rows, name="subclasses")
    check_positive(temperatures=temperatures)
    if rows % 2:
        raise ValueError(f"z: expected two stacked views, an even number of rows, got {rows}")
    first = sup_con(z, subclasses, temperature)
    z = normalize(z)
    itself = self_mask(rows, z.device)
    other_view = itself.roll(rows // 2, dims=1)
    same_class, same_subclass = same_label_mask(labels), same_label_mask(subclasses)
    positives = (same_class & ~same_subclass) | other_view
    candidates = (~same_subclass) | other_view
    logits = z @ z.mT / temperatures.detach()[labels][:, None]  # the anchor's class decides
    return SubclassTerms(first, softmax_contrast(logits, positives, candidates))


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
    """Two-level contrast with balanced subclasses.

    Args:
        z: ``(2N, d)`` embeddings, second views below the first, any scale (normalized here).
        labels: ``(2N,)`` classes.
        subclasses: ``(2N,)`` subclass ids, unique over all classes, equal for both views of a sample.
        temperatures: ``(C,)`` of the class level, from `class_temperatures`; constants.
        temperature: of the subclass level.
        gamma: weight of the class level, at least 0.
        base_temperature: scales the subclass level by temperature / base_temperature; None means no scaling.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, an odd number of rows, a value out of range.

    Source: Hou et al. (2023), released loss.
    """
    check_in_range(0, math.inf, gamma=gamma)
    terms = subclass_terms(z, labels, subclasses, temperatures, temperature)
    return _scale(temperature, base_temperature) * terms.subclass + gamma * terms.classes


def scaled_sup_con(
    z: Tensor,
    labels: Tensor,
    temperature: float = 0.1,
    *,
    variant: str = "out",
    base_temperature: float | None = None,
) -> Tensor:
    """SupCon with the factor temperature / base_temperature of the released code, which only rescales it.

    Args:
        z: ``(m, d)`` embeddings.
        labels: ``(m,)`` integers, each at least twice.
        temperature: greater than 0.
        variant: ``"out"`` or ``"in"``, see `cl_teach.core.sup_con`.
        base_temperature: greater than 0; None means no scaling.
    """
    return _scale(temperature, base_temperature) * sup_con(z, labels, temperature, variant=variant)


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

    Args:
        z: ``(2N, d)`` embeddings.
        labels: ``(2N,)`` classes.
        subclasses: ``(2N,)`` subclass ids.
        temperature: of both levels.
        gamma: weight of the class level.
        base_temperature: see `sbcl`.
    """
    check_in_range(0, math.inf, gamma=gamma)
    fine = scaled_sup_con(z, subclasses, temperature, base_temperature=base_temperature)
    return fine + gamma * sup_con(z, labels, temperature)


def split_classes(features: Tensor, labels: Tensor, counts: Tensor, *, balanced: bool = False, seed: int = 0) -> Tensor:
    """Cut every class into its number of subclasses by k-means on unit features.

    Args:
        features: ``(n, d)`` features of the whole training set.
        labels: ``(n,)`` classes.
        counts: ``(C,)`` number of subclasses, from `subclass_counts`.
        balanced: fill the clusters greedily by similarity up to equal sizes, which then differ by at most 1.
        seed: of k-means.

    Returns:
        ``(n,)`` subclass ids, numbered through over all classes.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN.
    """
    check_embeddings(features=features)
    check_labels(labels, len(features), num_classes=len(counts))
    z = normalize(features.detach()).cpu().double().numpy()
    y, subclasses, used = labels.cpu().numpy(), np.zeros(len(z), dtype=np.int64), 0
    for c, k in enumerate(counts.tolist()):
        rows = np.flatnonzero(y == c)
        if len(rows) == 0:
            continue
        if k > 1:
            clusters = KMeans(k, n_init=1, max_iter=35, tol=1e-3, random_state=seed).fit(z[rows])
            assigned = _fill_evenly(z[rows] @ clusters.cluster_centers_.T) if balanced else clusters.labels_
        else:
            assigned = np.zeros(len(rows), dtype=np.int64)
        subclasses[rows] = used + assigned
        used += k
    return torch.from_numpy(subclasses).to(labels.device)


def _fill_evenly(similarity: np.ndarray) -> np.ndarray:
    """Assign rows to columns, best similarity first, so that column sizes differ by at most one."""
    n, k = similarity.shape
    room, assigned = np.full(k, n // k), np.full(n, -1)
    order = np.column_stack(np.unravel_index(np.argsort(-similarity, axis=None), similarity.shape))
    for extra in (0, 1):  # first up to the floor, then at most one more each
        if extra:
            room = np.ones(k, dtype=int)
        for row, column in order:
            if assigned[row] < 0 and room[column] > 0:
                assigned[row], room[column] = column, room[column] - 1
    return assigned


class SBCL(nn.Module):
    """What SBCL keeps between steps: the subclass of every training sample and the temperature of every class.

    During warm-up the loss is SupCon on the classes. Call `refresh` with features of the whole training set after it
    and every few epochs; then the two-level loss is used.
    """

    subclasses: Tensor
    temperatures: Tensor
    counts: Tensor

    def __init__(
        self,
        labels: Tensor,
        *,
        temperature: float = 0.1,
        gamma: float = 0.25,
        min_size: int = 10,
        balanced: bool = False,
    ) -> None:
        """Take the training labels.

        Args:
            labels: ``(n,)`` classes of the training set.
            temperature: of the subclass level.
            gamma: weight of the class level.
            min_size: smallest size of a subclass.
            balanced: see `split_classes`.
        """
        super().__init__()
        check_labels(labels, len(labels))
        check_positive(temperature=temperature)
        self.temperature, self.gamma, self.balanced, self.warm = temperature, gamma, balanced, True
        counts = subclass_counts(torch.bincount(labels), min_size)
        self.register_buffer("labels", labels.clone())
        self.register_buffer("counts", counts)
        self.register_buffer("subclasses", labels.clone())
        self.register_buffer("temperatures", torch.full((len(counts),), temperature))

    labels: Tensor

    @torch.no_grad()
    def refresh(self, features: Tensor, *, seed: int = 0) -> None:
        """Cluster the training features ``(n, d)`` anew and end the warm-up."""
        self.subclasses.copy_(split_classes(features, self.labels, self.counts, balanced=self.balanced, seed=seed))
        concentration = class_concentration(features, self.labels)
        self.temperatures.copy_(class_temperatures(concentration, self.counts, self.temperature))
        self.warm = False

    def forward(self, z1: Tensor, z2: Tensor, index: Tensor) -> Tensor:
        """Loss of two views ``(N, d)`` of the training samples ``index (N,)``."""
        check_labels(index, len(z1), name="index", num_classes=len(self.labels))
        z, labels = torch.cat([z1, z2]), self.labels[index].repeat(2)
        if self.warm:
            return sup_con(z, labels, self.temperature)
        subclasses = self.subclasses[index].repeat(2)
        return sbcl(z, labels, subclasses, self.temperatures, self.temperature, gamma=self.gamma)


def _scale(temperature: float, base_temperature: float | None) -> float:
    check_positive(temperature=temperature)
    if base_temperature is None:
        return 1.0
    check_positive(base_temperature=base_temperature)
    return temperature / base_temperature
