r"""Separating common from salient patterns with Contrastive Representation Learning. Robin Louiset, Edouard Duchesnay,
Antoine Grigis, Pietro Gori; ICLR 2024; https://arxiv.org/abs/2402.11928.

Contrastive analysis has a background set (healthy, say) and a target set (ill). Common factors vary in both, salient
ones only in the targets. One encoder is to find the common code c, another the salient code s. With views v = 1, 2,
targets T, background B, :math:`\hat c` of length one, and the pinned code :math:`t_i = s_i` for a target and the
constant 0 for a background sample,

.. math::
    A(x,y) &= \frac1n\sum_i \frac{\lVert x_i-y_i\rVert^2}{2\tau}, \qquad
    U(x) = \log\frac{2}{n(n-1)}\sum_{i<j} e^{-\lVert x_i-x_j\rVert^2/2\tau}, \\
    J(c,s) &= \frac1N\sum_i\log\frac1N\sum_j e^{-(\lVert c_i-c_j\rVert^2+\lVert s_i-s_j\rVert^2)/2\tau}, \\
    L_C &= A(\hat c^1,\hat c^2) + U(\hat c^1) + U(\hat c^2), \qquad
    L_S = A(s^1_T,s^2_T) + U(t^1) + U(t^2), \\
    L_{reg} &= \tfrac12\sum_v\frac1{|B|}\sum_{i\in B}\frac{\lVert s_i^v\rVert^2}{2\tau}, \qquad
    L_{JEM} = \tfrac12\sum_v J(\hat c^v, t^v), \\
    L &= L_C + \beta_S L_S + \beta_{reg}L_{reg} + \lambda L_{JEM}.

What changes and why: alignment and uniformity make each code informative. :math:`L_{reg}` takes from s what background
samples show too. :math:`J` estimates *minus* the joint entropy: as I(c;s) = H(c) + H(s) - H(c,s), lowering J while the
uniformity terms hold H(c) and H(s) up lowers what the codes share, without a bound on the mutual information.

Paper versus code. The formulas follow the authors' released code; the text of the paper was not at hand. (1) The
salient uniformity runs over all pairs of pinned codes. Pairs of two background samples are the constant 1 in it, which
keeps the logarithm from minus infinity and weakens the repulsion the more background there is. (2) U leaves out the
diagonal, J keeps it. (3) The salient code is not normalized. (4) A batch without targets or without background
samples has no mean over them (NaN in the release); that term is 0 here. (5) Raising H(c,s) does not by itself force
I(c;s) = 0. (6) The kernel weights of the supervised extension are not normalized.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.similarity import normalize

__all__ = [
    "Factors",
    "SepCLR",
    "SepCLRTerms",
    "attribute_alignment",
    "draw_factors",
    "gaussian_alignment",
    "gaussian_uniformity",
    "joint_concentration",
    "overlay",
    "pin",
    "sepclr",
    "sepclr_terms",
    "training_step",
]


class SepCLRTerms(NamedTuple):
    """The four terms, each before its weight.

    Attributes:
        common: scalar, alignment and uniformity of the common code.
        salient: scalar, alignment of the targets' salient codes and uniformity of the pinned ones.
        infoless: scalar, size of the background's salient codes.
        joint: scalar, `joint_concentration` of both codes.
    """

    common: Tensor
    salient: Tensor
    infoless: Tensor
    joint: Tensor


def gaussian_alignment(x: Tensor, y: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Mean of :math:`\lVert x_i - y_i\rVert^2/2\tau` over the rows of two ``(n, d)`` tensors.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, empty, NaN, temperature not positive.
    """
    check_embeddings(x=x, y=y)
    check_same_shape(x=x, y=y)
    check_positive(temperature=temperature)
    return (x - y).square().sum(1).mean() / (2 * temperature)


