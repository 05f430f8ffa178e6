r"""The augmentation graph: what a contrastive loss can learn from some data under an augmentation, without training.

With natural points :math:`\bar x` of probability :math:`P(\bar x)` and the augmentation :math:`p(x|\bar x)`,

.. math::
    W_{xx'} = \sum_{\bar x}P(\bar x)\,p(x|\bar x)\,p(x'|\bar x), \qquad
    \mathcal L = I - D^{-1/2}WD^{-1/2}, \qquad
    \alpha = \Pr_{\bar x\sim P,\,x\sim p(\cdot|\bar x)}[\hat y(x)\ne y(\bar x)],

where D holds the row sums of W and :math:`\hat y(x)` is the weighted majority label of x.

Source: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral Contrastive Loss (2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .checks import check_count, check_entries, check_labels, check_positive, check_shapes
from .precision import full_precision

__all__ = [
    "gaussian_augmentation",
    "labeling_error",
    "laplacian_eigenvalues",
    "natural_weights",
    "real_weights",
    "total_variation",
]


def natural_weights(is_real: Tensor, copies: int = 1) -> Tensor:
    """The probabilities ``(n,)`` of natural points, float64: ``copies`` for a real one to 1 for a generated one."""
    check_shapes(is_real=(is_real, "n", bool))
    check_count(copies=copies)
    weights = torch.where(is_real, float(copies), 1.0).double()
    return weights / weights.sum()


def real_weights(is_real: Tensor) -> Tensor:
    """The real distribution as probabilities ``(n,)`` of the natural points, float64: uniform on the real ones."""
    check_shapes(is_real=(is_real, "n", bool))
    if not is_real.any():
        raise ValueError("is_real: expected at least one real point, got none")
    return is_real.double() / is_real.sum()


@full_precision
def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half the sum of absolute differences of two ``(n,)`` distributions; scalar in [0, 1]."""
    check_shapes(p=(p, "n"), q=(q, "n"))
    _check_distribution(p=p, q=q)
    return (p - q).abs().sum() / 2


@full_precision
def laplacian_eigenvalues(augmentation: Tensor, weights: Tensor) -> Tensor:
    r"""Eigenvalues of :math:`\mathcal L`, ascending, in [0, 1]; as many zeros as the graph has components.

    Args:
        augmentation: ``(n, m)``, row i is p(.|natural point i) over the m augmented nodes.
        weights: ``(n,)`` probabilities of the natural points.

    Returns:
        ``(m,)``; :math:`\lambda_{k+1}` has index k. A node that is never reached counts 1.

    Example:
        >>> separate = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])  # two images without a common view
        >>> laplacian_eigenvalues(separate, torch.tensor([0.5, 0.5])).abs().round(decimals=3).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    _check_graph(augmentation, weights)
    joint = weights.sqrt()[:, None] * augmentation  # (n, m), so that W = joint^T joint
    degree = weights @ augmentation  # (m,), since the rows sum to 1
    tiny = torch.finfo(degree.dtype).tiny
    scaled = joint * torch.where(degree > tiny, degree.clamp(min=tiny).rsqrt(), 0.0)
    return torch.linalg.eigvalsh(torch.eye(len(degree), dtype=degree.dtype, device=degree.device) - scaled.mT @ scaled)


@full_precision
def labeling_error(augmentation: Tensor, weights: Tensor, labels: Tensor) -> Tensor:
    r"""The probability :math:`\alpha` that an augmented point has another majority label than its natural point.

    Args:
        augmentation: ``(n, m)``, see `laplacian_eigenvalues`.
        weights: ``(n,)``.
        labels: ``(n,)`` integer classes of the natural points.
    """
    _check_graph(augmentation, weights)
    _, labels = check_labels(labels, len(augmentation)).unique(return_inverse=True)
    classes = nn.functional.one_hot(labels).to(weights.dtype)  # (n, classes)
    mass = (weights[:, None] * augmentation).mT @ classes  # (m, classes)
    return (mass.sum(1) - mass.amax(1)).sum()


@full_precision
def gaussian_augmentation(points: Tensor, nodes: Tensor, width: float) -> Tensor:
    """``(n, m)`` Gaussian of ``width`` around each of ``(n,)`` points on ``(m,)`` nodes, rows summing to 1."""
    check_shapes(points=(points, "n"), nodes=(nodes, "m"))
    check_positive(width=width)
    distance = (points[:, None] - nodes).abs() / width  # (n, m)
    nearest = distance.amin(1, keepdim=True)
    # Squares relative to the nearest node's, as a product: a narrow Gaussian keeps that node instead of overflowing.
    exponent = torch.where(distance > nearest, (distance - nearest) * (distance + nearest), 0.0)
    return (-exponent / 2).softmax(1)


def _check_distribution(**vectors: Tensor) -> None:
    """Probabilities along the last dimension."""
    for name, x in vectors.items():
        check_entries(0, 1 + 1e-6, open_low=False, **{name: x})
        worst = float((x.sum(-1) - 1).abs().max())
        if worst > 1e-5:
            raise ValueError(f"{name}: expected probabilities that sum to 1, got a sum that is off by {worst:.2g}")


def _check_graph(augmentation: Tensor, weights: Tensor) -> None:
    check_shapes(augmentation=(augmentation, "n m"), weights=(weights, "n"))
    _check_distribution(augmentation=augmentation, weights=weights)
