"""Exercises of chapter 2.4, What the head throws away (the method `projection_head`)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import Case, Exercise


def layer_gram(W: Tensor, layer: int, depth: int) -> Tensor:
    r"""Gram matrix :math:`(W^\top W)^{l/L}` of the first l of L balanced layers.

    Args:
        W: ``(p, d)`` end-to-end map, of any rank.
        layer: l, from 1 to ``depth``.
        depth: L.

    Returns:
        ``(d, d)``.
    """
    _, size, right = torch.linalg.svd(W, full_matrices=False)
    return right.mT * size ** (2 * layer / depth) @ right


def threshold_end(
    w1: Tensor, w2: Tensor, strength: Tensor, disruption: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    r"""Where the flow of the diagonal network with a threshold ends, from positive starts.

    With the excess :math:`\omega = w_1 - b/\varphi` an active feature is a linear one: :math:`z = \varphi w_2\omega`,
    and :math:`k = w_2^2 - \omega^2` is conserved, so the end follows from :math:`z = \sqrt{1-\alpha}`.

    Args:
        w1: ``(n,)`` first weights at the start, positive.
        w2: ``(n,)`` second weights at the start, positive.
        strength: ``(n,)``, positive.
        disruption: ``(n,)`` in [0, 1].
        threshold: b, at least 0.

    Returns:
        ``(n,)`` each: the size below the threshold, :math:`w_1\varphi`, and that of the output.
    """
    excess = w1 - threshold / strength
    active = excess > 0
    k = w2.square() - excess.square()
    p = (1 - disruption) / strength.square()  # what excess^2 w2^2 has to become
    square = ((k.square() + 4 * p).sqrt() - k) / 2  # excess^2
    ended = threshold + strength * square.clamp_min(0).sqrt()
    pre = torch.where(active, ended, w1 * strength)
    return pre, torch.where(active, (1 - disruption).sqrt(), 0.0)


def _map(seed: int, rows: int, columns: int, rank: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if rank is not None:
        W = W[:, :rank] @ torch.randn(rank, columns, generator=generator, dtype=torch.float64)
    return W


def _features(seed: int, n: int, low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)


def _diagonal(seed: int, disruption: float | None = None, threshold: float = 0.3, scale: float = 1.0) -> tuple:
    n = 5
    alpha = _features(seed + 3, n, 0.0, 0.9) if disruption is None else torch.full((n,), disruption).double()
    w1 = scale * _features(seed, n, 0.7, 1.1)
    return w1, _features(seed + 1, n, 0.7, 1.1), _features(seed + 2, n, 0.8, 1.5), alpha, threshold


EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        prompt="Gram matrix of the first l of L balanced layers.",
        reference=layer_gram,
        cases=[
            Case(
                "the first of two layers, a square map",
                lambda seed: (_map(seed, 4, 4), 1, 2),
                "You need the square root of the matrix W^T W, not of its entries. Singular values and right "
                "singular vectors of W give it.",
            ),
            Case(
                "all layers: the map itself",
                lambda seed: (_map(seed, 4, 4), 3, 3),
                "At l = L the answer is W^T W, so a singular value s contributes s squared.",
            ),
            Case(
                "the second of three layers, more outputs than inputs",
                lambda seed: (_map(seed, 7, 4), 2, 3),
                "The Gram matrix lives in the input space: (d, d) for W of shape (p, d).",
            ),
            Case(
                "fewer outputs than inputs",
                lambda seed: (_map(seed, 2, 5), 1, 3),
                "Directions that W ignores must have weight zero, not one: is there a 0 to the power 0, or an "
                "identity that should not be there?",
            ),
            Case(
                "a map of rank one",
                lambda seed: (_map(seed, 4, 4, rank=1), 1, 4),
                "Eigenvalues of W^T W that should be 0 come out as tiny negative numbers; a power of them is NaN. "
                "Singular values of W cannot be negative.",
            ),
        ],
        atol=2e-3,  # the root of a rounding error: null directions of a rank-one map
    ),
    3: Exercise(
        prompt="Where a feature ends in the network with a threshold.",
        reference=threshold_end,
        cases=[
            Case(
                "active features, partly scrambled",
                lambda seed: _diagonal(seed),
                "Two equations: w2 * excess * strength = sqrt(1 - disruption), and w2^2 - excess^2 is conserved. "
                "They give a quadratic equation for excess^2.",
            ),
            Case(
                "no threshold: the linear network",
                lambda seed: _diagonal(seed, threshold=0.0),
                "At b = 0 the excess is w1 itself.",
            ),
            Case(
                "fully scrambled features",
                lambda seed: _diagonal(seed, disruption=1.0),
                "The output ends at 0. Either excess or w2 vanishes, depending on which was smaller; the other keeps "
                "what is conserved.",
            ),
            Case(
                "features that start below the threshold",
                lambda seed: _diagonal(seed, scale=0.1),
                "Their gradient is exactly zero: they stay as they are, and the output is 0.",
            ),
        ],
    ),
}

__all__ = ["EXERCISES", "layer_gram", "threshold_end"]
