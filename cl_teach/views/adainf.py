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
toy size it is many more, so `mix_real_and_generated` offers ids of images beside ids of positions. (2) Jitter strength
changes for SimCLR and MoCo v2 only; BYOL and Barlow Twins keep theirs, have no blur, and solarize a fifth of their
second views. (3) The released loss exponentiates without subtracting the maximum. (4) The released BYOL raises its
teacher's momentum from 0.99 to 1; here it stays. (5) The sources read here are the abstract and the code; the constants
of the paper's bounds are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..augment import color_jitter, gaussian_blur, random_grayscale, random_resized_crop
from ..core.augmentation_graph import (
    gaussian_augmentation,
    labeling_error,
    laplacian_eigenvalues,
    natural_weights,
    real_weights,
    total_variation,
)
from ..core.checks import (
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, sup_con
from ..core.precision import full_precision
from ..core.regression import regression_loss
from ..core.teacher import MomentumTeacher
from ..models.apply import apply_network
from ..training import batches

__all__ = [
    "STRONG",
    "STRONG_ASYMMETRIC",
    "WEAK",
    "WEAK_ASYMMETRIC",
    "AdaInf",
    "Augmentation",
    "MixedSet",
    "copy_pairs_per_batch",
    "draw_batches",
    "draw_view",
    "gaussian_augmentation",
    "labeling_error",
    "laplacian_eigenvalues",
    "mix_real_and_generated",
    "natural_weights",
    "nt_xent_with_ids",
    "real_share",
    "real_weights",
    "total_variation",
]


@full_precision
def nt_xent_with_ids(z1: Tensor, z2: Tensor, ids: Tensor, temperature: float = 0.2) -> Tensor:
    r"""SimCLR's loss in which items with one id are positives, their exponentials summed inside the logarithm.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.
        ids: ``(B,)`` integers, the same for both views of an item; all distinct gives NT-Xent.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at least 0; 0 if all ids agree.

    Source: released SimCLR loss (solo-learn).
    """
    check_shapes(z1=(z1, "b d"), z2=(z2, "b d"), ids=(ids, "b", int))
    ids = check_labels(ids, len(z1), name="ids").repeat(2)
    check_temperature(temperature)
    loss = sup_con(torch.cat([z1, z2]), ids, temperature, variant="in", reduction="none")  # (2B,)
    # The sum of the positives' probabilities, not their mean.
    _, group, sizes = ids.unique(return_inverse=True, return_counts=True)
    return (loss - (sizes[group] - 1).to(loss.dtype).log()).mean()


def real_share(n_real: int, n_generated: int, copies: int = 1) -> float:
    r"""The share :math:`\beta` of real images in the mixture."""
    check_count(n_real=n_real, copies=copies)
    check_count(0, n_generated=n_generated)
    return copies * n_real / (copies * n_real + n_generated)


def copy_pairs_per_batch(n_real: int, n_generated: int, copies: int, batch_size: int) -> float:
    r"""Expected pairs of copies of one image in a batch drawn without replacement; false negatives if ids differ.

    :math:`n_r\binom N2\frac{B(B-1)}{M(M-1)}` with M images in the mixture.
    """
    check_count(n_real=n_real, copies=copies)
    check_count(0, n_generated=n_generated)
    total = copies * n_real + n_generated
    check_count(2, total, batch_size=batch_size)
    return n_real * math.comb(copies, 2) * batch_size * (batch_size - 1) / (total * (total - 1))


class MixedSet(NamedTuple):
    """Training data: images, ids for the loss, and which images are real, each with one row per image.

    Attributes:
        images: ``(M, ...)``.
        ids: ``(M,)`` integers.
        is_real: ``(M,)`` boolean.
    """

    images: Tensor
    ids: Tensor
    is_real: Tensor


def mix_real_and_generated(
    real: Tensor, generated: Tensor, copies: int = 10, *, ids_of_images: bool = False
) -> MixedSet:
    """Concatenate ``copies`` times the real images and once the generated ones.

    Args:
        real: ``(n_r, ...)``.
        generated: ``(n_g, ...)``, n_g may be 0.
        copies: N.
        ids_of_images: copies share the id of their image (False: every position has its own, as released).
    """
    check_count(copies=copies)
    check_flag(ids_of_images=ids_of_images)
    for name, x in (("real", real), ("generated", generated)):
        check_type(Tensor, **{name: x})
        if x.numel() or name == "real":
            check_shapes(**{name: (x, "...")})
    if real.ndim == 0 or real.shape[1:] != generated.shape[1:]:
        shapes = f"{tuple(real.shape)} and {tuple(generated.shape)}"
        raise ValueError(f"real, generated: expected images of one shape, got {shapes}")
    if real.device != generated.device:
        raise ValueError(f"generated: expected a tensor on {real.device} as real, got one on {generated.device}")
    images = torch.cat([real] * copies + [generated.to(real.dtype)])
    position = torch.arange(len(images), device=images.device)
    is_real = position < copies * len(real)
    ids = torch.where(is_real, position % len(real), position) if ids_of_images else position
    return MixedSet(images, ids, is_real)


def draw_batches(n: int, batch_size: int, steps: int, *, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Indices of exactly ``steps`` batches, shuffled anew in every pass: equal steps for data sets of any size."""
    check_count(n=n, steps=steps)
    check_count(1, n, batch_size=batch_size)
    check_generator(generator)
    return _draw_batches(n, batch_size, steps, torch.default_generator if generator is None else generator)


def _draw_batches(n: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    done = 0
    while done < steps:
        for indices in batches(n, batch_size, generator):
            if done == steps:
                return
            yield indices
            done += 1


class Augmentation(NamedTuple):
    """Strength of a view; the rest (gray 0.2, flip 0.5) is common.

    Attributes:
        smallest_crop: lower end of the crop's area.
        jitter_probability: of a change of color.
        jitter: brightness, contrast, saturation, hue.
        blur: its probability.
        solarization: probability of turning all values from 0.5 on into their negative.
    """

    smallest_crop: float
    jitter_probability: float
    jitter: tuple[float, float, float, float]
    blur: float = 0.5
    solarization: float = 0.0


STRONG = Augmentation(0.08, 0.8, (0.8, 0.8, 0.8, 0.2))  # the baseline's, also under plain inflation
WEAK = Augmentation(0.2, 0.4, (0.4, 0.4, 0.4, 0.1))  # AdaInf's, for SimCLR and MoCo v2
# The same two for BYOL and Barlow Twins: first and second view differ, the strength of the jitter stays.
STRONG_ASYMMETRIC = (
    Augmentation(0.08, 0.8, (0.4, 0.4, 0.2, 0.1), blur=0.0),
    Augmentation(0.08, 0.8, (0.4, 0.4, 0.2, 0.1), blur=0.0, solarization=0.2),
)
WEAK_ASYMMETRIC = (
    Augmentation(0.2, 0.4, (0.4, 0.4, 0.2, 0.1), blur=0.0),
    Augmentation(0.2, 0.4, (0.4, 0.4, 0.2, 0.1), blur=0.0, solarization=0.2),
)
GRAY, FLIP = 0.2, 0.5  # probabilities


def draw_view(images: Tensor, strength: Augmentation = WEAK, *, generator: torch.Generator | None = None) -> Tensor:
    """One view of each of ``(n, c, h, w)`` images in [0, 1], c = 1 or 3; gray images have no saturation and hue."""
    check_shapes(images=(images, "n c h w"))
    check_entries(0, 1, images=images)
    _check_strength(strength)
    check_generator(generator)
    in_color = images.shape[1] == 3
    if not in_color and images.shape[1] != 1:
        raise ValueError(f"images: expected 1 or 3 channels, got {images.shape[1]}")
    brightness, contrast, saturation, hue = strength.jitter
    color = {"saturation": saturation, "hue": hue} if in_color else {}
    views = random_resized_crop(images, (strength.smallest_crop, 1.0), flip=FLIP, generator=generator)
    probability = strength.jitter_probability
    views = color_jitter(views, brightness, contrast, **color, probability=probability, generator=generator)
    if in_color:
        views = random_grayscale(views, GRAY, generator=generator)
    views = gaussian_blur(views, probability=strength.blur, generator=generator)
    where = images.device if generator is None else generator.device
    hit = torch.rand(len(views), generator=generator, device=where).to(images.device) < strength.solarization
    return torch.where(hit[:, None, None, None] & (views >= 0.5), 1 - views, views)


def _check_strength(strength: Augmentation, name: str = "strength") -> None:
    check_type(Augmentation, **{name: strength})
    check_type((tuple, list), **{f"{name}.jitter": strength.jitter})
    if len(strength.jitter) != 4:
        raise ValueError(f"{name}.jitter: expected brightness, contrast, saturation, hue, got {len(strength.jitter)}")
    check_in_range(1e-6, 1, **{f"{name}.smallest_crop": strength.smallest_crop})
    for field in ("jitter_probability", "blur", "solarization"):
        check_in_range(0, 1, **{f"{name}.{field}": getattr(strength, field)})
    for i, value in enumerate(strength.jitter):
        check_in_range(0, 0.5 if i == 3 else 10, **{f"{name}.jitter[{i}]": value})


class AdaInf(nn.Module):
    """A host method with the augmentation of inflated data: SimCLR, or with a predictor BYOL.

    Train it on ``(mixed.images, mixed.ids)`` of `mix_real_and_generated`, with `after_step` after each step.

    Example:
        >>> mixed = mix_real_and_generated(torch.rand(4, 1, 8, 8), torch.rand(12, 1, 8, 8), copies=3)
        >>> method = AdaInf(nn.Flatten(), nn.Linear(64, 8))
        >>> bool(method.loss(mixed.images, mixed.ids) > 0), method(mixed.images).shape
        (True, torch.Size([24, 64]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        predictor: nn.Module | None = None,
        *,
        strengths: tuple[Augmentation, Augmentation] | None = None,
        temperature: float = 0.2,
        momentum: float = 0.99,
    ) -> None:
        """Put the parts together.

        Args:
            encoder: images to features ``(n, f)``, those that are kept.
            head: features to embeddings ``(n, d)``.
            predictor: None for SimCLR; embeddings to embeddings, for BYOL.
            strengths: of the first and of the second view. None: `WEAK` for both, or with a predictor
                `WEAK_ASYMMETRIC`.
            temperature: of SimCLR.
            momentum: of BYOL's teacher.
        """
        super().__init__()
        check_module(encoder=encoder, head=head)
        if predictor is not None:
            check_module(predictor=predictor)
        if strengths is None:
            strengths = (WEAK, WEAK) if predictor is None else WEAK_ASYMMETRIC
        check_type((tuple, list), strengths=strengths)
        if len(strengths) != 2:
            raise ValueError(f"strengths: expected two, one a view, got {len(strengths)}")
        for i, strength in enumerate(strengths):
            _check_strength(strength, f"strengths[{i}]")
        check_temperature(temperature)
        check_in_range(0, 1, momentum=momentum)
        self.student, self.predictor = nn.Sequential(encoder, head), predictor
        self.teacher = None if predictor is None else MomentumTeacher(self.student, momentum)
        self.strengths, self.temperature = tuple(strengths), temperature

    def forward(self, images: Tensor) -> Tensor:
        """``(n, c, h, w)`` images to the features that are kept."""
        check_shapes(images=(images, "n c h w"))
        return apply_network(self.student[0], "n f", images=images)

    def loss(self, images: Tensor, ids: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The host's loss of two views of ``(n, c, h, w)`` images in [0, 1] with ``(n,)`` ids; scalar.

        BYOL has no negatives and does not look at the ids.
        """
        check_same_length(images=images, ids=ids)
        ids = check_labels(ids, name="ids")
        view1, view2 = (draw_view(images, strength, generator=generator) for strength in self.strengths)
        z1, z2 = (apply_network(self.student, "n d", images=view) for view in (view1, view2))
        if self.predictor is None or self.teacher is None:
            return nt_xent_with_ids(z1, z2, ids, self.temperature)
        with torch.no_grad():
            k1, k2 = (apply_network(self.teacher.network, "n d", images=view) for view in (view1, view2))
        return regression_loss(self.predictor(z1), k2) + regression_loss(self.predictor(z2), k1)

    def after_step(self) -> None:
        """Move BYOL's teacher; nothing for SimCLR."""
        if self.teacher is not None:
            self.teacher.update(self.student)
