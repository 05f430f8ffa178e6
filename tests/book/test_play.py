"""Playgrounds as a person would use them: mouse, finger, keys, run, reset, what is said, print, dark, no script."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl_teach import figures
from cl_teach.core.assignment import sinkhorn
from cl_teach.core.contrast import softmax_contrast
from cl_teach.core.preference import preference_loss
from cl_teach.core.similarity import cosine_similarity, other_view_mask, self_mask
from cl_teach.figures.play_states import pair_loss
from cl_teach.losses.dcl import dcl
from cl_teach.losses.groco import soft_sort
from cl_teach.theory.linear_byol import decoupled_flow, fixed_points
from cl_teach.theory.linear_model import two_layer_weight

F64 = torch.float64
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1200, "height": 900}
ANGLES = torch.tensor([0.2, 1.3, 2.6, 3.5, 4.4, 5.5], dtype=F64)
VECTORS = torch.tensor([[-1.8, 1.0], [-3.0, 0.2], [0.0, -1.8], [2.4, 2.4]], dtype=F64)
STATE = torch.tensor([-0.3, 0.4], dtype=F64)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


POINTS = draws(8, 5) - 0.5
SIMILARITIES = cosine_similarity(POINTS, POINTS)
SCORES = (20 * (2 * draws(6, 3) - 1)).round() / 20
PAIRS = torch.tensor([[0, 1], [2, 5], [4, 3]])
BUILD: dict[str, Callable[[], figures.Playground]] = {
    "circle": lambda: figures.play("circle", angles=ANGLES),
    "pictures": lambda: figures.play("circle", angles=ANGLES, pictures=draws(6, 8, 8), chosen=None),
    "game": lambda: figures.play(
        "game", pictures=draws(3, 6, 8, 8), pairs=PAIRS, players={"pixels": draws(3, 6, 6), "encoder": draws(3, 6, 6)}
    ),
    "masks": lambda: figures.play(
        "masks",
        similarities=SIMILARITIES,
        labels=torch.tensor([0, 0, 1, 2] * 2),
        positives=other_view_mask(4),
        candidates=~self_mask(8),
    ),
    "phase": lambda: figures.play("phase", weight_decay=0.15),
    "modes": lambda: figures.play(
        "modes",
        strength=torch.tensor([1.5, 1.1, 0.6]),
        augmentation=torch.tensor([0.1, 0.7, 0.1]),
        names=["x", "y", "z"],
    ),
    "balance": lambda: figures.play("balance", scores=SCORES),
    "sorting": lambda: figures.play("sorting", values=torch.tensor([0.1, 0.2, 0.5, 0.35]), positive=3),
    "preferences": lambda: figures.play(
        "preferences", names=["No", "Never", "Maybe", "Yes"], vectors=VECTORS, state=STATE
    ),
}
NAMES = list(BUILD)


def bare(body: str) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Playground</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f'<body style="margin:16px;font-family:sans-serif;background:#fff;color:#111"><main>{body}</main></body></html>'
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bare page for each playground, and one with three."""
    made = tmp_path_factory.mktemp("play")
    html = {name: build()._repr_html_() for name, build in BUILD.items()}
    html["three"] = html["circle"] + "<p>between</p>" + html["circle"] + html["game"]
    for name, text in html.items():
        (made / f"{name}.html").write_text(bare(text), encoding="utf-8")
    return made


@dataclass
class Table:
    """An open page and what went wrong on it."""

    page: Any
    wrong: list[str] = field(default_factory=list)

    def values(self) -> dict[str, str]:
        """What stands below the controls."""
        return self.page.evaluate(
            "() => Object.fromEntries([...document.querySelectorAll('.cl-values div')]"
            ".map(d => [d.children[0].textContent, d.children[1].textContent.replace('\\u2212', '-')]))"
        )

    def said(self) -> str:
        """The sentence that is announced, once it has settled."""
        self.page.wait_for_timeout(450)
        return self.page.inner_text(".cl-say").replace("\u2212", "-")

    def numbers(self, selector: str = "[role=slider]") -> list[float]:
        """Where the handles are."""
        return self.page.eval_on_selector_all(selector, "all => all.map(e => +e.getAttribute('aria-valuenow'))")

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def middle(self, selector: str, k: int = 0) -> tuple[float, float]:
        box = self.page.locator(selector).nth(k).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        mouse.move(*end)
        mouse.up()

    def slide(self, label: str, value: float) -> None:
        """Set a slider to a value on its own scale."""
        self.page.get_by_label(label).evaluate(
            "(s, v) => { s.value = v; s.dispatchEvent(new Event('input', {bubbles: true})); }", value
        )


