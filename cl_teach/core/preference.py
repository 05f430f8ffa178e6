r"""The loss of a preference pair, as a function of one number: how far the preferred response is ahead."""

from __future__ import annotations

from torch import Tensor, nn

from .checks import check_choice, check_positive

__all__ = ["preference_loss"]


def preference_loss(gap: Tensor, reference_gap: Tensor | float, beta: float = 0.1, *, kind: str = "dpo") -> Tensor:
    r"""Loss of each pair, a convex function of the gap alone.

    Args:
        gap: ``(...)`` log-probability of the preferred response minus that of the other.
        reference_gap: the same for the frozen reference.
        beta: greater than 0.
        kind: ``"dpo"``: :math:`-\ln\sigma(\beta(g-g_{ref}))`; ``"ipo"``: :math:`(g-g_{ref}-1/(2\beta))^2`.

    Returns:
        ``(...)``.

    Raises:
        ValueError: beta not positive, another kind.
    """
    check_positive(beta=beta)
    check_choice(("dpo", "ipo"), kind=kind)
    margin = gap - reference_gap
    return -nn.functional.logsigmoid(beta * margin) if kind == "dpo" else (margin - 1 / (2 * beta)).square()
