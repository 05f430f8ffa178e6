"""Text with a background by a value: readable with colors and without."""

import re

import pytest
from bs4 import BeautifulSoup

from cl_teach import figures

SHORT = figures.Passage("alpha 0", ("a", "<b>", "a"), (None, 0.0, 1.0))
LONG = figures.Passage("alpha 1", ("c", "d"), (0.5, 7.0))


def page(made):
    return BeautifulSoup(made._repr_html_(), "html.parser")


def test_words_are_text_and_values_show_as_background_line_and_number():
    found = page(figures.highlight([SHORT], alt="a text", quantity="penalty"))
    assert found.p.get_text() == "a <b> a" and found.find("input") is None
    depth = [re.search(r"rgba\(230,159,0,([\d.]+)\);border-bottom:([\d.]+)px", span["style"]) for span in found("span")]
    assert depth[0] is None and depth[1].groups() == ("0.00", "0.0") and depth[2].groups() == ("0.50", "3.0")
    assert found.details.p.get_text() == "<b> 0.00; a 1.00" and "penalty" in found.summary.get_text()
    assert found.find(role="group")["aria-label"] == "a text"


def test_a_slider_goes_through_several_texts_and_values_beyond_the_limits_are_the_limits():
    found = page(figures.highlight([SHORT, LONG], alt="text of {name}", label="alpha", start=1, caption="x < y"))
    groups = found("div", role="group")
    assert [g["aria-label"] for g in groups] == ["text of alpha 0", "text of alpha 1"]
    assert [g.has_attr("hidden") for g in groups] == [True, False]
    assert found.find("input")["max"] == "1" and found.find("input")["aria-valuetext"] == "alpha 1"
    assert found.figcaption.get_text() == "x < y" and "0.50);border-bottom:3.0px" in str(groups[1])


def test_text_keeps_the_color_of_the_page_so_that_it_reads_in_the_dark():
    spans = page(figures.highlight([LONG], alt="x")).find_all("span")
    assert all("color:inherit" in span["style"] for span in spans)


@pytest.mark.parametrize(
    ("passages", "options", "argument"),
    [
        ([], {}, "passages"),
        ([SHORT] * 13, {}, "passages"),
        ([figures.Passage("x", ("a",), ())], {}, "passages"),
        ([figures.Passage("x", ("a",), (float("nan"),))], {}, "passages"),
        ([SHORT], {"alt": " "}, "alt"),
        ([SHORT, LONG], {"alt": "the same"}, "alt"),
        ([SHORT], {"low": 1.0}, "low, high"),
        ([SHORT], {"start": 1}, "start"),
    ],
)
def test_what_does_not_fit_is_named(passages, options, argument):
    with pytest.raises(ValueError, match=argument):
        figures.highlight(passages, **{"alt": "a text", **options})
