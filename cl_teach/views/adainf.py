r"""Do Generated Data Always Help Contrastive Learning? Yifei Wang, Jizhe Zhang, Yisen Wang; ICLR 2024;
https://arxiv.org/abs/2403.12448.

Inflation adds :math:`n_g` images of a generator to :math:`n_r` real ones. AdaInf repeats the real images N times in the
mixture and weakens the augmentation. With :math:`P_d` the real, :math:`P_g` the generated distribution,

.. math::
    \beta = \frac{N n_r}{N n_r+n_g}, \qquad P_t = \beta P_d + (1-\beta)P_g, \qquad
    \mathrm{TV}(P_d,P_t) = (1-\beta)\,\mathrm{TV}(P_d,P_g).

The loss is SimCLR's, for 2B embeddings with an id :math:`u_i` for each item,

.. math:: \ell = -\frac1{2B}\sum_i\log
    \frac{\sum_{j\ne i,\,u_j=u_i}e^{\hat z_i\cdot\hat z_j/\tau}}{\sum_{j\ne i}e^{\hat z_i\cdot\hat z_j/\tau}}.

Why the augmentation should be weaker shows in the augmentation graph. With natural points :math:`\bar x` and the
augmentation :math:`p(x|\bar x)`,

.. math::
    W_{xx'} = \sum_{\bar x}P_t(\bar x)\,p(x|\bar x)\,p(x'|\bar x), \qquad
    \mathcal L = I - D^{-1/2}WD^{-1/2}, \qquad
    \alpha = \Pr_{\bar x\sim P_t,\,x\sim p(\cdot|\bar x)}[\hat y(x)\ne y(\bar x)],

where D holds the row sums of W and :math:`\hat y(x)` is the weighted majority label of x. Bounds of spectral
contrastive learning grow with :math:`\alpha/\lambda_{k+1}`, the (k+1)-th smallest eigenvalue of :math:`\mathcal L`.

What changes and why: augmentation links the images of a class. More data link them already, so that a weaker
augmentation reaches the same :math:`\lambda_{k+1}` with fewer label errors. Replication moves :math:`P_t` toward the
real data. Loss, model and number of steps stay as they are, and nothing adapts during training.

Paper versus code. (1) In the released code copies of one real image have different ids: if two of them meet in a batch,
they are negatives. On CIFAR-10 (N = 10, a million generated images, batch 256) that is about 0.07 pairs per batch; at
toy size it is many more, so `mix` offers ids of images beside ids of positions. (2) Jitter strength changes for SimCLR
and MoCo v2 only; BYOL and Barlow Twins keep theirs. (3) The released loss exponentiates without subtracting the
maximum. (4) The sources read here are the abstract and the code; the constants of the paper's bounds are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..augment import color_jitter, gaussian_blur, random_grayscale, random_resized_crop
from ..core.checks import (
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.similarity import normalize, same_label_mask, self_mask
from ..training import batches

__all__ = [
    "STRONG",
    "WEAK",
    "Augmentation",
    "Mixture",
    "augment",
    "copy_pairs_per_batch",
    "draw_batches",
    "draw_intervals",
    "gaussian_augmentation",
    "labeling_error",
    "laplacian_eigenvalues",
    "mix",
    "natural_weights",
    "nt_xent_with_ids",
    "real_share",
    "real_weights",
    "total_variation",
    "training_step",
]


def nt_xent_with_ids(z1: Tensor, z2: Tensor, ids: Tensor, temperature: float = 0.2) -> Tensor:
    r"""SimCLR's loss in which items with one id are positives, their exponentials summed inside the logarithm.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.
        ids: ``(B,)`` integers, the same for both views of an item; all distinct gives NT-Xent.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at least 0; 0 if all ids agree.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: released SimCLR loss (solo-learn).
    """
    check_embeddings(z1=z1, z2=z2)
    check_same_shape(z1=z1, z2=z2)
    check_labels(ids, len(z1), name="ids")
    check_positive(temperature=temperature)
    z, u = normalize(torch.cat([z1, z2])), ids.repeat(2)
    itself = self_mask(len(z), z.device)
    logits = (z @ z.mT / temperature).masked_fill(itself, -math.inf)  # (2B, 2B)
    positives = logits.masked_fill(~same_label_mask(u), -math.inf)
    return (logits.logsumexp(1) - positives.logsumexp(1)).mean()


def real_share(n_real: int, n_generated: int, copies: int = 1) -> float:
    r"""The share :math:`\beta` of real images in the mixture.

    Raises:
        TypeError: not numbers.
        ValueError: no real image, fewer than one copy, a negative number of generated images.
    """
    check_in_range(1, math.inf, n_real=n_real, copies=copies)
    check_in_range(0, math.inf, n_generated=n_generated)
    return copies * n_real / (copies * n_real + n_generated)


def copy_pairs_per_batch(n_real: int, n_generated: int, copies: int, batch_size: int) -> float:
    r"""Expected pairs of copies of one image in a batch drawn without replacement; false negatives if ids differ.

    :math:`n_r\binom N2\frac{B(B-1)}{M(M-1)}` with M images in the mixture.

    Raises:
        TypeError: not numbers.
        ValueError: a number out of range, a batch larger than the mixture.
    """
    check_in_range(1, math.inf, n_real=n_real, copies=copies)
    check_in_range(0, math.inf, n_generated=n_generated)
    total = copies * n_real + n_generated
    check_in_range(2, total, batch_size=batch_size)
    return n_real * math.comb(copies, 2) * batch_size * (batch_size - 1) / (total * (total - 1))


class Mixture(NamedTuple):
    """Training data: images, ids for the loss, and which images are real, each with one row per image.

    Attributes:
        images: ``(M, ...)``.
        ids: ``(M,)`` integers.
        is_real: ``(M,)`` boolean.
    """

    images: Tensor
    ids: Tensor
    is_real: Tensor


def mix(real: Tensor, generated: Tensor, copies: int = 10, *, ids_of_images: bool = False) -> Mixture:
    """Concatenate ``copies`` times the real images and once the generated ones.

    Args:
        real: ``(n_r, ...)``.
        generated: ``(n_g, ...)``, n_g may be 0.
        copies: N, an integer of at least 1.
        ids_of_images: copies share the id of their image (False: every position has its own, as released).

    Raises:
        TypeError: ``copies`` not a number.
        ValueError: shapes differ beyond the first dimension, no real image, fewer than one copy.
    """
    check_in_range(1, math.inf, copies=copies)
    if len(real) == 0 or real.shape[1:] != generated.shape[1:]:
        shapes = f"{tuple(real.shape)} and {tuple(generated.shape)}"
        raise ValueError(f"real, generated: expected images of one shape and a real one, got {shapes}")
    images = torch.cat([real] * copies + [generated])
    position = torch.arange(len(images), device=images.device)
    is_real = position < copies * len(real)
    return Mixture(images, torch.where(is_real, position % len(real), position) if ids_of_images else position, is_real)


def draw_batches(n: int, batch_size: int, steps: int, *, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of exactly ``steps`` batches, shuffled anew in every pass: equal steps for data sets of any size."""
    check_in_range(1, math.inf, steps=steps)
    done = 0
    while done < steps:
        for indices in batches(n, batch_size, generator):
            if done == steps:
                return
            yield indices
            done += 1


