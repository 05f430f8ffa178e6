"""The common ground of all methods: similarity, one softmax contrast, a queue, a slow teacher, argument checks.

In order of reading: `similarity` (directions and masks), `contrast` (the one loss), `tiles` (the same for large
batches), `regression` (the loss without negatives), `assignment` (even codes), `queue` and `teacher` (the two pieces
with memory), `preference`, `ranking`, `search` and `planning` (for what is not a picture), `draws` and `checks` (random
numbers, and how bad input is answered).
"""

from .assignment import sinkhorn
from .contrast import (
    check_scale,
    check_temperature,
    clip_loss,
    info_nce,
    nt_xent,
    one_positive_contrast,
    reduce,
    siglip_loss,
    softmax_contrast,
    sup_con,
    weighted_contrast,
)
from .draws import draw_beta, draw_seed
from .precision import full_precision
from .queue import FeatureQueue
from .regression import regression_loss
from .similarity import cosine_similarity, normalize, other_view_mask, same_label_mask, self_mask
from .teacher import MomentumTeacher
from .tiles import tiled_contrast, tiling, use_tiles

__all__ = [
    "check_scale",
    "check_temperature",
    "FeatureQueue",
    "MomentumTeacher",
    "clip_loss",
    "cosine_similarity",
    "draw_beta",
    "draw_seed",
    "full_precision",
    "info_nce",
    "normalize",
    "nt_xent",
    "one_positive_contrast",
    "other_view_mask",
    "reduce",
    "regression_loss",
    "same_label_mask",
    "self_mask",
    "siglip_loss",
    "sinkhorn",
    "softmax_contrast",
    "sup_con",
    "tiled_contrast",
    "tiling",
    "use_tiles",
    "weighted_contrast",
]
