"""Turn ``data/benchmarks.json`` into the book's performance page, ``book/performance.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peers_page
from peers_page import number, table

from cl_teach import files

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "data" / "benchmarks.json", ROOT / "book" / "performance.md"
DEVICES = {"cpu": "On a processor", "cuda": "On a GPU"}


Row = dict[str, Any]
USUAL = {"dim": 128, "dtype": "float32", "threads": 1}


def pairs_of_sides(rows: list[Row]) -> list[tuple[Row, Row]]:
    """Every measurement of another side with ours at the same setting."""
    setting = ("loss", "pairs", "dim", "dtype", "threads")
    ours = {tuple(row[name] for name in setting): row for row in rows if row["side"] == "cl_teach"}
    return [(row, ours[tuple(row[name] for name in setting)]) for row in rows if row["side"] != "cl_teach"]


def losses(rows: list[Row]) -> list[str]:
    """Ours beside each other implementation."""
    cells = []
    for theirs, ours in pairs_of_sides(rows):
        line = [f"{theirs['loss']}, {theirs['side']}", f"{theirs['pairs']:,}"]
        for unit in ("milliseconds", "peak_mib"):
            line += [number(theirs[unit]), number(ours[unit]), f"**{number(theirs[unit] / ours[unit])}**"]
        cells.append(line)
    units = ("theirs, ms", "ours, ms", "times faster", "theirs, MiB", "ours, MiB", "times less")
    return table(["loss, other side", "pairs", *units], cells)


def everywhere(rows: list[Row]) -> list[str]:
    """All settings: the ratio where ours does worst, and in how many cases the other side is ahead."""
    cells = []
    both = pairs_of_sides(rows)
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        for n in dict.fromkeys(row["pairs"] for row in rows):
            here = [(a, b) for a, b in both if (a["dtype"], a["pairs"]) == (dtype, n)]
            if not here:
                continue
            line = [dtype, f"{n:,}"]
            for unit in ("milliseconds", "peak_mib"):
                ratios = [(a[unit] / b[unit], a) for a, b in here if unit in a]
                least, worst = min(ratios, key=lambda pair: pair[0])
                ahead = sum(ratio < 1 for ratio, _ in ratios)
                where = f"{worst['loss']}, {worst['side']}, {worst['dim']} dimensions"
                line += [f"{number(least)} ({where})", f"{ahead} of {len(ratios)}"]
            cells.append(line)
    head = ["precision", "pairs", "least ratio of times", "theirs faster", "least ratio of memory", "theirs smaller"]
    return table(head, cells)


def section(device: str, result: dict[str, Any]) -> list[str]:
    """Everything that was measured on one kind of device."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in machine if name not in ("processor", "threads", "gpu"))
    where = machine.get("gpu", machine["processor"])
    threads = f"{machine['threads']} thread" + ("" if machine["threads"] == "1" else "s")
    lines = [f"## {DEVICES[device]}", "", f"{where}, {threads}. Versions: {versions}.", ""]
    lines += ["### Losses beside others", ""]
    usual = [row for row in result["losses"] if all(row[name] == value for name, value in USUAL.items())]
    lines += [
        "Forward and backward pass, 128 dimensions, float32, one thread, temperature 0.1. Medians of passes taken in "
        "turn in one process; memory is the allocator's peak during one pass. Sides that would need more than 8 GiB "
        "are left out of the largest batch.",
        "",
        *losses(usual),
        "### At every size, dimension, precision and number of threads",
        "",
        everywhere_text(result["losses"]),
        "",
        *everywhere(result["losses"]),
    ]
    lines += ["### Beside their own matrix products", ""]
    lines += [
        "The least that a tiled loss can cost are the products of its tiles: one forward, one again, one backward.",
        "",
    ]
    lines += table(
        ["loss", "pairs", "dimensions", "products alone, ms", "whole loss, ms", "ratio"],
        [
            [
                row["loss"],
                f"{row['pairs']:,}",
                f"{row['dim']:,}",
                number(row["products_milliseconds"]),
                number(row["milliseconds"]),
                f"{row['milliseconds'] / row['products_milliseconds']:.2f}",
            ]
            for row in result["products"]
        ],
    )
    low = {row["side"]: row["milliseconds"] for row in result["low_temperature"]}
    lines += [
        "### At temperature 0.005",
        "",
        f"1,024 pairs: plain cross-entropy takes {number(low['plain cross-entropy'])} ms, ours "
        f"{number(low['cl_teach'])} ms. Many exponentials there are so small that a processor needs a slow path for "
        "them; ours makes them exactly zero.",
        "",
        *checks(result),
        "### How far it goes",
        "",
        "NT-Xent, one forward and backward pass in a fresh process; the resident memory includes Python and torch.",
        "",
    ]
    lines += table(
        ["pairs", "seconds", "resident, MiB", "one table of similarities would be, MiB"],
        [
            [
                f"{r['pairs']:,}",
                number(r["seconds"]),
                number(r["resident_mib"]),
                number(4 * (2 * r["pairs"]) ** 2 / 2**20),
            ]
            for r in result["curve"]
        ],
    )
    lines += ["### Input", ""]
    lines += [
        "A whole SimCLR step (two views, encoder, head, NT-Xent, AdamW; batches of 256) beside the same encoder fed by "
        "lightly's transform in a DataLoader without workers.",
        "",
    ]
    lines += table(
        ["images", "share of augmentation", "ours, images/s", "lightly, images/s", "ratio"],
        [
            [
                kind,
                f"{100 * row['augmentation_share']:.0f} %",
                number(row["images_per_second"]),
                number(row["lightly_images_per_second"]),
                f"**{row['images_per_second'] / row['lightly_images_per_second']:.1f}**",
            ]
            for kind, row in result["input"].items()
        ],
    )
    if "step" in result:
        lines += step(result["step"], device)
    return lines