@pytest.fixture
def table(browser: Any, folder: Path) -> Iterator[Callable[..., Table]]:
    """Opens pages; in the end nothing may have gone wrong on any of them."""
    opened: list[Table] = []

    def open_page(name: str, size: dict[str, int] = DESK, calm: bool = True, **options: Any) -> Table:
        motion = "reduce" if calm else "no-preference"
        context = browser.new_context(viewport=size, reduced_motion=motion, **options)
        result = Table(context.new_page())
        opened.append(result)

        def guard(route: Any) -> None:
            if not route.request.url.startswith(("file:", "data:", "blob:")):
                result.wrong.append(route.request.url)
            route.continue_()

        context.route("**/*", guard)
        result.page.on("console", lambda m: result.wrong.append(m.text) if m.type in ("error", "warning") else None)
        result.page.on("pageerror", lambda error: result.wrong.append(str(error)))
        result.page.goto(f"file://{folder}/{name}.html")
        return result

    yield open_page
    wrong = [each.wrong for each in opened]
    for each in opened:
        each.page.context.close()
    assert not any(wrong), wrong


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_wakes_states_its_values_and_fits(name: str, table: Callable[..., Table]) -> None:
    for size in (DESK, PHONE):
        opened = table(name, size)
        page = opened.page
        assert page.locator(".cl-alive").count() == 1
        assert not page.locator(".cl-play > img").is_visible()
        assert len(opened.said().split()) > 8
        assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
        small = page.evaluate(
            """() => [...document.querySelectorAll('.cl-live button, .cl-pick, .cl-handle, .cl-live input[type=range]')]
              .map(e => [e.getBoundingClientRect(), e.getAttribute('aria-label') || e.textContent])
              .filter(([r]) => Math.min(r.width, r.height) < 23).map(([r, n]) => `${n} ${r.width} ${r.height}`)"""
        )
        assert small == [], "too small for a finger"


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious_in_light_and_dark(name: str, table: Callable[..., Table]) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="install it with `make book`")
    page = table(name).page
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    for dark in (False, True):
        if dark:
            page.evaluate("() => { document.body.style.background = '#121212'; document.body.style.color = '#eee'; }")
            page.wait_for_selector(".cl-dark")
            page.wait_for_timeout(500)
        report = page.evaluate("() => axe.run({resultTypes: ['violations']})")
        grave = [
            f"{v['id']}: {v['help']} {v['nodes'][0]['target']} {v['nodes'][0]['html'][:150]}"
            for v in report["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert grave == [], "dark" if dark else "light"


@pytest.mark.parametrize("name", ["circle", "game"])
def test_paper_and_pages_without_scripts_show_the_still_picture(name: str, table: Callable[..., Table]) -> None:
    opened = table(name)
    opened.page.emulate_media(media="print")
    assert opened.page.locator(".cl-play > img").is_visible()
    assert not opened.page.locator(".cl-live").is_visible()
    silent = table(name, java_script_enabled=False).page
    assert silent.locator(".cl-play > img").is_visible()
    assert silent.locator(".cl-live").count() == 0


def test_several_on_a_page_do_not_disturb_one_another(table: Callable[..., Table]) -> None:
    page = table("three").page
    assert page.locator(".cl-alive").count() == 3
    first, second = page.locator(".cl-alive").nth(0), page.locator(".cl-alive").nth(1)
    first.get_by_text("DCL", exact=True).click()
    assert first.get_by_label("DCL").is_checked()
    assert second.get_by_label("InfoNCE").is_checked()
    assert first.locator("dd").nth(1).inner_text() == f"{math.log(4):.3f}"
    assert second.locator("dd").nth(1).inner_text() == f"{math.log(5):.3f}"


def test_it_wakes_where_a_front_end_inserts_html_and_runs_scripts_later(table: Callable[..., Table]) -> None:
    """As JupyterLab does: HTML by innerHTML, scripts made anew while nothing hangs in the page yet."""
    page = table("circle").page
    page.evaluate(
        """() => {
          const figure = document.querySelector('figure'), host = document.createElement('div');
          figure.classList.remove('cl-alive');
          figure.querySelector('.cl-live').remove();
          host.innerHTML = figure.outerHTML;
          for (const old of host.querySelectorAll('script')) {
            const fresh = document.createElement('script');
            fresh.textContent = old.textContent;
            old.replaceWith(fresh);
          }
          document.querySelector('main').replaceChildren(host);
        }"""
    )
    assert page.locator(".cl-alive .cl-live svg").count() == 1


# --- the mathematics again, in this browser ---------------------------------------------------------------------------


def in_browser(page: Any, name: str, function: str, *arguments: Any) -> Any:
    return page.evaluate("([n, f, a]) => clPlay.math[n][f](...a)", [name, function, json.loads(json.dumps(arguments))])


def test_the_mathematics_is_that_of_cl_teach(table: Callable[..., Table]) -> None:
    def close(found: Any, expected: Any) -> None:
        torch.testing.assert_close(
            torch.as_tensor(found, dtype=F64), torch.as_tensor(expected, dtype=F64), rtol=1e-9, atol=1e-9
        )

    page = table("circle").page
    for loss in ("InfoNCE", "DCL", "without negatives"):
        close(in_browser(page, "circle", "terms", ANGLES.tolist(), 0.3, loss)["loss"], pair_loss(ANGLES, 0.3, loss))
    page = table("masks").page
    cells = ((~self_mask(8)).int() + other_view_mask(4).int()).tolist()
    rows = in_browser(page, "masks", "rows", SIMILARITIES.tolist(), cells, 0.3, "out", False)
    expected = softmax_contrast(SIMILARITIES / 0.3, other_view_mask(4), ~self_mask(8), reduction="none")
    close([row["loss"] for row in rows], expected)
    page = table("phase").page
    settings = {"decay": 0.1, "rate": 2.0, "noise": 0.3, "ema": None}
    p, s = torch.tensor([0.4], dtype=F64), torch.tensor([0.2], dtype=F64)
    flow = decoupled_flow(p, s, weight_decay=0.1, predictor_rate=2.0, noise=0.3)
    close(in_browser(page, "phase", "plane", 0.4, 0.2, settings), [flow[0].item(), flow[1].item()])
    page = table("modes").page
    c, m = torch.tensor([0.7], dtype=F64), torch.tensor([1.3], dtype=F64)
    close(
        in_browser(page, "modes", "two", 9.0, 0.7, 1.3, 0.02),
        two_layer_weight(9 * torch.ones_like(c), c, m, 0.02)[0, 0],
    )
    close(in_browser(table("balance").page, "balance", "sinkhorn", SCORES.tolist(), 0.1, 3), sinkhorn(SCORES, 0.1, 3))
    values = draws(5)
    close(in_browser(table("sorting").page, "sorting", "sort", values.tolist(), 3.0)["P"], soft_sort(values, 3.0)[1])
    log_p = (VECTORS @ STATE).log_softmax(0)
    given = {"chosen": 0, "rejected": 1, "beta": 0.3, "reference": 0.5}
    model = {"W": VECTORS.tolist(), "h": STATE.tolist()}
    found = in_browser(table("preferences").page, "preferences", "loss", model, "DPO", given)
    close(found["loss"], preference_loss(log_p[0] - log_p[1], 0.5, 0.3))


# --- the circle -------------------------------------------------------------------------------------------------------


def loss_of(opened: Table, loss: str = "InfoNCE", temperature: float = 0.5) -> float:
    angles = torch.tensor(opened.numbers(), dtype=F64) * math.pi / 180
    return pair_loss(angles, temperature, loss).item()


def test_circle_a_point_is_dragged_and_the_loss_follows(table: Callable[..., Table]) -> None:
    opened = table("circle")
    before = opened.numbers()
    assert float(opened.values()["loss"]) == pytest.approx(loss_of(opened), abs=1e-3)
    box = opened.page.locator(".cl-panel svg").bounding_box()
    center = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    opened.drag(opened.middle("[role=slider]", 1), (center[0] - 100, center[1]))
    after = opened.numbers()
    assert after[1] == pytest.approx(180, abs=2)
    assert after[:1] + after[2:] == before[:1] + before[2:]
    assert float(opened.values()["loss"]) == pytest.approx(loss_of(opened), abs=1e-3)
    assert opened.values()["loss"] in opened.said()


def test_circle_by_finger_on_a_phone(table: Callable[..., Table]) -> None:
    opened = table("circle", PHONE, has_touch=True)
    x, y = opened.middle("[role=slider]", 2)
    cdp = opened.page.context.new_cdp_session(opened.page)
    scrolled = opened.page.evaluate("() => scrollY")
    for kind, points in (
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x + 20, "y": y + 60}]),
        ("touchMove", [{"x": x + 40, "y": y + 150}]),
        ("touchEnd", []),
    ):
        cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert 170 < opened.numbers()[2] < 250
    assert opened.page.evaluate("() => scrollY") == scrolled


