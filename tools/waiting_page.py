"""Turn ``data/chapter_cells.json`` into the book's page about waiting, ``book/where_chapters_wait.md``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from cl_teach import files
from cl_teach.survey import parts as load_parts

ROOT = Path(__file__).resolve().parent.parent
RECORD, PAGE = ROOT / "data" / "chapter_cells.json", ROOT / "book" / "where_chapters_wait.md"
# Cells that have to give a reason, and the smallest share of a cell's time that is told.
SLOWEST, LEAST = 10, 0.05

Cells = dict[str, Any]

#: Why a slow cell takes the time that it takes, by chapter and by the line that the cell is known by.
REASONS: dict[tuple[str, str], str] = {
    ("1_foundations/01_learning_by_comparison", "width, epochs = at_scale(16, 64), at_scale(10, 100)"): (
        "The chapter trains its encoder in a loop that one can read, instead of loading one, and all that follows"
        " looks at it"
    ),
    ("1_foundations/01_learning_by_comparison", "taught = ConvEncoder(width=width).to(device())"): (
        "A supervised network to compare with, then the exact nearest neighbors of six representations among all "
        "garments: their matrix products run as fast as the processor multiplies"
    ),
    ("1_foundations/02_one_softmax_many_losses", "strong, seeds = simclr_augment(1.0), range(3)"): (
        "Nine runs, three momentums with three seeds each: with one seed nobody could tell a difference between "
        "curves from chance"
    ),
    (
        "1_foundations/02_one_softmax_many_losses",
        'RECIPES = ("SimSiam", "BYOL", "no stop-gradient", "no head", "neither")',
    ): ("Fifteen runs, five recipes with three seeds each: a collapse that was seen once may be an accident"),
    ("1_foundations/03_is_it_learning", "def nt_xent_at(temperature):"): (
        "Six runs of ten epochs, each set up differently: the reader diagnoses them by their curves and needs "
        "them side by side"
    ),
    ("1_foundations/03_is_it_learning", "def scaled_by(scale, temperature=TAU, mask_self=True):"): (
        "Two more of these runs, as long as the others so that they can be compared"
    ),
    ("1_foundations/04_batches_that_fit", "folder = Path(tempfile.mkdtemp())"): (
        "Nine Python processes are started, one after another or four at once, and each imports PyTorch before it"
        " can train for a second or two. A run that is killed has to be a process of its own, and vectors are "
        "gathered only among several"
    ),
    ("1_foundations/04_batches_that_fit", "def train_with(recipe, seed, workers=8):"): (
        "Twelve runs, four ways to gather with three seeds each, because the answer is a comparison of ways and "
        "not of two runs"
    ),
    (
        "1_foundations/05_what_the_loss_knows",
        'train, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())',
    ): ("It trains the encoder whose loss is read as information in the rest of the chapter"),
    (
        "2_theory/02_linear_contrast",
        "spectral_nets = [train_network(theory.spectral_loss, seed, 4000, 0.05, 50) "
        "for seed in range(at_scale(3, 20))]",
    ): (
        "Eight networks, three of them over 4,000 small steps: theory says where gradient descent ends, so it has"
        " to get there, and with more than one seed"
    ),
    ("2_theory/04_projection_head", 'LAYERS = ["convolutions", "h", "head 1", "head 2", "z"]'): (
        "An encoder for each set of views and a linear probe for each of its layers: the question is at which "
        "layer information is lost"
    ),
    ("2_theory/05_one_operator", "LOSSES = {"): (
        "Five data sets, in each two encoders trained by InfoNCE on sampled batches: it cannot be minimized on "
        "the exact matrices as the others are"
    ),
    ("4_views/01_where_things_are", "scenes = textured_scenes(640)"): (
        "Three losses, each with an encoder of its own that sees whole scenes and with the same number of steps, "
        "to be looked at side by side"
    ),
    ("4_views/03_what_views_share", "def learn(kernel, steps=400, seed=0):"): (
        "Two translators with a critic each, trained from nothing: the difference between the two is the finding"
    ),
    ("6_language/03_writing", "text = library_text(2000)"): (
        "It reads the docstrings of Python's library and trains a language model on them for 400 steps: decoders "
        "can only be compared on a model that has something to say"
    ),
}


class Place(NamedTuple):
    """Where a cell stands: the heading above it and the heading's anchor."""

    heading: str
    anchor: str


