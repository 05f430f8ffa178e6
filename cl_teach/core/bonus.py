r"""How little is known, measured in features: large where a vector points away from all that were seen.

.. math:: \sqrt{f^\top\Sigma^{-1}f}, \qquad \Sigma = \lambda I + \sum_{\text{seen}} f f^\top .

With one-hot features this is one over the root of the number of visits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_count, check_in_range, check_labels, check_positive, check_shapes, check_type, finite_result
from .precision import full_precision

__all__ = ["RunningBonus", "check_indices", "exploration_bonus"]


@full_precision
def exploration_bonus(
    features: Tensor,
    visits: Sequence[Tensor] | Tensor,
    ridge: float = 0.1,
    scale: float = 1.0,
    cap: float | None = None,
) -> Tensor:
    r"""How little is known: large where the features point away from those that were visited.

    Args:
        features: ``(H, S, *A, d)``.
        visits: for each step ``(n, 1 + number of players)`` integers, states and actions; n may be 0.
        ridge: :math:`\lambda > 0`.
        scale: :math:`\gamma \ge 0`.
        cap: :math:`b_{max} > 0`; no limit if None.

    Returns:
        ``(H, S, *A)``.
    """
    shape = "h s a b d" if isinstance(features, Tensor) and features.ndim == 5 else "h s a d"
    check_shapes(features=(features, shape))
    check_positive(ridge=ridge)
    check_in_range(0, math.inf, scale=scale)
    if cap is not None:
        check_positive(cap=cap)
    if not isinstance(visits, Tensor | list | tuple):
        raise TypeError(f"visits: expected one tensor for each step, got {type(visits).__name__}")
    if len(visits) != len(features):
        raise ValueError(f"features, visits: expected one tensor for each of {len(features)} steps, got {len(visits)}")
    bonus = []
    for h, (f, visited) in enumerate(zip(features, visits, strict=True)):
        seen = f[check_indices(f"visits[{h}]", visited, f.shape[:-1]).unbind(1)]  # (n, d)
        covariance = seen.mT @ seen + ridge * torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
        bonus.append(scale * _length(f, covariance))
    found = torch.stack(bonus).clamp(max=math.inf if cap is None else cap)
    return finite_result(found, features=features, ridge=ridge, scale=scale)


class RunningBonus(nn.Module):
    """The bonus of Contrastive UCB's released agent: one covariance over all batches so far, the current one too.

    It is never reset.
    """

    covariance: Tensor

    def __init__(self, dim: int, ridge: float = 1e-5, factor: float = 1.0) -> None:
        """Start at ``ridge`` times the identity."""
        super().__init__()
        check_count(dim=dim)
        check_positive(ridge=ridge, factor=factor)
        self.factor = factor
        self.register_buffer("covariance", ridge * torch.eye(dim, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Take in a batch ``(n, dim)``, in training mode only, and return its bonus ``(n,)``.

        In float64, as the ridge is tiny.
        """
        check_shapes(features=(features, f"n {len(self.covariance)}"))
        f = features.double()
        covariance = self.covariance.double() + (f.mT @ f if self.training else 0.0)
        bonus = finite_result(self.factor * _length(f, covariance), features=features)
        if self.training:
            self.covariance.copy_(covariance)
        return bonus.to(features.dtype)


def check_indices(name: str, index: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of indices ``(n, k)`` into dimensions of these k sizes, as int64; n may be 0."""
    check_type(Tensor, **{name: index})
    if index.ndim != 2 or index.shape[1] != len(sizes):
        raise ValueError(f"{name}: expected {len(sizes)} numbers a row, got shape {tuple(index.shape)}")
    columns = [
        check_labels(column, name=f"{name}[..., {i}]", num_classes=size)
        for i, (column, size) in enumerate(zip(index.unbind(1), sizes, strict=True))
    ]
    return torch.stack(columns, 1)


def _length(f: Tensor, covariance: Tensor) -> Tensor:
    """Norm of vectors ``(..., d)`` in the metric of the inverse covariance."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise ValueError(
            f"features, ridge: the covariance of the features is not positive definite in {f.dtype}; raise the ridge"
        )
    solved = torch.linalg.solve_triangular(root, f.reshape(-1, f.shape[-1]).mT, upper=False)  # (d, n)
    return torch.linalg.vector_norm(solved, dim=0).view(f.shape[:-1])