def test_circle_by_keyboard(table: Callable[..., Table]) -> None:
    opened = table("circle")
    opened.page.locator("[role=slider]").first.focus()
    keys = opened.page.keyboard
    before = opened.numbers()
    keys.press("ArrowRight")
    assert opened.numbers()[0] == pytest.approx(before[0] + 3, abs=0.01)
    keys.press("Shift+ArrowLeft")
    assert opened.numbers()[0] == pytest.approx((before[0] - 12) % 360, abs=0.01)
    keys.press("ArrowUp")
    focused = "() => document.activeElement.getAttribute('aria-label')"
    assert opened.page.evaluate(focused) == "point B1"
    assert opened.page.eval_on_selector_all("[role=slider]", "all => all.filter(e => e.tabIndex === 0).length") == 1
    keys.press("Tab")
    assert opened.page.evaluate("() => document.activeElement.type") == "radio"


@pytest.mark.parametrize("loss", ["InfoNCE", "DCL", "without negatives"])
def test_circle_runs_to_rest_and_is_reset(loss: str, table: Callable[..., Table]) -> None:
    opened = table("circle")
    first = opened.numbers()
    opened.page.get_by_text(loss, exact=True).click()
    before = float(opened.values()["loss"])
    opened.button("Run").click()
    assert float(opened.values()["loss"]) < before
    assert float(opened.values()["loss"]) == pytest.approx(loss_of(opened, loss), abs=1e-3)
    assert "At rest" in opened.said()
    assert float(opened.values()["alignment"]) < 0.05
    opened.button("Reset").click()
    assert opened.numbers() == first
    assert opened.page.get_by_label("InfoNCE").is_checked()


