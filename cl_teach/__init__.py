"""Readable, tested reference implementations of contrastive learning, and the tools that the textbook runs on."""

from importlib import import_module
from types import ModuleType

from .core import clip_loss, info_nce, nt_xent, regression_loss, sup_con
from .welcome import welcome

__version__ = "0.1.0"

__all__ = ["clip_loss", "info_nce", "nt_xent", "regression_loss", "sup_con", "welcome"]


def __getattr__(name: str) -> ModuleType:
    """``cl_teach.datasets`` and the other parts, imported when first asked for."""
    if not name.startswith("_"):
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; python -m cl_teach says what there is")