class Augmentation(NamedTuple):
    """Strength of the views; the rest (gray 0.2, flip 0.5, blur 0.5) is common.

    Attributes:
        smallest_crop: lower end of the crop's area.
        jitter_probability: of a change of color.
        jitter: brightness, contrast, saturation, hue.
    """

    smallest_crop: float
    jitter_probability: float
    jitter: tuple[float, float, float, float]


STRONG = Augmentation(0.08, 0.8, (0.8, 0.8, 0.8, 0.2))  # the baseline's, also under plain inflation
WEAK = Augmentation(0.2, 0.4, (0.4, 0.4, 0.4, 0.1))  # AdaInf's, for SimCLR and MoCo v2


def augment(images: Tensor, strength: Augmentation = WEAK, *, generator: torch.Generator | None = None) -> Tensor:
    """One view of each of ``(n, c, h, w)`` images in [0, 1], c = 1 or 3; gray images have no saturation and hue."""
    brightness, contrast, saturation, hue = strength.jitter
    color = {"saturation": saturation, "hue": hue} if images.shape[1] == 3 else {}
    views = random_resized_crop(images, (strength.smallest_crop, 1.0), flip=0.5, generator=generator)
    probability = strength.jitter_probability
    views = color_jitter(views, brightness, contrast, **color, probability=probability, generator=generator)
    if images.shape[1] == 3:
        views = random_grayscale(views, 0.2, generator=generator)
    return gaussian_blur(views, probability=0.5, generator=generator)


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mixture: Mixture,
    indices: Tensor,
    strength: Augmentation = WEAK,
    *,
    temperature: float = 0.2,
    generator: torch.Generator | None = None,
) -> float:
    """One step of the host method (SimCLR) on the images ``indices`` of the mixture; returns the loss."""
    images, ids = mixture.images[indices], mixture.ids[indices]
    z1, z2 = (model(augment(images, strength, generator=generator)) for _ in range(2))
    loss = nt_xent_with_ids(z1, z2, ids, temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def natural_weights(is_real: Tensor, copies: int = 1) -> Tensor:
    """The probabilities ``(n,)`` of natural points, float64: ``copies`` for a real one to 1 for a generated one."""
    check_mask(is_real, (len(is_real),), name="is_real")
    check_in_range(1, math.inf, copies=copies)
    weights = torch.where(is_real, float(copies), 1.0).double()
    return weights / weights.sum()


def real_weights(is_real: Tensor) -> Tensor:
    """The real distribution as probabilities ``(n,)`` of the natural points, float64: uniform on the real ones."""
    check_mask(is_real, (len(is_real),), name="is_real")
    if not is_real.any():
        raise ValueError("is_real: expected at least one real point, got none")
    return is_real.double() / is_real.sum()


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of absolute differences of two ``(n,)`` distributions."""
    check_embeddings(ndim=1, p=p, q=q)
    check_same_shape(p=p, q=q)
    return (p - q).abs().sum() / 2


def laplacian_eigenvalues(augmentation: Tensor, weights: Tensor) -> Tensor:
    r"""Eigenvalues of :math:`\mathcal L`, ascending, in [0, 1]; as many zeros as the graph has components.

    Args:
        augmentation: ``(n, m)``, row i is p(.|natural point i) over the m augmented nodes.
        weights: ``(n,)`` probabilities of the natural points.

    Returns:
        ``(m,)``; :math:`\lambda_{k+1}` has index k. A node that is never reached counts 1.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, an entry outside [0, 1], rows that do not sum to 1.

    Source: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss (2021).
    """
    _check_graph(augmentation, weights)
    joint = weights.sqrt()[:, None] * augmentation  # (n, m), so that W = joint^T joint
    degree = weights @ augmentation  # (m,), since the rows sum to 1
    reached = degree > torch.finfo(degree.dtype).tiny
    scaled = joint * torch.where(reached, degree.clamp(min=torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
    return torch.linalg.eigvalsh(torch.eye(len(degree), dtype=degree.dtype, device=degree.device) - scaled.mT @ scaled)


def labeling_error(augmentation: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    r"""The probability :math:`\alpha` that an augmented point has another majority label than its natural point.

    Args:
        augmentation: ``(n, m)``, see `laplacian_eigenvalues`.
        weights: ``(n,)``.
        labels: ``(n,)`` integer classes of the natural points.

    Raises:
        TypeError: wrong dtype.
        ValueError: as in `laplacian_eigenvalues`, or labels of another length.
    """
    _check_graph(augmentation, weights)
    check_labels(labels, len(augmentation))
    classes = nn.functional.one_hot(labels).to(weights.dtype)  # (n, classes)
    mass = (weights[:, None] * augmentation).mT @ classes  # (m, classes)
    return (mass.sum(1) - mass.amax(1)).sum()


def gaussian_augmentation(points: Tensor, nodes: Tensor, width: float) -> Tensor:
    """``(n, m)`` Gaussian of ``width`` around each of ``(n,)`` points on ``(m,)`` nodes, rows summing to 1."""
    check_embeddings(ndim=1, points=points, nodes=nodes)
    check_positive(width=width)
    return (-(points[:, None] - nodes).square() / (2 * width**2)).softmax(1)


def draw_intervals(n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Points ``(n,)`` float64 of two classes, uniform on [0.02, 0.44] and [0.56, 0.98], and their labels."""
    labels = torch.arange(n) % 2
    return 0.02 + 0.54 * labels + 0.42 * torch.rand(n, generator=generator, dtype=torch.float64), labels


def _check_graph(augmentation: Tensor, weights: Tensor) -> None:
    check_embeddings(augmentation=augmentation)
    check_embeddings(ndim=1, weights=weights)
    check_same_length(augmentation=augmentation, weights=weights)
    check_in_range(0, 1 + 1e-6, augmentation=augmentation, weights=weights)
    for name, sums in (("augmentation", augmentation.sum(1)), ("weights", weights.sum())):
        if (sums - 1).abs().max() > 1e-5:
            raise ValueError(f"{name}: expected probabilities that sum to 1")
