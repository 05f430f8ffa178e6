"""Part 7."""

from __future__ import annotations

import math

import torch

from cl_teach.core import clip_loss
from cl_teach.crossmodal.cwcl import cwcl
from cl_teach.crossmodal.improved_vlp import Views, clip_rocket
from cl_teach.crossmodal.more import more_loss
from cl_teach.crossmodal.one_to_k import one_to_k
from cl_teach.crossmodal.visualness import tip_clip

from . import Case, Trained, descend, in_classes, in_views, rows, trainable

SCALE = math.log(1 / 0.07)


def with_rocket(n: int) -> tuple[Trained, Trained]:
    """A global and two local views of either side."""
    z = in_views(n, 6)
    image, text = Views(z[0], z[1:3]), Views(z[3], z[4:6])
    local = torch.tensor(SCALE, requires_grad=True)
    return (
        descend(lambda: clip_rocket(image, text, SCALE, local), (*z, local)),
        descend(lambda: clip_loss(z[0], z[3], SCALE), z),
    )


def with_cwcl(n: int) -> tuple[Trained, Trained]:
    """The frozen tower's features weigh the pairs."""
    trained, frozen = trainable(n), rows(n, seed=1)
    return (
        descend(lambda: cwcl(trained, frozen, SCALE), (trained,)),
        descend(lambda: clip_loss(frozen, trained, SCALE), (trained,)),
    )


def with_null(n: int) -> tuple[Trained, Trained]:
    """Every second text is not visual."""
    image, text = in_views(n)
    null, visual = trainable(1), in_classes(n, 2).bool()
    return (
        descend(lambda: tip_clip(image, text, null[0], visual, SCALE), (image, text, null)),
        descend(lambda: clip_loss(image, text, SCALE), (image, text)),
    )


def with_languages(n: int) -> tuple[Trained, Trained]:
    """Three languages; the baseline sees one."""
    image, text = trainable(n), trainable(3 * n, seed=1)
    return (
        descend(lambda: one_to_k(image, text), (image, text)),
        descend(lambda: clip_loss(image, text[::3], SCALE), (image, text)),
    )


def with_more(n: int) -> tuple[Trained, Trained]:
    """Report, X-ray and ECG; the baseline aligns two of them."""
    z = in_views(n, 3)
    return (
        descend(lambda: more_loss(*z, temperature=0.07), z),
        descend(lambda: clip_loss(z[0], z[1], SCALE), z),
    )


EVERY_PAIR = "every pair is compared"
CASES = {
    "improved-vlp": Case("pairs", "CLIP", with_rocket, EVERY_PAIR, note="a global and two local views: ten contrasts"),
    "cwcl": Case("pairs", "CLIP", with_cwcl, "a table of n x n because each pair has its own weight"),
    "visualness": Case("pairs", "CLIP", with_null, EVERY_PAIR),
    "one-to-k": Case("images", "CLIP", with_languages, EVERY_PAIR, note="captions in three languages"),
    "more": Case("patients", "CLIP", with_more, EVERY_PAIR, note="two contrasts"),
}
