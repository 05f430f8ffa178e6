"""Part 3, Losses: nine ways to reshape the comparison, one file each, beside the core losses they start from.

The core losses live in `cl_teach.core` and are here as well, because here one looks for them.
"""

from ..core import clip_loss, info_nce, nt_xent, regression_loss, sup_con

__all__ = ["clip_loss", "info_nce", "nt_xent", "regression_loss", "sup_con"]
