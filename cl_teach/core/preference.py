r"""The loss of a preference pair, as a function of one number: how far the preferred response is ahead."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .checks import check_choice, check_embeddings, check_in_range, check_positive, check_same_shape, finite_result
from .precision import full_precision

__all__ = ["preference_loss"]


@full_precision
def preference_loss(gap: Tensor, reference_gap: Tensor | float, beta: float = 0.1, *, kind: str = "dpo") -> Tensor:
    r"""Loss of each pair, a convex function of the gap alone.

    Args:
        gap: ``(...)`` log-probability of the preferred response minus that of the other.
        reference_gap: the same for the frozen reference.
        beta: greater than 0.
        kind: ``"dpo"``: :math:`-\ln\sigma(\beta(g-g_{ref}))`; ``"ipo"``: :math:`(g-g_{ref}-1/(2\beta))^2`.

    Returns:
        ``(...)``.

    """
    check_embeddings(ndim=gap.ndim if isinstance(gap, Tensor) else 1, gap=gap)
    if isinstance(reference_gap, Tensor) and reference_gap.ndim > 0:
        check_same_shape(gap=gap, reference_gap=reference_gap)
        check_embeddings(ndim=gap.ndim, reference_gap=reference_gap)
    else:
        check_in_range(-math.inf, math.inf, reference_gap=reference_gap)
    check_positive(beta=beta)
    check_choice(("dpo", "ipo"), kind=kind)
    margin = gap - reference_gap
    loss = -nn.functional.logsigmoid(beta * margin) if kind == "dpo" else (margin - 1 / (2 * beta)).square()
    return finite_result(loss, gap=gap, reference_gap=reference_gap, beta=beta)
