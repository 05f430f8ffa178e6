"""Every page of the built book, in a real browser, without a network: from a server and from disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup
from visits import HTML, Visit, open_page

from cl_teach.survey import load

MACHINERY = {"genindex.html", "index.html", "py-modindex.html", "proof-index.html"}
#: Of the pages that one program makes from docstrings these stand for all; the links of every page are followed.
EXAMPLES = {"methods/dcl", "methods/qcrd", "methods/wagle", "api/evidence", "api/figures"}
PAGES = [
    str(path.relative_to(HTML))
    for path in sorted(HTML.rglob("*.html"))
    if "_static" not in path.parts
    and path.name not in MACHINERY
    and (path.parent.name not in ("methods", "api") or f"{path.parent.name}/{path.stem}" in EXAMPLES)
] or ["the book is not built"]
VISITS = [
    pytest.param((how, name), id=f"{how}-{name.removesuffix('.html')}") for name in PAGES for how in ("served", "disk")
]
every_visit = pytest.mark.parametrize("visit", VISITS, indirect=True)
every_page = pytest.mark.parametrize("visit", [v for v in VISITS if v.id and v.id.startswith("served")], indirect=True)


@pytest.fixture(scope="session")
def open_visits() -> Iterator[dict[tuple[str, str], Visit]]:
    """The pages that are open now."""
    visits: dict[tuple[str, str], Visit] = {}
    yield visits
    for opened in visits.values():
        opened.page.context.close()


@pytest.fixture
def visit(
    request: pytest.FixtureRequest,
    browser: Any,
    server: str,
    html: Path,
    open_visits: dict[tuple[str, str], Visit],
) -> Visit:
    """A page opened once for all tests of it, which run one after another: see conftest.py."""
    how, name = key = request.param
    if key not in open_visits:
        for other in [k for k in open_visits if k[1] != name]:
            open_visits.pop(other).page.context.close()
        open_visits[key] = open_page(browser, server if how == "served" else f"file://{html}", name)
    return open_visits[key]


def still(page: Any) -> None:
    """Wait until the layout stands and no color fades any more."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function("() => document.getAnimations().every(each => each.playState !== 'running')")


@every_visit
def test_no_request_leaves_the_machine(visit: Visit) -> None:
    """Nor would one be prepared by a hint in the page's head."""
    hints = visit.page.eval_on_selector_all(
        "link[rel~=preconnect],link[rel~=dns-prefetch],link[rel~=prefetch],link[rel~=preload]",
        """links => links.map(l => l.href)
          .filter(h => !h.startsWith(location.origin + '/') && !h.startsWith('file:'))""",
    )
    assert visit.outside == []
    assert hints == []


@every_visit
def test_every_resource_arrives(visit: Visit) -> None:
    assert visit.failed == []
    broken = visit.page.evaluate(
        "() => [...document.images].filter(i => i.complete && i.src && !i.naturalWidth).map(i => i.src)"
    )
    assert broken == []


@every_visit
def test_console_is_silent(visit: Visit) -> None:
    assert visit.console == []


@every_visit
def test_mathematics_is_typeset(visit: Visit) -> None:
    raw, errors = visit.page.evaluate(
        """() => [
          [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container'))
            .map(m => m.textContent.slice(0, 60)),
          [...document.querySelectorAll('mjx-merror, [data-mjx-error]')]
            .map(m => m.getAttribute('data-mjx-error') || m.textContent)]"""
    )
    assert raw == []
    assert errors == []


@every_visit
def test_no_dollar_sign_of_a_formula_is_left_in_the_text(visit: Visit) -> None:
    left = visit.page.evaluate(
        """() => {
          const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), found = [];
          for (let node; node = walk.nextNode();)
            if (node.data.includes('$') && !node.parentElement.closest('pre, code, script, style, mjx-container'))
              found.push(node.data.trim().slice(0, 80));
          return found;
        }"""
    )
    assert left == []


