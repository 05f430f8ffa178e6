"""Classes as clouds of points: who lies outside, and how to draw more of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import check_count, check_generator, check_labels, check_shapes, finite_result
from .precision import full_precision

__all__ = ["covariance_roots", "draw_by_roots", "draw_gaussians", "local_outlier_factor"]

# Added to the mean reach in the outlier factor: duplicates would be infinitely dense.
_REACH = 1e-10


@torch.no_grad()
@full_precision
def local_outlier_factor(z: Tensor, n_neighbors: int = 20) -> Tensor:
    r"""How much sparser it is around a point than around its neighbors; close to 1 inside a cluster.

    .. math::
        r(a,b) = \max(d_\kappa(b), \lVert a-b\rVert),\quad lrd(a) = 1/\mathrm{mean}_b\,r(a,b),\quad
        LOF(a) = \mathrm{mean}_b\,lrd(b)/lrd(a), \qquad b \in N_\kappa(a) .

    Args:
        z: ``(n, m)`` points.
        n_neighbors: :math:`\kappa`, at most n - 1 are used; the point itself does not count.

    Returns:
        ``(n,)``; 1 for a single point.

    Source: Breunig, Kriegel, Ng and Sander, LOF: Identifying Density-Based Local Outliers (2000).
    """
    check_shapes(z=(z, "n m"))
    check_count(n_neighbors=n_neighbors)
    if len(z) == 1:
        return torch.ones(1, dtype=z.dtype, device=z.device)
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")  # exact zeros for duplicates
    distance = distance.fill_diagonal_(math.inf)
    near, neighbors = distance.topk(min(n_neighbors, len(z) - 1), largest=False)  # (n, k), increasing
    reach = torch.maximum(near, near[neighbors, -1])  # near[:, -1] is the distance to the k-th neighbor
    density = 1 / (reach.mean(1) + _REACH)
    return finite_result(density[neighbors].mean(1) / density, z=z)


@full_precision
def draw_gaussians(means: Tensor, covs: Tensor, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a point for every label from the Gaussian of its class.

    Args:
        means: ``(K, m)``.
        covs: ``(K, m, m)``, symmetric; they may be singular, and negative eigenvalues count as 0.
        labels: ``(n,)`` classes.
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(n, m)``.
    """
    check_shapes(means=(means, "k m"), covs=(covs, "k m m"))
    return finite_result(draw_by_roots(means, covariance_roots(covs), labels, generator=generator), covs=covs)


@full_precision
def covariance_roots(covs: Tensor) -> Tensor:
    """Of each covariance ``(K, m, m)`` an R with R R^T = covariance, by `draw_by_roots` a way to draw from it.

    Negative eigenvalues count as 0.
    """
    check_shapes(covs=(covs, "k m m"))
    values, vectors = torch.linalg.eigh(covs)
    return vectors * values.clamp_min(0).sqrt()[:, None, :]


@full_precision
def draw_by_roots(means: Tensor, roots: Tensor, labels: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """`draw_gaussians` where `covariance_roots` are known; who draws in every step takes them once."""
    check_shapes(means=(means, "k m"), roots=(roots, "k m m"))
    labels = check_labels(labels, num_classes=len(means))
    check_generator(generator)
    noise = torch.randn(len(labels), means.shape[1], generator=generator, dtype=torch.float64)
    drawn, noise = means[labels], noise.to(means)
    for k in labels.unique():
        rows = labels == k
        drawn[rows] += noise[rows] @ roots[k].mT
    return finite_result(drawn, means=means, roots=roots)
