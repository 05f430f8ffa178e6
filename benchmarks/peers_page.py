"""The section on other libraries of the book's performance page, made from ``data/peers.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "data" / "peers.json"

ABSENT = (
    "PixPro has no counterpart in lightly, and SwAV none in pytorch-metric-learning.",
    "We found no package with LightGCL; without its contrast it is LightGCN. RecBole 1.2.1 has LightGCN, too, and "
    "calls something that SciPy no longer has.",
    "tslearn 0.10 has no contrastive loss. Two levels of COMET are losses of TS2Vec, which come from the package "
    "`ts2vec`.",
    "Of sentence-transformers, TRL and PyGCL only the part that is measured runs; the packages that their other parts "
    "import are replaced by empty ones.",
)


def number(value: float) -> str:
    """Three digits, no more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def exponent(value: float) -> str:
    """A deviation: its power of ten is what counts."""
    return f"{value:.0e}" if value else "0"


def table(head: list[str], rows: list[list[str]], text: int = 1) -> list[str]:
    """A Markdown table; the first ``text`` columns are words, the others numbers."""
    lines = [head, ["---"] * text + ["---:"] * (len(head) - text), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def measured(row: dict[str, Any]) -> list[str]:
    """Time and memory of either side at one size."""
    cells = [f"{row['name']}, {row['package']}", row["size"]]
    for unit in ("milliseconds", "peak_mib"):
        ours, peer = row[unit]["ours"], row[unit]["peer"]
        cells += [number(peer), number(ours), f"**{number(peer / ours)}**"]
    return cells


def compared(rows: list[dict[str, Any]]) -> list[str]:
    """What was called, how far the sides are apart over all sizes, and what is not the same."""
    first = rows[0]
    apart = [exponent(max(row["deviation"][kind] for row in rows)) for kind in ("value", "gradient")]
    return [first["name"], f"`{first['ours']}`", f"`{first['peer']}`", first["note"] or "–", *apart]


def section(result: dict[str, Any]) -> list[str]:
    """The lines of the section for what was measured on one device."""
    rows = result["rows"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    versions = ", ".join(f"{package} {result['machine'][package]}" for package in sorted({r["package"] for r in rows}))
    return [
        "### Beside what people use for it",
        "",
        "One forward and one backward pass in float32. The sides take turns in one process; times are medians, memory "
        f"is the allocator's peak in one pass. A ratio below 1 means that ours is slower or needs more. {versions}.",
        "",
        *table(
            [
                "what, other side",
                "size",
                "theirs, ms",
                "ours, ms",
                "times faster",
                "theirs, MiB",
                "ours, MiB",
                "times less",
            ],
            [measured(row) for row in rows],
            text=2,
        ),
        "Before it is measured, both sides' values and gradients are compared at every size. The last two columns have "
        "the largest difference, relative to the largest entry of the tensor.",
        "",
        *table(
            ["what", "ours", "theirs", "to be known", "value", "gradient"],
            [compared([row for row in rows if row["name"] == name]) for name in names],
            text=4,
        ),
        "What is not in the table:",
        "",
        *[f"- {line}" for line in ABSENT],
        "",
    ]


def main() -> None:
    """Print the sections of all devices."""
    for result in json.loads(RESULTS.read_text(encoding="utf-8")).values():
        print("\n".join(section(result)))


if __name__ == "__main__":
    main()