def test_circle_collapse_is_a_guess(table: Callable[..., Table]) -> None:
    opened = table("circle")
    opened.button("All together").click()
    values = opened.values()
    assert values["loss"] == values["all in one point"] == f"{math.log(5):.3f}"
    opened.button("Run").click()
    assert float(opened.values()["loss"]) < math.log(5) - 0.2


def test_circle_temperature(table: Callable[..., Table]) -> None:
    opened = table("circle")
    opened.slide("temperature", -1)
    temperature = 10 ** float(opened.page.get_by_label("temperature").input_value())  # the nearest step
    assert float(opened.values()["loss"]) == pytest.approx(loss_of(opened, temperature=temperature), abs=1e-3)
    assert opened.page.get_by_label("temperature").get_attribute("aria-valuetext") == "0.10"


def test_circle_moves_pauses_and_moves_on(table: Callable[..., Table]) -> None:
    opened = table("circle", calm=False)
    run = opened.page.locator(".cl-run")
    first = opened.numbers()
    run.click()
    opened.page.wait_for_function(
        f"() => +document.querySelector('[role=slider]').getAttribute('aria-valuenow') !== {first[0]}"
    )
    assert run.inner_text() == "Pause"
    run.click()
    assert run.inner_text() == "Run"
    stopped = opened.numbers()
    opened.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert opened.numbers() == stopped
    opened.button("Step").click()
    assert opened.numbers() != stopped


# --- the others -------------------------------------------------------------------------------------------------------


def test_game_is_won_by_who_knows_the_pairs(table: Callable[..., Table]) -> None:
    opened = table("game")
    for number, (a, b) in enumerate(PAIRS.tolist()):
        opened.button(f"picture {'ABCDEF'[a]}").click()
        assert f"Chosen: {'ABCDEF'[a]}" in opened.said()
        opened.page.keyboard.press("Tab")
        opened.button(f"picture {'ABCDEF'[b]}").press("Enter")
        assert opened.said().startswith("Right")
        if number < 2:
            opened.button("Next round").click()
    assert "The end: you 3" in opened.said()
    assert opened.button("Next round").is_disabled()
    opened.button("Start over").click()
    opened.button("picture A").click()
    opened.button("picture A").click()  # taken back
    opened.button("picture A").click()
    opened.button("picture C").click()
    assert "A and B belong together" in opened.said()
    assert opened.page.get_by_role("button", name="picture A, belongs").count() == 1


