"""Turn ``data/steps.json`` into the book's page about the cost of a step, ``book/cost_of_a_step.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cl_teach import files
from cl_teach.survey import Method
from cl_teach.survey import load as load_survey
from cl_teach.survey import parts as load_parts

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from step_costs import number, ratio, reason  # noqa: E402 - where it lies is said just above

RESULTS, PAGE = ROOT / "data" / "steps.json", ROOT / "book" / "cost_of_a_step.md"

HEAD = ("method", "n", "time, ms", "memory, MiB", "time grows", "memory grows", "beside")


def page(result: dict[str, Any], whole_step: dict[str, float], root: Path = ROOT) -> str:
    """The whole page; `whole_step` is what `resnet_step` says."""
    rows = {row["slug"]: row for row in result["methods"]}
    lines = [
        "<!-- made by benchmarks/steps_page.py from data/steps.json; `make bench` makes both anew -->",
        "# The cost of a step",
        "",
        *introduction(result, whole_step),
    ]
    for part in load_parts(root):
        chosen = [method for method in load_survey(root) if method.part == part.number and method.slug in rows]
        if chosen:
            lines += [f"## Part {part.number}: {part.name}", ""]
            lines += [f"| {' | '.join(HEAD)} |", "| --- | --- |" + " ---: |" * 4 + " --- |"]
            lines += [f"| {' | '.join(cells(method, rows[method.slug]))} |" for method in chosen]
            words = {method.name: why(rows[method.slug]) for method in chosen}
            reasons = [f"- **{name}**: {text}." for name, text in words.items() if text]
            lines += ["", *(["Why, and what is in it:", "", *reasons, ""] if reasons else [])]
    return "\n".join(lines)


def introduction(result: dict[str, Any], whole_step: dict[str, float]) -> list[str]:
    """What was measured, on what, and how much it matters."""
    machine, rows = result["machine"], result["methods"]
    dearest = sorted(rows, key=lambda row: ratio(row, "milliseconds"))
    alike = sum(ratio(row, "milliseconds") < 2 for row in rows)
    images = [row for row in rows if row["beside"] == "NT-Xent" and row["sizes"][0] == whole_step["batch"]]
    most = max(row["method"]["milliseconds"][0] for row in images)
    threads = f"{machine['threads']} thread" + ("" if machine["threads"] == "1" else "s")
    return [
        "What a method adds to a training step: one forward and one backward pass of its loss, and whatever it does "
        "after a step, with encoders as small as possible or none. Beside it stands the plain loss of its family on "
        "the same inputs. Both take turns in one process, and what is shown is the median; memory is the allocator's "
        f"peak during one step. {result['dimensions']} dimensions, float32, {machine['processor']}, {threads}, torch "
        f"{machine['torch']}.",
        "",
        "Time and memory stand for the middle of three sizes, in brackets how many times the plain step that is. "
        "*Grows* is the exponent p in $n^p$ from the middle size to the largest, mostly from 256 to 1,024: 1 is "
        "linear, 2 is every pair. At small n the calls themselves cost time, so an exponent below 1 is no discovery. "
        "NT-Xent, with all that is built on it, keeps a table of up to 512 rows whole and writes none beyond, so that "
        "its memory hardly grows from 256 pairs to 1,024.",
        "",
        f"Of {len(rows)} methods {alike} take less than twice the time of the plain step; the most, "
        f"{number(ratio(dearest[-1], 'milliseconds'))} times, is {dearest[-1]['name']}. It matters little where "
        f"there is an encoder: SimCLR with ResNet-18 on {whole_step['batch']} pictures of 32 x 32 takes "
        f"{whole_step['milliseconds']:,.0f} ms a step on one thread ([Performance](performance.md)), and of all "
        f"methods that stand beside NT-Xent none adds more than {number(most)} ms at that batch, "
        f"{number(100 * most / whole_step['milliseconds'])} %. Memory is another matter: a table of n x n is written "
        "at any width of the encoder, and at some batch size it is what no longer fits.",
        "",
    ]


def cells(method: Method, row: dict[str, Any]) -> list[str]:
    """A row of a table."""
    growth = row["method"]["growth"]
    return [
        f"[{method.name}](methods/{method.slug}.md)",
        f"{row['sizes'][1]:,} {row['n']}",
        *(f"{number(row['method'][key][1])} ({number(ratio(row, key))})" for key in ("milliseconds", "peak_mib")),
        f"{growth['milliseconds']:.1f}",
        f"{growth['peak_mib']:.1f}",
        row["beside"],
    ]


def why(row: dict[str, Any]) -> str:
    """Why it must grow as it does, and what the step contains; a last column would be a letter wide."""
    return "; ".join(words for words in (reason(row), row["note"]) if words)


def resnet_step(benchmarks: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a whole step with ResNet-18 on the processor, from ``data/benchmarks.json``."""
    speed = next(row for row in benchmarks["cpu"]["step"] if row["side"] == "cl_teach")["images_per_second"]
    return {"batch": 64, "milliseconds": 1e3 * 64 / speed}


def stored() -> str:
    """The page of what is stored."""
    benchmarks = json.loads((ROOT / "data" / "benchmarks.json").read_text(encoding="utf-8"))
    return page(json.loads(RESULTS.read_text(encoding="utf-8")), resnet_step(benchmarks))


if __name__ == "__main__":
    files.write_text(PAGE, stored())
    print(f"wrote {PAGE.relative_to(ROOT)}")
