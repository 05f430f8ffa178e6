r"""Labeled sets as they come in practice: a few frequent classes and many rare ones, and labels that are wrong.

Three kinds of wrong labels. `noisy_labels` spreads them evenly over the other classes. Under a long tail wrong labels
fall on frequent classes more often; with :math:`n_k` samples of class k, :math:`n` of all, a label i becomes
:math:`j \ne i` with probability

.. math::
    T_{ij} = \eta\,\frac{n_j}{n-n_i}\ \text{(the model "experiments")}, \qquad
    T_{ij} = \eta\,\frac{n_j}n\ \text{(the model "theory")}.

In the first a share :math:`\eta` of *every* class is wrong; in the second rare classes lose more than frequent ones,
and the noisy classes are as frequent as the true ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.precision import full_precision
from .common import ImageSet

__all__ = ["LabelNoise", "flip_labels", "long_tailed", "noise_transition", "noisy_labels", "polluted_moments"]


class LabelNoise(NamedTuple):
    """``transition (K, K)``, row i the noisy label of a true i, and ``noisy_priors (K,)``, the noisy frequencies."""

    transition: Tensor
    noisy_priors: Tensor


def long_tailed(data: ImageSet, imbalance: float = 50.0, *, seed: int = 0) -> ImageSet:
    r"""Thin the classes out geometrically: class c of C keeps :math:`n_{\max}\,r^{-c/(C-1)}` of its images.

    Args:
        data: a labeled set; every class has at least one image. Class 0 keeps as many images as the smallest class has.
        imbalance: r, frequency of class 0 over frequency of the last class, at least 1.
        seed: which images stay.

    Returns:
        The images that stay, in their old order, at least one a class.

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples (2019), section 4.1: the usual way to make
        a long-tailed version of a balanced set.
    """
    check_type(ImageSet, data=data)
    check_shapes(**{"data.images": (data.images, "...")})
    check_type((tuple, list), **{"data.classes": data.classes})
    check_in_range(1.0, float("inf"), imbalance=imbalance)
    check_count(0, seed=seed)
    classes = len(data.classes)
    labels = check_labels(data.labels, len(data.images), name="data.labels", num_classes=classes).cpu()
    sizes = torch.bincount(labels, minlength=classes)
    if (sizes == 0).any():
        raise ValueError(f"data: class {int(sizes.argmin())} has no images; every class needs at least one")
    share = torch.linspace(0, 1, classes, dtype=torch.float64)
    keep = (int(sizes.min()) * float(imbalance) ** -share).round().clamp(min=1).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = [order[labels[order] == c][: int(keep[c])] for c in range(classes)]
    rows = torch.cat(chosen).sort().values.to(data.labels.device)
    return ImageSet(data.images[rows], data.labels[rows], data.classes)


def noisy_labels(labels: Tensor, num_classes: int, rate: float, *, seed: int = 0) -> Tensor:
    """Replace a share of the labels by a different class, drawn evenly (symmetric noise).

    Args:
        labels: ``(n,)`` integers in 0 .. num_classes - 1.
        num_classes: at least 2.
        rate: share of wrong labels, 0 to 1; exactly ``round(rate * n)`` labels become wrong.
        seed: which ones, and what they become.

    Returns:
        ``(n,)`` labels, the originals untouched.
    """
    check_in_range(0.0, 1.0, rate=rate)
    check_count(2, num_classes=num_classes)
    check_count(0, seed=seed)
    labels = check_labels(labels, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    # A step of 1 .. C - 1 around the circle of classes never ends where it began.
    steps = torch.randint(1, num_classes, (len(rows),), generator=generator)
    rows, steps = rows.to(labels.device), steps.to(labels.device)
    wrong = labels.clone()
    wrong[rows] = (labels[rows] + steps) % num_classes
    return wrong


def noise_transition(class_sizes: Tensor, eta: float, model: str = "experiments") -> LabelNoise:
    """How labels go wrong under a long tail: toward frequent classes.

    Args:
        class_sizes: ``(K,)`` integers, samples of each class, at least two of them above 0.
        eta: noise rate in [0, 1].
        model: ``"experiments"``, a share eta of every class is wrong, or ``"theory"``, with probability eta a label is
            drawn anew from the class frequencies and may come out right.

    Returns:
        Both tensors in float64.

    Source:
        Zhang et al., When Noisy Labels Meet Long Tail Dilemmas (2023), experiments and assumption 3.1.

    Example:
        >>> noise_transition(torch.tensor([6, 3, 1]), 0.4).transition[0].round(decimals=2).tolist()
        [0.6, 0.3, 0.1]
    """
    sizes = check_labels(class_sizes, name="class_sizes").double()
    check_in_range(0, 1, eta=eta)
    check_choice(("experiments", "theory"), model=model)
    if (sizes > 0).sum() < 2:
        raise ValueError(f"class_sizes: expected at least two classes with samples, got {class_sizes.tolist()}")
    others = sizes.sum() - (sizes if model == "experiments" else 0 * sizes)
    transition = eta * sizes / others[:, None]  # (K, K)
    transition = transition.fill_diagonal_(0.0)
    transition = transition + torch.diag(1 - transition.sum(1))
    return LabelNoise(transition, sizes / sizes.sum() @ transition)


def flip_labels(labels: Tensor, eta: float, model: str = "experiments", *, seed: int = 0) -> Tensor:
    """Draw noisy labels ``(n,)`` for true ones ``(n,)`` by `noise_transition`; its class sizes are those of the labels.

    Every label goes wrong by itself, so the share of wrong ones varies a little around its expectation.
    """
    check_shapes(labels=(labels, "n", int))
    classes, kind, sizes = check_labels(labels).cpu().unique(return_inverse=True, return_counts=True)
    check_count(0, seed=seed)
    if len(classes) < 2:
        raise ValueError(f"labels: expected at least two classes, got only {int(classes[0])}")
    transition = noise_transition(sizes, eta, model).transition  # a class without samples attracts no wrong labels
    generator = torch.Generator().manual_seed(seed)
    return classes[transition[kind].multinomial(1, generator=generator)[:, 0]].to(labels.device)


@full_precision
def polluted_moments(means: Tensor, cov: Tensor, priors: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor]:
    r"""What label noise (the theory's) does to class Gaussians. With :math:`c_k = \mu_k -
    \bar\mu`, distance to the global mean,

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

    Source: assumption 3.1 of Zhang et al. (2023) and the appendix for the mean; the covariance is derived here.
    """
    check_shapes(means=(means, "k m"), cov=(cov, "m m"), priors=(priors, "k"))
    check_entries(0, 1, priors=priors)
    check_in_range(0, 1, eta=eta)
    if abs(float(priors.sum()) - 1) > 1e-4:
        raise ValueError(f"priors: expected numbers that sum to 1, got {float(priors.sum()):g}")
    overall = priors @ means
    c = means - overall
    outer = c[:, :, None] * c[:, None, :]  # (K, m, m)
    between = (priors[:, None, None] * outer).sum(0)
    covs = finite_result(cov + eta * (1 - eta) * outer + eta * between, means=means, cov=cov)
    return priors, overall + (1 - eta) * c, covs
