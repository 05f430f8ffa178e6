"""Readable, tested reference implementations of contrastive learning, and the tools that the textbook runs on."""

from .core import clip_loss, info_nce, nt_xent, regression_loss, sup_con
from .welcome import welcome

__version__ = "0.1.0"

__all__ = ["clip_loss", "info_nce", "nt_xent", "regression_loss", "sup_con", "welcome"]