@every_visit
def test_no_table_is_left_in_the_text(visit: Visit) -> None:
    """A table that an output gives as Markdown is a table on the page, and not its dashes and bars."""
    left = visit.page.evaluate(
        r"""() => {
          const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT), found = [];
          const dashes = /\|\s*:?[-\u2013\u2014]+:?\s*\|/;
          for (let node; node = walk.nextNode();)
            if (dashes.test(node.data) && !node.parentElement.closest('pre, code, script, style, mjx-container'))
              found.push(node.data.trim().slice(0, 80));
          return found;
        }"""
    )
    assert left == []


PICTURE = """figure => {
  const seen = e =>
    !e.hidden && getComputedStyle(e).display !== 'none' && e.getBoundingClientRect().width > 0;
  return [...figure.querySelectorAll('img, svg')].filter(seen).map(e => e.src || e.outerHTML).join('|');
}"""


@every_visit
def test_movable_figures_move(visit: Visit) -> None:
    """By keyboard and mouse; every value has a picture of its own."""
    for figure in visit.page.query_selector_all(".cl-frames"):
        slider = figure.query_selector("input[type=range]")
        assert slider is not None, "a movable figure without a slider"
        assert slider.evaluate("s => (s.labels && s.labels.length) || s.getAttribute('aria-label')"), "no label"
        low, high = (int(slider.get_attribute(name) or "0") for name in ("min", "max"))
        assert 1 <= high - low <= 11, f"2 to 12 frames, not {high - low + 1}"
        slider.scroll_into_view_if_needed()
        start = int(slider.input_value())
        first = figure.evaluate(PICTURE)
        assert first, "no picture before the slider is touched"
        slider.focus()
        visit.page.keyboard.press("ArrowRight" if start < high else "ArrowLeft")
        assert figure.evaluate(PICTURE) != first, "an arrow key leaves the picture as it was"
        before = figure.evaluate(PICTURE)
        box = slider.bounding_box()
        left = int(slider.input_value()) > (low + high) / 2  # click at the far end
        visit.page.mouse.click(box["x"] + box["width"] * (0.03 if left else 0.97), box["y"] + box["height"] / 2)
        assert figure.evaluate(PICTURE) != before, "a click on the slider leaves the picture as it was"
        pictures = set()
        for value in range(low, high + 1):
            slider.evaluate("(s, v) => { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); }", value)
            pictures.add(figure.evaluate(PICTURE))
        assert len(pictures) == high - low + 1, "some values share a picture"


@every_page
def test_images_have_alt_text_that_says_something(visit: Visit) -> None:
    alts = visit.page.eval_on_selector_all(
        ".bd-article img", "all => all.map(i => [i.getAttribute('alt') || '', (i.src || '').slice(0, 80)])"
    )
    bad = [
        (alt, src) for alt, src in alts if len(alt.split()) < 2 or re.search(r"\.(png|svg|jpe?g)$|[0-9a-f]{16}", alt)
    ]
    assert bad == []


@every_page
def test_one_search_field(visit: Visit) -> None:
    shown = visit.page.evaluate(
        """() => [...document.querySelectorAll('button.search-button-field, button.search-button')]
          .filter(e => e.getBoundingClientRect().width > 0).map(e => e.className)"""
    )
    assert len(shown) <= 1


@every_page
def test_page_is_light(visit: Visit, html: Path) -> None:
    """A page and its own pictures stay under 2.5 MB; scripts and styles are shared by all pages."""
    path = html / unquote(urlsplit(visit.page.url).path).lstrip("/")
    text = path.read_text(encoding="utf-8")
    pictures = {unquote(src) for src in re.findall(r'src="([^"]*_images/[^"]+)"', text)}
    weight = path.stat().st_size + sum((path.parent / p).resolve().stat().st_size for p in pictures)
    assert weight < 2.5e6, f"{weight / 1e6:.2f} MB"


