"""One function per slug, ``adapter(quantity, inputs, params) -> dict``, collected from the parts' files.

Each ``part_<n>_<name>.py`` beside this file lists its functions in ``__all__``. A slug without a function is
reported as missing by the harness and by ``python -m cl_teach.survey``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
if str(_HERE) not in sys.path:
    sys.path.insert(0, str(_HERE))

__all__: list[str] = []
for _file in sorted(_HERE.glob("part_*.py")):
    _module = importlib.import_module(_file.stem)
    for _name in _module.__all__:
        if _name in __all__:
            raise ImportError(f"two adapters are called {_name}, the second in {_file.name}")
        globals()[_name] = getattr(_module, _name)
        __all__.append(_name)
