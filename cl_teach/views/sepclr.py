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
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
    finite_result,
)
from ..core.contrast import check_temperature
from ..core.precision import full_precision
from ..core.similarity import normalize, self_mask
from ..models.apply import apply_network

__all__ = [
    "SepCLR",
    "SepCLRTerms",
    "attribute_alignment",
    "gaussian_alignment",
    "gaussian_uniformity",
    "joint_concentration",
    "pin_background",
    "sepclr",
]


class SepCLRTerms(NamedTuple):
    """The objective and its four terms, each before its weight.

    Attributes:
        loss: scalar, the weighted sum.
        common: scalar, alignment and uniformity of the common code.
        salient: scalar, alignment of the targets' salient codes and uniformity of the pinned ones.
        infoless: scalar, size of the background's salient codes.
        joint: scalar, `joint_concentration` of both codes.
    """

    loss: Tensor
    common: Tensor
    salient: Tensor
    infoless: Tensor
    joint: Tensor


@full_precision
def gaussian_alignment(x: Tensor, y: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Mean of :math:`\lVert x_i - y_i\rVert^2/2\tau` over the rows of two ``(n, d)`` tensors."""
    check_shapes(x=(x, "n d"), y=(y, "n d"))
    check_temperature(temperature)
    return finite_result((x - y).square().sum(1).mean() / (2 * temperature), x=x, y=y, temperature=temperature)


@full_precision
def gaussian_uniformity(x: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Logarithm of the mean Gaussian kernel :math:`e^{-\lVert x_i-x_j\rVert^2/2\tau}` of the pairs i < j.

    Args:
        x: ``(n, d)``, used as it is, at least two rows.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at most 0; 0 if all rows are equal.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity (2020),
    with :math:`t = 1/2\tau`.
    """
    check_shapes(x=(x, "n d"))
    check_temperature(temperature)
    check_batch(len(x), 2, name="x", why="to have a pair")
    n = len(x)
    exponents = finite_result(_squared_distances(x) / (2 * temperature), x=x, temperature=temperature)  # (n, n)
    pairs = (-exponents).masked_fill(self_mask(n, x.device), -math.inf)  # each twice
    return pairs.logsumexp((0, 1)) - math.log(n * (n - 1))


@full_precision
def joint_concentration(c: Tensor, s: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Kernel estimate of minus the joint entropy of two codes, :math:`J(c, s)`; the objective lowers it (k-JEM).

    Args:
        c: ``(n, d)``, used as it is.
        s: ``(n, e)``, used as it is.
        temperature: :math:`\tau > 0` of both kernels.

    Returns:
        Scalar in [-log n, 0]: 0 if all rows coincide in both codes, -log n if all are far apart in one of them.

    Source: Louiset et al. (2024), released ``losses.py``.
    """
    check_shapes(c=(c, "n d"), s=(s, "n e"))
    check_temperature(temperature)
    exponents = _squared_distances(torch.cat([c, s], 1)) / (2 * temperature)  # (n, n)
    finite_result(exponents, c=c, s=s, temperature=temperature)
    return ((-exponents).logsumexp(1) - math.log(len(c))).mean()


@full_precision
def pin_background(s: Tensor, labels: Tensor) -> Tensor:
    """The salient code of a target as it is, that of a background sample replaced by the constant 0.

    Args:
        s: ``(n, e)`` salient codes.
        labels: ``(n,)`` integers, 1 for a target, 0 for background.

    Returns:
        ``(n, e)``; the gradient reaches targets only.
    """
    check_shapes(s=(s, "n e"), labels=(labels, "n", int))
    labels = check_labels(labels, len(s), num_classes=2)
    return s.masked_fill((labels == 0)[:, None], 0.0)


@full_precision
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
) -> SepCLRTerms:
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
        `SepCLRTerms`.

    Source: Louiset et al. (2024), released training scripts.

    Example:
        >>> equal, labels = torch.ones(4, 3), torch.tensor([0, 0, 1, 1])
        >>> terms = sepclr(equal, equal, equal, equal, labels)  # collapsed: only the background's size is left
        >>> round(terms.common.item(), 3), round(terms.infoless.item(), 3)
        (0.0, 3.0)
    """
    check_shapes(c1=(c1, "n d"), c2=(c2, "n d"), s1=(s1, "n e"), s2=(s2, "n e"), labels=(labels, "n", int))
    labels = check_labels(labels, len(c1), num_classes=2)
    check_temperature(temperature)
    check_batch(len(c1), 2, name="c1", why="to have a pair")
    weights = {"salient_weight": salient_weight, "infoless_weight": infoless_weight, "joint_weight": joint_weight}
    check_in_range(0, math.inf, **weights)
    finite_result(4 * (s1.square().sum() + s2.square().sum()) / temperature, s1=s1, s2=s2, temperature=temperature)
    c1, c2 = normalize(c1), normalize(c2)
    t1, t2 = pin_background(s1, labels), pin_background(s2, labels)
    target, background = labels == 1, labels == 0
    zero = s1.new_zeros(())  # what a mean over nobody counts

    common = gaussian_alignment(c1, c2, temperature)
    common = common + gaussian_uniformity(c1, temperature) + gaussian_uniformity(c2, temperature)
    salient = gaussian_alignment(s1[target], s2[target], temperature) if target.any() else zero
    salient = salient + gaussian_uniformity(t1, temperature) + gaussian_uniformity(t2, temperature)
    sizes = torch.stack([s1, s2])[:, background].square().sum(2) / (2 * temperature)  # (2, |B|)
    infoless = sizes.mean() if background.any() else zero
    joint = (joint_concentration(c1, t1, temperature) + joint_concentration(c2, t2, temperature)) / 2
    loss = common + salient_weight * salient + infoless_weight * infoless + joint_weight * joint
    return SepCLRTerms(loss, common, salient, infoless, joint)


@full_precision
def attribute_alignment(s: Tensor, attribute: Tensor, temperature: float = 0.025) -> Tensor:
    r"""Supervised extension: samples with nearly the same attribute get nearly the same salient coordinate.

    .. math:: \frac{2}{n(n-1)}\sum_{i<j} e^{-(a_i-a_j)^2/2\tau_a}\,(s_i-s_j)^2

    Args:
        s: ``(n,)`` one coordinate of the targets' salient codes.
        attribute: ``(n,)`` the known attribute that it should follow.
        temperature: :math:`\tau_a > 0`.

    Returns:
        Scalar, at least 0.
    """
    check_shapes(s=(s, "n"), attribute=(attribute, "n"))
    check_temperature(temperature)
    check_batch(len(s), 2, name="s", why="to have a pair")
    i, j = torch.triu_indices(len(s), len(s), 1, device=s.device)
    near = torch.exp(-(attribute[i] - attribute[j]).square() / (2 * temperature))
    return (near * finite_result((s[i] - s[j]).square(), s=s)).mean()


class SepCLR(nn.Module):
    """Two separate encoders with their projectors; the representations are the encoders' outputs."""

    def __init__(
        self,
        common: nn.Module,
        salient: nn.Module,
        common_projector: nn.Module | None = None,
        salient_projector: nn.Module | None = None,
        *,
        temperature: float = 0.5,
        salient_weight: float = 1.0,
        infoless_weight: float = 10.0,
        joint_weight: float = 10.0,
    ) -> None:
        """Take encoders ``(n, ...)`` to features and projectors of features to codes; the rest as in `sepclr`.

        Args:
            common: encoder.
            salient: encoder.
            common_projector: None is the identity.
            salient_projector: None is the identity.
            temperature: of all kernels.
            salient_weight: of the salient term.
            infoless_weight: of the background term.
            joint_weight: of the joint entropy.
        """
        super().__init__()
        common_projector = nn.Identity() if common_projector is None else common_projector
        salient_projector = nn.Identity() if salient_projector is None else salient_projector
        check_module(common=common, salient=salient)
        check_module(common_projector=common_projector, salient_projector=salient_projector)
        check_temperature(temperature)
        self.weights = {
            "salient_weight": salient_weight,
            "infoless_weight": infoless_weight,
            "joint_weight": joint_weight,
        }
        check_in_range(0, math.inf, **self.weights)
        self.common, self.salient, self.temperature = common, salient, temperature
        self.common_projector, self.salient_projector = common_projector, salient_projector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Common and salient features of a batch ``(n, ...)``, before the projectors: what is kept."""
        check_shapes(x=(x, "... k"))
        return apply_network(self.common, "n d", x=x), apply_network(self.salient, "n d", x=x)

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Common and salient code ``(n, d)`` and ``(n, e)`` of a batch ``(n, ...)``, neither normalized."""
        common, salient = self(x)
        return self.common_projector(common), self.salient_projector(salient)

    def loss(
        self, view1: Tensor, view2: Tensor, labels: Tensor, *, generator: torch.Generator | None = None
    ) -> SepCLRTerms:
        """Compare two views ``(N, ...)`` of samples with ``(N,)`` labels, 1 for a target; nothing is drawn."""
        check_shapes(view1=(view1, "... k"), view2=(view2, "... k"))
        check_generator(generator)
        check_same_length(view1=view1, view2=view2, labels=labels)
        labels = check_labels(labels, num_classes=2)
        (c1, s1), (c2, s2) = self.codes(view1), self.codes(view2)
        return sepclr(c1, c2, s1, s2, labels, self.temperature, **self.weights)


def _squared_distances(x: Tensor) -> Tensor:
    """``(n, n)`` by one product of rows that are centered first: no more digits are lost than their spread costs."""
    x = x - x.mean(0)
    squares = x.square().sum(1)
    return (squares[:, None] + squares - 2 * x @ x.mT).clamp_min(0)