# The color of text over everything that is painted behind it, by WCAG 2's formula.
CONTRAST = r"""() => {
  const parse = c => {
    const n = (c.match(/-?[\d.]+(e-?\d+)?/g) || []).map(Number);
    const scale = c.startsWith('color(') ? 255 : 1;
    return [n[0] * scale, n[1] * scale, n[2] * scale, n.length > 3 ? n[3] : 1];
  };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const luminance = c => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = c.slice(0, 3).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    const layers = [];
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] > 0) layers.push(c);
      if (c[3] === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const bad = [];
  const root = document.querySelector('.bd-article') || document.body;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const skipped = 'script, style, svg, mjx-container, .headerlink, [hidden]';
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const e = walker.currentNode.parentElement;
    if (!text || e.closest(skipped) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    if (style.visibility === 'hidden' || parseFloat(style.opacity) === 0) continue;
    const paper = behind(e), ink = over(parse(style.color), paper);
    const [hi, lo] = [luminance(ink), luminance(paper)].sort((a, b) => b - a);
    const ratio = (hi + 0.05) / (lo + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      bad.push(`${ratio.toFixed(2)} ${text.slice(0, 40)} <${e.tagName} class="${e.className}">`);
    }
  }
  return bad;
}"""


@every_page
def test_text_is_readable_in_light_and_dark(visit: Visit) -> None:
    for theme in ("light", "dark"):
        visit.page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        still(visit.page)
        assert visit.page.evaluate(CONTRAST) == [], theme
    visit.page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")