def gaussian_uniformity(x: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Logarithm of the mean Gaussian kernel :math:`e^{-\lVert x_i-x_j\rVert^2/2\tau}` of the pairs i < j.

    Args:
        x: ``(n, d)``, used as it is.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at most 0; 0 if all rows are equal.

    Raises:
        TypeError: not floating.
        ValueError: fewer than two rows, NaN, temperature not positive.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity (2020),
        with :math:`t = 1/2\tau`.
    """
    check_embeddings(x=x)
    check_positive(temperature=temperature)
    check_batch(len(x), 2, name="x", why="to have a pair")
    i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
    exponents = -(x[i] - x[j]).square().sum(1) / (2 * temperature)  # (n(n-1)/2,)
    return exponents.logsumexp(0) - math.log(len(exponents))


def joint_concentration(c: Tensor, s: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Kernel estimate of minus the joint entropy of two codes, :math:`J(c, s)`; the objective lowers it (k-JEM).

    Args:
        c: ``(n, d)``, used as it is.
        s: ``(n, e)``, used as it is.
        temperature: :math:`\tau > 0` of both kernels.

    Returns:
        Scalar in [-log n, 0]: 0 if all rows coincide in both codes, -log n if all are far apart in one of them.

    Raises:
        TypeError: not floating tensors.
        ValueError: different numbers of rows, NaN, temperature not positive.

    Source: Louiset et al. (2024), released ``losses.py``.
    """
    check_embeddings(c=c, s=s)
    check_same_length(c=c, s=s)
    check_positive(temperature=temperature)
    distances = _squared_distances(c) + _squared_distances(s)  # (n, n)
    return ((-distances / (2 * temperature)).logsumexp(1) - math.log(len(c))).mean()


def pin(s: Tensor, labels: Tensor) -> Tensor:
    """The salient code of a target as it is, that of a background sample replaced by the constant 0.

    Args:
        s: ``(n, e)`` salient codes.
        labels: ``(n,)`` integers, 1 for a target, 0 for background.

    Returns:
        ``(n, e)``; the gradient reaches targets only.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a label other than 0 and 1.
    """
    check_embeddings(s=s)
    check_labels(labels, len(s), num_classes=2)
    return s.masked_fill((labels == 0)[:, None], 0.0)


def sepclr_terms(
    c1: Tensor, c2: Tensor, s1: Tensor, s2: Tensor, labels: Tensor, temperature: float = 0.5
) -> SepCLRTerms:
    """The four terms of the objective; arguments and errors as in `sepclr`."""
    check_embeddings(c1=c1, c2=c2, s1=s1, s2=s2)
    check_same_shape(c1=c1, c2=c2)
    check_same_shape(s1=s1, s2=s2)
    check_same_length(c1=c1, s1=s1)
    check_batch(len(c1), 2, name="c1", why="to have a pair")
    c1, c2 = normalize(c1), normalize(c2)
    t1, t2 = pin(s1, labels), pin(s2, labels)
    target, background = labels == 1, labels == 0
    zero = s1.new_zeros(())  # what a mean over nobody counts

    common = gaussian_alignment(c1, c2, temperature)
    common = common + gaussian_uniformity(c1, temperature) + gaussian_uniformity(c2, temperature)
    salient = gaussian_alignment(s1[target], s2[target], temperature) if target.any() else zero
    salient = salient + gaussian_uniformity(t1, temperature) + gaussian_uniformity(t2, temperature)
    sizes = torch.stack([s1, s2])[:, background].square().sum(2) / (2 * temperature)  # (2, |B|)
    infoless = sizes.mean() if background.any() else zero
    joint = (joint_concentration(c1, t1, temperature) + joint_concentration(c2, t2, temperature)) / 2
    return SepCLRTerms(common, salient, infoless, joint)


def sepclr(
    c1: Tensor,
    c2: Tensor,
    s1: Tensor,
    s2: Tensor,
    labels: Tensor,
    temperature: float = 0.5,
    *,
    salient_weight: float = 1.0,
    infoless_weight: float = 10.0,
    joint_weight: float = 10.0,
) -> Tensor:
    r"""SepCLR: two codes, one for what all samples share and one for what only targets show.

    Args:
        c1: ``(N, d)`` common codes of the first views, any scale (normalized here).
        c2: the same of the second views.
        s1: ``(N, e)`` salient codes of the first views, not normalized.
        s2: the same of the second views.
        labels: ``(N,)`` integers, 1 for a target, 0 for background.
        temperature: :math:`\tau > 0`.
        salient_weight: :math:`\beta_S`; the released runs use 1 on chest X-rays and 1000 on natural images.
        infoless_weight: :math:`\beta_{reg}`; 10 on chest X-rays, 1000 on natural images.
        joint_weight: :math:`\lambda`.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, fewer than two samples, NaN, a label other than 0 and 1, a value out of range.

    Source: Louiset et al. (2024), released training scripts.
    """
    weights = {"salient_weight": salient_weight, "infoless_weight": infoless_weight, "joint_weight": joint_weight}
    check_in_range(0, math.inf, **weights)
    terms = sepclr_terms(c1, c2, s1, s2, labels, temperature)
    weighted = salient_weight * terms.salient + infoless_weight * terms.infoless + joint_weight * terms.joint
    return terms.common + weighted


def attribute_alignment(s: Tensor, attribute: Tensor, temperature: float = 0.025) -> Tensor:
    r"""Supervised extension: samples with nearly the same attribute get nearly the same salient coordinate.

    .. math:: \frac{2}{n(n-1)}\sum_{i<j} e^{-(a_i-a_j)^2/2\tau_a}\,(s_i-s_j)^2

    Args:
        s: ``(n,)`` one coordinate of the targets' salient codes.
        attribute: ``(n,)`` the known attribute that it should follow.
        temperature: :math:`\tau_a > 0`.

    Returns:
        Scalar, at least 0.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, fewer than two samples, NaN, temperature not positive.
    """
    check_embeddings(ndim=1, s=s, attribute=attribute)
    check_same_shape(s=s, attribute=attribute)
    check_positive(temperature=temperature)
    check_batch(len(s), 2, name="s", why="to have a pair")
    i, j = torch.triu_indices(len(s), len(s), 1, device=s.device)
    kernel = (-(attribute[i] - attribute[j]).square() / (2 * temperature)).exp()
    return (kernel * (s[i] - s[j]).square()).mean()


class Factors(NamedTuple):
    """A contrastive analysis whose factors are known.

    Attributes:
        x: ``(n, d)`` samples.
        labels: ``(n,)`` 1 for a target.
        common: ``(n, common_dim)`` factors of all samples.
        salient: ``(n, salient_dim)`` factors that only targets show.
    """

    x: Tensor
    labels: Tensor
    common: Tensor
    salient: Tensor


def draw_factors(
    n: int, d: int = 20, common_dim: int = 3, salient_dim: int = 2, *, generator: torch.Generator | None = None
) -> Factors:
    """Draw x = A c + y B s with Gaussian factors and random A and B; y is 1 for half of the samples.

    Two calls with one seed and equal sizes share everything; split one draw to get training and test data.
    """
    check_positive(n=n, d=d, common_dim=common_dim, salient_dim=salient_dim)
    a, b = (torch.randn(k, d, generator=generator) for k in (common_dim, salient_dim))
    common, salient = (torch.randn(n, k, generator=generator) for k in (common_dim, salient_dim))
    labels = torch.arange(n) % 2
    return Factors(common @ a + labels[:, None] * (salient @ b), labels, common, salient)


def overlay(images: Tensor, patterns: Tensor, labels: Tensor) -> Tensor:
    """Images in which only targets carry a pattern: half the image, plus half the pattern where the label is 1.

    Args:
        images: ``(n, c, h, w)`` the common part.
        patterns: ``(n, c, h, w)`` the salient part, digits for instance.
        labels: ``(n,)`` 1 for a target, 0 for background.
    """
    check_embeddings(ndim=4, images=images, patterns=patterns)
    check_same_shape(images=images, patterns=patterns)
    check_labels(labels, len(images), num_classes=2)
    return 0.5 * images + 0.5 * patterns * labels[:, None, None, None]


class SepCLR(nn.Module):
    """Two separate encoders with their projectors; the representations are the encoders' outputs."""

    def __init__(
        self,
        common: nn.Module,
        salient: nn.Module,
        common_projector: nn.Module | None = None,
        salient_projector: nn.Module | None = None,
    ) -> None:
        """Take encoders ``(n, ...)`` to features and projectors of features to codes (None is the identity)."""
        super().__init__()
        self.common, self.salient = common, salient
        self.common_projector = nn.Identity() if common_projector is None else common_projector
        self.salient_projector = nn.Identity() if salient_projector is None else salient_projector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Common and salient code of a batch, neither normalized."""
        return self.common_projector(self.common(x)), self.salient_projector(self.salient(x))


def training_step(
    model: SepCLR, optimizer: torch.optim.Optimizer, view1: Tensor, view2: Tensor, labels: Tensor, **weights: float
) -> float:
    """One step on all parameters together; no queue, teacher or schedule. ``weights`` go to `sepclr`."""
    (c1, s1), (c2, s2) = model(view1), model(view2)
    loss = sepclr(c1, c2, s1, s2, labels, **weights)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _squared_distances(x: Tensor) -> Tensor:
    """``(n, n)``; by differences, whose gradient at distance 0 is 0 and not NaN."""
    return (x[:, None] - x[None]).square().sum(2)