def test_masks_name_and_value_follow_the_cells(table: Callable[..., Table]) -> None:
    opened = table("masks")
    title = opened.page.locator(".cl-title")
    s = SIMILARITIES / 0.5
    assert title.inner_text() == "NT-Xent"
    expected = softmax_contrast(s, other_view_mask(4), ~self_mask(8)).item()
    assert float(opened.values()["mean loss"]) == pytest.approx(expected, abs=1e-3)
    assert float(opened.values()["a guess"]) == pytest.approx(math.log(7), abs=1e-3)
    opened.button("positives leave the sum").click()
    assert title.inner_text() == "DCL"
    assert float(opened.values()["mean loss"]) == pytest.approx(dcl(POINTS[:4], POINTS[4:], 0.5).item(), abs=1e-3)
    opened.button("positives leave the sum").click()
    cell = opened.page.get_by_role("button", name=re.compile("^row A, column A,"))
    cell.click()
    assert title.inner_text() == "no loss with a name"
    for k in range(1, 8):
        opened.page.get_by_role("button", name=re.compile(f"^row {'ABCDEFGH'[k]}, column {'ABCDEFGH'[k]},")).press("c")
    assert "may choose itself" in title.inner_text()
    expected = softmax_contrast(s, other_view_mask(4)).item()
    assert float(opened.values()["mean loss"]) == pytest.approx(expected, abs=1e-3)
    opened.button("Clear").click()
    assert opened.values()["anchors"] == "0"
    cell.focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("p")
    assert "positive" in opened.page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert opened.values()["anchors"] == "1"
    assert "loss 0.00" in opened.said()
    opened.button("Reset").click()
    assert title.inner_text() == "NT-Xent"


def test_phase_plane_follows_a_start(table: Callable[..., Table]) -> None:
    opened = table("phase")
    rest = fixed_points(weight_decay=0.15, noise=0.2)
    assert opened.values()["watershed"] == f"{rest.unstable:.2f}"
    assert opened.values()["this start"] == "collapses"
    box = opened.page.locator(".cl-panel svg rect").first.bounding_box()
    opened.page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    assert opened.values()["start"] == "p 0.42, s 0.50"
    assert opened.values()["this start"] == "lives"
    assert "lives" in opened.said()
    opened.drag(opened.middle("[role=slider]"), (box["x"] + 0.1 * box["width"], box["y"] + 0.98 * box["height"]))
    assert opened.values()["this start"] == "collapses"
    opened.page.locator("[role=slider]").focus()
    for _ in range(4):
        opened.page.keyboard.press("Shift+ArrowUp")
    assert opened.values()["start"].startswith("p 0.03, s 0.42")
    assert opened.values()["this start"] == "lives"
    opened.slide("weight decay", 0.3)
    assert opened.values()["alive at p"] == "nowhere"
    assert "every mode collapses" in opened.said()
    opened.slide("weight decay", 0.15)
    opened.slide("EMA rate", math.log10(0.1))
    assert "at rate 0.10" in opened.said()
    opened.button("Reset").click()
    assert opened.values()["start"] == "p 0.00, s 0.05"
    opened.slide("predictor rate", math.log10(8))
    assert opened.values()["this start"] == "lives"  # a fast predictor rescues it


def test_phase_trajectory_grows_where_motion_is_welcome(table: Callable[..., Table]) -> None:
    page = table("phase", calm=False).page
    length = "() => document.querySelectorAll('.cl-panel svg svg path')[3].getAttribute('d').length"
    page.wait_for_function(f"({length})() > 3000")
    page.get_by_role("button", name="Follow again").click()
    page.wait_for_function(f"({length})() > 3000")


def test_modes_bars_are_pulled(table: Callable[..., Table]) -> None:
    opened = table("modes")
    assert "Learned in this order: x" in opened.said()
    handles = opened.page.locator("[role=slider]")
    assert handles.count() == 6
    x, y = opened.middle("[role=slider]", 0)
    box = opened.page.locator("[role=slider]").nth(0).bounding_box()
    opened.drag((x, y), (x, box["y"] + 0.6 * box["height"]))
    assert 0.2 < opened.numbers()[0] < 0.6
    assert "Learned in this order: y" in opened.said()
    handles.nth(3).focus()  # augmentation of y
    opened.page.keyboard.press("Shift+ArrowDown")
    assert opened.numbers()[3] == pytest.approx(0.45)
    opened.page.keyboard.press("ArrowRight")
    assert opened.numbers()[3] == pytest.approx(0.5)
    before = opened.values()
    opened.page.locator(".cl-pick", has_text="1").click()
    assert opened.values() != before
    opened.button("Reset").click()
    assert opened.numbers() == pytest.approx([1.5, 0.1, 1.1, 0.7, 0.6, 0.1])


