"""Import one part of a package whose other parts want packages that nobody here needs.

Sentence-transformers imports transformers, TRL imports datasets, PyGCL imports dgl, together more than a gigabyte; what
is measured here (a loss, one step) calls nothing of them. While a peer is imported, a package that is named in `ABSENT`
and not installed is an empty one: every name in it exists and does nothing. Afterward it is gone again.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

ABSENT = {
    "accelerate",
    "aiohttp",
    "datasets",
    "dgl",
    "huggingface_hub",
    "pyarrow",
    "safetensors",
    "tokenizers",
    "torch_scatter",
    "torch_sparse",
    "transformers",
    "xxhash",
}


class _Kind(ABCMeta):
    """The type of `Nothing`: attributes of the class are nothing, too."""

    def __getattr__(cls, name: str) -> Any:
        return _nothing(name)

    def __add__(cls, other: Any) -> Any:  # TRL adds to a list of its base class
        return other


class Nothing(metaclass=_Kind):
    """Stands for a class to inherit from, a function, a decorator or a flag that is false."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return _nothing(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As a decorator, say."""
        return self

    def __bool__(self) -> bool:
        return False


def _nothing(name: str) -> Any:
    if name.startswith("__"):  # Python asks for these and takes them seriously
        raise AttributeError(name)
    return type(name, (Nothing,), {})


class _Empty(ModuleType):
    __version__ = "99.0"  # newer than every version that is asked for
    __path__: list[str] = []  # a package, so that its parts can be imported

    def __getattr__(self, name: str) -> Any:
        return _nothing(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last: a package that is installed is found before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        missing = fullname.partition(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if missing else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def stand_ins() -> Iterator[None]:
    """Within, what is absent can be imported and is empty."""
    import pandas  # noqa: F401  # before: it looks for pyarrow, and would take the stand-in for the real one
    import scipy.special

    if not hasattr(scipy.special, "sph_harm"):  # gone from SciPy; kymatio imports it for three dimensions only
        scipy.special.sph_harm = None
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Empty)]:
            del sys.modules[name]
