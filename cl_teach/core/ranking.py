"""The pairwise ranking loss of recommenders."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .checks import check_shapes, finite_result
from .precision import full_precision

__all__ = ["bpr"]


@full_precision
def bpr(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    r"""Bayesian personalized ranking: a met item should score above one that was not met.

    .. math:: -\frac1B\sum_i\log\sigma\big(\langle u_i, p_i\rangle - \langle u_i, n_i\rangle\big)

    Args:
        users: ``(B, d)``, as they are.
        positives: ``(B, d)`` items they met.
        negatives: ``(B, d)`` items they did not meet.

    Returns:
        Scalar; log 2 where positives and negatives coincide.


    Source:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback (2009), section 4.1.
    """
    check_shapes(users=(users, "b d"), positives=(positives, "b d"), negatives=(negatives, "b d"))
    loss = -F.logsigmoid((users * (positives - negatives)).sum(1)).mean()
    return finite_result(loss, users=users, positives=positives, negatives=negatives)
