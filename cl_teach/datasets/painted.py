"""Pictures that are put together: painted in the color of their label, or with a pattern laid over some of them."""

from __future__ import annotations

from torch import Tensor

from ..core.checks import check_entries, check_labels, check_shapes
from ..core.precision import full_precision

__all__ = ["color_by_label", "overlay_pattern"]


@full_precision
def color_by_label(gray: Tensor, colors: Tensor, noise: Tensor) -> Tensor:
    """Data with a bias: paint gray images.

    Args:
        gray: ``(n, 1, h, w)`` in [0, 1].
        colors: ``(n, 3)`` colors in [0, 1], those of the labels or, without bias, drawn at random.
        noise: ``(n, 3)`` added to the colors.

    Returns:
        ``(n, 3, h, w)`` in [0, 1].
    """
    check_shapes(gray=(gray, "n 1 h w"), colors=(colors, "n 3"), noise=(noise, "n 3"))
    check_entries(0, 1, gray=gray, colors=colors)
    return gray * (colors + noise).clamp(0, 1)[:, :, None, None]


@full_precision
def overlay_pattern(images: Tensor, patterns: Tensor, labels: Tensor) -> Tensor:
    """Images in which only targets carry a pattern: half the image, plus half the pattern where the label is 1.

    Args:
        images: ``(n, c, h, w)`` the common part.
        patterns: ``(n, c, h, w)`` the salient part, digits for instance.
        labels: ``(n,)`` 1 for a target, 0 for background.
    """
    check_shapes(images=(images, "n c h w"), patterns=(patterns, "n c h w"), labels=(labels, "n", int))
    labels = check_labels(labels, len(images), num_classes=2)
    return 0.5 * images + 0.5 * patterns * labels[:, None, None, None]