@every_page
def test_axe_finds_no_serious_or_critical_violation(visit: Visit) -> None:
    """Deque's accessibility rules, in both themes."""
    axe = pytest.importorskip("axe_playwright_python", reason="install it with `make book`")
    if not visit.page.evaluate("() => typeof axe !== 'undefined'"):
        visit.page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    for theme in ("light", "dark"):
        visit.page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        still(visit.page)
        report = visit.page.evaluate("() => axe.run({resultTypes: ['violations']})")
        grave = [
            f"{v['id']}: {v['help']} ({v['nodes'][0]['target']}, {len(v['nodes'])} places)"
            for v in report["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert grave == [], theme
    visit.page.evaluate("() => { document.documentElement.dataset.theme = 'light'; }")


@every_page
def test_print_shows_the_text_and_not_the_furniture(visit: Visit) -> None:
    visit.page.emulate_media(media="print")
    shown = visit.page.evaluate(
        """() => {
          const seen = s => [...document.querySelectorAll(s)].some(e => e.getClientRects().length > 0);
          return {
            furniture: ['.bd-sidebar-primary', '.bd-header', '.search-button', '.theme-switch-button'].filter(seen),
            text: seen('h1, main h2, main p'),
            frames: [...document.querySelectorAll('.cl-frames')]
              .map(f => [...f.querySelectorAll('img, svg')].filter(e => e.getClientRects().length > 0).length),
          };
        }"""
    )
    visit.page.emulate_media(media="screen")
    assert shown["text"]
    assert shown["furniture"] == []
    assert all(count >= 1 for count in shown["frames"]), "a movable figure prints without a picture"


def test_first_content_waits_for_no_script(browser: Any, server: str, html: Path) -> None:
    """On a slow line the text is there before any script is."""
    for name in ("book/intro.html", max(PAGES, key=lambda name: (html / name).stat().st_size)):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        context.route(re.compile(r"\.js(\?|$)"), lambda route: route.abort())
        page.goto(f"{server}/{name}", wait_until="commit")
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        page.wait_for_selector(".bd-article h1", state="visible")
        page.wait_for_selector(".bd-article p", state="visible")
        context.close()


@every_page
def test_nothing_sticks_out_on_a_phone(visit: Visit) -> None:
    """At 360 px the page does not scroll sideways; what is wider scrolls inside its own frame."""
    size = visit.page.viewport_size
    visit.page.set_viewport_size({"width": 360, "height": 740})
    still(visit.page)
    wide, sticking = visit.page.evaluate(
        """() => {
          const scrolls = e => {
            for (e = e.parentElement; e && e !== document.body; e = e.parentElement) {
              if (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX)) return true;
            }
            return false;
          };
          const right = e => Math.round(e.getBoundingClientRect().right);
          const sticking = [...document.querySelectorAll('.bd-article *')]
            .filter(e => e.getClientRects().length && !e.closest('svg') && right(e) > 361 && !scrolls(e))
            .map(e => `${e.tagName}.${e.className.baseVal ?? e.className} ${right(e)}`);
          return [document.documentElement.scrollWidth, sticking];
        }"""
    )
    visit.page.set_viewport_size(size)
    assert wide <= 361
    assert sticking == []


def rows_shown(page: Any) -> int:
    return page.evaluate(
        "() => [...document.querySelectorAll('tbody tr')].filter(r => r.getClientRects().length).length"
    )


def test_the_survey_map_can_be_filtered_by_part_year_data_and_finding(browser: Any, server: str, html: Path) -> None:
    opened = open_page(browser, server, "book/survey_map.html")
    page = opened.page
    every = rows_shown(page)
    assert every == len(load())
    for name in ("part", "year", "data", "found"):
        select = page.locator(f".cl-filters select[name={name}]")
        values = select.evaluate("s => [...s.options].map(o => o.value)")
        assert len(values) >= 3, name
        counts = []
        for value in values[1:]:
            select.select_option(value)
            counts.append(rows_shown(page))
            assert f"{counts[-1]} of {every}" in page.locator(".cl-filters output").inner_text()
        select.select_option("")
        assert all(0 < count < every for count in counts), name
        assert sum(counts) == every if name in ("part", "year") else sum(counts) >= every
    page.locator(".cl-filters select[name=part]").select_option(index=1)
    page.locator(".cl-filters select[name=found]").select_option("holds")
    assert 0 < rows_shown(page) < every
    assert opened.console == []
    page.context.close()


def test_evidence_can_be_sorted_by_keyboard_and_filtered(browser: Any, server: str, html: Path) -> None:
    opened = open_page(browser, server, "book/evidence_part_3.html")
    page = opened.page
    head = page.locator("button.cl-sort", has_text="difference").first
    head.focus()
    read = """b => [...b.closest('table').tBodies[0].rows]
      .map(r => parseFloat(r.cells[2].textContent.replace('\u2212', '-')))"""
    page.keyboard.press("Enter")
    assert head.evaluate("b => b.closest('th').getAttribute('aria-sort')") == "ascending"
    values = head.evaluate(read)
    assert values == sorted(values) and len(values) > 2
    page.keyboard.press("Enter")
    assert head.evaluate(read) == sorted(values, reverse=True)
    every = rows_shown(page)
    page.locator(".cl-filters select[name=found]").select_option("opposite")
    assert 0 < rows_shown(page) < every
    verdicts = page.evaluate(
        """() => [...document.querySelectorAll('tbody tr')]
          .filter(r => r.getClientRects().length).map(r => r.cells[3].textContent.trim())"""
    )
    assert all(verdict.startswith("opposite") for verdict in verdicts)
    page.context.close()


@pytest.mark.parametrize("word", ["contrastive", "temperature"])
@pytest.mark.parametrize("how", ["served", "disk"])
def test_search_finds_a_word(how: str, word: str, browser: Any, server: str, html: Path) -> None:
    opened = open_page(browser, server if how == "served" else f"file://{html}", f"search.html?q={word}")
    opened.page.wait_for_selector("#search-results ul.search li", timeout=10_000)
    opened.page.wait_for_function(
        "() => !/Searching|Preparing/.test(document.querySelector('#search-results h2').innerText)"
    )
    hits = opened.page.eval_on_selector_all("#search-results ul.search li a", "all => all.map(a => a.textContent)")
    assert len(hits) >= 1
    assert (opened.outside, opened.failed, opened.console) == ([], [], [])
    opened.page.context.close()


@pytest.mark.parametrize("how", ["served", "disk"])
def test_index_leads_to_the_landing_page(how: str, browser: Any, server: str, html: Path) -> None:
    opened = open_page(browser, server if how == "served" else f"file://{html}", "index.html", settle=False)
    opened.page.wait_for_selector(".bd-article h1")
    assert opened.page.url.endswith("book/intro.html")
    opened.page.context.close()


def test_every_internal_link_and_anchor_resolves(html: Path) -> None:
    soups = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in html.rglob("*.html")
        if "_static" not in path.parts
    }
    names = {
        path: {tag.get("id") for tag in soup.find_all(id=True)} | {a.get("name") for a in soup.find_all("a")}
        for path, soup in soups.items()
    }
    dead = []
    for path, soup in soups.items():
        for link in soup.find_all("a", href=True):
            parts = urlsplit(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.exists() or (fragment and target in names and fragment not in names[target]):
                dead.append(f"{path.relative_to(html)}: {link['href']}")
    assert dead == []
