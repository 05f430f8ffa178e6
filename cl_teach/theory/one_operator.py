r"""One operator behind spectral contrast, InfoNCE, Barlow Twins and VICReg: what positive pairs say about functions.

Pairs of views are drawn from :math:`p_+(x, x_+)`, with equal marginals :math:`p`. The *positive-pair kernel* is

.. math:: K_+(x, x') = \frac{p_+(x, x')}{p(x)\,p(x')} = \sum_l \rho_l\, e_l(x)\, e_l(x'),

with orthonormal functions :math:`e_l` under :math:`p`, and :math:`\rho_l` the correlation of :math:`e_l` between two
views. For finitely many views that is an eigenvalue problem of a matrix (`eigenfunctions`); for linear functions of
vectors it is canonical correlation analysis (`canonical_directions`). The losses of linear encoders see the data
through two matrices alone, the covariance of the embedding and its covariance between views, and are written so here
(`barlow_twins`, `vicreg`, `whitened_invariance`); `batch_moments` estimates the two from a batch.

Sources: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss (2021);
Johnson, El Hanchi and Maddison, Contrastive Learning Can Find An Optimal Basis For Approximately View-Invariant
Functions (arXiv 2210.01883); Balestriero and LeCun, Contrastive and Non-Contrastive Self-Supervised Learning Recover
Global and Local Spectral Embedding Methods (2022). What is stated in the chapter is derived there.

Paper versus code:
    1. Barlow Twins and VICReg standardize or measure the two views apart. Here both views have one distribution, so
       their moments are pooled.
    2. VICReg's official code adds 1e-4 to a variance before its square root; here the variance must be positive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_batch, check_entries, check_in_range, check_shapes, check_square, finite_result
from ..core.precision import full_precision

__all__ = [
    "Basis",
    "Moments",
    "barlow_twins",
    "batch_moments",
    "canonical_directions",
    "eigenfunctions",
    "largest_angle",
    "positive_pair_kernel",
    "probe_residual",
    "vicreg",
    "whitened_invariance",
]


class Basis(NamedTuple):
    """Functions ordered by how well a view predicts them in the other view.

    Attributes:
        correlations: ``(m,)`` in falling order, at most 1.
        functions: ``(n, m)``, one a column: values on the n views, or weights of n inputs.
    """

    correlations: Tensor
    functions: Tensor


class Moments(NamedTuple):
    """All that the losses here see of an embedding.

    Attributes:
        gram: ``(r, r)`` covariance of an embedding, both views pooled.
        cross: ``(r, r)`` covariance between the embeddings of two views, made symmetric.
    """

    gram: Tensor
    cross: Tensor


@full_precision
def positive_pair_kernel(joint: Tensor) -> Tensor:
    r""":math:`K_+ = p_+ / (p\,p)`: how much more often two views are a pair than they would be by chance.

    Args:
        joint: ``(n, n)`` probabilities of pairs, symmetric, summing to 1, every view with a positive probability.

    Returns:
        ``(n, n)``.
    """
    p = _marginal(joint)
    return joint / (p[:, None] * p)


@full_precision
def eigenfunctions(joint: Tensor) -> Basis:
    r"""All :math:`\rho_l` and :math:`e_l` of finitely many views; :math:`\sum_x p(x)\,e_l(x)\,e_m(x) = \delta_{lm}`.

    Args:
        joint: ``(n, n)``, as in `positive_pair_kernel`.

    Returns:
        Correlations ``(n,)``, the first one 1, and functions ``(n, n)``.

    Example:
        >>> joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]])  # two views, 20 % of the pairs are mixed
        >>> correlations, functions = eigenfunctions(joint)
        >>> [round(x, 3) for x in correlations.tolist()]
        [1.0, 0.6]
    """
    root = _marginal(joint).sqrt()
    values, vectors = torch.linalg.eigh(joint / (root[:, None] * root))
    return Basis(values.flip(0), vectors.flip(1) / root[:, None])


@full_precision
def probe_residual(features: Tensor, target: Tensor, p: Tensor) -> Tensor:
    r"""Share of the target's second moment that no linear map of the features explains.

    Args:
        features: ``(n, r)`` on n views, of any rank.
        target: ``(n,)``, not all zero.
        p: ``(n,)`` probabilities of the views, positive.

    Returns:
        Scalar in [0, 1].
    """
    check_shapes(features=(features, "n r"), target=(target, "n"), p=(p, "n"))
    check_entries(0.0, 1.0, open_low=True, p=p)
    features, target = features.detach(), target.detach()  # a rank has no gradient
    root = p.detach().sqrt()
    y = target * root
    if not y.any():
        raise ValueError("target: expected a function that is not zero everywhere")
    y = y / y.norm()
    x = features * root[:, None]
    left, size, _ = torch.linalg.svd(x / x.abs().amax().clamp_min(torch.finfo(x.dtype).tiny), full_matrices=False)
    left = left[:, size > size.max() * len(x) * torch.finfo(x.dtype).eps]
    return (y - left @ (left.mT @ y)).square().sum().clamp(max=1)


@full_precision
def canonical_directions(M: Tensor, C: Tensor) -> Basis:
    r"""The same for linear functions :math:`v^\top x`: :math:`C v = \rho\,M v` with :math:`v^\top M v = 1`.

    Args:
        M: ``(d, d)`` covariance of a view, positive definite.
        C: ``(d, d)`` covariance between two views, symmetric.

    Returns:
        Correlations ``(d,)`` and directions ``(d, d)``, one a column.
    """
    check_shapes(M=(M, "d d"), C=(C, "d d"))
    factor = _cholesky("M", M)
    half = torch.linalg.solve_triangular(factor, C, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    values, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    directions = torch.linalg.solve_triangular(factor.mT, vectors.flip(1), upper=True)
    return Basis(finite_result(values.flip(0), M=M, C=C), finite_result(directions, M=M, C=C))


@full_precision
def largest_angle(W: Tensor, directions: Tensor, M: Tensor) -> Tensor:
    r"""Largest principal angle, in degrees, between two sets of linear functions of x.

    The angle of two functions is that of their correlation, so it does not depend on the units of x.

    Args:
        W: ``(r, d)`` encoder, one function a row; its rank must be r in the precision of the data type.
        directions: ``(d, r)``, one function a column.
        M: ``(d, d)`` covariance of x, positive definite.

    Returns:
        Scalar from 0 (the same span) to 90.
    """
    check_shapes(W=(W, "r d"), directions=(directions, "d r"), M=(M, "d d"))
    factor = _cholesky("M", M.detach())
    spans = {"W": factor.mT @ W.detach().mT, "directions": factor.mT @ directions.detach()}
    for name, span in spans.items():
        if torch.linalg.matrix_rank(span) < span.shape[1]:
            raise ValueError(f"{name}: expected {span.shape[1]} linearly independent functions")
    a, b = (torch.linalg.qr(span)[0] for span in spans.values())
    outside = b - a @ (a.mT @ b)  # its largest singular value is the sine: exact where the cosine is blind, near 0
    return torch.rad2deg(torch.linalg.matrix_norm(outside, ord=2).clamp(max=1).asin())


@full_precision
def batch_moments(z1: Tensor, z2: Tensor) -> Moments:
    """Covariance of an embedding and covariance between the views, from a batch.

    Args:
        z1: ``(N, r)`` embeddings of the first views.
        z2: ``(N, r)`` embeddings of the second views.
    """
    check_shapes(z1=(z1, "N r"), z2=(z2, "N r"))
    check_batch(len(z1), 2, name="z1, z2", why="to have a covariance")
    z1, z2 = z1 - z1.mean(0), z2 - z2.mean(0)
    cross = z1.mT @ z2 / len(z1)
    gram = (z1.mT @ z1 + z2.mT @ z2) / (2 * len(z1))
    return Moments(finite_result(gram, z1=z1, z2=z2), finite_result((cross + cross.mT) / 2, z1=z1, z2=z2))


@full_precision
def barlow_twins(gram: Tensor, cross: Tensor, off_diagonal: float = 0.0051) -> Tensor:
    r"""Barlow Twins: the correlations between the views of coordinates i and j should be those of the identity.

    .. math:: \sum_i (1 - R_{ii})^2 + \omega \sum_{i\ne j} R_{ij}^2, \qquad R = D^{-1/2}\,\mathrm{cross}\,D^{-1/2},
        \quad D = \mathrm{diag}(\mathrm{gram})

    Args:
        gram: ``(r, r)`` covariance of the embedding, with a positive diagonal.
        cross: ``(r, r)`` covariance between views.
        off_diagonal: weight :math:`\omega`, at least 0.

    Returns:
        Scalar.

    Source: Zbontar et al., Barlow Twins (2021).
    """
    check_shapes(gram=(gram, "r r"), cross=(cross, "r r"))
    check_in_range(0, float("inf"), off_diagonal=off_diagonal)
    deviation = _deviations(gram)
    R = cross / (deviation[:, None] * deviation)
    on = R.diagonal()
    return finite_result((1 - on).square().sum() + off_diagonal * _off_diagonal(R), gram=gram, cross=cross)


@full_precision
def vicreg(
    gram: Tensor, cross: Tensor, *, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    r"""VICReg: views close, every coordinate with a standard deviation of at least 1, coordinates uncorrelated.

    With :math:`S` the covariance and :math:`\bar C` the one between views, :math:`E\lVert z-z_+\rVert^2 =
    2\,\mathrm{Tr}(S-\bar C)`, so the loss is

    .. math:: \frac1r\Big[2\lambda\,\mathrm{Tr}(S-\bar C) + \mu\sum_i \max(0, 1-\sqrt{S_{ii}})
        + 2\nu\sum_{i\ne j}S_{ij}^2\Big].

    The official code takes the mean of the two views' hinges and the sum of their covariance terms; so do we.

    Args:
        gram: ``(r, r)`` covariance of the embedding, with a positive diagonal.
        cross: ``(r, r)`` covariance between views.
        invariance: at least 0.
        variance: at least 0.
        covariance: at least 0.

    Returns:
        Scalar.

    Source: Bardes, Ponce and LeCun, VICReg (2022).
    """
    check_shapes(gram=(gram, "r r"), cross=(cross, "r r"))
    check_in_range(0, float("inf"), invariance=invariance, variance=variance, covariance=covariance)
    apart = 2 * (gram - cross).diagonal().sum()
    thin = (1 - _deviations(gram)).clamp_min(0).sum()
    loss = (invariance * apart + variance * thin + 2 * covariance * _off_diagonal(gram)) / len(gram)
    return finite_result(loss, gram=gram, cross=cross)


@full_precision
def whitened_invariance(gram: Tensor, cross: Tensor, invariance: float = 1.0) -> Tensor:
    r"""VICReg with squares instead of hinges: :math:`\lVert S-\mathbf I\rVert^2 + \mu\,E\lVert z-z_+\rVert^2`.

    At :math:`\mu=1` it is the spectral contrastive loss plus the constant r.

    Args:
        gram: ``(r, r)`` covariance of the embedding.
        cross: ``(r, r)`` covariance between views.
        invariance: :math:`\mu`, at least 0.

    Returns:
        Scalar.
    """
    check_shapes(gram=(gram, "r r"), cross=(cross, "r r"))
    check_in_range(0, float("inf"), invariance=invariance)
    white = gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    loss = white.square().sum() + 2 * invariance * (gram - cross).diagonal().sum()
    return finite_result(loss, gram=gram, cross=cross)


def _marginal(joint: Tensor) -> Tensor:
    """Probabilities of the views, of a checked table of pairs."""
    check_square(joint=joint)
    check_entries(0.0, 1.0, joint=joint)
    if not torch.allclose(joint, joint.mT, atol=1e-6):
        raise ValueError("joint: expected a symmetric table, the two views being drawn alike")
    if abs(float(joint.sum()) - 1) > 1e-4:
        raise ValueError(f"joint: expected probabilities that sum to 1, got {float(joint.sum()):g}")
    p = joint.sum(1)
    check_entries(0.0, 1.0001, open_low=True, **{"joint (its row sums)": p})
    return p


def _cholesky(name: str, matrix: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed) or not torch.allclose(matrix, matrix.mT, rtol=1e-4):
        raise ValueError(f"{name}: expected a symmetric, positive definite matrix")
    return factor


def _deviations(gram: Tensor) -> Tensor:
    variances = gram.diagonal()
    check_entries(0.0, float("inf"), open_low=True, **{"gram (its diagonal)": variances})
    return variances.sqrt()


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix.square().sum() - matrix.diagonal().square().sum()
