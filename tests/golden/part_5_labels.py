"""Adapters of Part 5: sbcl, supremix, conr."""

from __future__ import annotations

import torch
from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.core import sup_con
from cl_teach.labels.conr import conr as conr_loss
from cl_teach.labels.conr import disagreements
from cl_teach.labels.sbcl import (
    class_concentration,
    class_temperatures,
    rescale,
    sbcl_scaled,
    subclass_counts,
    subclass_terms,
    two_level_plain,
)
from cl_teach.labels.supremix import mixed_positives
from cl_teach.labels.supremix import supremix as supremix_loss

__all__ = ["conr", "sbcl", "supremix"]