def test_balance_step_by_step(table: Callable[..., Table]) -> None:
    opened = table("balance")
    codes = "all => all.map(e => +e.textContent)"
    opened.button("Half a step").click()
    totals = torch.tensor(opened.page.eval_on_selector_all(".cl-grid button", codes)).view(6, 3).sum(0)
    assert totals == pytest.approx([2, 2, 2], abs=0.05)
    opened.button("Half a step").click()
    found = torch.tensor(opened.page.eval_on_selector_all(".cl-grid button", codes), dtype=F64).view(6, 3)
    torch.testing.assert_close(found, sinkhorn(SCORES, 0.1, 1), atol=0.006, rtol=0)
    assert "Most expensive: prototype" in opened.said()
    opened.button("Ten steps").click()
    assert float(opened.values()["off balance by"]) < 0.5
    cell = opened.page.locator(".cl-grid button").nth(4)
    cell.focus()
    score = SCORES[1, 1].item()
    cell.press("+")
    assert opened.values()["chosen cell"] == f"2, 2: {min(score + 0.05, 1):.2f}"
    opened.slide("score of the chosen cell", -0.5)
    assert "score \u22120.50" in cell.get_attribute("aria-label")
    opened.slide("epsilon", 0)
    assert "start" in opened.page.inner_text(".cl-title")
    opened.button("Reset").click()
    assert opened.page.get_by_label("epsilon").get_attribute("aria-valuetext") == "0.10"


def test_sorting_numbers_are_dragged(table: Callable[..., Table]) -> None:
    opened = table("sorting")
    values = torch.tensor([0.1, 0.2, 0.5, 0.35], dtype=F64)
    spread = soft_sort(values, 1.0)[1]
    assert opened.values()["ends on top"] == f"{100 * spread[3, 3]:.0f} %"
    opened.slide("steepness", 3)
    assert float(opened.values()["ends at its place"].split()[0]) >= 99
    x, y = opened.middle("[role=slider]", 3)
    opened.drag((x, y), (x + 200, y))
    assert opened.numbers()[3] == 1
    assert float(opened.values()["ends on top"].split()[0]) >= 99
    opened.page.locator("[role=slider]").first.focus()
    opened.page.keyboard.press("ArrowRight")
    assert opened.numbers()[0] == pytest.approx(0.12)
    assert opened.values()["followed number"] == "0.12"
    opened.button("All equal").click()
    assert opened.values()["its first swap"] == "50 %"
    assert "Steepness 1000" in opened.said()
    opened.button("Reset").click()
    assert opened.numbers() == pytest.approx(values.tolist())


def test_preferences_show_displacement_and_its_cure(table: Callable[..., Table]) -> None:
    opened = table("preferences")
    assert "No 37 %" in opened.said()
    assert opened.values()["loss"] == f"{math.log(2):.3f}"
    opened.button("Run").click()
    assert "Likelihood displacement: the chosen answer No" in opened.said()
    assert "Yes has gained most" in opened.said()
    opened.button("Reset").click()
    for push in ("likelihood", "on-policy"):
        opened.page.get_by_text(push, exact=True).click()
        opened.button("Run").click()
        assert "The chosen answer No has gained" in opened.said()
        opened.button("Reset").click()
    opened.button("Yes: chosen").click()
    assert opened.button("Yes: chosen").get_attribute("aria-pressed") == "true"
    opened.button("Step").click()
    assert "The chosen answer Yes has" in opened.said()
    opened.button("Yes: rejected").click()
    assert opened.button("Yes: chosen").get_attribute("aria-pressed") == "false"
    x, y = opened.middle("[role=slider]", 1)
    before = opened.said()
    opened.drag((x, y), (x + 60, y + 40))
    assert opened.said() != before
    opened.page.locator("[role=slider]").last.focus()
    opened.page.keyboard.press("ArrowUp")
    assert opened.values()["steps"] == "0"
