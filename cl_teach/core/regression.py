"""The loss without negatives: predict the other view's embedding."""

from __future__ import annotations

from torch import Tensor

from .checks import check_shapes
from .contrast import reduce
from .precision import full_precision
from .similarity import normalize

__all__ = ["regression_loss"]


@full_precision
def regression_loss(prediction: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    r"""Squared distance between the directions of prediction and target, with no gradient to the target.

    .. math::
        \ell_i = \lVert \hat p_i - \mathrm{sg}[\hat t_i]\rVert^2 = 2 - 2\cos(p_i, t_i) \in [0, 4]

    BYOL uses it as it stands; SimSiam's negative cosine is half of it minus one, so both have the same gradient up to a
    factor of two. Nothing here pushes embeddings apart: what keeps them from collapsing is the stop-gradient together
    with the predictor.

    Args:
        prediction: ``(n, d)`` output of the predictor, any scale.
        target: ``(n, d)`` embedding of the other view; detached here.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the n rows.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.


    Source:
        Grill et al., Bootstrap Your Own Latent (2020), equation 2; Chen and He, Exploring Simple Siamese Representation
        Learning (2021), equation 1.
    """
    check_shapes(prediction=(prediction, "n d"), target=(target, "n d"))
    cosine = (normalize(prediction) * normalize(target.detach())).sum(1)  # (n,)
    return reduce(2 - 2 * cosine, reduction)
