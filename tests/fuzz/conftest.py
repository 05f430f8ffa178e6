"""How many random calls: a few in ``make unit``, many in the weekly workflow (``CL_TEACH_FUZZ=weekly``)."""

import os

from hypothesis import settings

settings.register_profile("unit", max_examples=200)
settings.register_profile("weekly", max_examples=20_000, derandomize=False)
settings.load_profile("weekly" if os.environ.get("CL_TEACH_FUZZ") == "weekly" else "unit")
