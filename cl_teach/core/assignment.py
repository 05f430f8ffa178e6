"""Soft assignments that share a batch out evenly: Sinkhorn-Knopp."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_count, check_positive, check_shapes
from .precision import full_precision

__all__ = ["sinkhorn"]


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Soft codes that spread a batch evenly over the prototypes.

    Sinkhorn-Knopp on :math:`e^{S/\varepsilon}`: scale every prototype's total to 1/K, then every sample's to 1/B, and
    repeat; at the end each sample's code is scaled to sum to one.

    Args:
        scores: ``(B, K)`` similarities of samples and prototypes.
        epsilon: weight of the entropy; small values give nearly hard codes, large ones 1/K.
        iterations: at least 1.

    Returns:
        ``(B, K)`` codes; rows sum to one, columns to B/K in the limit of many iterations.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (2020), section
    3.1 and the released code.
    """
    check_shapes(scores=(scores, "b k"))
    check_positive(epsilon=epsilon)
    check_count(iterations=iterations)
    log_q = scores / epsilon
    for _ in range(iterations):  # totals of 1, not of 1/K and 1/B: the next step takes such a factor away again
        log_q = log_q.log_softmax(0).log_softmax(1)
    return log_q.exp()
