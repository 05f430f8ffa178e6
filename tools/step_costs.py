"""What a step of a method costs, in words made from the stored measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: A step within this factor of the plain one costs "as" it.
ALIKE = 1.3
#: An exponent of memory from here on is told; below it, constants and what is linear still show.
STEEP = 1.4


def load(root: Path) -> dict[str, dict[str, Any]]:
    """The stored rows by slug; none where nothing was measured."""
    file = root / "data" / "steps.json"
    if not file.is_file():
        return {}
    return {row["slug"]: row for row in json.loads(file.read_text(encoding="utf-8"))["methods"]}


def number(value: float) -> str:
    """Two digits, no more."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def ratio(row: dict[str, Any], key: str) -> float:
    """How many times the plain step at the middle size."""
    return row["method"][key][1] / row["baseline"][key][1]


def reason(row: dict[str, Any]) -> str:
    """Why it must grow faster than n, where it does."""
    return row["why"] if max(row["method"]["growth"].values()) > 1.1 else ""


def phrase(row: dict[str, Any]) -> str:
    """The cost in a few words."""
    times, growth = ratio(row, "milliseconds"), row["method"]["growth"]["peak_mib"]
    if times > ALIKE:
        words = f"a step takes {number(times)} times {row['beside']}"
    else:
        words = f"a step costs {'less than' if times < 1 / ALIKE else 'as'} {row['beside']}"
    if growth > STEEP:
        words += f", its memory grows with n{'³' if growth > 2.5 else '²'}"
    return words


def paragraph(row: dict[str, Any]) -> str:
    """The cost in full sentences."""
    method, plain, sizes = row["method"], row["baseline"], row["sizes"]
    growth = method["growth"]
    text = (
        f"At {sizes[1]:,} {row['n']} a step takes {number(method['milliseconds'][1])} ms and "
        f"{number(method['peak_mib'][1])} MiB, {row['beside']} on the same inputs "
        f"{number(plain['milliseconds'][1])} ms and {number(plain['peak_mib'][1])} MiB. From there to "
        f"{sizes[2]:,}, time grows as $n^{{{growth['milliseconds']:.1f}}}$ and memory as "
        f"$n^{{{growth['peak_mib']:.1f}}}$"
    )
    text += f": {reason(row)}." if reason(row) else "."
    return text + (f" Measured with: {row['note']}." if row["note"] else "")
