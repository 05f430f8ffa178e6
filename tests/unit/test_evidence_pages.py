"""The pages of evidence: headlines on one page, every record on the page of its part."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import evidence_pages

from cl_teach import evidence
from cl_teach.survey import load, status

SLUG = "dcl"


def add_record(root: Path, slug: str = SLUG, claim_id: str = "claim", headline: bool = True, **changes: object) -> None:
    settings = dict(
        claim="It is better | always.",
        metric="kNN accuracy",
        unit="points",
        expected="higher",
        baseline_name="base",
        method_name=slug,
        seeds=[0, 1, 2],
        baseline=[0.5, 0.7, 0.6],
        method=[1.0, 1.1, 1.2],
        seconds=1,
        origin="paper",
        headline=headline,
        smallest_effect=0.05,
        effect_reason="A tenth of what the paper reports.",
        root=root,
    )
    evidence.record(slug, claim_id, **(settings | changes))


def made(root: Path) -> dict[str, str]:
    return evidence_pages.pages(status(root), root)


def test_every_method_is_named_measured_or_not(tmp_path: Path) -> None:
    add_record(tmp_path)
    add_record(tmp_path, slug="simclr")
    text = made(tmp_path)
    together = "\n".join(text.values())
    for method in load():
        assert method.name in together, method.slug
    assert f"So far: 2 records, 2 holds; 1 of the {len(load())}" in text["evidence.md"].replace("\n", " ")
    assert "## SimCLR" in text["evidence_part_1.md"]
    assert "(evidence-dcl)=" in text["evidence_part_3.md"]
    assert re.search(r"Not yet measured: CACR, iSogCLR", text["evidence_part_3.md"])
    table = [line for line in text["evidence_part_3.md"].splitlines() if "It is better" in line]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [5]
    assert "[Part 2: Theory](evidence_part_2.md): not yet measured" in text["evidence.md"]


def test_a_row_says_whether_it_is_the_headline_and_whose_it_is(tmp_path: Path) -> None:
    add_record(tmp_path, claim_id="z")
    undecided = [0.5, 0.8, 0.5]
    add_record(tmp_path, claim_id="b", headline=False, origin="post hoc", method=undecided, claim="A second look.")
    text = made(tmp_path)["evidence_part_3.md"]
    assert text.index("| **Headline.** It is better") < text.index("| *Post hoc:* A second look.")
    assert re.search(r"\*\*undecided\*\* \(about \d+ seeds would decide\)", text)


def test_the_headlines_are_adjusted_for_one_another(tmp_path: Path) -> None:
    slugs = [method.slug for method in load()][:4]
    for i, slug in enumerate(slugs):
        add_record(tmp_path, slug=slug, method=[1.0 + 0.1 * i, 1.1, 1.2])
    found = evidence.headlines(root=tmp_path)
    adjusted = evidence.holm({record.slug: record.p_value for record in found})
    text = made(tmp_path)["evidence.md"]
    for record in found:
        assert adjusted[record.slug] >= record.p_value
        (line,) = [line for line in text.splitlines() if line.startswith("|") and f"(#evidence-{record.slug})" in line]
        p = adjusted[record.slug]
        assert f"| {'< 0.001' if p < 0.001 else f'{p:.2g}'} |" in line and record.interval in line
    clear = sum(p < 0.05 for p in adjusted.values())
    assert f"The 4 headlines: 4 holds. With so many claims, some intervals miss 0 by chance; {clear} of them" in text


def test_without_headlines_there_is_no_drawing(tmp_path: Path) -> None:
    add_record(tmp_path, headline=False)
    assert "<svg" not in made(tmp_path)["evidence.md"]


def test_the_forest_shows_right_what_is_as_claimed_and_fits_its_frame(tmp_path: Path) -> None:
    add_record(tmp_path)
    add_record(tmp_path, slug="cacr", expected="lower")
    add_record(tmp_path, slug="mochi", smallest_effect=1e-4)  # far beyond the usual range
    records = {record.slug: record for record in evidence.headlines(root=tmp_path)}
    svg = evidence_pages.draw_forest(list(records.items()))
    drawn = ElementTree.fromstring(svg)
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    middles = [float(circle.attrib["cx"]) for circle in drawn.iter("circle")]
    assert middles[list(records).index("dcl")] > width / 2 > middles[list(records).index("cacr")]
    places = [float(n) for path in re.findall(r'd="([^"]*)"', svg) for n in re.findall(r"[MH](-?[\d.]+)", path)]
    assert all(0 <= place <= width for place in (*places, *middles)) and width <= 360  # a phone
    assert all(float(circle.attrib["cy"]) < height for circle in drawn.iter("circle"))
    assert drawn.attrib["aria-label"].count("holds") == 2


def test_the_drawn_interval_is_labelled_and_inside_the_picture(tmp_path: Path) -> None:
    add_record(tmp_path)
    (record,) = evidence.load(SLUG, root=tmp_path)
    svg = evidence_pages.draw_interval(record)
    assert f'aria-label="Method minus baseline: {record.interval}; holds."' in svg
    assert svg.count("<circle") == len(record.seeds) + 1
    places = [float(x) for x in re.findall(r'cx="([-\d.]+)"', svg)]
    places += [float(x) for x in re.findall(r'd="M([-\d.]+)', svg)]
    assert all(8 <= x <= 152 for x in places)
    assert "\n" not in svg