def everywhere_text(rows: list[Row]) -> str:
    """What was measured in all, and why half precision is another matter."""
    dims = sorted({row["dim"] for row in rows})
    threads = sorted({row["threads"] for row in rows})
    return (
        f"The same at {', '.join(map(str, dims))} dimensions and with {' and '.join(map(str, threads))} threads, "
        f"{len(rows):,} measurements. A ratio above 1 is in our favor; shown are the smallest one, and in how many of "
        "the cases the other side is ahead. In bfloat16 the others round every similarity to eight bits, of which at a "
        "temperature of 0.1 the last is four percent of an exponential. Ours round the factors of large products, "
        "where the processor has instructions for it, and keep their sums, exponentials and logarithms in float32; "
        "tables of up to 512 rows stay in float32 as a whole, which takes more room than theirs."
    )


def checks(result: dict[str, Any]) -> list[str]:
    """What it costs that every argument is looked at."""
    lines = [
        "### The price of checking",
        "",
        "NT-Xent beside the same code with no argument looked at "
        f"({', '.join({row['processor'] for row in result.get('checks', ())})}).",
        "",
    ]
    rows = [
        [
            f"{row['pairs']:,}",
            number(row["unchecked"]),
            number(row["checked"]),
            f"{100 * (row['checked'] / row['unchecked'] - 1):+.1f} %",
        ]
        for row in result.get("checks", ())
    ]
    return [*lines, *table(["pairs", "unchecked, ms", "checked, ms", "more"], rows)] if rows else []


def step(rows: list[dict[str, Any]], device: str) -> list[str]:
    """The encoder of the papers: the network takes most of the time, and ratios shrink."""
    first = rows[0]["images_per_second"]
    memory = "resident, MiB" if device == "cpu" else "allocated, MiB"
    lines = [
        "### A whole step with ResNet-18",
        "",
        "SimCLR with the encoder of the papers on pictures of CIFAR-10's shape, `pretrain` beside the loop of "
        f"lightly's documentation, each in a process of its own ({', '.join({row['processor'] for row in rows})}). The "
        "larger the encoder, the less it matters how views and loss are made: compare the ratios with those of the "
        "small encoder above. The memory of workers comes on top of that of the main process, which is shown.",
        "",
    ]
    return lines + table(
        ["side", "images/s", memory, "ours is faster by"],
        [
            [
                row["side"],
                number(row["images_per_second"]),
                number(row["mib"]),
                f"**{first / row['images_per_second']:.2f}**" if i else "",
            ]
            for i, row in enumerate(rows)
        ],
    )


def page(results: dict[str, Any], peers: dict[str, Any]) -> str:
    """The whole page, from what ``measure.py`` and ``peers.py`` have stored."""
    lines = [
        "<!-- made by benchmarks/page.py from data/benchmarks.json; `make bench` makes both anew -->",
        "# Performance",
        "",
        "What the losses of this book cost, in time and memory, beside the implementations that people use. Every "
        "figure is a measurement of `make bench`, which installs the others, takes turns with them in one process, and "
        "writes this page. How it works: [Batches that fit](../chapters/1_foundations/04_batches_that_fit).",
        "",
        "The point is not that the others are badly made; they are general where ours are not. It is what changes when "
        "a table of similarities is symmetric and never written down.",
        "",
    ]
    for device, result in results.items():
        lines += section(device, result)
        if device in peers:
            lines += peers_page.section(peers[device])
    if "cuda" not in results:
        lines += ["## On a GPU", "", "Not measured yet. `make bench` on a machine with one adds its section here.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    files.write_text(
        PAGE, page(*(json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, peers_page.RESULTS)))
    )
    print(f"wrote {PAGE.relative_to(ROOT)}")
