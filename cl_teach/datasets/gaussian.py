r"""Two views of feature vectors whose second moments are known exactly.

.. math:: x = \sum_i u_i \varphi_i v_i + \xi, \qquad u_i = \pm 1, \quad \xi \sim N(0, \nu I),

with orthonormal features v_i of strength phi_i. The partner x+ keeps the signs, but each is drawn anew with
probability alpha_i (the *augmentation strength* of feature i), and it has noise of its own. Then

.. math:: M = E[x x^\top] = \sum_i (\varphi_i^2 + \nu) v_i v_i^\top, \qquad
          C = E[x x_+^\top] = \sum_i (1 - \alpha_i) \varphi_i^2 v_i v_i^\top,

and whatever a linear encoder should learn from such pairs can be worked out by hand and compared.

Source: this setting is studied by Xue, Gan, Ni, Joshi and Mirzasoleiman 2024 (arXiv 2403.11391); the moments above
are derived here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import (
    FLOATING,
    check_count,
    check_device,
    check_entries,
    check_flag,
    check_in_range,
    check_numbers,
    check_same_shape,
    check_shapes,
)

__all__ = ["GaussianViews", "gaussian_moments", "gaussian_views"]

LARGEST = 1e9  # of a strength: moments, its squares, stay numbers of float32


class GaussianViews(NamedTuple):
    """Pairs of views and what they were made from.

    Attributes:
        view1, view2: ``(n, d)`` the two views.
        signs1, signs2: ``(n, k)`` the signs u and u+ of the features, +1 or -1.
        features: ``(d, k)`` the orthonormal features v_i as columns.
    """

    view1: Tensor
    view2: Tensor
    signs1: Tensor
    signs2: Tensor
    features: Tensor


def gaussian_views(
    n: int,
    strengths: Tensor | list[float] | tuple[float, ...],
    augmentation: float | Tensor | list[float] | tuple[float, ...] = 0.1,
    noise: float = 0.0,
    *,
    seed: int = 0,
    dim: int | None = None,
    rotate: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> GaussianViews:
    """Draw n pairs of views.

    Args:
        n: number of pairs.
        strengths: ``(k,)`` phi, >= 0.
        augmentation: ``(k,)`` alpha in [0, 1], or one number for all features. At 1 the two views share
            nothing.
        noise: nu >= 0, the *variance* of the noise in every direction.
        seed: of all draws; the features do not depend on n.
        dim: width d of the views, at least k; k if None.
        rotate: features along random orthonormal directions instead of the first k axes.
        device: where the tensors go; they are drawn on the CPU, so that every device gets the same.
        dtype: of the result; drawn in float64.

    Returns:
        The views ``(n, d)``, the signs ``(n, k)`` and the features ``(d, k)``.

    """
    phi, alpha = _parameters(strengths, augmentation, noise)
    k = len(phi)
    d = k if dim is None else dim
    check_count(n=n)
    check_count(0, seed=seed)
    check_count(k, dim=d)  # one direction a feature at least
    check_flag(rotate=rotate)
    check_device(device)
    if dtype not in FLOATING:
        raise TypeError(f"dtype: expected a floating dtype, got {dtype}")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features = torch.linalg.qr(normal(d, k)).Q if rotate else torch.eye(d, k, dtype=torch.float64)  # (d, k)
    signs1 = (torch.randint(0, 2, (n, k), generator=generator) * 2 - 1).double()
    drawn_anew = torch.rand(n, k, generator=generator, dtype=torch.float64) < alpha
    fresh = (torch.randint(0, 2, (n, k), generator=generator) * 2 - 1).double()
    signs2 = torch.where(drawn_anew, fresh, signs1)

    def view(signs: Tensor) -> Tensor:
        return (signs * phi) @ features.T + math.sqrt(noise) * normal(n, d)  # (n, d)

    result = (view(signs1), view(signs2), signs1, signs2, features)
    return GaussianViews(*(x.to(device, dtype) for x in result))


def gaussian_moments(
    strengths: Tensor | list[float] | tuple[float, ...],
    augmentation: float | Tensor | list[float] | tuple[float, ...] = 0.1,
    noise: float = 0.0,
    features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Population second moments of `gaussian_views`.

    Args:
        strengths: ``(k,)`` phi, as in `gaussian_views`.
        augmentation: alpha, likewise.
        noise: nu, likewise.
        features: ``(d, k)``, for instance `GaussianViews.features`; the k axes if None.

    Returns:
        M = E[x x^T] and C = E[x x+^T], both ``(d, d)``, in the features' dtype (float64 if None).

    """
    phi, alpha = _parameters(strengths, augmentation, noise)
    v = torch.eye(len(phi), dtype=torch.float64) if features is None else features
    check_shapes(features=(v, f"d {len(phi)}"))
    check_entries(-LARGEST, LARGEST, features=v)
    v = v.to(torch.promote_types(v.dtype, torch.float32))
    phi, alpha = phi.to(v), alpha.to(v)
    moment = (v * phi**2) @ v.T + noise * torch.eye(len(v)).to(v)
    cross_moment = (v * ((1 - alpha) * phi**2)) @ v.T
    return moment, cross_moment


def _parameters(
    strengths: Tensor | list[float] | tuple[float, ...],
    augmentation: float | Tensor | list[float] | tuple[float, ...],
    noise: float,
) -> tuple[Tensor, Tensor]:
    phi = check_numbers("strengths", strengths)
    check_entries(0, LARGEST, strengths=phi)
    check_in_range(0, LARGEST, noise=noise)
    if isinstance(augmentation, list | tuple) or (isinstance(augmentation, Tensor) and augmentation.ndim > 0):
        alpha = check_numbers("augmentation", augmentation)
        check_same_shape(strengths=phi, augmentation=alpha)
        check_entries(0, 1, augmentation=alpha)
        return phi, alpha
    check_in_range(0, 1, augmentation=augmentation)
    return phi, torch.full_like(phi, float(augmentation))