def places(chapter: str, root: Path = ROOT) -> list[tuple[str, Place]]:
    """Source and place of every code cell of a chapter."""
    found = []
    here = Place("", "")
    for cell in json.loads((root / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            found.append((source, here))
            continue
        text = re.sub(r"(?ms)^(```|~~~).*?^\1", "", source)
        for heading in re.findall(r"(?m)^#{1,3}\s+(.+?)\s*#*$", text):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)  # a link counts as its text
            here = Place(plain, re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
    return found


def place(chapter: str, starts: str, root: Path = ROOT) -> Place | None:
    """Of the one cell that has this line; None if there is not exactly one."""
    fits = [
        where for source, where in places(chapter, root) if starts in (line.strip() for line in source.splitlines())
    ]
    return fits[0] if len(fits) == 1 else None


def title(chapter: str, root: Path = ROOT) -> str:
    """The chapter's title, with its number."""
    part, name = chapter.split("/")
    cells = json.loads((root / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    found = re.search(r"(?m)^# (.+)$", text)
    return f"{part.split('_')[0]}.{int(name.split('_')[0])} {found.group(1) if found else name}"


def what(cell: Cells) -> str:
    """What the time goes into, in words: ``50 % backward passes, 14 % convolutions; 53 % in `fit```."""
    told = [f"{100 * share:.0f} % {work}" for work, share in cell["work"].items() if share >= LEAST]
    own, share = next(iter(cell["by"].items()))
    *path, function = own.split(".")
    if path and path[-1][0].isupper():  # a method with its class
        function = f"{path[-1]}.{function}"
    where = function if " " in function else f"`{function}`"
    return f"{', '.join(told)}; {100 * share:.0f} % in {where}"


def linked(chapter: str, starts: str) -> str:
    """A link to the section in which a cell stands."""
    where = place(chapter, starts)
    if where is None:
        raise LookupError(f"{chapter}: no single cell has the line {starts!r}; make profile ONLY={chapter}")
    return f"[{where.heading}](../chapters/{chapter}.ipynb#{where.anchor})"


def seconds(value: float) -> str:
    """Whole from ten on."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def slowest(record: dict[str, Cells]) -> list[tuple[str, Cells]]:
    """The slowest cells of the book, with their chapters."""
    cells = [(chapter, cell) for chapter, entry in record.items() for cell in entry["slowest"]]
    return sorted(cells, key=lambda pair: -pair[1]["seconds"])[:SLOWEST]


def page(record: dict[str, Cells]) -> str:
    """The whole page."""
    lines = [
        "<!-- made by tools/waiting_page.py from data/chapter_cells.json; `make profile` makes both anew -->",
        "# Where chapters wait",
        "",
        *introduction(record),
        f"## The {SLOWEST} slowest cells",
        "",
    ]
    for number, (chapter, cell) in enumerate(slowest(record), 1):
        reason = REASONS[chapter, cell["starts"]]
        where = f"{title(chapter).split()[0]}, {linked(chapter, cell['starts'])}"
        lines += [f"{number}. **{seconds(cell['seconds'])} s**, {where}: {what(cell)}. {reason}."]
    lines += ["", *remains(), *optional(record)]
    for part in load_parts(ROOT):
        chapters = {name: entry for name, entry in record.items() if name.startswith(f"{part.number}_")}
        if chapters:
            lines += [f"## Part {part.number}: {part.name}", "", *table(chapters)]
    rest = {name: entry for name, entry in record.items() if name.startswith("11_")}
    return "\n".join([*lines, "## Looking back", "", *table(rest)])


def introduction(record: dict[str, Cells]) -> list[str]:
    """What was measured, and on what."""
    total = sum(entry["seconds"] for entry in record.values())
    longest = max(record, key=lambda name: record[name]["seconds"])
    machines = sorted({entry["machine"] for entry in record.values()})
    half = sorted(entry["seconds"] for entry in record.values())[len(record) // 2]
    return [
        f"All {len(record)} chapters together compute for {total / 60:.0f} minutes on one core, each in a process of "
        f"its own, half of them for less than {seconds(half)} seconds; the longest, "
        f"[{title(longest)}](../chapters/{longest}.ipynb), takes {seconds(record[longest]['seconds'])}. Here are the "
        "three slowest cells of each and what their time goes into, so that nobody waits without knowing for what.",
        "",
        f"Seconds are those of a processor ({'; '.join(machines)}), with all processes that a cell starts, so that "
        "other work on the machine does not count; it still shares caches and memory, and a quiet machine may need a "
        "fifth less. A second thread looked every 5 ms at what the cell was doing. Shares name the kind of work and, "
        "last, the function of the book's package or of the chapter in which most of it was done; shares below "
        f"{100 * LEAST:.0f} % are not told.",
        "",
    ]


def remains() -> list[str]:
    """What every chapter waits for and nobody can help."""
    return [
        "## What all chapters wait for",
        "",
        "- **The first optimizer.** PyTorch imports its compiler when the first optimizer of a process is made, which "
        "takes nearly a second, whether or not anything is compiled, and there is no setting against it. It counts in "
        "*importing libraries*.",
        "- **Movable figures.** Up to twelve pictures each. Matplotlib lays a picture out twice before it is drawn; "
        "then its colors are counted and 64 of them chosen.",
        "- **Fashion-MNIST** is unpacked each time it is asked for, a quarter of a second: the copy that comes with "
        "the book is packed tightly.",
        "- **Random draws** of noise, crops and unseen items cost a number for every entry. Cheaper ways to draw "
        "exist, and would draw others.",
        "- **Checks of arguments** show where a loop takes tens of thousands of steps with a handful of numbers, as in "
        "the threshold of chapter 2.4. Each takes microseconds, and is what tells a reader about a wrong shape.",
        "",
    ]


def optional(record: dict[str, Cells]) -> list[str]:
    """Cells that say that something is not installed, and how long they take where it is."""
    cells = [
        f"- {title(chapter).split()[0]}, {linked(chapter, starts)}: {seconds(taken)} s"
        for chapter, entry in record.items()
        for starts, taken in entry.get("optional", {}).items()
    ]
    if not cells:
        return []
    return [
        "## Cells that may do more",
        "",
        "A few cells use a language model or data from packages that do not come with the book. Without them they say "
        "so at once, and so it was measured here. Where the packages are installed these cells take:",
        "",
        *cells,
        "",
    ]


def table(chapters: dict[str, Cells]) -> list[str]:
    """Chapters with their slowest cells."""
    lines = ["| where | seconds | what the time goes into |", "| --- | ---: | --- |"]
    for chapter, entry in chapters.items():
        whole = f"[{title(chapter)}](../chapters/{chapter}.ipynb)"
        lines += [f"| **{whole}** | **{seconds(entry['seconds'])}** | {entry['cells']} cells |"]
        for cell in entry["slowest"]:
            lines += [f"| {linked(chapter, cell['starts'])} | {seconds(cell['seconds'])} | {what(cell)} |"]
    return [*lines, ""]


def stored() -> str:
    """The page of what is stored, chapters in the order of the book."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return page(dict(sorted(record.items(), key=lambda pair: [int(n) for n in re.findall(r"\d+", pair[0])])))


if __name__ == "__main__":
    files.write_text(PAGE, stored())
    print(f"wrote {PAGE.relative_to(ROOT)}")
