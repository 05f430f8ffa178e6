"""The pages of methods, the reference and "Which one?", made from docstrings, the survey and the records."""

from __future__ import annotations

import importlib
from pathlib import Path

import method_pages
import pytest
import step_costs
import which_page

from cl_teach.survey import load, status

ROOT = Path(__file__).resolve().parents[2]
ROWS = {row.method.slug: row for row in status(ROOT)}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return method_pages.pages(list(ROWS.values()), ROOT, "https://example.org/repository")


@pytest.mark.parametrize("method", load(), ids=lambda method: method.slug)
def test_a_page_says_all_that_exists_of_a_method(method, pages) -> None:
    text = pages[f"methods/{method.slug}.md"]
    assert text.startswith(f"{method_pages.GENERATED}\n\n# {method.name}\n")
    assert ".. math::" in text and "**What changes and why.**" in text and "## Paper versus code" in text
    for name in method.entry_points:
        assert f"{method.module}.{name}\n" in text
    headlines = [record for record in ROWS[method.slug].evidence if record.headline]
    assert all(f"**{record.verdict}**" in text and record.claim in text for record in headlines)
    assert "@" in text and f"{{{method.cite}," in text
    assert f"[{method.name}](methods/{method.slug}.md)" in pages["methods.md"]
    assert "made by | cases |" in text
    assert step_costs.paragraph(step_costs.load(ROOT)[method.slug]) in text


def test_numbered_texts_become_lists_and_others_stay() -> None:
    text = "No code was found. (1) The sum of (a)\nand (2b). (2) A mean, see (1) above."
    assert list(method_pages.numbered(text)) == [
        "No code was found.",
        "1. The sum of (a)\n   and (2b).",
        "2. A mean, see (1) above.",
    ]
    assert list(method_pages.numbered("Nothing (1) to count.")) == ["Nothing (1) to count."]


def test_the_reference_has_every_public_module_of_the_ground_floor(pages) -> None:
    for name in method_pages.GROUND:
        folder = ROOT / "cl_teach" / name
        for file in folder.glob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
            names = method_pages.public_names(file)
            if names and not file.stem.startswith("_"):
                assert f":members: {', '.join(names)}\n" in pages[f"api/{name}.md"], file


def test_public_names_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("__all__ = ['a', 'b']\ndef b(): ...\nclass a: ...\ndef c(): ...\n")
    assert method_pages.public_names(file) == ["b", "a"]
    file.write_text("def b(): ...\ndef _c(): ...\n")
    assert method_pages.public_names(file) == ["b"]


def test_which_one_has_a_row_a_method_with_need_verdict_and_sign_of_failure() -> None:
    lines = which_page.which_page(list(ROWS.values()), step_costs.load(ROOT)).splitlines()
    rows = [line for line in lines if line.startswith("| [")]
    assert len(rows) == len(load())
    for method, line in zip(load(), rows, strict=True):
        assert line.count("|") == len(which_page.COLUMNS) + 1
        assert method.use in line and method.watch[1:] in line
        assert all(word in line for word in (*method.given, *method.trouble, *method.needs))
        assert step_costs.phrase(step_costs.load(ROOT)[method.slug]) in line


def test_the_cost_of_a_step_is_told_as_it_was_measured() -> None:
    growth = {"milliseconds": 1.3, "peak_mib": 2.0}
    method = {"milliseconds": [1.0, 4.0, 9.0], "peak_mib": [1.0, 20.0, 320.0], "growth": growth}
    plain = {"milliseconds": [1.0, 2.0, 9.0], "peak_mib": [1.0, 2.0, 9.0], "growth": growth}
    about = {
        "n": "pairs",
        "beside": "NT-Xent",
        "sizes": [64, 256, 1024],
        "why": "each pair counts",
        "note": "two views",
    }
    row = {**about, "method": method, "baseline": plain}
    assert step_costs.phrase(row) == "a step takes 2 times NT-Xent, its memory grows with n²"
    assert step_costs.paragraph(row) == (
        "At 256 pairs a step takes 4 ms and 20 MiB, NT-Xent on the same inputs 2 ms and 2 MiB. From there to 1,024, "
        "time grows as $n^{1.3}$ and memory as $n^{2.0}$: each pair counts. Measured with: two views."
    )
    plain["milliseconds"][1], growth["peak_mib"] = 3.5, 1.0
    assert step_costs.phrase(row) == "a step costs as NT-Xent"
    plain["milliseconds"][1] = 8.0
    assert step_costs.phrase(row) == "a step costs less than NT-Xent"
    growth["milliseconds"] = 1.0
    assert step_costs.reason(row) == ""


def test_an_entry_of_the_bibliography_is_whole() -> None:
    entry = method_pages.bib_entry("yeh2022decoupled", ROOT)
    assert entry.startswith("@") and entry.endswith("}") and entry.count("{") == entry.count("}")
    with pytest.raises(ValueError, match="key: 'nobody'"):
        method_pages.bib_entry("nobody", ROOT)


def test_docstrings_have_what_the_pages_show() -> None:
    for method in load():
        text, entries = method_pages.docstring(method, ROOT)
        assert text["idea"] and text["why"], method.slug
        module = importlib.import_module(method.module)
        for name, members in entries.items():
            assert all(callable(getattr(getattr(module, name), member)) for member in members), (method.slug, name)
